//! Credit: the native credit's ERC-20 face, with EIP-3009.
//!
//! In:     transfers and approvals of the caller's; transfers that somebody else signed for.
//! Out:    the same moves of native credit, with the events that wallets and indexers look for.
//! Touches: balances of accounts, each by its own word; its own storage: allowances, used nonces, the supply at genesis.
//! Holds:  nothing is made or lost: what one account gives another has; an authorization moves money once at most, within
//!         its time, and never more than was signed for.
//! Absent: money of its own; anyone's code: a transfer calls nobody, so no wallet that is a contract is asked for a
//!         signature; permits.
//!
//! Source: ERC-20, EIP-712, EIP-3009.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall as _, SolValue as _};
use surety_types::{
    abi::{
        ICredit::{self, ICreditCalls as Calls},
        Module,
        address::CREDIT,
    },
    credit::{
        CREDIT_NAME, CREDIT_VERSION, cancel_digest, domain, receive_digest,
        signed::{ReceiveWithAuthorization, TransferWithAuthorization},
        transfer_digest,
    },
};

use super::{Call, decode, takes_no_value};
use crate::host::{GAS_HASH, GAS_HASH_WORD, GAS_RECOVER, Host, Outcome, Slot, refuse, require};

mod tag {
    /// All there is.
    pub(super) const SUPPLY: u8 = 1;
    /// Of an account and a spender: what the spender may still move.
    pub(super) const ALLOWANCE: u8 = 2;
    /// Of an authorizer and a nonce: the digest it was used by, or [`super::CANCELED`]; then what was moved.
    pub(super) const AUTHORIZATION: u8 = 3;
}

const SYMBOL: &str = "SRTY";
/// A credit is 10¹⁸ wei.
const DECIMALS: u8 = 18;
/// Stands where a digest would, of a nonce that was never used and never will be.
const CANCELED: B256 = B256::with_last_byte(1);
/// Gas of an EIP-712 digest with its domain.
const GAS_DIGEST: u64 = 3 * (GAS_HASH + 8 * GAS_HASH_WORD);

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(CREDIT, tag, keys)
}

/// Notes how much there is.
pub(crate) fn store_supply(host: &mut dyn Host, supply: U256) -> Outcome<()> {
    host.store(slot(tag::SUPPLY, &[]), supply)
}

/// Who may move how much from whom to whom, and when.
pub(super) struct Authorization {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) value: U256,
    pub(super) after: U256,
    pub(super) before: U256,
    pub(super) nonce: B256,
}

impl Authorization {
    fn transfer(&self, host: &mut dyn Host) -> Outcome<B256> {
        host.charge(GAS_DIGEST)?;
        let Authorization { from, to, value, after, before, nonce } = *self;
        let transfer =
            TransferWithAuthorization { from, to, value, validAfter: after, validBefore: before, nonce };
        Ok(transfer_digest(host.surroundings().chain_id, &transfer))
    }

    fn receive(&self, host: &mut dyn Host) -> Outcome<B256> {
        host.charge(GAS_DIGEST)?;
        let Authorization { from, to, value, after, before, nonce } = *self;
        let transfer =
            ReceiveWithAuthorization { from, to, value, validAfter: after, validBefore: before, nonce };
        Ok(receive_digest(host.surroundings().chain_id, &transfer))
    }
}

/// An [`Authorization`] of any of the calls that have one.
macro_rules! authorization {
    ($call:expr) => {
        Authorization {
            from: $call.from,
            to: $call.to,
            value: $call.value,
            after: $call.validAfter,
            before: $call.validBefore,
            nonce: $call.nonce,
        }
    };
}

