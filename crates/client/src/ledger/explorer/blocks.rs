//! Blocks and transactions, as nodes have them and as far as they are proven.
//!
//! In:     heights and hashes from anyone. Out: blocks with their transactions; what each did.
//! Touches: the network, through the ledger.
//! Holds:  a block is *proven* if two thirds of the validators of its epoch signed it or a descendant, and those are known: of the
//!         latest epochs. Of an older one its hash is a node's word. Either way transactions and receipts are what its header commits
//!         to, or the node is named as a liar.
//! Absent: what a transaction costs per unit of gas and how many transactions a listed block has: a node's word, where it is told.

use alloy_consensus::{Transaction as _, transaction::SignerRecoverable as _};
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U64, U256, hex};
use alloy_rpc_types_eth::Transaction;
use serde::Serialize;
use serde_json::{Value as Json, json};
use surety_chain::CallRequest;
use surety_consensus::{Header, public_key_bytes};
use tokio::time::sleep;

use super::{
    super::{
        Certified, Inner, Ledger, LedgerError, NOT_FOUND, SOON, SOON_ATTEMPTS, Viewed,
        error::{Fault, Lie},
        nodes::{Node, garbage},
        submit::Proven,
    },
    decode::{self, Field},
};

/// Blocks that are listed at once.
pub const BLOCKS_MAX: u64 = 50;
/// Transactions of a block that are listed, and events of a transaction.
const TRANSACTIONS_MAX: usize = 500;
const EVENTS_MAX: usize = 100;
/// Bytes of calldata and of data that are shown as they are.
const INPUT_SHOWN_MAX: usize = 1 << 10;
/// EIP-4444's: what a node keeps no more.
const PRUNED: i64 = 4_444;

/// The latest blocks, or those before some block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockPage {
    /// The newest block.
    pub tip: u64,
    /// What a block may use now.
    pub gas_limit: u64,
    /// The newest first.
    pub blocks: Vec<BlockRow>,
    /// Whether older ones may be there; where nodes keep none, the next page is empty.
    pub more: bool,
}

/// A block in a list.
#[derive(Clone, Debug, Serialize)]
pub struct BlockRow {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: String,
    /// Unix milliseconds, by its proposer's clock.
    pub timestamp_ms: u64,
    /// The key that proposed it.
    pub proposer_key: String,
    /// The account that answers for the key; null where the epoch's validators are not known any more.
    pub proposer: Option<String>,
    /// How many transactions it has. In a list a node's word, but for none.
    pub transactions: u64,
    /// Gas that they used.
    pub gas_used: u64,
    /// Whether its header is proven.
    pub proven: bool,
}

/// A block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockView {
    /// As in a list; here the transactions are counted from what its header commits to.
    #[serde(flatten)]
    pub row: BlockRow,
    /// The newest block.
    pub tip: u64,
    /// Of the block before; of the first the digest of the genesis document.
    pub parent_hash: String,
    /// Whether it is the first.
    pub follows_genesis: bool,
    /// Its epoch, and the view in which it was proposed.
    pub epoch: u64,
    /// Consensus' attempt.
    pub view: u64,
    /// What its header commits to.
    pub state_root: String,
    /// Of its transactions.
    pub transactions_root: String,
    /// Of what they did.
    pub receipts_root: String,
    /// How many validators it hands over to, if it is its epoch's last.
    pub next_validators: Option<u64>,
    /// Its transactions.
    pub entries: Vec<TransactionRow>,
    /// How many are not listed.
    pub left_out: u64,
}

/// A transaction in a list.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionRow {
    /// Its hash.
    pub hash: String,
    /// Who signed it.
    pub from: String,
    /// To whom; null: it deploys a contract.
    pub to: Option<String>,
    /// `module`, `transfer`, `deployment` or `contract`.
    pub kind: &'static str,
    /// The module, if it is one's.
    pub module: Option<&'static str>,
    /// Its function.
    pub function: Option<String>,
    /// Credits sent, in wei.
    pub value: String,
    /// Whether it did what it was to do.
    pub success: bool,
    /// What it used.
    pub gas_used: u64,
}

