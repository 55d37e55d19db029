//! Who controls what: computed from what the ledger holds, and from what its code lets anyone do.
//!
//! In:     a [`Survey`], and [`POWERS`], the list of everything any module can be told.
//! Out:    who could do what, how soon, and who could stop it; how few it takes; a stage, with what is missing for the next.
//! Touches: nothing.
//! Holds:  every field follows from the survey or the code; what follows from neither is unknown, and says so; nothing is
//!         called good because nobody looked.
//! Absent: how it is shown (`bin`, `web`). Who is behind a key: two accounts may be one person, and the ledger cannot tell.
//!
//! The stages are about how few have to fail or conspire, not about whether the code is right.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, U256};
use serde::Serialize;
use surety_chain::{POWERS, Params, Who};
use surety_types::abi::Module;

use super::survey::Survey;

/// The page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Powers {
    /// The block it was computed at; what was read last is as of a few blocks later.
    pub number: u64,
    /// Its time, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Said in red: what is in so few hands that everything else hardly matters.
    pub alarms: Vec<String>,
    /// 0, 1 or 2.
    pub stage: u8,
    /// What the next stage needs.
    pub missing: Vec<String>,
    /// Who could do what.
    pub powers: Vec<PowerRow>,
    /// Where it hurts most.
    pub slices: Vec<Slice>,
    /// How few it takes.
    pub coefficients: Vec<Coefficient>,
    /// The least of those that are known.
    pub minimum: Option<u64>,
    /// A change of the software that is on its way.
    pub upgrade: Option<UpgradeInFlight>,
    /// What somebody could do past the timelock, in an emergency.
    pub emergency: PowerRow,
    /// Functions that change anything and are not for everyone: the whole list, from the code.
    pub functions: Vec<FunctionPower>,
}

/// One thing somebody might do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PowerRow {
    /// What.
    pub what: &'static str,
    /// Who can: how many keys, or which share.
    pub who: String,
    /// How many it takes at least; none: nobody can, or it is not known.
    pub takes: Option<u64>,
    /// Nobody can.
    pub nobody: bool,
    /// How long it takes.
    pub delay: String,
    /// Who can stop it.
    pub veto: String,
    /// When it was done last.
    pub last_used: String,
}

/// One of six directions from which trouble comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slice {
    /// Which.
    pub name: &'static str,
    /// How bad.
    pub risk: Risk,
    /// The worst that some could credibly do.
    pub why: String,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Many would have to conspire.
    Low,
    /// Some would.
    Medium,
    /// One can.
    High,
}

/// How few it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coefficient {
    /// To do what.
    pub name: String,
    /// How few; none: unknown.
    pub value: Option<u64>,
    /// Out of how many.
    pub of: Option<u64>,
    /// How it is counted, or why it is unknown.
    pub how: String,
}

/// A change of the software that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpgradeInFlight {
    /// As the software will call itself.
    pub version: String,
    /// The first block of it.
    pub height: u64,
    /// Blocks until then.
    pub blocks_left: u64,
    /// Seconds until then, at the pace that proposers aim at.
    pub about_s: u64,
    /// Of its source.
    pub source_revision: B256,
    /// SHA-256 of the binaries that may run it; none: any build.
    pub binary_hashes: Vec<B256>,
    /// What share of the validators is ready: nothing says so on the ledger.
    pub readiness: &'static str,
}

/// A function that is not for everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionPower {
    /// `module.function`.
    pub function: String,
    /// Who can use it.
    pub who: &'static str,
    /// Whether it works only on what has waited the timelock.
    pub timelock: bool,
}

/// What is not known, and why.
const UNKNOWN: [(&str, &str); 6] = [
    ("gateways that carry half of the requests", "unknown: requests do not go through the ledger"),
    ("versions of the software in use", "unknown: nobody says on the ledger what he runs"),
    ("hosting companies of validators", "unknown: validators' addresses are not on the ledger"),
    ("countries", "unknown: the ledger knows no places"),
    ("verifiers that check half of the receipts", "unknown: whoever re-runs an answer tells nobody"),
    ("people behind the keys", "unknown: several accounts may be one person's"),
];
/// From how many on a number of conspirators is called many.
const MANY: u64 = 7;

