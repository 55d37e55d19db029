//! `surety economics`: what there is, where it is, who paid whom, and what answers for it; with `--simulate`, whether
//! honesty pays.

mod simulation;

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolEvent;
use serde::Serialize;
use serde_json::{Value, json};
use surety_chain::{PARAMETERS, Params};
use surety_client::ledger::{
    Ledger,
    survey::{Survey, SurveyedBalance},
};
use surety_types::abi::{
    IAudits, IChannels, IHosting, IStaking, Module,
    address::{AUDITS, CHANNELS, HOSTING, STAKING},
};

use super::Outcome;
use crate::{
    cli::Global,
    conduct::{self, Conducts, conducts},
    data_dir::DataDir,
    look::{LookArgs, aligned, credits},
    output::{self, Style, out_style, printable},
};

/// Blocks whose fees are added up.
const BLOCKS_MAX: u64 = 512;
/// Parties that are listed.
const PARTIES_MAX: usize = 20;

/// Arguments of `economics`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: LookArgs,
    /// Look at no ledger: simulate what each way of cheating brings under the default parameters.
    #[arg(long, conflicts_with_all = ["genesis", "rpc_urls"])]
    simulate: bool,
    /// Jobs of each run of the simulation.
    #[arg(long, requires = "simulate", default_value_t = 100_000, value_name = "N")]
    jobs: u64,
    /// Seed of the simulation.
    #[arg(long, requires = "simulate", default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// What there is. Amounts are wei, as decimal text.
#[derive(Serialize)]
struct Economics {
    number: u64,
    /// Proven: all that genesis named, and will ever be.
    supply: String,
    /// Proven: where it is now.
    held: Vec<Held>,
    /// Proven: what genesis gave whom and why, and what is there now.
    genesis: Vec<Given>,
    /// A node's word: what happened in the last whole epoch.
    flows: Option<Flows>,
    /// Proven: the parameters that decide who is paid, and what lies and failures cost.
    parameters: Vec<Setting>,
    /// What audits cost.
    audits: Audits,
    /// Proven.
    at_risk: AtRisk,
}

#[derive(Serialize)]
struct Setting {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Audits {
    /// Of a million receipts of an established operator, so many are audited; none: this ledger draws no audits.
    rate_ppm: Option<u64>,
    /// What of the price is for auditors, in ten-thousandths; none: nothing.
    share_bps: Option<u64>,
    /// What auditors of operators were paid in the last whole epoch, of a million wei that were paid out to operators; a
    /// node's word. None: nothing was paid out, or no epoch has ended.
    paid_ppm_of_spend: Option<u64>,
    /// Proven: by operator, what was audited, missed, claimed and disputed.
    done: Conducts,
}

#[derive(Serialize)]
struct Held {
    place: String,
    amount: String,
}

#[derive(Serialize)]
struct Given {
    account: String,
    given: String,
    why: String,
    now: String,
    bonded: String,
}

/// Sums of what a node says happened, by party.
#[derive(Default, Serialize)]
struct Flows {
    epoch: u64,
    first_block: u64,
    last_block: u64,
    deposits: Parties,
    claims: Parties,
    settlements: Parties,
    refunds: Parties,
    withdrawals: Parties,
    hosting_funded: Parties,
    hosting_paid: Parties,
    slashes: Parties,
    /// Kept of what was paid out to an operator, for who audits it.
    kept_for_auditors: Parties,
    /// Paid to auditors.
    audits_paid: Parties,
    /// Gas, by who proposed the block; none: too many blocks to add up.
    fees: Option<Parties>,
}

/// What each party paid or was paid, in wei.
#[derive(Default)]
struct Parties(BTreeMap<Address, U256>);

impl Parties {
    fn add(&mut self, party: Address, amount: U256) {
        let sum = self.0.entry(party).or_default();
        *sum = sum.saturating_add(amount);
    }
}

impl Parties {
    fn sum(&self) -> U256 {
        self.0.values().fold(U256::ZERO, |sum, amount| sum.saturating_add(*amount))
    }
}

impl Serialize for Parties {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(party, sum)| (party.to_string(), sum.to_string())))
    }
}

