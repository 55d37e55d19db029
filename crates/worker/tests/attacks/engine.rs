//! The liar's own engine: the forward pass from the second voice's operations, open to cheats.
//!
//! In:     a file of the bundled model's kind, tokens, a cheat.
//! Out:    state vectors, and answers in the form of honest ones.
//! Holds:  without a cheat it is the model, to the bit.

use surety_engine::sampler::{self, History};
use surety_reference::attention::attention_head;
use surety_reference::bits::f32_to_f16;
use surety_reference::gguf::{self, Gguf, Value};
use surety_reference::model::{self, Model};
use surety_reference::rotary::{Pairs, rotate};
use surety_reference::{ops, weights};
use surety_types::{Digest, FinishReason};

use crate::Case;
use crate::liar::Computed;

/// What is done otherwise than the model says. Each default is honest.
pub trait Cheat {
    /// Whether a layer is computed at all.
    fn computes(&self, _layer: usize) -> bool {
        true
    }

    /// Looks at the cache before the head of a layer attends: rows of keys and values, by position.
    fn stored(&self, _layer: usize, _head: usize, _keys: &mut [Vec<u16>], _values: &mut [Vec<u16>]) {}

    /// The first of so many positions that is attended to.
    fn sees_from(&self, _positions: usize) -> usize {
        0
    }
}

/// No cheat.
pub struct Honest;

impl Cheat for Honest {}

/// A model of `llama`'s kind, without biases.
pub struct Engine<'a> {
    file: Gguf<'a>,
    model: Model<'a>,
    layers: usize,
    eps: f32,
}

/// One sequence on its way.
pub struct Sequence<'e, 'a> {
    engine: &'e Engine<'a>,
    cheat: &'e dyn Cheat,
    position: usize,
    /// By layer and head: rows of keys and of values.
    cache: Vec<Vec<[Vec<Vec<u16>>; 2]>>,
}

impl<'a> Engine<'a> {
    pub fn of(bytes: &'a [u8]) -> Engine<'a> {
        let file = gguf::read(bytes).unwrap();
        let model = Model::open(bytes).unwrap();
        assert_eq!(model.architecture, "llama");
        let Value::Integer(layers) = file.metadata["llama.block_count"] else { panic!("a count") };
        let Value::Float(eps) = file.metadata["llama.attention.layer_norm_rms_epsilon"] else {
            panic!("a float")
        };
        Engine { file, model, layers: layers as usize, eps: eps as f32 }
    }

    pub fn sequence<'e>(&'e self, cheat: &'e dyn Cheat) -> Sequence<'e, 'a> {
        let heads = vec![[Vec::new(), Vec::new()]; self.model.kv_heads];
        Sequence { engine: self, cheat, position: 0, cache: vec![heads; self.layers] }
    }

    pub fn logits(&self, state: &[f32]) -> Vec<f32> {
        self.model.logits(state).unwrap()
    }

    /// The state digest of tokens that are taken as said.
    pub fn forced(&self, cheat: &dyn Cheat, prompt: &[u32], tokens: &[u32]) -> Digest {
        let mut sequence = self.sequence(cheat);
        let sampled = sequence.push_all(prompt);
        let mut states = vec![sampled];
        for &token in &tokens[..tokens.len() - 1] {
            states.push(sequence.push(token));
        }
        Digest(model::state_digest(&states))
    }

