//! Sessions that pay: a purse that notes what it is asked, and scripted workers that ask a price.

mod worker;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use surety_client::{
    Completed, Connection, OrderOptions, Purse, PurseError, Session, SessionError, SessionEvent,
    channel::{Exhausted, Signing},
};
use surety_types::{
    Amount, Channel, Digest, FailureCode, FinishReason, Order, Price, Receipt, Signed, ToWorker, Voucher,
    channel::cover_wei,
};
use worker::{Served, TEXT, TOKENS, Worker, endpoint, key, order_for, request};

const PATIENCE: Duration = Duration::from_secs(20);
/// A micro-credit for each token.
const PRICE: Price =
    Price { prompt: Amount(1_000_000), cached: Amount(1_000_000), output: Amount(1_000_000) };
const LIMIT: u32 = 500;

/// What became of a purse.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Notes {
    covers: Vec<(u128, u32)>,
    settled: Option<Amount>,
    released: bool,
    dropped: bool,
}

#[derive(Debug)]
struct Noting {
    notes: Arc<Mutex<Notes>>,
    order: Digest,
    most: u128,
    channel: Channel,
}

fn channel() -> Channel {
    Channel {
        payer: Default::default(),
        payer_authorizer: Default::default(),
        receiver: Default::default(),
        receiver_authorizer: Default::default(),
        token: Default::default(),
        withdraw_delay_s: 900,
        salt: Digest::ZERO,
    }
}

impl Purse for Noting {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    fn cover(&mut self, wei: u128, output_tokens: u32) -> Signing<'_> {
        Box::pin(async move {
            if wei > self.most {
                return Err(PurseError::Exhausted(Exhausted { unspent: self.most, wanted: wei }));
            }
            self.notes.lock().unwrap().covers.push((wei, output_tokens));
            Ok(Voucher {
                channel: channel(),
                max_claimable: wei,
                signature: [27; 65],
                order: self.order,
                covered_output_tokens: output_tokens,
            })
        })
    }

    fn settle(self: Box<Self>, charge: Amount) {
        self.notes.lock().unwrap().settled = Some(charge);
    }

    fn release(self: Box<Self>) {
        self.notes.lock().unwrap().released = true;
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.notes.lock().unwrap().dropped = true;
    }
}

struct Trial {
    session: Session,
    notes: Arc<Mutex<Notes>>,
    _worker: Worker,
    _connection: Connection,
}

async fn trial<F: Future<Output = ()> + Send + 'static>(
    most: u128,
    script: impl Fn(Served) -> F + Send + Sync + 'static,
) -> Trial {
    let worker = Worker::start(script).await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let named = Some(Digest([4; 32]));
    let order =
        Order { price_ceiling: PRICE, channel: named, max_output_tokens: LIMIT, ..order_for(&request()) };
    let notes = Arc::new(Mutex::new(Notes::default()));
    let purse =
        Box::new(Noting { notes: Arc::clone(&notes), order: order.digest(), most, channel: channel() });
    let order = Signed::sign(order, &key(2));
    let session =
        connection.order_paid(order, request(), Vec::new(), OrderOptions::default(), purse).await.unwrap();
    Trial { session, notes, _worker: worker, _connection: connection }
}

impl Trial {
    async fn end(&mut self) -> Result<SessionEvent, SessionError> {
        loop {
            let event =
                tokio::time::timeout(PATIENCE, self.session.next()).await.expect("an event in time")?;
            if let SessionEvent::Finished(_) | SessionEvent::Refused(_) = event {
                return Ok(event);
            }
        }
    }

