//! Builds small GGUF files for tests, well-formed or not.

use super::value::{Array, Value};

/// Parts of a file under construction.
pub(crate) struct Build {
    pub(crate) version: u32,
    pub(crate) entries: Vec<(String, Value)>,
    /// Name, dims, type id, offset in the data section.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, u64)>,
    pub(crate) data: Vec<u8>,
    pub(crate) alignment: usize,
}

impl Build {
    pub(crate) fn new() -> Self {
        Self { version: 3, entries: Vec::new(), tensors: Vec::new(), data: Vec::new(), alignment: 32 }
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.entries.push((key.to_owned(), value));
        self
    }

    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        self.set(key, Value::String(value.to_owned()))
    }

    pub(crate) fn strings<'a>(self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut strings = super::Strings::default();
        values.into_iter().for_each(|value| strings.push(value));
        self.set(key, Value::Array(Array::String(strings)))
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], id: u32, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.tensors.push((name.to_owned(), dims.to_vec(), id, self.data.len() as u64));
        self.data.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            text(&mut out, key);
            write_value(&mut out, value);
        }
        for (name, dims, id, offset) in &self.tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(id.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        if !self.tensors.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out.extend_from_slice(&self.data);
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    let mut number = |id: u32, bytes: &[u8]| {
        out.extend(id.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::U8(value) => number(0, &value.to_le_bytes()),
        Value::I8(value) => number(1, &value.to_le_bytes()),
        Value::U16(value) => number(2, &value.to_le_bytes()),
        Value::I16(value) => number(3, &value.to_le_bytes()),
        Value::U32(value) => number(4, &value.to_le_bytes()),
        Value::I32(value) => number(5, &value.to_le_bytes()),
        Value::F32(value) => number(6, &value.to_le_bytes()),
        Value::Bool(value) => number(7, &[u8::from(*value)]),
        Value::U64(value) => number(10, &value.to_le_bytes()),
        Value::I64(value) => number(11, &value.to_le_bytes()),
        Value::F64(value) => number(12, &value.to_le_bytes()),
        Value::String(value) => {
            number(8, &[]);
            text(out, value);
        }
        Value::Array(array) => {
            number(9, &[]);
            write_array(out, array);
        }
    }
}

fn write_array(out: &mut Vec<u8>, array: &Array) {
    let mut elements = |id: u32, bytes: Vec<u8>| {
        out.extend(id.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
        out.extend(bytes);
    };
    match array {
        Array::U8(values) => elements(0, values.clone()),
        Array::I8(values) => elements(1, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::U16(values) => elements(2, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::I16(values) => elements(3, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::U32(values) => elements(4, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::I32(values) => elements(5, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::F32(values) => elements(6, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::Bool(values) => elements(7, values.iter().map(|&value| u8::from(value)).collect()),
        Array::U64(values) => elements(10, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::I64(values) => elements(11, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::F64(values) => elements(12, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Array::String(values) => {
            elements(8, Vec::new());
            values.iter().for_each(|value| text(out, value));
        }
        Array::Array(values) => {
            elements(9, Vec::new());
            values.iter().for_each(|value| write_array(out, value));
        }
    }
}
