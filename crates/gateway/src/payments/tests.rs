//! What is made of payments that a gateway left when it was killed.

use std::collections::BTreeMap;

use super::*;

#[path = "../../../client/tests/memory/mod.rs"]
pub(super) mod memory;

use memory::{MemoryLedger, wallet};

const PAYER: u64 = 3;
const PAYEE: u64 = 2;

fn row(ledger: &MemoryLedger, nonce: u8, purpose: Purpose, stage: Stage) -> (PaymentId, Row) {
    let from = wallet(PAYER).address();
    let mut authorization = Authorization {
        from,
        to: wallet(PAYEE).address(),
        value: U256::from(100 * WEI_PER_MICRO_CREDIT),
        valid_after: U256::ZERO,
        valid_before: U256::from(ledger.now_s() + 600),
        nonce: B256::repeat_byte(nonce),
        signature: Vec::new(),
    };
    let digest = authorization.digest(ledger.account(PAYEE).chain_id());
    authorization.signature = wallet(PAYER).sign_digest(&digest).to_vec();
    ((from, authorization.nonce), Row { authorization, purpose, stage })
}

#[tokio::test]
async fn what_a_crash_left_is_due_where_it_was_told_and_has_a_receipt() {
    let ledger = MemoryLedger::new();
    let directory = tempfile::tempdir().expect("a directory");
    let request = |number: u128| RequestId::of_bits(number).to_string();
    let answer = |number, told| Purpose::Answer { request: request(number), told };
    {
        let (store, writer, _) = Store::open(directory.path()).expect("a store");
        for (id, row) in [
            row(&ledger, 1, answer(1, true), Stage::Held),
            row(&ledger, 2, answer(2, true), Stage::Held),
            row(&ledger, 3, answer(3, false), Stage::Held),
            row(&ledger, 4, answer(4, false), Stage::Due(Micro(7))),
            row(&ledger, 5, Purpose::Credits { key: 1 }, Stage::Due(Micro(100))),
            row(&ledger, 6, answer(6, true), Stage::Settled(Micro(9), B256::ZERO)),
        ] {
            store.keep(id, Some(row)).outcome().await.expect("kept");
        }
        drop(store);
        writer.join();
    }
    let (keys, _keys_writer) = Keys::open(directory.path(), true, None).expect("keys");
    // Requests 1 and 3 have receipts.
    let charges = BTreeMap::from([(1u128, 40u128), (3, 50)]);
    let answered = |request: RequestId| charges.get(&request.bits()).copied();
    let account = ledger.account(PAYEE);
    let (payments, _writer) =
        Payments::open(account, keys, Duration::from_secs(60), directory.path(), &answered)
            .expect("payments");
    let stages: Vec<(u8, Stage)> =
        payments.lock().rows.iter().map(|((_, nonce), row)| (nonce[0], row.stage.clone())).collect();
    assert_eq!(
        stages,
        [
            (1, Stage::Due(Micro(40))),
            (4, Stage::Due(Micro(7))),
            (5, Stage::Due(Micro(100))),
            (6, Stage::Settled(Micro(9), B256::ZERO)),
        ]
    );
    let sums = payments.sums();
    assert_eq!((sums.due, sums.held), (147, 0));

    // All of it is taken once, by whatever comes between.
    let before = ledger.balance(wallet(PAYER).address());
    payments.settle_due(false).await.expect("taken");
    let taken = before - ledger.balance(wallet(PAYER).address());
    assert_eq!(taken, U256::from(147 * WEI_PER_MICRO_CREDIT));
    for row in payments.lock().rows.values_mut() {
        // As if it had died before it knew.
        if let Stage::Settled(micro, _) = row.stage {
            row.stage = Stage::Due(micro);
        }
    }
    payments.settle_due(false).await.expect("looked at");
    assert_eq!(
        before - ledger.balance(wallet(PAYER).address()),
        taken + U256::from(9 * WEI_PER_MICRO_CREDIT)
    );
    assert_eq!(payments.sums().due, 0);
}
