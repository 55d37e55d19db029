//! GGUF: the index of a model file.
//!
//! In:     the bytes of a file, usually memory-mapped; GGUF version 2 or 3, little-endian.
//! Out:    a `Gguf`: typed metadata, and for each tensor its name, shape, type and byte range in the file.
//! Touches: nothing. The index is owned; the bytes are not kept.
//! Holds:  every count and length is checked against what the file still holds before anything is allocated;
//!         names and keys are unique; tensor ranges lie inside the file, aligned, without overlap. Memory stays
//!         within a small multiple of the metadata, and the metadata within `METADATA_BYTES_MAX`.
//! Absent: what the metadata means (`architecture`, `tokenizer`, `template`) and the weights (`image`, `model`).
//!
//! Source: the GGUF specification in the ggml repository, `docs/gguf.md`.

mod error;
mod read;
mod tensor;
mod value;

use std::collections::BTreeMap;

pub use error::{GgufError, Width};
pub use tensor::{TensorInfo, TensorType};
pub use value::{Array, Strings, Value};

/// Largest header, metadata and tensor table together, in bytes.
pub const METADATA_BYTES_MAX: usize = 256 << 20;
/// Most metadata keys of a file.
pub const KEYS_MAX: usize = 1 << 16;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest string, in bytes.
pub const STRING_BYTES_MAX: usize = 16 << 20;
/// Deepest array of arrays.
pub const ARRAY_DEPTH_MAX: u32 = 4;
/// Most tensors of a file.
pub const TENSORS_MAX: usize = 1 << 16;
/// Longest tensor name, in bytes.
pub const TENSOR_NAME_BYTES_MAX: usize = 64;
/// Most dimensions of a tensor.
pub const DIMENSIONS_MAX: usize = 4;
/// Largest `general.alignment`, in bytes.
pub const ALIGNMENT_MAX: u32 = 1 << 20;

/// The index of one GGUF file.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
}

impl Gguf {
    /// Reads the index of the file `bytes`.
    ///
    /// # Errors
    /// `GgufError` says what is wrong and at which byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        read::parse(bytes)
    }

    /// The file's format version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All metadata, by key in ascending order.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let tensor = |&index: &u32| &self.tensors[index as usize];
        let found = self.by_name.binary_search_by(|index| tensor(index).name.as_str().cmp(name));
        found.ok().map(|position| tensor(&self.by_name[position]))
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }
}

/// Typed access to the metadata. The plain form requires the key; the `optional_` form gives `None` where it is
/// missing. Both refuse a value of another type, naming the key and the two types.
impl Gguf {
    /// An integer of any width whose value fits `u32`.
    ///
    /// # Errors
    /// The key is missing, no integer, or out of range.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, Width::U32.name(), self.optional_u32(key)?)
    }

    /// An integer of any width whose value fits `u32`, if the key is there.
    ///
    /// # Errors
    /// The value is no integer, or out of range.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, Width::U32)
    }

    /// An integer of any width whose value fits `u64`.
    ///
    /// # Errors
    /// The key is missing, no integer, or out of range.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        required(key, Width::U64.name(), self.optional_u64(key)?)
    }

    /// An integer of any width whose value fits `u64`, if the key is there.
    ///
    /// # Errors
    /// The value is no integer, or out of range.
    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, Width::U64)
    }

    /// A 32-bit float.
    ///
    /// # Errors
    /// The key is missing or no `f32`.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, "f32", self.optional_f32(key)?)
    }

    /// A 32-bit float, if the key is there.
    ///
    /// # Errors
    /// The value is no `f32`.
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "f32", |value| match value {
            Value::F32(value) => Some(*value),
            _ => None,
        })
    }

    /// A boolean.
    ///
    /// # Errors
    /// The key is missing or no boolean.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        required(key, "bool", self.optional_bool(key)?)
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// The value is no boolean.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string.
    ///
    /// # Errors
    /// The key is missing or no string.
    pub fn string(&self, key: &str) -> Result<&str, GgufError> {
        required(key, "string", self.optional_string(key)?)
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// The value is no string.
    pub fn optional_string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// The key is missing or no array of strings.
    pub fn strings(&self, key: &str) -> Result<&Strings, GgufError> {
        required(key, "array of strings", self.optional_strings(key)?)
    }

    /// An array of strings, if the key is there.
    ///
    /// # Errors
    /// The value is no array of strings.
    pub fn optional_strings(&self, key: &str) -> Result<Option<&Strings>, GgufError> {
        self.typed(key, "array of strings", |value| match value {
            Value::Array(Array::String(strings)) => Some(strings),
            _ => None,
        })
    }

    /// An array of integers of any one width, widened to `i64`.
    ///
    /// # Errors
    /// The key is missing, no array of integers, or an element exceeds `i64`.
    pub fn integers(&self, key: &str) -> Result<Vec<i64>, GgufError> {
        required(key, "array of integers", self.optional_integers(key)?)
    }

    /// An array of integers of any one width, widened to `i64`, if the key is there.
    ///
    /// # Errors
    /// The value is no array of integers, or an element exceeds `i64`.
    pub fn optional_integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.typed(key, "array of integers that fit i64", |value| match value {
            Value::Array(array) => array.integers(),
            _ => None,
        })
    }

    /// An array of 32-bit floats.
    ///
    /// # Errors
    /// The key is missing or no array of `f32`.
    pub fn floats(&self, key: &str) -> Result<&[f32], GgufError> {
        required(key, "array of f32", self.optional_floats(key)?)
    }

    /// An array of 32-bit floats, if the key is there.
    ///
    /// # Errors
    /// The value is no array of `f32`.
    pub fn optional_floats(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(Array::F32(values)) => Some(values.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let wrong = || GgufError::WrongType { key: key.to_owned(), expected, found: value.type_name() };
        read(value).map(Some).ok_or_else(wrong)
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, width: Width) -> Result<Option<T>, GgufError> {
        let Some(value) = self.typed(key, width.name(), Value::integer)? else { return Ok(None) };
        let out_of_range = |_| GgufError::OutOfRange { key: key.to_owned(), value, width };
        T::try_from(value).map(Some).map_err(out_of_range)
    }
}

fn required<T>(key: &str, expected: &'static str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::MissingKey { key: key.to_owned(), expected })
}

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;
