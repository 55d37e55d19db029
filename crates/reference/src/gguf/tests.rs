use super::*;
use proptest::prelude::*;

/// Writes small GGUF files for tests.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    values: Vec<u8>,
    value_count: u64,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

impl Writer {
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Writer {
        self.value(key, 8, &text(value.as_bytes()))
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut Writer {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) -> &mut Writer {
        self.value(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) -> &mut Writer {
        self.values.extend(text(key.as_bytes()));
        self.values.extend(kind.to_le_bytes());
        self.values.extend(bytes);
        self.value_count += 1;
        self
    }

    pub(crate) fn tensor(&mut self, name: &str, dimensions: &[u64], kind: u32, bytes: &[u8]) -> &mut Writer {
        self.tensors.push((name.into(), dimensions.into(), kind, bytes.into()));
        self
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.value_count.to_le_bytes());
        file.extend(&self.values);
        let mut data = Vec::new();
        for (name, dimensions, kind, bytes) in &self.tensors {
            file.extend(text(name.as_bytes()));
            file.extend((dimensions.len() as u32).to_le_bytes());
            file.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn small() -> Vec<u8> {
    let mut array = 8_u32.to_le_bytes().to_vec();
    array.extend(2_u64.to_le_bytes());
    array.extend(text(b"a"));
    array.extend(text(b"bc"));
    let mut writer = Writer::default();
    writer.text("name", "surety").u32("count", 7).value("small", 1, &[0xfe]);
    writer.value("list", 9, &array).f32("eps", 0.5).value("wide", 12, &2.5_f64.to_le_bytes());
    writer.tensor("first", &[1, 2], 0, &[1.0_f32, -2.0].map(f32::to_le_bytes).concat());
    writer.tensor("second", &[32], 8, &[0; 34]);
    writer.finish()
}

#[test]
fn a_small_file_reads_back() {
    let file = small();
    let file = read(&file).expect("well formed");
    assert_eq!(file.metadata["name"], Value::Text(b"surety"));
    assert_eq!(file.metadata["count"], Value::Integer(7));
    assert_eq!(file.metadata["small"], Value::Integer(-2));
    assert_eq!(file.metadata["list"], Value::Array);
    assert_eq!(file.metadata["eps"], Value::Float(0.5));
    assert_eq!(file.metadata["wide"], Value::Float(2.5));
    let first = &file.tensors["first"];
    assert_eq!((first.format, first.columns, first.rows), (Format::F32, 1, 2));
    assert_eq!(first.row(1), (-2.0_f32).to_le_bytes());
    assert_eq!(file.tensors["second"].bytes.len(), 34);
}

#[test]
fn every_truncation_is_an_error() {
    let file = small();
    let data_end = file.len() - (64 - 34);
    for length in 0..data_end {
        assert!(read(&file[..length]).is_err(), "{length} of {} bytes", file.len());
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let check = |file: &[u8], expected: &str| {
        let error = read(file).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    };
    check(b"GGML", "does not begin with GGUF");
    check(b"GGUF\x01\0\0\0", "version 1");
    let infinite = [f32::INFINITY].map(f32::to_le_bytes).concat();
    check(&Writer::default().tensor("t", &[1], 0, &infinite).finish(), "non-finite");
    check(&Writer::default().tensor("t", &[256], 10, &[0; 84]).finish(), "type 10");
    check(&Writer::default().tensor("t", &[33], 8, &[0; 68]).finish(), "does not fit");
    check(&Writer::default().tensor("t", &[32, u64::MAX, 3], 8, &[0; 34]).finish(), "too large");
    check(&Writer::default().tensor("t", &[32, u64::MAX], 8, &[0; 34]).finish(), "does not fit");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
    }

    #[test]
    fn no_changed_bytes_panic(changes in proptest::collection::vec((0..10_000_usize, any::<u8>()), 1..8)) {
        let mut file = small();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        let _ = read(&file);
    }
}