/// A transaction.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionView {
    /// As in a list.
    #[serde(flatten)]
    pub row: TransactionRow,
    /// Whether it waits: then it is in no block, and what it did is not known.
    pub waits: bool,
    /// Its block.
    pub block: Option<u64>,
    /// Its block's hash.
    pub block_hash: Option<String>,
    /// Its place there, from 0.
    pub index: Option<u64>,
    /// Its block's time.
    pub timestamp_ms: Option<u64>,
    /// Whether its block is proven.
    pub proven: bool,
    /// Its place among its sender's.
    pub nonce: u64,
    /// Gas that it may use.
    pub gas_limit: u64,
    /// What a unit of gas cost, in wei: a node's word, within what was offered.
    pub gas_price: Option<String>,
    /// Gas times that, in wei.
    pub fee: Option<String>,
    /// Arguments by name; null where no module's function takes them.
    pub arguments: Option<Vec<Field>>,
    /// The beginning of its calldata.
    pub input: String,
    /// How many bytes that has.
    pub input_bytes: u64,
    /// The contract that it deploys.
    pub created: Option<String>,
    /// If it failed: what the same call would be told now. No block says why.
    pub refused_now: Option<String>,
    /// What was noted.
    pub events: Vec<EventView>,
    /// How many events are not shown.
    pub events_left_out: u64,
}

/// What was noted by a transaction.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// Whose.
    pub address: String,
    /// The module, if it is one's.
    pub module: Option<&'static str>,
    /// Its name.
    pub name: Option<String>,
    /// By name, if it is a module's.
    pub fields: Vec<Field>,
    /// As they stand, if it is not.
    pub topics: Vec<String>,
    /// The beginning of its data, if it is not.
    pub data: String,
}

/// A header, and whether it is proven.
pub(in crate::ledger) struct Headed {
    pub(in crate::ledger) header: Header,
    pub(in crate::ledger) proven: bool,
}

impl Ledger {
    /// The latest blocks, or those before `before`, at most `count` and [`BLOCKS_MAX`].
    ///
    /// # Errors
    /// If no node answers with what holds.
    pub async fn blocks(&self, before: Option<u64>, count: u64) -> Result<BlockPage, LedgerError> {
        let Viewed { tip, value: params } = self.params().await?;
        let first = self.first_with_header();
        let end = before.unwrap_or(u64::MAX).min(tip.number.saturating_add(1));
        let count = count.clamp(1, BLOCKS_MAX).min(end.saturating_sub(first));
        let mut page =
            BlockPage { tip: tip.number, gas_limit: params.block_gas_max, blocks: Vec::new(), more: false };
        if count == 0 {
            return Ok(page);
        }
        let mut round = self.0.nodes.round();
        while let Some(node) = round.next() {
            match self.0.rows(node, end, count).await {
                Ok(blocks) => {
                    round.answered();
                    page.more = blocks.last().is_some_and(|row| row.number > first);
                    page.blocks = blocks;
                    return Ok(page);
                }
                Err(fault) => round.failed(fault),
            }
        }
        Err(round.exhausted())
    }

    /// A block; none if the chain is not there yet, or no node that answers keeps it.
    ///
    /// # Errors
    /// If no node answers with what holds.
    pub async fn block(&self, number: u64) -> Result<Option<BlockView>, LedgerError> {
        let tip = self.tip().await?.number;
        if number > tip || number < self.first_with_header() {
            return Ok(None);
        }
        let Some((headed, entries)) = self.whole(number).await? else { return Ok(None) };
        let header = &headed.header;
        let listed = entries.iter().take(TRANSACTIONS_MAX);
        Ok(Some(BlockView {
            tip,
            row: self.0.row(&headed, entries.len() as u64),
            parent_hash: B256::from(header.parent_hash().0).to_string(),
            epoch: header.epoch(),
            view: header.view(),
            state_root: B256::from(header.state_root.0).to_string(),
            transactions_root: B256::from(header.transactions_root).to_string(),
            receipts_root: B256::from(header.receipts_root).to_string(),
            next_validators: header.next_validators.as_ref().map(|set| set.members().len() as u64),
            entries: listed.map(row).collect(),
            left_out: entries.len().saturating_sub(TRANSACTIONS_MAX) as u64,
            follows_genesis: number == self.first_with_header(),
        }))
    }

