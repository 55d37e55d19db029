//! Economics: what there is, where it is, who paid whom, and what answers for it.
//!
//! In:     a ledger, and a [`Survey`] of it.
//! Out:    the supply and every place it is in; what genesis gave whom; payments of an epoch; what audits cost; what stands
//!         behind what is owed.
//! Touches: the network, through the ledger.
//! Holds:  places are as of one block, and each credit is in one of them; what is a node's word is kept apart from what is proven.
//! Absent: how it is shown (`bin`, `web`). Whether honesty pays (`surety economics --simulate`).

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolEvent;
use serde::Serialize;
use serde_json::{Value, json};
use surety_chain::{PARAMETERS, Params};
use surety_types::abi::{
    IAudits, IChannels, IClaims, IDisputes, IHosting, IStaking, Module,
    address::{AUDITS, CHANNELS, CLAIMS, DISPUTES, ESCROW, HOSTING, STAKING},
};

use super::{
    Ledger, LedgerError, Viewed,
    conduct::Conducts,
    nodes::garbage,
    survey::{ACCOUNTS_MAX, Survey, SurveyedBalance, balance, each},
};

/// Blocks whose fees are added up.
pub const BLOCKS_MAX: u64 = 512;
/// Channels whose payers are looked up.
const CHANNELS_MAX: usize = 256;
/// What becomes of credits that nobody owns any more.
const BURNED: &str = "nothing: no function destroys credits; gas goes to who proposed the block, what is forfeited to the bonds of the next validators";
/// Who pays for what goes wrong.
const INSURANCE: &str = "there is no fund: the bond of the operator that lied or stayed silent refunds and compensates the payer, up to what it holds";

/// What there is. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct Economics {
    /// The block that the places are as of; the rest is as of this block or a few around it.
    pub number: u64,
    /// Its time, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Proven: all that genesis named, and will ever be.
    pub supply: String,
    /// Proven, all as of one block: where it is. The last place is what remains.
    pub held: Vec<Held>,
    /// Whether that is all of it.
    pub accounted: Accounted,
    /// From the code: what is destroyed.
    pub burned: &'static str,
    /// From the code: who pays for what goes wrong.
    pub insurance: &'static str,
    /// Proven: what genesis gave whom and why, and what is there now.
    pub genesis: Vec<Given>,
    /// How many balances genesis names, listed here or not.
    pub genesis_count: u64,
    /// A node's word: what happened in the last whole epoch.
    pub flows: Option<Flows>,
    /// A node's word: what has happened in the epoch since.
    pub flows_so_far: Option<Flows>,
    /// Proven: the parameters that decide who is paid, and what lies and failures cost.
    pub parameters: Vec<Setting>,
    /// What audits cost.
    pub audits: Audits,
    /// Proven.
    pub at_risk: AtRisk,
}

/// Whether the places add up to the supply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accounted {
    /// What was looked at, place by place.
    pub listed: String,
    /// The supply less that: with accounts and contracts that nobody lists.
    pub remainder: String,
    /// What was found beyond the supply. Anything but zero would mean that the ledger or this software errs.
    pub excess: String,
}

/// A parameter.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// As governance calls it.
    pub name: &'static str,
    /// In its own unit.
    pub value: String,
}

/// What audits cost.
#[derive(Clone, Debug, Serialize)]
pub struct Audits {
    /// Of a million receipts of an established operator, so many are audited; none: this ledger draws no audits.
    pub rate_ppm: Option<u64>,
    /// What of the price is for auditors, in ten-thousandths; none: nothing.
    pub share_bps: Option<u64>,
    /// What auditors of operators were paid in the last whole epoch, of a million wei that were paid out to operators; a
    /// node's word. None: nothing was paid out, or no epoch has ended.
    pub paid_ppm_of_spend: Option<u64>,
    /// Proven: by operator, what was audited, missed, claimed and disputed.
    pub done: Conducts,
}

/// Where some of it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// In words.
    pub place: String,
    /// So much.
    pub amount: String,
}

