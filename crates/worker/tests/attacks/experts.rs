//! Row 18: experts dropped. Models of experts are not computed here at all, so no worker can offer one.

use surety_engine::architecture::{Architecture, ArchitectureError};
use surety_engine::gguf::Gguf;
use xtask::gguf::{Header, Value};

#[test]
fn a_model_of_experts_is_not_loaded() {
    let mut header = Header::new("llama");
    for (key, value) in [
        ("context_length", 512),
        ("embedding_length", 64),
        ("block_count", 2),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 32),
        ("expert_count", 8),
        ("expert_used_count", 2),
    ] {
        header.set(format!("llama.{key}"), Value::U32(value));
    }
    let refused = Architecture::from_gguf(&Gguf::parse(&header.encode()).unwrap());
    match refused {
        Err(ArchitectureError::Unsupported { feature, .. }) => assert_eq!(feature, "expert_count = 8"),
        other => panic!("{other:?}"),
    }
}
