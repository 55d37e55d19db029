//! A model, loaded: its numbers, its weights where the kernels read them, its words.
//!
//! In:     the bytes of a GGUF file and of its packed image, both usually memory-mapped by the caller.
//! Out:    a `Model` to compute with, and the manifest that names it.
//! Touches: nothing.
//! Holds:  every tensor has the type, shape and finite values the forward pass relies on.
//! Absent: files, caches and downloads (the worker's).

use std::collections::BTreeMap;
use std::sync::Arc;

use surety_kernels::{
    Embedding, Executor, Format, Forms, KvCache, KvShape, Matrix, OutOfMemory, PackError, Region,
    RotaryError, RotaryTable,
};
use surety_types::digest::domain;
use surety_types::manifest::MAX_NAME_BYTES;
use surety_types::receipt::ARITHMETIC_VERSION;
use surety_types::{
    Digest, Embedding as Wanted, FileDigest, FormatSummary, Manifest, ModelId, Prompt, Request, Vectors,
};

use crate::architecture::{Architecture, ArchitectureError, Family};
use crate::chat_template::{ChatTemplate, RenderOptions, TemplateError};
use crate::embedding::{self, Collecting, EmbeddingError};
use crate::gguf::{Gguf, GgufError, TensorType};
use crate::image::{self, LayerMatrix, Placed, Plan};
use crate::plan;
use crate::tokenizer::{Special, Tokenizer, TokenizerError};

