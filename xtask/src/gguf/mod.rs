//! A writer of GGUF version 3 files.
//!
//! In:     metadata values of every type, the list of tensors, then their bytes in that order.
//! Out:    one GGUF file, little-endian, tensor data aligned to 32 bytes.
//! Touches: only the sink it is given; tensor data is streamed, never held.
//! Holds:  the bytes written for a tensor are exactly those its shape and type ask for.
//! Absent: reading. The engine's reader is another voice on purpose.
//!
//! Source: the GGUF specification in the ggml repository, `docs/gguf.md`.

mod quants;

pub use quants::{TensorType, dequantize_row, f16_from_f32, f32_from_f16, quantize_row};

use std::io::{self, Write};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8, UTF-8.
    String(String),
    /// Type 9: items of one type. Its items must all be of that type.
    Array(ValueType, Vec<Value>),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// The type number of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the specification's own")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Value {
    /// An array of strings.
    pub fn strings(items: impl IntoIterator<Item = impl Into<String>>) -> Value {
        Value::Array(ValueType::String, items.into_iter().map(|item| Value::String(item.into())).collect())
    }

    /// An array of 32-bit signed integers.
    pub fn i32s(items: impl IntoIterator<Item = i32>) -> Value {
        Value::Array(ValueType::I32, items.into_iter().map(Value::I32).collect())
    }

    /// The number this value's type has in the file.
    pub fn kind(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(..) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(value) => out.push(*value),
            Value::I8(value) => out.extend(value.to_le_bytes()),
            Value::U16(value) => out.extend(value.to_le_bytes()),
            Value::I16(value) => out.extend(value.to_le_bytes()),
            Value::U32(value) => out.extend(value.to_le_bytes()),
            Value::I32(value) => out.extend(value.to_le_bytes()),
            Value::F32(value) => out.extend(value.to_le_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::String(value) => encode_string(value, out),
            Value::Array(kind, items) => {
                out.extend((*kind as u32).to_le_bytes());
                out.extend((items.len() as u64).to_le_bytes());
                for item in items {
                    assert_eq!(item.kind(), *kind, "an array holds items of one type");
                    item.encode(out);
                }
            }
            Value::U64(value) => out.extend(value.to_le_bytes()),
            Value::I64(value) => out.extend(value.to_le_bytes()),
            Value::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::U32(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Value {
        Value::F32(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

fn encode_string(value: &str, out: &mut Vec<u8>) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

/// What the file says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Rows of the matrix; 1 for a vector, which is then written with one dimension.
    pub rows: usize,
    /// Elements of a row, contiguous in the file.
    pub columns: usize,
    /// How a row is encoded.
    pub kind: TensorType,
}

impl TensorSpec {
    /// A matrix of `rows` rows. Panics if `columns` is no whole number of blocks.
    pub fn matrix(name: impl Into<String>, rows: usize, columns: usize, kind: TensorType) -> TensorSpec {
        let name = name.into();
        assert!(columns.is_multiple_of(kind.block_len()), "{name}: {columns} columns in blocks of {kind:?}");
        TensorSpec { name, rows, columns, kind }
    }

    /// A vector in f32, as norms and biases are stored.
    pub fn vector(name: impl Into<String>, length: usize) -> TensorSpec {
        TensorSpec { name: name.into(), rows: 1, columns: length, kind: TensorType::F32 }
    }

    /// Encoded size.
    pub fn size(&self) -> u64 {
        self.rows as u64 * self.kind.row_size(self.columns) as u64
    }
}

/// Everything that comes before the tensor data.
#[derive(Clone, Debug)]
pub struct Header {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorSpec>,
}

impl Header {
    /// A header naming the architecture, and no tensors yet.
    pub fn new(architecture: &str) -> Header {
        let mut header = Header { metadata: Vec::new(), tensors: Vec::new() };
        header.set("general.architecture", architecture);
        header
    }

    /// Adds a metadata value. Panics if the key is already there.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        assert!(self.metadata.iter().all(|(other, _)| *other != key), "{key} is set twice");
        self.metadata.push((key, value.into()));
    }

    /// Adds a tensor; the data must follow in the order of these calls. Panics on a repeated name.
    pub fn tensor(&mut self, spec: TensorSpec) {
        assert!(self.tensors.iter().all(|other| other.name != spec.name), "{} is listed twice", spec.name);
        self.tensors.push(spec);
    }

    /// Writes the header and returns the place for the tensor data.
    pub fn begin<W: Write>(&self, mut sink: W) -> io::Result<Body<W>> {
        sink.write_all(&self.encode())?;
        let sizes = self.tensors.iter().map(TensorSpec::size).rev().collect();
        let mut body = Body { sink, sizes, written: 0 };
        body.close_full_tensors()?;
        Ok(body)
    }

    /// The bytes before the tensor data, padding included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            encode_string(key, &mut out);
            out.extend((value.kind() as u32).to_le_bytes());
            value.encode(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            encode_string(&tensor.name, &mut out);
            // GGUF lists the fastest-running dimension first.
            let dims: &[usize] =
                if tensor.rows == 1 { &[tensor.columns] } else { &[tensor.columns, tensor.rows] };
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend((*dim as u64).to_le_bytes()));
            out.extend((tensor.kind as u32).to_le_bytes());
            out.extend(u64::to_le_bytes(offset));
            offset += tensor.size().next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }
}

/// The tensor data of a file being written.
#[derive(Debug)]
pub struct Body<W> {
    sink: W,
    /// Sizes of the tensors still open, the current one last.
    sizes: Vec<u64>,
    /// Bytes of the current tensor that are already in the sink.
    written: u64,
}

impl<W: Write> Body<W> {
    /// Appends bytes to the current tensor, and moves to the next one when it is full.
    ///
    /// Panics if the bytes run past the tensor's end.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = *self.sizes.last().expect("a tensor is still open");
        assert!(self.written + bytes.len() as u64 <= size, "more bytes than the tensor has");
        self.sink.write_all(bytes)?;
        self.written += bytes.len() as u64;
        self.close_full_tensors()
    }

    /// Flushes and gives the sink back. Panics if a tensor is missing bytes.
    pub fn finish(mut self) -> io::Result<W> {
        assert!(self.sizes.is_empty(), "{} tensors lack their data", self.sizes.len());
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn close_full_tensors(&mut self) -> io::Result<()> {
        while self.sizes.last() == Some(&self.written) {
            let padding = self.written.next_multiple_of(ALIGNMENT) - self.written;
            self.sink.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            self.sizes.pop();
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader written from the specification, only as wide as these tests need.
    struct Reader<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Reader<'_> {
        fn take<const N: usize>(&mut self) -> [u8; N] {
            let bytes = self.bytes[self.at..self.at + N].try_into().unwrap();
            self.at += N;
            bytes
        }
        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.take())
        }
        fn u64(&mut self) -> u64 {
            u64::from_le_bytes(self.take())
        }
        fn string(&mut self) -> String {
            let length = self.u64() as usize;
            self.at += length;
            String::from_utf8(self.bytes[self.at - length..self.at].to_vec()).unwrap()
        }
        fn value(&mut self, kind: u32) -> Value {
            match kind {
                0 => Value::U8(self.take::<1>()[0]),
                1 => Value::I8(i8::from_le_bytes(self.take())),
                2 => Value::U16(u16::from_le_bytes(self.take())),
                3 => Value::I16(i16::from_le_bytes(self.take())),
                4 => Value::U32(self.u32()),
                5 => Value::I32(i32::from_le_bytes(self.take())),
                6 => Value::F32(f32::from_le_bytes(self.take())),
                7 => Value::Bool(self.take::<1>() == [1]),
                8 => Value::String(self.string()),
                9 => {
                    let kind = self.u32();
                    let items: Vec<Value> = (0..self.u64()).map(|_| self.value(kind)).collect();
                    Value::Array(items.first().map_or(ValueType::F64, Value::kind), items)
                }
                10 => Value::U64(self.u64()),
                11 => Value::I64(i64::from_le_bytes(self.take())),
                12 => Value::F64(f64::from_le_bytes(self.take())),
                _ => panic!("no such type: {kind}"),
            }
        }
    }

    fn every_value() -> Vec<Value> {
        let nested = vec![Value::strings(["a", "é"]), Value::strings(["", "b"])];
        vec![
            Value::U8(200),
            Value::I8(-3),
            Value::U16(60_000),
            Value::I16(-300),
            Value::U32(4_000_000_000),
            Value::I32(-5),
            Value::F32(0.25),
            Value::Bool(true),
            Value::from("rosé"),
            Value::i32s([1, -1, 3]),
            Value::Array(ValueType::Array, nested),
            Value::Array(ValueType::F64, Vec::new()),
            Value::U64(u64::MAX),
            Value::I64(i64::MIN),
            Value::F64(1e300),
        ]
    }

    #[test]
    fn a_file_reads_back() {
        let mut header = Header::new("llama");
        for (index, value) in every_value().into_iter().enumerate() {
            header.set(format!("key.{index}"), value);
        }
        header.tensor(TensorSpec::vector("norm", 3));
        header.tensor(TensorSpec::matrix("weight", 2, 32, TensorType::Q8_0));
        let mut body = header.begin(Vec::new()).unwrap();
        let norm: Vec<u8> = (1..=12).collect();
        let weight: Vec<u8> = (0..68).collect();
        body.write(&norm[..5]).unwrap();
        body.write(&norm[5..]).unwrap();
        body.write(&weight).unwrap();
        let file = body.finish().unwrap();

        let mut reader = Reader { bytes: &file, at: 0 };
        assert_eq!(&reader.take::<4>(), b"GGUF");
        assert_eq!((reader.u32(), reader.u64(), reader.u64()), (3, 2, 16));
        assert_eq!((reader.string().as_str(), reader.u32()), ("general.architecture", 8));
        assert_eq!(reader.string(), "llama");
        for (index, value) in every_value().into_iter().enumerate() {
            assert_eq!(reader.string(), format!("key.{index}"));
            let kind = reader.u32();
            assert_eq!(reader.value(kind), value);
        }
        assert_eq!(reader.string(), "norm");
        assert_eq!((reader.u32(), reader.u64(), reader.u32(), reader.u64()), (1, 3, 0, 0));
        assert_eq!(reader.string(), "weight");
        assert_eq!((reader.u32(), reader.u64(), reader.u64()), (2, 32, 2));
        assert_eq!((reader.u32(), reader.u64()), (8, 32));
        let data = reader.at.next_multiple_of(32);
        assert_eq!(file[data..data + 12], norm);
        assert!(file[data + 12..data + 32].iter().all(|byte| *byte == 0));
        assert_eq!(file[data + 32..data + 100], weight);
        assert_eq!(file.len(), data + 32 + 96);
    }

    #[test]
    #[should_panic(expected = "lack their data")]
    fn a_short_tensor_is_refused() {
        let mut header = Header::new("llama");
        header.tensor(TensorSpec::vector("norm", 3));
        let mut body = header.begin(Vec::new()).unwrap();
        body.write(&[0; 4]).unwrap();
        body.finish().unwrap();
    }

    #[test]
    #[should_panic(expected = "set twice")]
    fn a_key_is_set_once() {
        Header::new("llama").set("general.architecture", "qwen3");
    }
}
