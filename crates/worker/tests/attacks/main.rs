//! Liars against the real thing: each misdeed of a worker in a file of its own, and what it is refused for.
//!
//! A case begins with what an honest worker signed: a real one, asked over real sockets. The liar holds the worker's key. It
//! changes what was computed or said, signs that in proper form, and is judged as any payer judges: by `check_answer`, then by
//! recomputation. `docs/attacks.md` lists what each is caught by, and what is out of reach.

#[path = "../liar/mod.rs"]
mod liar;

mod engine;

mod cached_reply;
mod disclosure;
mod drafts;
mod early_stop;
mod edited_text;
mod equivocation;
mod experts;
mod kv_row;
mod model_swap;
mod one_weight;
mod overflow;
mod padding;
mod prefill;
mod prompt_cut;
mod random_tokens;
mod refusal;
mod requantised;
mod sampling;
mod seed;
mod selective;
mod shortcuts;
mod splice;
mod stale;
mod steganography;
mod system_prompt;
mod tokenisation;

use std::sync::LazyLock;

use engine::{Cheat, Engine, Honest};
use liar::{Computed, Liar, bundled_file, chat, compute, load, serving};
use surety_client::{Completed, Connection, OrderOptions, Refusal, SessionEvent};
use surety_engine::gguf::Gguf;
use surety_proof::check::{Expected, Fault, check_answer, check_state};
use surety_proof::commit::{output_digest, prompt_digest, state_commitment, text_digest};
use surety_types::{Acceptance, Answer, Canonical, FinishReason, Order, Receipt, Request, Signed};
use surety_worker::audit::{Discrepancy, Recomputed, recompute};

/// Why an answer is not believed.
#[derive(Debug)]
pub enum Refused {
    /// It does not keep to what was signed.
    Check(Fault),
    /// It is not what the model gives.
    Recomputation(Discrepancy),
}

/// One order, what a real worker signed about it, and the liar that holds its key.
pub struct Case {
    /// Who holds the keys.
    pub liar: Liar,
    /// Of the ordered model.
    pub file: Vec<u8>,
    /// As the payer signed it.
    pub order: Order,
    /// Its content.
    pub request: Request,
    /// What the model gives, as the worker said.
    pub honest: Computed,
    acceptance: Acceptance,
    receipt: Receipt,
    salt: [u8; 32],
}

/// The bundled model, asked in its own words; the answer ends by itself and is long enough to be tampered with.
pub static CASE: LazyLock<Case> = LazyLock::new(|| {
    let long = |completed: &Completed| {
        completed.receipt.finish == FinishReason::Stop && completed.answer.output_ids.len() > 16
    };
    Case::find(bundled_file().to_vec(), chat("A street in Rome.", "What news from the wars?"), |_| {}, long)
});

impl Case {
    /// The first answer of a worker that serves this file.
    pub fn of(file: Vec<u8>, request: Request, change: impl Fn(&mut Order)) -> Case {
        Case::find(file, request, change, |_| true)
    }

    /// The first that is `wanted`, of orders that differ in their seed.
    fn find(
        file: Vec<u8>,
        request: Request,
        change: impl Fn(&mut Order),
        wanted: impl Fn(&Completed) -> bool,
    ) -> Case {
        let liar = Liar::of(load(&file));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (order, completed) = runtime.block_on(async {
            // The liar's key is the worker's.
            let (worker, connection) = serving(file.clone().leak(), 2).await;
            assert_eq!(worker.models()[0].id, liar.model.id());
            let mut seeds = 0..200;
            let found = loop {
                let seed = seeds.next().expect("one answer in two hundred is as wanted");
                let mut order = liar::order(liar.model.id(), &request, &liar.payer, seed, 40);
                change(&mut order);
                let completed = ask(&connection, &liar, &order, &request).await.expect("an answer");
                if wanted(&completed) {
                    break (order, completed);
                }
            };
            worker.shutdown(std::time::Duration::from_secs(1)).await;
            found
        });
        let honest = compute(&liar.model, &request, &order);
        let Completed { answer, receipt, .. } = completed;
        assert_eq!((&honest.tokens, &honest.text), (&answer.output_ids, &answer.text));
        check_state(&receipt, &answer.salt, &honest.state_digest).expect("the worker is honest");
        let acceptance = Signed::<Acceptance>::open(&answer.acceptance.unwrap()).unwrap().value().clone();
        let (receipt, salt) = (receipt.value().clone(), answer.salt);
        Case { liar, file, order, request, honest, acceptance, receipt, salt }
    }

    /// Signs that this is the answer, with whatever else is to be changed.
    pub fn sign(&self, claim: &Computed, change: impl FnOnce(&mut Acceptance, &mut Receipt)) -> Answer {
        let mut acceptance =
            Acceptance { prompt_tokens: claim.prompt.len() as u32, ..self.acceptance.clone() };
        let mut receipt = Receipt {
            prompt_tokens: claim.prompt.len() as u32,
            output_tokens: claim.tokens.len() as u32,
            prompt_digest: prompt_digest(&claim.prompt),
            output_digest: output_digest(&claim.tokens),
            text_digest: text_digest(&claim.text),
            finish: claim.finish,
            state_commitment: state_commitment(&self.receipt.worker, &self.salt, &claim.state_digest),
            ..self.receipt.clone()
        };
        change(&mut acceptance, &mut receipt);
        Answer {
            order: Signed::sign(self.order.clone(), &self.liar.payer).bytes().to_vec(),
            request: self.request.to_cbor(),
            acceptance: Some(Signed::sign(acceptance, &self.liar.worker).bytes().to_vec()),
            receipt: Some(Signed::sign(receipt, &self.liar.worker).bytes().to_vec()),
            progress: None,
            salt: self.salt,
            output_ids: claim.tokens.clone(),
            resumed_ids: Vec::new(),
            channel: None,
            text: claim.text.clone(),
            prompt_ids: None,
            embedding: None,
        }
    }

