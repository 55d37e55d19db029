//! Scores: how the workers of each model compare for a request without wishes, and why.
//!
//! In:     the workers as they are. Out: for each and each model it serves its rank, and every factor of its cost; or what keeps it out.
//! Touches: nothing: nobody is asked, and it counts as no turn.
//! Holds:  it is what `choice` reckons with, and nothing else.
//! Absent: what a caller's wishes change.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use serde::Serialize;
use surety_types::PublicKey;
use utoipa::ToSchema;

use super::{
    Demand, Workers,
    choice::{Constraint, Cost, FACTORS, Standing, Wanted, compared},
    preferences::Preferences,
};

/// How a worker ranks with a model, for a request without wishes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Score {
    /// The worker's key.
    pub worker: String,
    /// The model's id.
    pub model: String,
    /// From 1, of so many; null for who is kept out.
    pub rank: Option<u32>,
    pub of: u32,
    /// What keeps it out: after "it is".
    pub kept_out: Option<String>,
    /// The sum of the costs below: the least is chosen first, and e times the load at a worker adds 1.
    pub cost: Option<f32>,
    /// What that is made of.
    pub factors: Vec<Factor>,
}

/// One factor of a cost.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Factor {
    /// `load`, `first_token`, `pace`, `price`, `reliability`, `comparisons`, `stake` or `affinity`.
    pub name: &'static str,
    pub weight: f32,
    /// What goes in: orders under way; milliseconds; tokens a second; micro-credits per million prompt and output tokens; a share; odds;
    /// credits bonded and free. Null where it was not measured, and the slowest that was is taken; and of `affinity`, which is a
    /// request's.
    pub input: Option<f32>,
    /// What it adds to the cost, and the least that it adds to anybody's.
    pub cost: f32,
    pub least: f32,
}

impl Workers {
    /// How the `wanted` workers rank with every model that they serve.
    pub(crate) fn scores(&self, wanted: &[PublicKey]) -> Vec<Score> {
        let ids: BTreeSet<String> = self.models(0).into_iter().map(|model| model.surety.id).collect();
        ids.into_iter().flat_map(|id| self.scores_of(&id, wanted)).collect()
    }

    fn scores_of(&self, id: &str, wanted: &[PublicKey]) -> Vec<Score> {
        // Between two looks its workers may have gone.
        let Ok(model) = self.resolve(id) else { return Vec::new() };
        let preferences = Preferences::default();
        let demand = Demand {
            model: &model,
            preferences: &preferences,
            max_output_tokens: None,
            context_tokens_min: None,
            without: &[],
            apart: &[],
            affinity: None,
            orders: 1,
            trail: None,
        };
        let now = Instant::now();
        let standings: Vec<Standing> =
            self.all().iter().map(|worker| self.standing(Arc::as_ref(worker), &demand, now).0).collect();
        let wishes = Wanted {
            preferences: &preferences,
            context_tokens_min: None,
            without: &[],
            apart: &[],
            affinity: None,
            orders: 1,
        };
        scores(id, &standings, &wishes, wanted)
    }
}

pub(super) fn scores(
    id: &str,
    standings: &[Standing],
    wishes: &Wanted<'_>,
    wanted: &[PublicKey],
) -> Vec<Score> {
    let compared = compared(standings, wishes);
    let costs: Vec<Cost> = compared.iter().filter_map(|cost| cost.ok()).collect();
    let least = |factor: usize| costs.iter().map(|cost| cost.0[factor]).fold(f32::INFINITY, f32::min);
    let shown = standings
        .iter()
        .zip(&compared)
        .filter(|(standing, _)| standing.served.is_some() && wanted.contains(&standing.key));
    let score = |(standing, compared): (&Standing, &Result<Cost, Constraint>)| {
        let cost = compared.ok();
        let total = cost.map(Cost::total);
        let rank = total.map(|total| 1 + costs.iter().filter(|other| other.total() < total).count() as u32);
        let factors = cost.into_iter().flat_map(|cost| {
            FACTORS
                .iter()
                .enumerate()
                .map(move |(index, (name, weight))| (index, *name, *weight, cost.0[index]))
        });
        let factor = |(index, name, weight, cost)| Factor {
            name,
            weight,
            input: input(standing, index),
            cost,
            least: least(index),
        };
        Score {
            worker: standing.key.to_string(),
            model: id.to_owned(),
            rank,
            of: costs.len() as u32,
            kept_out: compared.err().map(Constraint::words),
            cost: total,
            factors: factors.map(factor).collect(),
        }
    };
    shown.map(score).collect()
}

/// What goes into a factor.
fn input(standing: &Standing, factor: usize) -> Option<f32> {
    match FACTORS[factor].0 {
        "load" => Some(standing.load as f32),
        "first_token" => standing.first_token_ms,
        "pace" => standing.tokens_per_second,
        "price" => standing.price.ok().map(|price| price.prompt.0 as f32 + price.output.0 as f32),
        "reliability" => Some(standing.reliability),
        "comparisons" => Some(standing.against),
        "stake" => Some((standing.free_stake / 1_000_000_000_000) as f32 / 1_000_000.0),
        _ => None,
    }
}
