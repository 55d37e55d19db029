//! Books: what was charged, by whom it is said, and whether all say the same.
//!
//! In:     what was read of every book (`read`). Out: sums, and what does not agree, each with its request.
//! Touches: nothing.
//! Holds:  each receipt of a worker is in a row of usage, or is one that no caller owes: its gateway was killed before it heard it,
//!         another worker was asked beside this one and was first, the request failed, or the worker was lost. Those are named, one by one,
//!         and nothing else may be missing.
//! Absent: what should have been charged (`operations`).

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use surety_types::Digest;

/// What a gateway had heard so long before it was killed may not be on its disk.
const UNWRITTEN_MS: u64 = 3_000;

/// What the evidence of one request says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Micro-credits, by the envelope.
    pub charge: u128,
    /// Each receipt's worker and charge.
    pub receipts: Vec<(String, u128)>,
    /// The marks in its prompts.
    pub marks: BTreeSet<String>,
}

/// One row of usage.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The key's name; `payer` for who pays by the request.
    pub key: String,
    pub id: String,
    /// How the request ended: `cancelled` if its caller left.
    pub status: String,
    pub cost: u128,
    /// Each worker's charge.
    pub parts: Vec<(String, u128)>,
    /// Unix milliseconds.
    pub done_ms: u64,
}

/// What one key was charged.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyBook {
    pub used: u128,
    pub reserved: u128,
    pub bought: u128,
    pub budget: Option<u128>,
    /// By the totals of its usage, and what of that is in no row any more.
    pub total: u128,
    pub dropped: u128,
}

/// A receipt in a worker's log that charges something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub worker: String,
    pub order: Digest,
    pub charge: u128,
    /// The marks in its prompt.
    pub marks: BTreeSet<String>,
    /// When the gateway signed the order, Unix milliseconds; its worker may hear of it after the gateway was killed.
    pub issued_ms: u64,
    /// Unix milliseconds.
    pub accepted_ms: u64,
    pub done_ms: u64,
}

/// One worker's account, in micro-credits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WorkerBook {
    pub number: usize,
    /// By its own book.
    pub charged: u128,
    /// Receipts that charged something.
    pub orders: u64,
    /// By the gateway's channel.
    pub promised: u128,
    /// On the ledger: by all channels to it, and by the gateway's.
    pub claimed: u128,
    pub drawn: u128,
    pub settled: u128,
}

/// How far a payment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Taken(u128),
    /// Anything else, in words.
    Open(String),
}

/// A payment by x402.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    pub payer: Address,
    pub purpose: Purpose,
    pub stage: Stage,
}

/// What was paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A request.
    Answer(String),
    /// Credits of a key, by its number.
    Credits(u64),
}

/// Everything that was written down.
#[derive(Debug, Default)]
pub struct Books {
    /// By request id.
    pub kept: BTreeMap<String, Kept>,
    pub rows: Vec<Row>,
    pub keys: BTreeMap<String, KeyBook>,
    /// Which request an order was for, by the evidence and the gateway's journal.
    pub requests: BTreeMap<Digest, String>,
    /// By request id.
    pub stated: BTreeMap<String, Stated>,
    /// By worker.
    pub workers: BTreeMap<String, WorkerBook>,
    pub logged: Vec<Logged>,
    pub payments: Vec<Paid>,
    /// What payers had at first and have at last, in micro-credits.
    pub balances: BTreeMap<Address, (u128, u128)>,
    /// Requests for which something is still held.
    pub holds: u64,
    /// What genesis named and what there is, in wei.
    pub supply: (String, String),
    /// When the gateway was killed, Unix milliseconds.
    pub kills: Vec<u64>,
}

/// What the gateway's journal says of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// It ended with an error.
    pub failed: bool,
    /// A worker was asked beside one that was slow.
    pub raced: bool,
    /// Orders that were brought to their end.
    pub finished: BTreeSet<Digest>,
    /// Orders whose worker was lost.
    pub broken: BTreeSet<Digest>,
    /// What happened, in words.
    pub events: Vec<String>,
}

/// Why somebody was paid for what no caller owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The gateway was killed.
    Killed,
    /// Another worker was asked beside this one, and was first.
    Raced,
    /// The request failed.
    Failed,
    /// The gateway lost the worker, and did not hear its receipt.
    BrokenOff,
}