/// What genesis gave somebody.
#[derive(Clone, Debug, Serialize)]
pub struct Given {
    /// Who.
    pub account: String,
    /// How much.
    pub given: String,
    /// As genesis says.
    pub why: String,
    /// What it has now besides bonds.
    pub now: String,
    /// What it has bonded now.
    pub bonded: String,
}

/// Sums of what a node says happened, by party.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flows {
    /// Of which epoch.
    pub epoch: u64,
    /// Its first block.
    pub first_block: u64,
    /// The last block that is counted.
    pub last_block: u64,
    /// Who paid whom: what was claimed on channels, by who had paid in and who claimed.
    pub payments: Vec<Payment>,
    /// Paid into channels.
    pub deposits: Parties,
    /// Claimed of them.
    pub claims: Parties,
    /// Paid out of what was claimed.
    pub settlements: Parties,
    /// Given back by receivers.
    pub refunds: Parties,
    /// Taken back by payers.
    pub withdrawals: Parties,
    /// Put into pools for hosting.
    pub hosting_funded: Parties,
    /// Paid for hosting.
    pub hosting_paid: Parties,
    /// Taken of operators' stake and pay: for conflicting votes, false receipts, silence, missed audits.
    pub slashes: Parties,
    /// Paid to payers out of that.
    pub compensated: Parties,
    /// Kept of what was paid out to an operator, for who audits it.
    pub kept_for_auditors: Parties,
    /// Paid to auditors.
    pub audits_paid: Parties,
    /// Gas, by who proposed the block; none: not added up.
    pub fees: Option<Parties>,
}

/// What somebody was paid by somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// Who had paid into the channel; none: no node says.
    pub from: Option<String>,
    /// Who claimed it.
    pub to: String,
    /// How much.
    pub amount: String,
}

/// What each party paid or was paid, in wei.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties(BTreeMap<Address, U256>);

impl Parties {
    /// Each with its sum.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &U256)> {
        self.0.iter()
    }

    fn add(&mut self, party: Address, amount: U256) {
        let sum = self.0.entry(party).or_default();
        *sum = sum.saturating_add(amount);
    }

    fn sum(&self) -> U256 {
        self.0.values().fold(U256::ZERO, |sum, amount| sum.saturating_add(*amount))
    }
}

impl Serialize for Parties {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(party, sum)| (party.to_string(), sum.to_string())))
    }
}

/// What stands behind what is owed.
#[derive(Clone, Debug, Serialize)]
pub struct AtRisk {
    /// Bonds of operators with workers.
    pub bonded: String,
    /// In channels, claimed or not: what payers could lose at most.
    pub in_channels: String,
    /// Bond for each credit in channels, in hundredths; none: nothing is in channels.
    pub bond_per_credit_percent: Option<u64>,
    /// Proven: what each operator has bonded, and what it has claimed and not been paid yet.
    pub operators: Vec<OperatorAtRisk>,
    /// How what nobody has claimed yet divides among operators.
    pub unclaimed_by_operator: &'static str,
}

/// What stands behind one operator's answers.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorAtRisk {
    /// Its account.
    pub operator: String,
    /// Bonded to it.
    pub bonded: String,
    /// Claimed by it, and not paid out yet.
    pub claimed_unpaid: String,
    /// The least share of its receipts that must be audited, in millionths, so that p·C ≥ (1−p)·g for what it has claimed
    /// and not been paid, with what a conviction takes, C; none: it has bonded nothing, and no share is enough but all.
    pub audit_ppm_needed: Option<u64>,
}

/// Where everything is that can be listed, in wei, all as of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holdings {
    bonded_total: U256,
    forfeited: U256,
    modules: Vec<(Module, U256)>,
    /// Together, with accounts that genesis names.
    named: U256,
}

