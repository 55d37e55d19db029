//! The manifest: what a model is made of. Its digest is the model's identity.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    codec::{Canonical, Invalid, at_most},
    digest::{Digest, ModelId, domain},
    receipt::NO_ARITHMETIC,
};

/// Files of one model.
pub const MAX_FILES: usize = 256;
/// Distinct tensor formats of one model.
pub const MAX_FORMATS: usize = 64;
/// Bytes of a name.
pub const MAX_NAME_BYTES: usize = 256;

/// What the manifest of a model that an upstream serves calls its architecture.
const UPSTREAM: &str = "upstream";

/// What a model is made of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Manifest {
    /// As the file calls itself.
    #[n(0)]
    pub name: String,
    /// In the order they are read.
    #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_FILES as u64 }, _, _>")]
    pub files: Vec<FileDigest>,
    /// `llama`, `qwen2`, `qwen3`.
    #[n(2)]
    pub architecture: String,
    /// Transformer blocks.
    #[n(3)]
    pub layers: u32,
    /// Elements of a residual row.
    #[n(4)]
    pub width: u32,
    /// Query heads.
    #[n(5)]
    pub heads: u32,
    /// Key/value heads.
    #[n(6)]
    pub kv_heads: u32,
    /// Elements of a head.
    #[n(7)]
    pub head_dim: u32,
    /// Elements of the gated unit.
    #[n(8)]
    pub feed_forward: u32,
    /// Tokens known.
    #[n(9)]
    pub vocabulary: u32,
    /// Positions.
    #[n(10)]
    pub context: u32,
    /// By name, increasing.
    #[cbor(n(11), decode_with = "crate::codec::list::<{ MAX_FORMATS as u64 }, _, _>")]
    pub formats: Vec<FormatSummary>,
    /// Digest of the tokenizer.
    #[n(12)]
    pub tokenizer_digest: Digest,
    /// Digest of the chat template, if it has one.
    #[n(13)]
    pub template_digest: Option<Digest>,
    /// The version of the arithmetic, or [`NO_ARITHMETIC`].
    #[n(14)]
    pub arithmetic: u32,
    ///
    #[n(15)]
    pub rotary_digest: Digest,
    /// Digest of the plan (D-2); without one nothing the model says can be disputed.
    #[n(16)]
    pub plan: Option<Digest>,
    /// Of what an upstream serves: the model that it is said to be, whose answers its own are compared with.
    #[n(17)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<ModelId>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct FileDigest {
    /// Without a folder.
    #[n(0)]
    pub name: String,
    /// Its size.
    #[n(1)]
    pub bytes: u64,
    /// Plain BLAKE3 of its bytes, so that any slice can be opened against it.
    #[n(2)]
    pub blake3: Digest,
}

/// How many tensors of a model are in one format.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct FormatSummary {
    /// `Q8_0`, `F32`, ….
    #[n(0)]
    pub name: String,
    /// How many tensors.
    #[n(1)]
    pub tensors: u32,
    /// Their size together.
    #[n(2)]
    pub bytes: u64,
}

impl Manifest {
    /// The model's identity. Panics if the manifest is out of its bounds.
    pub fn id(&self) -> ModelId {
        ModelId(Digest::of(domain::MODEL, &self.to_cbor()))
    }

    /// That of what an upstream calls `name` and serves with so many positions, perhaps as being a model of the network: nothing
    /// else is known of it.
    pub fn upstream(name: &str, context: u32, claims: Option<ModelId>) -> Manifest {
        Manifest {
            name: name.to_owned(),
            files: Vec::new(),
            architecture: UPSTREAM.to_owned(),
            layers: 0,
            width: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            feed_forward: 0,
            vocabulary: 0,
            context,
            formats: Vec::new(),
            tokenizer_digest: Digest::ZERO,
            template_digest: None,
            arithmetic: NO_ARITHMETIC,
            rotary_digest: Digest::ZERO,
            plan: None,
            claims,
        }
    }

    /// Whether answers by it are their worker's word alone, which nobody can compute again.
    pub fn is_by_word(&self) -> bool {
        self.arithmetic == NO_ARITHMETIC
    }
}

impl Canonical for Manifest {
    const NAME: &'static str = "manifest";
    const MAX_BYTES: usize = 128 << 10;

    fn check(&self) -> Result<(), Invalid> {
        at_most("name", "bytes", self.name.len(), MAX_NAME_BYTES)?;
        at_most("architecture", "bytes", self.architecture.len(), MAX_NAME_BYTES)?;
        at_most("files", "files", self.files.len(), MAX_FILES)?;
        for file in &self.files {
            at_most("files", "bytes in one name", file.name.len(), MAX_NAME_BYTES)?;
        }
        at_most("formats", "formats", self.formats.len(), MAX_FORMATS)?;
        for format in &self.formats {
            at_most("formats", "bytes in one name", format.name.len(), MAX_NAME_BYTES)?;
        }
        if !self.formats.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err(Invalid::new("formats", "must be in increasing order of name, each once"));
        }
        //
        if self.is_by_word() && *self != Manifest::upstream(&self.name, self.context, self.claims) {
            return Err(Invalid::new("arithmetic", "is none: then only name and context are known"));
        }
        if self.claims.is_some() && !self.is_by_word() {
            return Err(Invalid::new(
                "claims",
                "is of what an upstream serves: a model that is computed is what it is",
            ));
        }
        Ok(())
    }
}