fn joined(v: u8, r: B256, s: B256) -> Vec<u8> {
    [r.as_slice(), s.as_slice(), &[v]].concat()
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    takes_no_value(call)?;
    let caller = call.caller;
    let done = |()| Vec::new();
    let granted = |()| true.abi_encode();
    match decode::<Calls>(call)? {
        Calls::name(_) => Ok(CREDIT_NAME.abi_encode()),
        Calls::symbol(_) => Ok(SYMBOL.abi_encode()),
        Calls::version(_) => Ok(CREDIT_VERSION.abi_encode()),
        Calls::decimals(_) => Ok(U256::from(DECIMALS).abi_encode()),
        Calls::totalSupply(_) => Ok(host.load(slot(tag::SUPPLY, &[]))?.abi_encode()),
        Calls::balanceOf(get) => Ok(host.balance(get.account)?.abi_encode()),
        Calls::allowance(get) => Ok(host.load(allowance(get.account, get.spender))?.abi_encode()),
        Calls::DOMAIN_SEPARATOR(_) => {
            host.charge(GAS_DIGEST)?;
            Ok(domain(host.surroundings().chain_id).separator().abi_encode())
        }
        Calls::authorizationState(get) => {
            let used = host.load(nonce(get.authorizer, &get.nonce))?;
            Ok((!used.is_zero()).abi_encode())
        }
        Calls::authorizationUse(get) => {
            let at = nonce(get.authorizer, &get.nonce);
            let digest = host.load_word(at)?;
            let moved = host.load(at.after(1))?;
            Ok(ICredit::authorizationUseCall::abi_encode_returns(&ICredit::authorizationUseReturn {
                digest,
                moved,
            }))
        }
        Calls::transfer(transfer) => shift(host, caller, transfer.to, transfer.value).map(granted),
        Calls::approve(approve) => {
            host.store(allowance(caller, approve.spender), approve.value)?;
            let event = ICredit::Approval { owner: caller, spender: approve.spender, value: approve.value };
            host.emit(CREDIT, &event).map(granted)
        }
        Calls::transferFrom(transfer) => {
            let at = allowance(transfer.from, caller);
            let allowed = host.load(at)?;
            // What has no bound is not counted down.
            if allowed != U256::MAX {
                let Some(rest) = allowed.checked_sub(transfer.value) else {
                    return refuse("the transfer exceeds the allowance");
                };
                host.store(at, rest)?;
            }
            shift(host, transfer.from, transfer.to, transfer.value).map(granted)
        }
        Calls::transferWithAuthorization_0(call) => {
            anyone(host, &authorization!(call), &call.signature).map(done)
        }
        Calls::transferWithAuthorization_1(call) => {
            anyone(host, &authorization!(call), &joined(call.v, call.r, call.s)).map(done)
        }
        Calls::receiveWithAuthorization_0(call) => {
            payee(host, caller, &authorization!(call), &call.signature).map(done)
        }
        Calls::receiveWithAuthorization_1(call) => {
            payee(host, caller, &authorization!(call), &joined(call.v, call.r, call.s)).map(done)
        }
        Calls::cancelAuthorization_0(cancel) => {
            forgo(host, cancel.authorizer, cancel.nonce, &cancel.signature).map(done)
        }
        Calls::cancelAuthorization_1(cancel) => {
            let signature = joined(cancel.v, cancel.r, cancel.s);
            forgo(host, cancel.authorizer, cancel.nonce, &signature).map(done)
        }
        Calls::drawWithAuthorization(draw) => {
            let authorization = authorization!(draw);
            require(caller == authorization.to, "the caller is not the payee")?;
            require(draw.amount <= authorization.value, "the draw exceeds the authorization")?;
            let digest = authorization.transfer(host)?;
            move_by(host, &authorization, digest, &draw.signature, draw.amount).map(done)
        }
    }
}

fn allowance(account: Address, spender: Address) -> Slot {
    slot(tag::ALLOWANCE, &[account.as_slice(), spender.as_slice()])
}

fn nonce(authorizer: Address, nonce: &B256) -> Slot {
    slot(tag::AUTHORIZATION, &[authorizer.as_slice(), nonce.as_slice()])
}