/// Computes the page. `flows` are those of the last whole epoch, if they are known.
///
/// # Errors
/// If the ledger cannot be asked where everything is.
pub async fn economics(
    ledger: &Ledger,
    survey: &Survey,
    flows: Option<Flows>,
    done: Conducts,
) -> Result<Economics, LedgerError> {
    let Viewed { tip, value: holdings } = holdings(ledger).await?;
    let supply = ledger.genesis().supply().unwrap_or_default();
    let so_far = flows_between(ledger, tip.epoch, tip.number).await.ok();
    let mut page = of(supply, &holdings, survey, flows, done);
    (page.number, page.timestamp_ms, page.flows_so_far) = (tip.number, tip.timestamp_ms, so_far);
    Ok(page)
}

async fn holdings(ledger: &Ledger) -> Result<Viewed<Holdings>, LedgerError> {
    let balances = &ledger.genesis().balances;
    let named: BTreeSet<Address> = balances.iter().take(ACCOUNTS_MAX).map(|given| given.address).collect();
    let named: Vec<Address> = named.into_iter().collect();
    ledger
        .views(|views| {
            let bonded_total = views.call(STAKING, &IStaking::bondedTotalCall {});
            let forfeited = views.call(STAKING, &IStaking::forfeitedCall {});
            let modules = each(&Module::ALL, |module| Some((*module, balance(views, module.address())?)));
            let named = each(&named, |account| balance(views, *account));
            Some(Holdings {
                bonded_total: bonded_total?,
                forfeited: forfeited?,
                modules: modules?,
                named: named?.into_iter().fold(U256::ZERO, U256::saturating_add),
            })
        })
        .await
}

/// Where everything is, but for what nobody lists.
fn places(holdings: &Holdings) -> Vec<(&'static str, U256)> {
    let in_module = |wanted: Module| {
        let found = holdings.modules.iter().find(|(module, _)| *module == wanted);
        found.map_or(U256::ZERO, |(_, balance)| *balance)
    };
    let staking = in_module(Module::Staking);
    let leaving = staking.saturating_sub(holdings.bonded_total).saturating_sub(holdings.forfeited);
    let said = [
        (Module::Channels, "in channels"),
        (Module::Escrow, "in channels of x402's clients"),
        (Module::Audits, "set aside for auditors"),
        (Module::Disputes, "in bonds and refunds of disputes"),
        (Module::Claims, "in bonds of claims"),
        (Module::Hosting, "in pools for hosting"),
    ];
    let is_said =
        |module: &Module| *module == Module::Staking || said.iter().any(|(other, _)| other == module);
    let others = holdings.modules.iter().filter(|(module, _)| !is_said(module)).map(|(_, balance)| *balance);
    let mut places = vec![
        ("bonded", holdings.bonded_total),
        ("leaving bonds, and remainders of division", leaving),
        ("forfeited, on its way to bonds", holdings.forfeited),
    ];
    places.extend(said.map(|(module, place)| (place, in_module(module))));
    places.push(("in other modules", others.sum()));
    places.push(("free, with accounts that genesis names", holdings.named));
    places
}

fn of(supply: U256, holdings: &Holdings, survey: &Survey, flows: Option<Flows>, done: Conducts) -> Economics {
    let places = places(holdings);
    let listed = places.iter().fold(U256::ZERO, |sum, (_, amount)| sum.saturating_add(*amount));
    let remainder = supply.saturating_sub(listed);
    let held = places.into_iter().chain([("with everybody else", remainder)]);
    let held = held.map(|(place, amount)| Held { place: place.to_owned(), amount: amount.to_string() });
    let given = |balance: &SurveyedBalance| Given {
        account: balance.account.to_string(),
        given: balance.given.to_string(),
        why: balance.why.clone(),
        now: balance.balance.to_string(),
        bonded: balance.bonded.to_string(),
    };
    Economics {
        number: survey.tip.number,
        timestamp_ms: survey.tip.timestamp_ms,
        supply: supply.to_string(),
        held: held.collect(),
        accounted: Accounted {
            listed: listed.to_string(),
            remainder: remainder.to_string(),
            excess: listed.saturating_sub(supply).to_string(),
        },
        burned: BURNED,
        insurance: INSURANCE,
        genesis: survey.genesis.iter().map(given).collect(),
        genesis_count: survey.genesis_count,
        parameters: parameters(&survey.params),
        audits: audits(&survey.params, flows.as_ref(), done),
        flows,
        flows_so_far: None,
        at_risk: at_risk(survey, holdings),
    }
}