/// Computes the page.
#[must_use]
pub fn powers(survey: &Survey) -> Powers {
    let counts = Counts::of(survey);
    let coefficients = counts.coefficients(survey);
    let minimum = coefficients.iter().filter_map(|coefficient| coefficient.value).min();
    let all_known = coefficients.iter().all(|coefficient| coefficient.value.is_some());
    let (stage, missing) = stage(survey, &counts, minimum.filter(|_| all_known));
    Powers {
        number: survey.tip.number,
        timestamp_ms: survey.tip.timestamp_ms,
        alarms: alarms(survey, &counts),
        stage,
        missing,
        powers: rows(survey, &counts),
        slices: slices(survey, &counts),
        coefficients,
        minimum,
        upgrade: upgrade(survey),
        emergency: nobody(
            "act past the timelock in an emergency",
            &["emergency", "council", "guardian", "admin", "owner", "veto"],
            "there is no council, and no function that one could use",
        ),
        functions: functions(),
    }
}

/// How few it takes, for everything that is counted.
struct Counts {
    validators: u64,
    /// That stop the chain by not voting.
    halt: u64,
    /// That can sign what never happened.
    forge: u64,
    /// Accounts that pass a proposal when nobody else votes; and when everybody else votes against it.
    pass_alone: Option<u64>,
    pass_against_all: Option<u64>,
    /// Stake whose holders are not known.
    unlisted: U256,
    /// Operators with a worker.
    serving: u64,
    /// Hosts on which workers are reached.
    hosts: BTreeSet<String>,
    /// Operators that serve each model that is offered.
    hosting: BTreeMap<B256, u64>,
}

impl Counts {
    fn of(survey: &Survey) -> Self {
        let validators = survey.validators.len() as u64;
        let faults = validators.saturating_sub(1) / 3;
        let listed: U256 = survey.voters.iter().map(|(_, votes)| *votes).sum();
        let unlisted = survey.bonded_total.saturating_sub(listed);
        // Whoever holds what nobody lists may be one: the fewest are counted so.
        let mut holders: Vec<U256> = survey.voters.iter().map(|(_, votes)| *votes).collect();
        holders.push(unlisted);
        holders.sort_by(|one, two| two.cmp(one));
        let bps = |bps: u64| survey.bonded_total.saturating_mul(U256::from(bps)).div_ceil(U256::from(10_000));
        let quorum = bps(survey.params.quorum_bps);
        // Everybody votes; the threshold must be exceeded.
        let majority = bps(survey.params.threshold_bps).saturating_add(U256::from(1));
        let mut hosting: BTreeMap<B256, u64> = BTreeMap::new();
        let mut hosts = BTreeSet::new();
        let serving: Vec<_> =
            survey.operators.iter().filter(|operator| !operator.workers.is_empty()).collect();
        for operator in &serving {
            hosts.extend(operator.workers.iter().filter_map(|(_, endpoint)| host(endpoint)));
            let offered: BTreeSet<B256> = operator.offers.iter().map(|offer| offer.model).collect();
            for model in offered {
                *hosting.entry(model).or_default() += 1;
            }
        }
        Self {
            validators,
            halt: if validators == 0 { 0 } else { faults + 1 },
            forge: validators - faults.min(validators),
            pass_alone: fewest(&holders, quorum),
            pass_against_all: fewest(&holders, majority.max(quorum)),
            unlisted,
            serving: serving.len() as u64,
            hosts,
            hosting,
        }
    }

    /// The fewest operators whose end leaves some model without a worker.
    fn least_hosted(&self) -> Option<u64> {
        self.hosting.values().min().copied()
    }

