//! The two voices agree: what `surety_types` and `surety_proof` say of evidence, this crate says, for the same reason and with the same list of
//! what was checked. On real evidence, on every forgery of the packages' tests, and on over ten thousand mutations of them.
//!
//! With `SURETY_AGREEMENT=PATH` every case is written there with its verdict, for the WebAssembly that pages load: `.ci/verifier`.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use surety_proof::{Check, EvidenceFault, Expected, Fault as AnswerFault, Unchecked, check_evidence};
use surety_types::{
    Acceptance, Envelope, Evidence, EvidenceError, Kind, OpenError, Order, Receipt, SecretKey, Signed, cose,
};
use surety_verifier::{CHECKS, Fault, Found, NOT_CHECKED};

const REAL: [&str; 5] = ["chat", "choices", "tokens", "embedding", "resumed"];
const MUTATIONS: usize = 11_000;

/// What the native checkers say: what was checked of the envelope and of each answer, or the code of the first fault, if one code is due.
type Verdict = Result<Vec<(Vec<&'static str>, Vec<&'static str>)>, Option<&'static str>>;

fn native(json: &[u8]) -> Verdict {
    let evidence = Evidence::parse(json).map_err(|error| match error {
        EvidenceError::View(_) => Some("view"),
        EvidenceError::RequestId => Some("request_id"),
        EvidenceError::TooLong { .. } => Some("too_long"),
        // One reader stops at the first of several things that are wrong with a file, another at another.
        _ => None,
    })?;
    let report = check_evidence(&evidence, None, &Expected::default()).map_err(|fault| Some(code(&fault)))?;
    let whole = (names(&report.checked), left(&report.unchecked));
    Ok([whole]
        .into_iter()
        .chain(report.answers.iter().map(|one| (names(&one.checked), left(&one.unchecked))))
        .collect())
}

fn code_of(fault: Fault) -> &'static str {
    Fault::ALL.iter().find(|(one, _)| *one == fault).expect("a fault has a code").1
}

fn said(found: &Found) -> (Vec<&'static str>, Vec<&'static str>) {
    let list = |bits: surety_verifier::Bits, all: &[&'static str]| {
        let mut names: Vec<_> =
            all.iter().enumerate().filter(|(n, _)| bits.has(*n)).map(|(_, name)| *name).collect();
        names.sort_unstable();
        names
    };
    (list(found.checked, CHECKS), list(found.unchecked, NOT_CHECKED))
}

/// Compares the two on a case; whether it holds.
fn compare(json: &[u8], log: &mut Option<fs::File>) -> bool {
    let (native, ours) = (native(json), surety_verifier::verify(json));
    let shown = || String::from_utf8_lossy(&json[..json.len().min(20_000)]).into_owned();
    match (&native, &ours) {
        (Ok(native), Ok(report)) => {
            let found: Vec<_> =
                [said(&report.envelope)].into_iter().chain(report.answers.iter().map(said)).collect();
            assert_eq!(*native, found, "{}", shown());
        }
        (Err(Some(native)), Err(ours)) => assert_eq!(*native, code_of(ours.fault), "{}", shown()),
        (Err(None), Err(_)) => {}
        _ => panic!("native: {native:?}, here: {ours:?}, of {}", shown()),
    }
    if let Some(log) = log {
        // As `page` says it.
        let number = match &ours {
            Ok(_) => 0,
            Err(refusal) => {
                (1 + refusal.fault as u32) | refusal.answer.map_or(0, |answer| (1 + answer as u32) << 8)
            }
        };
        let head = [(json.len() as u32).to_le_bytes(), number.to_le_bytes()].concat();
        log.write_all(&head).and_then(|()| log.write_all(json)).expect("the log can be written");
    }
    ours.is_ok()
}