fn at_risk(survey: &Survey, holdings: &Holdings) -> AtRisk {
    let serving = survey.operators.iter().filter(|operator| !operator.workers.is_empty());
    let bonded: U256 = serving.map(|operator| operator.bonded).sum();
    let in_channels = holdings.modules.iter().find(|(module, _)| *module == Module::Channels);
    let in_channels = in_channels.map_or(U256::ZERO, |(_, balance)| *balance);
    let taken =
        |stake: U256| stake.saturating_mul(U256::from(survey.params.dispute_slash_bps)) / U256::from(10_000);
    let percent = (!in_channels.is_zero()).then(|| bonded.saturating_mul(U256::from(100)) / in_channels);
    let operators = survey.operators.iter().map(|operator| OperatorAtRisk {
        operator: operator.account.to_string(),
        bonded: operator.bonded.to_string(),
        claimed_unpaid: operator.unsettled.to_string(),
        audit_ppm_needed: audit_ppm_needed(taken(operator.bonded), operator.unsettled),
    });
    AtRisk {
        bonded: bonded.to_string(),
        in_channels: in_channels.to_string(),
        bond_per_credit_percent: percent.and_then(|percent| u64::try_from(percent).ok()),
        operators: operators.collect(),
        unclaimed_by_operator: "unknown: the state lists no channels; only their sum is proven",
    }
}

/// The least p, in millionths and rounded up, for which p·C ≥ (1−p)·g; none where nothing is taken.
fn audit_ppm_needed(taken: U256, exposure: U256) -> Option<u64> {
    let all = taken.checked_add(exposure)?;
    if taken.is_zero() {
        return None;
    }
    let ppm = exposure.checked_mul(U256::from(1_000_000))?.div_ceil(all);
    u64::try_from(ppm).ok()
}

/// A parameter by its name; none if this ledger does not have it.
fn parameter(params: &Params, name: &str) -> Option<u64> {
    let index = PARAMETERS.iter().position(|parameter| parameter.name == name)?;
    u64::try_from(params.value(index)?).ok()
}

/// Those that decide who is paid, and what lies and failures cost.
fn parameters(params: &Params) -> Vec<Setting> {
    const BEGINNINGS: [&str; 12] = [
        "minimum_gas_price",
        "worker_stake_min",
        "unbonding_s",
        "auditors_",
        "validators_bps",
        "audit_",
        "claim_",
        "dispute_",
        "slash_",
        "report_",
        "channel_",
        "hosting_",
    ];
    let decides = |name: &str| BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    let settings = PARAMETERS.iter().enumerate().filter(|(_, parameter)| decides(parameter.name));
    settings
        .map(|(index, parameter)| Setting {
            name: parameter.name,
            value: params.value(index).unwrap_or_default().to_string(),
        })
        .collect()
}

fn audits(params: &Params, flows: Option<&Flows>, done: Conducts) -> Audits {
    Audits {
        rate_ppm: parameter(params, "audit_ppm"),
        share_bps: parameter(params, "auditors_bps"),
        paid_ppm_of_spend: flows.and_then(|flows| ppm(flows.audits_paid.sum(), flows.settlements.sum())),
        done,
    }
}

/// A part of a whole in millionths, rounded up; none of nothing.
fn ppm(part: U256, whole: U256) -> Option<u64> {
    if whole.is_zero() {
        return None;
    }
    u64::try_from(part.checked_mul(U256::from(1_000_000))?.div_ceil(whole)).ok()
}

