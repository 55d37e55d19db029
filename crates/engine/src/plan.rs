//! A model's plan (D-2): what its computation reads, and where in its file, for disputes.
//!
//! In:     GGUF metadata and tensors, the tokenizer.
//! Out:    the plan whose digest is in the manifest.
//! Touches: nothing.
//! Holds:  a file has one plan, whoever makes it; it names every tensor the forward pass reads.
//! Absent: what is computed from it (`proof::dispute`); where the packed matrices lie (`image`).

use surety_kernels::RotaryPairs;
use surety_types::plan::{
    LayerSlot, Pairs, Plan, PlanHeader, Product, Slot, SpellingEntry, TensorEntry, TensorFormat,
};

use crate::architecture::{Architecture, Family};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// The plan of a file that can be loaded. None if it has more end tokens than a plan holds, an id that spells too much, or is
/// larger than files may be: such a model is computed, and nothing it says can be disputed.
pub(crate) fn plan(gguf: &Gguf, architecture: &Architecture, tokenizer: &Tokenizer) -> Option<Plan> {
    let (first, last) = tokenizer.bounds();
    let spelling = SpellingEntry {
        prompts: tokenizer.spells_prompts(),
        first,
        last,
        bos: tokenizer.bos(),
        eos: tokenizer.eos(),
        ..SpellingEntry::of(&tokenizer.spelling().ok()?)
    };
    let head_norms = architecture.family == Family::Qwen3;
    let header = PlanHeader {
        pairs: match architecture.family.rotary_pairs() {
            RotaryPairs::Interleaved => Pairs::Interleaved,
            RotaryPairs::Halves => Pairs::Halves,
        },
        layers: architecture.layers,
        width: architecture.width,
        heads: architecture.heads,
        kv_heads: architecture.kv_heads,
        head_dim: architecture.head_dim,
        feed_forward: architecture.feed_forward,
        vocabulary: architecture.vocabulary,
        context: architecture.context,
        eps: architecture.norm_epsilon,
        q_norm: head_norms,
        k_norm: head_norms,
        end_tokens: tokenizer.ends_of_generation().to_vec(),
        spelling,
    };
    Plan::new(header, |slot| entry(gguf, slot)).ok()
}

fn entry(gguf: &Gguf, slot: Slot) -> Option<TensorEntry> {
    let tensor = match slot {
        Slot::Output => gguf.tensor("output.weight").or_else(|| gguf.tensor("token_embd.weight")),
        other => gguf.tensor(&name(other)),
    }?;
    // GGUF's order: columns, then rows; a vector is one row.
    let number = |dim: usize| tensor.dims.get(dim).map_or(Some(1), |number| u32::try_from(*number).ok());
    Some(TensorEntry {
        format: TensorFormat::from_name(tensor.kind.name())?,
        columns: number(0)?,
        rows: number(1)?,
        offset: tensor.range.start as u64,
    })
}

/// A slot's tensor, as GGUF names it.
fn name(slot: Slot) -> String {
    let (layer, slot) = match slot {
        Slot::Embedding => return "token_embd.weight".into(),
        Slot::OutputNorm => return "output_norm.weight".into(),
        Slot::Output => return "output.weight".into(),
        Slot::OutputBias => return "output.bias".into(),
        Slot::Layer(layer, slot) => (layer, slot),
    };
    let product = |product| match product {
        Product::Query => "attn_q",
        Product::Key => "attn_k",
        Product::Value => "attn_v",
        Product::AttentionOutput => "attn_output",
        Product::Gate => "ffn_gate",
        Product::Up => "ffn_up",
        Product::Down => "ffn_down",
    };
    let (stem, kind) = match slot {
        LayerSlot::AttentionNorm => ("attn_norm", "weight"),
        LayerSlot::QueryNorm => ("attn_q_norm", "weight"),
        LayerSlot::KeyNorm => ("attn_k_norm", "weight"),
        LayerSlot::FeedForwardNorm => ("ffn_norm", "weight"),
        LayerSlot::Weight(which) => (product(which), "weight"),
        LayerSlot::Bias(which) => (product(which), "bias"),
    };
    format!("blk.{layer}.{stem}.{kind}")
}