#[test]
fn the_voices_agree() {
    let mut log = std::env::var_os("SURETY_AGREEMENT").map(|path| fs::File::create(path).expect("a file"));
    let mut random = Random(0x5eed);
    let good = good();
    for (name, case) in &good {
        assert!(compare(case.as_bytes(), &mut log), "{name} holds");
    }
    let forged = forged();
    let mut codes = BTreeMap::new();
    for (name, code, case) in &forged {
        assert!(!compare(case.as_bytes(), &mut log), "{name} is refused");
        *codes.entry(code.clone()).or_insert(0) += 1;
    }
    assert!(codes.len() > 40, "the forgeries break most rules");

    let mut held = 0;
    let all: Vec<&String> =
        good.iter().map(|(_, case)| case).chain(forged.iter().map(|(_, _, case)| case)).collect();
    for _ in 0..MUTATIONS {
        let among = if random.below(3) == 0 { all.len() } else { good.len() };
        let base = all[random.below(among)];
        let other = all[random.below(good.len())];
        let case = match random.below(8) {
            0 | 1 => bytes(base.as_bytes().to_vec(), &mut random),
            2 | 3 => field(base, &mut random),
            4 => swap(base, other, &mut random),
            5 => json_edit(base, other, &mut random),
            _ => signed_anew(&mut random),
        };
        held += usize::from(compare(&case, &mut log));
    }
    // Both verdicts occur often enough to say something.
    assert!((200..MUTATIONS - 2_000).contains(&held), "{held} of {MUTATIONS} hold");
}

/// a list of an object's fields is no object.
#[test]
fn what_is_to_be_an_object_is_no_list() {
    let real: Value =
        serde_json::from_slice(&fs::read(testdata("chat.json")).expect("evidence")).expect("JSON");
    let list =
        |of: &Value, names: &[&str]| Value::Array(names.iter().map(|name| of[*name].clone()).collect());
    let mut answer = real.clone();
    answer["answers"][0] = list(
        &real["answers"][0],
        &[
            "order",
            "request",
            "acceptance",
            "receipt",
            "progress",
            "salt",
            "output_ids",
            "resumed_ids",
            "text",
            "channel",
            "prompt_ids",
            "embedding",
        ],
    );
    let file = list(&real, &["surety", "request_id", "envelope", "answers", "view"]);
    for case in [answer, file] {
        assert!(!compare(case.to_string().as_bytes(), &mut None), "{case}");
    }
}

/// The pages word each number: their lists are in its order.
#[test]
fn the_pages_have_a_word_for_every_number() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/src/shared/receipt/words.ts");
    let words = fs::read_to_string(path).expect("the pages' words");
    let keys = |list: &str| -> Vec<String> {
        let (_, rest) = words.split_once(&format!("export const {list} = {{\n")).expect("a list");
        let lines = rest.split_once("\n} as const").expect("its end").0.lines();
        lines
            .filter_map(|line| line.strip_prefix("  ")?.split_once(": '").map(|(key, _)| key.to_owned()))
            .collect()
    };
    let codes: Vec<&str> = Fault::ALL.iter().map(|(_, code)| *code).collect();
    assert_eq!(keys("FAULTS"), codes);
    assert_eq!(keys("CHECKS"), CHECKS);
    assert_eq!(keys("NOT_CHECKED"), NOT_CHECKED);
}

/// an edit of any byte of a file is refused, or changes nothing that is signed.
#[test]
fn no_byte_can_be_edited_unnoticed() {
    let real = fs::read(testdata("chat.json")).expect("evidence");
    let original = Evidence::parse(&real).expect("evidence");
    let mut random = Random(7);
    let mut refused = 0;
    for at in 0..real.len() {
        let mut edited = real.clone();
        while edited[at] == real[at] {
            edited[at] = if random.below(2) == 0 {
                real[at] ^ (1 << random.below(7))
            } else {
                32 + random.below(95) as u8
            };
        }
        if surety_verifier::verify(&edited).is_err() {
            refused += 1;
            continue;
        }
        // Salt and channel are under no signature.
        let mut found = Evidence::parse(&edited).expect("the voices agree");
        for (found, original) in found.answers.iter_mut().zip(&original.answers) {
            (found.salt, found.channel) = (original.salt, original.channel.clone());
        }
        assert_eq!(found, original, "byte {at}");
    }
    assert!(refused > real.len() * 9 / 10, "{refused} of {} were refused", real.len());
}

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/testdata").join(name)
}

fn good() -> Vec<(String, String)> {
    let read = |path: &Path| fs::read_to_string(path).expect("evidence");
    let mut good: Vec<_> =
        REAL.iter().map(|name| ((*name).to_owned(), read(&testdata(&format!("{name}.json"))))).collect();
    let refused = refused();
    good.extend(refused["held"].as_array().expect("a list").iter().map(|case| {
        (case["name"].as_str().expect("a name").to_owned(), case_of(&refused, &case["edits"]).to_string())
    }));
    good.push(("by word".to_owned(), case_of(&refused, &refused["by_word"]).to_string()));
    good.push(("base".to_owned(), base()));
    good
}