    fn coefficients(&self, survey: &Survey) -> Vec<Coefficient> {
        let known = |name: String, value: Option<u64>, of: u64, how: String| Coefficient {
            name,
            value,
            of: Some(of),
            how,
        };
        let unlisted =
            if self.unlisted.is_zero() { "" } else { "; stake of unknown holders counts as one's" };
        let holders = survey.voters.len() as u64 + u64::from(!self.unlisted.is_zero());
        let mut list = vec![
            known(
                "validators that stop the chain".into(),
                Some(self.halt),
                self.validators,
                "more than a third of them; each has one vote".into(),
            ),
            known(
                "validators that sign a false state".into(),
                Some(self.forge),
                self.validators,
                "two thirds and one; whoever re-executes the blocks sees it, whoever only checks proofs does not"
                    .into(),
            ),
            known(
                "stakeholders that pass any proposal".into(),
                self.pass_alone,
                holders,
                format!("those with most stake, while nobody else votes{unlisted}"),
            ),
            known(
                "stakeholders that pass it against all others".into(),
                self.pass_against_all,
                holders,
                format!("those with most stake{unlisted}"),
            ),
        ];
        let operators = survey.operator_count;
        if self.serving == 0 {
            list.push(known(
                "operators that end all serving".into(),
                None,
                operators,
                "nobody serves".into(),
            ));
        } else {
            let serving = "operators with a worker in service".to_owned();
            list.push(known("operators that end all serving".into(), Some(self.serving), operators, serving));
            list.push(Coefficient {
                name: "hosts whose loss ends all serving".into(),
                value: (!self.hosts.is_empty()).then_some(self.hosts.len() as u64),
                of: None,
                how: if self.hosts.is_empty() {
                    "unknown: no worker says where it is reached".into()
                } else {
                    "different hosts in the workers' endpoints".into()
                },
            });
        }
        for (model, operators) in &self.hosting {
            let name = format!("operators whose end takes model {} away", short(model));
            list.push(known(name, Some(*operators), self.serving, "that offer it and have a worker".into()));
        }
        list.extend(UNKNOWN.map(|(name, how)| Coefficient {
            name: name.to_owned(),
            value: None,
            of: None,
            how: how.to_owned(),
        }));
        list
    }
}

/// How many of the largest together reach `goal`.
fn fewest(descending: &[U256], goal: U256) -> Option<u64> {
    let mut sum = U256::ZERO;
    for (count, holding) in (1..).zip(descending.iter().filter(|holding| !holding.is_zero())) {
        sum = sum.saturating_add(*holding);
        if sum >= goal {
            return Some(count);
        }
    }
    None
}

/// The host of an endpoint such as `key@192.0.2.1:9000` or `https://example.org:1/x`.
fn host(endpoint: &str) -> Option<String> {
    let place = endpoint.rsplit_once("://").map_or(endpoint, |(_, rest)| rest);
    let place = place.split('/').next()?;
    let place = place.rsplit_once('@').map_or(place, |(_, rest)| rest);
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => place.rsplit_once(':').map_or(place, |(host, _)| host),
    };
    (!host.is_empty()).then(|| host.to_lowercase())
}

fn short(id: &B256) -> String {
    id.to_string().trim_start_matches("0x").chars().take(8).collect()
}

/// What is in one hand.
fn alarms(survey: &Survey, counts: &Counts) -> Vec<String> {
    let mut alarms = Vec::new();
    if counts.validators == 1 {
        alarms.push(
            "one key is the whole chain: it decides what is in it, and without it nothing goes on".into(),
        );
    } else if counts.halt == 1 {
        alarms.push(format!("any one of the {} validators can stop the chain", counts.validators));
    }
    if counts.pass_alone == Some(1) {
        let whose = match survey.voters.first() {
            Some((account, votes)) if *votes >= counts.unlisted => {
                format!("{account} has {} of the bonded stake and", share(*votes, survey.bonded_total))
            }
            _ => format!("stake of unknown holders, {}, may be one account's, which", {
                share(counts.unlisted, survey.bonded_total)
            }),
        };
        alarms.push(format!("{whose} can pass any proposal alone while nobody else votes"));
    }
    let operators: BTreeSet<Address> = survey.validators.iter().map(|validator| validator.operator).collect();
    if operators.len() > 1
        && let Some((account, votes)) = survey.voters.first()
        && *votes == survey.bonded_total
    {
        alarms.push(format!(
            "one account, {account}, has bonded everything to all validators: they are its own"
        ));
    }
    if counts.serving == 1 {
        alarms.push("one operator runs all workers: every model and every answer depends on it".into());
    } else if let Some((model, _)) = counts.hosting.iter().find(|(_, operators)| **operators == 1) {
        let lonely = counts.hosting.values().filter(|operators| **operators == 1).count();
        alarms.push(format!("{lonely} model(s) depend on a single operator, for instance {}", short(model)));
    }
    if counts.serving > 1 && counts.hosts.len() == 1 {
        let host = counts.hosts.first().map(String::as_str).unwrap_or_default();
        alarms.push(format!("all workers are reached at one host, {host}: it is one machine or one network"));
    }
    alarms
}

