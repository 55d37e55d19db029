//! Read: the books of a network, as they lie on its disks and stand on its ledger.
//!
//! In:     the data directory of a network that was stopped; a validator's RPC. Out: [`Books`].
//! Touches: files of the gateway and of workers, to read; the binary, to ask; the ledger.
//! Holds:  everything is read from the disk, also what no caller was ever told of.
//! Absent: what must agree (`books`).

use std::collections::BTreeSet;
use std::path::Path;

use alloy_primitives::{Address, B256, U256, hex};
use alloy_sol_types::SolCall;
use anyhow::{Context, Result, ensure};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde_json::{Value, json};
use surety_types::abi::{IChannels, address};
use surety_types::{
    AuditEvidence, Canonical, Digest, Dossier, Envelope, Evidence, OpenError, Order, Prompt, PublicKey,
    Receipt, Request, Signed, StatedEnd, Statement, What,
};

use super::books::{Books, Kept, KeyBook, Logged, PAYER_KEY, Paid, Purpose, Row, Stage, Stated};
use super::operations::marks;
use crate::kill_matrix::network::{self, surety};
use crate::kill_matrix::wire;

/// As the gateway's `receipts` has them: order of arrival → request id, evidence.
const EVIDENCE: TableDefinition<'_, u64, (u128, &[u8])> = TableDefinition::new("evidence");
/// As the gateway's `keys` has them: request id → key; key, order of arrival → a row as JSON.
const HOLDS: TableDefinition<'_, u128, u64> = TableDefinition::new("holds");
const GENERATIONS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("generations");
/// What stands there for all who pay by the request.
const PAYER: u64 = u64::MAX;
/// As the gateway's `journal` has them: order of arrival → request id, Unix milliseconds, a dossier as JSON.
const ENTRIES: TableDefinition<'_, u64, (u128, u64, &[u8])> = TableDefinition::new("entries");
/// As the gateway's `payments` has them: payer ‖ nonce → a row as JSON.
const PAYMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("payments");
/// As a worker's `book` has them: receipt → salt, state, what an audit needs.
type CaseRow<'a> = (&'a [u8], &'a [u8], &'a [u8]);
const CASES: TableDefinition<'_, &[u8], CaseRow<'_>> = TableDefinition::new("cases");
const MICRO: u128 = 1_000_000_000_000;

impl Books {
    /// What the gateway has written, once it is stopped.
    pub fn of_gateway(&mut self, binary: &Path, data_dir: &Path, keys: &[String]) -> Result<()> {
        let folder = data_dir.join("gateway");
        self.read_receipts(&folder.join("receipts.redb"))?;
        self.read_journal(&folder.join("journal.redb"))?;
        for name in keys {
            self.read_key(binary, data_dir, name).with_context(|| format!("the key {name}"))?;
        }
        let database = Database::open(folder.join("keys.redb"))?;
        let keys = database.begin_read()?;
        self.holds = keys.open_table(HOLDS)?.len()?;
        for row in keys.open_table(GENERATIONS)?.range((PAYER, 0)..=(PAYER, u64::MAX))? {
            self.rows.push(row_of(PAYER_KEY, &serde_json::from_slice(row?.1.value())?)?);
        }
        let database = Database::open(folder.join("payments.redb"))?;
        for row in database.begin_read()?.open_table(PAYMENTS)?.iter()? {
            self.payments.push(paid(&serde_json::from_slice(row?.1.value())?)?);
        }
        Ok(())
    }

    fn read_receipts(&mut self, path: &Path) -> Result<()> {
        let database = Database::open(path)?;
        for row in database.begin_read()?.open_table(EVIDENCE)?.iter()? {
            let (_, row) = row?;
            let evidence = Evidence::parse(row.value().1)?;
            let id = evidence.request_id.clone();
            for answer in &evidence.answers {
                let (order, _) = Signed::<Order>::peek_value(&answer.order)?;
                self.requests.insert(order.digest(), id.clone());
            }
            let kept = kept(&evidence).with_context(|| format!("the evidence of {id}"))?;
            ensure!(self.kept.insert(id.clone(), kept).is_none(), "{id} has evidence twice");
        }
        Ok(())
    }