/// Name, code and file of each.
fn forged() -> Vec<(String, Option<String>, String)> {
    let refused = refused();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let cases = refused["cases"].as_array().expect("a list");
    cases
        .iter()
        .map(|case| {
            (
                text(&case["name"]).expect("a name"),
                text(&case["code"]),
                case_of(&refused, &case["edits"]).to_string(),
            )
        })
        .collect()
}

fn refused() -> Value {
    serde_json::from_slice(&fs::read(testdata("refused.json")).expect("forgeries")).expect("JSON")
}

/// The base with edits by path.
fn case_of(refused: &Value, edits: &Value) -> Value {
    let mut made = refused["base"].clone();
    let mut edit = |edits: &Value| {
        for edit in edits.as_array().into_iter().flatten() {
            let mut place = &mut made;
            let path = edit[0].as_array().expect("a path");
            for step in path {
                place = match step {
                    Value::String(name) => &mut place[name.as_str()],
                    step => &mut place[step.as_u64().expect("an index") as usize],
                };
            }
            *place = edit[1].clone();
        }
    };
    edit(edits);
    made
}

/// Evidence that holds, signed by keys that are not secret.
fn base() -> String {
    refused()["base"].to_string()
}

/// Xorshift: the same cases everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Bytes changed, left out or put in.
fn bytes(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b" \"\\,:0-e{}[]nt"[random.below(14)],
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, b" \"\\,:0-e{}[]\x00\xff"[random.below(14)]),
        }
    }
    bytes
}