    /// The answer to a case's order, where `choose` may put another token in the place of the one that is sampled from the
    /// logits.
    pub fn answer(
        &self,
        cheat: &dyn Cheat,
        case: &Case,
        choose: &mut dyn FnMut(&[f32], u32) -> u32,
    ) -> Computed {
        let (sampling, seed) = (&case.order.sampling, case.order.seed_bytes());
        let tokenizer = case.liar.model.tokenizer();
        let prompt = case.honest.prompt.clone();
        let mut history = History::of_prompt(&prompt);
        let mut sequence = self.sequence(cheat);
        let mut states = vec![sequence.push_all(&prompt)];
        let (mut tokens, mut text, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let finish = loop {
            let mut logits = self.logits(states.last().unwrap());
            sampler::adjust(&mut logits, sampling, &history);
            let position = (prompt.len() + tokens.len()) as u64;
            let executor = &case.liar.executor;
            let sampled = sampler::sample(executor, &logits, sampling, &seed, position, &mut weights);
            let token = choose(&logits, sampled);
            tokens.push(token);
            history.push(token);
            if tokenizer.is_end_of_generation(token) {
                break FinishReason::Stop;
            }
            text.extend(tokenizer.text_bytes(token));
            if tokens.len() == case.order.max_output_tokens as usize {
                break FinishReason::Length;
            }
            states.push(sequence.push(token));
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        Computed { prompt, tokens, text, finish, state_digest: Digest(model::state_digest(&states)) }
    }

    fn vector(&self, name: &str) -> Vec<f32> {
        let tensor = &self.file.tensors[name];
        weights::values(tensor.format, tensor.bytes)
    }

    fn times(&self, name: &str, x: &[f32]) -> Vec<f32> {
        let tensor = &self.file.tensors[name];
        ops::matmul(tensor.format, tensor.bytes, x).unwrap()
    }
}

impl Sequence<'_, '_> {
    /// Takes tokens in; the last one's state vector.
    pub fn push_all(&mut self, tokens: &[u32]) -> Vec<f32> {
        tokens.iter().map(|&token| self.push(token)).last().expect("a token")
    }

    ///
    pub fn push(&mut self, token: u32) -> Vec<f32> {
        let Engine { file, eps, .. } = self.engine;
        let embedding = &file.tensors["token_embd.weight"];
        let mut x = ops::embedding_row(embedding.format, embedding.row(token as usize));
        for layer in (0..self.engine.layers).filter(|&layer| self.cheat.computes(layer)) {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let n = ops::rms_norm(&x, &self.engine.vector(&name("attn_norm")), *eps);
            let o = self.attention(layer, &n);
            x = ops::add(&x, &self.engine.times(&name("attn_output"), &o));
            let n = ops::rms_norm(&x, &self.engine.vector(&name("ffn_norm")), *eps);
            let gated = ops::silu_mul(
                &self.engine.times(&name("ffn_gate"), &n),
                &self.engine.times(&name("ffn_up"), &n),
            );
            x = ops::add(&x, &self.engine.times(&name("ffn_down"), &gated));
        }
        self.position += 1;
        ops::rms_norm(&x, &self.engine.vector("output_norm.weight"), *eps)
    }

    ///
    fn attention(&mut self, layer: usize, n: &[f32]) -> Vec<f32> {
        let model = &self.engine.model;
        let (cosines, sines) = model.rotary.row(self.position);
        let product = |part: &str| self.engine.times(&format!("blk.{layer}.{part}.weight"), n);
        let turn = |row: Vec<f32>| -> Vec<Vec<f32>> {
            let heads = row.chunks_exact(model.head_dim);
            heads.map(|head| rotate(head, Pairs::Neighbours, &cosines, &sines)).collect()
        };
        let half = |row: &[f32]| row.iter().map(|&value| f32_to_f16(value)).collect::<Vec<u16>>();
        let (q, k, v) = (turn(product("attn_q")), turn(product("attn_k")), product("attn_v"));
        for (head, (key, value)) in k.iter().zip(v.chunks_exact(model.head_dim)).enumerate() {
            let [keys, values] = &mut self.cache[layer][head];
            keys.push(half(key));
            values.push(half(value));
            self.cheat.stored(layer, head, keys, values);
        }
        let from = self.cheat.sees_from(self.position + 1);
        let mut out = Vec::new();
        for (index, q) in q.iter().enumerate() {
            let [keys, values] = &self.cache[layer][index / (model.heads / model.kv_heads)];
            out.extend(attention_head(q, &keys[from..], &values[from..]).unwrap());
        }
        out
    }
}
