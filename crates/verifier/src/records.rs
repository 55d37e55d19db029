//! Records (R-4 … R-7): what each consists of, as tables; one reader for all, and the bounds that each keeps.

use alloc::vec::Vec;

use crate::{cbor::Reader, fault::Fault, json};

/// What a value is.
pub(crate) enum Type {
    /// An unsigned integer of at most so many bits.
    Number(u32),
    Truth,
    Amount,
    /// 32 bytes, shown in hexadecimal.
    Bytes,
    /// A model's id.
    Model,
    /// A binary32 as its bits.
    Float,
    /// A text of at most so many bytes.
    Text(usize),
    /// The same, of JSON.
    Json(usize),
    Region,
    /// A bare choice among these.
    Bare(&'static [&'static str]),
    List(usize, &'static Type),
    Record(&'static [Field]),
    /// [`Value::Choice`] 0 with the caller's integer, 1 with nothing.
    Seed,
    /// An id and a [`Type::Float`].
    Bias,
    /// [`Value::Choice`] among [`PROMPTS`], with its fields.
    Prompt,
    /// [`Value::Choice`] 0 with nothing, 1 with the fields of [`FAILED`].
    Outcome,
}

/// A field; its key is its place in the table.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) r#type: Type,
    pub(crate) presence: Presence,
}

#[derive(PartialEq)]
pub(crate) enum Presence {
    Always,
    Optional,
    /// Optional, and not in the view where it is absent.
    Hidden,
}

