//! Deposit: pays into a channel what its payer signed for.
//!
//! In:     an authorization (EIP-3009) for the escrow's collector. Out: the transaction that brought it.
//! Touches: the escrow on the ledger, through the gateway's account.
//! Holds:  a deposit is taken once, also where the request it came with was cut off; nothing is sent that the ledger would refuse
//!         as far as can be seen.
//! Absent: whether what is then in the channel is enough (`escrow`).

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolValue as _;
use surety_client::{
    channel::{ModuleCall, view},
    ledger::recover,
};
use surety_types::{
    abi::{IChannels, ICredit, Module, address::DEPOSIT_COLLECTOR},
    channel::DepositAuthorization,
    credit::receive_digest,
};

use super::{Channels, Deposit, Seen, Shown, reason};
use crate::{
    error::{ApiError, Code},
    payments::{PayError, unchecked, wire::Refusal},
};

/// A deposit must be good for so long yet, so that there is time to take it.
const MARGIN_S: u64 = 10;

impl Channels {
    /// Whether the ledger has taken this very deposit before, for a request that was cut off.
    pub(super) async fn was_paid_in(&self, shown: &Shown, deposit: &Deposit) -> Result<bool, PayError> {
        let authorization = deposit.authorization(&shown.id, shown.config.payer);
        let (authorizer, nonce) = (authorization.from, authorization.nonce);
        let used = ICredit::authorizationUseCall { authorizer, nonce };
        let used =
            view(&*self.account, Module::Credit, &used).await.map_err(|failure| unchecked(&failure))?;
        if used.digest.is_zero() {
            return Ok(false);
        }
        if used.digest == receive_digest(self.payee.chain_id, &authorization) {
            return Ok(true);
        }
        let message =
            "The deposit's authorization was canceled, or its nonce used for something else. Sign another.";
        Err(Refusal::new(reason::DEPOSIT_USED, message).into())
    }

    pub(super) async fn check_deposit(
        &self,
        shown: &Shown,
        deposit: &Deposit,
        seen: &Seen,
        promised: U256,
    ) -> Result<(), PayError> {
        let payer = shown.config.payer;
        let authorization = deposit.authorization(&shown.id, payer);
        let digest = receive_digest(self.payee.chain_id, &authorization);
        let signature = <&[u8; 65]>::try_from(&deposit.signature[..]).ok();
        if payer.is_zero() || signature.and_then(|signature| recover(&digest, signature)) != Some(payer) {
            let message = format!(
                "The deposit is not signed by {payer} for this channel, asset, chain and amount (`ReceiveWithAuthorization` to \
                 {DEPOSIT_COLLECTOR})."
            );
            return Err(Refusal::new(reason::DEPOSIT_SIGNATURE, message).into());
        }
        let now = U256::from(seen.now_s);
        if deposit.valid_after >= now {
            let message = format!(
                "The deposit is good only after {}, and the ledger's time is {now}. Sign one that is good now.",
                deposit.valid_after,
            );
            return Err(Refusal::new(reason::DEPOSIT_AFTER, message).into());
        }
        if deposit.valid_before <= now.saturating_add(U256::from(MARGIN_S)) {
            let message = format!(
                "The deposit is good until {}, and the ledger's time is {now}: it must be good for more than {MARGIN_S} s \
                 yet. Sign one that is good for {} s.",
                deposit.valid_before, self.payee.valid_s,
            );
            return Err(Refusal::new(reason::DEPOSIT_BEFORE, message).into());
        }
        let balance = ICredit::balanceOfCall { account: payer };
        let balance = view(&*self.account, Module::Credit, &balance);
        let balance = balance.await.map_err(|failure| unchecked(&failure))?;
        if balance.saturating_sub(promised) < U256::from(deposit.amount) {
            let message = format!(
                "{payer} has {balance} wei, of which {promised} are promised to this gateway for other requests; the deposit is \
                 of {}. Send credits there, or deposit less.",
                deposit.amount,
            );
            return Err(Refusal::new(reason::BALANCE, message).into());
        }
        Ok(())
    }

    /// Has the ledger take a deposit; by which transaction.
    pub(super) async fn pay_in(&self, shown: &Shown, deposit: &Deposit) -> Result<B256, PayError> {
        let data: DepositAuthorization =
            (deposit.valid_after, deposit.valid_before, deposit.salt, deposit.signature.clone().into());
        let call = IChannels::depositCall {
            config: shown.config.on_ledger(),
            amount: deposit.amount,
            collector: DEPOSIT_COLLECTOR,
            collectorData: data.abi_encode_params().into(),
        };
        let hash = self.send(vec![ModuleCall::new(Module::Escrow, &call)]).await;
        hash.map_err(|failure| match failure.refused {
            true => {
                let message = format!("The ledger refused the deposit: {}. Nothing was taken.", failure.message);
                Refusal::new(reason::DEPOSIT_FAILED, message).into()
            }
            false => {
                let message = format!(
                    "It is not known whether the ledger took the deposit, because it cannot be asked now: {}. Try again shortly \
                     with the same payment: a deposit is taken once.",
                    failure.message,
                );
                PayError::Failed(ApiError::new(Code::LedgerUnavailable, message))
            }
        })
    }
}