    /// The height of the first block that somebody proposed. Before it is the genesis: a document.
    #[must_use]
    pub fn first_with_header(&self) -> u64 {
        self.genesis().first_block().saturating_add(1)
    }

    /// The height of the block of this hash, by a node's word.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn block_number(&self, hash: B256) -> Result<Option<u64>, LedgerError> {
        let block = self.unverified("eth_getBlockByHash", json!([hash, false])).await?;
        let number =
            block.get("number").cloned().and_then(|number| serde_json::from_value::<U64>(number).ok());
        Ok(number.map(|number| number.to()))
    }

    /// Whether a node says that it knows a transaction.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn transaction_is_known(&self, hash: B256) -> Result<bool, LedgerError> {
        Ok(!self.unverified("eth_getTransactionByHash", json!([hash])).await?.is_null())
    }

    /// A transaction, in its block or waiting; none if no node that answers knows it.
    ///
    /// # Errors
    /// If no node answers with what holds.
    pub async fn transaction(&self, hash: B256) -> Result<Option<TransactionView>, LedgerError> {
        const METHOD: &str = "eth_getTransactionByHash";
        let known: Json = self.unverified(METHOD, json!([hash])).await?;
        if known.is_null() {
            return Ok(None);
        }
        let wrong = |why: String| LedgerError::Invalid(garbage(METHOD, why).to_string());
        let known: Transaction = serde_json::from_value(known).map_err(|why| wrong(why.to_string()))?;
        let Some(number) = known.block_number else {
            let envelope = known.inner.into_inner();
            if *envelope.tx_hash() != hash {
                return Err(wrong("another transaction".to_owned()));
            }
            return Ok(Some(view(&Shown::of(&envelope), None)));
        };
        let Some((headed, entries)) = self.whole(number).await? else { return Ok(None) };
        let Some(index) = entries.iter().position(|entry| *entry.transaction.tx_hash() == hash) else {
            return Err(wrong(Lie::NotThere { hash, number }.to_string()));
        };
        let mut found =
            view(&Shown::of(&entries[index].transaction), Some((&headed, &entries[index], index)));
        if !found.row.success
            && let Some(call) = Shown::of(&entries[index].transaction).call()
            && let Ok(Viewed { value: outcome, .. }) = self.simulate(&call).await
        {
            found.refused_now = outcome.revert_reason().or(outcome.halt);
        }
        Ok(Some(found))
    }

    /// A block's header and what is in it, from the first node that keeps it.
    async fn whole(&self, number: u64) -> Result<Option<(Headed, Vec<Proven>)>, LedgerError> {
        let mut round = self.0.nodes.round();
        let mut is_unknown = false;
        while let Some(node) = round.next() {
            match self.0.kept(node, number).await {
                Ok(found) => {
                    round.answered();
                    return Ok(Some(found));
                }
                Err(fault) if fault.refused_with(PRUNED) || fault.refused_with(NOT_FOUND) => {
                    is_unknown = true;
                    round.refused(fault);
                }
                Err(fault) => round.failed(fault),
            }
        }
        if is_unknown { Ok(None) } else { Err(round.exhausted()) }
    }
}

impl Inner {
    /// A block, and whether it is proven.
    pub(in crate::ledger) async fn kept(
        &self,
        node: &Node,
        number: u64,
    ) -> Result<(Headed, Vec<Proven>), Fault> {
        let headed = self.headed(node, number).await?;
        let entries = self.contents(node, &headed.header).await?;
        Ok((headed, entries))
    }

