//! A survey of the ledger: what the pages for people are made of.
//!
//! In:     a ledger. Out: validators, stake, operators, workers, models, proposals; all proven.
//! Touches: the network, through the ledger.
//! Holds:  lists are bounded, and say where they were cut; what the state does not list (who delegated, which channels
//!         there are) is not guessed.
//! Absent: judging it (`powers`).

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, U256};
use surety_chain::{Params, UpgradePlan};
use surety_types::abi::{
    IChannels, IGovernance, IModels, IOperators, IStaking, Module,
    address::{CHANNELS, GOVERNANCE, MODELS, OPERATORS, STAKING},
};

use super::{Ledger, LedgerError, Tip, Viewed, Views};

/// Operators that are looked at.
pub const OPERATORS_MAX: usize = 256;
/// Models that are looked at.
pub const MODELS_MAX: usize = 256;
/// The latest proposals that are looked at.
pub const PROPOSALS_MAX: u64 = 64;
/// Accounts of the genesis whose votes are looked at.
pub(super) const ACCOUNTS_MAX: usize = 256;
/// Operators, or accounts, in one question.
const TOGETHER: usize = 8;

/// What a ledger holds, for people to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The block of the first part; the rest is as of this block or a few later.
    pub tip: Tip,
    /// As they stand.
    pub params: Params,
    /// Who votes on blocks in this epoch.
    pub validators: Vec<SurveyedValidator>,
    /// All bonds together, in wei.
    pub bonded_total: U256,
    /// Forfeited and not yet handed on, in wei.
    pub forfeited: U256,
    /// Accounts known to have bonded stake, with all they have bonded, the largest first. Stake of accounts that neither
    /// genesis nor the lists of operators name is in `bonded_total` only.
    pub voters: Vec<(Address, U256)>,
    /// Those who run workers.
    pub operators: Vec<SurveyedOperator>,
    /// How many operators there are, looked at or not.
    pub operator_count: u64,
    /// Admitted models.
    pub models: Vec<B256>,
    /// How many there are, looked at or not.
    pub model_count: u64,
    /// The latest proposals, the newest first.
    pub proposals: Vec<(u64, IGovernance::Proposal)>,
    /// The upgrade that is scheduled, or that came last.
    pub upgrade: Option<UpgradePlan>,
    /// What each module holds, in wei.
    pub modules: Vec<(Module, U256)>,
    /// What each account of the genesis has now, in wei, and why it was given what.
    pub genesis: Vec<SurveyedBalance>,
    /// How many balances genesis names, looked at or not.
    pub genesis_count: u64,
}

/// One who votes on blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedValidator {
    /// It votes with this.
    pub key: B256,
    /// Who answers for it.
    pub operator: Address,
    /// Bonded to the operator when the set was made, in wei.
    pub stake: U256,
    /// Blocks it proposed in this epoch.
    pub proposed: u64,
    /// Turns it missed in this epoch.
    pub missed: u64,
    /// Seconds since 1970; zero: not in jail.
    pub jailed_until: u64,
}

/// One who runs workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedOperator {
    /// Its account.
    pub account: Address,
    /// As it calls itself.
    pub name: String,
    /// Bonded to it, in wei.
    pub bonded: U256,
    /// Keys that serve now, and where.
    pub workers: Vec<(B256, String)>,
    /// What it offers.
    pub offers: Vec<IOperators::Offer>,
    /// Claimed by it on channels and not yet paid out, in wei.
    pub unsettled: U256,
}

/// A balance that genesis named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedBalance {
    /// Whose.
    pub account: Address,
    /// What genesis gave it, in wei.
    pub given: U256,
    /// Why.
    pub why: String,
    /// What it has now besides bonds, in wei.
    pub balance: U256,
    /// What it has bonded now, in wei.
    pub bonded: U256,
}