/// A field of one answer changed, and the view written anew if it can be.
fn field(base: &str, random: &mut Random) -> Vec<u8> {
    let Ok(mut evidence) = Evidence::parse(base.as_bytes()) else {
        return bytes(base.as_bytes().to_vec(), random);
    };
    let at = random.below(evidence.answers.len());
    let flip = |bytes: &mut Vec<u8>, random: &mut Random| {
        if !bytes.is_empty() {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
    };
    let answer = &mut evidence.answers[at];
    match random.below(16) {
        0 => flip(&mut evidence.envelope, random),
        1 => flip(&mut answer.order, random),
        2 => flip(&mut answer.request, random),
        3 => answer.acceptance.iter_mut().for_each(|bytes| flip(bytes, random)),
        4 => answer.receipt.iter_mut().for_each(|bytes| flip(bytes, random)),
        5 => answer.progress.iter_mut().for_each(|bytes| flip(bytes, random)),
        6 => answer.salt[random.below(32)] ^= 1,
        7 => answer.salt = [0; 32],
        8 => answer.output_ids.push(random.below(1_000) as u32),
        9 => drop(answer.output_ids.pop()),
        10 => answer.text.push(' '),
        11 => answer.prompt_ids = None,
        12 => answer.prompt_ids = Some(vec![random.below(100) as u32]),
        13 => answer.resumed_ids.push(1),
        14 => answer.channel = Some(vec![1, 2, 3]),
        _ => answer.embedding.iter_mut().for_each(|bytes| flip(bytes, random)),
    }
    written(&evidence, base)
}

/// The file; if its view cannot be written, with the view of `base`.
fn written(evidence: &Evidence, base: &str) -> Vec<u8> {
    if let Ok(json) = evidence.to_json() {
        return json.into_bytes();
    }
    let mut json: Value = serde_json::from_str(base).expect("JSON");
    json["envelope"] = STANDARD.encode(&evidence.envelope).into();
    json["answers"] = serde_json::to_value(&evidence.answers).expect("JSON");
    json.to_string().into_bytes()
}

/// A part of one file in another.
fn swap(base: &str, other: &str, random: &mut Random) -> Vec<u8> {
    let (Ok(mut evidence), Ok(other)) = (Evidence::parse(base.as_bytes()), Evidence::parse(other.as_bytes()))
    else {
        return bytes(base.as_bytes().to_vec(), random);
    };
    let (at, from) = (random.below(evidence.answers.len()), random.below(other.answers.len()));
    let (answer, theirs) = (&mut evidence.answers[at], other.answers[from].clone());
    match random.below(9) {
        0 => answer.order = theirs.order,
        1 => answer.request = theirs.request,
        2 => answer.acceptance = theirs.acceptance,
        3 => answer.receipt = theirs.receipt,
        4 => (answer.text, answer.output_ids) = (theirs.text, theirs.output_ids),
        5 => evidence.answers.push(theirs),
        6 => evidence.answers.reverse(),
        7 => (evidence.envelope, evidence.request_id) = (other.envelope, other.request_id),
        _ => *answer = theirs,
    }
    written(&evidence, base)
}

/// A value somewhere in the JSON left out, repeated, or replaced by another.
fn json_edit(base: &str, other: &str, random: &mut Random) -> Vec<u8> {
    let mut json: Value = serde_json::from_str(base).expect("JSON");
    let other: Value = serde_json::from_str(other).expect("JSON");
    let mut place = &mut json;
    loop {
        let count = match &*place {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if count == 0 || random.below(5) == 0 {
            break;
        }
        let at = random.below(count);
        place = match place {
            Value::Object(fields) => fields.values_mut().nth(at).expect("counted"),
            Value::Array(items) => &mut items[at],
            _ => break,
        };
    }
    match (random.below(6), &mut *place) {
        (0, Value::Object(fields)) => {
            let name = fields.keys().next().cloned();
            name.and_then(|name| fields.remove(&name));
        }
        (1, Value::Object(fields)) => drop(fields.insert("more".to_owned(), Value::Null)),
        (0, Value::Array(items)) => drop(items.pop()),
        (1, Value::Array(items)) => items.extend(items.first().cloned()),
        (2, place) => *place = Value::Null,
        (3, place) => *place = other["answers"].clone(),
        (4, place) => *place = Value::from(random.below(3)),
        (_, Value::String(text)) => text.push('A'),
        // The same, spelled otherwise.
        _ => {
            return serde_json::to_string_pretty(&json)
                .expect("JSON")
                .replace("surety", "\\u0073urety")
                .into_bytes();
        }
    }
    json.to_string().into_bytes()
}

/// The base with a record edited as bytes or as a value, signed by its party's key, which is not secret, and named anew by whoever
/// names it.
fn signed_anew(random: &mut Random) -> Vec<u8> {
    let base = base();
    let mut evidence = Evidence::parse(base.as_bytes()).expect("the base is evidence");
    let [payer, worker, gateway] = [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]));
    let payload = |bytes: &[u8], kind| cose::peek(bytes, kind).expect("a message").payload.to_vec();
    let answer = &mut evidence.answers[0];
    let mut order = Signed::<Order>::open(&answer.order).expect("an order").value().clone();
    let mut acceptance =
        Signed::<Acceptance>::open(answer.acceptance.as_ref().expect("one")).expect("one").value().clone();
    let mut receipt =
        Signed::<Receipt>::open(answer.receipt.as_ref().expect("one")).expect("one").value().clone();
    let mut envelope = Signed::<Envelope>::open(&evidence.envelope).expect("one").value().clone();
    let which = random.below(5);
    if which == 4 {
        // Bytes of a payload: another encoding, mostly; under a signature that holds.
        let kinds = [Kind::Order, Kind::Acceptance, Kind::Receipt, Kind::Envelope];
        let kind = kinds[random.below(4)];
        let (key, place) = match kind {
            Kind::Order => (&payer, &mut answer.order),
            Kind::Acceptance => (&worker, answer.acceptance.as_mut().expect("one")),
            Kind::Receipt => (&worker, answer.receipt.as_mut().expect("one")),
            _ => (&gateway, &mut evidence.envelope),
        };
        *place = cose::sign(key, kind, &bytes(payload(place, kind), random));
        return written(&evidence, &base);
    }
    let small = random.below(40) as u64;
    match which {
        0 => match random.below(9) {
            0 => order.max_output_tokens = small as u32,
            1 => order.ignore_end = !order.ignore_end,
            2 => order.deadline_ms = receipt.done_ms - 20 + small,
            3 => order.choice = small as u32,
            4 => order.sampling.temperature = f32::from_bits(random.below(0x4100_0000) as u32),
            5 => order.sampling.top_p = -0.0,
            6 => order.price_ceiling.output.0 = u128::from(small) << 64,
            7 => order.disclosure = Some(surety_types::Disclosure::Payer),
            _ => order.nonce[0] ^= 1,
        },
        1 => match random.below(5) {
            0 => acceptance.prompt_tokens = small as u32,
            1 => acceptance.max_output_tokens = small as u32,
            2 => acceptance.price.output.0 = small.into(),
            3 => acceptance.accepted_ms += small,
            _ => acceptance.region = None,
        },
        2 => match random.below(9) {
            0 => receipt.prompt_tokens = small as u32 + 16,
            1 => receipt.cached_tokens = small as u32,
            2 => receipt.output_tokens = small as u32,
            3 => receipt.charge.0 = small.into(),
            4 => {
                receipt.finish = [
                    surety_types::FinishReason::Length,
                    surety_types::FinishReason::Cancelled,
                    surety_types::FinishReason::Unpaid,
                ][random.below(3)]
            }
            5 => receipt.arithmetic = [1, u32::MAX][random.below(2)],
            6 => receipt.done_ms += small * 10_000,
            7 => receipt.state_commitment = surety_types::Digest::ZERO,
            _ => {
                (receipt.price.prompt.0, acceptance.price.prompt.0, order.price_ceiling.prompt.0) =
                    (1_000_000, 1_000_000, 1_000_000)
            }
        },
        _ => match random.below(6) {
            0 => envelope.charge.0 = small.into(),
            1 => envelope.parts[0].output_tokens = small as u32,
            2 => envelope.parts[0].first_output_token = small as u32,
            3 => envelope.parts[0].purpose = Some(surety_types::envelope::Purpose::Check),
            4 => envelope.parts.clear(),
            _ => envelope.request_id.push('x'),
        },
    }
    let relinks = random.below(6) != 0;
    let Ok(order) = Signed::try_sign(order, &payer) else { return written(&evidence, &base) };
    if relinks {
        (acceptance.order, receipt.order) = (order.digest(), order.digest());
        receipt.seed = order.seed_bytes();
    }
    let (Ok(acceptance), Ok(receipt)) =
        (Signed::try_sign(acceptance, &worker), Signed::try_sign(receipt, &worker))
    else {
        return written(&evidence, &base);
    };
    if relinks && let Some(part) = envelope.parts.first_mut() {
        (part.order, part.receipt) = (order.digest(), Some(receipt.digest()));
    }
    if random.below(2) == 0 {
        envelope.charge = receipt.charge;
    }
    let Ok(envelope) = Signed::try_sign(envelope, &gateway) else { return written(&evidence, &base) };
    (answer.order, answer.acceptance, answer.receipt) =
        (order.bytes().to_vec(), Some(acceptance.bytes().to_vec()), Some(receipt.bytes().to_vec()));
    evidence.request_id = envelope.request_id.clone();
    evidence.envelope = envelope.bytes().to_vec();
    written(&evidence, &base)
}