    /// What became of the purse, once it is gone.
    async fn notes(&self) -> Notes {
        for _ in 0..1000 {
            let notes = self.notes.lock().unwrap().clone();
            if notes.dropped {
                return notes;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the purse is kept")
    }
}

fn cover(tokens: u32) -> u128 {
    cover_wei(&PRICE, worker::PROMPT.len() as u32, tokens).unwrap()
}

async fn accept(served: &mut Served) {
    let acceptance = surety_types::Acceptance { price: PRICE, ..served.honest_acceptance() };
    served.send_acceptance(acceptance).await;
}

async fn voucher(served: &mut Served) -> Voucher {
    match served.stream().receive().await.unwrap() {
        Some(ToWorker::Voucher(voucher)) => *voucher,
        other => panic!("no voucher but {other:?}"),
    }
}

/// For what was sent so far, at the price.
fn receipt(served: &Served, finish: FinishReason) -> Receipt {
    let plain = served.honest_receipt();
    let charge = PRICE.charge(plain.prompt_tokens, 0, plain.output_tokens).unwrap();
    Receipt { price: PRICE, charge, finish, ..plain }
}

async fn end(served: &mut Served, finish: FinishReason) {
    let receipt = receipt(served, finish);
    served.send_receipt(receipt, worker::SALT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_comes_before_the_first_token_and_after_every_progress() {
    let mut trial = trial(u128::MAX, |mut served| async move {
        accept(&mut served).await;
        assert_eq!(voucher(&mut served).await.max_claimable, cover(128));
        for (index, token) in TOKENS.into_iter().enumerate() {
            served.frame(index as u32, &[token], TEXT[index]).await;
            served.progress(|_| {}).await;
            assert_eq!(voucher(&mut served).await.covered_output_tokens, 129 + index as u32);
        }
        end(&mut served, FinishReason::Stop).await;
    })
    .await;
    let Ok(SessionEvent::Finished(completed)) = trial.end().await else { panic!("it ends well") };
    let Completed { receipt, .. } = *completed;
    assert_eq!(receipt.charge, Amount(worker::PROMPT.len() as u128 + 3));
    let notes = trial.notes().await;
    assert_eq!(notes.settled, Some(receipt.charge));
    let covers: Vec<(u128, u32)> = [128, 129, 130, 131].map(|tokens| (cover(tokens), tokens)).into();
    assert_eq!(notes.covers, covers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_failure_costs_nothing_and_silence_all_that_covered_it() {
    let mut trial = trial(u128::MAX, |mut served| async move {
        accept(&mut served).await;
        voucher(&mut served).await;
        let failure = Receipt { price: PRICE, ..served.failure(FailureCode::Internal, "a thread died") };
        let failure = Receipt { charge: Amount::ZERO, prompt_tokens: worker::PROMPT.len() as u32, ..failure };
        let prompt_digest = served.honest_receipt().prompt_digest;
        served.send_receipt(Receipt { prompt_digest, ..failure }, [0; 32]).await;
    })
    .await;
    assert!(matches!(trial.end().await, Ok(SessionEvent::Refused(_))));
    let notes = trial.notes().await;
    assert!(notes.released && notes.settled.is_none());

    let mut trial = self::trial(u128::MAX, |mut served| async move {
        accept(&mut served).await;
        voucher(&mut served).await;
        served.frame(0, &TOKENS[..1], TEXT[0]).await;
        drop(served.take_stream());
    })
    .await;
    assert!(trial.end().await.is_err());
    let notes = trial.notes().await;
    assert!(!notes.released && notes.settled.is_none(), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sends_two_steps_unsigned_is_left() {
    let mut trial = trial(u128::MAX, |mut served| async move {
        accept(&mut served).await;
        voucher(&mut served).await;
        for index in 0..129 {
            served.frame(index, &[60], "a").await;
        }
        let _ = served.stream().receive().await;
    })
    .await;
    let error = trial.end().await.unwrap_err();
    assert!(
        matches!(&error, SessionError::OutOfTurn { what, .. } if what.contains("two steps")),
        "{error:?}"
    );
    assert!(trial.notes().await.settled.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purse_that_runs_out_cancels_and_says_why() {
    let mut trial = trial(cover(128), |mut served| async move {
        accept(&mut served).await;
        voucher(&mut served).await;
        served.frame(0, &TOKENS[..1], TEXT[0]).await;
        served.progress(|_| {}).await;
        assert!(matches!(served.stream().receive().await, Ok(Some(ToWorker::Cancel))));
        end(&mut served, FinishReason::Cancelled).await;
    })
    .await;
    let Ok(SessionEvent::Finished(completed)) = trial.end().await else { panic!("a receipt comes") };
    assert_eq!(completed.receipt.output_tokens, 1);
    assert!(matches!(trial.session.payment_problem(), Some(PurseError::Exhausted(_))));
    assert_eq!(trial.notes().await.settled, Some(completed.receipt.charge));
}