    fn read_journal(&mut self, path: &Path) -> Result<()> {
        let database = Database::open(path)?;
        for row in database.begin_read()?.open_table(ENTRIES)?.iter()? {
            let (_, row) = row?;
            let dossier = Dossier::parse(row.value().2)?;
            let statement = dossier.statement.as_deref().map(Signed::<Statement>::peek_value).transpose()?;
            let events = statement.iter().flat_map(|(statement, _)| &statement.events);
            let orders =
                |what| events.clone().filter(move |event| event.what == what).filter_map(|event| event.order);
            let stated = Stated {
                failed: statement
                    .iter()
                    .any(|(statement, _)| matches!(statement.end, StatedEnd::Failed { .. })),
                raced: events.clone().any(|event| event.what == What::Slow),
                finished: orders(What::Finished).collect(),
                broken: orders(What::BrokeOff).collect(),
                events: events.clone().map(|event| format!("{event:?}")).collect(),
            };
            let papers = dossier.papers.iter().map(|paper| Signed::<Order>::peek_value(&paper.order));
            let digest =
                |paper: Result<(Order, PublicKey), OpenError>| -> Result<Digest> { Ok(paper?.0.digest()) };
            let papers = papers.map(digest).collect::<Result<Vec<Digest>>>()?;
            for order in events.filter_map(|event| event.order).chain(papers) {
                self.requests.insert(order, dossier.request_id.clone());
            }
            self.stated.insert(dossier.request_id, stated);
        }
        Ok(())
    }

