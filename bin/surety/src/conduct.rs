//! Conduct: what the ledger knows of operators, as rows of a page.
//!
//! In:     records. Out: text.
//! Touches: nothing.
//! Absent: looking (`client::ledger::conduct`).

use alloy_primitives::U256;
pub use surety_client::ledger::{
    conduct::{Conducts, conducts},
    rechecked::{Rechecked, rechecked},
};

use crate::look::credits;

/// Rows for a page: a title for each column, then each operator.
pub fn rows(conducts: &Conducts) -> Vec<Vec<String>> {
    let titles = [
        "  operator",
        "audited",
        "passed",
        "missed",
        "unconfirmed",
        "differing",
        "exposure of cap",
        "claims paid",
        "disputes",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let amount = |text: &str| credits(text.parse::<U256>().unwrap_or_default());
    rows.extend(conducts.operators.iter().map(|of| {
        let disputes = match (of.disputes_open, of.convictions, of.disputes_dismissed) {
            (0, 0, 0) => "none".to_owned(),
            (open, convicted, dismissed) => {
                format!("{convicted} convicted, {open} open, {dismissed} dismissed")
            }
        };
        vec![
            format!("  {}", &of.operator[..10.min(of.operator.len())]),
            format!("{} %", of.audit_ppm as f64 / 10_000.0),
            of.audits_passed.to_string(),
            of.audits_missed.to_string(),
            of.audits_unconfirmed.to_string(),
            of.audits_differing.to_string(),
            format!("{} of {}", amount(&of.exposure), amount(&of.exposure_cap)),
            of.claims_compensated.to_string(),
            disputes,
        ]
    }));
    rows
}
