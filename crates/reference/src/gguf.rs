//! A minimal reader of GGUF versions 2 and 3.
//!
//! In:     the bytes of a file.
//! Out:    metadata numbers, strings and tensors by name, borrowed from those bytes.
//! Touches: nothing.
//! Holds:  every length is checked against the bytes that are there; a malformed file is an error, not a panic.
//! Absent: metadata arrays (their elements are skipped) and tensor types not in A-2.

use std::collections::BTreeMap;
use std::fmt;

use crate::weights::{Format, is_finite};

/// Why a file cannot be read, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufError(pub String);

impl fmt::Display for GgufError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "unusable GGUF: {}", self.0)
    }
}

impl std::error::Error for GgufError {}

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer or boolean type.
    Integer(i128),
    /// Either float type.
    Float(f64),
    /// A string's bytes.
    Text(&'a [u8]),
    /// An array, which a forward pass does not need.
    Array,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// The format of its rows.
    pub format: Format,
    /// Elements of a row: K for a weight matrix.
    pub columns: usize,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// The rows, one after another.
    pub bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let row_bytes = self.format.row_bytes(self.columns);
        &self.bytes[row * row_bytes..][..row_bytes]
    }
}

/// A file's metadata and tensors.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value<'a>>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor<'a>>,
}

/// Reads a file. Refuses what refuses of a tensor by itself: its type and its non-finite numbers.
pub fn read(file: &[u8]) -> Result<Gguf<'_>, GgufError> {
    let mut cursor = Cursor { rest: file };
    if cursor.take(4)? != b"GGUF" {
        return fail("it does not begin with GGUF");
    }
    let version = cursor.u32()?;
    if version != 2 && version != 3 {
        return fail(format!("version {version}; versions 2 and 3 are known"));
    }
    let tensor_count = cursor.u64()?;
    let value_count = cursor.u64()?;

    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = cursor.name()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0)?;
        metadata.insert(key, value);
    }

    let mut places = Vec::new();
    for _ in 0..tensor_count {
        let name = cursor.name()?;
        let dimension_count = cursor.u32()?;
        if !(1..=4).contains(&dimension_count) {
            return fail(format!("tensor {name} has {dimension_count} dimensions"));
        }
        let columns = cursor.u64()?;
        let mut rows = 1_u64;
        for _ in 1..dimension_count {
            let dimension = cursor.u64()?;
            rows = rows
                .checked_mul(dimension)
                .ok_or_else(|| GgufError(format!("tensor {name} is too large")))?;
        }
        let kind = cursor.u32()?;
        let offset = cursor.u64()?;
        places.push((name, columns, rows, kind, offset));
    }

    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(&Value::Integer(alignment)) if (1..=1 << 20).contains(&alignment) => alignment as usize,
        Some(other) => return fail(format!("general.alignment is {other:?}")),
    };
    let data_start = (file.len() - cursor.rest.len()).next_multiple_of(alignment);
    let data = file.get(data_start..).unwrap_or(&[]);

    let mut tensors = BTreeMap::new();
    for (name, columns, rows, kind, offset) in places {
        let Some(format) = Format::from_gguf(kind) else {
            return fail(format!("tensor {name} has type {kind}, which is not in A-2"));
        };
        let tensor = slice_tensor(data, format, columns, rows, offset);
        let Some(tensor) = tensor else {
            return fail(format!("tensor {name} ({format:?}, {columns} × {rows} at {offset}) does not fit"));
        };
        if !is_finite(format, tensor.bytes) {
            return fail(format!("tensor {name} holds a non-finite scale or float (A-1.6)"));
        }
        tensors.insert(name, tensor);
    }
    Ok(Gguf { metadata, tensors })
}

/// The tensor's bytes, if its columns are whole blocks and the data holds all of it.
fn slice_tensor(data: &[u8], format: Format, columns: u64, rows: u64, offset: u64) -> Option<Tensor<'_>> {
    let (columns, rows) = (usize::try_from(columns).ok()?, usize::try_from(rows).ok()?);
    let (block_elements, block_bytes) = format.block();
    if !columns.is_multiple_of(block_elements) {
        return None;
    }
    let length = (columns / block_elements).checked_mul(block_bytes)?.checked_mul(rows)?;
    let bytes = data.get(usize::try_from(offset).ok()?..)?.get(..length)?;
    Some(Tensor { format, columns, rows, bytes })
}

fn fail<T>(reason: impl Into<String>) -> Result<T, GgufError> {
    Err(GgufError(reason.into()))
}

/// What is left of the file.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], GgufError> {
        match usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length)) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => {
                fail(format!("it ends where {length} more bytes should be ({} are left)", self.rest.len()))
            }
        }
    }

    /// An unsigned little-endian integer of so many bytes.
    fn unsigned(&mut self, length: u64) -> Result<u64, GgufError> {
        Ok(self.take(length)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(self.unsigned(4)? as u32)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.unsigned(8)
    }

    fn text(&mut self) -> Result<&'a [u8], GgufError> {
        let length = self.u64()?;
        self.take(length)
    }

    fn name(&mut self) -> Result<String, GgufError> {
        let bytes = self.text()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| GgufError(format!("{bytes:?} is not a name in UTF-8")))
    }

    /// A metadata value of a type number. Arrays may nest, to a depth.
    fn value(&mut self, kind: u32, depth: u32) -> Result<Value<'a>, GgufError> {
        Ok(match kind {
            0 | 7 => Value::Integer(self.unsigned(1)?.into()),
            1 => Value::Integer((self.unsigned(1)? as i8).into()),
            2 => Value::Integer(self.unsigned(2)?.into()),
            3 => Value::Integer((self.unsigned(2)? as i16).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer((self.u32()? as i32).into()),
            6 => Value::Float(f32::from_bits(self.u32()?).into()),
            8 => Value::Text(self.text()?),
            9 if depth < 4 => {
                let element_kind = self.u32()?;
                let count = self.u64()?;
                for _ in 0..count {
                    self.value(element_kind, depth + 1)?;
                }
                Value::Array
            }
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer((self.u64()? as i64).into()),
            12 => Value::Float(f64::from_bits(self.u64()?)),
            _ => return fail(format!("a metadata value of type {kind} at depth {depth}")),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