#[derive(Serialize)]
struct AtRisk {
    /// Bonds of operators with workers.
    bonded: String,
    /// In channels, claimed or not: what payers could lose at most.
    in_channels: String,
    /// Bond for each credit in channels, in hundredths; none: nothing is in channels.
    bond_per_credit_percent: Option<u64>,
    /// Proven: what each operator has bonded, and what it has claimed and not been paid yet.
    operators: Vec<OperatorAtRisk>,
    /// How what nobody has claimed yet divides among operators.
    unclaimed_by_operator: &'static str,
}

#[derive(Serialize)]
struct OperatorAtRisk {
    operator: String,
    bonded: String,
    claimed_unpaid: String,
    /// The least share of its receipts that must be audited, in millionths, so that p·C ≥ (1−p)·g for what it has claimed
    /// and not been paid, with what a conviction takes, C; none: it has bonded nothing, and no share is enough but all.
    audit_ppm_needed: Option<u64>,
}

/// Shows it.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    if args.simulate {
        return simulation::run(global.json, args.jobs, args.seed);
    }
    let look = args.look.open(&DataDir::of(&global)?)?;
    let survey = look.ledger.survey().await?;
    let flows = flows(&look.ledger, &survey).await.ok().flatten();
    let operators: Vec<Address> = survey.operators.iter().map(|operator| operator.account).collect();
    let done = conducts(&look.ledger, &operators).await;
    let page = economics(look.ledger.genesis().supply().unwrap_or_default(), &survey, flows, done);
    if global.json {
        output::json(&page)?;
    } else {
        for line in text(&page, &survey) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

/// Where everything is; the places add up to the supply.
fn places(supply: U256, survey: &Survey) -> Vec<(String, U256)> {
    let in_module = |wanted: Module| {
        let found = survey.modules.iter().find(|(module, _)| *module == wanted);
        found.map_or(U256::ZERO, |(_, balance)| *balance)
    };
    let staking = in_module(Module::Staking);
    let leaving = staking.saturating_sub(survey.bonded_total).saturating_sub(survey.forfeited);
    let others: U256 = survey
        .modules
        .iter()
        .filter(|(module, _)| !matches!(module, Module::Staking | Module::Channels | Module::Hosting))
        .map(|(_, balance)| *balance)
        .sum();
    let named: U256 = survey.genesis.iter().map(|balance| balance.balance).sum();
    let mut places = vec![
        ("bonded".to_owned(), survey.bonded_total),
        ("leaving bonds, and remainders of division".to_owned(), leaving),
        ("forfeited, on its way to bonds".to_owned(), survey.forfeited),
        ("in channels".to_owned(), in_module(Module::Channels)),
        ("in pools for hosting".to_owned(), in_module(Module::Hosting)),
        ("in other modules".to_owned(), others),
        ("free, with accounts that genesis names".to_owned(), named),
    ];
    let found: U256 = places.iter().map(|(_, amount)| *amount).sum();
    places.push(("with everybody else".to_owned(), supply.saturating_sub(found)));
    places
}

fn economics(supply: U256, survey: &Survey, flows: Option<Flows>, done: Conducts) -> Economics {
    let held = places(supply, survey);
    let held = held.into_iter().map(|(place, amount)| Held { place, amount: amount.to_string() });
    let given = |balance: &SurveyedBalance| Given {
        account: balance.account.to_string(),
        given: balance.given.to_string(),
        why: balance.why.clone(),
        now: balance.balance.to_string(),
        bonded: balance.bonded.to_string(),
    };
    let (bonded, in_channels) = at_risk(survey);
    let taken =
        |stake: U256| stake.saturating_mul(U256::from(survey.params.dispute_slash_bps)) / U256::from(10_000);
    let percent = (!in_channels.is_zero()).then(|| bonded.saturating_mul(U256::from(100)) / in_channels);
    Economics {
        number: survey.tip.number,
        supply: supply.to_string(),
        held: held.collect(),
        genesis: survey.genesis.iter().map(given).collect(),
        parameters: parameters(&survey.params),
        audits: audits(&survey.params, flows.as_ref(), done),
        flows,
        at_risk: AtRisk {
            bonded: bonded.to_string(),
            in_channels: in_channels.to_string(),
            bond_per_credit_percent: percent.and_then(|percent| u64::try_from(percent).ok()),
            operators: survey
                .operators
                .iter()
                .map(|operator| OperatorAtRisk {
                    operator: operator.account.to_string(),
                    bonded: operator.bonded.to_string(),
                    claimed_unpaid: operator.unsettled.to_string(),
                    audit_ppm_needed: audit_ppm_needed(taken(operator.bonded), operator.unsettled),
                })
                .collect(),
            unclaimed_by_operator: "unknown: the state lists no channels; only their sum is proven",
        },
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

/// Bonds of operators with workers, and what is in channels.
fn at_risk(survey: &Survey) -> (U256, U256) {
    let serving = survey.operators.iter().filter(|operator| !operator.workers.is_empty());
    let in_channels = survey.modules.iter().find(|(module, _)| *module == Module::Channels);
    (serving.map(|operator| operator.bonded).sum(), in_channels.map_or(U256::ZERO, |(_, balance)| *balance))
}

/// What a node says happened in the last whole epoch; nothing before the first has ended.
async fn flows(ledger: &Ledger, survey: &Survey) -> anyhow::Result<Option<Flows>> {
    let epoch_blocks = ledger.spec().epoch_blocks;
    let genesis = ledger.genesis();
    let Some(epoch) = survey.tip.epoch.checked_sub(1).filter(|epoch| *epoch >= genesis.first_epoch()) else {
        return Ok(None);
    };
    let (first, last) =
        ((epoch * epoch_blocks).max(genesis.first_block() + 1), (epoch + 1) * epoch_blocks - 1);
    let mut flows = Flows { epoch, first_block: first, last_block: last, ..Flows::default() };
    let filter = json!([{
        "address": [CHANNELS, HOSTING, STAKING, AUDITS],
        "fromBlock": format!("{first:#x}"), "toBlock": format!("{last:#x}"),
    }]);
    let logs: Vec<alloy_primitives::Log> = match ledger.unverified("eth_getLogs", filter).await? {
        Value::Array(logs) => logs.iter().filter_map(log).collect(),
        _ => anyhow::bail!("the node's logs make no sense"),
    };
    for log in &logs {
        flows.count(log);
    }
    if last - first < BLOCKS_MAX {
        let mut fees = Parties::default();
        for number in first..=last {
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
        if log.address == STAKING {
            if let Ok(event) = IStaking::Slashed::decode_log(log) {
                self.slashes.add(event.operator, event.amount);
            }
        } else if log.address == AUDITS {
            if let Ok(event) = IAudits::Shared::decode_log(log) {
                self.kept_for_auditors.add(event.operator, event.auditors);
            } else if let Ok(event) = IAudits::Passed::decode_log(log) {
                self.audits_paid.add(event.auditor, event.paid);
            }
        } else if log.address == HOSTING {
            if let Ok(event) = IHosting::Funded::decode_log(log) {
                self.hosting_funded.add(event.from, event.amount);
            } else if let Ok(event) = IHosting::Proven::decode_log(log) {
                self.hosting_paid.add(event.operator, event.paid);
            }
        } else if let Ok(event) = IChannels::Deposited::decode_log(log) {
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

fn percent(ppm: u64) -> String {
    format!("{} %", ppm as f64 / 10_000.0)
}

fn text(page: &Economics, survey: &Survey) -> Vec<String> {
    let heading = |text: &str| out_style(Style::Bold, text);
    let amount = |text: &str| credits(text.parse().unwrap_or_default());
    let mut lines = vec![heading(&format!("Supply: {} credits", amount(&page.supply)))];
    lines.push(format!("  genesis named all of it; nothing can add to it. Proven at block {}:", page.number));
    let rows: Vec<Vec<String>> =
        page.held.iter().map(|held| vec![format!("  {}", held.place), amount(&held.amount)]).collect();
    lines.extend(aligned(&rows));

    lines.extend([String::new(), heading("What genesis gave (proven)")]);
    let mut rows = vec![["  account", "given", "has", "bonded", "why"].map(str::to_owned).to_vec()];
    rows.extend(page.genesis.iter().take(PARTIES_MAX).map(|given| {
        vec![
            format!("  {}", &given.account[..10.min(given.account.len())]),
            amount(&given.given),
            amount(&given.now),
            amount(&given.bonded),
            printable(&given.why),
        ]
    }));
    lines.extend(aligned(&rows));
    let more = survey.genesis_count.saturating_sub(PARTIES_MAX as u64);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }

    lines.push(String::new());
    match &page.flows {
        None => lines
            .push(format!("{}  none known: no epoch has ended, or the node keeps no logs", heading("Flows"))),
        Some(flows) => {
            lines.push(heading(&format!(
                "Flows in epoch {} (blocks {}–{}; a node's word)",
                flows.epoch, flows.first_block, flows.last_block
            )));
            let nothing = Parties::default();
            let kinds = [
                ("deposited by", &flows.deposits),
                ("claimed by", &flows.claims),
                ("paid out to", &flows.settlements),
                ("refunded by", &flows.refunds),
                ("withdrawn by", &flows.withdrawals),
                ("given to hosting by", &flows.hosting_funded),
                ("paid for hosting to", &flows.hosting_paid),
                ("slashed from", &flows.slashes),
                ("kept for auditors of", &flows.kept_for_auditors),
                ("paid for audits to", &flows.audits_paid),
                ("gas paid to", flows.fees.as_ref().unwrap_or(&nothing)),
            ];
            let mut rows = Vec::new();
            for (kind, parties) in kinds {
                for (party, sum) in parties.0.iter().take(PARTIES_MAX) {
                    rows.push(vec![format!("  {kind}"), party.to_string(), credits(*sum)]);
                }
            }
            if rows.is_empty() {
                lines.push("  none".into());
            }
            lines.extend(aligned(&rows));
            if flows.fees.is_none() {
                lines.push(format!("  gas: unknown, the epoch has more than {BLOCKS_MAX} blocks"));
            }
        }
    }

    lines.extend([String::new(), heading("Parameters of money (proven)")]);
    let rows: Vec<Vec<String>> =
        page.parameters.iter().map(|set| vec![format!("  {}", set.name), set.value.clone()]).collect();
    lines.extend(aligned(&rows));

    lines.extend([String::new(), heading("Audits")]);
    let audits = &page.audits;
    lines.push(match audits.rate_ppm {
        Some(ppm) => format!("  of an established operator's receipts  {}", percent(ppm)),
        None => "  of an operator's receipts  none".into(),
    });
    lines.push(match audits.share_bps {
        Some(bps) => format!("  of the price, for auditors  {}", percent(bps.saturating_mul(100))),
        None => "  of the price, for auditors  nothing".into(),
    });
    lines.push(match audits.paid_ppm_of_spend {
        Some(ppm) => format!("  paid to auditors, of what was paid out in that epoch  {}", percent(ppm)),
        None => {
            "  paid to auditors  nothing was paid out in the last epoch, or its events are not known".into()
        }
    });
    let done = &audits.done;
    match done.operators.is_empty() {
        true => lines.push("  done  nothing: no operator has a record".into()),
        false => {
            lines.push("  done, by operator (proven; disputes: of the latest)".into());
            lines.extend(aligned(&conduct::rows(done)));
        }
    }
    for operator in &done.unknown {
        lines.push(format!("  {operator}  its record cannot be read now: unknown, not none"));
    }
    lines.push(format!("  disputes  {} in all, {} looked at", done.disputes, done.disputes_looked_at));
    let risk = &page.at_risk;
    lines.extend([String::new(), heading("Bond per credit at risk (proven)")]);
    lines.push(format!("  bonds of operators with workers  {}", amount(&risk.bonded)));
    lines.push(format!("  in channels                      {}", amount(&risk.in_channels)));
    lines.push(match risk.bond_per_credit_percent {
        Some(percent) => format!("  bond for each credit             {}.{:02}", percent / 100, percent % 100),
        None => "  nothing is in channels".into(),
    });
    lines.push(
        "  what a conviction takes, C, answers for what an operator has claimed, g, if p·C ≥ (1−p)·g:".into(),
    );
    let rows: Vec<Vec<String>> = risk
        .operators
        .iter()
        .take(PARTIES_MAX)
        .map(|operator| {
            let (bonded, claimed) = (amount(&operator.bonded), amount(&operator.claimed_unpaid));
            vec![
                format!("  {}", operator.operator),
                format!("bonded {bonded}"),
                format!("claimed, not paid {claimed}"),
                match operator.audit_ppm_needed {
                    Some(ppm) => format!("p must be at least {}", percent(ppm)),
                    None => "nothing bonded: it answers for nothing".into(),
                },
            ]
        })
        .collect();
    lines.extend(aligned(&rows));
    lines.push(format!("  not claimed yet, by operator: {}", risk.unclaimed_by_operator));
    lines
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
