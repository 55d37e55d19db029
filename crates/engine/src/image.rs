//! The packed image: a model's matrices rearranged into the tiles the kernels read.
//!
//! In:     a GGUF file's bytes.
//! Out:    a byte stream that can be stored and memory-mapped, and the place of each matrix in it.
//! Touches: nothing; the caller owns the file or the memory the image goes to.
//! Holds:  an image is bound to its source by the source's BLAKE3 and to itself by its own; an image that is
//!         stale, truncated or corrupt is refused, never computed with.
//! Absent: norms, biases and an embedding that is not the output matrix, which are read from the GGUF file itself.
//!
//! Layout: one page of header, the matrices at multiples of 4,096 bytes in the order of `Plan`, then the
//! BLAKE3 of everything before it.

use std::io::Write;

use surety_kernels::{Executor, Format, packed_bytes};
use surety_types::Digest;

use crate::architecture::{Architecture, Family};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::LoadError;

/// Changes whenever the layout of an image or of the kernels' tiles does.
pub const IMAGE_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"SURETYPK";
const PAGE: u64 = 4_096;
const DIGEST_BYTES: u64 = 32;

/// Rows packed at a time: bounds the memory that packing needs. A multiple of every tile's rows, so that chunks of
/// packed rows join to the packed matrix.
const CHUNK_ROWS: usize = 4_096;

/// The matrices of one layer, as indices into a `Plan`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LayerMatrix {
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
}

impl LayerMatrix {
    const ALL: [LayerMatrix; 7] = [
        LayerMatrix::Query,
        LayerMatrix::Key,
        LayerMatrix::Value,
        LayerMatrix::AttentionOutput,
        LayerMatrix::Gate,
        LayerMatrix::Up,
        LayerMatrix::Down,
    ];

    fn tensor(self, layer: u32) -> String {
        let stem = match self {
            LayerMatrix::Query => "attn_q",
            LayerMatrix::Key => "attn_k",
            LayerMatrix::Value => "attn_v",
            LayerMatrix::AttentionOutput => "attn_output",
            LayerMatrix::Gate => "ffn_gate",
            LayerMatrix::Up => "ffn_up",
            LayerMatrix::Down => "ffn_down",
        };
        format!("blk.{layer}.{stem}.weight")
    }

    /// (rows, columns): outputs and inputs.
    fn shape(self, architecture: &Architecture) -> (usize, usize) {
        let width = architecture.width as usize;
        let feed_forward = architecture.feed_forward as usize;
        match self {
            LayerMatrix::Query => (architecture.query_width(), width),
            LayerMatrix::Key | LayerMatrix::Value => (architecture.kv_width(), width),
            LayerMatrix::AttentionOutput => (width, architecture.query_width()),
            LayerMatrix::Gate | LayerMatrix::Up => (feed_forward, width),
            LayerMatrix::Down => (width, feed_forward),
        }
    }
}

/// Where one matrix lies in the source and in the image.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) tensor: String,
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Byte range in the GGUF file.
    pub(crate) source: std::ops::Range<usize>,
    /// Byte range in the image.
    pub(crate) image: std::ops::Range<usize>,
}

/// The places of all matrices of a model: seven a layer, then the output matrix.
#[derive(Debug)]
pub(crate) struct Plan {
    matrices: Vec<Placed>,
    total_bytes: u64,
}

impl Plan {
    pub(crate) fn new(gguf: &Gguf, architecture: &Architecture) -> Result<Self, LoadError> {
        let mut plan = Plan { matrices: Vec::new(), total_bytes: PAGE };
        for layer in 0..architecture.layers {
            for matrix in LayerMatrix::ALL {
                plan.place(gguf, matrix.tensor(layer), matrix.shape(architecture))?;
            }
        }
        let tied = gguf.tensor("output.weight").is_none();
        let output = if tied { "token_embd.weight" } else { "output.weight" };
        plan.place(gguf, output.to_owned(), (architecture.vocabulary as usize, architecture.width as usize))?;
        plan.total_bytes += DIGEST_BYTES;
        refuse_unused(gguf, architecture)?;
        Ok(plan)
    }

