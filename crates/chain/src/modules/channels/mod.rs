//! Channels: money locked by a payer, promised by vouchers, claimed and paid out to a receiver.
//!
//! In:     deposits with their value; vouchers (EIP-712, cumulative) with what is claimed of them; requests to leave.
//! Out:    payments to receivers, refunds and withdrawals to payers.
//! Touches: its own storage and balance.
//! Holds:  what is claimed on a channel only grows and never exceeds its vouchers or its balance; the module's balance
//!         covers what is not claimed and what is claimed and not settled; a payer leaves after the delay whatever the
//!         receiver does.
//! Absent: prices and what was delivered for them: payer and receiver see to it themselves, voucher by voucher.
//!
//! A channel that was opened before the chain went on under another id (`regenesis`) keeps its id and the domain its
//! vouchers are signed under; whoever names it by its configuration reaches it too. What is deposited afterwards opens
//! the channel of today's id.
//!
//! Interface and meaning are those of the x402 `batch-settlement` scheme, with native credit for a token. A voucher is
//! signed by a key: there is no payer without an authorizer, and no contract is asked for signatures.
//!
//! There are two [`House`]s by the same rules, each with its own storage, balance and domain. The channels' own pays operators
//! for orders, what audits let go; the token of its channels is zero, a deposit the value sent. The escrow stands where x402
//! clients look for theirs, in every chain; the token of its channels is the credit's ERC-20 face, a deposit what the payer
//! signed for (EIP-3009), and it pays its receivers whole.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{SolCall as _, SolInterface as _, SolStruct as _, SolValue as _};
use surety_types::{
    abi::{
        IChannels::{self, ChannelConfig, IChannelsCalls as Calls, VoucherClaim},
        address::{CHANNELS, CREDIT, DEPOSIT_COLLECTOR, ESCROW},
    },
    channel::{ChannelDigests, DepositAuthorization, deposit_nonce, signed},
};

use super::{
    Call, audits,
    credit::{self, Authorization},
    decode, takes_no_value,
};
use crate::{
    host::{GAS_HASH, GAS_HASH_WORD, GAS_RECOVER, Host, Outcome, Slot, checked, refuse, require},
    spec::MODULE_INPUT_BYTES_MAX,
    transaction::Signed,
};

mod tag {
    /// Of a channel: balance, total claimed.
    pub(super) const CHANNEL: u8 = 1;
    /// Of a channel: amount asked back, since when.
    pub(super) const WITHDRAWAL: u8 = 2;
    /// Of a channel: how many refunds by signature there were.
    pub(super) const REFUND_NONCE: u8 = 3;
    /// Of a receiver: total claimed, total settled.
    pub(super) const RECEIVER: u8 = 4;
    /// The list of chain ids under which this state was kept before.
    pub(super) const EARLIER: u8 = 5;
}

/// Gas of one EIP-712 digest.
const GAS_DIGEST: u64 = 4 * (GAS_HASH + 4 * GAS_HASH_WORD);

/// One of the two places where channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum House {
    /// Of orders.
    Channels,
    /// Of x402.
    Escrow,
}

impl House {
    fn address(self) -> Address {
        match self {
            House::Channels => CHANNELS,
            House::Escrow => ESCROW,
        }
    }

    /// How its channels name the native credit.
    fn token(self) -> Address {
        match self {
            House::Channels => Address::ZERO,
            House::Escrow => CREDIT,
        }
    }

    fn digests(self, chain_id: u64) -> ChannelDigests {
        match self {
            House::Channels => ChannelDigests::new(chain_id),
            House::Escrow => ChannelDigests::of_escrow(chain_id),
        }
    }

    fn slot(self, tag: u8, key: &[u8]) -> Slot {
        Slot::new(self.address(), tag, &[key])
    }

    /// The one at an address.
    pub(crate) fn at(address: &Address) -> Option<House> {
        [House::Channels, House::Escrow].into_iter().find(|house| house.address() == *address)
    }
}

/// The chains that both had before are noted here.
fn earlier_slot() -> Slot {
    House::Channels.slot(tag::EARLIER, &[])
}

/// Chain ids the list of earlier ones holds.
const EARLIER_MAX: u64 = 16;

/// Notes that what is there now was opened under another chain id.
pub(crate) fn remember_chain(host: &mut dyn Host, chain_id: u64) -> Outcome<()> {
    let place = host.push(earlier_slot(), U256::from(chain_id))?;
    require(place < EARLIER_MAX, "the state went on under too many chain ids")
}