    fn read_key(&mut self, binary: &Path, data_dir: &Path, name: &str) -> Result<()> {
        let shown = network::told(binary, data_dir, &["apikey", "show", name])?;
        let mut book = KeyBook {
            used: amount(&shown["used"])?,
            reserved: amount(&shown["reserved"])?,
            bought: shown.get("bought").filter(|bought| !bought.is_null()).map_or(Ok(0), amount)?,
            budget: shown.get("budget").filter(|budget| !budget.is_null()).map(amount).transpose()?,
            ..KeyBook::default()
        };
        let output = surety(binary, data_dir).args(["apikey", "usage", name, "--json"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for page in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>() {
            let page = page?;
            (book.total, book.dropped) = (amount(&page["total"]["cost"])?, amount(&page["dropped"]["cost"])?);
            for row in page["generations"].as_array().context("usage has no rows")? {
                self.rows.push(row_of(name, row)?);
            }
        }
        self.keys.insert(name.to_owned(), book);
        Ok(())
    }

    /// What a worker has in its log, once it is stopped.
    pub fn of_log(&mut self, data_dir: &Path, number: usize) -> Result<()> {
        let path = data_dir.join(format!("worker/worker-{number}-operator/book.redb"));
        let database = Database::open(&path).with_context(|| path.display().to_string())?;
        for row in database.begin_read()?.open_table(CASES)?.iter()? {
            let (_, row) = row?;
            let evidence = AuditEvidence::from_cbor(row.value().2)?;
            let receipt = Signed::<Receipt>::open(&evidence.receipt)?;
            if receipt.charge.0 == 0 {
                continue;
            }
            self.logged.push(Logged {
                worker: receipt.worker.to_string(),
                order: receipt.order,
                charge: receipt.charge.0,
                marks: marks_of(&Request::from_cbor(&evidence.request)?),
                issued_ms: Signed::<Order>::peek_value(&evidence.order)?.0.issued_ms,
                accepted_ms: receipt.accepted_ms,
                done_ms: receipt.done_ms,
            });
        }
        Ok(())
    }
}

/// What a worker's own book says, without the worker: micro-credits, and receipts that charged some.
pub fn earned(binary: &Path, data_dir: &Path, rpc: &str, number: usize) -> Result<(u128, u64)> {
    let (genesis, account) = (data_dir.join("ledger/genesis.json"), format!("worker-{number}-operator"));
    let genesis = genesis.to_str().context("a path is no text")?;
    let rpc = format!("http://{rpc}");
    let args = ["worker", "earnings", "--key", &format!("worker-{number}"), "--account", &account];
    let told =
        network::told(binary, data_dir, &[&args[..], &["--genesis", genesis, "--rpc-url", &rpc]].concat())?;
    let micro = whole(amount(&told["charged_wei"])?)?;
    let days = told["days"].as_array().context("earnings have no days")?;
    Ok((micro, days.iter().filter_map(|day| day["orders"].as_u64()).sum()))
}

/// What a channel has given, in micro-credits.
pub fn drawn(rpc: &str, channel: &str) -> Result<u128> {
    let call = IChannels::channelsCall { channelId: channel.parse::<B256>().context("no channel's id")? };
    let data = hex::encode_prefixed(call.abi_encode());
    let answer = wire::rpc(rpc, "eth_call", json!([{ "to": address::CHANNELS, "data": data }, "latest"]))?;
    let bytes = hex::decode(answer.as_str().context("eth_call answers no text")?)?;
    whole(IChannels::channelsCall::abi_decode_returns(&bytes)?.totalClaimed)
}

/// What an account has, in micro-credits.
pub fn balance(rpc: &str, account: Address) -> Result<u128> {
    let answer = wire::rpc(rpc, "eth_getBalance", json!([account, "latest"]))?;
    let wei: U256 = answer.as_str().context("eth_getBalance answers no text")?.parse()?;
    whole(u128::try_from(wei)?)
}

fn whole(wei: u128) -> Result<u128> {
    ensure!(wei.is_multiple_of(MICRO), "{wei} wei have a part of a micro-credit");
    Ok(wei / MICRO)
}

fn row_of(key: &str, row: &Value) -> Result<Row> {
    let parts = row["parts"].as_array().context("a row has no parts")?;
    let part = |part: &Value| -> Result<(String, u128)> {
        Ok((part["worker"].as_str().unwrap_or_default().to_owned(), amount(&part["charge"])?))
    };
    Ok(Row {
        key: key.to_owned(),
        id: row["id"].as_str().context("a row has no id")?.to_owned(),
        status: row["status"].as_str().unwrap_or_default().to_owned(),
        cost: amount(&row["cost"])?,
        parts: parts.iter().map(part).collect::<Result<_>>()?,
        done_ms: row["done_ms"].as_u64().context("a row has no end")?,
    })
}

fn paid(row: &Value) -> Result<Paid> {
    let purpose = &row["purpose"];
    let purpose = match (purpose["Answer"]["request"].as_str(), purpose["Credits"]["key"].as_u64()) {
        (Some(request), _) => Purpose::Answer(request.to_owned()),
        (None, Some(key)) => Purpose::Credits(key),
        (None, None) => anyhow::bail!("a payment for {purpose}"),
    };
    let stage = match row["stage"]["Settled"].get(0) {
        Some(micro) => Stage::Taken(amount(micro)?),
        None => Stage::Open(row["stage"].to_string()),
    };
    let payer = row["authorization"]["from"].as_str().context("a payment of nobody's")?.parse()?;
    Ok(Paid { payer, purpose, stage })
}

fn kept(evidence: &Evidence) -> Result<Kept> {
    let (envelope, _) = Signed::<Envelope>::peek_value(&evidence.envelope)?;
    let mut kept = Kept { charge: envelope.charge.0, ..Kept::default() };
    for answer in &evidence.answers {
        if let Some(receipt) = &answer.receipt {
            let receipt = Signed::<Receipt>::open(receipt)?;
            kept.receipts.push((receipt.worker.to_string(), receipt.charge.0));
        }
        kept.marks.extend(marks_of(&Request::from_cbor(&answer.request)?));
    }
    Ok(kept)
}

fn marks_of(request: &Request) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut find = |text: &str| found.extend(marks(text).map(|mark| format!("<{mark}>")));
    match &request.prompt {
        Prompt::Chat { messages, .. } => messages.iter().for_each(|message| find(&message.content)),
        Prompt::Text(text) => find(text),
        Prompt::Tokens(_) => {}
    }
    found
}

fn amount(value: &Value) -> Result<u128> {
    let text = value.as_str().with_context(|| format!("{value} is no amount"))?;
    text.parse().with_context(|| format!("{text} is no amount"))
}
