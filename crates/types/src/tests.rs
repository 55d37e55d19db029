//! Encodings: golden vectors, round trips, refusal of everything else.

use std::{fmt::Write as _, fs, path::PathBuf};

use proptest::prelude::*;

use crate::{
    cose::OVERHEAD_BYTES,
    embedding::{MAX_DIMENSIONS, vector_bytes},
    receipt::MAX_SIGNED_RECEIPT_BYTES,
    samples, *,
};

// ---- golden vectors ----

/// (file, contents): every signed or hashed encoding, of fixed values under fixed keys.
fn vectors() -> Vec<(&'static str, String)> {
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }
    fn plain<T: Canonical>(value: &T, digest: Digest) -> String {
        pretty(&serde_json::json!({ "cbor": hex(&value.to_cbor()), "digest": digest }))
    }
    fn signed<T: Signable + Clone + serde::Serialize>(value: &T, key: &SecretKey) -> String {
        let signed = Signed::sign(value.clone(), key);
        pretty(&serde_json::json!({
            "secret_key": hex(&key.to_bytes()),
            "value": value,
            "cbor": hex(&value.to_cbor()),
            "cose": hex(signed.bytes()),
        }))
    }
    fn pretty(value: &serde_json::Value) -> String {
        serde_json::to_string_pretty(value).unwrap() + "\n"
    }
    let (payer, worker, gateway) = (samples::payer(), samples::worker(), samples::gateway());
    let receipt = Signed::sign(samples::receipt(), &worker);
    let order = samples::order();
    vec![
        ("request.json", plain(&samples::request(), samples::request().digest())),
        (
            "embedding_request.json",
            plain(&samples::embedding_request(), samples::embedding_request().digest()),
        ),
        ("manifest.json", plain(&samples::manifest(), samples::manifest().id().0)),
        ("upstream_manifest.json", plain(&samples::upstream_manifest(), samples::upstream_manifest().id().0)),
        (
            "plan.json",
            pretty(&serde_json::json!({
                "bytes": hex(&samples::plan().to_bytes()),
                "digest": samples::plan().digest(),
            })),
        ),
        ("order.json", signed(&order, &payer)),
        ("resumed_order.json", signed(&samples::resumed_order(), &payer)),
        ("confidential_order.json", signed(&samples::confidential_order(), &payer)),
        (
            "order_derived.json",
            pretty(&serde_json::json!({ "digest": order.digest(), "seed": Digest(order.seed_bytes()) })),
        ),
        ("acceptance.json", signed(&samples::acceptance(), &worker)),
        ("progress.json", signed(&samples::progress(), &worker)),
        ("voucher.json", pretty(&voucher_vector(&hex(&samples::voucher().to_cbor())))),
        ("receipt.json", signed(&samples::receipt(), &worker)),
        ("receipt_digest.json", pretty(&serde_json::json!({ "digest": receipt.digest() }))),
        ("refusal.json", signed(&samples::refusal(), &worker)),
        ("envelope.json", signed(&samples::envelope(&receipt), &gateway)),
        ("statement.json", signed(&samples::statement(), &gateway)),
        ("evidence.json", samples::evidence().to_json().unwrap() + "\n"),
    ]
}

/// The encoding, and on chain 1 the channel's identity and what is signed.
fn voucher_vector(cbor: &str) -> serde_json::Value {
    let (voucher, digests) = (samples::voucher(), ChannelDigests::new(1));
    let id = voucher.channel.id(&digests);
    let signed = Digest(digests.voucher(id.0.into(), voucher.max_claimable).0);
    serde_json::json!({ "cbor": cbor, "channel_id": id, "signed_digest": signed })
}

fn vector_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

#[test]
fn encodings_are_as_recorded() {
    for (name, contents) in vectors() {
        let path = vector_path(name);
        let recorded =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // As values: the order of fields in these files is whatever the JSON library was built for.
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(
            value(&contents),
            value(&recorded),
            "{name} changed: signed bytes of the past could no longer be read"
        );
    }
    let recorded = fs::read_dir(vector_path("")).unwrap().count();
    assert_eq!(recorded, vectors().len(), "a vector without a test");
}

#[test]
#[ignore = "rewrites the golden vectors: a decision with its own commit"]
fn rewrite_vectors() {
    fs::create_dir_all(vector_path("")).unwrap();
    for (name, contents) in vectors() {
        fs::write(vector_path(name), contents).unwrap();
    }
}

// ---- strangers' tools ----