    pub(crate) fn layer(&self, layer: usize, matrix: LayerMatrix) -> &Placed {
        &self.matrices[layer * LayerMatrix::ALL.len() + matrix as usize]
    }

    pub(crate) fn output(&self) -> &Placed {
        self.matrices.last().expect("a plan always holds the output matrix")
    }

    pub(crate) fn formats(&self) -> impl Iterator<Item = Format> + '_ {
        self.matrices.iter().map(|placed| placed.format)
    }

    fn place(&mut self, gguf: &Gguf, tensor: String, shape: (usize, usize)) -> Result<(), LoadError> {
        let (rows, columns) = shape;
        let (info, format) = matrix(gguf, &tensor, rows, columns)?;
        let bytes = packed_bytes(format, rows, columns);
        let start = self.total_bytes;
        let end = start.checked_add(bytes as u64).and_then(|end| end.checked_next_multiple_of(PAGE));
        self.total_bytes = end.ok_or(LoadError::TooLarge)?;
        let start = usize::try_from(start).map_err(|_| LoadError::TooLarge)?;
        let source = info.range.clone();
        self.matrices.push(Placed { tensor, format, rows, columns, source, image: start..start + bytes });
        Ok(())
    }

    fn header(&self, source_digest: Digest) -> Vec<u8> {
        let mut header = Vec::with_capacity(PAGE as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&IMAGE_VERSION.to_le_bytes());
        header.extend_from_slice(&self.total_bytes.to_le_bytes());
        header.extend_from_slice(source_digest.as_bytes());
        header.resize(PAGE as usize, 0);
        header
    }
}

/// Finds a matrix and checks its type and shape ([columns, rows] in GGUF's order).
pub(crate) fn matrix<'a>(
    gguf: &'a Gguf,
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<(&'a TensorInfo, Format), LoadError> {
    let info = gguf.tensor(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.to_owned() })?;
    let expected = [columns as u64, rows as u64];
    if info.dims != expected {
        return Err(LoadError::Shape {
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: info.dims.clone(),
        });
    }
    let format = Format::from_ggml(info.kind.id())
        .ok_or_else(|| LoadError::Type { tensor: name.to_owned(), found: info.kind.to_string() })?;
    if !columns.is_multiple_of(format.product_elements()) {
        return Err(LoadError::Columns { tensor: name.to_owned(), format, columns });
    }
    Ok((info, format))
}

/// Refuses tensors that would change the answer but that this forward pass does not use.
fn refuse_unused(gguf: &Gguf, architecture: &Architecture) -> Result<(), LoadError> {
    let layer_tensors: &[&str] = match architecture.family {
        Family::Llama => &[],
        Family::Qwen2 => &["attn_q.bias", "attn_k.bias", "attn_v.bias"],
        Family::Qwen3 => &["attn_q_norm.weight", "attn_k_norm.weight"],
    };
    for tensor in gguf.tensors() {
        let name = tensor.name.as_str();
        let used = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, rest)) => {
                let known_layer = layer.parse::<u32>().is_ok_and(|layer| layer < architecture.layers);
                let matrix = LayerMatrix::ALL
                    .iter()
                    .any(|matrix| matrix.tensor(0).strip_prefix("blk.0.").is_some_and(|stem| stem == rest));
                let norm = matches!(rest, "attn_norm.weight" | "ffn_norm.weight");
                known_layer && (matrix || norm || layer_tensors.contains(&rest))
            }
            None => {
                matches!(
                    name,
                    "token_embd.weight" | "output_norm.weight" | "output.weight" | "rope_freqs.weight"
                )
            }
        };
        if !used {
            return Err(LoadError::UnusedTensor {
                tensor: name.to_owned(),
                architecture: architecture.family.name(),
            });
        }
    }
    Ok(())
}

