//! Tiny models with random weights, their plans, and answers as `reference` computes them.

use std::collections::BTreeMap;

use surety_grammar::Grammar;
use surety_proof::dispute::plan::{
    LayerSlot, Pairs, Plan, PlanHeader, Product, Slot, SpellingEntry, TensorEntry, TensorFormat,
};
use surety_reference::model::{Model, state_digest};
use surety_reference::sample::{Parameters, adjust, sample};
use surety_types::{Sampling, Spelling};

pub use crate::rng::Rng;

/// The sizes of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    pub architecture: &'static str,
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub feed_forward: u32,
    pub vocabulary: u32,
    pub context: u32,
    pub biases: bool,
    pub head_norms: bool,
    pub tied: bool,
    /// Taken in turn by the matrices that they fit.
    pub formats: &'static [TensorFormat],
}

/// A model's file, and what a dispute knows of it.
pub struct TinyModel {
    pub file: Vec<u8>,
    pub plan: Plan,
    pub spelling: Spelling,
    pub rotary: Vec<u8>,
}

impl TinyModel {
    /// As if its ids did not spell its prompts.
    pub fn unjudged(&mut self) {
        let mut header = self.plan.header().clone();
        header.spelling.prompts = false;
        let plan = self.plan.clone();
        self.plan = Plan::new(header, |slot| plan.tensor(slot).copied()).expect("a plan");
    }
}

fn gguf_number(format: TensorFormat) -> u32 {
    match format {
        TensorFormat::F32 => 0,
        TensorFormat::F16 => 1,
        TensorFormat::Q4_0 => 2,
        TensorFormat::Q8_0 => 8,
        TensorFormat::Q4_K => 12,
        TensorFormat::Q6_K => 14,
        TensorFormat::BF16 => 30,
    }
}