/// What a node says happened in the epoch before this one; nothing where there was none.
///
/// # Errors
/// If no node answers, or one answers what cannot be.
pub async fn flows(ledger: &Ledger, epoch: u64) -> Result<Option<Flows>, LedgerError> {
    let genesis = ledger.genesis();
    let Some(epoch) = epoch.checked_sub(1).filter(|epoch| *epoch >= genesis.first_epoch()) else {
        return Ok(None);
    };
    let last = (epoch + 1) * ledger.spec().epoch_blocks - 1;
    let mut flows = flows_between(ledger, epoch, last).await?;
    if last - flows.first_block < BLOCKS_MAX {
        let mut fees = Parties::default();
        for number in flows.first_block..=last {
            let height = format!("{number:#x}");
            let block = ledger.unverified("eth_getBlockByNumber", json!([height, false])).await?;
            if block["transactions"].as_array().is_none_or(Vec::is_empty) {
                continue;
            }
            let Some(proposer) = block["miner"].as_str().and_then(|miner| miner.parse().ok()) else {
                continue;
            };
            let receipts = ledger.unverified("eth_getBlockReceipts", json!([height])).await?;
            let paid: U256 = receipts.as_array().into_iter().flatten().filter_map(fee).sum();
            fees.add(proposer, paid);
        }
        flows.fees = Some(fees);
    }
    Ok(Some(flows))
}

/// The events of an epoch up to this block, added up.
async fn flows_between(ledger: &Ledger, epoch: u64, last: u64) -> Result<Flows, LedgerError> {
    let first = (epoch * ledger.spec().epoch_blocks).max(ledger.genesis().first_block() + 1);
    let mut flows = Flows { epoch, first_block: first, last_block: last, ..Flows::default() };
    if last < first {
        return Ok(flows);
    }
    let logs = logs(
        ledger,
        json!([{
            "address": [CHANNELS, ESCROW, HOSTING, STAKING, AUDITS, CLAIMS, DISPUTES],
            "fromBlock": format!("{first:#x}"), "toBlock": format!("{last:#x}"),
        }]),
    );
    let logs = logs.await?;
    for log in &logs {
        flows.count(log);
    }
    flows.payments = payments(ledger, &logs).await;
    Ok(flows)
}

/// Who paid whom, the most first: claims, and who had paid into their channels.
async fn payments(ledger: &Ledger, logs: &[alloy_primitives::Log]) -> Vec<Payment> {
    let of_channels = |log: &&alloy_primitives::Log| log.address == CHANNELS || log.address == ESCROW;
    let claims: Vec<_> =
        logs.iter().filter(of_channels).filter_map(|log| IChannels::Claimed::decode_log(log).ok()).collect();
    let channels: BTreeSet<B256> = claims.iter().map(|claim| claim.channelId).take(CHANNELS_MAX).collect();
    let mut payers: BTreeMap<B256, Address> = BTreeMap::new();
    if !channels.is_empty() {
        let filter = json!([{
            "address": [CHANNELS, ESCROW], "fromBlock": "earliest", "toBlock": "latest",
            "topics": [IChannels::Deposited::SIGNATURE_HASH, channels],
        }]);
        // Who paid in is said beside what was claimed, and is not needed for it.
        for log in self::logs(ledger, filter).await.unwrap_or_default() {
            if let Ok(event) = IChannels::Deposited::decode_log(&log) {
                payers.entry(event.channelId).or_insert(event.sender);
            }
        }
    }
    let mut sums: BTreeMap<(Option<Address>, Address), U256> = BTreeMap::new();
    for claim in &claims {
        let sum = sums.entry((payers.get(&claim.channelId).copied(), claim.sender)).or_default();
        *sum = sum.saturating_add(U256::from(claim.amount));
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|one, two| two.1.cmp(&one.1).then(one.0.cmp(&two.0)));
    let payment = |((from, to), amount): ((Option<Address>, Address), U256)| Payment {
        from: from.map(|from| from.to_string()),
        to: to.to_string(),
        amount: amount.to_string(),
    };
    sums.into_iter().map(payment).collect()
}