    /// A header; proven, if the validators who signed are still known.
    async fn headed(&self, node: &Node, number: u64) -> Result<Headed, Fault> {
        let certified = self.certified(node, number).await?;
        self.weighed(node, number, &certified).await
    }

    async fn weighed(&self, node: &Node, number: u64, certified: &Certified) -> Result<Headed, Fault> {
        let headers = self.trust.headers(number, &certified.headers)?;
        let mut proven = false;
        if let Some(last) = headers.last() {
            self.follow(node, last.epoch()).await?;
            if self.trust.set(last.epoch()).is_some() {
                self.trust.finality(&headers, &certified.certificate)?;
                proven = true;
            }
        }
        let header = headers.into_iter().next().ok_or_else(|| garbage("surety_certificate", "no header"))?;
        Ok(Headed { header, proven })
    }

    /// The blocks before `end`, the newest first, as far back as the node keeps them. Each names the one before it, so the newest's
    /// certificate proves them all.
    async fn rows(&self, node: &Node, end: u64, count: u64) -> Result<Vec<BlockRow>, Fault> {
        const METHOD: &str = "surety_certificate";
        let mut count = count;
        let mut attempts = 0;
        let (first, certified) = loop {
            let first = end - count;
            let params = (first..end).map(|number| json!([format!("{number:#x}")])).collect();
            attempts += 1;
            match self.nodes.several::<Certified>(node, METHOD, params).await {
                Ok(certified) => break (first, certified),
                Err(fault) if fault.refused_with(NOT_FOUND) && attempts < SOON_ATTEMPTS => sleep(SOON).await,
                Err(fault) if fault.refused_with(PRUNED) && count > 1 => count /= 2,
                Err(fault) if fault.refused_with(PRUNED) => return Ok(Vec::new()),
                Err(fault) => return Err(fault),
            }
        };
        let Some(newest) = certified.last() else { return Ok(Vec::new()) };
        let Headed { header, proven } = self.weighed(node, end - 1, newest).await?;
        let mut headers = vec![header];
        for (number, certified) in (first..end).rev().zip(certified.iter().rev()).skip(1) {
            let header = self.trust.headers(number, &certified.headers)?.swap_remove(0);
            let after = headers.last().map(Header::parent_hash);
            if after != Some(header.hash()) {
                return Err(Lie::Headers(number).into());
            }
            headers.push(header);
        }
        let busy: Vec<u64> =
            headers.iter().filter(|header| header.gas_used > 0).map(|header| header.number).collect();
        let params = busy.iter().map(|number| json!([format!("{number:#x}")])).collect();
        let counts: Vec<U64> = match busy.is_empty() {
            true => Vec::new(),
            false => self.nodes.several(node, "eth_getBlockTransactionCountByNumber", params).await?,
        };
        let rows = headers.into_iter().map(|header| {
            let at = busy.iter().position(|number| *number == header.number);
            let transactions = at.and_then(|at| counts.get(at)).map_or(0, |count| count.to());
            self.row(&Headed { header, proven }, transactions)
        });
        Ok(rows.collect())
    }

    fn row(&self, headed: &Headed, transactions: u64) -> BlockRow {
        let Headed { header, proven } = headed;
        let key = public_key_bytes(&header.context.leader);
        let set = self.trust.set(header.epoch());
        let members = set.iter().flat_map(|set| set.members());
        let proposer = members.into_iter().find(|member| public_key_bytes(&member.key) == key);
        BlockRow {
            number: header.number,
            hash: B256::from(header.hash().0).to_string(),
            timestamp_ms: header.timestamp_ms,
            proposer_key: hex::encode(key),
            proposer: proposer.map(|member| Address::from(member.operator).to_string()),
            transactions,
            gas_used: header.gas_used,
            proven: *proven,
        }
    }
}

/// What a transaction asks for.
struct Shown<'a> {
    envelope: &'a alloy_consensus::TxEnvelope,
    from: Option<Address>,
    call: Option<decode::Call>,
}