/// What is in one book and not in another. Whoever runs the gateway bears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The request, as far as that can be told.
    pub request: String,
    /// Micro-credits.
    pub charge: u128,
    /// By which worker.
    pub worker: String,
    /// None: nothing explains it.
    pub why: Option<Why>,
    /// What is known of it, in words.
    pub known: String,
    /// What is missing where.
    pub what: &'static str,
}

impl Books {
    /// What all rows charged, in micro-credits.
    pub fn charged(&self) -> u128 {
        self.rows.iter().map(|row| row.cost).sum()
    }

    /// What a worker's receipts charge in all, by rows of usage, and how many charge something.
    pub fn of_rows(&self, worker: &str) -> (u128, u64) {
        let parts = self.rows.iter().flat_map(|row| &row.parts).filter(|(of, _)| of == worker);
        parts.fold((0, 0), |(sum, count), (_, charge)| (sum + charge, count + u64::from(*charge > 0)))
    }

    /// Of how many requests there is evidence with this mark.
    pub fn evidence_of(&self, mark: &str) -> usize {
        self.kept.values().filter(|kept| kept.marks.contains(mark)).count()
    }

    /// Whether the gateway was killed between these moments, or before what was done in them was on its disk.
    fn is_struck(&self, from_ms: u64, to_ms: u64) -> bool {
        self.kills.iter().any(|kill| (from_ms..=to_ms + UNWRITTEN_MS).contains(kill))
    }