/// A value as it was read.
#[derive(Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Absent,
    Number(u64),
    Amount(u128),
    Float(Float),
    Bytes(&'a [u8; 32]),
    Text(&'a str),
    Many(Vec<Value<'a>>),
    Choice(usize, Vec<Value<'a>>),
}

/// A binary32's bits. Both zeros are equal, as numbers are; none here is NaN.
#[derive(Clone, Copy)]
pub(crate) struct Float(pub(crate) u32);

impl PartialEq for Float {
    fn eq(&self, other: &Float) -> bool {
        self.0 == other.0 || (self.0 | other.0) << 1 == 0
    }
}

const fn field(name: &'static str, r#type: Type) -> Field {
    Field { name, r#type, presence: Presence::Always }
}

const fn optional(name: &'static str, r#type: Type) -> Field {
    Field { name, r#type, presence: Presence::Optional }
}

const fn hidden(name: &'static str, r#type: Type) -> Field {
    Field { name, r#type, presence: Presence::Hidden }
}

const U8: Type = Type::Number(8);
const U32: Type = Type::Number(32);
const U64: Type = Type::Number(64);
const NAME: Type = Type::Text(256);
const MAX_OUTPUT_TOKENS: u64 = 1 << 20;
const MAX_DIMENSIONS: u64 = 1 << 16;

const PRICE: Type = Type::Record(&[
    field("prompt", Type::Amount),
    field("cached", Type::Amount),
    field("output", Type::Amount),
]);

///
const SAMPLING: Type = Type::Record(&[
    field("temperature", Type::Float),
    field("top_k", U32),
    field("top_p", Type::Float),
    field("min_p", Type::Float),
    field("repetition_penalty", Type::Float),
    field("presence_penalty", Type::Float),
    field("frequency_penalty", Type::Float),
    field("logit_bias", Type::List(1024, &Type::Bias)),
    optional("grammar", Type::Bytes),
]);
const LOGIT_BIAS: usize = 7;
pub(crate) const SAMPLING_GRAMMAR: usize = 8;
/// Of the fields of [`SAMPLING`] that are floats, in order: least and greatest.
const RANGES: [(usize, f32, f32); 6] =
    [(0, 0.0, 2.0), (2, 0.0, 1.0), (3, 0.0, 1.0), (4, 0.01, 10.0), (5, -2.0, 2.0), (6, -2.0, 2.0)];

/// Places of an order's fields.
pub(crate) mod order {
    pub(crate) const VERSION: usize = 0;
    pub(crate) const MODEL: usize = 1;
    pub(crate) const REQUEST_DIGEST: usize = 2;
    pub(crate) const NONCE: usize = 3;
    pub(crate) const SEED: usize = 4;
    pub(crate) const CHOICE: usize = 5;
    pub(crate) const SAMPLING: usize = 6;
    pub(crate) const MAX_OUTPUT_TOKENS: usize = 7;
    pub(crate) const IGNORE_END: usize = 8;
    pub(crate) const DEADLINE_MS: usize = 9;
    pub(crate) const PRICE_CEILING: usize = 10;
    pub(crate) const CHANNEL: usize = 11;
    pub(crate) const PAYER: usize = 12;
    pub(crate) const ISSUED_MS: usize = 13;
    pub(crate) const RESUMED: usize = 14;
    pub(crate) const DISCLOSURE: usize = 15;
}
const ORDER: &[Field] = &[
    field("version", U8),
    field("model", Type::Model),
    field("request_digest", Type::Bytes),
    field("nonce", Type::Bytes),
    field("seed", Type::Seed),
    field("choice", U32),
    field("sampling", SAMPLING),
    field("max_output_tokens", U32),
    field("ignore_end", Type::Truth),
    field("deadline_ms", U64),
    field("price_ceiling", PRICE),
    optional("channel", Type::Bytes),
    field("payer", Type::Bytes),
    field("issued_ms", U64),
    optional("resumed", Type::Record(&[field("output_tokens", U32), field("output_digest", Type::Bytes)])),
    hidden("disclosure", Type::Bare(&["payer"])),
];

const MAX_REQUEST_BYTES: usize = 8 << 20;
const CALL: Type =
    Type::Record(&[field("id", NAME), field("name", NAME), field("arguments", Type::Json(1 << 20))]);
const MESSAGE: Type = Type::Record(&[
    field("role", NAME),
    field("content", Type::Text(MAX_REQUEST_BYTES)),
    optional("name", NAME),
    field("tool_calls", Type::List(128, &CALL)),
    optional("tool_call_id", NAME),
]);
/// What a prompt can be, by number: its name, and its fields.
pub(crate) const PROMPTS: [(&str, &[Field]); 3] = [
    (
        "chat",
        &[
            field("messages", Type::List(4096, &MESSAGE)),
            field("tools", Type::List(128, &Type::Json(64 << 10))),
        ],
    ),
    ("text", &[field("text", Type::Text(MAX_REQUEST_BYTES))]),
    ("tokens", &[field("tokens", Type::List(1 << 20, &U32))]),
];
pub(crate) const CHAT: usize = 0;
pub(crate) const TOKENS: usize = 2;

/// Places of a request's fields.
pub(crate) mod request {
    pub(crate) const PROMPT: usize = 0;
    pub(crate) const STOP: usize = 1;
    pub(crate) const LOGPROBS: usize = 2;
    pub(crate) const PROMPT_LOGPROBS: usize = 3;
    pub(crate) const DATE: usize = 4;
    pub(crate) const GRAMMAR: usize = 5;
    pub(crate) const EMBEDDING: usize = 6;
}
pub(crate) const REQUEST: &[Field] = &[
    field("prompt", Type::Prompt),
    field("stop", Type::List(16, &NAME)),
    optional("logprobs", U8),
    optional("prompt_logprobs", U8),
    optional("date", Type::Record(&[field("year", Type::Number(16)), field("month", U8), field("day", U8)])),
    optional("grammar", Type::Text(32 << 10)),
    optional("embedding", Type::Record(&[optional("dimensions", U32)])),
];

/// Places of an acceptance's fields.
pub(crate) mod acceptance {
    pub(crate) const ORDER: usize = 0;
    pub(crate) const MODEL: usize = 1;
    pub(crate) const WORKER: usize = 2;
    pub(crate) const DEADLINE_MS: usize = 3;
    pub(crate) const PRICE: usize = 4;
    pub(crate) const PROMPT_TOKENS: usize = 5;
    pub(crate) const ACCEPTED_MS: usize = 6;
    pub(crate) const MAX_OUTPUT_TOKENS: usize = 7;
}
const ACCEPTANCE: &[Field] = &[
    field("order", Type::Bytes),
    field("model", Type::Model),
    field("worker", Type::Bytes),
    field("deadline_ms", U64),
    field("price", PRICE),
    field("prompt_tokens", U32),
    field("accepted_ms", U64),
    field("max_output_tokens", U32),
    optional("region", Type::Region),
];

/// Places of a progress's fields.
pub(crate) mod progress {
    pub(crate) const ORDER: usize = 0;
    pub(crate) const OUTPUT_TOKENS: usize = 1;
    pub(crate) const OUTPUT_DIGEST: usize = 2;
    pub(crate) const TEXT_DIGEST: usize = 3;
    pub(crate) const WORKER: usize = 5;
}
const PROGRESS: &[Field] = &[
    field("order", Type::Bytes),
    field("output_tokens", U32),
    field("output_digest", Type::Bytes),
    field("text_digest", Type::Bytes),
    field("at_ms", U64),
    field("worker", Type::Bytes),
];

/// What a failure says.
pub(crate) const FAILED: &[Field] = &[
    field(
        "code",
        Type::Bare(&[
            "bad_request",
            "context_length_exceeded",
            "overloaded",
            "model_unknown",
            "out_of_memory",
            "non_finite",
            "internal",
            "cancelled",
            "deadline_exceeded",
            "payment_required",
            "leaving",
        ]),
    ),
    field("message", Type::Text(512)),
];
/// Places of a receipt's fields.
pub(crate) mod receipt {
    pub(crate) const VERSION: usize = 0;
    pub(crate) const OUTCOME: usize = 1;
    pub(crate) const ORDER: usize = 2;
    pub(crate) const MODEL: usize = 3;
    pub(crate) const ARITHMETIC: usize = 4;
    pub(crate) const PROMPT_TOKENS: usize = 5;
    pub(crate) const CACHED_TOKENS: usize = 6;
    pub(crate) const OUTPUT_TOKENS: usize = 7;
    pub(crate) const PROMPT_DIGEST: usize = 8;
    pub(crate) const OUTPUT_DIGEST: usize = 9;
    pub(crate) const TEXT_DIGEST: usize = 10;
    pub(crate) const FINISH: usize = 11;
    pub(crate) const SEED: usize = 12;
    pub(crate) const STATE_COMMITMENT: usize = 13;
    pub(crate) const PRICE: usize = 14;
    pub(crate) const CHARGE: usize = 15;
    pub(crate) const ACCEPTED_MS: usize = 16;
    pub(crate) const FIRST_TOKEN_MS: usize = 17;
    pub(crate) const DONE_MS: usize = 18;
    pub(crate) const WORKER: usize = 20;
}
/// Finish reasons by number.
pub(crate) mod finish {
    pub(crate) const STOP: u64 = 0;
    pub(crate) const LENGTH: u64 = 1;
    pub(crate) const UNPAID: u64 = 3;
    pub(crate) const FAILED: u64 = 4;
}
const RECEIPT: &[Field] = &[
    field("version", U8),
    field("outcome", Type::Outcome),
    field("order", Type::Bytes),
    field("model", Type::Model),
    field("arithmetic", U32),
    field("prompt_tokens", U32),
    field("cached_tokens", U32),
    field("output_tokens", U32),
    field("prompt_digest", Type::Bytes),
    field("output_digest", Type::Bytes),
    field("text_digest", Type::Bytes),
    field("finish", Type::Bare(&["stop", "length", "cancelled", "unpaid", "failed"])),
    field("seed", Type::Bytes),
    field("state_commitment", Type::Bytes),
    field("price", PRICE),
    field("charge", Type::Amount),
    field("accepted_ms", U64),
    optional("first_token_ms", U64),
    field("done_ms", U64),
    field("software", Type::Text(64)),
    field("worker", Type::Bytes),
];

/// Places of an envelope's fields.
pub(crate) mod envelope {
    pub(crate) const REQUEST_ID: usize = 0;
    pub(crate) const GATEWAY: usize = 1;
    pub(crate) const PARTS: usize = 3;
    pub(crate) const RECEIVED_MS: usize = 4;
    pub(crate) const FIRST_BYTE_MS: usize = 5;
    pub(crate) const DONE_MS: usize = 6;
    pub(crate) const CHARGE: usize = 7;
}
/// Places of a part's fields.
pub(crate) mod part {
    pub(crate) const ORDER: usize = 0;
    pub(crate) const RECEIPT: usize = 1;
    pub(crate) const WORKER: usize = 2;
    pub(crate) const FIRST_OUTPUT_TOKEN: usize = 3;
    pub(crate) const OUTPUT_TOKENS: usize = 4;
    pub(crate) const PURPOSE: usize = 5;
}
pub(crate) const MAX_PARTS: usize = 4096;
const PART: Type = Type::Record(&[
    field("order", Type::Bytes),
    optional("receipt", Type::Bytes),
    field("worker", Type::Bytes),
    field("first_output_token", U32),
    field("output_tokens", U32),
    hidden("purpose", Type::Bare(&["check"])),
]);
const ENVELOPE: &[Field] = &[
    field("request_id", NAME),
    field("gateway", Type::Bytes),
    field("model_name", NAME),
    field("parts", Type::List(MAX_PARTS, &PART)),
    field("received_ms", U64),
    field("first_byte_ms", U64),
    field("done_ms", U64),
    field("charge", Type::Amount),
];

/// What is signed: its name, the fields, which of them is the signer, and how long its encoding is at most.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) signer: usize,
    pub(crate) max_bytes: usize,
    check: fn(&[Value<'_>]) -> bool,
}

pub(crate) static ORDERS: Kind =
    Kind { name: "order", fields: ORDER, signer: order::PAYER, max_bytes: 16 << 10, check: is_order };
pub(crate) static ACCEPTANCES: Kind = Kind {
    name: "acceptance",
    fields: ACCEPTANCE,
    signer: acceptance::WORKER,
    max_bytes: 512,
    check: |_| true,
};
pub(crate) static PROGRESSES: Kind =
    Kind { name: "progress", fields: PROGRESS, signer: progress::WORKER, max_bytes: 256, check: |_| true };
pub(crate) static RECEIPTS: Kind = Kind {
    name: "receipt",
    fields: RECEIPT,
    signer: receipt::WORKER,
    max_bytes: 2048 - 176,
    check: is_receipt,
};
pub(crate) static ENVELOPES: Kind = Kind {
    name: "envelope",
    fields: ENVELOPE,
    signer: envelope::GATEWAY,
    max_bytes: 512 << 10,
    check: is_envelope,
};

impl Kind {
    /// The record that these bytes are the one encoding of.
    pub(crate) fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Value<'a>>, Fault> {
        decode(self.fields, bytes, self.max_bytes, self.check)
    }
}

/// The request that these bytes are the one encoding of.
pub(crate) fn decode_request(bytes: &[u8]) -> Result<Vec<Value<'_>>, Fault> {
    decode(REQUEST, bytes, MAX_REQUEST_BYTES, is_request)
}

fn decode<'a>(
    fields: &'static [Field],
    bytes: &'a [u8],
    max_bytes: usize,
    check: fn(&[Value<'_>]) -> bool,
) -> Result<Vec<Value<'a>>, Fault> {
    if bytes.len() > max_bytes {
        return Err(Fault::Unreadable);
    }
    let mut reader = Reader::new(bytes);
    let values = record(&mut reader, fields)?;
    if !reader.is_at_end() {
        return Err(Fault::Unreadable);
    }
    if check(&values) { Ok(values) } else { Err(Fault::Invalid) }
}

fn record<'a>(reader: &mut Reader<'a>, fields: &'static [Field]) -> Result<Vec<Value<'a>>, Fault> {
    let mut left = reader.map()?;
    let mut values = Vec::with_capacity(fields.len());
    for (key, field) in fields.iter().enumerate() {
        if left > 0 && reader.key(key as u8) {
            left -= 1;
            values.push(read(reader, &field.r#type)?);
        } else if field.presence == Presence::Always {
            return Err(Fault::Unreadable);
        } else {
            values.push(Value::Absent);
        }
    }
    if left == 0 { Ok(values) } else { Err(Fault::Unreadable) }
}

/// The number of a choice of `count`, whose fields follow.
fn choice(reader: &mut Reader<'_>, count: usize) -> Result<usize, Fault> {
    let is_pair = reader.list(2)? == 2;
    let number = reader.unsigned(8)? as usize;
    if is_pair && number < count { Ok(number) } else { Err(Fault::Unreadable) }
}

fn read<'a>(reader: &mut Reader<'a>, r#type: &'static Type) -> Result<Value<'a>, Fault> {
    let number = Value::Number;
    Ok(match r#type {
        Type::Number(bits) => number(reader.unsigned(*bits)?),
        Type::Truth => number(reader.truth()?.into()),
        Type::Amount => Value::Amount(reader.amount()?),
        Type::Bytes | Type::Model => Value::Bytes(reader.bytes_32()?),
        Type::Float => Value::Float(Float(reader.unsigned(32)? as u32)),
        Type::Text(most) => Value::Text(reader.text(*most)?),
        Type::Json(most) => {
            let text = reader.text(*most)?;
            if !json::is_object(text) {
                return Err(Fault::Invalid);
            }
            Value::Text(text)
        }
        Type::Region => {
            let text = reader.text(32)?;
            let is_word = |word: &str| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            if !text.split('-').all(is_word) {
                return Err(Fault::Unreadable);
            }
            Value::Text(text)
        }
        Type::Bare(names) => {
            let found = reader.unsigned(32)?;
            if found >= names.len() as u64 {
                return Err(Fault::Unreadable);
            }
            number(found)
        }
        Type::List(most, item) => {
            let count = reader.list(*most)?;
            let mut items = Vec::with_capacity(count);
            for _ in 0..count {
                items.push(read(reader, item)?);
            }
            Value::Many(items)
        }
        Type::Record(fields) => Value::Many(record(reader, fields)?),
        Type::Seed => {
            let number = choice(reader, 2)?;
            if reader.list(1)? != 1 - number {
                return Err(Fault::Unreadable);
            }
            let mut values = Vec::new();
            if number == 0 {
                values.push(Value::Number(reader.signed()? as u64));
            }
            Value::Choice(number, values)
        }
        Type::Bias => {
            if reader.list(2)? != 2 {
                return Err(Fault::Unreadable);
            }
            let id = number(reader.unsigned(32)?);
            Value::Many(alloc::vec![id, Value::Float(Float(reader.unsigned(32)? as u32))])
        }
        Type::Prompt => {
            let number = choice(reader, PROMPTS.len())?;
            Value::Choice(number, record(reader, PROMPTS[number].1)?)
        }
        Type::Outcome => {
            let number = choice(reader, 2)?;
            Value::Choice(number, record(reader, if number == 1 { FAILED } else { &[] })?)
        }
    })
}

impl<'a> Value<'a> {
    /// A number; 0 if it is absent.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Value::Number(number) => *number,
            _ => 0,
        }
    }

    /// An amount of money; 0 if it is absent.
    pub(crate) fn amount(&self) -> u128 {
        match self {
            Value::Amount(amount) => *amount,
            _ => 0,
        }
    }

    /// 32 bytes; none if they are absent.
    pub(crate) fn bytes(&self) -> Option<&'a [u8; 32]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Fields or items; none if they are absent.
    pub(crate) fn many(&self) -> &[Value<'a>] {
        match self {
            Value::Many(values) | Value::Choice(_, values) => values,
            _ => &[],
        }
    }

    /// The number of a choice.
    pub(crate) fn choice(&self) -> usize {
        match self {
            Value::Choice(number, _) => *number,
            _ => usize::MAX,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }

    fn is_within(&self, least: f32, greatest: f32) -> bool {
        match self {
            // A NaN is in no range.
            Value::Float(Float(bits)) => (least..=greatest).contains(&f32::from_bits(*bits)),
            _ => false,
        }
    }
}

///
fn is_order(values: &[Value<'_>]) -> bool {
    use order::{DEADLINE_MS, ISSUED_MS, MAX_OUTPUT_TOKENS as LIMIT, RESUMED, SAMPLING, VERSION};
    let sampling = values[SAMPLING].many();
    let biases = sampling[LOGIT_BIAS].many();
    let limit = values[LIMIT].number();
    let resumed = values[RESUMED].many().first().map_or(1, Value::number);
    values[VERSION].number() == 1
        && limit <= MAX_OUTPUT_TOKENS
        && (1..=MAX_OUTPUT_TOKENS).contains(&resumed)
        && (values[RESUMED].is_absent() || resumed <= MAX_OUTPUT_TOKENS - limit)
        && values[DEADLINE_MS].number() > values[ISSUED_MS].number()
        && RANGES.iter().all(|(at, least, greatest)| sampling[*at].is_within(*least, *greatest))
        && biases.iter().all(|bias| bias.many()[1].is_within(-100.0, 100.0))
        && biases.windows(2).all(|pair| pair[0].many()[0].number() < pair[1].many()[0].number())
}

///
fn is_request(values: &[Value<'_>]) -> bool {
    use request::{DATE, EMBEDDING, GRAMMAR, LOGPROBS, PROMPT, PROMPT_LOGPROBS, STOP};
    let prompt = &values[PROMPT];
    let stops = values[STOP].many();
    let has_messages = prompt.choice() != CHAT || !prompt.many()[0].many().is_empty();
    let is_vector = !values[EMBEDDING].is_absent();
    let dimensions = values[EMBEDDING].many().first().filter(|dimensions| !dimensions.is_absent());
    let is_of_text =
        !stops.is_empty() || [GRAMMAR, LOGPROBS, PROMPT_LOGPROBS].iter().any(|at| !values[*at].is_absent());
    has_messages
        && stops.iter().all(|stop| stop.text() != Some(""))
        && values[LOGPROBS].number() <= 20
        && values[PROMPT_LOGPROBS].number() <= 20
        && dimensions.is_none_or(|dimensions| (1..=MAX_DIMENSIONS).contains(&dimensions.number()))
        && !(is_vector && is_of_text)
        && (values[DATE].is_absent() || is_day(values[DATE].many()))
}

fn is_day(date: &[Value<'_>]) -> bool {
    let [year, month, day] = [0, 1, 2].map(|at| date[at].number() as u32);
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=9999).contains(&year) && (1..=days).contains(&day)
}

///
fn is_receipt(values: &[Value<'_>]) -> bool {
    use receipt::{
        ACCEPTED_MS, CACHED_TOKENS, DONE_MS, FINISH, FIRST_TOKEN_MS, OUTCOME, OUTPUT_TOKENS, PROMPT_TOKENS,
        VERSION,
    };
    let number = |at: usize| values[at].number();
    let first = if values[FIRST_TOKEN_MS].is_absent() { number(ACCEPTED_MS) } else { number(FIRST_TOKEN_MS) };
    number(VERSION) == 1
        && (values[OUTCOME].choice() == 1) == (number(FINISH) == finish::FAILED)
        && number(CACHED_TOKENS) <= number(PROMPT_TOKENS)
        && number(ACCEPTED_MS) <= first
        && first <= number(DONE_MS)
        && values[FIRST_TOKEN_MS].is_absent() == (number(OUTPUT_TOKENS) == 0)
}

///
fn is_envelope(values: &[Value<'_>]) -> bool {
    use envelope::{DONE_MS, FIRST_BYTE_MS, RECEIVED_MS};
    values[RECEIVED_MS].number() <= values[FIRST_BYTE_MS].number()
        && values[FIRST_BYTE_MS].number() <= values[DONE_MS].number()
}
