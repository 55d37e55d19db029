//! Plans: what they say of a file is what the file says, tensor by tensor, and a manifest holds their digest.

mod common;

use std::collections::BTreeSet;

use common::{bundled, tiny};
use surety_engine::gguf::Gguf;
use surety_types::plan::{LayerSlot, Pairs, Plan, Product, Slot, SpellingEntry};
use xtask::random_model::{Format, Shape};

#[test]
fn a_plan_names_every_tensor_that_is_read() {
    let models = [
        bundled(),
        tiny(Shape::TinyLlama, Format::Q4KM),
        tiny(Shape::TinyQwen2, Format::Q8_0),
        tiny(Shape::TinyQwen3, Format::BF16),
    ];
    for loaded in models {
        let plan = loaded.model.plan().expect("a file like others");
        assert_eq!(loaded.model.manifest().plan, Some(plan.digest()), "{}", loaded.name);
        assert!(plan.header().is_of(loaded.model.manifest()), "{}", loaded.name);
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).as_ref(), Ok(plan), "{}", loaded.name);
        let ends = loaded.model.tokenizer().ends_of_generation();
        assert_eq!(plan.header().end_tokens, ends);
        assert!(!ends.is_empty(), "{}", loaded.name);

        let gguf = Gguf::parse(&loaded.file).expect("loaded above");
        let mut read: BTreeSet<(u64, u64)> = BTreeSet::new();
        for index in 0..plan.header().slots() {
            let slot = Slot::from_index(index).expect("of a layer");
            let Some(entry) = plan.tensor(slot) else { continue };
            let end = entry.bytes(entry.rows - 1, 0..entry.columns).end;
            let tensor = gguf
                .tensors()
                .find(|tensor| tensor.range == (entry.offset as usize..end as usize))
                .unwrap_or_else(|| panic!("{}: {slot:?} is no tensor", loaded.name));
            assert_eq!(tensor.kind.name(), entry.format.name());
            let rows = tensor.dims.get(1).copied().unwrap_or(1);
            assert_eq!((tensor.dims[0], rows), (entry.columns.into(), entry.rows.into()));
            read.insert((entry.offset, end));
        }
        // Only the factors of the rotary table are read elsewhere: they are in the table's digest.
        let others = gguf.tensors().filter(|tensor| tensor.name != "rope_freqs.weight").count();
        assert_eq!(read.len(), others, "{}", loaded.name);
    }
}

#[test]
fn plans_differ_as_their_families_do() {
    let plan = |shape| tiny(shape, Format::Q8_0).model.plan().cloned().expect("a file like others");
    let [llama, qwen2, qwen3] = [Shape::TinyLlama, Shape::TinyQwen2, Shape::TinyQwen3].map(plan);
    assert_eq!(
        [&llama, &qwen2, &qwen3].map(|plan| plan.header().pairs),
        [Pairs::Interleaved, Pairs::Halves, Pairs::Halves]
    );
    assert_eq!([&llama, &qwen2, &qwen3].map(|plan| plan.header().q_norm), [false, false, true]);
    let bias = Slot::Layer(0, LayerSlot::Bias(Product::Query));
    assert_eq!([&llama, &qwen2, &qwen3].map(|plan| plan.tensor(bias).is_some()), [false, true, false]);
    let norm = Slot::Layer(1, LayerSlot::KeyNorm);
    assert_eq!([&llama, &qwen2, &qwen3].map(|plan| plan.tensor(norm).is_some()), [false, false, true]);
}

#[test]
fn a_plan_says_what_ids_spell() {
    let loaded = bundled();
    let (tokenizer, plan) = (loaded.model.tokenizer(), loaded.model.plan().expect("a file like others"));
    let (entry, spelling) = (plan.header().spelling, tokenizer.spelling().expect("short pieces"));
    assert!(entry.prompts, "its prompts are judged");
    let (first, last) = tokenizer.bounds();
    let (bos, eos) = (tokenizer.bos(), tokenizer.eos());
    assert_eq!(entry, SpellingEntry { prompts: true, first, last, bos, eos, ..SpellingEntry::of(&spelling) });
    for id in 0..plan.header().vocabulary {
        let piece = spelling.piece(id).expect("an id");
        assert_eq!(spelling.bytes(piece), tokenizer.token_bytes(id));
        assert_eq!(piece.silent, tokenizer.is_control(id));
    }
}