fn share(part: U256, whole: U256) -> String {
    if whole.is_zero() {
        return "0%".into();
    }
    let tenths = part.saturating_mul(U256::from(1_000)) / whole;
    format!("{}.{}%", tenths / U256::from(10), tenths % U256::from(10))
}

/// A span of time as people say it.
#[must_use]
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let several = |count: u64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    for (index, (length, unit)) in UNITS.iter().enumerate() {
        if seconds >= *length {
            let rest = seconds % length;
            let mut text = several(seconds / length, unit);
            if let Some((length, unit)) = UNITS.get(index + 1)
                && rest >= *length
            {
                text = format!("{text} {}", several(rest / length, unit));
            }
            return text;
        }
    }
    several(seconds, "second")
}

/// Whether any module can be told something of this name.
fn exists(words: &[&str]) -> bool {
    POWERS.iter().any(|power| {
        let name = power.function.to_lowercase();
        power.who != Who::Reader && words.iter().any(|word| name.contains(word))
    })
}

/// A row for what nobody can do; if the code ever lets somebody, it says so instead.
fn nobody(what: &'static str, words: &[&str], because: &str) -> PowerRow {
    if exists(words) {
        return PowerRow {
            what,
            who: "unknown: the code has a function of such a name; see the list of functions".into(),
            takes: None,
            nobody: false,
            delay: "unknown".into(),
            veto: "unknown".into(),
            last_used: "unknown".into(),
        };
    }
    PowerRow {
        what,
        who: format!("nobody: {because}"),
        takes: None,
        nobody: true,
        delay: "–".into(),
        veto: "–".into(),
        last_used: "never".into(),
    }
}

fn rows(survey: &Survey, counts: &Counts) -> Vec<PowerRow> {
    let params = &survey.params;
    let decide = decided_by(params, counts);
    let waits = params.voting_s.saturating_add(params.timelock_s);
    let exit = params.unbonding_s.max(params.channel_delay_max_s);
    let veto = format!(
        "stake that votes against it; everyone can leave before it counts ({} to leave, {} of timelock)",
        span(exit),
        span(params.timelock_s)
    );
    let executed = |kind: u8| {
        let last = survey.proposals.iter().find(|(_, proposal)| proposal.kind == kind && proposal.state == 6);
        last.map(|(id, _)| format!("proposal {id}"))
    };
    let cut = survey.proposals.last().is_some_and(|(id, _)| *id > 1);
    let never = || if cut { "not by the latest proposals".to_owned() } else { "never".to_owned() };
    let lead = params.upgrade_lead_blocks;
    let validators = counts.validators;
    let halting = |doing: &str| format!("{} of {validators} validators, {doing}", counts.halt);
    vec![
        PowerRow {
            what: "change the binary",
            who: decide.clone(),
            takes: counts.pass_alone,
            nobody: false,
            delay: format!("{} and {lead} blocks", span(waits)),
            veto: format!("{veto}; whoever does not install it"),
            last_used: match &survey.upgrade {
                Some(plan) => format!("version {} from block {}", plan.version, plan.height),
                None => executed(1).unwrap_or_else(never),
            },
        },
        PowerRow {
            what: "change a parameter",
            who: decide,
            takes: counts.pass_alone,
            nobody: false,
            delay: span(waits),
            veto,
            last_used: executed(0).unwrap_or_else(never),
        },
        nobody(
            "mint",
            &["mint", "issue", "emit"],
            "genesis names all there is, and every block is checked against that",
        ),
        nobody("freeze or pause", &["freeze", "pause", "block", "blacklist"], "no function does it"),
        PowerRow {
            what: "slash",
            who: format!(
                "anyone who shows two conflicting votes under one key ({} of its bond), or a false receipt ({} of what its \
                 operator answers with at least), judged by arithmetic; nobody by vote",
                share(U256::from(params.slash_equivocation_bps), U256::from(10_000)),
                share(U256::from(params.dispute_slash_bps), U256::from(10_000))
            ),
            takes: Some(1),
            nobody: false,
            delay: "at once".into(),
            veto: "nobody: signatures, and a word computed again, are the proof".into(),
            last_used: if survey.forfeited.is_zero() {
                "unknown here: `surety economics` lists it".into()
            } else {
                "in this or the last epoch".into()
            },
        },
        nobody("remove an operator", &["remove", "evict", "ban", "kick"], "it leaves by itself only"),
        nobody(
            "delist a model",
            &["delist", "unpublish", "removemodel"],
            "what is published stays; a name can be pointed elsewhere by its holder, with its history kept",
        ),
        PowerRow {
            what: "read prompts",
            who: "the gateway and the worker that serve a request".into(),
            takes: Some(1),
            nobody: false,
            delay: "at once".into(),
            veto: "whoever asks, by running both; nothing hides the text from them".into(),
            last_used: "unknown".into(),
        },
        PowerRow {
            what: "stop the chain",
            who: halting("by not voting"),
            takes: Some(counts.halt),
            nobody: false,
            delay: "at once".into(),
            veto: "nobody; money and stake stay where they are meanwhile".into(),
            last_used: "unknown".into(),
        },
        PowerRow {
            what: "censor a payment",
            who: format!(
                "{}; each proposer keeps it out of its own blocks",
                halting("by voting for no block that has it")
            ),
            takes: Some(counts.halt),
            nobody: false,
            delay: "at once".into(),
            veto: "one honest proposer, if no third of the others refuses its blocks".into(),
            last_used: "unknown".into(),
        },
    ]
}