/// An independent COSE library reads and verifies what is signed here.
#[test]
fn coset_verifies_a_receipt() {
    use coset::{CborSerializable, TaggedCborSerializable};
    let signed = Signed::sign(samples::receipt(), &samples::worker());
    let message = coset::CoseSign1::from_tagged_slice(signed.bytes()).unwrap();
    let header = &message.protected.header;
    assert_eq!(header.alg, Some(coset::Algorithm::Assigned(coset::iana::Algorithm::EdDSA)));
    assert_eq!(header.key_id, samples::worker().public().0);
    assert_eq!(
        header.content_type,
        Some(coset::ContentType::Text("application/surety-receipt+cbor".to_owned()))
    );
    assert!(message.unprotected.is_empty());
    message
        .verify_signature(b"", |signature, signed_bytes| {
            let signature = signature.try_into().unwrap();
            if samples::worker().public().verifies(signed_bytes, signature) { Ok(()) } else { Err("no") }
        })
        .unwrap();
    assert_eq!(message.payload.as_deref(), Some(&samples::receipt().to_cbor()[..]));
    // And written by it, untouched, it is what we write.
    assert_eq!(message.to_tagged_vec().unwrap(), signed.bytes());
    assert!(coset::cbor::Value::from_slice(&samples::receipt().to_cbor()).is_ok());
}

/// An independent CBOR library finds nothing to shorten, and every map in order.
#[test]
fn encodings_are_deterministic_cbor() {
    use coset::cbor::{self, Value};
    fn in_order(value: &Value) -> bool {
        match value {
            Value::Map(entries) => {
                let keys: Vec<i128> =
                    entries.iter().map(|(key, _)| key.as_integer().expect("integer keys").into()).collect();
                keys.windows(2).all(|pair| pair[0] < pair[1])
                    && entries.iter().all(|(_, value)| in_order(value))
            }
            Value::Array(items) => items.iter().all(in_order),
            Value::Tag(_, value) => in_order(value),
            _ => true,
        }
    }
    let receipt = Signed::sign(samples::receipt(), &samples::worker());
    let encodings = [
        samples::request().to_cbor(),
        samples::order().to_cbor(),
        samples::acceptance().to_cbor(),
        samples::progress().to_cbor(),
        samples::voucher().to_cbor(),
        samples::receipt().to_cbor(),
        samples::refusal().to_cbor(),
        samples::manifest().to_cbor(),
        samples::envelope(&receipt).to_cbor(),
        samples::statement().to_cbor(),
        samples::status().to_cbor(),
        receipt.bytes().to_vec(),
    ];
    for bytes in encodings {
        let value: Value = cbor::de::from_reader(&bytes[..]).unwrap();
        assert!(in_order(&value), "{value:?}");
        let mut again = Vec::new();
        cbor::ser::into_writer(&value, &mut again).unwrap();
        assert_eq!(again, bytes);
    }
}

// ---- bounds ----

#[test]
fn the_largest_receipt_fits() {
    let receipt = Receipt {
        outcome: Outcome::Failed {
            code: FailureCode::DeadlineExceeded,
            message: Text::clipped("é".repeat(999)),
        },
        arithmetic: u32::MAX,
        prompt_tokens: u32::MAX,
        cached_tokens: u32::MAX,
        output_tokens: u32::MAX,
        finish: FinishReason::Failed,
        price: Price { prompt: Amount(u128::MAX), cached: Amount(u128::MAX), output: Amount(u128::MAX) },
        charge: Amount(u128::MAX),
        accepted_ms: u64::MAX,
        first_token_ms: Some(u64::MAX),
        done_ms: u64::MAX,
        software: Text::clipped("x".repeat(999)),
        ..samples::receipt()
    };
    let signed = Signed::sign(receipt, &samples::worker());
    assert!(signed.bytes().len() <= MAX_SIGNED_RECEIPT_BYTES, "{} bytes", signed.bytes().len());
    assert_eq!(Signed::<Receipt>::open(signed.bytes()).unwrap(), signed);
}