impl Shown<'_> {
    fn of(envelope: &alloy_consensus::TxEnvelope) -> Shown<'_> {
        let call = envelope.to().and_then(|to| decode::call(&to, envelope.input()));
        Shown { envelope, from: envelope.recover_signer().ok(), call }
    }

    fn row(&self, success: bool, gas_used: u64) -> TransactionRow {
        let envelope = self.envelope;
        let kind = match (envelope.kind(), &self.call) {
            (TxKind::Create, _) => "deployment",
            (_, Some(_)) => "module",
            _ if envelope.input().is_empty() => "transfer",
            _ => "contract",
        };
        TransactionRow {
            hash: envelope.tx_hash().to_string(),
            from: self.from.unwrap_or_default().to_string(),
            to: envelope.to().map(|to| to.to_string()),
            kind,
            module: self.call.as_ref().map(|call| call.module),
            function: self.call.as_ref().and_then(|call| call.function.clone()),
            value: envelope.value().to_string(),
            success,
            gas_used,
        }
    }

    /// The same call again, as it could be made now.
    fn call(&self) -> Option<CallRequest> {
        Some(CallRequest {
            from: self.from?,
            to: self.envelope.to(),
            value: self.envelope.value(),
            input: self.envelope.input().clone(),
            ..CallRequest::default()
        })
    }
}

fn row(entry: &Proven) -> TransactionRow {
    Shown::of(&entry.transaction).row(entry.receipt.status(), entry.gas_used)
}

fn view(shown: &Shown<'_>, found: Option<(&Headed, &Proven, usize)>) -> TransactionView {
    let envelope = shown.envelope;
    let entry = found.map(|(_, entry, _)| entry);
    let logs = entry.map(|entry| entry.receipt.logs()).unwrap_or_default();
    let fee = entry.map(|entry| U256::from(entry.gas_used).saturating_mul(U256::from(entry.price)));
    let created = match (envelope.kind(), shown.from) {
        (TxKind::Create, Some(from)) => Some(from.create(envelope.nonce()).to_string()),
        _ => None,
    };
    let header = found.map(|(headed, _, _)| &headed.header);
    TransactionView {
        row: shown
            .row(entry.is_some_and(|entry| entry.receipt.status()), entry.map_or(0, |entry| entry.gas_used)),
        waits: found.is_none(),
        block: header.map(|header| header.number),
        block_hash: header.map(|header| B256::from(header.hash().0).to_string()),
        index: found.map(|(_, _, index)| index as u64),
        timestamp_ms: header.map(|header| header.timestamp_ms),
        proven: found.is_some_and(|(headed, _, _)| headed.proven),
        nonce: envelope.nonce(),
        gas_limit: envelope.gas_limit(),
        gas_price: entry.map(|entry| entry.price.to_string()),
        fee: fee.map(|fee| fee.to_string()),
        arguments: shown.call.as_ref().and_then(|call| call.arguments.clone()),
        input: beginning(envelope.input()),
        input_bytes: envelope.input().len() as u64,
        created,
        refused_now: None,
        events: logs.iter().take(EVENTS_MAX).map(noted).collect(),
        events_left_out: logs.len().saturating_sub(EVENTS_MAX) as u64,
    }
}

fn noted(log: &Log) -> EventView {
    let known = decode::event(&log.address, log.topics(), &log.data.data);
    let is_unknown = known.is_none();
    let (module, name, fields) =
        known.map_or((None, None, Vec::new()), |event| (Some(event.module), Some(event.name), event.fields));
    EventView {
        address: log.address.to_string(),
        module,
        name,
        fields,
        topics: log.topics().iter().filter(|_| is_unknown).map(B256::to_string).collect(),
        data: if is_unknown { beginning(&log.data.data) } else { String::new() },
    }
}

fn beginning(bytes: &Bytes) -> String {
    hex::encode_prefixed(bytes.get(..INPUT_SHOWN_MAX).unwrap_or(bytes))
}