    /// The receipts that are in no row; and the parts of rows that no receipt has, in words.
    pub fn unheard(&self) -> (Vec<Lost>, Vec<String>) {
        let mut by_order: BTreeMap<(&str, &str, u128), Vec<&Logged>> = BTreeMap::new();
        let mut by_mark: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, kept) in &self.kept {
            by_mark.extend(kept.marks.iter().map(|mark| (mark.as_str(), id.as_str())));
        }
        let mut lost = Vec::new();
        for receipt in &self.logged {
            let by_mark = || receipt.marks.iter().find_map(|mark| by_mark.get(mark.as_str()).copied());
            match self.requests.get(&receipt.order).map(String::as_str).or_else(by_mark) {
                Some(request) => {
                    by_order
                        .entry((request, receipt.worker.as_str(), receipt.charge))
                        .or_default()
                        .push(receipt);
                }
                None => lost.push(self.lost(receipt, None)),
            }
        }
        // What is asked again after a kill is often computed by the same worker, at the same charge: its row is of the order that was
        // heard to its end.
        for ((request, ..), twins) in &mut by_order {
            let finished = self.stated.get(*request).map(|stated| &stated.finished);
            twins.sort_by_key(|twin| {
                let finished = finished.is_some_and(|finished| finished.contains(&twin.order));
                (finished, !self.is_struck(twin.issued_ms, twin.done_ms))
            });
        }
        let mut unsigned = Vec::new();
        let mut heard: BTreeMap<&str, Vec<&Logged>> = BTreeMap::new();
        for row in &self.rows {
            for (worker, charge) in row.parts.iter().filter(|(_, charge)| *charge > 0) {
                let signed = by_order.get_mut(&(row.id.as_str(), worker.as_str(), *charge));
                match signed.and_then(Vec::pop) {
                    Some(receipt) => heard.entry(&row.id).or_default().push(receipt),
                    None => unsigned.push(format!(
                        "{} has a part of {charge} for worker {worker}, whose log has no such receipt",
                        row.id
                    )),
                }
            }
        }
        for ((request, ..), left) in by_order {
            let heard = heard.get(request).map_or(&[][..], Vec::as_slice);
            lost.extend(left.into_iter().map(|receipt| self.lost(receipt, Some((request, heard)))));
        }
        (lost, unsigned)
    }

    /// `request`: what it was for, and the receipts that its row has.
    fn lost(&self, receipt: &Logged, request: Option<(&str, &[&Logged])>) -> Lost {
        let marks = receipt.marks.iter().cloned().collect::<Vec<_>>().join(" ");
        let (id, heard) = request.unwrap_or(("(a request that the journal does not know)", &[][..]));
        let stated = self.stated.get(id);
        let beside = |other: &&Logged| {
            other.worker != receipt.worker
                && other.accepted_ms <= receipt.done_ms
                && receipt.accepted_ms <= other.done_ms
        };
        let why = match stated {
            _ if heard.iter().any(beside) => Some(Why::Raced),
            Some(stated) if stated.raced && !stated.finished.contains(&receipt.order) => Some(Why::Raced),
            Some(stated) if stated.failed => Some(Why::Failed),
            Some(stated) if stated.broken.contains(&receipt.order) => Some(Why::BrokenOff),
            _ => self.is_struck(receipt.issued_ms, receipt.done_ms).then_some(Why::Killed),
        };
        Lost {
            request: format!("{id} {marks}"),
            charge: receipt.charge,
            worker: receipt.worker.clone(),
            why,
            known: self.known(receipt, id),
            what: "a worker's receipt that is in no row",
        }
    }

    /// When a receipt came to be, and what the gateway has written of its request.
    fn known(&self, receipt: &Logged, id: &str) -> String {
        let Logged { order, issued_ms, accepted_ms, done_ms, .. } = receipt;
        let kill = self.kills.iter().min_by_key(|kill| kill.abs_diff(*done_ms));
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.id == id).collect();
        let (kept, stated) = (self.kept.get(id), self.stated.get(id));
        format!(
            "order {order} of {issued_ms}, accepted {accepted_ms}, done {done_ms}, nearest kill {kill:?}; {rows:?}; {kept:?}; {stated:?}"
        )
    }

    /// What was charged to payers and not taken of their payments.
    pub fn untaken(&self) -> (Vec<Lost>, Vec<String>) {
        let mut taken: BTreeMap<&str, u128> = BTreeMap::new();
        let mut wrong = Vec::new();
        for Paid { payer, purpose, stage } in &self.payments {
            match (purpose, stage) {
                (Purpose::Answer(request), Stage::Taken(micro)) => {
                    *taken.entry(request).or_default() += micro;
                }
                (Purpose::Credits(_), Stage::Taken(_)) => {}
                (_, Stage::Open(stage)) => {
                    wrong.push(format!("a payment of {payer} for {purpose:?} is {stage}"))
                }
            }
        }
        let mut lost = Vec::new();
        for row in self.rows.iter().filter(|row| row.key == PAYER_KEY && row.cost > 0) {
            match taken.remove(row.id.as_str()) {
                Some(micro) if micro == row.cost => {}
                Some(micro) => {
                    wrong.push(format!("{} cost {}, and {micro} was taken of its payment", row.id, row.cost))
                }
                None => lost.push(Lost {
                    request: row.id.clone(),
                    charge: row.cost,
                    worker: String::new(),
                    why: (row.status == "recovered" || self.is_struck(row.done_ms, row.done_ms))
                        .then_some(Why::Killed),
                    known: format!("{row:?}"),
                    what: "an answer whose payment was not taken, since nobody was told it",
                }),
            }
        }
        wrong.extend(
            taken.iter().map(|(request, micro)| format!("{micro} was taken for {request}, which no row has")),
        );
        (lost, wrong)
    }

    /// What does not agree.
    pub fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut agree = |holds: bool, otherwise: String| {
            if !holds {
                found.push(otherwise);
            }
        };
        for (name, book) in &self.keys {
            let KeyBook { used, reserved, bought, budget, total, dropped } = book;
            let rows: u128 = self.rows.iter().filter(|row| row.key == *name).map(|row| row.cost).sum();
            agree(
                rows + dropped == *total && total == used,
                format!(
                    "the key {name} used {used}; its rows sum to {rows} and {dropped} dropped, its totals say {total}"
                ),
            );
            agree(*reserved == 0, format!("the key {name} still has {reserved} set aside"));
            agree(
                budget.is_none_or(|budget| *used <= budget + bought),
                format!("the key {name} used {used} of a budget of {budget:?} and {bought} bought"),
            );
        }
        agree(self.holds == 0, format!("{} requests still hold something", self.holds));
        let mut rows: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in &self.rows {
            let parts: u128 = row.parts.iter().map(|(_, charge)| charge).sum();
            agree(row.cost == parts, format!("{} cost {}, its parts {parts}", row.id, row.cost));
            agree(rows.insert(&row.id, row).is_none(), format!("{} is charged twice", row.id));
            // Who leaves pays what receipts there are by then; evidence is of whole answers.
            match self.kept.get(&row.id) {
                None if row.status == "cancelled" => {}
                None => {
                    agree(row.cost == 0, format!("{} was charged {}, and has no evidence", row.id, row.cost))
                }
                // Who left and came back has paid for both parts: the evidence has a receipt of the second.
                Some(kept) => {
                    let mut parts = row.parts.clone();
                    let all = kept.receipts.iter().all(|receipt| {
                        parts.iter().position(|part| part == receipt).map(|at| parts.remove(at)).is_some()
                    });
                    agree(
                        all && (row.cost == kept.charge || !parts.is_empty()),
                        format!("{} was charged {}, and its evidence says {}", row.id, row.cost, kept.charge),
                    );
                }
            }
        }
        for (id, kept) in &self.kept {
            let sum: u128 = kept.receipts.iter().map(|(_, charge)| charge).sum();
            agree(kept.charge == sum, format!("{id}: its envelope says {}, its receipts {sum}", kept.charge));
            agree(rows.contains_key(id.as_str()), format!("{id} has evidence, and nobody was charged {sum}"));
        }
        let (unheard, unsigned) = self.unheard();
        for (id, worker) in &self.workers {
            let WorkerBook { number, charged, orders, promised, claimed, drawn, settled } = worker;
            let log = || self.logged.iter().filter(|receipt| receipt.worker == *id);
            let (logged, count) = (log().map(|receipt| receipt.charge).sum::<u128>(), log().count() as u64);
            let heard = self.of_rows(id).0;
            let missed: u128 = unheard.iter().filter(|lost| lost.worker == *id).map(|lost| lost.charge).sum();
            agree(
                logged == *charged && count == *orders,
                format!(
                    "worker {number} charged {charged} by {orders} receipts; its log has {count}, over {logged}"
                ),
            );
            agree(charged == claimed, format!("worker {number} charged {charged}, and claimed {claimed}"));
            agree(
                claimed == drawn,
                format!("worker {number} claimed {claimed}, and the payer's channel gave {drawn}"),
            );
            agree(settled <= claimed, format!("worker {number} claimed {claimed}, and was paid {settled}"));
            agree(
                claimed <= promised,
                format!("worker {number} claimed {claimed}, and {promised} were promised"),
            );
            agree(
                heard + missed == *claimed,
                format!(
                    "worker {number} claimed {claimed}; rows have {heard} of it, and other receipts {missed}"
                ),
            );
        }
        found.extend(unsigned);
        let (untaken, wrong) = self.untaken();
        found.extend(wrong);
        found.extend(unheard.iter().chain(&untaken).filter(|lost| lost.why.is_none()).map(|lost| {
            let Lost { request, what, charge, known, .. } = lost;
            format!("{request}: {what} over {charge}, and nothing explains it ({known})")
        }));
        for (payer, (first, last)) in &self.balances {
            let of = self.payments.iter().filter(|paid| paid.payer == *payer);
            let taken: u128 =
                of.map(|paid| if let Stage::Taken(micro) = paid.stage { micro } else { 0 }).sum();
            if first.checked_sub(*last) != Some(taken) {
                found.push(format!("the payer {payer} had {first} and has {last}; {taken} was taken"));
            }
        }
        let bought: u128 = self.keys.values().map(|key| key.bought).sum();
        let sold: u128 = self
            .payments
            .iter()
            .map(|paid| match (&paid.purpose, &paid.stage) {
                (Purpose::Credits(_), Stage::Taken(micro)) => *micro,
                _ => 0,
            })
            .sum();
        if bought != sold {
            found.push(format!("keys have bought {bought}, and {sold} was taken for that"));
        }
        let (named, held) = &self.supply;
        if named != held {
            found.push(format!("genesis named {named} wei and there are {held}"));
        }
        found
    }
}