/// The chain ids under which this state was kept before, the oldest first.
pub(crate) fn earlier_chains(host: &mut dyn Host) -> Outcome<Vec<u64>> {
    let list = host.page(earlier_slot(), 0, EARLIER_MAX)?;
    Ok(list.into_iter().map(|chain_id| chain_id.saturating_to()).collect())
}

/// The digests of a house's channels on those chains.
fn earlier(host: &mut dyn Host, house: House) -> Outcome<Vec<ChannelDigests>> {
    let chains = earlier_chains(host)?;
    host.charge(GAS_DIGEST * chains.len() as u64)?;
    Ok(chains.into_iter().map(|chain_id| house.digests(chain_id)).collect())
}

/// The first for which `holds`, of a configuration's channel today and those it had before, the oldest of them first;
/// today's if there is none.
fn reached(
    host: &mut dyn Host,
    house: House,
    typed: &ChannelDigests,
    config: &ChannelConfig,
    mut holds: impl FnMut(&mut dyn Host, &B256) -> Outcome<bool>,
) -> Outcome<B256> {
    for before in earlier(host, house)? {
        let id = before.channel_id(config);
        if holds(host, &id)? {
            return Ok(id);
        }
    }
    Ok(typed.channel_id(config))
}

/// Whether something in a channel is not claimed.
fn has_left(host: &mut dyn Host, house: House, id: &B256) -> Outcome<bool> {
    channel(host, house, id).map(|(balance, claimed)| balance > claimed)
}

/// When a channel's withdrawal was asked for, and how much; zero if none is under way.
fn withdrawal(host: &mut dyn Host, house: House, id: &B256) -> Outcome<(u128, u128)> {
    host.load_halves(house.slot(tag::WITHDRAWAL, id.as_slice()))
}

/// The claims that calldata makes, if it claims.
fn claims_in(input: &[u8]) -> Vec<VoucherClaim> {
    if input.len() > MODULE_INPUT_BYTES_MAX {
        return Vec::new();
    }
    match Calls::abi_decode_validate(input) {
        Ok(Calls::claim(claim)) => claim.voucherClaims,
        Ok(Calls::claimWithSignature(claim)) => claim.voucherClaims,
        _ => Vec::new(),
    }
}

/// The vouchers' signatures that calldata asks to verify: known beforehand, so that they are verified once and early.
pub(crate) fn signatures_of(house: House, chain_id: u64, input: &[u8]) -> Vec<Signed> {
    let typed = house.digests(chain_id);
    let claims = claims_in(input).into_iter();
    let signatures = claims.filter_map(|claim| {
        let signature = <[u8; 65]>::try_from(claim.signature.as_ref()).ok()?;
        let channel_id = typed.channel_id(&claim.voucher.channel);
        Some((typed.voucher(channel_id, claim.voucher.maxClaimableAmount), signature))
    });
    signatures.collect()
}

/// Where the state is that calldata's claims change.
pub(crate) fn slots_of(house: House, chain_id: u64, input: &[u8]) -> Vec<Slot> {
    let typed = house.digests(chain_id);
    let mut slots = vec![earlier_slot()];
    for claim in claims_in(input) {
        let config = &claim.voucher.channel;
        slots.push(house.slot(tag::CHANNEL, typed.channel_id(config).as_slice()));
        slots.push(house.slot(tag::RECEIVER, config.receiver.as_slice()));
    }
    slots
}

/// What an order's channel holds and what was claimed of it, together: what its payer has put there and not taken back.
pub(crate) fn held(host: &mut dyn Host, id: &B256) -> Outcome<u128> {
    Ok(channel(host, House::Channels, id)?.0)
}

/// Whether a configuration is that of an order's channel, opened today or on a chain before.
pub(crate) fn is_of(host: &mut dyn Host, config: &ChannelConfig, id: &B256) -> Outcome<bool> {
    host.charge(GAS_DIGEST)?;
    if ChannelDigests::new(host.surroundings().chain_id).channel_id(config) == *id {
        return Ok(true);
    }
    Ok(earlier(host, House::Channels)?.iter().any(|before| before.channel_id(config) == *id))
}