fn decided_by(params: &Params, counts: &Counts) -> String {
    let bps = |bps: u64| share(U256::from(bps), U256::from(10_000));
    let fewest = match (counts.pass_alone, counts.pass_against_all) {
        (Some(alone), Some(all)) if alone == all => format!("{alone} account(s) at least"),
        (Some(alone), Some(all)) => {
            format!("{alone} account(s) if nobody else votes, {all} against all others")
        }
        _ => "how few accounts, unknown".to_owned(),
    };
    format!(
        "more than {} of the votes, with {} of the stake voting: {fewest}",
        bps(params.threshold_bps),
        bps(params.quorum_bps)
    )
}

fn risk(takes: Option<u64>) -> Risk {
    match takes {
        Some(takes) if takes >= MANY => Risk::Low,
        Some(takes) if takes >= 2 => Risk::Medium,
        _ => Risk::High,
    }
}

/// Whether the chain has a module of this name.
fn has_module(name: &str) -> bool {
    Module::ALL.iter().any(|module| module.name() == name)
}

fn slices(survey: &Survey, counts: &Counts) -> Vec<Slice> {
    let params = &survey.params;
    let exit_first = params.unbonding_s.max(params.channel_delay_max_s) < params.timelock_s;
    let upgrades = if exit_first { risk(counts.pass_alone) } else { Risk::High };
    let audits = has_module("audits") && has_module("disputes");
    let hosted = counts.least_hosted();
    let one_host = counts.hosts.len() == 1;
    let available = if one_host { Some(1) } else { hosted.map(|hosted| hosted.min(counts.halt)) };
    vec![
        Slice {
            name: "upgrades",
            risk: upgrades,
            why: match (counts.pass_alone, exit_first) {
                (Some(takes), true) => format!(
                    "{takes} account(s) can decide them while nobody else votes; everyone can leave before they count"
                ),
                (Some(takes), false) => format!("{takes} account(s) can decide them before others can leave"),
                (None, _) => "who decides them is unknown".into(),
            },
        },
        Slice {
            name: "verification",
            risk: if audits { Risk::Medium } else { Risk::High },
            why: if audits {
                "a false answer passes where no audit is drawn".into()
            } else {
                "a single worker can answer falsely: the ledger draws no audits, so it is found only by whoever re-runs \
                 the answer"
                    .into()
            },
        },
        Slice {
            name: "availability",
            risk: risk(available),
            why: match hosted {
                _ if one_host => "all workers are at one host".into(),
                Some(hosted) => format!(
                    "{hosted} operator(s) can take some model away, {} validator(s) stop the chain",
                    counts.halt
                ),
                None => "no model is offered by anyone with a worker".into(),
            },
        },
        Slice {
            name: "censorship",
            risk: risk(Some(counts.halt)),
            why: format!("{} validator(s) can keep a transaction out", counts.halt),
        },
        Slice {
            name: "money",
            risk: risk(Some(counts.forge)),
            why: format!(
                "no function takes it; {} validator(s) can sign a state that never was, for those who do not re-execute",
                counts.forge
            ),
        },
        Slice {
            name: "privacy",
            risk: Risk::High,
            why: "the gateway and the worker that serve a request read it".into(),
        },
    ]
}