impl Ledger {
    /// Looks at everything the pages for people show.
    pub async fn survey(&self) -> Result<Survey, LedgerError> {
        let Viewed { tip, value: base } = self.views(base).await?;
        let operators = self.each_operator(&base.operators).await?;
        let genesis = self.genesis();
        let mut accounts: BTreeSet<Address> =
            base.operators.iter().chain(&base.candidates).copied().collect();
        accounts.extend(base.validators.iter().map(|validator| validator.operator));
        accounts.extend(genesis.balances.iter().take(ACCOUNTS_MAX).map(|balance| balance.address));
        let accounts: Vec<Address> = accounts.into_iter().collect();
        let mut holdings = Vec::new();
        for accounts in accounts.chunks(2 * TOGETHER) {
            holdings
                .extend(self.views(|views| each(accounts, |account| holding(views, *account))).await?.value);
        }
        let found = |account: &Address| {
            let at = holdings.binary_search_by_key(account, |(account, _, _)| *account);
            at.map_or((U256::ZERO, U256::ZERO), |at| (holdings[at].1, holdings[at].2))
        };
        let balances = genesis.balances.iter().take(ACCOUNTS_MAX).map(|given| {
            let (balance, bonded) = found(&given.address);
            SurveyedBalance {
                account: given.address,
                given: given.amount,
                why: given.why.clone(),
                balance,
                bonded,
            }
        });
        let genesis_balances = balances.collect();
        let mut voters: Vec<(Address, U256)> = holdings
            .iter()
            .filter(|(_, _, votes)| !votes.is_zero())
            .map(|(account, _, votes)| (*account, *votes))
            .collect();
        voters.sort_by(|one, two| two.1.cmp(&one.1).then(one.0.cmp(&two.0)));
        Ok(Survey {
            tip,
            params: base.params,
            validators: base.validators,
            bonded_total: base.bonded_total,
            forfeited: base.forfeited,
            voters,
            operators,
            operator_count: base.operator_count,
            models: base.models,
            model_count: base.model_count,
            proposals: base.proposals,
            upgrade: base.upgrade,
            modules: base.modules,
            genesis: genesis_balances,
            genesis_count: genesis.balances.len() as u64,
        })
    }
}

impl Ledger {
    /// Those who run workers, with their workers and offers, at most [`OPERATORS_MAX`]. The list is as of one block; what
    /// each has is as of that block or a few later.
    pub async fn operators(&self) -> Result<Viewed<Vec<SurveyedOperator>>, LedgerError> {
        let accounts = self.views(|views| {
            pages(OPERATORS_MAX, |offset| views.call(OPERATORS, &IOperators::operatorsCall { offset }))
        });
        let Viewed { tip, value: accounts } = accounts.await?;
        Ok(Viewed { tip, value: self.each_operator(&accounts).await? })
    }

    async fn each_operator(&self, accounts: &[Address]) -> Result<Vec<SurveyedOperator>, LedgerError> {
        let mut operators = Vec::new();
        for accounts in accounts.chunks(TOGETHER) {
            operators
                .extend(self.views(|views| each(accounts, |account| operator(views, *account))).await?.value);
        }
        Ok(operators)
    }
}

struct Base {
    params: Params,
    validators: Vec<SurveyedValidator>,
    candidates: Vec<Address>,
    bonded_total: U256,
    forfeited: U256,
    operators: Vec<Address>,
    operator_count: u64,
    models: Vec<B256>,
    model_count: u64,
    proposals: Vec<(u64, IGovernance::Proposal)>,
    upgrade: Option<UpgradePlan>,
    modules: Vec<(Module, U256)>,
}