fn names(checks: &[Check]) -> Vec<&'static str> {
    let mut names: Vec<_> = checks
        .iter()
        .map(|check| match check {
            Check::OrderSignature => "order_signature",
            Check::Request => "request",
            Check::Acceptance => "acceptance",
            Check::Receipt => "receipt",
            Check::Parameters => "parameters",
            Check::Word => "word",
            Check::PromptTokens => "prompt_tokens",
            Check::Resumed => "resumed",
            Check::OutputTokens => "output_tokens",
            Check::Text => "text",
            Check::Vector => "vector",
            Check::Progress => "progress",
            Check::Finish => "finish",
            Check::Price => "price",
            Check::Deadline => "deadline",
            Check::Salt => "salt",
            Check::Envelope => "envelope",
            Check::Parts => "parts",
            Check::Continuation => "continuation",
            Check::Repeated => "repeated",
            Check::Payer | Check::Worker | Check::State | Check::Gateway => panic!("nothing was expected"),
        })
        .collect();
    names.sort_unstable();
    names
}

fn left(unchecked: &[Unchecked]) -> Vec<&'static str> {
    let mut names: Vec<_> = unchecked
        .iter()
        .map(|unchecked| match unchecked {
            Unchecked::Payer => "payer",
            Unchecked::Worker => "worker",
            Unchecked::Gateway => "gateway",
            Unchecked::PromptTokens => "prompt_tokens",
            Unchecked::TextOfTokens => "text_of_tokens",
            Unchecked::Limit => "limit",
            Unchecked::EndToken => "end_token",
            Unchecked::Computation => "computation",
            Unchecked::Vector => "vector",
            Unchecked::Clocks => "clocks",
            Unchecked::Audit => "audit",
            Unchecked::Upstream => "upstream",
            Unchecked::Usage => "usage",
        })
        .collect();
    names.sort_unstable();
    names
}