pub(super) fn call(host: &mut dyn Host, house: House, call: &Call<'_>) -> Outcome<Vec<u8>> {
    let decoded = decode::<Calls>(call)?;
    if house == House::Escrow || !matches!(decoded, Calls::deposit(_)) {
        takes_no_value(call)?;
    }
    match decoded {
        Calls::multicall(multicall) => {
            let bytes: usize = multicall.data.iter().map(|data| data.len()).sum();
            require(bytes <= call.data.len(), "the calls overlap")?;
            let mut results = Vec::with_capacity(multicall.data.len());
            for data in &multicall.data {
                let one = Call { caller: call.caller, value: U256::ZERO, data };
                let inner = decode::<Calls>(&one)?;
                require(
                    !matches!(inner, Calls::multicall(_) | Calls::deposit(_)),
                    "a call among several is neither a deposit nor several",
                )?;
                results.push(dispatch(host, house, call.caller, U256::ZERO, inner)?.into());
            }
            Ok(IChannels::multicallCall::abi_encode_returns(&results))
        }
        decoded => dispatch(host, house, call.caller, call.value, decoded),
    }
}

fn dispatch(
    host: &mut dyn Host,
    house: House,
    caller: Address,
    value: U256,
    call: Calls,
) -> Outcome<Vec<u8>> {
    let typed = house.digests(host.surroundings().chain_id);
    host.charge(GAS_DIGEST)?;
    let done = |()| Vec::new();
    match call {
        Calls::multicall(_) => refuse("a call among several is neither a deposit nor several"),
        Calls::deposit(deposit) => {
            match house {
                House::Channels => {
                    require(
                        deposit.collector.is_zero() && deposit.collectorData.is_empty(),
                        "there is no collector: a deposit is the value sent",
                    )?;
                    require(value == U256::from(deposit.amount), "the amount is not the value sent")?;
                }
                House::Escrow => collect(host, &typed, &deposit)?,
            }
            fund(host, house, &typed, caller, &deposit.config, deposit.amount).map(done)
        }
        Calls::claim(claim) => {
            for claim in &claim.voucherClaims {
                let config = &claim.voucher.channel;
                let entitled = caller == config.receiver || caller == config.receiverAuthorizer;
                require(entitled, "the caller is neither receiver nor receiver authorizer")?;
            }
            claim_all(host, house, &typed, caller, &claim.voucherClaims).map(done)
        }
        Calls::claimWithSignature(claim) => {
            let Some(first) = claim.voucherClaims.first() else { return refuse("nothing is claimed") };
            let authorizer = first.voucher.channel.receiverAuthorizer;
            let one = |claim: &VoucherClaim| claim.voucher.channel.receiverAuthorizer == authorizer;
            require(claim.voucherClaims.iter().all(one), "the claims have several receiver authorizers")?;
            host.charge(GAS_DIGEST * 2 * claim.voucherClaims.len() as u64)?;
            let digest = typed.claim_batch(&claim.voucherClaims);
            require_signer(
                host,
                &digest,
                &claim.authorizerSignature,
                authorizer,
                "the batch is not signed by the receiver authorizer",
            )?;
            claim_all(host, house, &typed, caller, &claim.voucherClaims).map(done)
        }
        Calls::settle(settle) => settle_for(host, house, caller, settle.receiver, settle.token).map(done),
        Calls::initiateWithdraw(initiate) => {
            let config = &initiate.config;
            require_payer(caller, config)?;
            let id = reached(host, house, &typed, config, |host, id| {
                Ok(has_left(host, house, id)? && withdrawal(host, house, id)?.0 == 0)
            })?;
            let (balance, claimed) = channel(host, house, &id)?;
            let amount = initiate.amount.min(checked(balance.checked_sub(claimed))?);
            require(amount > 0, "nothing is left to withdraw")?;
            let at = house.slot(tag::WITHDRAWAL, id.as_slice());
            let (pending, _) = withdrawal(host, house, &id)?;
            require(pending == 0, "a withdrawal is under way")?;
            let now = host.surroundings().timestamp_s;
            host.store_halves(at, amount, u128::from(now))?;
            let finalize_after = now.saturating_add(delay_s(host, config)).min((1 << 40) - 1);
            let finalize_after = alloy_primitives::aliases::U40::from(finalize_after);
            host.emit(
                house.address(),
                &IChannels::WithdrawInitiated { channelId: id, amount, finalizeAfter: finalize_after },
            )?;
            Ok(Vec::new())
        }
        Calls::finalizeWithdraw(finalize) => {
            let config = &finalize.config;
            require_payer(caller, config)?;
            let ready_at = |host: &dyn Host, initiated_at: u128| {
                u64::try_from(initiated_at).unwrap_or(u64::MAX).saturating_add(delay_s(host, config))
            };
            let now = host.surroundings().timestamp_s;
            let id = reached(host, house, &typed, config, |host, id| {
                let (asked, initiated_at) = withdrawal(host, house, id)?;
                Ok(asked > 0 && now >= ready_at(host, initiated_at))
            })?;
            let (asked, initiated_at) = withdrawal(host, house, &id)?;
            require(asked > 0, "no withdrawal is under way")?;
            require(now >= ready_at(host, initiated_at), "the delay is not over")?;
            host.store(house.slot(tag::WITHDRAWAL, id.as_slice()), U256::ZERO)?;
            let amount = take_back(host, house, &id, config.payer, asked)?;
            let event = IChannels::WithdrawFinalized { channelId: id, sender: caller, amount };
            host.emit(house.address(), &event).map(done)
        }
        Calls::refund(refund) => {
            let config = &refund.config;
            let entitled = caller == config.receiver || caller == config.receiverAuthorizer;
            require(entitled, "the caller is neither receiver nor receiver authorizer")?;
            let id = reached(host, house, &typed, config, |host, id| has_left(host, house, id))?;
            give_back(host, house, id, caller, config, refund.amount).map(done)
        }
        Calls::refundWithSignature(refund) => {
            let config = &refund.config;
            let signature = &refund.receiverAuthorizerSignature;
            let authorizer = config.receiverAuthorizer;
            let opened = opened_by(host, house, &typed, config, signature, authorizer, |typed, id| {
                typed.refund(id, refund.nonce, refund.amount)
            })?;
            let id = opened.unwrap_or_else(|| typed.channel_id(config));
            let at = house.slot(tag::REFUND_NONCE, id.as_slice());
            let nonce = host.load(at)?;
            require(refund.nonce == nonce, "the refund's nonce is not the next")?;
            require(opened.is_some(), "the refund is not signed by the receiver authorizer")?;
            host.store(at, checked(nonce.checked_add(U256::ONE))?)?;
            give_back(host, house, id, caller, config, refund.amount).map(done)
        }
        Calls::getChannelId(get) => Ok(typed.channel_id(&get.config).abi_encode()),
        Calls::CHANNEL_CONFIG_TYPEHASH(_) => {
            Ok(keccak256(signed::ChannelConfig::eip712_encode_type().as_bytes()).abi_encode())
        }
        Calls::channels(get) => {
            let (balance, claimed) = channel(host, house, &get.channelId)?;
            Ok((balance, claimed).abi_encode())
        }
        Calls::pendingWithdrawals(get) => {
            let (amount, since) = withdrawal(host, house, &get.channelId)?;
            Ok((amount, since).abi_encode())
        }
        Calls::receivers(get) => {
            let (claimed, settled) = if get.token == house.token() {
                host.load_halves(house.slot(tag::RECEIVER, get.receiver.as_slice()))?
            } else {
                (0, 0)
            };
            Ok((claimed, settled).abi_encode())
        }
        Calls::getVoucherDigest(get) => Ok(typed.voucher(get.channelId, get.maxClaimableAmount).abi_encode()),
        Calls::getRefundDigest(get) => Ok(typed.refund(get.channelId, get.nonce, get.amount).abi_encode()),
        Calls::refundNonce(get) => {
            Ok(host.load(house.slot(tag::REFUND_NONCE, get.channelId.as_slice()))?.abi_encode())
        }
        Calls::getClaimBatchDigest(get) => {
            host.charge(GAS_DIGEST * 2 * get.voucherClaims.len() as u64)?;
            Ok(typed.claim_batch(&get.voucherClaims).abi_encode())
        }
    }
}

