//! The access log: what a gateway noted of requests, checked and explained.
//!
//! In:     its statements, with what was signed about each order.
//! Out:    an entry for each request, with who is accountable; receipts by their digests, workers' regions; files that `surety
//!         explain` reads.
//! Touches: nothing.
//! Holds:  what does not hold is an entry all the same, and says so; no text of a prompt or an answer.
//! Absent: asking the gateway (`commands/evidence`).

use std::collections::BTreeMap;

use serde::Serialize;
use surety_gateway::LoggedRequest;
use surety_types::{Digest, PublicKey, Signed, StatedEnd};

use super::moment::Moment;
use crate::{
    dossier,
    explanation::{End, Explanation, explain_false, explain_stated},
    verification::Known,
};

/// What was asked.
pub struct Access {
    pub gateway: Option<PublicKey>,
    pub entries: Vec<Entry>,
    /// Which request a receipt is of.
    pub receipts: BTreeMap<Digest, String>,
    /// Every worker that signed something, and where it said last that it is.
    pub regions: BTreeMap<PublicKey, Option<String>>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub request_id: String,
    pub received: Moment,
    pub ended: Moment,
    /// From the request to its end, by the gateway's clock, in milliseconds.
    pub took_ms: u64,
    /// The name of the key that it came with.
    pub key: Option<String>,
    pub path: String,
    pub model: String,
    pub end: Ended,
    /// Of what failed: the error that the caller was told.
    pub code: Option<String>,
    pub verdict: String,
    pub accountable: String,
    pub basis: String,
    pub worker: Option<PublicKey>,
    /// Whether signatures and bindings of its receipts hold, and they are of a whole answer.
    pub verified: bool,
    pub parts: Vec<Share>,
    /// Micro-credits, as decimal text.
    pub charge: String,
    /// The file of the pack that it rests on.
    pub evidence: String,
}

/// What one worker did of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    pub worker: PublicKey,
    pub output_tokens: u32,
    /// Whether it ended it with a receipt for an answer.
    pub answered: bool,
}

/// How a request ended, by the gateway's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Answered,
    Failed,
    CallerLeft,
    GatewayStopped,
    /// Only its prompt was counted.
    Counted,
    /// What is kept of it does not hold.
    Unknown,
}

impl Ended {
    pub fn name(self) -> &'static str {
        match self {
            Ended::Answered => "answered",
            Ended::Failed => "failed",
            Ended::CallerLeft => "caller_left",
            Ended::GatewayStopped => "gateway_stopped",
            Ended::Counted => "counted",
            Ended::Unknown => "unknown",
        }
    }
}

/// A file of the pack: its name, and its bytes.
pub type File = (String, Vec<u8>);

impl Access {
    /// Reads what a gateway noted of requests that had ended by then.
    ///
    /// # Errors
    /// If a file cannot be written as JSON.
    pub fn read(logged: Vec<LoggedRequest>, to: Moment) -> anyhow::Result<(Access, Vec<File>)> {
        let (receipts, regions) = (BTreeMap::new(), BTreeMap::new());
        let mut access = Access { gateway: None, entries: Vec::new(), receipts, regions };
        let mut files = Vec::new();
        for request in logged {
            let bytes = serde_json::to_vec(&request.dossier)?;
            let name = format!("requests/{}.json", file_name(&request.dossier.request_id));
            let entry = access.take(&request, &bytes, &name);
            if entry.ended > to {
                continue;
            }
            access.entries.push(entry);
            files.push((name, bytes));
        }
        access.entries.sort_by_key(|entry| entry.received);
        Ok((access, files))
    }

