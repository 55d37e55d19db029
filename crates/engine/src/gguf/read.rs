//! The parser.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::error::GgufError;
use super::tensor::{TensorInfo, TensorType};
use super::value::{Array, Strings, Value};
use super::{
    ALIGNMENT_MAX, ARRAY_DEPTH_MAX, DIMENSIONS_MAX, Gguf, KEY_BYTES_MAX, KEYS_MAX, METADATA_BYTES_MAX,
    STRING_BYTES_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};

/// The smallest metadata entry: key length, one byte of key, value type, one byte of value.
const ENTRY_BYTES_MIN: usize = 8 + 1 + 4 + 1;
/// The smallest tensor entry: name length, one byte of name, dimension count, one dimension, type, offset.
const TENSOR_BYTES_MIN: usize = 8 + 1 + 4 + 8 + 4 + 8;
/// The alignment of a file that names none.
const ALIGNMENT_DEFAULT: u32 = 32;

const _: () = assert!(METADATA_BYTES_MAX <= u32::MAX as usize, "`Strings` counts its bytes in u32");
const _: () = assert!(TENSORS_MAX <= u32::MAX as usize, "tensor indices are u32");

pub(super) fn parse(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let mut reader = Reader { bytes, offset: 0 };
    let magic = &bytes[..bytes.len().min(4)];
    if magic != b"GGUF" {
        return Err(GgufError::Magic { found: magic.to_vec() });
    }
    reader.offset = 4;
    let version = reader.u32("the version")?;
    if version & 0xffff == 0 && version != 0 {
        return Err(GgufError::BigEndian);
    }
    if !matches!(version, 2 | 3) {
        return Err(GgufError::Version { version });
    }
    let tensor_count = reader.count("the number of tensors", TENSORS_MAX)?;
    let key_count = reader.count("the number of metadata keys", KEYS_MAX)?;

    let metadata = reader.metadata(key_count)?;
    let alignment = alignment(&metadata)?;
    let headers = reader.tensor_headers(tensor_count)?;
    let data_start = (reader.offset as u64).next_multiple_of(alignment.into());
    let mut tensors = Vec::with_capacity(headers.len());
    for header in headers {
        tensors.push(header.place(data_start, alignment, bytes.len())?);
    }
    refuse_overlap(&tensors)?;
    let by_name = sorted_by_name(&tensors)?;
    Ok(Gguf { version, metadata, tensors, by_name })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u32, GgufError> {
    const KEY: &str = "general.alignment";
    match metadata.get(KEY) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(&Value::U32(value)) if value.is_power_of_two() && value <= ALIGNMENT_MAX => Ok(value),
        Some(&Value::U32(value)) => Err(GgufError::Alignment { value, limit: ALIGNMENT_MAX }),
        Some(other) => {
            Err(GgufError::WrongType { key: KEY.to_owned(), expected: "u32", found: other.type_name() })
        }
    }
}

fn refuse_overlap(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(GgufError::Overlap {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
                offset: pair[1].range.start,
            });
        }
    }
    Ok(())
}

fn sorted_by_name(tensors: &[TensorInfo]) -> Result<Vec<u32>, GgufError> {
    let name = |index: u32| tensors[index as usize].name.as_str();
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_by_key(|&index| name(index));
    match by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(GgufError::DuplicateTensor { tensor: name(pair[0]).to_owned() }),
        None => Ok(by_name),
    }
}

/// One entry of the tensor table, not yet placed in the file.
struct TensorHeader {
    name: String,
    dims: Vec<u64>,
    kind: TensorType,
    /// From the start of the data section.
    offset: u64,
}

