//! Dossier: all that is shown of one request, checked as far as signatures go.
//!
//! In:     bytes from a gateway, or of a file that somebody saved.
//! Out:    the gateway's statement, what was signed about each order, the evidence; what the saver read of the ledger.
//! Touches: nothing.
//! Holds:  every signature verifies and belongs to the order it is shown with; a statement is by the gateway whose orders these are.
//!         What is said of the ledger is under no signature, and is the saver's word.
//! Absent: who is accountable (`explanation`).

use serde::{Deserialize, Serialize};
use surety_types::{
    Acceptance, Digest, Dossier, Order, Progress, PublicKey, Receipt, Signed, Statement,
    statement::{DOSSIER_VERSION, MAX_PAPERS},
};

use crate::{
    explanation::OnLedger,
    rechecking::Subject,
    verification::{Known, Verified, chain, verify},
};

/// Records of the ledger in one file: those of an evidence's answers, and of papers.
const RECORDS_MAX: usize = surety_types::evidence::MAX_ANSWERS + MAX_PAPERS;

/// What is shown of a request, and holds.
pub struct Shown {
    pub request_id: String,
    pub statement: Option<Signed<Statement>>,
    pub papers: Vec<Papers>,
    pub evidence: Option<Verified>,
    /// What whoever saved it read of the ledger.
    pub saved: Vec<Saved>,
    /// As it came.
    dossier: Dossier,
}

/// What was signed about one order of which there is no evidence.
pub struct Papers {
    pub order: Signed<Order>,
    pub worker: PublicKey,
    pub acceptance: Option<Signed<Acceptance>>,
    pub progress: Option<Signed<Progress>>,
    pub receipt: Option<Signed<Receipt>>,
}

/// What the ledger knew of an order when somebody looked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub order: Digest,
    pub worker: PublicKey,
    pub record: OnLedger,
}

/// What does not hold, and of which request it is said to be.
pub struct False {
    pub request_id: Option<String>,
    pub why: String,
}

/// Checks a dossier, or an evidence as one.
pub fn read(bytes: &[u8], known: &Known) -> Result<Shown, Box<False>> {
    let dossier = match Dossier::is_meant(bytes) {
        true => {
            Dossier::parse(bytes).map_err(|error| Box::new(False { request_id: None, why: chain(&error) }))?
        }
        false => {
            let verified = verify(bytes, known).map_err(|report| not_verified(*report))?;
            let json = String::from_utf8_lossy(bytes).into_owned();
            let evidence = serde_json::value::RawValue::from_string(json).ok();
            let request_id = verified.report.request_id.clone().unwrap_or_default();
            let dossier = Dossier {
                surety_dossier: DOSSIER_VERSION,
                request_id: request_id.clone(),
                statement: None,
                papers: Vec::new(),
                evidence,
                ledger: None,
            };
            let (papers, saved) = (Vec::new(), Vec::new());
            let evidence = Some(verified);
            return Ok(Shown { request_id, statement: None, papers, evidence, saved, dossier });
        }
    };
    let id = dossier.request_id.clone();
    let fails = |why: String| Box::new(False { request_id: Some(id.clone()), why });
    if known.request_id.as_ref().is_some_and(|wanted| !same_request(wanted, &id)) {
        return Err(fails(format!("this is about {id}")));
    }
    let evidence = match &dossier.evidence {
        None => None,
        Some(evidence) => {
            Some(verify(evidence.get().as_bytes(), known).map_err(|report| not_verified(*report))?)
        }
    };
    let statement = match &dossier.statement {
        None => None,
        Some(bytes) => Some(
            Signed::<Statement>::open(bytes)
                .map_err(|error| fails(format!("the gateway's statement: {}", chain(&error))))?,
        ),
    };
    if let Some(statement) = &statement {
        if statement.request_id != id {
            return Err(fails(format!("the gateway's statement is about {}", statement.request_id)));
        }
        let of_another = |verified: &Verified| verified.report.gateway != Some(statement.gateway);
        if evidence.as_ref().is_some_and(of_another) {
            return Err(fails("statement and evidence are by different gateways".to_owned()));
        }
    }
    if evidence.as_ref().is_some_and(|verified| verified.report.request_id.as_ref() != Some(&id)) {
        return Err(fails("the evidence is about another request".to_owned()));
    }
    let mut papers = Vec::with_capacity(dossier.papers.len());
    for paper in &dossier.papers {
        let opened =
            Papers::open(paper).map_err(|why| fails(format!("what was signed about an order: {why}")))?;
        if statement.as_ref().is_none_or(|statement| statement.gateway != opened.order.payer) {
            return Err(fails("an order is not by the gateway that shows it".to_owned()));
        }
        papers.push(opened);
    }
    let saved: Vec<Saved> = match &dossier.ledger {
        None => Vec::new(),
        Some(saved) => serde_json::from_str(saved.get())
            .map_err(|error| fails(format!("what was saved of the ledger: {error}")))?,
    };
    if saved.len() > RECORDS_MAX {
        return Err(fails(format!("it has {} records of the ledger", saved.len())));
    }
    Ok(Shown { request_id: id, statement, papers, evidence, saved, dossier })
}