/// Bytes that live as long as the model: a memory map or a buffer.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not well-formed GGUF.
    #[error("not a readable GGUF file")]
    Gguf(#[from] GgufError),
    /// The metadata describes no model this engine computes.
    #[error("not a model this version can run")]
    Architecture(#[from] ArchitectureError),
    /// The tokenizer cannot be built.
    #[error("the model's tokenizer cannot be used")]
    Tokenizer(#[from] TokenizerError),
    /// The chat template cannot be compiled.
    #[error("the model's chat template cannot be used")]
    Template(#[source] TemplateError),
    /// A tensor is missing.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {tensor} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What the metadata calls for, in GGUF's order.
        expected: Vec<u64>,
        /// What the file says.
        found: Vec<u64>,
    },
    /// A tensor has a type that is not supported in its place.
    #[error(
        "tensor {tensor} has type {found}; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K (norms and biases: F32)"
    )]
    Type {
        /// Its name.
        tensor: String,
        /// The type found.
        found: String,
    },
    /// A matrix's rows are no whole number of quantisation blocks.
    #[error("tensor {tensor} has {columns} columns, not a multiple of {}'s {}", .format.name(), .format.product_elements())]
    Columns {
        /// Its name.
        tensor: String,
        /// Its type.
        format: Format,
        /// Its columns.
        columns: usize,
    },
    /// The file holds a tensor that would change the answer and that this architecture does not use.
    #[error("tensor {tensor} is not used by {architecture} models: the file is of another kind than it says")]
    UnusedTensor {
        /// Its name.
        tensor: String,
        /// The family the file claims.
        architecture: &'static str,
    },
    /// A weight is not a finite number.
    #[error("tensor {tensor} cannot be packed, counting rows from {first_row}")]
    Weights {
        /// The tensor.
        tensor: String,
        /// The row that `source` counts from.
        first_row: usize,
        /// What is wrong.
        source: PackError,
    },
    /// A norm or bias holds a value that is not a finite number.
    #[error("tensor {tensor} holds a value that is not a finite number")]
    NonFinite {
        /// The tensor.
        tensor: String,
    },
    /// The vocabulary and the embedding disagree.
    #[error("the tokenizer has {tokens} tokens and the embedding {rows} rows")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The model does not fit this machine's address space.
    #[error("the model is too large for this machine")]
    TooLarge,
    /// The rotary tables cannot be made.
    #[error("the model's rotary parameters cannot be used")]
    Rotary(#[from] RotaryError),
    /// There is no memory for the packed image.
    #[error("cannot hold the packed image in memory")]
    OutOfMemory(#[from] OutOfMemory),
    /// The packed image is stale or damaged; building it again helps.
    #[error("the packed image cannot be used: {reason}")]
    Image {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The packed image could not be written.
    #[error("cannot write the packed image")]
    WriteImage(#[source] std::io::Error),
}

/// Why a request's prompt cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model has no chat template.
    #[error("this model has no chat template; send plain text to /v1/completions instead")]
    NoTemplate,
    /// The chat template refused the messages.
    #[error("the model's chat template refused the messages")]
    Template(#[source] TemplateError),
}

/// The floats of one layer.
pub(crate) struct LayerFloats {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// Of q, k, v (`qwen2`).
    pub(crate) biases: Option<[Vec<f32>; 3]>,
    /// Of q and k (`qwen3`).
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
}

/// A model ready to compute with.
pub struct Model {
    image: Bytes,
    architecture: Architecture,
    plan: Plan,
    /// The rows of an embedding that is not the output matrix: their format, the file, and their place in it.
    embedding: Option<(Format, Bytes, std::ops::Range<usize>)>,
    layers: Vec<LayerFloats>,
    output_norm: Vec<f32>,
    rotary: RotaryTable,
    context_tokens: u32,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    vectors: Option<Vectors>,
    dispute_plan: Option<surety_types::Plan>,
    manifest: Manifest,
    id: ModelId,
}

impl Model {
    /// Loads a model from a GGUF file and its packed image (`image::write_image`).
    ///
    /// The file is let go again unless its embedding is not the output matrix: then its rows are read from there.
    ///
    /// `source_digest` is the BLAKE3 of `source`. Sequences may have up to `context_tokens` positions, which is at
    /// most the model's own context.
    ///
    /// # Errors
    /// `LoadError::Image` if the image must be built again; anything else is wrong with the file itself.
    pub fn load(
        source: Bytes,
        source_digest: Digest,
        image: Bytes,
        context_tokens: Option<u32>,
    ) -> Result<Self, LoadError> {
        let bytes = (*source).as_ref();
        let gguf = Gguf::parse(bytes)?;
        let architecture = Architecture::from_gguf(&gguf)?;
        let plan = Plan::new(&gguf, &architecture)?;
        image::verify((*image).as_ref(), &plan, source_digest)?;

        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let rows = architecture.vocabulary as usize;
        if tokenizer.vocabulary_size() != rows {
            return Err(LoadError::Vocabulary { tokens: tokenizer.vocabulary_size(), rows });
        }
        let template = ChatTemplate::from_gguf(&gguf, &tokenizer).map_err(LoadError::Template)?;

        let floats = Floats { gguf: &gguf, bytes };
        let width = architecture.width as usize;
        let layers = (0..architecture.layers)
            .map(|layer| floats.layer(&architecture, layer))
            .collect::<Result<Vec<_>, _>>()?;
        let output_norm = floats.read("output_norm.weight", width)?;
        let half = architecture.head_dim as usize / 2;
        let context_tokens =
            context_tokens.map_or(architecture.context, |tokens| tokens.min(architecture.context));
        let factors = match gguf.tensor("rope_freqs.weight") {
            Some(_) => Some(floats.read("rope_freqs.weight", half)?),
            None => None,
        };
        let rotary = RotaryTable::new(architecture.rotary_parameters(context_tokens as usize, factors))?;
        let (embedding, format) = image::matrix(&gguf, "token_embd.weight", rows, width)?;
        let range = embedding.range.clone();
        let vectors = embedding::vectors(&gguf, architecture.family)?;
        let dispute_plan = plan::plan(&gguf, &architecture, &tokenizer);
        let manifest = Manifest {
            plan: dispute_plan.as_ref().map(surety_types::Plan::digest),
            ..manifest(
                &gguf,
                bytes.len(),
                source_digest,
                &architecture,
                &tokenizer,
                template.as_ref(),
                &rotary,
            )
        };
        let id = manifest.id();
        let tied = range == plan.output().source;
        let embedding = (!tied).then(|| (format, source.clone(), range));
        Ok(Self {
            image,
            architecture,
            plan,
            embedding,
            layers,
            output_norm,
            rotary,
            context_tokens,
            tokenizer,
            template,
            vectors,
            dispute_plan,
            manifest,
            id,
        })
    }

    /// The model's name on the wire: the digest of its manifest.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// Everything that determines the model's answers.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's plan (D-2), whose digest the manifest holds; none if what it says cannot be disputed.
    pub fn plan(&self) -> Option<&surety_types::Plan> {
        self.dispute_plan.as_ref()
    }

    /// The model's numbers.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Positions a sequence may have.
    pub fn context_tokens(&self) -> u32 {
        self.context_tokens
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's chat template, if it has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// How the model makes a vector of a prompt; none if it does not.
    pub fn vectors(&self) -> Option<Vectors> {
        self.vectors
    }

    /// Whether the model gives such a vector.
    ///
    /// # Errors
    /// `EmbeddingError` says why not, with numbers.
    pub fn check_embedding(&self, wanted: Wanted) -> Result<(), EmbeddingError> {
        self.collect(wanted).map(drop)
    }

    /// Begins a vector.
    pub(crate) fn collect(&self, wanted: Wanted) -> Result<Collecting, EmbeddingError> {
        let vectors = self.vectors.ok_or(EmbeddingError::NoVector)?;
        embedding::collect(vectors, wanted, self.architecture.width)
    }

    /// Size in bytes of one page of KV cache.
    pub fn kv_page_bytes(&self) -> usize {
        KvCache::page_bytes(self.kv_shape())
    }

    /// Renders and tokenises a request's prompt.
    ///
    /// # Errors
    /// `PromptError` says what the caller can change.
    pub fn prompt_tokens(&self, request: &Request) -> Result<Vec<u32>, PromptError> {
        match &request.prompt {
            Prompt::Tokens(ids) => Ok(ids.clone()),
            Prompt::Text(text) => Ok(self.tokenizer.encode(text, Special::PLAIN_WITH_BOUNDS)),
            Prompt::Chat { messages, tools } => {
                let template = self.template.as_ref().ok_or(PromptError::NoTemplate)?;
                let options = RenderOptions { add_generation_prompt: true, date: request.date };
                let text = template.render(messages, tools, &options).map_err(PromptError::Template)?;
                Ok(self.tokenizer.encode(&text, Special::TEMPLATE))
            }
        }
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        KvShape {
            layers: self.architecture.layers as usize,
            kv_heads: self.architecture.kv_heads as usize,
            head_dim: self.architecture.head_dim as usize,
        }
    }

    /// Which forms of activations the model's matrices need.
    pub(crate) fn activation_forms(&self) -> Forms {
        Forms::of(self.plan.formats())
    }

    /// The embedding, which is the output matrix where a model ties the two.
    pub(crate) fn embedding(&self) -> Embedding<'_> {
        match &self.embedding {
            None => Embedding::Packed(self.output()),
            Some((format, source, range)) => Embedding::Rows {
                format: *format,
                columns: self.architecture.width as usize,
                bytes: &(**source).as_ref()[range.clone()],
            },
        }
    }

    pub(crate) fn layers(&self) -> &[LayerFloats] {
        &self.layers
    }

    pub(crate) fn matrix(&self, layer: usize, which: LayerMatrix) -> Matrix<'_> {
        self.placed(self.plan.layer(layer, which))
    }

    pub(crate) fn output(&self) -> Matrix<'_> {
        self.placed(self.plan.output())
    }

    pub(crate) fn output_norm(&self) -> &[f32] {
        &self.output_norm
    }

    /// The rotary table of the model's whole context, as its digest in the manifest has it.
    pub fn rotary_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.rotary.digest(|row| bytes.extend_from_slice(row));
        bytes
    }

    pub(crate) fn rotary(&self) -> &RotaryTable {
        &self.rotary
    }

    fn placed(&self, placed: &Placed) -> Matrix<'_> {
        let packed = &(*self.image).as_ref()[placed.image.clone()];
        Matrix::new(placed.format, placed.rows, placed.columns, packed)
    }
}