/// A channel's balance and what is claimed of it.
fn channel(host: &mut dyn Host, house: House, id: &B256) -> Outcome<(u128, u128)> {
    host.load_halves(house.slot(tag::CHANNEL, id.as_slice()))
}

/// The delay of a channel's withdrawal: its own, or today's most if that is shorter, so that exit stays faster than any
/// change of the rules.
fn delay_s(host: &dyn Host, config: &ChannelConfig) -> u64 {
    config.withdrawDelay.to::<u64>().min(host.params().channel_delay_max_s)
}

fn require_payer(caller: Address, config: &ChannelConfig) -> Outcome<()> {
    let entitled = caller == config.payer || caller == config.payerAuthorizer;
    require(entitled, "the caller is neither payer nor payer authorizer")
}

fn is_signed(host: &mut dyn Host, digest: &B256, signature: &[u8], signer: Address) -> Outcome<bool> {
    host.charge(GAS_RECOVER)?;
    let Ok(signature) = <&[u8; 65]>::try_from(signature) else {
        return refuse("a signature is not 65 bytes");
    };
    let found = host.surroundings().signer(digest, signature);
    Ok(!signer.is_zero() && found == Some(signer))
}

fn require_signer(
    host: &mut dyn Host,
    digest: &B256,
    signature: &[u8],
    signer: Address,
    reason: &'static str,
) -> Outcome<()> {
    require(is_signed(host, digest, signature, signer)?, reason)
}