#[test]
fn every_kind_fits_its_bound() {
    fn check<T: Signable>(value: T, key: &SecretKey) {
        let payload = value.to_cbor().len();
        let signed = Signed::sign(value, key);
        assert!(signed.bytes().len() - payload <= OVERHEAD_BYTES, "{}", T::NAME);
        assert!(signed.bytes().len() <= Signed::<T>::MAX_BYTES, "{}", T::NAME);
        assert!(matches!(
            Signed::<T>::open(&vec![0; Signed::<T>::MAX_BYTES + 1]),
            Err(OpenError::TooLong { .. })
        ));
    }
    let most = Amount(u128::MAX);
    let price = Price { prompt: most, cached: most, output: most };
    check(
        Order {
            choice: u32::MAX,
            seed: Seed::Caller(i64::MIN),
            sampling: Sampling {
                top_k: u32::MAX,
                logit_bias: (0..1024).map(|token| (u32::MAX - 1024 + token, -100.0)).collect(),
                ..Sampling::default()
            },
            max_output_tokens: 0,
            resumed: Some(Resumed {
                output_tokens: order::MAX_OUTPUT_TOKENS,
                output_digest: samples::digest(13),
            }),
            deadline_ms: u64::MAX,
            issued_ms: u64::MAX - 1,
            price_ceiling: price,
            channel: Some(samples::digest(0)),
            disclosure: Some(Disclosure::Payer),
            ..samples::order()
        },
        &samples::payer(),
    );
    check(
        Acceptance {
            price,
            deadline_ms: u64::MAX,
            accepted_ms: u64::MAX,
            prompt_tokens: u32::MAX,
            max_output_tokens: u32::MAX,
            region: Some(Region::new("a".repeat(region::MAX_REGION_BYTES)).unwrap()),
            ..samples::acceptance()
        },
        &samples::worker(),
    );
    check(Progress { output_tokens: u32::MAX, at_ms: u64::MAX, ..samples::progress() }, &samples::worker());
    let channel = Channel { withdraw_delay_s: (1 << 40) - 1, ..samples::channel() };
    let dearest =
        Voucher { channel, max_claimable: u128::MAX, covered_output_tokens: u32::MAX, ..samples::voucher() };
    assert!(dearest.try_to_cbor().is_ok());
    let receipt = Signed::sign(samples::receipt(), &samples::worker());
    let envelope = samples::envelope(&receipt);
    let part = Part {
        first_output_token: u32::MAX,
        output_tokens: u32::MAX,
        purpose: Some(Purpose::Check),
        ..envelope.parts[0].clone()
    };
    check(
        Envelope {
            request_id: "x".repeat(256),
            model_name: "x".repeat(256),
            parts: vec![part; envelope::MAX_PARTS],
            received_ms: u64::MAX,
            first_byte_ms: u64::MAX,
            done_ms: u64::MAX,
            charge: most,
            ..envelope
        },
        &samples::gateway(),
    );
    let stated = samples::statement();
    let decision = Decision {
        at_ms: u64::MAX,
        qualified: u32::MAX,
        best: vec![samples::worker().public(); statement::MAX_CANDIDATES],
        removed: vec![
            KeptOut { constraint: Text::clipped("x".repeat(64)), workers: u32::MAX };
            statement::MAX_REMOVED
        ],
    };
    let event = StatedEvent {
        at_ms: u64::MAX,
        what: What::StoodStill,
        worker: Some(samples::worker().public()),
        order: Some(samples::digest(1)),
        tokens: u32::MAX,
        why: Text::clipped("x".repeat(160)),
    };
    check(
        Statement {
            request_id: "x".repeat(256),
            model_name: "x".repeat(256),
            path: Text::clipped("x".repeat(64)),
            received_ms: u64::MAX,
            ended_ms: u64::MAX,
            end: StatedEnd::Failed {
                code: Text::clipped("x".repeat(64)),
                message: Text::clipped("x".repeat(1024)),
                accountable: Text::clipped("x".repeat(16)),
                worker: Some(samples::worker().public()),
            },
            charge: most,
            decisions: vec![decision; statement::MAX_DECISIONS],
            events: vec![event; statement::MAX_EVENTS],
            left_out: u32::MAX,
            ..stated
        },
        &samples::gateway(),
    );
}

#[test]
fn lists_are_bounded_before_they_are_read() {
    // {0: [0, {0: [..]}], 1: a list that says it has 2^60 stop strings}
    let mut bytes = vec![0xa2, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x60, 0x01, 0x9b];
    bytes.extend((1u64 << 60).to_be_bytes());
    let error = Request::from_cbor(&bytes).unwrap_err();
    assert!(matches!(&error, DecodeError::Malformed { source, .. } if source.to_string().contains("longer")));

    let request = Request { stop: vec!["x".into(); 17], ..samples::request() };
    assert_eq!(
        request.try_to_cbor().unwrap_err().to_string(),
        "`stop` holds 17 strings; at most 16 are allowed"
    );
    let request = Request { stop: vec![String::new()], ..samples::request() };
    assert_eq!(request.check().unwrap_err().field, "stop");
    let request =
        Request { prompt: Prompt::Text("x".repeat(request::MAX_REQUEST_BYTES)), ..samples::request() };
    assert_eq!(request.try_to_cbor().unwrap_err().field, "request");
    let request = Request { logprobs: Some(21), ..samples::request() };
    assert_eq!(request.check().unwrap_err().field, "logprobs");
}

