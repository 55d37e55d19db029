//! Sessions with a scripted worker on a real endpoint: an honest one is believed, and each that misbehaves in one way is
//! refused for that way.

mod worker;

use std::{
    future::poll_fn,
    io::{BufRead, BufReader},
    net::SocketAddr,
    pin::pin,
    process::{Child, Command, Stdio},
    task::Poll,
    time::{Duration, Instant},
};

use surety_client::{Connection, OrderOptions, Party, ProgressProblem, Session, SessionError, SessionEvent};
use surety_net::{
    CloseCode, FrameError, Location, Lost, ReceiveError, SendError, WorkerAddress, encode_frame,
};
use surety_proof::{Check, Fault, output_digest, text_digest};
use surety_types::{
    Amount, Digest, FailureCode, FinishReason, FromWorker, Invalid, OpenError, Order, Prompt, Region,
    Request, Signed, ToWorker,
};
use worker::{RawWorker, Served, TEXT, TOKENS, Worker, endpoint, key, order_for, request, unix_ms};

const PATIENCE: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_millis(400);

/// Orders from a worker that follows `script`; every event, and the error if there was one.
async fn outcome<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(Served) -> F + Send + Sync + 'static,
) -> (Vec<SessionEvent>, Option<SessionError>) {
    outcome_of(request(), |_| {}, script).await
}

async fn outcome_of<F: Future<Output = ()> + Send + 'static>(
    request: Request,
    change: impl FnOnce(&mut Order),
    script: impl Fn(Served) -> F + Send + Sync + 'static,
) -> (Vec<SessionEvent>, Option<SessionError>) {
    let worker = Worker::start(script).await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let mut order = order_for(&request);
    change(&mut order);
    let options = OrderOptions {
        stall: STALL,
        acceptance: STALL,
        context_tokens: Some(worker::CONTEXT_TOKENS),
        ..OrderOptions::default()
    };
    let mut session =
        connection.order(Signed::sign(order, &key(2)), request, Vec::new(), options).await.unwrap();
    collect(&mut session).await
}

async fn collect(session: &mut Session) -> (Vec<SessionEvent>, Option<SessionError>) {
    let mut events = Vec::new();
    let error = loop {
        match tokio::time::timeout(PATIENCE, session.next()).await.expect("an event in time") {
            Ok(event) => {
                let last = matches!(event, SessionEvent::Finished(_) | SessionEvent::Refused(_));
                events.push(event);
                if last {
                    break None;
                }
            }
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(session.next().await, Err(SessionError::Ended)), "nothing comes after the end");
    (events, error)
}

fn tokens(events: &[SessionEvent]) -> Vec<u32> {
    let tokens = |event: &SessionEvent| match event {
        SessionEvent::Tokens { tokens, .. } => tokens.clone(),
        _ => vec![],
    };
    events.iter().flat_map(tokens).collect()
}

/// Runs a misbehaving script; it must end in an error that `is_expected` recognises, blamed on the worker, worth a retry
/// elsewhere, and never in `Finished`.
async fn check<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(Served) -> F + Send + Sync + 'static,
    is_expected: impl FnOnce(&SessionError) -> bool,
) {
    let (events, error) = outcome(script).await;
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Finished(_))), "{events:?}");
    let error = error.expect("misbehaviour is an error");
    assert!(is_expected(&error), "{error:?}");
    assert_eq!(error.accountable(), Party::Worker, "{error:?}");
    assert!(error.is_retryable(), "{error:?}");
}