/// The stage, and what is missing for the next one. `minimum` only if every number is known.
fn stage(survey: &Survey, counts: &Counts, minimum: Option<u64>) -> (u8, Vec<String>) {
    let params = &survey.params;
    let exit_first = params.unbonding_s.max(params.channel_delay_max_s) < params.timelock_s;
    let first = [
        (
            counts.halt >= 2,
            "one validator alone must not be able to stop the chain: at least four are needed",
        ),
        (
            counts.pass_alone.is_some_and(|takes| takes >= 2),
            "no account may be able to pass a proposal alone, even if nobody else votes",
        ),
        (exit_first, "leaving must end before the timelock does"),
        (counts.least_hosted().is_some_and(|takes| takes >= 2), "every offered model needs two operators"),
        (counts.hosts.len() >= 2, "workers must be reached at more than one host"),
        (
            has_module("audits") && has_module("disputes"),
            "false answers must be found and punished by the ledger itself: audits and disputes are not in this version",
        ),
    ];
    let missing = |needs: &[(bool, &str)]| -> Vec<String> {
        needs.iter().filter(|(met, _)| !met).map(|(_, need)| (*need).to_owned()).collect()
    };
    let for_first = missing(&first);
    if !for_first.is_empty() {
        return (0, for_first);
    }
    let second = [
        (minimum.is_none_or(|least| least >= MANY), "every number must be seven or more"),
        (minimum.is_some(), "what is unknown must be known"),
    ];
    let for_second = missing(&second);
    (if for_second.is_empty() { 2 } else { 1 }, for_second)
}

fn upgrade(survey: &Survey) -> Option<UpgradeInFlight> {
    let plan = survey.upgrade.as_ref().filter(|plan| plan.height > survey.tip.number)?;
    let blocks_left = plan.height - survey.tip.number;
    Some(UpgradeInFlight {
        version: plan.version.clone(),
        height: plan.height,
        blocks_left,
        about_s: blocks_left.saturating_mul(survey.params.pace_ms) / 1_000,
        source_revision: plan.source_revision,
        binary_hashes: plan.binary_hashes.clone(),
        readiness: "unknown: nobody says on the ledger what he runs",
    })
}