#[test]
fn tools_and_calls_are_json_within_bounds() {
    let check = |field: &str, problem: &str, change: &dyn Fn(&mut Vec<Message>, &mut Vec<String>)| {
        let mut request = samples::request();
        let Prompt::Chat { messages, tools } = &mut request.prompt else { panic!("a chat") };
        change(messages, tools);
        let invalid = request.check().unwrap_err();
        assert_eq!(invalid.field, field);
        assert!(invalid.problem.contains(problem), "{invalid}");
    };
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    check("tools", "at byte 1", &|_, tools| tools[0] = "{ }".into());
    check("tools", "holds 129 tools", &|_, tools| tools.resize(129, "{}".into()));
    check("tools", "bytes in one tool", &|_, tools| tools[0] = long(request::MAX_TOOL_BYTES));
    check("arguments", "no object", &|messages, _| messages[2].tool_calls[0].arguments = "[]".into());
    check("arguments", "bytes", &|messages, _| {
        messages[2].tool_calls[0].arguments = long(request::MAX_ARGUMENTS_BYTES);
    });
    check("id", "257 bytes", &|messages, _| messages[2].tool_calls[0].id = "x".repeat(257));
    check("tool_call_id", "257 bytes", &|messages, _| messages[3].tool_call_id = Some("x".repeat(257)));
    check("tool_calls", "holds 129 calls", &|messages, _| {
        let call = messages[2].tool_calls[0].clone();
        messages[2].tool_calls = vec![call; 129];
    });
}

#[test]
fn only_what_an_upstream_serves_is_said_to_be_another_model() {
    let id = samples::manifest().id();
    let claimed = Manifest { claims: Some(id), ..samples::manifest() };
    assert_eq!(claimed.check().unwrap_err().field, "claims");
    let upstream = samples::upstream_manifest();
    assert_eq!((upstream.claims, upstream.is_by_word()), (Some(id), true));
    assert_ne!(upstream.id(), Manifest { claims: None, ..upstream.clone() }.id());
    let computed = Manifest { width: 1, ..upstream };
    assert_eq!(computed.check().unwrap_err().field, "arithmetic");
}

#[test]
fn parameters_out_of_range_are_named() {
    fn check(field: &str, change: impl FnOnce(&mut Sampling)) {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        assert_eq!(sampling.check().unwrap_err().field, field);
    }
    assert!(Sampling::default().check().is_ok());
    check("temperature", |s| s.temperature = f32::NAN);
    check("temperature", |s| s.temperature = 2.1);
    check("top_p", |s| s.top_p = -0.1);
    check("min_p", |s| s.min_p = f32::INFINITY);
    check("repetition_penalty", |s| s.repetition_penalty = 0.0);
    check("presence_penalty", |s| s.presence_penalty = -2.5);
    check("frequency_penalty", |s| s.frequency_penalty = f32::NEG_INFINITY);
    check("logit_bias", |s| s.logit_bias = vec![(1, 101.0)]);
    check("logit_bias", |s| s.logit_bias = vec![(2, 1.0), (1, 1.0)]);
    check("logit_bias", |s| s.logit_bias = vec![(1, 1.0), (1, 1.0)]);
    check("logit_bias", |s| s.logit_bias = (0..1025).map(|token| (token, 1.0)).collect());
}

// ---- one encoding ----

/// Other encodings of the same request: each decodes, loosely read, to the same value, and each is refused.
#[test]
fn other_encodings_of_a_value_are_refused() {
    let request = Request {
        prompt: Prompt::Text("a".into()),
        stop: vec![],
        logprobs: Some(1),
        prompt_logprobs: None,
        date: None,
        embedding: None,
        grammar: None,
    };
    let canonical = [0xa3, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01];
    assert_eq!(request.to_cbor(), canonical);
    assert_eq!(Request::from_cbor(&canonical).unwrap(), request);
    let others: [(&str, &[u8]); 8] = [
        ("keys out of order", &[0xa3, 0x01, 0x80, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x02, 0x01]),
        ("a long integer", &[0xa3, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x18, 0x01]),
        (
            "an indefinite map",
            &[0xbf, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01, 0xff],
        ),
        (
            "an unknown key",
            &[0xa4, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01, 0x09, 0x00],
        ),
        (
            "a repeated key",
            &[0xa4, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01, 0x02, 0x01],
        ),
        (
            "an explicit null",
            &[0xa4, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01, 0x03, 0xf6],
        ),
        ("trailing bytes", &[0xa3, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x61, b'a', 0x01, 0x80, 0x02, 0x01, 0x00]),
        ("a long length", &[0xa3, 0x00, 0x82, 0x01, 0xa1, 0x00, 0x78, 0x01, b'a', 0x01, 0x80, 0x02, 0x01]),
    ];
    for (what, bytes) in others {
        assert!(matches!(Request::from_cbor(bytes), Err(DecodeError::NotCanonical { .. })), "{what}");
    }
}