/// Whether two spellings of an id are of one request.
fn same_request(one: &str, other: &str) -> bool {
    let digits = |id: &str| id.rsplit(['_', '-']).next().unwrap_or_default().to_owned();
    digits(one) == digits(other)
}

fn not_verified(report: crate::verification::Report) -> Box<False> {
    Box::new(False { request_id: report.request_id, why: report.failure.unwrap_or_default() })
}

impl Shown {
    /// Every order, its worker, and its receipt if there is one.
    pub fn subjects(&self) -> Vec<Subject> {
        let papers = self.papers.iter().map(|papers| Subject {
            order: papers.order.digest(),
            worker: papers.worker,
            receipt: papers.receipt.as_ref().map(Signed::digest),
        });
        self.evidence.iter().flat_map(Verified::subjects).chain(papers).collect()
    }

    /// The file, with what was read of the ledger.
    pub fn export(mut self, records: &[Saved]) -> anyhow::Result<Vec<u8>> {
        self.dossier.ledger = Some(serde_json::value::to_raw_value(records)?);
        Ok(serde_json::to_vec(&self.dossier)?)
    }
}

impl Papers {
    fn open(paper: &surety_types::Paper) -> Result<Papers, String> {
        let order = Signed::<Order>::open(&paper.order).map_err(|error| chain(&error))?;
        let digest = order.digest();
        let acceptance = paper.acceptance.as_deref().map(Signed::<Acceptance>::open).transpose();
        let acceptance = acceptance.map_err(|error| chain(&error))?;
        let receipt = paper.receipt.as_deref().map(Signed::<Receipt>::open).transpose();
        let receipt = receipt.map_err(|error| chain(&error))?;
        let worker = acceptance
            .as_ref()
            .map(|acceptance| acceptance.worker)
            .or(receipt.as_ref().map(|receipt| receipt.worker))
            .ok_or("no worker has signed anything about it")?;
        let progress = paper.progress.as_deref().map(|bytes| Signed::<Progress>::open_by(bytes, &worker));
        let progress = progress.transpose().map_err(|error| chain(&error))?;
        let of_it = acceptance.as_ref().is_none_or(|acceptance| acceptance.order == digest)
            && progress.as_ref().is_none_or(|progress| progress.order == digest)
            && receipt.as_ref().is_none_or(|receipt| receipt.order == digest && receipt.worker == worker);
        match of_it {
            true => Ok(Papers { order, worker, acceptance, progress, receipt }),
            false => Err("it is about another order".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::{Amount, SecretKey, StatedEnd, Text};

    use super::*;

    fn statement(key: &SecretKey, id: &str) -> Vec<u8> {
        let statement = Statement {
            request_id: id.to_owned(),
            gateway: key.public(),
            path: Text::clipped("/v1/completions"),
            model_name: "m".to_owned(),
            received_ms: 1,
            ended_ms: 2,
            end: StatedEnd::Left,
            charge: Amount::ZERO,
            decisions: Vec::new(),
            events: Vec::new(),
            left_out: 0,
        };
        Signed::sign(statement, key).bytes().to_vec()
    }

    fn dossier(statement: Vec<u8>) -> Dossier {
        Dossier {
            surety_dossier: DOSSIER_VERSION,
            request_id: "req_1".to_owned(),
            statement: Some(statement),
            papers: Vec::new(),
            evidence: None,
            ledger: None,
        }
    }

    fn read_it(dossier: &Dossier) -> Result<Shown, Box<False>> {
        read(&serde_json::to_vec(dossier).unwrap(), &Known::default())
    }

    #[test]
    fn what_is_shown_is_saved_and_read_again() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let shown = read_it(&dossier(statement(&key, "req_1"))).map_err(|wrong| wrong.why).unwrap();
        let record = OnLedger { operator: Some("0x01".to_owned()), ..OnLedger::default() };
        let saved = [Saved { order: Digest::ZERO, worker: key.public(), record }];
        let bytes = shown.export(&saved).unwrap();
        let again = read(&bytes, &Known::default()).map_err(|wrong| wrong.why).unwrap();
        assert_eq!(again.saved[0].record.operator.as_deref(), Some("0x01"));
        assert_eq!(again.statement.unwrap().end, StatedEnd::Left);
    }

    #[test]
    fn what_was_changed_does_not_hold() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let why = |dossier: &Dossier| read_it(dossier).err().map(|wrong| wrong.why).unwrap_or_default();
        assert!(why(&dossier(statement(&key, "req_2"))).contains("is about req_2"));
        let mut bytes = statement(&key, "req_1");
        *bytes.last_mut().unwrap() ^= 1;
        assert!(why(&dossier(bytes)).contains("the gateway's statement"));
        let mut other = dossier(statement(&key, "req_1"));
        other.surety_dossier = 2;
        assert!(why(&other).contains("version 2"));
        let known = Known { request_id: Some("chatcmpl-2".to_owned()), ..Known::default() };
        let bytes = serde_json::to_vec(&dossier(statement(&key, "req_1"))).unwrap();
        assert!(read(&bytes, &known).is_err_and(|wrong| wrong.why.contains("this is about req_1")));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in r#"\{("surety_dossier":1,)?("[a-z]{1,9}":["0-9a-z\[\]{}]{0,9},?){0,9}\}"#) {
            prop_assert!(read(text.as_bytes(), &Known::default()).is_err());
        }
    }
}