fn functions() -> Vec<FunctionPower> {
    let not_for_all = POWERS.iter().filter_map(|power| {
        let who = match power.who {
            Who::Party(who) => who,
            Who::Anyone if power.timelock => "anyone, after the timelock",
            Who::Anyone | Who::Reader => return None,
        };
        let function = format!("{}.{}", power.module.name(), power.function);
        Some(FunctionPower { function, who, timelock: power.timelock })
    });
    not_for_all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{
        Tip,
        survey::{SurveyedOperator, SurveyedValidator},
    };
    use surety_chain::UpgradePlan;
    use surety_types::abi::{IGovernance::Proposal, IOperators::Offer};

    fn account(number: u8) -> Address {
        Address::repeat_byte(number)
    }

    fn stake(amount: u64) -> U256 {
        U256::from(amount)
    }

    /// Validators of equal stake, each its own, and operators that all offer one model, each at its own host.
    fn survey(validators: u8, operators: u8) -> Survey {
        let tip = Tip {
            number: 100,
            timestamp_ms: 0,
            epoch: 1,
            view: 100,
            hash: B256::ZERO,
            state_root: B256::ZERO,
        };
        let member = |number: u8| SurveyedValidator {
            key: B256::repeat_byte(number),
            operator: account(number),
            stake: stake(100),
            proposed: 1,
            missed: 0,
            jailed_until: 0,
        };
        let operator = |number: u8| SurveyedOperator {
            account: account(100 + number),
            name: String::new(),
            bonded: stake(10),
            workers: vec![(B256::repeat_byte(number), format!("key@192.0.2.{number}:9000"))],
            offers: vec![Offer {
                model: B256::repeat_byte(7),
                promptPrice: 1,
                cachedPrice: 1,
                outputPrice: 1,
            }],
            unsettled: U256::ZERO,
        };
        Survey {
            tip,
            params: Params::default(),
            validators: (1..=validators).map(member).collect(),
            bonded_total: stake(100 * u64::from(validators)),
            forfeited: U256::ZERO,
            voters: (1..=validators).map(|number| (account(number), stake(100))).collect(),
            operators: (1..=operators).map(operator).collect(),
            operator_count: operators.into(),
            models: vec![B256::repeat_byte(7)],
            model_count: 1,
            proposals: Vec::new(),
            upgrade: None,
            modules: Vec::new(),
            genesis: Vec::new(),
            genesis_count: 0,
        }
    }

    fn value(page: &Powers, name: &str) -> Option<u64> {
        let found = page.coefficients.iter().find(|coefficient| coefficient.name.contains(name));
        found.unwrap_or_else(|| panic!("nothing is called {name}")).value
    }

    fn risk_of(page: &Powers, name: &str) -> Risk {
        page.slices.iter().find(|slice| slice.name == name).unwrap().risk
    }

    fn row<'a>(page: &'a Powers, what: &str) -> &'a PowerRow {
        page.powers.iter().find(|row| row.what == what).unwrap()
    }

    #[test]
    fn validators_are_counted_by_votes() {
        for (validators, halt, forge) in
            [(1, 1, 1), (3, 1, 3), (4, 2, 3), (7, 3, 5), (10, 4, 7), (100, 34, 67)]
        {
            let page = powers(&survey(validators, 3));
            assert_eq!(value(&page, "stop the chain"), Some(halt), "{validators}");
            assert_eq!(value(&page, "false state"), Some(forge), "{validators}");
            assert_eq!(row(&page, "stop the chain").takes, Some(halt));
            assert_eq!(row(&page, "censor a payment").takes, Some(halt));
        }
    }

    #[test]
    fn stake_is_counted_for_the_worst_case() {
        // A third of ten equal holders, and half of them.
        let mut wide = survey(10, 3);
        let page = powers(&wide);
        assert_eq!((value(&page, "pass any"), value(&page, "against all")), (Some(4), Some(6)));
        // More stake with one of them.
        wide.voters.insert(0, (account(99), stake(500)));
        wide.bonded_total = stake(1_500);
        let page = powers(&wide);
        assert_eq!((value(&page, "pass any"), value(&page, "against all")), (Some(2), Some(4)));
        // Stake of holders that nobody lists might be one's.
        wide.bonded_total = stake(3_000);
        let page = powers(&wide);
        assert_eq!(value(&page, "pass any"), Some(1));
        assert!(page.alarms.iter().any(|alarm| alarm.contains("unknown holders")), "{:?}", page.alarms);
        // Another quorum, another number: it is the ledger's parameter, not ours.
        wide.params.quorum_bps = 6_000;
        assert_eq!(value(&powers(&wide), "pass any"), Some(2));
    }

    #[test]
    fn what_is_in_one_hand_is_said_in_red_and_is_stage_0() {
        let alarmed = |survey: &Survey, word: &str| {
            let page = powers(survey);
            assert!(page.alarms.iter().any(|alarm| alarm.contains(word)), "{word}: {:?}", page.alarms);
            assert_eq!(page.stage, 0);
            assert!(!page.missing.is_empty());
            page
        };
        let page = alarmed(&survey(1, 3), "one key is the whole chain");
        assert_eq!((risk_of(&page, "censorship"), page.minimum), (Risk::High, Some(1)));
        alarmed(&survey(3, 3), "can stop the chain");
        let page = alarmed(&survey(10, 1), "one operator runs all workers");
        assert_eq!((risk_of(&page, "availability"), value(&page, "takes model")), (Risk::High, Some(1)));

        let mut one = survey(10, 3);
        one.voters = vec![(account(9), stake(1_000))];
        let page = alarmed(&one, "bonded everything to all validators");
        assert_eq!(risk_of(&page, "upgrades"), Risk::High);
        assert!(row(&page, "change the binary").takes == Some(1));

        let mut lonely = survey(10, 3);
        lonely.operators[1].offers[0].model = B256::repeat_byte(8);
        alarmed(&lonely, "depend on a single operator");

        let mut together = survey(10, 3);
        for operator in &mut together.operators {
            operator.workers[0].1 = "key@127.0.0.1:9000".into();
        }
        let page = alarmed(&together, "127.0.0.1");
        assert_eq!((risk_of(&page, "availability"), value(&page, "hosts")), (Risk::High, Some(1)));
    }

    #[test]
    fn a_wide_network_raises_no_alarm_and_claims_nothing_it_does_not_know() {
        let page = powers(&survey(40, 20));
        assert_eq!(page.alarms, Vec::<String>::new());
        for slice in ["upgrades", "availability", "censorship", "money"] {
            assert_eq!(risk_of(&page, slice), Risk::Low, "{slice}");
        }
        // A false answer passes where no audit is drawn, and whoever serves a request reads it.
        assert_eq!((risk_of(&page, "verification"), risk_of(&page, "privacy")), (Risk::Medium, Risk::High));
        assert_eq!(page.stage, 1);
        assert_eq!(page.missing.len(), 1, "{:?}", page.missing);
        let unknown = page.coefficients.iter().filter(|coefficient| coefficient.value.is_none());
        for coefficient in unknown {
            assert!(coefficient.how.starts_with("unknown"), "{coefficient:?}");
        }
        assert_eq!(page.minimum, page.coefficients.iter().filter_map(|coefficient| coefficient.value).min());
    }

    #[test]
    fn nobody_can_do_what_no_function_does() {
        let page = powers(&survey(4, 2));
        let nobody: Vec<&str> = page.powers.iter().filter(|row| row.nobody).map(|row| row.what).collect();
        assert_eq!(nobody, ["mint", "freeze or pause", "remove an operator", "delist a model"]);
        assert!(page.emergency.nobody && page.emergency.who.contains("no council"));
        // Were there such a function, it would not go unsaid.
        let named = nobody_row_for("vote");
        assert!(!named.nobody && named.who.starts_with("unknown"));
        assert!(page.functions.iter().any(|one| one.function == "governance.execute" && one.timelock));
        assert!(page.functions.iter().all(|one| !one.function.contains("view")));
    }

    fn nobody_row_for(word: &str) -> PowerRow {
        nobody("test", &[word], "")
    }

    #[test]
    fn a_changed_parameter_and_an_upgrade_change_the_page() {
        let before = powers(&survey(10, 3));
        assert_eq!(row(&before, "change a parameter").last_used, "never");
        assert_eq!(row(&before, "change a parameter").delay, "10 days");
        let mut changed = survey(10, 3);
        changed.params.timelock_s = 20 * 86_400;
        let proposal = Proposal {
            proposer: account(1),
            kind: 0,
            state: 6,
            votingEndsAt: 1,
            executableAt: 2,
            votesFor: U256::ZERO,
            votesAgainst: U256::ZERO,
            votesAbstaining: U256::ZERO,
        };
        changed.proposals = vec![(1, proposal)];
        changed.upgrade = Some(UpgradePlan {
            height: 150,
            version: "2.0.0".into(),
            source_revision: B256::ZERO,
            binary_hashes: vec![],
        });
        let page = powers(&changed);
        assert_eq!(row(&page, "change a parameter").delay, "23 days");
        assert_eq!(row(&page, "change a parameter").last_used, "proposal 1");
        let about = 50 * changed.params.pace_ms / 1_000;
        assert_eq!(page.upgrade.as_ref().map(|one| (one.blocks_left, one.about_s)), Some((50, about)));
        changed.tip.number = 150;
        assert_eq!(powers(&changed).upgrade, None, "it is no longer on its way");
        assert_eq!(row(&powers(&changed), "change the binary").last_used, "version 2.0.0 from block 150");
    }

    #[test]
    fn leaving_must_be_faster_than_the_timelock() {
        let mut slow = survey(40, 20);
        slow.params.unbonding_s = slow.params.timelock_s;
        let page = powers(&slow);
        assert_eq!(risk_of(&page, "upgrades"), Risk::High);
        assert!(page.missing.iter().any(|need| need.contains("leaving")));
    }

    #[test]
    fn hosts_and_spans_are_read_as_written() {
        for (endpoint, expected) in [
            ("key@192.0.2.1:9000", Some("192.0.2.1")),
            ("https://Example.org:1/x", Some("example.org")),
            ("key@[2001:db8::1]:9", Some("2001:db8::1")),
            ("example.org", Some("example.org")),
            ("", None),
        ] {
            assert_eq!(host(endpoint).as_deref(), expected, "{endpoint}");
        }
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (90, "1 minute 30 seconds"),
            (3_605, "1 hour"),
            (3_660, "1 hour 1 minute"),
            (86_400 * 5, "5 days"),
            (90_000, "1 day 1 hour"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