async fn logs(ledger: &Ledger, filter: Value) -> Result<Vec<alloy_primitives::Log>, LedgerError> {
    const METHOD: &str = "eth_getLogs";
    match ledger.unverified(METHOD, filter).await? {
        Value::Array(logs) => Ok(logs.iter().filter_map(log).collect()),
        _ => Err(LedgerError::Invalid(garbage(METHOD, "it is no list").to_string())),
    }
}

fn fee(receipt: &Value) -> Option<U256> {
    let number = |field: &str| receipt[field].as_str().and_then(|text| text.parse::<U256>().ok());
    number("gasUsed")?.checked_mul(number("effectiveGasPrice")?)
}

fn log(value: &Value) -> Option<alloy_primitives::Log> {
    let topics = value["topics"].as_array()?.iter().map(|topic| topic.as_str()?.parse().ok());
    let data = value["data"].as_str()?.parse().ok()?;
    alloy_primitives::Log::new(value["address"].as_str()?.parse().ok()?, topics.collect::<Option<_>>()?, data)
}

impl Flows {
    fn count(&mut self, log: &alloy_primitives::Log) {
        match log.address {
            STAKING => {
                if let Ok(event) = IStaking::Slashed::decode_log(log) {
                    self.slashes.add(event.operator, event.amount);
                } else if let Ok(event) = IStaking::Penalized::decode_log(log) {
                    self.slashes.add(event.operator, event.amount);
                }
            }
            AUDITS => {
                if let Ok(event) = IAudits::Shared::decode_log(log) {
                    self.kept_for_auditors.add(event.operator, event.auditors);
                } else if let Ok(event) = IAudits::Passed::decode_log(log) {
                    self.audits_paid.add(event.auditor, event.paid);
                } else if let Ok(event) = IAudits::Forfeited::decode_log(log) {
                    self.slashes.add(event.operator, event.amount);
                }
            }
            CLAIMS => {
                if let Ok(event) = IClaims::Compensated::decode_log(log) {
                    self.compensated.add(event.payee, event.amount);
                }
            }
            DISPUTES => {
                if let Ok(event) = IDisputes::Refunded::decode_log(log) {
                    self.compensated.add(event.payee, event.amount);
                }
            }
            HOSTING => {
                if let Ok(event) = IHosting::Funded::decode_log(log) {
                    self.hosting_funded.add(event.from, event.amount);
                } else if let Ok(event) = IHosting::Proven::decode_log(log) {
                    self.hosting_paid.add(event.operator, event.paid);
                }
            }
            CHANNELS => self.count_of_channels(log),
            _ => {}
        }
    }

