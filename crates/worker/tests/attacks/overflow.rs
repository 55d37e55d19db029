//! Row 34: a prompt is made so that the model's numbers overflow.

use surety_engine::replay::ReplayError;
use surety_engine::{Event, NonFinite, Scheduler, SchedulerLimits, SequenceRequest};
use surety_proof::check_answer;
use surety_types::{FailureCode, Prompt, Request};
use surety_worker::audit::{Discrepancy, recompute};

use crate::liar::{self, Liar, bundled_file, chat, load, serving};
use crate::{ask, edited};

/// The token that overflows.
const BOMB: u32 = 700;
/// Elements of a row of the embedding.
const WIDTH: usize = 192;

/// The first element of every embedding is 0 but the bomb's, and the first norm multiplies it by what no float can hold.
fn armed() -> Vec<u8> {
    let file = edited(bundled_file(), "token_embd.weight", |bytes| {
        for (token, row) in bytes.chunks_exact_mut(WIDTH / 32 * 34).enumerate() {
            row[2] = if token == BOMB as usize { 127 } else { 0 };
        }
    });
    edited(&file, "blk.0.attn_norm.weight", |bytes| bytes[..4].copy_from_slice(&f32::MAX.to_le_bytes()))
}

fn request(tokens: &[u32]) -> Request {
    Request { prompt: Prompt::Tokens(tokens.to_vec()), ..chat("", "") }
}

#[test]
fn everybody_ends_where_the_rule_says_and_nothing_else_can_be_claimed() {
    let file = armed();
    let liar = Liar::of(load(&file));
    let (innocent, bomb) = (request(&[300, 301, 302]), request(&[300, 301, BOMB, 302]));
    let order = |request: &Request| liar::order(liar.model.id(), request, &liar.payer, 1, 4);

    // The second voice, and the engine: the same position.
    let second = surety_reference::model::Model::open(&file).unwrap();
    let mut session = second.session();
    assert!(session.push(300).is_ok() && session.push(301).is_ok() && session.push(BOMB).is_err());
    let limits = SchedulerLimits {
        kv_pages: 8,
        context_tokens: 64,
        tokens_per_step: 64,
        running_max: 1,
        waiting_max: 1,
    };
    let mut scheduler = Scheduler::new(liar.model.clone(), liar.executor.clone(), limits).unwrap();
    let ordered = order(&bomb);
    scheduler
        .submit(SequenceRequest {
            prompt: vec![300, 301, BOMB, 302],
            output: Vec::new(),
            sampling: ordered.sampling.clone(),
            seed: ordered.seed_bytes(),
            max_output_tokens: 4,
            stop: Vec::new(),
            ignore_end: false,
            logprobs: None,
            prompt_logprobs: None,
            embedding: None,
            grammar: None,
        })
        .unwrap();
    let events = scheduler.step();
    let failed = matches!(events[..], [Event::Failed { error: NonFinite { position: 2 }, .. }]);
    assert!(failed, "{events:?}");

    // A worker signs it off, and goes on to serve others.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (refusal, completed) = runtime.block_on(async {
        let (worker, connection) = serving(file.leak(), 2).await;
        let refusal = ask(&connection, &liar, &order(&bomb), &bomb).await.unwrap_err();
        let completed = ask(&connection, &liar, &order(&innocent), &innocent).await.unwrap();
        worker.shutdown(std::time::Duration::from_secs(1)).await;
        (refusal, completed)
    });
    assert!(matches!(refusal.receipt.failure(), Some((FailureCode::NonFinite, _))));
    recompute(&liar.model, &liar.executor, &completed.checked, &completed.answer, &mut |_, _| {}).unwrap();

    // An answer where there is none.
    let claim = liar::Computed {
        prompt: vec![300, 301, BOMB, 302],
        ..liar::compute(&liar.model, &innocent, &order(&innocent))
    };
    let answer = liar.answer(&order(&bomb), &bomb, &claim);
    assert!(check_answer(&answer, &Default::default()).is_ok());
    let judged = liar.judge(&answer);
    let refused =
        matches!(judged, Err(Discrepancy::Replay(ReplayError::NonFinite(NonFinite { position: 2 }))));
    assert!(refused, "{judged:?}");
}
