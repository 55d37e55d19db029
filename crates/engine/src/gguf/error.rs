//! What can be wrong with a GGUF file, and where.

use super::tensor::TensorType;

/// The integer types a getter can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// `u32`.
    U32,
    /// `u64`.
    U64,
}

impl Width {
    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            Width::U32 => "u32",
            Width::U64 => "u64",
        }
    }
}

/// Why a file, or one of its values, is refused. Offsets are in bytes from the file's start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GgufError {
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}, not with \"GGUF\"")]
    Magic {
        /// The first bytes, at most four.
        found: Vec<u8>,
    },
    /// The file's numbers are big-endian.
    #[error("big-endian GGUF is not supported; convert the file to little-endian")]
    BigEndian,
    /// A version this parser does not read.
    #[error("GGUF version {version} is not supported; supported: 2, 3")]
    Version {
        /// The version found.
        version: u32,
    },
    /// The file ends inside something.
    #[error("truncated at byte {offset}: {what} needs {needed} more bytes, the file has {left}")]
    Truncated {
        /// Where the missing thing begins.
        offset: usize,
        /// What was being read.
        what: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes the file still has.
        left: usize,
    },
    /// Header, metadata and tensor table exceed the bound.
    #[error("{what} at byte {offset} goes beyond the {limit} bytes allowed for metadata")]
    MetadataTooLarge {
        /// Where the thing that exceeds it begins.
        offset: usize,
        /// What was being read.
        what: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// A count or length exceeds its bound.
    #[error("{what} at byte {offset} is {value}; at most {limit} is allowed")]
    TooLarge {
        /// Where the number stands.
        offset: usize,
        /// What it counts.
        what: &'static str,
        /// The number found.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    Utf8 {
        /// Where the text begins.
        offset: usize,
        /// What was being read.
        what: &'static str,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("the boolean at byte {offset} is {value}, neither 0 nor 1")]
    Boolean {
        /// Where it stands.
        offset: usize,
        /// The byte found.
        value: u8,
    },
    /// A metadata value type that does not exist.
    #[error("the value type at byte {offset} is {id}, which is no GGUF type")]
    ValueType {
        /// Where it stands.
        offset: usize,
        /// The number found.
        id: u32,
    },
    /// An empty metadata key or tensor name.
    #[error("{what} at byte {offset} is empty")]
    Empty {
        /// Where it stands.
        offset: usize,
        /// What was being read.
        what: &'static str,
    },
    /// A key that appears twice.
    #[error("the metadata key \"{key}\" appears twice, the second time at byte {offset}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one stands.
        offset: usize,
    },
    /// `general.alignment` is no power of two within bounds.
    #[error("general.alignment is {value}; it must be a power of two, at most {limit}")]
    Alignment {
        /// The number found.
        value: u32,
        /// The bound.
        limit: u32,
    },
    /// A tensor name that appears twice.
    #[error("tensor \"{tensor}\" appears twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// A tensor type that does not exist.
    #[error("tensor \"{tensor}\": type {id} at byte {offset} is no known ggml type")]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// The number found.
        id: u32,
        /// Where it stands.
        offset: usize,
    },
    /// A tensor type that exists but that this engine does not compute with.
    #[error("tensor \"{tensor}\": {kind} is not supported; supported: {}", TensorType::supported_names())]
    UnsupportedTensorType {
        /// The tensor.
        tensor: String,
        /// Its type.
        kind: TensorType,
    },
    /// A tensor's number of dimensions is outside 1 to 4.
    #[error("tensor \"{tensor}\" has {found} dimensions at byte {offset}; 1 to {limit} are allowed")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// The number found.
        found: u32,
        /// The bound.
        limit: u32,
        /// Where it stands.
        offset: usize,
    },
    /// A tensor with a dimension of zero, or more bytes than can be counted.
    #[error("tensor \"{tensor}\" has the impossible shape {dims:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The dimensions found.
        dims: Vec<u64>,
    },
    /// A row that is no whole number of blocks.
    #[error(
        "tensor \"{tensor}\": rows of {columns} elements are no whole number of {kind} blocks of {block}"
    )]
    RowBlocks {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        columns: u64,
        /// Its type.
        kind: TensorType,
        /// Elements in a block.
        block: u64,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("tensor \"{tensor}\": offset {offset} is not a multiple of the alignment {alignment}")]
    Unaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u32,
    },
    /// A tensor that reaches beyond the end of the file.
    #[error("tensor \"{tensor}\" takes {bytes} bytes from byte {offset}, beyond the file's {file_bytes}")]
    TensorRange {
        /// The tensor.
        tensor: String,
        /// Where it begins.
        offset: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The file's size in bytes.
        file_bytes: usize,
    },
    /// Two tensors that share bytes.
    #[error("tensors \"{first}\" and \"{second}\" overlap at byte {offset}")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
        /// Where the second begins.
        offset: usize,
    },
    /// A key that is needed and not there.
    #[error("the metadata key \"{key}\" ({expected}) is missing")]
    MissingKey {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
    },
    /// A key with a value of another type.
    #[error("the metadata key \"{key}\" must be {expected}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// An integer that does not fit the type asked for.
    #[error("the metadata key \"{key}\" is {value}, which does not fit {}", width.name())]
    OutOfRange {
        /// The key.
        key: String,
        /// The number found.
        value: i128,
        /// The type asked for.
        width: Width,
    },
}