    /// What comes of an answer.
    pub fn judge(&self, answer: &Answer) -> Result<Recomputed, Refused> {
        let expected = Expected {
            payer: Some(self.liar.payer.public()),
            worker: Some(self.liar.worker.public()),
            context_tokens: Some(self.liar.model.context_tokens()),
            cancelled: Some(false),
            arithmetic: Some(surety_types::receipt::ARITHMETIC_VERSION),
        };
        let checked = check_answer(answer, &expected).map_err(Refused::Check)?;
        recompute(&self.liar.model, &self.liar.executor, &checked, answer, &mut |_, _| {})
            .map_err(Refused::Recomputation)
    }

    /// Signs it and has it judged.
    pub fn claim(&self, claim: &Computed) -> Result<Recomputed, Refused> {
        self.judge(&self.sign(claim, |_, _| {}))
    }

    /// The claim is refused at its first token that the model does not give; returns the token's index.
    #[track_caller]
    pub fn refused_at_a_token(&self, claim: &Computed) -> usize {
        let pairs = claim.tokens.iter().zip(&self.honest.tokens);
        let index = pairs.take_while(|(a, b)| a == b).count();
        let there = (claim.tokens[index], self.honest.tokens[index]);
        match self.claim(claim) {
            Err(Refused::Recomputation(Discrepancy::Token { index: at, claimed, computed, .. })) => {
                assert_eq!((at, claimed, computed), (index, there.0, there.1));
                index
            }
            other => panic!("{other:?}"),
        }
    }

    /// The claim's tokens and text are the model's; that another computation gave them shows in the state alone.
    #[track_caller]
    pub fn refused_by_its_state(&self, claim: &Computed) {
        assert_eq!((&claim.tokens, &claim.text), (&self.honest.tokens, &self.honest.text));
        match self.claim(claim) {
            Err(Refused::Recomputation(Discrepancy::State(Fault::OtherState))) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Another computation, from another file or with shortcuts, for the order's own prompt. Whether the liar lets it write the
    /// answer, or puts its states under the tokens of an honest worker: it is refused. Returns where the tokens part.
    #[track_caller]
    pub fn refused_both_ways(&self, file: &[u8], cheat: &dyn Cheat) -> Option<usize> {
        let engine = Engine::of(file);
        let honest = &self.honest;
        let state_digest = engine.forced(cheat, &honest.prompt, &honest.tokens);
        assert_ne!(state_digest, honest.state_digest, "the cheat changes something");
        self.refused_by_its_state(&Computed { state_digest, ..honest.clone() });
        let own = engine.answer(cheat, self, &mut |_, token| token);
        if own.tokens == honest.tokens {
            return None;
        }
        // Where it ends early or late, what it has in common with the honest answer is still judged token by token.
        let common = own.tokens.iter().zip(&honest.tokens).take_while(|(a, b)| a == b).count();
        assert!(common < own.tokens.len() && common < honest.tokens.len(), "it parts before either ends");
        Some(self.refused_at_a_token(&own))
    }
}

/// Follows an order to its end.
async fn ask(
    connection: &Connection,
    liar: &Liar,
    order: &Order,
    request: &Request,
) -> Result<Completed, Box<Refusal>> {
    let order = Signed::sign(order.clone(), &liar.payer);
    let mut session =
        connection.order(order, request.clone(), Vec::new(), OrderOptions::default()).await.unwrap();
    loop {
        match session.next().await.unwrap() {
            SessionEvent::Finished(completed) => return Ok(*completed),
            SessionEvent::Refused(refusal) => return Err(refusal),
            SessionEvent::Accepted(_) | SessionEvent::Prompt { .. } | SessionEvent::Tokens { .. } => {}
        }
    }
}

/// The file, with the bytes of one tensor changed.
pub fn edited(file: &[u8], tensor: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let range = Gguf::parse(file).unwrap().tensor(tensor).expect("a tensor of the file").range.clone();
    let mut file = file.to_vec();
    change(&mut file[range]);
    file
}

/// The file without its last layers: what they would add is zero.
pub fn shallow(file: &[u8], layers: std::ops::Range<usize>) -> Vec<u8> {
    layers.fold(file.to_vec(), |file, layer| {
        let file = edited(&file, &format!("blk.{layer}.attn_output.weight"), |bytes| bytes.fill(0));
        edited(&file, &format!("blk.{layer}.ffn_down.weight"), |bytes| bytes.fill(0))
    })
}

/// What is re-signed unchanged is what the worker signed; and the liar's own engine, without a cheat, computes it too.
#[test]
fn without_a_lie_nothing_is_refused() {
    let case = &*CASE;
    let recomputed = case.claim(&case.honest).unwrap();
    assert_eq!(recomputed.output_tokens, case.honest.tokens.len());
    let engine = Engine::of(&case.file);
    let forced = engine.forced(&Honest, &case.honest.prompt, &case.honest.tokens);
    assert_eq!(forced, case.honest.state_digest);
    let own = engine.answer(&Honest, case, &mut |_, token| token);
    assert_eq!((&own.tokens, &own.text), (&case.honest.tokens, &case.honest.text));
    assert_eq!((own.finish, own.state_digest), (case.honest.finish, case.honest.state_digest));
}