/// Packs a model in memory, for callers without a cache on disk.
///
/// # Errors
/// As `image::write_image`.
pub fn pack_in_memory(source: &[u8], source_digest: Digest, executor: &Executor) -> Result<Bytes, LoadError> {
    let bytes = usize::try_from(image::image_bytes(source)?).map_err(|_| LoadError::TooLarge)?;
    let mut image = Region::zeroed(bytes)?;
    image::write_image(source, source_digest, executor, &mut &mut image[..], &mut |_, _| {})?;
    Ok(Arc::new(InMemory(image)))
}

/// An image that lives in memory.
struct InMemory(Region);

impl AsRef<[u8]> for InMemory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads norms and biases.
struct Floats<'a> {
    gguf: &'a Gguf,
    bytes: &'a [u8],
}

impl Floats<'_> {
    fn layer(&self, architecture: &Architecture, layer: u32) -> Result<LayerFloats, LoadError> {
        let read = |stem: &str, elements| self.read(&format!("blk.{layer}.{stem}"), elements);
        let width = architecture.width as usize;
        let head_dim = architecture.head_dim as usize;
        let (query_width, kv_width) = (architecture.query_width(), architecture.kv_width());
        let biases = match architecture.family {
            Family::Qwen2 => Some([
                read("attn_q.bias", query_width)?,
                read("attn_k.bias", kv_width)?,
                read("attn_v.bias", kv_width)?,
            ]),
            Family::Llama | Family::Qwen3 => None,
        };
        let head_norms = match architecture.family {
            Family::Qwen3 => {
                Some([read("attn_q_norm.weight", head_dim)?, read("attn_k_norm.weight", head_dim)?])
            }
            Family::Llama | Family::Qwen2 => None,
        };
        Ok(LayerFloats {
            attention_norm: read("attn_norm.weight", width)?,
            feed_forward_norm: read("ffn_norm.weight", width)?,
            biases,
            head_norms,
        })
    }

    fn read(&self, tensor: &str, elements: usize) -> Result<Vec<f32>, LoadError> {
        let tensor_name = || tensor.to_owned();
        let info =
            self.gguf.tensor(tensor).ok_or_else(|| LoadError::MissingTensor { tensor: tensor_name() })?;
        if info.dims != [elements as u64] {
            return Err(LoadError::Shape {
                tensor: tensor_name(),
                expected: vec![elements as u64],
                found: info.dims.clone(),
            });
        }
        if info.kind != TensorType::F32 {
            return Err(LoadError::Type { tensor: tensor_name(), found: info.kind.to_string() });
        }
        let values: Vec<f32> = self.bytes[info.range.clone()]
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four")))
            .collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(LoadError::NonFinite { tensor: tensor_name() })
        }
    }
}

