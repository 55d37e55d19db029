//! The bundled model: a small demonstration that is part of the program.
//!
//! In:     nothing.
//! Out:    its bytes.
//! Touches: nothing.
//! Absent: any claim to usefulness. It has read Shakespeare, and nothing else.

use std::sync::LazyLock;

use surety_types::Digest;
use surety_worker::load::{ModelFile, ModelPlace};

/// What it is called.
pub const NAME: &str = "shakespeare-demo";

static BYTES: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf"));

/// The bundled model.
pub fn file() -> ModelFile {
    static DIGEST: LazyLock<Digest> = LazyLock::new(|| Digest(*blake3::hash(BYTES).as_bytes()));
    ModelFile { place: ModelPlace::Program(BYTES), blake3: *DIGEST }
}

/// Its bytes.
pub fn contents() -> &'static [u8] {
    BYTES
}

/// Its size.
pub fn bytes() -> u64 {
    BYTES.len() as u64
}