fn base(views: &mut Views<'_>) -> Option<Base> {
    // Everything is asked before anything is waited for.
    let params = views.read(|state, _| surety_chain::params(state));
    let upgrade = views.read(|state, _| surety_chain::upgrade_plan(state));
    let epoch = views.place().epoch;
    let members = views.call(STAKING, &IStaking::validatorSetCall { epoch });
    let candidates = views.call(STAKING, &IStaking::candidatesCall {});
    let bonded_total = views.call(STAKING, &IStaking::bondedTotalCall {});
    let forfeited = views.call(STAKING, &IStaking::forfeitedCall {});
    let operator_count = views.call(OPERATORS, &IOperators::operatorCountCall {});
    let operators =
        pages(OPERATORS_MAX, |offset| views.call(OPERATORS, &IOperators::operatorsCall { offset }));
    let model_count = views.call(MODELS, &IModels::modelCountCall {});
    let models = pages(MODELS_MAX, |offset| views.call(MODELS, &IModels::modelsCall { offset }));
    let proposals = views.call(GOVERNANCE, &IGovernance::proposalCountCall {}).and_then(|count| {
        let last = u64::try_from(count).unwrap_or(u64::MAX);
        let ids: Vec<u64> = (1..=last).rev().take(PROPOSALS_MAX as usize).collect();
        each(&ids, |id| {
            let proposal = views.call(GOVERNANCE, &IGovernance::proposalCall { id: U256::from(*id) })?;
            Some((*id, proposal))
        })
    });
    let modules = each(&Module::ALL, |module| Some((*module, balance(views, module.address())?)));
    let members = members?.into_iter().enumerate().collect::<Vec<_>>();
    let validators = each(&members, |(index, member)| {
        let index = U256::from(*index);
        let performance = views.call(STAKING, &IStaking::performanceCall { epoch, index });
        let operator = member.operator;
        let validator = views.call(STAKING, &IStaking::validatorOfCall { operator })?;
        let performance = performance?;
        Some(SurveyedValidator {
            key: member.key,
            operator,
            stake: member.stake,
            proposed: performance.proposed,
            missed: performance.missed,
            jailed_until: validator.jailedUntil,
        })
    });
    Some(Base {
        params: params?,
        validators: validators?,
        candidates: candidates?,
        bonded_total: bonded_total?,
        forfeited: forfeited?,
        operators: operators?,
        operator_count: operator_count?,
        models: models?,
        model_count: model_count?,
        proposals: proposals?,
        upgrade: upgrade?,
        modules: modules?,
    })
}

fn operator(views: &mut Views<'_>, account: Address) -> Option<SurveyedOperator> {
    const LISTED_MAX: usize = 200;
    let about = views.call(OPERATORS, &IOperators::operatorOfCall { account });
    let bonded = views.call(STAKING, &IStaking::bondedToCall { operator: account });
    let workers = pages(LISTED_MAX, |offset| {
        views.call(OPERATORS, &IOperators::workersOfCall { operator: account, offset })
    });
    let offers = pages(LISTED_MAX, |offset| {
        views.call(OPERATORS, &IOperators::offersOfCall { operator: account, offset })
    });
    let claims =
        views.call(CHANNELS, &IChannels::receiversCall { receiver: account, token: Address::ZERO })?;
    let serving = workers?.into_iter().filter(|worker| worker.retiredHeight == 0);
    Some(SurveyedOperator {
        account,
        name: about?.name,
        bonded: bonded?,
        workers: serving.map(|worker| (worker.key, worker.endpoint)).collect(),
        offers: offers?,
        unsettled: U256::from(claims.totalClaimed.saturating_sub(claims.totalSettled)),
    })
}

/// What an account has, and what it has bonded.
fn holding(views: &mut Views<'_>, account: Address) -> Option<(Address, U256, U256)> {
    let has = balance(views, account);
    let bonded = views.call(STAKING, &IStaking::votesOfCall { account })?;
    Some((account, has?, bonded))
}

pub(super) fn balance(views: &mut Views<'_>, account: Address) -> Option<U256> {
    let account = views.read(|state, _| surety_chain::account(state, account))?;
    Some(account.unwrap_or_default().balance)
}

/// One answer for each, or nothing if one is missing; all are asked.
pub(super) fn each<T, U>(of: &[T], mut ask: impl FnMut(&T) -> Option<U>) -> Option<Vec<U>> {
    let answers: Vec<Option<U>> = of.iter().map(&mut ask).collect();
    answers.into_iter().collect()
}

/// A list that comes in pages, at most so long.
pub(crate) fn pages<T>(most: usize, mut page: impl FnMut(u64) -> Option<Vec<T>>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    while list.len() < most {
        let next = page(list.len() as u64)?;
        if next.is_empty() {
            break;
        }
        list.extend(next);
    }
    list.truncate(most);
    Some(list)
}