fn manifest(
    gguf: &Gguf,
    bytes: usize,
    source_digest: Digest,
    architecture: &Architecture,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    rotary: &RotaryTable,
) -> Manifest {
    let mut tokenizer_hasher = Digest::hasher(domain::TOKENIZER);
    tokenizer.describe(&mut |bytes| {
        tokenizer_hasher.update(bytes);
    });
    let mut rotary_hasher = blake3::Hasher::new();
    rotary.digest(|bytes| {
        rotary_hasher.update(bytes);
    });
    Manifest {
        name: clipped(gguf.optional_string("general.name").ok().flatten().unwrap_or_default()),
        files: vec![FileDigest { name: "model.gguf".into(), bytes: bytes as u64, blake3: source_digest }],
        architecture: architecture.family.name().into(),
        layers: architecture.layers,
        width: architecture.width,
        heads: architecture.heads,
        kv_heads: architecture.kv_heads,
        head_dim: architecture.head_dim,
        feed_forward: architecture.feed_forward,
        vocabulary: architecture.vocabulary,
        context: architecture.context,
        formats: format_summary(gguf),
        tokenizer_digest: tokenizer_hasher.digest(),
        template_digest: template.map(|template| Digest::of(domain::TEMPLATE, template.source().as_bytes())),
        arithmetic: ARITHMETIC_VERSION,
        rotary_digest: Digest(*rotary_hasher.finalize().as_bytes()),
        plan: None,
        claims: None,
    }
}

/// A file may call itself anything; a manifest's name has a bound.
fn clipped(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

/// How many tensors are in each format.
fn format_summary(gguf: &Gguf) -> Vec<FormatSummary> {
    let mut formats: BTreeMap<String, (u32, u64)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let (tensors, bytes) = formats.entry(tensor.kind.to_string()).or_default();
        *tensors += 1;
        *bytes += tensor.range.len() as u64;
    }
    formats.into_iter().map(|(name, (tensors, bytes))| FormatSummary { name, tensors, bytes }).collect()
}