/// What rows of those who pay by the request are called.
pub const PAYER_KEY: &str = "payer";

#[cfg(test)]
mod tests {
    use super::*;

    fn order(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn logged(byte: u8, charge: u128) -> Logged {
        Logged {
            worker: "w".into(),
            order: order(byte),
            charge,
            marks: BTreeSet::from([format!("<{byte}.0>")]),
            issued_ms: 990,
            accepted_ms: 1000,
            done_ms: 2000,
        }
    }

    fn row(key: &str, id: &str, cost: u128) -> Row {
        let parts = vec![("w".into(), cost)];
        Row { key: key.into(), id: id.into(), status: "complete".into(), cost, parts, done_ms: 2000 }
    }

    /// Two answers with a key and one that was paid for, and a receipt that nobody heard.
    fn sound() -> Books {
        let kept = |charge| Kept { charge, receipts: vec![("w".into(), charge)], marks: BTreeSet::new() };
        let worker = WorkerBook {
            number: 1,
            charged: 15,
            orders: 4,
            promised: 20,
            claimed: 15,
            drawn: 15,
            settled: 12,
        };
        let payer = Address::repeat_byte(1);
        let paid = |purpose, micro| Paid { payer, purpose, stage: Stage::Taken(micro) };
        let ids = [(1, "a"), (2, "b"), (3, "c")];
        Books {
            kept: BTreeMap::from([("a".into(), kept(5)), ("b".into(), kept(4)), ("c".into(), kept(3))]),
            rows: vec![row("k", "a", 5), row("k", "b", 4), row(PAYER_KEY, "c", 3)],
            keys: BTreeMap::from([(
                "k".into(),
                KeyBook { used: 10, reserved: 0, bought: 7, budget: Some(3), total: 10, dropped: 1 },
            )]),
            stated: BTreeMap::new(),
            requests: ids.into_iter().map(|(byte, id)| (order(byte), id.to_owned())).collect(),
            workers: BTreeMap::from([("w".into(), worker)]),
            logged: vec![logged(1, 5), logged(2, 4), logged(3, 3), logged(4, 3)],
            payments: vec![paid(Purpose::Answer("c".into()), 3), paid(Purpose::Credits(2), 7)],
            balances: BTreeMap::from([(payer, (30, 20))]),
            holds: 0,
            supply: ("7".into(), "7".into()),
            kills: vec![1500],
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Books), expected: &[&str]) {
        let mut books = sound();
        change(&mut books);
        let found = books.disagreements();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}: {expected}");
        }
    }

    fn key(books: &mut Books) -> &mut KeyBook {
        books.keys.get_mut("k").unwrap()
    }

    fn worker(books: &mut Books) -> &mut WorkerBook {
        books.workers.get_mut("w").unwrap()
    }

    #[test]
    fn what_does_not_agree_is_named() {
        check(|_| {}, &[]);
        check(|books| key(books).reserved = 1, &["still has 1 set aside"]);
        check(|books| key(books).budget = Some(2), &["used 10 of a budget"]);
        check(|books| key(books).used = 9, &["used 9; its rows sum to 9 and 1 dropped"]);
        check(|books| key(books).bought = 8, &["bought 8, and 7 was taken"]);
        check(|books| books.holds = 2, &["2 requests still hold"]);
        check(|books| books.rows.push(row("k", "a", 0)), &["a is charged twice", "a was charged 0"]);
        check(|books| books.kept.get_mut("a").unwrap().charge = 6, &["evidence says 6", "envelope says 6"]);
        check(|books| drop(books.kept.insert("d".into(), Kept::default())), &["d has evidence, and nobody"]);
        check(|books| worker(books).settled = 16, &["claimed 15, and was paid 16"]);
        check(|books| worker(books).drawn = 14, &["claimed 15, and the payer's channel gave 14"]);
        check(|books| worker(books).promised = 14, &["claimed 15, and 14 were promised"]);
        check(|books| worker(books).orders = 5, &["by 5 receipts; its log has 4"]);
        check(|books| books.supply.1 = "8".into(), &["genesis named 7 wei and there are 8"]);
        check(
            |books| books.balances.values_mut().for_each(|sums| sums.1 = 21),
            &["had 30 and has 21; 10 was taken"],
        );
    }

    #[test]
    fn what_no_caller_owes_has_a_reason_or_is_wrong() {
        check(
            |books| books.kills.clear(),
            &["does not know) <4.0>: a worker's receipt that is in no row over 3"],
        );
        check(|books| books.kills = vec![900], &["nothing explains it"]);
        check(|books| books.kills = vec![2000 + UNWRITTEN_MS], &[]);
        // It is known whose it was, and in no row.
        check(
            |books| {
                books.requests.insert(order(4), "a".into());
                books.kills.clear();
            },
            &["a <4.0>: a worker's receipt that is in no row over 3, and nothing explains it"],
        );
        let stated = |stated: Stated| {
            move |books: &mut Books| {
                books.requests.insert(order(4), "a".into());
                books.stated.insert("a".into(), stated);
                books.kills.clear();
            }
        };
        check(stated(Stated { raced: true, ..Stated::default() }), &[]);
        check(stated(Stated { failed: true, ..Stated::default() }), &[]);
        let broken = BTreeSet::from([order(4)]);
        check(stated(Stated { broken, ..Stated::default() }), &[]);
        let finished = BTreeSet::from([order(4)]);
        check(stated(Stated { raced: true, finished, ..Stated::default() }), &["nothing explains it"]);
        check(
            |books| books.logged[0].charge = 6,
            &[
                "its log has 4, over 16",
                "claimed 15; rows have 12 of it, and other receipts 9",
                "a has a part of 5",
            ],
        );
        let lost = |status: &'static str| {
            move |books: &mut Books| {
                books.kept.remove("a");
                books.rows[0].status = status.to_owned();
            }
        };
        check(lost("complete"), &["a was charged 5, and has no evidence"]);
        check(lost("cancelled"), &[]);
    }

    /// An answer that the kill cut off was asked again, of the same worker, at the same charge.
    #[test]
    fn a_row_is_of_the_order_that_was_heard_to_its_end() {
        for later in [2, 3] {
            let twins = |books: &mut Books| {
                books.requests.insert(order(4), "c".into());
                let again = &mut books.logged[later];
                (again.issued_ms, again.accepted_ms, again.done_ms) = (6000, 6010, 7000);
            };
            check(twins, &[]);
            // The kill came to both: then what the journal says decides.
            let finished = BTreeSet::from([order(later as u8 + 1)]);
            check(
                |books| {
                    twins(books);
                    books.stated.insert("c".into(), Stated { finished, ..Stated::default() });
                    books.kills.push(6500);
                    let (lost, _) = books.unheard();
                    let other = books.logged[5 - later].order;
                    assert!(lost.len() == 1 && lost[0].known.contains(&other.to_string()), "{lost:?}");
                },
                &[],
            );
        }
    }

    #[test]
    fn who_left_and_came_back_has_paid_for_both_parts() {
        let joined = |books: &mut Books| {
            books.rows[0].cost = 8;
            books.rows[0].parts.push(("w".into(), 3));
            books.requests.insert(order(4), "a".into());
            let key = key(books);
            (key.used, key.total, key.bought) = (13, 13, 10);
            books.payments[1].stage = Stage::Taken(10);
            books.balances.values_mut().for_each(|sums| sums.1 = 17);
        };
        check(joined, &[]);
    }

    #[test]
    fn what_is_paid_for_is_taken_once() {
        let open = |books: &mut Books| books.payments[0].stage = Stage::Open("due".into());
        check(open, &["is due", "c: an answer whose payment was not taken", "30 and has 20; 7 was taken"]);
        check(
            |books| books.payments[0].stage = Stage::Taken(2),
            &["c cost 3, and 2 was taken", "9 was taken"],
        );
        let again = |books: &mut Books| books.payments.push(books.payments[0].clone());
        check(again, &["c cost 3, and 6 was taken", "13 was taken"]);
        check(
            |books| books.payments[0].purpose = Purpose::Answer("x".into()),
            &["3 was taken for x", "c: an answer whose payment"],
        );
        let untold = |books: &mut Books| {
            books.payments.remove(0);
            books.rows[2].status = "recovered".into();
            books.balances.values_mut().for_each(|sums| sums.1 = 23);
        };
        check(untold, &[]);
    }
}