/// Every change of one byte of a signed message, to any other value, is refused.
#[test]
fn every_changed_byte_is_refused() {
    fn check<T: Signable + PartialEq + std::fmt::Debug>(value: T, key: &SecretKey) {
        let signed = Signed::sign(value, key);
        assert_eq!(Signed::<T>::open(signed.bytes()).unwrap(), signed);
        for index in 0..signed.bytes().len() {
            for flip in [0x01, 0x80, 0xff, 0x20] {
                let mut bytes = signed.bytes().to_vec();
                bytes[index] ^= flip;
                assert!(Signed::<T>::open(&bytes).is_err(), "{} byte {index} ^ {flip:02x}", T::NAME);
                assert!(Signed::<T>::open_by(&bytes, &key.public()).is_err());
            }
        }
    }
    check(samples::order(), &samples::payer());
    check(samples::acceptance(), &samples::worker());
    check(samples::receipt(), &samples::worker());
    check(samples::refusal(), &samples::worker());
    check(samples::progress(), &samples::worker());
    let receipt = Signed::sign(samples::receipt(), &samples::worker());
    check(samples::envelope(&receipt), &samples::gateway());
    check(samples::statement(), &samples::gateway());
}

#[test]
fn signatures_are_bound_to_kind_and_signer() {
    let worker = samples::worker();
    let receipt = samples::receipt();
    let signed = Signed::sign(receipt.clone(), &worker);
    assert!(matches!(
        cose::verify(signed.bytes(), Kind::Acceptance, &worker.public()),
        Err(OpenError::NotCanonical { kind: Kind::Acceptance })
    ));
    assert!(matches!(
        Signed::<Receipt>::open_by(signed.bytes(), &samples::payer().public()),
        Err(OpenError::WrongSigner { .. })
    ));
    // Signed by a key that the receipt does not name.
    let other = cose::sign(&samples::payer(), Kind::Receipt, &receipt.to_cbor());
    assert!(matches!(Signed::<Receipt>::open(&other), Err(OpenError::WrongSigner { .. })));
    // The right header, another's signature.
    let mut forged = signed.bytes().to_vec();
    let end = forged.len();
    forged[end - 64..].copy_from_slice(&samples::payer().sign(b"anything"));
    assert!(matches!(Signed::<Receipt>::open(&forged), Err(OpenError::BadSignature { .. })));
}

#[test]
#[should_panic(expected = "signed by the party it names")]
fn nobody_signs_for_another() {
    Signed::sign(samples::receipt(), &samples::payer());
}

// ---- evidence ----

