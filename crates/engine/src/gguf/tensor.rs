//! Tensors: their types, shapes and places.

use std::fmt;
use std::ops::Range;

use super::error::GgufError;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its dimensions in GGUF's order: `dims[0]` elements in a row, `dims[1]` rows, and so on.
    pub dims: Vec<u64>,
    /// The type of its elements.
    pub kind: TensorType,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// Refuses a tensor whose type this engine does not compute with.
    ///
    /// # Errors
    /// `GgufError::UnsupportedTensorType`, which lists the supported ones.
    pub fn require_supported(&self) -> Result<(), GgufError> {
        if TensorType::SUPPORTED.contains(&self.kind) {
            return Ok(());
        }
        Err(GgufError::UnsupportedTensorType { tensor: self.name.clone(), kind: self.kind })
    }
}

/// Declares every ggml type once: id, name, elements of a block, bytes of a block.
macro_rules! tensor_types {
    ($($variant:ident = $id:literal $name:literal $elements:literal $bytes:literal,)*) => {
        /// The ggml types of tensor elements.
        #[allow(non_camel_case_types, missing_docs, reason = "the names are ggml's and speak for themselves")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum TensorType { $($variant = $id,)* }

        impl TensorType {
            /// Every type, in order of id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$variant,)*];

            /// The type with this ggml id.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(TensorType::$variant),)*
                    _ => None,
                }
            }

            /// The type's name, as ggml writes it.
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$variant => $name,)* }
            }

            /// Elements of one block; a row is a whole number of blocks.
            pub fn block_elements(self) -> u64 {
                match self { $(TensorType::$variant => $elements,)* }
            }

            /// Bytes of one block.
            pub fn block_bytes(self) -> u64 {
                match self { $(TensorType::$variant => $bytes,)* }
            }
        }
    };
}

tensor_types! {
    F32 = 0 "F32" 1 4,
    F16 = 1 "F16" 1 2,
    Q4_0 = 2 "Q4_0" 32 18,
    Q4_1 = 3 "Q4_1" 32 20,
    Q5_0 = 6 "Q5_0" 32 22,
    Q5_1 = 7 "Q5_1" 32 24,
    Q8_0 = 8 "Q8_0" 32 34,
    Q8_1 = 9 "Q8_1" 32 36,
    Q2_K = 10 "Q2_K" 256 84,
    Q3_K = 11 "Q3_K" 256 110,
    Q4_K = 12 "Q4_K" 256 144,
    Q5_K = 13 "Q5_K" 256 176,
    Q6_K = 14 "Q6_K" 256 210,
    Q8_K = 15 "Q8_K" 256 292,
    IQ2_XXS = 16 "IQ2_XXS" 256 66,
    IQ2_XS = 17 "IQ2_XS" 256 74,
    IQ3_XXS = 18 "IQ3_XXS" 256 98,
    IQ1_S = 19 "IQ1_S" 256 50,
    IQ4_NL = 20 "IQ4_NL" 32 18,
    IQ3_S = 21 "IQ3_S" 256 110,
    IQ2_S = 22 "IQ2_S" 256 82,
    IQ4_XS = 23 "IQ4_XS" 256 136,
    I8 = 24 "I8" 1 1,
    I16 = 25 "I16" 1 2,
    I32 = 26 "I32" 1 4,
    I64 = 27 "I64" 1 8,
    F64 = 28 "F64" 1 8,
    IQ1_M = 29 "IQ1_M" 256 56,
    BF16 = 30 "BF16" 1 2,
    TQ1_0 = 34 "TQ1_0" 256 54,
    TQ2_0 = 35 "TQ2_0" 256 66,
    MXFP4 = 39 "MXFP4" 32 17,
    NVFP4 = 40 "NVFP4" 64 36,
    Q1_0 = 41 "Q1_0" 128 18,
    Q2_0 = 42 "Q2_0" 64 18,
}

impl TensorType {
    /// The types this engine computes with.
    pub const SUPPORTED: [TensorType; 7] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q8_0,
        TensorType::Q4_0,
        TensorType::Q4_K,
        TensorType::Q6_K,
    ];

    /// The type's ggml id.
    pub fn id(self) -> u32 {
        self as u32
    }

    pub(crate) fn supported_names() -> String {
        Self::SUPPORTED.map(TensorType::name).join(", ")
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