/// Which channel of a configuration a signature is for: today's, or one of a chain before. None if it is `signer`'s for
/// none of them.
fn opened_by(
    host: &mut dyn Host,
    house: House,
    typed: &ChannelDigests,
    config: &ChannelConfig,
    signature: &[u8],
    signer: Address,
    digest: impl Fn(&ChannelDigests, B256) -> B256,
) -> Outcome<Option<B256>> {
    let id = typed.channel_id(config);
    if is_signed(host, &digest(typed, id), signature, signer)? {
        return Ok(Some(id));
    }
    for before in earlier(host, house)? {
        let id = before.channel_id(config);
        if is_signed(host, &digest(&before, id), signature, signer)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Has a deposit come in from its payer, by what the payer has signed for the collector to receive.
fn collect(host: &mut dyn Host, typed: &ChannelDigests, deposit: &IChannels::depositCall) -> Outcome<()> {
    require(deposit.collector == DEPOSIT_COLLECTOR, "the collector is not that of EIP-3009 authorizations")?;
    let Ok(signed) = DepositAuthorization::abi_decode_params_validate(&deposit.collectorData) else {
        return refuse("what is given to the collector is malformed");
    };
    let (valid_after, valid_before, salt, signature) = signed;
    host.charge(GAS_DIGEST)?;
    let authorization = Authorization {
        from: deposit.config.payer,
        to: DEPOSIT_COLLECTOR,
        value: U256::from(deposit.amount),
        after: valid_after,
        before: valid_before,
        nonce: deposit_nonce(&typed.channel_id(&deposit.config), salt),
    };
    credit::collect(host, &authorization, &signature, ESCROW)
}

/// Adds value that has arrived to a channel.
fn fund(
    host: &mut dyn Host,
    house: House,
    typed: &ChannelDigests,
    sender: Address,
    config: &ChannelConfig,
    amount: u128,
) -> Outcome<()> {
    require(amount > 0, "nothing was sent")?;
    require(
        config.token == house.token(),
        match house {
            House::Channels => "a channel holds the native credit: its token is zero",
            House::Escrow => "a channel holds the native credit: its token is the credit module",
        },
    )?;
    let parties = [config.payer, config.payerAuthorizer, config.receiver, config.receiverAuthorizer];
    require(
        parties.iter().all(|party| !party.is_zero()),
        "a channel names its payer, receiver and both authorizers",
    )?;
    let delay = config.withdrawDelay.to::<u64>();
    let within = (host.params().channel_delay_min_s..=host.params().channel_delay_max_s).contains(&delay);
    require(within, "the withdrawal delay is out of bounds")?;
    let id = typed.channel_id(config);
    let (balance, claimed) = channel(host, house, &id)?;
    let balance = checked(balance.checked_add(amount))?;
    host.store_halves(house.slot(tag::CHANNEL, id.as_slice()), balance, claimed)?;
    host.emit(house.address(), &IChannels::Deposited { channelId: id, sender, amount, balance })
}

/// Claims on every channel of a batch; a claim that is not more than before is passed over.
fn claim_all(
    host: &mut dyn Host,
    house: House,
    typed: &ChannelDigests,
    sender: Address,
    claims: &[VoucherClaim],
) -> Outcome<()> {
    require(!claims.is_empty(), "nothing is claimed")?;
    // A voucher shows by its signature which of a configuration's channels it is of, where there can be several.
    let several = !earlier_chains(host)?.is_empty();
    const FOREIGN: &str = "the voucher is not signed by the payer authorizer";
    for claim in claims {
        host.charge(2 * GAS_DIGEST)?;
        let config = &claim.voucher.channel;
        let most = claim.voucher.maxClaimableAmount;
        let mut id = typed.channel_id(config);
        if several {
            let signer = config.payerAuthorizer;
            let opened = opened_by(host, house, typed, config, &claim.signature, signer, |typed, id| {
                typed.voucher(id, most)
            })?;
            let Some(opened) = opened else { return refuse(FOREIGN) };
            id = opened;
        }
        let (balance, claimed) = channel(host, house, &id)?;
        if claim.totalClaimed <= claimed {
            continue;
        }
        require(claim.totalClaimed <= most, "the claim exceeds its voucher")?;
        require(claim.totalClaimed <= balance, "the claim exceeds the channel's balance")?;
        if !several {
            require_signer(
                host,
                &typed.voucher(id, most),
                &claim.signature,
                config.payerAuthorizer,
                FOREIGN,
            )?;
        }
        let amount = claim.totalClaimed - claimed;
        host.store_halves(house.slot(tag::CHANNEL, id.as_slice()), balance, claim.totalClaimed)?;
        let receiver = house.slot(tag::RECEIVER, config.receiver.as_slice());
        let (total, settled) = host.load_halves(receiver)?;
        host.store_halves(receiver, checked(total.checked_add(amount))?, settled)?;
        host.emit(
            house.address(),
            &IChannels::Claimed { channelId: id, sender, amount, totalClaimed: claim.totalClaimed },
        )?;
    }
    Ok(())
}

/// What was ever claimed for a receiver on channels of orders, and what of it has left this module.
pub(crate) fn paid_to(host: &mut dyn Host, receiver: Address) -> Outcome<(u128, u128)> {
    host.load_halves(House::Channels.slot(tag::RECEIVER, receiver.as_slice()))
}

/// Pays somebody out of what was claimed for a receiver on channels of orders and is not paid to it yet, at most so much;
/// what that was.
pub(crate) fn pay_of_unpaid(
    host: &mut dyn Host,
    receiver: Address,
    to: Address,
    most: U256,
) -> Outcome<U256> {
    let (claimed, settled) = paid_to(host, receiver)?;
    let unpaid = checked(claimed.checked_sub(settled))?;
    let amount = u128::try_from(most).unwrap_or(u128::MAX).min(unpaid);
    if amount == 0 {
        return Ok(U256::ZERO);
    }
    let settled = checked(settled.checked_add(amount))?;
    host.store_halves(House::Channels.slot(tag::RECEIVER, receiver.as_slice()), claimed, settled)?;
    host.pay(CHANNELS, to, U256::from(amount))?;
    Ok(U256::from(amount))
}

/// Pays a receiver what was claimed for it since it was last paid; of what an operator has earned by orders, what audits let
/// go (U-7.5), less what they take. It may be nothing: the rest stays claimed.
fn settle_for(
    host: &mut dyn Host,
    house: House,
    sender: Address,
    receiver: Address,
    token: Address,
) -> Outcome<()> {
    require(
        token == house.token(),
        match house {
            House::Channels => "only the native credit is settled: the token is zero",
            House::Escrow => "only the native credit is settled: the token is the credit module",
        },
    )?;
    let at = house.slot(tag::RECEIVER, receiver.as_slice());
    let (claimed, settled) = host.load_halves(at)?;
    let amount = checked(claimed.checked_sub(settled))?;
    require(amount > 0, "nothing is to be settled")?;
    let (released, own) = match house {
        House::Channels => audits::release(host, receiver, claimed, settled)?,
        House::Escrow => (amount, amount),
    };
    host.store_halves(at, claimed, checked(settled.checked_add(released))?)?;
    if own > 0 {
        host.pay(house.address(), receiver, U256::from(own))?;
    }
    host.emit(house.address(), &IChannels::Settled { receiver, token, sender, amount: released })
}

/// Takes at most `asked` of what is not claimed out of a channel and pays it to the payer.
fn take_back(host: &mut dyn Host, house: House, id: &B256, payer: Address, asked: u128) -> Outcome<u128> {
    let (balance, claimed) = channel(host, house, id)?;
    let amount = asked.min(checked(balance.checked_sub(claimed))?);
    if amount == 0 {
        return Ok(0);
    }
    host.store_halves(house.slot(tag::CHANNEL, id.as_slice()), balance - amount, claimed)?;
    host.pay(house.address(), payer, U256::from(amount))?;
    Ok(amount)
}

/// A refund that the receiver's side grants.
fn give_back(
    host: &mut dyn Host,
    house: House,
    id: B256,
    sender: Address,
    config: &ChannelConfig,
    asked: u128,
) -> Outcome<()> {
    let amount = take_back(host, house, &id, config.payer, asked)?;
    require(amount > 0, "nothing is left to refund")?;
    host.emit(house.address(), &IChannels::Refunded { channelId: id, sender, amount })
}

#[cfg(test)]
mod tests;