    fn take(&mut self, request: &LoggedRequest, bytes: &[u8], name: &str) -> Entry {
        let id = &request.dossier.request_id;
        let ended = Moment(request.ended_ms);
        let shown = match dossier::read(bytes, &Known::default()) {
            Ok(shown) => shown,
            Err(wrong) => {
                let explanation = explain_false(Some(id.clone()), &wrong.why);
                return entry(id, request, name, (ended, ended), "", "", Ended::Unknown, &explanation);
            }
        };
        for papers in &shown.papers {
            let region = papers.acceptance.as_ref().and_then(|acceptance| acceptance.region.as_ref());
            let known = self.regions.entry(papers.worker).or_default();
            if let Some(region) = region {
                *known = Some(region.to_string());
            }
            if let Some(receipt) = &papers.receipt {
                self.receipts.insert(Signed::digest(receipt), id.clone());
            }
        }
        let Some(statement) = &shown.statement else {
            let explanation = explain_false(Some(id.clone()), "there is no statement");
            return entry(id, request, name, (ended, ended), "", "", Ended::Unknown, &explanation);
        };
        self.gateway = Some(statement.gateway);
        let explanation = explain_stated(statement, &shown.papers, |_| None);
        let end = match statement.end {
            StatedEnd::Answered => Ended::Answered,
            StatedEnd::Failed { .. } => Ended::Failed,
            StatedEnd::Left => Ended::CallerLeft,
            StatedEnd::Stopped => Ended::GatewayStopped,
            StatedEnd::Counted => Ended::Counted,
        };
        let span = (Moment(statement.received_ms), Moment(statement.ended_ms));
        entry(id, request, name, span, &statement.path, &statement.model_name, end, &explanation)
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one field")]
fn entry(
    id: &str,
    request: &LoggedRequest,
    name: &str,
    (received, ended): (Moment, Moment),
    path: &str,
    model: &str,
    end: Ended,
    explanation: &Explanation,
) -> Entry {
    let answered = |part: &crate::explanation::Part| matches!(part.end, End::Answered { .. });
    let parts = explanation.parts.iter().map(|part| Share {
        worker: part.worker,
        output_tokens: part.output_tokens,
        answered: answered(part),
    });
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
    };
    Entry {
        request_id: id.to_owned(),
        received,
        ended,
        took_ms: ended.0.saturating_sub(received.0),
        key: request.key.clone(),
        path: path.to_owned(),
        model: model.to_owned(),
        end,
        code: explanation.code.clone(),
        verdict: explanation.verdict.clone(),
        accountable: word(serde_json::to_value(explanation.accountable)),
        basis: word(serde_json::to_value(explanation.basis)),
        worker: explanation.worker,
        verified: request.answered && explanation.whole,
        parts: parts.collect(),
        charge: explanation.charge.0.to_string(),
        evidence: name.to_owned(),
    }
}

/// An id as a file's name: a gateway's word is no path.
fn file_name(id: &str) -> String {
    id.chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'))
        .take(80)
        .collect()
}

#[cfg(test)]
mod tests {
    use surety_types::{Amount, Dossier, SecretKey, Statement, Text, statement::DOSSIER_VERSION};

    use super::*;

    fn logged(id: &str, end: StatedEnd) -> LoggedRequest {
        let key = SecretKey::from_bytes(&[1; 32]);
        let statement = Statement {
            request_id: id.to_owned(),
            gateway: key.public(),
            path: Text::clipped("/v1/completions"),
            model_name: "m".to_owned(),
            received_ms: 1_000,
            ended_ms: 3_500,
            end,
            charge: Amount::ZERO,
            decisions: Vec::new(),
            events: Vec::new(),
            left_out: 0,
        };
        let dossier = Dossier {
            surety_dossier: DOSSIER_VERSION,
            request_id: id.to_owned(),
            statement: Some(Signed::sign(statement, &key).bytes().to_vec()),
            papers: Vec::new(),
            evidence: None,
            ledger: None,
        };
        LoggedRequest { ended_ms: 3_500, key: Some("mine".to_owned()), answered: false, dossier }
    }

    #[test]
    fn each_request_is_an_entry_and_a_file_that_can_be_explained() {
        let failed = StatedEnd::Failed {
            code: Text::clipped("invalid_param"),
            message: Text::clipped("no."),
            accountable: Text::clipped("caller"),
            worker: None,
        };
        let mut changed = logged("req_3", StatedEnd::Left);
        *changed.dossier.statement.as_mut().unwrap().last_mut().unwrap() ^= 1;
        let all = vec![logged("req_1", failed), logged("req_2", StatedEnd::Stopped), changed];
        let (access, files) = Access::read(all, Moment(u64::MAX)).unwrap();
        let said: Vec<(&str, Ended, &str)> = access
            .entries
            .iter()
            .map(|entry| (entry.request_id.as_str(), entry.end, entry.accountable.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("req_1", Ended::Failed, "caller"),
                ("req_2", Ended::GatewayStopped, "gateway"),
                ("req_3", Ended::Unknown, "unknown")
            ]
        );
        assert_eq!(
            (access.entries[0].took_ms, access.entries[0].code.as_deref()),
            (2_500, Some("invalid_param"))
        );
        assert_eq!(files[0].0, "requests/req_1.json");
        assert!(dossier::read(&files[0].1, &Known::default()).is_ok());
    }

    #[test]
    fn a_gateways_id_is_no_path() {
        assert_eq!(file_name("../../etc/x"), "etcx");
    }
}