impl TensorHeader {
    fn place(self, data_start: u64, alignment: u32, file_bytes: usize) -> Result<TensorInfo, GgufError> {
        let Self { name, dims, kind, offset } = self;
        let columns = dims[0];
        let block = kind.block_elements();
        if columns % block != 0 {
            return Err(GgufError::RowBlocks { tensor: name, columns, kind, block });
        }
        let product = |product: u64, &dim: &u64| product.checked_mul(dim).filter(|&product| product > 0);
        let elements = dims.iter().try_fold(1, product);
        let size = elements.and_then(|elements| (elements / block).checked_mul(kind.block_bytes()));
        let Some(size) = size else {
            return Err(GgufError::Shape { tensor: name, dims });
        };
        if offset % u64::from(alignment) != 0 {
            return Err(GgufError::Unaligned { tensor: name, offset, alignment });
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(size)).filter(|&end| end <= file_bytes as u64);
        let (Some(start), Some(end)) = (start, end) else {
            let offset = data_start.saturating_add(offset);
            return Err(GgufError::TensorRange { tensor: name, offset, bytes: size, file_bytes });
        };
        // Both lie within `file_bytes`, a usize.
        Ok(TensorInfo { name, dims, kind, range: start as usize..end as usize })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `needed` bytes, if both the file and the bound on metadata hold them.
    fn take(&mut self, needed: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let offset = self.offset;
        let allowed = METADATA_BYTES_MAX.saturating_sub(offset);
        if needed > self.left() as u64 {
            return Err(GgufError::Truncated { offset, what, needed, left: self.left() });
        }
        if needed > allowed as u64 {
            return Err(GgufError::MetadataTooLarge { offset, what, limit: METADATA_BYTES_MAX });
        }
        self.offset += needed as usize;
        Ok(&self.bytes[offset..self.offset])
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.try_into().expect("take returns as many bytes as asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool, GgufError> {
        let offset = self.offset;
        match self.fixed::<1>("a boolean")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(GgufError::Boolean { offset, value }),
        }
    }

    /// A number of things, at most `limit`.
    fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, GgufError> {
        let offset = self.offset;
        let value = self.u64(what)?;
        if value > limit as u64 {
            return Err(GgufError::TooLarge { offset, what, value, limit: limit as u64 });
        }
        Ok(value as usize)
    }

    /// Refuses `count` things of at least `each` bytes if the file cannot hold them.
    fn require(&self, count: u64, each: usize, what: &'static str) -> Result<(), GgufError> {
        let (offset, left) = (self.offset, self.left());
        let needed = count.saturating_mul(each as u64);
        if needed > left as u64 {
            return Err(GgufError::Truncated { offset, what, needed, left });
        }
        if needed > METADATA_BYTES_MAX.saturating_sub(offset) as u64 {
            return Err(GgufError::MetadataTooLarge { offset, what, limit: METADATA_BYTES_MAX });
        }
        Ok(())
    }

    fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, GgufError> {
        let length = self.count(what, limit)?;
        let offset = self.offset;
        let bytes = self.take(length as u64, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { offset, what })
    }

    fn name(&mut self, what: &'static str, limit: usize) -> Result<&'a str, GgufError> {
        let offset = self.offset;
        let name = self.text(what, limit)?;
        if name.is_empty() { Err(GgufError::Empty { offset, what }) } else { Ok(name) }
    }

    fn metadata(&mut self, count: usize) -> Result<BTreeMap<String, Value>, GgufError> {
        self.require(count as u64, ENTRY_BYTES_MIN, "the metadata")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..count {
            let offset = self.offset;
            let key = self.name("a metadata key", KEY_BYTES_MAX)?;
            let value = self.value()?;
            match metadata.entry(key.to_owned()) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(_) => return Err(GgufError::DuplicateKey { key: key.to_owned(), offset }),
            };
        }
        Ok(metadata)
    }

    fn value(&mut self) -> Result<Value, GgufError> {
        const WHAT: &str = "a metadata value";
        let offset = self.offset;
        Ok(match self.u32("a value type")? {
            0 => Value::U8(u8::from_le_bytes(self.fixed(WHAT)?)),
            1 => Value::I8(i8::from_le_bytes(self.fixed(WHAT)?)),
            2 => Value::U16(u16::from_le_bytes(self.fixed(WHAT)?)),
            3 => Value::I16(i16::from_le_bytes(self.fixed(WHAT)?)),
            4 => Value::U32(u32::from_le_bytes(self.fixed(WHAT)?)),
            5 => Value::I32(i32::from_le_bytes(self.fixed(WHAT)?)),
            6 => Value::F32(f32::from_le_bytes(self.fixed(WHAT)?)),
            7 => Value::Bool(self.bool()?),
            8 => Value::String(self.text("a metadata string", STRING_BYTES_MAX)?.to_owned()),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(u64::from_le_bytes(self.fixed(WHAT)?)),
            11 => Value::I64(i64::from_le_bytes(self.fixed(WHAT)?)),
            12 => Value::F64(f64::from_le_bytes(self.fixed(WHAT)?)),
            id => return Err(GgufError::ValueType { offset, id }),
        })
    }

    fn array(&mut self, depth: u32) -> Result<Array, GgufError> {
        let offset = self.offset;
        let id = self.u32("an array's element type")?;
        let count = self.u64("an array's length")?;
        Ok(match id {
            0 => Array::U8(self.elements(count, u8::from_le_bytes)?),
            1 => Array::I8(self.elements(count, i8::from_le_bytes)?),
            2 => Array::U16(self.elements(count, u16::from_le_bytes)?),
            3 => Array::I16(self.elements(count, i16::from_le_bytes)?),
            4 => Array::U32(self.elements(count, u32::from_le_bytes)?),
            5 => Array::I32(self.elements(count, i32::from_le_bytes)?),
            6 => Array::F32(self.elements(count, f32::from_le_bytes)?),
            7 => {
                self.require(count, 1, "an array of bool")?;
                Array::Bool((0..count).map(|_| self.bool()).collect::<Result<_, _>>()?)
            }
            8 => Array::String(self.strings(count)?),
            9 => {
                if depth == ARRAY_DEPTH_MAX {
                    let (value, limit) = (u64::from(depth) + 1, ARRAY_DEPTH_MAX.into());
                    return Err(GgufError::TooLarge { offset, what: "the depth of arrays", value, limit });
                }
                self.require(count, 4 + 8, "an array of arrays")?;
                Array::Array((0..count).map(|_| self.array(depth + 1)).collect::<Result<_, _>>()?)
            }
            10 => Array::U64(self.elements(count, u64::from_le_bytes)?),
            11 => Array::I64(self.elements(count, i64::from_le_bytes)?),
            12 => Array::F64(self.elements(count, f64::from_le_bytes)?),
            id => return Err(GgufError::ValueType { offset, id }),
        })
    }

    fn elements<T, const N: usize>(
        &mut self,
        count: u64,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let bytes = self.take(count.saturating_mul(N as u64), "an array")?;
        let (elements, _) = bytes.as_chunks::<N>();
        Ok(elements.iter().map(|&element| decode(element)).collect())
    }

    fn strings(&mut self, count: u64) -> Result<Strings, GgufError> {
        self.require(count, 8, "an array of strings")?;
        // What follows the array is not known yet, so the texts are walked once to size them, then copied.
        let start = self.offset;
        for _ in 0..count {
            self.text("a metadata string", STRING_BYTES_MAX)?;
        }
        let bytes = self.offset - start - count as usize * 8;
        self.offset = start;
        let mut strings = Strings::with_capacity(count as usize, bytes);
        for _ in 0..count {
            strings.push(self.text("a metadata string", STRING_BYTES_MAX)?);
        }
        Ok(strings)
    }

    fn tensor_headers(&mut self, count: usize) -> Result<Vec<TensorHeader>, GgufError> {
        self.require(count as u64, TENSOR_BYTES_MIN, "the tensor table")?;
        (0..count).map(|_| self.tensor_header()).collect()
    }

    fn tensor_header(&mut self) -> Result<TensorHeader, GgufError> {
        let name = self.name("a tensor name", TENSOR_NAME_BYTES_MAX)?.to_owned();
        let offset = self.offset;
        let dimensions = self.u32("a tensor's number of dimensions")?;
        if !(1..=DIMENSIONS_MAX as u32).contains(&dimensions) {
            let limit = DIMENSIONS_MAX as u32;
            return Err(GgufError::Dimensions { tensor: name, found: dimensions, limit, offset });
        }
        let dims = (0..dimensions).map(|_| self.u64("a tensor's shape")).collect::<Result<_, _>>()?;
        let offset = self.offset;
        let id = self.u32("a tensor's type")?;
        let Some(kind) = TensorType::from_id(id) else {
            return Err(GgufError::UnknownTensorType { tensor: name, id, offset });
        };
        let offset = self.u64("a tensor's offset")?;
        Ok(TensorHeader { name, dims, kind, offset })
    }
}
