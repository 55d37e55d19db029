//! The payer's book under every interleaving.

use proptest::prelude::*;

use super::{PayerBook, due_cover};

#[derive(Debug, Clone)]
enum Act {
    Deposit(u64),
    Open,
    Cover(prop::sample::Index, u64),
    Settle(prop::sample::Index, u64),
    Release(prop::sample::Index),
    WriteOff(prop::sample::Index),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let act = prop_oneof![
        (1u64..500).prop_map(Act::Deposit),
        Just(Act::Open),
        (index(), 0u64..900).prop_map(|(at, wei)| Act::Cover(at, wei)),
        (index(), 0u64..900).prop_map(|(at, wei)| Act::Settle(at, wei)),
        index().prop_map(Act::Release),
        index().prop_map(Act::WriteOff),
    ];
    prop::collection::vec(act, 0..80)
}

proptest! {
    #[test]
    fn what_is_paid_in_is_unspent_settled_written_off_or_in_flight(acts in acts()) {
        let mut book = PayerBook::default();
        let mut open = Vec::new();
        let mut paid_in = 0;
        for act in acts {
            match act {
                Act::Deposit(wei) => {
                    paid_in += u128::from(wei);
                    book.set_deposited(paid_in);
                }
                Act::Open => open.push((book.open(), 0)),
                _ if open.is_empty() => {}
                Act::Cover(at, wei) => {
                    let at = at.index(open.len());
                    let (before, wei) = (book.clone(), u128::from(wei));
                    match book.cover(open[at].0, wei) {
                        Ok(promised) => {
                            open[at].1 = open[at].1.max(wei);
                            prop_assert!(promised >= book.promised() && promised >= before.signed());
                            prop_assert!(promised == before.signed() || promised == book.promised());
                        }
                        Err(_) => prop_assert_eq!(&book, &before),
                    }
                }
                Act::Settle(at, wei) => {
                    let (ticket, cover) = open.swap_remove(at.index(open.len()));
                    let before = book.settled();
                    book.settle(ticket, wei.into());
                    prop_assert_eq!(book.settled() - before, u128::from(wei).min(cover));
                }
                Act::Release(at) => book.release(open.swap_remove(at.index(open.len())).0),
                Act::WriteOff(at) => book.write_off(open.swap_remove(at.index(open.len())).0),
            }
            prop_assert!(book.promised() <= paid_in && book.signed() <= paid_in);
            prop_assert_eq!(book.deposited(), paid_in);
            prop_assert_eq!(
                book.unspent() + book.settled() + book.written_off() + book.in_flight(),
                paid_in
            );
            prop_assert_eq!(book.in_flight(), open.iter().map(|(_, cover)| *cover).sum::<u128>());
        }
    }
}

#[test]
fn a_voucher_is_due_where_it_covers_more() {
    assert_eq!(due_cover(1_000, 0, None), Some(128));
    assert_eq!(due_cover(1_000, 0, Some(128)), None);
    assert_eq!(due_cover(1_000, 3, Some(128)), Some(131));
    assert_eq!(due_cover(100, 0, None), Some(100));
    assert_eq!(due_cover(100, 64, Some(100)), None);
    assert_eq!(due_cover(0, 0, None), Some(0), "a prompt alone is paid for too");
}
