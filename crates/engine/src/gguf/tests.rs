use proptest::prelude::*;

use super::build::Build;
use super::*;

/// A file with one value of each kind and three tensors.
fn sample() -> Build {
    Build::new()
        .string("general.architecture", "llama")
        .set("u8", Value::U8(200))
        .set("i8", Value::I8(-3))
        .set("u16", Value::U16(60_000))
        .set("i16", Value::I16(-300))
        .set("u32", Value::U32(u32::MAX))
        .set("i32", Value::I32(-70_000))
        .set("f32", Value::F32(1.5))
        .set("bool", Value::Bool(true))
        .set("u64", Value::U64(u64::MAX))
        .set("i64", Value::I64(7))
        .set("f64", Value::F64(0.25))
        .strings("tokens", ["a", "", "ƶ"])
        .set("scores", Value::Array(Array::F32(vec![-1.0, 0.0])))
        .set("types", Value::Array(Array::I32(vec![1, -2, 3])))
        .set("nested", Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::Bool(vec![false])])))
        .tensor("embed", &[32, 3], 8, &[1; 34 * 3])
        .tensor("norm", &[5], 0, &[2; 20])
        .tensor("cube", &[2, 3, 4, 1], 1, &[3; 48])
}

fn refused(build: &Build) -> GgufError {
    Gguf::parse(&build.bytes()).expect_err("this file is wrong")
}

#[test]
fn a_file_is_read_whole() {
    let build = sample();
    let bytes = build.bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.metadata().len(), build.entries.len());
    for (key, value) in &build.entries {
        assert_eq!(gguf.get(key), Some(value), "{key}");
    }
    let names: Vec<&str> = gguf.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["embed", "norm", "cube"]);
    for (name, fill, size) in [("embed", 1, 102), ("norm", 2, 20), ("cube", 3, 48)] {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(bytes[tensor.range.clone()], vec![fill; size], "{name}");
        assert_eq!(tensor.range.start % 32, 0);
    }
    assert_eq!(gguf.tensor("embed").unwrap().dims, [32, 3]);
    assert_eq!(gguf.tensor("embed").unwrap().kind, TensorType::Q8_0);
    assert!(gguf.tensor("other").is_none());
}

#[test]
fn version_2_reads_alike() {
    let build = Build { version: 2, ..sample() };
    assert_eq!(Gguf::parse(&build.bytes()).unwrap().version(), 2);
}