/// The exact size in bytes of a model's image.
///
/// # Errors
/// `LoadError` if the file is not a model this engine computes.
pub fn image_bytes(source: &[u8]) -> Result<u64, LoadError> {
    let gguf = Gguf::parse(source)?;
    let architecture = Architecture::from_gguf(&gguf)?;
    Ok(Plan::new(&gguf, &architecture)?.total_bytes)
}

/// Packs every matrix of a GGUF file and writes the image.
///
/// `progress` is told the bytes written so far and the bytes in all. Memory: one chunk of rows at a time.
///
/// # Errors
/// `LoadError` if the file is not a model this engine computes, holds a non-finite weight, or `out` fails.
pub fn write_image(
    source: &[u8],
    source_digest: Digest,
    executor: &Executor,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), LoadError> {
    let gguf = Gguf::parse(source)?;
    let architecture = Architecture::from_gguf(&gguf)?;
    let plan = Plan::new(&gguf, &architecture)?;
    check_embedding(&gguf, &architecture, &plan, source, executor)?;
    let mut writer = HashingWriter { out, hasher: blake3::Hasher::new(), written: 0 };
    writer.write(&plan.header(source_digest))?;
    let mut chunk = Vec::new();
    for placed in &plan.matrices {
        writer.pad_to(placed.image.start as u64)?;
        let row_bytes = placed.format.row_bytes(placed.columns);
        let rows = &source[placed.source.clone()];
        for (index, rows) in rows.chunks(CHUNK_ROWS * row_bytes).enumerate() {
            let count = rows.len() / row_bytes;
            chunk.resize(packed_bytes(placed.format, count, placed.columns), 0);
            executor.pack(placed.format, count, placed.columns, rows, &mut chunk).map_err(|source| {
                LoadError::Weights { tensor: placed.tensor.clone(), first_row: index * CHUNK_ROWS, source }
            })?;
            writer.write(&chunk)?;
            progress(writer.written, plan.total_bytes);
        }
    }
    writer.pad_to(plan.total_bytes - DIGEST_BYTES)?;
    let digest = writer.hasher.finalize();
    writer.write(digest.as_bytes())?;
    progress(plan.total_bytes, plan.total_bytes);
    Ok(())
}

/// An embedding that is not also the output matrix is not packed, but its weights are checked all the same.
fn check_embedding(
    gguf: &Gguf,
    architecture: &Architecture,
    plan: &Plan,
    source: &[u8],
    executor: &Executor,
) -> Result<(), LoadError> {
    let (rows, columns) = (architecture.vocabulary as usize, architecture.width as usize);
    let name = "token_embd.weight";
    let (info, format) = matrix(gguf, name, rows, columns)?;
    if info.range == plan.output().source {
        return Ok(());
    }
    executor
        .check_weights(format, rows, columns, &source[info.range.clone()])
        .map_err(|source| LoadError::Weights { tensor: name.to_owned(), first_row: 0, source })
}

/// Checks that an image is whole and belongs to this source and this version.
pub(crate) fn verify(image: &[u8], plan: &Plan, source_digest: Digest) -> Result<(), LoadError> {
    let refuse = |reason| Err(LoadError::Image { reason });
    if image.len() as u64 != plan.total_bytes {
        return refuse("its length does not fit this model");
    }
    if image[..PAGE as usize] != plan.header(source_digest)[..] {
        return refuse("it belongs to another file or another version");
    }
    let (body, digest) = image.split_at(image.len() - DIGEST_BYTES as usize);
    if blake3::hash(body).as_bytes() != digest {
        return refuse("its digest does not match its bytes");
    }
    Ok(())
}

/// Writes and hashes at once.
struct HashingWriter<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    written: u64,
}

impl HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.out.write_all(bytes).map_err(LoadError::WriteImage)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, position: u64) -> Result<(), LoadError> {
        assert!(position >= self.written, "matrices are placed in increasing order");
        let padding = vec![0; (position - self.written) as usize];
        self.write(&padding)
    }
}