fn code(fault: &EvidenceFault) -> &'static str {
    match fault {
        EvidenceFault::Envelope(error) => signature(error, "envelope_signature"),
        EvidenceFault::OtherGateway { .. } => panic!("nobody was expected"),
        EvidenceFault::OtherRequest => "request_id",
        EvidenceFault::PartCount { .. } => "part_count",
        EvidenceFault::Answer { fault, .. } => answer_code(fault),
        EvidenceFault::OtherPart { .. } => "other_part",
        EvidenceFault::NotAContinuation { .. } => "not_a_continuation",
        EvidenceFault::Unfinished => "unfinished",
        EvidenceFault::CheckOfNothing { .. } => "check_of_nothing",
        EvidenceFault::CheckDiffers { .. } => "check_differs",
        EvidenceFault::Charge { .. } => "envelope_charge",
    }
}

fn signature(error: &OpenError, code: &'static str) -> &'static str {
    assert!(
        matches!(error, OpenError::BadSignature { .. } | OpenError::WrongSigner { .. }),
        "what cannot be read is refused before: {error}"
    );
    code
}

fn answer_code(fault: &AnswerFault) -> &'static str {
    match fault {
        AnswerFault::Order(error) => signature(error, "order_signature"),
        AnswerFault::Progress(error) => signature(error, "progress_signature"),
        AnswerFault::Acceptance(error) => signature(error, "acceptance_signature"),
        AnswerFault::Receipt(error) => signature(error, "receipt_signature"),
        AnswerFault::OtherRequest => "other_request",
        AnswerFault::OtherGrammar => "other_grammar",
        AnswerFault::ResumedCount { .. } => "resumed_count",
        AnswerFault::ResumedDigest => "resumed_digest",
        AnswerFault::ProgressBesideReceipt => "progress_beside_receipt",
        AnswerFault::ProgressOfOtherOrder => "progress_of_other_order",
        AnswerFault::NotSignedFor => "not_signed_for",
        AnswerFault::AcceptanceMissing => "acceptance_missing",
        AnswerFault::AcceptanceOfOtherOrder => "acceptance_of_other_order",
        AnswerFault::AcceptanceOfOtherModel { .. } => "acceptance_of_other_model",
        AnswerFault::DeadlineMoved { .. } => "deadline_moved",
        AnswerFault::PriceAboveCeiling => "price_above_ceiling",
        AnswerFault::LimitRaised { .. } => "limit_raised",
        AnswerFault::AcceptedLate { .. } => "accepted_late",
        AnswerFault::ReceiptOfOtherOrder => "receipt_of_other_order",
        AnswerFault::OtherModel { .. } => "other_model",
        AnswerFault::OtherArithmetic(_) => "other_arithmetic",
        AnswerFault::Word(_) => "word",
        AnswerFault::OtherSeed => "other_seed",
        AnswerFault::PromptCount { .. } => "prompt_count",
        AnswerFault::PromptTokens { .. } => "prompt_tokens",
        AnswerFault::PromptDigest => "prompt_digest",
        AnswerFault::OtherPromptTokens => "other_prompt_tokens",
        AnswerFault::OutputCount { .. } => "output_count",
        AnswerFault::OutputDigest => "output_digest",
        AnswerFault::TextDigest => "text_digest",
        AnswerFault::OverLimit { .. } => "over_limit",
        AnswerFault::LimitNotReached { .. } => "limit_not_reached",
        AnswerFault::StoppedAtNothing => "stopped_at_nothing",
        AnswerFault::NothingToStopAt => "nothing_to_stop_at",
        AnswerFault::NothingToPay => "nothing_to_pay",
        AnswerFault::StopStringInText(_) => "stop_string_in_text",
        AnswerFault::SaltMissing => "salt_missing",
        AnswerFault::CommitmentMissing => "commitment_missing",
        AnswerFault::FailureWithState => "failure_with_state",
        AnswerFault::RefusalWithOutput(_) => "refusal_with_output",
        AnswerFault::OtherPrice => "other_price",
        AnswerFault::Charge { .. } => "charge",
        AnswerFault::ChargeOverflow(_) => "charge_overflow",
        AnswerFault::AcceptedAt { .. } => "accepted_at",
        AnswerFault::Late { .. } => "late",
        AnswerFault::VectorUnasked => "vector_unasked",
        AnswerFault::Vector(_) => "vector",
        AnswerFault::VectorDimensions { .. } => "vector_dimensions",
        AnswerFault::OtherVector => "other_vector",
        AnswerFault::OtherPayer { .. }
        | AnswerFault::OtherWorker { .. }
        | AnswerFault::Request(_)
        | AnswerFault::LimitNotTheContext { .. }
        | AnswerFault::NotCancelled
        | AnswerFault::OtherState => panic!("nothing was expected, and nothing is unreadable here: {fault}"),
    }
}