    fn count_of_channels(&mut self, log: &alloy_primitives::Log) {
        if let Ok(event) = IChannels::Deposited::decode_log(log) {
            self.deposits.add(event.sender, U256::from(event.amount));
        } else if let Ok(event) = IChannels::Claimed::decode_log(log) {
            self.claims.add(event.sender, U256::from(event.amount));
        } else if let Ok(event) = IChannels::Settled::decode_log(log) {
            self.settlements.add(event.receiver, U256::from(event.amount));
        } else if let Ok(event) = IChannels::Refunded::decode_log(log) {
            self.refunds.add(event.sender, U256::from(event.amount));
        } else if let Ok(event) = IChannels::WithdrawFinalized::decode_log(log) {
            self.withdrawals.add(event.sender, U256::from(event.amount));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_share_keeps_the_bound() {
        let needed = |stake: u64, exposure: u64| audit_ppm_needed(U256::from(stake), U256::from(exposure));
        assert_eq!((needed(0, 5), needed(5, 0)), (None, Some(0)));
        assert_eq!(needed(980, 20), Some(20_000));
        for (stake, exposure) in [(10, 1), (10, 3), (7, 1_000), (1 << 40, 12_345)] {
            let p = u128::from(needed(stake, exposure).unwrap());
            let holds = |p: u128| p * u128::from(stake) >= (1_000_000 - p) * u128::from(exposure);
            assert!(holds(p) && (p == 0 || !holds(p - 1)), "{stake} {exposure}: {p}");
        }
    }

    #[test]
    fn parameters_are_found_by_name_or_said_to_be_missing() {
        let params = Params::default();
        assert_eq!(parameter(&params, "unbonding_s"), Some(params.unbonding_s));
        assert_eq!(parameter(&params, "no_such_parameter"), None);
        let names: Vec<&str> = parameters(&params).iter().map(|set| set.name).collect();
        assert!(names.contains(&"slash_equivocation_bps") && !names.contains(&"pace_ms"), "{names:?}");
        let shown = audits(&params, None, Conducts::default());
        assert_eq!((shown.rate_ppm, shown.paid_ppm_of_spend), (parameter(&params, "audit_ppm"), None));
    }

    fn holdings() -> Holdings {
        let modules =
            Module::ALL.into_iter().zip(1..).map(|(module, amount)| (module, U256::from(amount * 100)));
        Holdings {
            bonded_total: U256::from(60),
            forfeited: U256::from(15),
            modules: modules.collect(),
            named: U256::from(1_000),
        }
    }

    #[test]
    fn every_module_is_in_one_place_and_places_add_up() {
        let holdings = holdings();
        let sum: U256 = places(&holdings).iter().map(|(_, amount)| *amount).sum();
        let modules: U256 = holdings.modules.iter().map(|(_, amount)| *amount).sum();
        assert_eq!(sum, modules + holdings.named);
        let found =
            |place: &str| places(&holdings).into_iter().find(|(name, _)| name.contains(place)).unwrap().1;
        assert_eq!((found("leaving"), found("forfeited")), (U256::from(25), U256::from(15)));
        // Operators, models, receipts, governance, parameters and the credit have no place of their own.
        assert_eq!(found("other modules"), U256::from(100 * (2 + 3 + 5 + 6 + 7 + 12)));
    }

    #[test]
    fn events_are_added_up_by_who_they_are_about() {
        let mut flows = Flows::default();
        let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let log = |address: Address, event: alloy_primitives::LogData| alloy_primitives::Log {
            address,
            data: event,
        };
        let penalized = IStaking::Penalized { operator: one, amount: U256::from(7), paid: U256::from(5) };
        let forfeited = IAudits::Forfeited { operator: one, amount: U256::from(2) };
        let refunded = IDisputes::Refunded { id: 1, payee: two, amount: U256::from(5) };
        let claimed = IChannels::Claimed { channelId: B256::ZERO, sender: two, amount: 3, totalClaimed: 3 };
        flows.count(&log(STAKING, penalized.encode_log_data()));
        flows.count(&log(AUDITS, forfeited.encode_log_data()));
        flows.count(&log(DISPUTES, refunded.encode_log_data()));
        flows.count(&log(CHANNELS, claimed.encode_log_data()));
        // The escrow's are not orders'.
        flows.count(&log(ESCROW, claimed.encode_log_data()));
        let of = |parties: &Parties, party| {
            parties.iter().find(|(found, _)| **found == party).map(|(_, sum)| *sum)
        };
        assert_eq!(of(&flows.slashes, one), Some(U256::from(9)));
        assert_eq!(of(&flows.compensated, two), Some(U256::from(5)));
        assert_eq!((of(&flows.claims, two), of(&flows.deposits, two)), (Some(U256::from(3)), None));
    }

    #[test]
    fn what_auditors_are_paid_is_a_share_of_what_is_paid_out() {
        let mut flows = Flows::default();
        let share =
            |flows: &Flows| audits(&Params::default(), Some(flows), Conducts::default()).paid_ppm_of_spend;
        assert_eq!(share(&flows), None);
        flows.settlements.add(Address::ZERO, U256::from(1_000));
        assert_eq!(share(&flows), Some(0));
        flows.audits_paid.add(Address::ZERO, U256::from(30));
        flows.audits_paid.add(Address::repeat_byte(1), U256::from(10));
        assert_eq!(share(&flows), Some(40_000));
    }
}