/// Moves credit from an account, whose word was had, to another.
fn shift(host: &mut dyn Host, from: Address, to: Address, value: U256) -> Outcome<()> {
    // What reached these could never leave them.
    require(!to.is_zero() && Module::at(&to).is_none(), "the receiver is nobody's account")?;
    transfer(host, from, to, value)
}

/// The same, wherever to.
fn transfer(host: &mut dyn Host, from: Address, to: Address, value: U256) -> Outcome<()> {
    require(host.balance(from)? >= value, "the transfer exceeds the balance")?;
    host.pay(from, to, value)?;
    host.emit(CREDIT, &ICredit::Transfer { from, to, value })
}

fn anyone(host: &mut dyn Host, authorization: &Authorization, signature: &[u8]) -> Outcome<()> {
    let digest = authorization.transfer(host)?;
    move_by(host, authorization, digest, signature, authorization.value)
}

fn payee(
    host: &mut dyn Host,
    caller: Address,
    authorization: &Authorization,
    signature: &[u8],
) -> Outcome<()> {
    require(caller == authorization.to, "the caller is not the payee")?;
    let digest = authorization.receive(host)?;
    move_by(host, authorization, digest, signature, authorization.value)
}

/// Moves what somebody signed for a collector to receive to the module that collects it.
pub(super) fn collect(
    host: &mut dyn Host,
    authorization: &Authorization,
    signature: &[u8],
    to: Address,
) -> Outcome<()> {
    let digest = authorization.receive(host)?;
    let (from, value) = (authorization.from, authorization.value);
    use_up(host, authorization, digest, signature, value)?;
    transfer(host, from, to, value)
}

/// Moves what was signed for, or less of it, and has the nonce refused from now on.
fn move_by(
    host: &mut dyn Host,
    authorization: &Authorization,
    digest: B256,
    signature: &[u8],
    amount: U256,
) -> Outcome<()> {
    use_up(host, authorization, digest, signature, amount)?;
    shift(host, authorization.from, authorization.to, amount)
}

/// Has an authorization that is good now refused from now on, for the sake of so much.
fn use_up(
    host: &mut dyn Host,
    authorization: &Authorization,
    digest: B256,
    signature: &[u8],
    amount: U256,
) -> Outcome<()> {
    let &Authorization { from, after, before, nonce: number, .. } = authorization;
    let now = U256::from(host.surroundings().timestamp_s);
    require(now > after, "the authorization is not yet valid")?;
    require(now < before, "the authorization is expired")?;
    let at = nonce(from, &number);
    require(host.load(at)?.is_zero(), "the authorization is used or canceled")?;
    require_signer(host, &digest, signature, from)?;
    host.store_word(at, digest)?;
    host.store(at.after(1), amount)?;
    host.emit(CREDIT, &ICredit::AuthorizationUsed { authorizer: from, nonce: number })
}

fn forgo(host: &mut dyn Host, authorizer: Address, number: B256, signature: &[u8]) -> Outcome<()> {
    let at = nonce(authorizer, &number);
    require(host.load(at)?.is_zero(), "the authorization is used or canceled")?;
    host.charge(GAS_DIGEST)?;
    let digest = cancel_digest(host.surroundings().chain_id, authorizer, number);
    require_signer(host, &digest, signature, authorizer)?;
    host.store_word(at, CANCELED)?;
    host.emit(CREDIT, &ICredit::AuthorizationCanceled { authorizer, nonce: number })
}

fn require_signer(host: &mut dyn Host, digest: &B256, signature: &[u8], signer: Address) -> Outcome<()> {
    host.charge(GAS_RECOVER)?;
    let Ok(signature) = <&[u8; 65]>::try_from(signature) else {
        return refuse("a signature is not 65 bytes");
    };
    let found = host.surroundings().signer(digest, signature);
    require(!signer.is_zero() && found == Some(signer), "the authorization is not signed by its payer")
}

#[cfg(test)]
mod tests;