// ---- honest ----

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_answer_is_finished() {
    let (events, error) = outcome(|mut served| async move { served.answer().await }).await;
    assert!(error.is_none(), "{error:?}");
    assert!(matches!(events[0], SessionEvent::Accepted(_)));
    assert_eq!(tokens(&events), TOKENS);
    let Some(SessionEvent::Finished(completed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(completed.answer.text, TEXT.concat());
    assert_eq!(completed.answer.output_ids, TOKENS);
    assert_eq!(completed.receipt.finish, FinishReason::Stop);
    assert!(completed.checked.checked.contains(&Check::Worker));
    assert!(completed.checked.checked.contains(&Check::Payer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scored_prompt_is_checked_against_the_receipt() {
    let asked = Request { prompt_logprobs: Some(0), ..request() };
    let (events, error) = outcome_of(
        asked.clone(),
        |_| {},
        |mut served| async move {
            served.accept().await;
            served.prompt(0, &worker::PROMPT[..2]).await;
            served.prompt(2, &worker::PROMPT[2..]).await;
            served.frames().await;
            served.receipt().await;
        },
    )
    .await;
    assert!(error.is_none(), "{error:?}");
    let Some(SessionEvent::Finished(completed)) = events.last() else { panic!("{events:?}") };
    assert_eq!(completed.answer.prompt_ids.as_deref(), Some(&worker::PROMPT[..]));
    assert!(completed.checked.checked.contains(&Check::PromptTokens));

    let (_, error) = outcome_of(
        asked.clone(),
        |_| {},
        |mut served| async move {
            served.accept().await;
            served.prompt(0, &[9, 9, 9, 9]).await;
            served.frames().await;
            served.receipt().await;
        },
    )
    .await;
    let Some(SessionError::BadReceipt { fault, .. }) = error else { panic!("{error:?}") };
    assert!(matches!(*fault, Fault::PromptDigest), "{fault:?}");

    let (_, error) = outcome_of(
        asked,
        |_| {},
        |mut served| async move {
            served.accept().await;
            served.prompt(0, &worker::PROMPT[..2]).await;
            served.frames().await;
        },
    )
    .await;
    assert!(matches!(error, Some(SessionError::OutOfTurn { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_end_with_a_signature() {
    let (events, error) = outcome(|mut served| async move {
        let receipt = served.failure(FailureCode::Overloaded, "64 orders waiting");
        served.send_receipt(receipt, [0; 32]).await;
    })
    .await;
    assert!(error.is_none(), "{error:?}");
    let [SessionEvent::Refused(refusal)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(refusal.receipt.failure(), Some((FailureCode::Overloaded, "64 orders waiting")));

    // And so is a failure in the middle.
    let (events, error) = outcome(|mut served| async move {
        served.accept().await;
        served.frames().await;
        let receipt = served.failure(FailureCode::NonFinite, "token 3");
        served.send_receipt(receipt, [0; 32]).await;
    })
    .await;
    assert!(error.is_none(), "{error:?}");
    let Some(SessionEvent::Refused(refusal)) = events.last() else { panic!("{events:?}") };
    assert_eq!(refusal.answer.output_ids, TOKENS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_answer_is_receipted_for_what_was_delivered() {
    let worker = Worker::start(|mut served| async move {
        served.accept().await;
        served.frame(0, &TOKENS[..1], TEXT[0]).await;
        assert_eq!(served.stream().receive().await.unwrap(), Some(ToWorker::Cancel));
        let mut receipt = served.honest_receipt();
        receipt.finish = FinishReason::Cancelled;
        served.send_receipt(receipt, worker::SALT).await;
    })
    .await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let order = Signed::sign(order_for(&request()), &key(2));
    let mut session = connection.order(order, request(), Vec::new(), OrderOptions::default()).await.unwrap();
    session.next().await.unwrap();
    session.next().await.unwrap();
    session.cancel().await;
    session.cancel().await;
    let (events, error) = collect(&mut session).await;
    assert!(error.is_none(), "{error:?}");
    let [SessionEvent::Finished(completed)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(completed.receipt.finish, FinishReason::Cancelled);
    assert_eq!(completed.answer.output_ids, TOKENS[..1]);

    // Cancelled without having been asked to.
    check(
        |mut served| async move {
            served.accept().await;
            let mut receipt = served.honest_receipt();
            receipt.finish = FinishReason::Cancelled;
            served.send_receipt(receipt, worker::SALT).await;
        },
        |error| is_receipt_fault(error, |fault| matches!(fault, Fault::NotCancelled)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_stops_the_worker() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let worker = Worker::start(move |mut served| {
        let tell = tell.clone();
        async move {
            served.accept().await;
            let (sender, mut receiver) = served.take_stream().split();
            let (stopped, received) = tokio::join!(sender.stopped(), receiver.receive());
            tell.send((stopped, received)).await.unwrap();
        }
    })
    .await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let order = Signed::sign(order_for(&request()), &key(2));
    let mut session = connection.order(order, request(), Vec::new(), OrderOptions::default()).await.unwrap();
    session.next().await.unwrap();
    drop(session);
    let (stopped, received) = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert!(matches!(stopped, SendError::Stopped(CloseCode::Cancelled)), "{stopped:?}");
    assert!(matches!(received, Err(ReceiveError::Reset(CloseCode::Cancelled))), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_worker_that_gives_signs_of_life_has_not_stalled() {
    let (events, error) = outcome(|mut served| async move {
        served.accept().await;
        for _ in 0..4 {
            tokio::time::sleep(STALL / 2).await;
            served.progress(|_| {}).await;
        }
        served.frames().await;
        served.receipt().await;
    })
    .await;
    assert!(error.is_none(), "{error:?}");
    assert!(matches!(events.last(), Some(SessionEvent::Finished(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_event_may_be_given_up_at_any_moment() {
    let worker = Worker::start(|mut served| async move { served.answer().await }).await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let order = Signed::sign(order_for(&request()), &key(2));
    let mut session = connection.order(order, request(), Vec::new(), OrderOptions::default()).await.unwrap();
    let (mut events, mut given_up, began) = (Vec::new(), 0, Instant::now());
    loop {
        assert!(began.elapsed() < PATIENCE, "{events:?}");
        // Polled once: whatever has to wait is given up.
        let polled = {
            let mut hearing = pin!(session.hear());
            poll_fn(|context| Poll::Ready(hearing.as_mut().poll(context))).await
        };
        match polled {
            Poll::Pending => given_up += 1,
            Poll::Ready(heard) => events.extend(heard.unwrap()),
        }
        if let Some(SessionEvent::Finished(_)) = events.last() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(matches!(events[0], SessionEvent::Accepted(_)));
    assert_eq!(tokens(&events), TOKENS);
    assert!(given_up > 0);
}

// ---- acceptance ----

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_claims_the_region_that_the_worker_was_chosen_for() {
    let claim = |text: &str| Some(Region::new(text).unwrap());
    for (wanted, signed, refused) in [
        (claim("eu"), claim("eu"), false),
        (claim("eu"), claim("eu-de"), true),
        (claim("eu"), None, true),
        (None, claim("us"), false),
        (None, None, false),
    ] {
        let worker = Worker::start(move |mut served| {
            let region = signed.clone();
            async move {
                let acceptance = surety_types::Acceptance { region, ..served.honest_acceptance() };
                served.send_acceptance(acceptance).await;
                served.frames().await;
                served.receipt().await;
            }
        })
        .await;
        let payer = endpoint(2).await;
        let connection = Connection::open(&payer, worker.address());
        connection.ready(PATIENCE).await.unwrap();
        let options = OrderOptions { region: wanted, ..OrderOptions::default() };
        let order = Signed::sign(order_for(&request()), &key(2));
        let mut session = connection.order(order, request(), Vec::new(), options).await.unwrap();
        let (events, error) = collect(&mut session).await;
        assert_eq!(error.is_some(), refused, "{error:?}");
        assert_eq!(events.is_empty(), refused, "{events:?}");
        assert!(error.is_none_or(|error| matches!(error, SessionError::BadFrame { .. })));
    }
}

fn is_acceptance_fault(error: &SessionError, is_expected: fn(&Fault) -> bool) -> bool {
    matches!(error, SessionError::BadAcceptance { fault, .. } if is_expected(fault))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_must_be_the_workers() {
    check(
        |mut served| async move {
            let mut acceptance = served.honest_acceptance();
            acceptance.worker = key(9).public();
            served.send(FromWorker::Acceptance(Signed::sign(acceptance, &key(9)).bytes().to_vec())).await;
        },
        |error| {
            is_acceptance_fault(error, |fault| {
                matches!(fault, Fault::Acceptance(OpenError::WrongSigner { .. }))
            })
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_must_be_of_this_order() {
    check(
        |mut served| async move {
            let mut acceptance = served.honest_acceptance();
            acceptance.order = Digest::ZERO;
            served.send_acceptance(acceptance).await;
        },
        |error| is_acceptance_fault(error, |fault| matches!(fault, Fault::AcceptanceOfOtherOrder)),
    )
    .await;
    check(
        |mut served| async move {
            let mut acceptance = served.honest_acceptance();
            acceptance.price.output = Amount(1);
            served.send_acceptance(acceptance).await;
        },
        |error| is_acceptance_fault(error, |fault| matches!(fault, Fault::PriceAboveCeiling)),
    )
    .await;
    check(
        |mut served| async move {
            let mut acceptance = served.honest_acceptance();
            acceptance.max_output_tokens = 1;
            served.send_acceptance(acceptance).await;
        },
        |error| is_acceptance_fault(error, |fault| matches!(fault, Fault::LimitNotTheContext { .. })),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.accept().await;
        },
        |error| matches!(error, SessionError::OutOfTurn { what: "a second acceptance", .. }),
    )
    .await;
}

// ---- frames ----

#[tokio::test(flavor = "multi_thread")]
async fn frames_come_after_the_acceptance_without_gaps() {
    check(
        |mut served| async move { served.frame(0, &TOKENS[..1], TEXT[0]).await },
        |error| matches!(error, SessionError::OutOfTurn { what: "a frame before the acceptance", .. }),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.frame(0, &TOKENS[..1], TEXT[0]).await;
            served.frame(2, &TOKENS[2..], TEXT[2]).await;
        },
        |error| matches!(error, SessionError::Gap { expected: 1, found: 2, .. }),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.frame(0, &TOKENS[..1], TEXT[0]).await;
            served.frame(0, &TOKENS[..1], TEXT[0]).await;
        },
        |error| matches!(error, SessionError::Gap { expected: 1, found: 0, .. }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_keep_their_bounds() {
    check(
        |mut served| async move {
            served.accept().await;
            served.frame(0, &[7; 9], "x").await;
        },
        |error| matches!(error, SessionError::BadFrame { what: "more tokens than were accepted", .. }),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.frame(0, &[7], &"x".repeat(5000)).await;
        },
        |error| matches!(error, SessionError::BadFrame { what: "more text than its tokens can spell", .. }),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            let logprobs = vec![worker::logprob(7)];
            served.send(FromWorker::Frame { index: 0, tokens: vec![7], text: "x".into(), logprobs }).await;
        },
        |error| matches!(error, SessionError::BadFrame { .. }),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.prompt(0, &worker::PROMPT).await;
        },
        |error| matches!(error, SessionError::OutOfTurn { .. }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_and_unreadable_messages_are_named() {
    type Is = fn(&ReceiveError) -> bool;
    // A frame of 1,025 tokens, one over the bound; well within the bound of a message.
    let mut long_list = vec![0x82, 0x01, 0xa4, 0x00, 0x00, 0x01, 0x19, 0x04, 0x01];
    long_list.extend([0; 1025]);
    long_list.extend([0x02, 0x61, b'x', 0x03, 0x80]);
    let cases: [(Vec<u8>, Is); 3] = [
        (u32::MAX.to_be_bytes().to_vec(), |source| {
            matches!(source, ReceiveError::Frame(FrameError::TooLong { .. }))
        }),
        (encode_frame(&long_list, 10_000), |source| matches!(source, ReceiveError::Message(_))),
        (encode_frame(b"HTTP/1.1 200 OK", 100), |source| matches!(source, ReceiveError::Message(_))),
    ];
    for (bytes, is_expected) in cases {
        let worker = RawWorker::start(bytes).await;
        let payer = endpoint(2).await;
        let connection = Connection::open(&payer, worker.address());
        connection.ready(PATIENCE).await.unwrap();
        let order = Signed::sign(order_for(&request()), &key(2));
        let mut session =
            connection.order(order, request(), Vec::new(), OrderOptions::default()).await.unwrap();
        let error = session.next().await.unwrap_err();
        assert_eq!(error.accountable(), Party::Worker);
        let SessionError::BadMessage { source, .. } = error else { panic!("{error:?}") };
        assert!(is_expected(&source), "{source:?}");
    }
}

// ---- progress ----

#[tokio::test(flavor = "multi_thread")]
async fn progress_must_agree_with_what_was_sent() {
    type Change = fn(&mut surety_types::Progress);
    type Is = fn(&ProgressProblem) -> bool;
    let cases: [(Change, Is); 4] = [
        (|progress| progress.order = Digest::ZERO, |problem| matches!(problem, ProgressProblem::OtherOrder)),
        (|progress| progress.output_tokens += 1, |problem| matches!(problem, ProgressProblem::OtherTokens)),
        (
            |progress| progress.output_digest = output_digest(&[1]),
            |problem| matches!(problem, ProgressProblem::OtherTokens),
        ),
        (
            |progress| progress.text_digest = text_digest("something else"),
            |problem| matches!(problem, ProgressProblem::OtherText),
        ),
    ];
    for (change, is_expected) in cases {
        check(
            move |mut served| async move {
                served.accept().await;
                served.frame(0, &TOKENS[..1], TEXT[0]).await;
                served.progress(|_| {}).await;
                served.frame(1, &TOKENS[1..2], TEXT[1]).await;
                served.progress(change).await;
            },
            |error| matches!(error, SessionError::BadProgress { problem, .. } if is_expected(problem)),
        )
        .await;
    }
}

// ---- receipt ----

fn is_receipt_fault(error: &SessionError, is_expected: fn(&Fault) -> bool) -> bool {
    matches!(error, SessionError::BadReceipt { fault, .. } if is_expected(fault))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_must_be_of_what_was_sent() {
    type Change = fn(&mut surety_types::Receipt);
    type Is = fn(&Fault) -> bool;
    let cases: [(Change, Is); 7] = [
        (
            |receipt| receipt.output_digest = output_digest(&[1, 2, 4]),
            |fault| matches!(fault, Fault::OutputDigest),
        ),
        (|receipt| receipt.text_digest = text_digest("other"), |fault| matches!(fault, Fault::TextDigest)),
        (|receipt| receipt.output_tokens = 4, |fault| matches!(fault, Fault::OutputCount { .. })),
        (|receipt| receipt.order = Digest::ZERO, |fault| matches!(fault, Fault::ReceiptOfOtherOrder)),
        (|receipt| receipt.seed = [0; 32], |fault| matches!(fault, Fault::OtherSeed)),
        (
            |receipt| receipt.finish = FinishReason::Length,
            |fault| matches!(fault, Fault::LimitNotReached { .. }),
        ),
        (|receipt| receipt.charge = Amount(1), |fault| matches!(fault, Fault::Charge { .. })),
    ];
    for (change, is_expected) in cases {
        check(
            move |mut served| async move {
                served.accept().await;
                served.frames().await;
                let mut receipt = served.honest_receipt();
                change(&mut receipt);
                served.send_receipt(receipt, worker::SALT).await;
            },
            |error| is_receipt_fault(error, is_expected),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_must_be_the_workers_and_come_last() {
    check(
        |mut served| async move {
            served.accept().await;
            served.frames().await;
            let mut receipt = served.honest_receipt();
            receipt.worker = key(9).public();
            let receipt = Signed::sign(receipt, &key(9)).bytes().to_vec();
            served.send(FromWorker::Receipt { receipt, salt: worker::SALT }).await;
        },
        |error| {
            is_receipt_fault(error, |fault| matches!(fault, Fault::OtherWorker { .. } | Fault::Acceptance(_)))
        },
    )
    .await;
    // Before the frames that it counts.
    check(
        |mut served| async move {
            served.accept().await;
            let mut receipt = served.honest_receipt();
            receipt.output_tokens = 3;
            receipt.output_digest = output_digest(&TOKENS);
            receipt.text_digest = text_digest(&TEXT.concat());
            receipt.first_token_ms = Some(receipt.done_ms);
            served.send_receipt(receipt, worker::SALT).await;
        },
        |error| {
            is_receipt_fault(error, |fault| matches!(fault, Fault::OutputCount { receipted: 3, found: 0 }))
        },
    )
    .await;
    check(
        |mut served| async move {
            let mut receipt = served.honest_receipt();
            receipt.finish = FinishReason::Length;
            served.send_receipt(receipt, worker::SALT).await;
        },
        |error| is_receipt_fault(error, |fault| matches!(fault, Fault::AcceptanceMissing)),
    )
    .await;
    check(
        |mut served| async move {
            served.accept().await;
            served.frames().await;
            let receipt = served.honest_receipt();
            served.send_receipt(receipt, [0; 32]).await;
        },
        |error| is_receipt_fault(error, |fault| matches!(fault, Fault::SaltMissing)),
    )
    .await;
}

// ---- silence, loss, lateness ----

#[tokio::test(flavor = "multi_thread")]
async fn silence_after_the_acceptance_is_a_stall() {
    check(
        |mut served| async move {
            served.accept().await;
            std::future::pending().await
        },
        |error| matches!(error, SessionError::Stalled { accepted: true, output_tokens: 0, stall: STALL, .. }),
    )
    .await;

    // Before the acceptance nothing was promised.
    let (_, error) = outcome(|_served| std::future::pending()).await;
    let error = error.unwrap();
    assert!(matches!(error, SessionError::Stalled { accepted: false, .. }), "{error:?}");
    assert_eq!(error.accountable(), Party::Network);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_receipt_is_no_end() {
    check(
        |mut served| async move {
            served.accept().await;
            served.frames().await;
            served.stream().finish().await.unwrap();
        },
        |error| {
            matches!(
                error,
                SessionError::BrokenOff { code: CloseCode::Done, accepted: true, output_tokens: 3, .. }
            )
        },
    )
    .await;
    // A task that panicked.
    check(
        |mut served| async move {
            served.accept().await;
            served.frames().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(served.take_stream());
        },
        |error| matches!(error, SessionError::BrokenOff { code: CloseCode::Failed, .. }),
    )
    .await;
    let (_, error) = outcome(|mut served| async move { served.stream().reset(CloseCode::BadMessage) }).await;
    assert!(
        matches!(error, Some(SessionError::BrokenOff { code: CloseCode::BadMessage, accepted: false, .. })),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_a_deadline() {
    let soon = |order: &mut Order| order.deadline_ms = unix_ms() + 300;
    let (_, error) = outcome_of(request(), soon, |mut served| async move {
        served.accept().await;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if served.try_progress().await.is_err() {
                return;
            }
        }
    })
    .await;
    let error = error.unwrap();
    assert!(matches!(error, SessionError::DeadlineExceeded { accepted: true, .. }), "{error:?}");
    assert_eq!(error.accountable(), Party::Worker);
    assert!(!error.is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_closes_is_lost_and_found_again() {
    let worker = Worker::start(|mut served| async move {
        served.accept().await;
        served.frame(0, &TOKENS[..1], TEXT[0]).await;
        assert!(served.stream().receive().await.is_err(), "until it is closed");
    })
    .await;
    let address = worker.address();
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, address);
    connection.ready(PATIENCE).await.unwrap();
    assert!(connection.is_connected());
    assert_eq!(connection.status().await.unwrap().worker, address.key);
    let order = Signed::sign(order_for(&request()), &key(2));
    let mut session =
        connection.order(order.clone(), request(), Vec::new(), OrderOptions::default()).await.unwrap();
    session.next().await.unwrap();
    session.next().await.unwrap();
    worker.close().await;
    drop(worker);
    let error = session.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::WorkerLost { output_tokens: 1, accepted: true, lost: Lost::ClosedByPeer(_), .. }
        ),
        "{error:?}"
    );
    while connection.is_connected() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error =
        connection.order(order.clone(), request(), Vec::new(), OrderOptions::default()).await.unwrap_err();
    assert!(matches!(error, SessionError::Unreachable { .. } | SessionError::WorkerLost { .. }), "{error:?}");
    assert_eq!(error.accountable(), Party::Network);
    assert!(connection.ready(Duration::from_millis(50)).await.is_err());

    // It comes back at the same address.
    let _worker =
        Worker::start_at(address.location.socket(), |mut served| async move { served.answer().await }).await;
    connection.ready(PATIENCE).await.unwrap();
    let mut session = connection.order(order, request(), Vec::new(), OrderOptions::default()).await.unwrap();
    let (events, error) = collect(&mut session).await;
    assert!(error.is_none(), "{error:?}");
    assert!(matches!(events.last(), Some(SessionEvent::Finished(_))));
    assert_eq!(connection.status().await.unwrap().worker, address.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_out_of_bounds_is_not_sent() {
    let worker = Worker::start(|_| async { panic!("nothing is sent") }).await;
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, worker.address());
    connection.ready(PATIENCE).await.unwrap();
    let order = Signed::sign(order_for(&request()), &key(2));
    let large = Request { prompt: Prompt::Text("x".into()), stop: vec![String::new()], ..request() };
    let error = connection.order(order, large, Vec::new(), OrderOptions::default()).await.unwrap_err();
    assert!(matches!(error, SessionError::Invalid(Invalid { field: "stop", .. })), "{error:?}");
    assert_eq!(error.accountable(), Party::Payer);
    assert!(!error.is_retryable());
}

// ---- a killed process ----

/// Where the child listens.
const CHILD: &str = "SURETY_TEST_CHILD_WORKER";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a worker that other tests run as a process of its own, to kill it"]
async fn child_worker() {
    let listen = std::env::var(CHILD).expect("run by other tests only");
    let worker = Worker::start_at(listen.parse().unwrap(), |mut served| async move {
        served.accept().await;
        served.frame(0, &TOKENS[..1], TEXT[0]).await;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            served.progress(|_| {}).await;
        }
    })
    .await;
    println!("\nADDRESS {}", worker.address());
    std::future::pending().await
}

/// A worker as a process of its own, and its address.
fn start_child(listen: SocketAddr) -> (Child, WorkerAddress) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_worker", "--ignored", "--nocapture"])
        .env(CHILD, listen.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.strip_prefix("ADDRESS ").map(str::to_owned))
        .expect("the child prints its address");
    (child, address.parse().unwrap())
}

/// SIGKILL.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn order(connection: &Connection) -> Result<Session, SessionError> {
    let order = Signed::sign(order_for(&request()), &key(2));
    connection.order(order, request(), Vec::new(), OrderOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_lost_within_five_seconds() {
    let (child, address) = start_child("127.0.0.1:0".parse().unwrap());
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, address);
    connection.ready(PATIENCE).await.unwrap();
    let mut session = order(&connection).await.unwrap();
    assert!(matches!(session.next().await.unwrap(), SessionEvent::Accepted(_)));
    assert!(matches!(session.next().await.unwrap(), SessionEvent::Tokens { .. }));
    kill(child);
    let killed = Instant::now();
    let error = session.next().await.unwrap_err();
    let elapsed = killed.elapsed();
    assert!(matches!(error, SessionError::WorkerLost { output_tokens: 1, accepted: true, .. }), "{error:?}");
    assert_eq!(error.accountable(), Party::Worker);
    assert!(error.is_retryable());
    println!("lost after {elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

/// The connection of before is not lost yet, and nobody at its other end will say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_killed_and_is_back_gets_orders_on_a_new_connection() {
    let (child, address) = start_child("127.0.0.1:0".parse().unwrap());
    let Location::Direct(listen) = address.location else { panic!("{address}") };
    let payer = endpoint(2).await;
    let connection = Connection::open(&payer, address);
    connection.ready(PATIENCE).await.unwrap();
    connection.status().await.unwrap();
    kill(child);
    let (child, _) = start_child(listen);
    let mut back = connection.status().await;
    while back.is_err() {
        back = connection.status().await;
    }
    // The new connection is made when the worker was heard.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut session = order(&connection).await.unwrap();
    let event = session.next().await.unwrap();
    assert!(matches!(event, SessionEvent::Accepted(_)), "{event:?}");
    kill(child);
}