#[test]
fn getters_convert_integers_and_name_what_is_wrong() {
    let gguf = Gguf::parse(&sample().bytes()).unwrap();
    assert_eq!(gguf.string("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.u32("u8").unwrap(), 200);
    assert_eq!(gguf.u32("u16").unwrap(), 60_000);
    assert_eq!(gguf.u32("i64").unwrap(), 7);
    assert_eq!(gguf.u64("u64").unwrap(), u64::MAX);
    assert_eq!(gguf.f32("f32").unwrap(), 1.5);
    assert!(gguf.bool("bool").unwrap());
    assert_eq!(gguf.strings("tokens").unwrap().iter().collect::<Vec<_>>(), ["a", "", "ƶ"]);
    assert_eq!(gguf.floats("scores").unwrap(), [-1.0, 0.0]);
    assert_eq!(gguf.integers("types").unwrap(), [1, -2, 3]);
    for (key, value) in [("i8", -3), ("u64", i128::from(u64::MAX))] {
        let expected = GgufError::OutOfRange { key: key.into(), value, width: Width::U32 };
        assert_eq!(gguf.u32(key), Err(expected));
    }
    let wrong = GgufError::WrongType { key: "f64".into(), expected: "f32", found: "f64" };
    assert_eq!(gguf.f32("f64"), Err(wrong.clone()));
    assert_eq!(gguf.optional_f32("f64"), Err(wrong));
    assert_eq!(gguf.bool("none"), Err(GgufError::MissingKey { key: "none".into(), expected: "bool" }));
    assert_eq!(gguf.optional_u32("none"), Ok(None));
    assert_eq!(gguf.optional_strings("none"), Ok(None));
    assert!(matches!(gguf.integers("scores"), Err(GgufError::WrongType { .. })));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().bytes();
    for length in 0..bytes.len() {
        assert!(Gguf::parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    Gguf::parse(&bytes).unwrap();
}

#[test]
fn no_flipped_bit_panics() {
    let bytes = sample().bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Gguf::parse(&flipped);
    }
}

#[test]
fn lying_numbers_are_refused_before_anything_is_allocated() {
    let bytes = Build::new().strings("tokens", ["a"]).bytes();
    // tensors, keys, key length, value type, element type, elements, string length.
    let fields = [(8, 8), (16, 8), (24, 8), (38, 4), (42, 4), (46, 8), (54, 8)];
    for (start, width) in fields {
        for lie in [1u64 << 60, u64::MAX, 1 << 32, 1 << 31] {
            let mut lying = bytes.clone();
            lying[start..start + width].copy_from_slice(&lie.to_le_bytes()[..width]);
            if lying == bytes || (width == 4 && lie as u32 == 0) {
                continue;
            }
            assert!(Gguf::parse(&lying).is_err(), "{lie:#x} at {start}");
        }
    }
    let elements = u64::from_le_bytes(bytes[46..54].try_into().unwrap());
    assert_eq!(elements, 1, "the offsets above are those of the array's length");
}

#[test]
fn headers_are_checked() {
    let good = sample().bytes();
    let with_version = |version: u32| {
        let mut bytes = good.clone();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        Gguf::parse(&bytes).unwrap_err()
    };
    assert_eq!(with_version(3u32.swap_bytes()), GgufError::BigEndian);
    assert_eq!(with_version(1), GgufError::Version { version: 1 });
    assert_eq!(with_version(4), GgufError::Version { version: 4 });
    assert_eq!(Gguf::parse(b"GGML....").unwrap_err(), GgufError::Magic { found: b"GGML".to_vec() });
    assert_eq!(Gguf::parse(b"").unwrap_err(), GgufError::Magic { found: vec![] });
}

#[test]
fn metadata_is_checked() {
    let twice = Build::new().set("a", Value::U8(1)).set("a", Value::U8(2));
    assert!(matches!(refused(&twice), GgufError::DuplicateKey { key, offset: 38 } if key == "a"));
    let empty = Build::new().set("", Value::U64(1));
    assert!(matches!(refused(&empty), GgufError::Empty { offset: 24, .. }));
    let mut deep = Array::U8(vec![]);
    for _ in 0..ARRAY_DEPTH_MAX {
        deep = Array::Array(vec![deep]);
    }
    assert!(matches!(
        refused(&Build::new().set("a", Value::Array(deep))),
        GgufError::TooLarge { value: 5, .. }
    ));
    let mut bytes = Build::new().set("a", Value::Bool(true)).bytes();
    *bytes.last_mut().unwrap() = 2;
    assert_eq!(Gguf::parse(&bytes).unwrap_err(), GgufError::Boolean { offset: 37, value: 2 });
    let mut bytes = Build::new().string("a", "b").bytes();
    *bytes.last_mut().unwrap() = 0xff;
    assert!(matches!(Gguf::parse(&bytes).unwrap_err(), GgufError::Utf8 { offset: 45, .. }));
}

#[test]
fn alignment_is_honoured_and_checked() {
    for alignment in [8u32, 4_096] {
        let aligned = Build { alignment: alignment as usize, ..Build::new() }
            .set("general.alignment", Value::U32(alignment))
            .tensor("a", &[1], 0, &[0; 4])
            .tensor("b", &[1], 0, &[0; 4]);
        let gguf = Gguf::parse(&aligned.bytes()).unwrap();
        assert!(gguf.tensors().all(|tensor| tensor.range.start % alignment as usize == 0));
    }
    for value in [0, 3, 33, ALIGNMENT_MAX * 2] {
        let build = Build::new().set("general.alignment", Value::U32(value));
        assert_eq!(refused(&build), GgufError::Alignment { value, limit: ALIGNMENT_MAX });
    }
    let build = Build::new().set("general.alignment", Value::U64(32));
    assert!(matches!(refused(&build), GgufError::WrongType { found: "u64", .. }));
}

#[test]
fn tensors_are_checked() {
    let tensor = |dims: &[u64], id, bytes: usize| Build::new().tensor("t", dims, id, &vec![0; bytes]);
    assert!(matches!(refused(&tensor(&[], 0, 4)), GgufError::Dimensions { found: 0, .. }));
    assert!(matches!(refused(&tensor(&[1; 5], 0, 4)), GgufError::Dimensions { found: 5, .. }));
    assert!(matches!(refused(&tensor(&[4, 0], 0, 4)), GgufError::Shape { .. }));
    assert!(matches!(refused(&tensor(&[1 << 32, 1 << 32], 0, 4)), GgufError::Shape { .. }));
    assert!(matches!(refused(&tensor(&[1 << 40, 1 << 22], 0, 4)), GgufError::Shape { .. }));
    assert!(matches!(refused(&tensor(&[33], 8, 34)), GgufError::RowBlocks { columns: 33, block: 32, .. }));
    assert!(matches!(refused(&tensor(&[2], 4, 8)), GgufError::UnknownTensorType { id: 4, .. }));
    assert!(matches!(refused(&tensor(&[2], 0, 7)), GgufError::TensorRange { bytes: 8, .. }));

    let twice = sample().tensor("norm", &[1], 0, &[0; 4]);
    assert_eq!(refused(&twice), GgufError::DuplicateTensor { tensor: "norm".into() });
    let mut overlapping = sample();
    overlapping.tensors[2].3 = overlapping.tensors[0].3 + 96;
    assert!(matches!(
        refused(&overlapping),
        GgufError::Overlap { first, second, .. } if first == "embed" && second == "cube"
    ));
    let mut unaligned = sample();
    unaligned.tensors[1].3 += 4;
    assert!(matches!(refused(&unaligned), GgufError::Unaligned { alignment: 32, .. }));
    let mut far = sample();
    far.tensors[1].3 = u64::MAX - 31;
    assert!(matches!(refused(&far), GgufError::TensorRange { .. }));
    let long = Build::new().tensor(&"x".repeat(65), &[1], 0, &[0; 4]);
    assert!(matches!(refused(&long), GgufError::TooLarge { value: 65, limit: 64, .. }));
}

#[test]
fn unsupported_types_are_refused_by_name() {
    let build = Build::new().tensor("t", &[256], TensorType::Q5_K.id(), &[0; 176]);
    let gguf = Gguf::parse(&build.bytes()).unwrap();
    let error = gguf.tensor("t").unwrap().require_supported().unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor \"t\": Q5_K is not supported; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K"
    );
    for kind in TensorType::SUPPORTED {
        assert_eq!(TensorType::from_id(kind.id()), Some(kind));
    }
    for &kind in TensorType::ALL {
        assert_eq!(TensorType::from_id(kind.id()), Some(kind));
        assert!(kind.block_bytes() <= kind.block_elements() * 8, "{kind}");
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e30f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,12}".prop_map(Value::String),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e30f64..1e30).prop_map(Value::F64),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let strings = prop::collection::vec(".{0,8}", 0..6).prop_map(|values| {
        let mut strings = Strings::default();
        values.iter().for_each(|value| strings.push(value));
        Array::String(strings)
    });
    let leaf = prop_oneof![
        prop::collection::vec(any::<u16>(), 0..6).prop_map(Array::U16),
        prop::collection::vec(any::<i32>(), 0..6).prop_map(Array::I32),
        prop::collection::vec(any::<bool>(), 0..6).prop_map(Array::Bool),
        strings,
    ];
    leaf.prop_recursive(2, 12, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![3 => scalar(), 1 => array().prop_map(Value::Array)]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
        rows in prop::collection::vec(1u64..5, 0..4),
    ) {
        let mut build = Build::new();
        for (key, value) in &entries {
            build = build.set(key, value.clone());
        }
        for (index, &rows) in rows.iter().enumerate() {
            build = build.tensor(&format!("t{index}"), &[32, rows], 2, &vec![index as u8; 18 * rows as usize]);
        }
        let bytes = build.bytes();
        let gguf = Gguf::parse(&bytes).unwrap();
        let read: Vec<(&str, &Value)> = gguf.metadata().collect();
        let written: Vec<(&str, &Value)> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
        prop_assert_eq!(read, written);
        for (index, &rows) in rows.iter().enumerate() {
            let tensor = gguf.tensor(&format!("t{index}")).unwrap();
            prop_assert_eq!(&bytes[tensor.range.clone()], vec![index as u8; 18 * rows as usize]);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(bytes);
        let _ = Gguf::parse(&file);
    }

    #[test]
    fn damaged_files_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample().bytes();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let cut = cut.index(bytes.len() + 1);
        let _ = Gguf::parse(&bytes[..cut]);
    }
}