#[test]
fn evidence_survives_reformatting_and_nothing_else() {
    let evidence = samples::evidence();
    let json = evidence.to_json().unwrap();
    assert_eq!(Evidence::parse(json.as_bytes()).unwrap(), evidence);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    assert_eq!(Evidence::parse(pretty.as_bytes()).unwrap(), evidence);

    let refused = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        let edited = json.replacen(from, to, 1);
        match Evidence::parse(edited.as_bytes()) {
            Ok(_) => panic!("{from} → {to} went unnoticed"),
            Err(error) => error,
        }
    };
    assert!(matches!(refused(r#""temperature":"0.7""#, r#""temperature":"0.6""#), EvidenceError::View(_)));
    assert!(matches!(refused(r#""output_tokens":3"#, r#""output_tokens":4"#), EvidenceError::View(_)));
    assert!(matches!(refused(r#""choice":0,"#, ""), EvidenceError::View(_)));
    assert!(matches!(refused(r#""choice":0,"#, r#""choice":0,"choice":0,"#), EvidenceError::View(_)));
    assert!(matches!(refused(r#""view":{"#, r#""view":{"note":"all good","#), EvidenceError::View(_)));
    assert!(matches!(refused(r#""choice":0,"#, r#""choice":0.0,"#), EvidenceError::View(_)));
    assert!(matches!(refused(r#""surety":1"#, r#""surety":2"#), EvidenceError::Version(2)));
    assert!(matches!(
        refused(r#""request_id":"req-1""#, r#""request_id":"req-2""#),
        EvidenceError::RequestId
    ));
    assert!(matches!(refused(r#""surety":1"#, r#""surety":1,"extra":1"#), EvidenceError::Malformed(_)));
    assert!(matches!(refused(r#""prompt_ids":null"#, r#""prompt_id":null"#), EvidenceError::Malformed(_)));
    assert!(matches!(refused(r#","prompt_ids":null"#, ""), EvidenceError::Malformed(_)));
    assert!(matches!(refused(r#""salt":"0404"#, r#""salt":"040404"#), EvidenceError::Malformed(_)));
    let empty = Evidence { answers: vec![], ..evidence };
    assert!(matches!(empty.to_json(), Err(EvidenceError::Answers(0))));
}

/// Every bit of an evidence file, changed: refused, or read as other evidence. That other evidence holds in no case is
/// for `surety_proof` to test.
#[test]
fn no_bit_of_evidence_is_without_meaning() {
    let evidence = samples::evidence();
    let json = evidence.to_json().unwrap().into_bytes();
    for index in 0..json.len() {
        for bit in 0..8 {
            let mut edited = json.clone();
            edited[index] ^= 1 << bit;
            if let Ok(read) = Evidence::parse(&edited) {
                assert_ne!(read, evidence, "bit {bit} of byte {index} went unnoticed");
            }
        }
    }
}

// ---- properties ----

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn amounts() -> impl Strategy<Value = Amount> {
    prop_oneof![any::<u64>().prop_map(|small| Amount(small.into())), any::<u128>().prop_map(Amount)]
}

fn prices() -> impl Strategy<Value = Price> {
    (amounts(), amounts(), amounts()).prop_map(|(prompt, cached, output)| Price { prompt, cached, output })
}

fn requests() -> impl Strategy<Value = Request> {
    let json = prop_oneof![Just("{}"), Just(r#"{"a":[1,2.5,"é"],"b":null}"#), Just(r#"{"n":{"m":{}}}"#)];
    let json = json.prop_map(str::to_owned);
    let call = (".{0,20}", ".{0,20}", json.clone()).prop_map(|(id, name, arguments)| ToolCall {
        id,
        name,
        arguments,
    });
    let message = (
        ".{0,20}",
        ".{0,80}",
        prop::option::of(".{0,20}"),
        prop::collection::vec(call, 0..3),
        prop::option::of(".{0,20}"),
    )
        .prop_map(|(role, content, name, tool_calls, tool_call_id)| Message {
            role,
            content,
            name,
            tool_calls,
            tool_call_id,
        });
    let chat = (prop::collection::vec(message, 1..5), prop::collection::vec(json, 0..3));
    let prompt = prop_oneof![
        chat.prop_map(|(messages, tools)| Prompt::Chat { messages, tools }),
        ".{0,200}".prop_map(Prompt::Text),
        prop::collection::vec(any::<u32>(), 0..100).prop_map(Prompt::Tokens),
    ];
    let date =
        (1u16..=9999, 1u8..=12, 1u8..=28).prop_map(|(year, month, day)| CivilDate { year, month, day });
    (
        prompt,
        prop::collection::vec(".{1,40}", 0..=16),
        prop::option::of(0u8..=20),
        prop::option::of(0u8..=20),
        prop::option::of(date),
        prop::option::of(".{0,80}"),
        prop::option::of(prop::option::of(1..=MAX_DIMENSIONS)),
    )
        .prop_map(
            |(prompt, stop, logprobs, prompt_logprobs, date, grammar, embedding)| match embedding {
                None => Request { prompt, stop, logprobs, prompt_logprobs, date, grammar, embedding: None },
                Some(dimensions) => Request {
                    prompt,
                    stop: vec![],
                    logprobs: None,
                    prompt_logprobs: None,
                    date,
                    grammar: None,
                    embedding: Some(Embedding { dimensions }),
                },
            },
        )
}

fn samplings() -> impl Strategy<Value = Sampling> {
    (
        (0f32..=2.0, any::<u32>(), 0f32..=1.0, 0f32..=1.0),
        (0.01f32..=10.0, -2f32..=2.0, -2f32..=2.0),
        (prop::collection::btree_map(any::<u32>(), -100f32..=100.0, 0..20), prop::option::of(digests())),
    )
        .prop_map(
            |((temperature, top_k, top_p, min_p), (repetition, presence, frequency), (biases, grammar))| {
                Sampling {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    repetition_penalty: repetition,
                    presence_penalty: presence,
                    frequency_penalty: frequency,
                    logit_bias: biases.into_iter().collect(),
                    grammar,
                }
            },
        )
}

fn orders() -> impl Strategy<Value = Order> {
    (
        (digests(), digests(), any::<[u8; 32]>(), prop::option::of(any::<i64>()), any::<u32>()),
        (samplings(), 0..=order::MAX_OUTPUT_TOKENS, any::<bool>()),
        (any::<u32>(), 1..u64::MAX / 2, prices(), prop::option::of(digests())),
        (prop::option::of((1..=order::MAX_OUTPUT_TOKENS, digests())), any::<bool>()),
    )
        .prop_map(
            |(
                (model, request_digest, nonce, seed, choice),
                (sampling, max_output_tokens, ignore_end),
                (issued, length, price_ceiling, channel),
                (resumed, confidential),
            )| Order {
                version: order::ORDER_VERSION,
                model: ModelId(model),
                request_digest,
                nonce,
                seed: seed.map_or(Seed::Nonce, Seed::Caller),
                choice,
                sampling,
                max_output_tokens: max_output_tokens
                    .min(order::MAX_OUTPUT_TOKENS - resumed.map_or(0, |(output_tokens, _)| output_tokens)),
                ignore_end,
                resumed: resumed
                    .map(|(output_tokens, output_digest)| Resumed { output_tokens, output_digest }),
                disclosure: confidential.then_some(Disclosure::Payer),
                deadline_ms: u64::from(issued) + length,
                price_ceiling,
                channel,
                payer: samples::payer().public(),
                issued_ms: issued.into(),
            },
        )
}

fn receipts() -> impl Strategy<Value = Receipt> {
    let codes = prop::sample::select(vec![
        FailureCode::BadRequest,
        FailureCode::ContextLengthExceeded,
        FailureCode::Overloaded,
        FailureCode::NonFinite,
        FailureCode::DeadlineExceeded,
        FailureCode::Leaving,
    ]);
    let outcome = prop_oneof![
        prop::sample::select(vec![
            FinishReason::Stop,
            FinishReason::Length,
            FinishReason::Cancelled,
            FinishReason::Unpaid
        ])
        .prop_map(|finish| (Outcome::Completed, finish)),
        (codes, ".{0,600}").prop_map(|(code, message)| (
            Outcome::Failed { code, message: Text::clipped(message) },
            FinishReason::Failed
        )),
    ];
    (
        (outcome, digests(), digests(), any::<[u8; 32]>(), prices(), amounts()),
        (any::<u32>(), any::<u32>(), any::<u32>(), ".{0,90}"),
        (any::<u32>(), any::<u32>(), any::<u32>()),
    )
        .prop_map(
            |(
                ((outcome, finish), one, two, seed, price, charge),
                (prompt, cached, output_tokens, software),
                (accepted, to_first, to_done),
            )| {
                let first = u64::from(accepted) + u64::from(to_first);
                Receipt {
                    outcome,
                    finish,
                    order: one,
                    output_digest: two,
                    seed,
                    price,
                    charge,
                    prompt_tokens: prompt.max(cached),
                    cached_tokens: prompt.min(cached),
                    output_tokens,
                    accepted_ms: accepted.into(),
                    first_token_ms: (output_tokens > 0).then_some(first),
                    done_ms: first + u64::from(to_done),
                    software: Text::clipped(software),
                    ..samples::receipt()
                }
            },
        )
}

fn from_workers() -> impl Strategy<Value = FromWorker> {
    let logprob = (any::<u32>(), prop::collection::vec(any::<u8>(), 0..8), any::<f32>(), 0usize..=20)
        .prop_map(|(token, bytes, logprob, top)| {
            let logprob = if logprob.is_nan() { f32::NEG_INFINITY } else { logprob };
            TokenLogprob {
                token,
                top: vec![Alternative { token, bytes: bytes.clone(), logprob }; top],
                bytes,
                logprob,
            }
        });
    let logprobs = prop::collection::vec(logprob, 1..6);
    let bytes = || prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        bytes().prop_map(FromWorker::Acceptance),
        (any::<u32>(), logprobs.clone(), ".{0,20}", any::<bool>()).prop_map(
            |(index, logprobs, text, shown)| {
                let tokens = logprobs.iter().map(|logprob| logprob.token).collect();
                FromWorker::Frame { index, tokens, text, logprobs: if shown { logprobs } else { vec![] } }
            }
        ),
        (any::<u32>(), logprobs).prop_map(|(index, logprobs)| FromWorker::Prompt {
            index,
            ids: logprobs.iter().map(|logprob| logprob.token).collect(),
            logprobs
        }),
        bytes().prop_map(FromWorker::Progress),
        (bytes(), any::<[u8; 32]>()).prop_map(|(receipt, salt)| FromWorker::Receipt { receipt, salt }),
        prop::collection::vec(-1f32..=1.0, 1..40).prop_map(|v| FromWorker::Embedding(vector_bytes(&v))),
    ]
}

fn vouchers() -> impl Strategy<Value = Voucher> {
    let accounts = || any::<[u8; 20]>().prop_map(alloy_primitives::Address::from);
    (
        (accounts(), accounts(), accounts(), accounts(), accounts()),
        (
            0u64..1 << 40,
            digests(),
            amounts(),
            prop::collection::vec(any::<u8>(), 65),
            digests(),
            any::<u32>(),
        ),
    )
        .prop_map(
            |(
                (payer, payer_authorizer, receiver, receiver_authorizer, token),
                (withdraw_delay_s, salt, most, signature, order, covered_output_tokens),
            )| Voucher {
                channel: Channel {
                    payer,
                    payer_authorizer,
                    receiver,
                    receiver_authorizer,
                    token,
                    withdraw_delay_s,
                    salt,
                },
                max_claimable: most.0,
                signature: signature.try_into().expect("65 bytes"),
                order,
                covered_output_tokens,
            },
        )
}

fn to_workers() -> impl Strategy<Value = ToWorker> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        (bytes(), bytes(), prop::collection::vec(any::<u32>(), 0..20))
            .prop_map(|(order, request, output)| ToWorker::Order { order, request, output }),
        vouchers().prop_map(|voucher| ToWorker::Voucher(Box::new(voucher))),
        Just(ToWorker::Cancel),
    ]
}

/// A value survives; and whatever a changed encoding decodes to, it is that encoding's own value.
fn check_codec<T: Canonical + PartialEq + std::fmt::Debug>(
    value: T,
    index: prop::sample::Index,
    byte: u8,
) -> Result<(), TestCaseError> {
    let bytes = value.to_cbor();
    prop_assert!(bytes.len() <= T::MAX_BYTES);
    prop_assert_eq!(&T::from_cbor(&bytes).unwrap(), &value);
    let mut changed = bytes.clone();
    changed[index.index(bytes.len())] = byte;
    if let Ok(other) = T::from_cbor(&changed) {
        prop_assert_eq!(other.to_cbor(), changed.clone());
        prop_assert_eq!(changed == bytes, other == value);
    }
    changed.truncate(index.index(bytes.len()));
    prop_assert!(T::from_cbor(&changed).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn requests_survive(value in requests(), index: prop::sample::Index, byte: u8) {
        check_codec(value, index, byte)?;
    }

    #[test]
    fn orders_survive(value in orders(), index: prop::sample::Index, byte: u8) {
        check_codec(value.clone(), index, byte)?;
        let signed = Signed::sign(value, &samples::payer());
        prop_assert_eq!(Signed::open(signed.bytes()).unwrap(), signed);
    }

    #[test]
    fn receipts_survive(value in receipts(), index: prop::sample::Index, byte: u8) {
        check_codec(value.clone(), index, byte)?;
        let signed = Signed::sign(value, &samples::worker());
        prop_assert!(signed.bytes().len() <= MAX_SIGNED_RECEIPT_BYTES);
        prop_assert_eq!(&Signed::<Receipt>::open(signed.bytes()).unwrap(), &signed);
        let mut changed = signed.bytes().to_vec();
        let place = index.index(changed.len());
        changed[place] = byte;
        prop_assert_eq!(Signed::<Receipt>::open(&changed).is_ok(), changed == signed.bytes());
    }

    #[test]
    fn messages_survive(
        down in to_workers(), up in from_workers(), index: prop::sample::Index, byte: u8,
    ) {
        check_codec(down, index, byte)?;
        check_codec(up, index, byte)?;
    }

    #[test]
    fn vouchers_survive(value in vouchers(), index: prop::sample::Index, byte: u8) {
        check_codec(value.channel.clone(), index, byte)?;
        check_codec(value, index, byte)?;
    }

    #[test]
    fn statuses_survive(index: prop::sample::Index, byte: u8) {
        check_codec(samples::status(), index, byte)?;
        check_codec(samples::manifest(), index, byte)?;
        check_codec(Manifest { plan: None, ..samples::manifest() }, index, byte)?;
        check_codec(samples::upstream_manifest(), index, byte)?;
        check_codec(Manifest::upstream("big", 4096, None), index, byte)?;
        check_codec(StatusRequest {}, index, byte)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fn check<T: Canonical>(bytes: &[u8]) {
            if let Ok(value) = T::from_cbor(bytes) {
                assert_eq!(value.to_cbor(), bytes);
            }
        }
        check::<Request>(&bytes);
        check::<Order>(&bytes);
        check::<Acceptance>(&bytes);
        check::<Progress>(&bytes);
        check::<Voucher>(&bytes);
        check::<Receipt>(&bytes);
        check::<Manifest>(&bytes);
        check::<Envelope>(&bytes);
        check::<Statement>(&bytes);
        check::<ToWorker>(&bytes);
        check::<FromWorker>(&bytes);
        check::<WorkerStatus>(&bytes);
        for kind in Kind::ALL {
            prop_assert!(cose::verify(&bytes, kind, &samples::worker().public()).is_err());
            let _ = cose::peek(&bytes, kind);
        }
        prop_assert!(Evidence::parse(&bytes).is_err());
        prop_assert!(Dossier::parse(&bytes).is_err() && !Dossier::is_meant(&bytes));
    }

    #[test]
    fn arbitrary_payloads_are_signed_and_verified(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in Kind::ALL {
            let bytes = cose::sign(&samples::worker(), kind, &payload);
            prop_assert_eq!(cose::verify(&bytes, kind, &samples::worker().public()).unwrap(), &payload[..]);
            prop_assert!(bytes.len() <= payload.len() + OVERHEAD_BYTES);
        }
    }

    #[test]
    fn arbitrary_json_never_panics(text in r#"[\[\]{}",:0-9a-z\\ ]{0,200}"#) {
        prop_assert!(Evidence::parse(text.as_bytes()).is_err());
    }
}