/// Random blocks whose values are about `size` great.
fn blocks(rng: &mut Rng, format: TensorFormat, elements: u32, size: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let half = |x: f32| surety_kernels::half::narrow(x).to_le_bytes();
    let random = |rng: &mut Rng, bytes: &mut Vec<u8>, count: usize| {
        bytes.extend((0..count).map(|_| rng.next() as u8));
    };
    for _ in 0..elements / format.block_elements() {
        match format {
            TensorFormat::F32 => bytes.extend((rng.even() * size * 1.7).to_le_bytes()),
            TensorFormat::F16 => bytes.extend(half(rng.even() * size * 1.7)),
            TensorFormat::BF16 => bytes.extend(&(rng.even() * size * 1.7).to_le_bytes()[2..]),
            TensorFormat::Q8_0 => {
                bytes.extend(half(size / 74.0));
                random(rng, &mut bytes, 32);
            }
            TensorFormat::Q4_0 => {
                bytes.extend(half(size / 4.6));
                random(rng, &mut bytes, 16);
            }
            TensorFormat::Q4_K => {
                bytes.extend(half(size / 250.0));
                bytes.extend(half(size / 33.0));
                random(rng, &mut bytes, 140);
            }
            TensorFormat::Q6_K => {
                random(rng, &mut bytes, 208);
                bytes.extend(half(size / 1300.0));
            }
        }
    }
    bytes
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

impl Shape {
    fn tensor_name(slot: Slot) -> String {
        let product = |product| match product {
            Product::Query => "attn_q",
            Product::Key => "attn_k",
            Product::Value => "attn_v",
            Product::AttentionOutput => "attn_output",
            Product::Gate => "ffn_gate",
            Product::Up => "ffn_up",
            Product::Down => "ffn_down",
        };
        match slot {
            Slot::Embedding => "token_embd.weight".into(),
            Slot::OutputNorm => "output_norm.weight".into(),
            Slot::Output => "output.weight".into(),
            Slot::OutputBias => "output.bias".into(),
            Slot::Layer(layer, slot) => format!(
                "blk.{layer}.{}",
                match slot {
                    LayerSlot::AttentionNorm => "attn_norm.weight".into(),
                    LayerSlot::QueryNorm => "attn_q_norm.weight".into(),
                    LayerSlot::KeyNorm => "attn_k_norm.weight".into(),
                    LayerSlot::FeedForwardNorm => "ffn_norm.weight".into(),
                    LayerSlot::Weight(own) => format!("{}.weight", product(own)),
                    LayerSlot::Bias(own) => format!("{}.bias", product(own)),
                }
            ),
        }
    }

    fn has(&self, slot: Slot) -> bool {
        match slot {
            Slot::Output => !self.tied,
            Slot::OutputBias => self.biases && !self.tied,
            Slot::Layer(_, LayerSlot::Bias(_)) => self.biases,
            Slot::Layer(_, LayerSlot::QueryNorm | LayerSlot::KeyNorm) => self.head_norms,
            _ => true,
        }
    }

    /// Pieces of a few bytes: characters, and parts of them, whole or not; every ninth is silent, every eleventh empty.
    pub fn spelling(&self) -> Spelling {
        let rng = &mut Rng(97);
        let parts: [&[u8]; 9] =
            [b"a", b" b", b"\n", "é".as_bytes(), b"\xe2\x82", b"\xac", b"\xff", b"\xf0\x9f", b"\xa6\x99"];
        let piece = |rng: &mut Rng, id: u32| -> Vec<u8> {
            let count = if id % 11 == 5 { 0 } else { 1 + rng.below(3) };
            (0..count).flat_map(|_| parts[rng.below(9) as usize].to_vec()).collect()
        };
        let pieces: Vec<Vec<u8>> = (0..self.vocabulary).map(|id| piece(rng, id)).collect();
        Spelling::new(pieces.iter().zip(0..).map(|(piece, id)| (piece.as_slice(), id % 9 == 4)))
            .expect("short")
    }

    /// What texts begin with.
    pub fn first(&self) -> u32 {
        let spelling = self.spelling();
        let whole = |id: &u32| {
            spelling
                .piece(*id)
                .is_some_and(|piece| piece.bytes > 0 && std::str::from_utf8(spelling.bytes(piece)).is_ok())
        };
        (2..self.vocabulary).find(whole).expect("a piece of whole characters")
    }

    pub fn header(&self) -> PlanHeader {
        PlanHeader {
            pairs: if self.architecture == "llama" { Pairs::Interleaved } else { Pairs::Halves },
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            feed_forward: self.feed_forward,
            vocabulary: self.vocabulary,
            context: self.context,
            eps: 1e-5,
            q_norm: self.head_norms,
            k_norm: self.head_norms,
            end_tokens: vec![1, 7],
            spelling: SpellingEntry {
                prompts: true,
                first: Some(self.first()),
                bos: Some(self.first()),
                ..SpellingEntry::of(&self.spelling())
            },
        }
    }

    pub fn model(&self, seed: u64) -> TinyModel {
        let header = self.header();
        let rng = &mut Rng(seed);
        let slots: Vec<Slot> =
            (0..header.slots()).filter_map(Slot::from_index).filter(|slot| self.has(*slot)).collect();
        let mut data: Vec<u8> = Vec::new();
        let mut entries = BTreeMap::new();
        for (index, slot) in slots.iter().enumerate() {
            let (rows, columns) = slot.shape(&header);
            let fits = |format: &&TensorFormat| columns.is_multiple_of(format.block_elements());
            let turn = index + (seed % 7) as usize;
            let format = match slot.is_matrix() {
                true => *self.formats.iter().cycle().skip(turn).find(fits).expect("a format that fits"),
                false => TensorFormat::F32,
            };
            let offset = data.len() as u64;
            match slot {
                Slot::OutputBias | Slot::Layer(_, LayerSlot::Bias(_)) => {
                    data.extend((0..columns).flat_map(|_| (rng.even() * 0.3).to_le_bytes()));
                }
                slot if !slot.is_matrix() => {
                    data.extend((0..columns).flat_map(|_| (1.0 + 0.3 * rng.even()).to_le_bytes()));
                }
                slot => {
                    let gain = if matches!(slot, Slot::Output | Slot::Embedding) { 2.0 } else { 1.0 };
                    data.extend(blocks(rng, format, rows * columns, gain / (columns as f32).sqrt()));
                }
            }
            entries.insert(slot.index(), TensorEntry { format, columns, rows, offset });
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let mut file = self.gguf_head(&slots, &entries);
        let start = file.len() as u64;
        file.extend(data);
        entries.values_mut().for_each(|entry| entry.offset += start);
        if self.tied {
            entries.insert(Slot::Output.index(), entries[&Slot::Embedding.index()]);
        }
        let plan = Plan::new(header, |slot| entries.get(&slot.index()).copied()).expect("a plan");
        let rotary = {
            let model = Model::open(&file).expect("a model");
            let rows = (0..self.context as usize).map(|position| model.rotary.row(position));
            rows.flat_map(|(cosines, sines)| [cosines, sines].concat()).flat_map(f32::to_le_bytes).collect()
        };
        TinyModel { file, plan, spelling: self.spelling(), rotary }
    }

    fn gguf_head(&self, slots: &[Slot], entries: &BTreeMap<usize, TensorEntry>) -> Vec<u8> {
        let name = self.architecture;
        let mut values = Vec::new();
        let mut add = |key: &str, kind: u32, bytes: &[u8]| {
            values.push([&text(key.as_bytes()), kind.to_le_bytes().as_slice(), bytes].concat());
        };
        add("general.architecture", 8, &text(name.as_bytes()));
        for (key, value) in [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.width),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ] {
            add(&format!("{name}.{key}"), 4, &value.to_le_bytes());
        }
        add(&format!("{name}.attention.layer_norm_rms_epsilon"), 6, &1e-5f32.to_le_bytes());
        add(&format!("{name}.rope.freq_base"), 6, &500f32.to_le_bytes());
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((slots.len() as u64).to_le_bytes());
        file.extend((values.len() as u64).to_le_bytes());
        file.extend(values.concat());
        for slot in slots {
            let entry = entries[&slot.index()];
            file.extend(text(Shape::tensor_name(*slot).as_bytes()));
            file.extend(2u32.to_le_bytes());
            file.extend(u64::from(entry.columns).to_le_bytes());
            file.extend(u64::from(entry.rows).to_le_bytes());
            file.extend(gguf_number(entry.format).to_le_bytes());
            file.extend(entry.offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file
    }
}

/// An answer by the second voice: its ids and its state digest.
pub fn answer(
    file: &[u8],
    given: &[u32],
    resumed: usize,
    outputs: usize,
    sampling: &Sampling,
    seed: &[u8; 32],
    mask: Option<&(Grammar, &Spelling)>,
) -> (Vec<u32>, [u8; 32]) {
    let model = Model::open(file).expect("a model");
    let known = |id: u32| (id as usize) < model.vocabulary;
    let parameters = Parameters {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: sampling.logit_bias.iter().copied().filter(|(id, _)| known(*id)).collect(),
    };
    let mut session = model.session();
    let mut state = Vec::new();
    for id in given {
        state = session.push(*id).expect("finite");
    }
    let (prompt, begun) = given.split_at(given.len() - resumed);
    let (mut said, mut states, mut output) = (begun.to_vec(), Vec::new(), Vec::new());
    for s in 0..outputs {
        let logits = model.logits(&state).expect("finite");
        states.push(state.clone());
        let adjusted = adjust(&logits, prompt, &said, &parameters).expect("finite");
        let may = mask.map(|(grammar, spelling)| may_come(grammar, spelling, &said, model.vocabulary));
        let id =
            sample(&adjusted, may.as_deref(), &parameters, seed, (given.len() + s) as u64).expect("finite");
        said.push(id);
        output.push(id);
        if s + 1 < outputs {
            state = session.push(id).expect("finite");
        }
    }
    (output, state_digest(&states))
}

/// G-7 by the plainest reading: a token may come if all its bytes may, one after another.
fn may_come(grammar: &Grammar, spelling: &Spelling, said: &[u32], vocabulary: usize) -> Vec<bool> {
    let ends = |id: u32| [1, 7].contains(&id);
    let piece = |id: u32| match spelling.piece(id) {
        Some(piece) if !piece.silent => spelling.bytes(piece),
        _ => &[],
    };
    let state = said.iter().filter(|id| !ends(**id)).fold(grammar.start(), |state, id| {
        piece(*id).iter().fold(state, |state, byte| grammar.advance(&state, *byte))
    });
    let may = |id: u32| match piece(id) {
        _ if ends(id) => state.is_dead() || grammar.is_complete(&state),
        bytes => !bytes.is_empty() && !grammar.advance_all(&state, bytes).is_dead(),
    };
    (0..vocabulary as u32).map(may).collect()
}
