//! The evidence file: its fields, and what the signed bytes in it say. No signature is verified here.

use alloc::{borrow::Cow, vec::Vec};

use crate::{
    MAX_EVIDENCE_BYTES,
    cose::Message,
    fault::Fault,
    json::Json,
    records::{self, ACCEPTANCES, ENVELOPES, Kind, MAX_PARTS, ORDERS, PROGRESSES, RECEIPTS, REQUEST, Value},
    view,
};

/// A file, its bytes decoded.
pub(crate) struct File<'a> {
    request_id: Cow<'a, [u8]>,
    envelope: Vec<u8>,
    answers: Vec<AnswerFile<'a>>,
    view: Json<'a>,
}

struct AnswerFile<'a> {
    order: Vec<u8>,
    request: Vec<u8>,
    acceptance: Option<Vec<u8>>,
    receipt: Option<Vec<u8>>,
    progress: Option<Vec<u8>>,
    salt: [u8; 32],
    output_ids: Vec<u32>,
    resumed_ids: Vec<u32>,
    text: Cow<'a, [u8]>,
    prompt_ids: Option<Vec<u32>>,
    embedding: Option<Vec<u8>>,
}

/// A signed message and what it says.
pub(crate) struct Said<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) values: Vec<Value<'a>>,
    kind: &'static Kind,
}

/// What one worker gave.
pub(crate) struct Answer<'a> {
    pub(crate) order: Said<'a>,
    pub(crate) request_bytes: &'a [u8],
    pub(crate) request: Vec<Value<'a>>,
    pub(crate) acceptance: Option<Said<'a>>,
    pub(crate) receipt: Option<Said<'a>>,
    pub(crate) progress: Option<Said<'a>>,
    pub(crate) salt: &'a [u8; 32],
    pub(crate) output_ids: &'a [u32],
    pub(crate) resumed_ids: &'a [u32],
    pub(crate) text: &'a [u8],
    pub(crate) prompt_ids: Option<&'a [u32]>,
    pub(crate) embedding: Option<&'a [u8]>,
}

/// Evidence whose every part can be read.
pub(crate) struct Evidence<'a> {
    pub(crate) envelope: Said<'a>,
    pub(crate) answers: Vec<Answer<'a>>,
}

const ANSWER_FIELDS: [&str; 12] = [
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
];

impl<'a> File<'a> {
    ///
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, Fault> {
        if json.len() > MAX_EVIDENCE_BYTES {
            return Err(Fault::TooLong);
        }
        let text = core::str::from_utf8(json).map_err(|_| Fault::NotJson)?;
        let fields = Json::parse(text)?.fields(&["surety", "request_id", "envelope", "answers", "view"])?;
        if fields[0].integer() != Some(1) {
            return Err(Fault::Version);
        }
        let answers = fields[3].list(MAX_PARTS)?;
        if answers.is_empty() {
            return Err(Fault::Answers);
        }
        let mut file = File {
            request_id: fields[1].text()?,
            envelope: bytes(fields[2])?,
            answers: Vec::new(),
            view: fields[4],
        };
        for answer in answers {
            file.answers.push(AnswerFile::parse(answer)?);
        }
        Ok(file)
    }

    ///
    pub(crate) fn read(&'a self) -> Result<Evidence<'a>, Fault> {
        let envelope = Said::read(&self.envelope, &ENVELOPES)?;
        if envelope.values[records::envelope::REQUEST_ID].text().map(str::as_bytes) != Some(&self.request_id)
        {
            return Err(Fault::RequestId);
        }
        let mut answers = Vec::with_capacity(self.answers.len());
        for answer in &self.answers {
            answers.push(answer.read()?);
        }
        let is_shown = self.view.fields(&["envelope", "answers"]).is_ok_and(|found| {
            envelope.is_shown(found[0]) && view::are(found[1], &answers, |json, answer| answer.is_shown(json))
        });
        if is_shown { Ok(Evidence { envelope, answers }) } else { Err(Fault::View) }
    }
}

impl<'a> AnswerFile<'a> {
    fn parse(json: Json<'a>) -> Result<Self, Fault> {
        let fields = json.fields(&ANSWER_FIELDS)?;
        optional(fields[9], bytes)?;
        Ok(AnswerFile {
            order: bytes(fields[0])?,
            request: bytes(fields[1])?,
            acceptance: optional(fields[2], bytes)?,
            receipt: optional(fields[3], bytes)?,
            progress: optional(fields[4], bytes)?,
            salt: view::from_hex(&fields[5].text()?).ok_or(Fault::Fields)?,
            output_ids: fields[6].ids()?,
            resumed_ids: fields[7].ids()?,
            text: fields[8].text()?,
            prompt_ids: optional(fields[10], Json::ids)?,
            embedding: optional(fields[11], bytes)?,
        })
    }

    fn read(&self) -> Result<Answer<'_>, Fault> {
        Ok(Answer {
            order: Said::read(&self.order, &ORDERS)?,
            request_bytes: &self.request,
            request: records::decode_request(&self.request)?,
            acceptance: Said::read_optional(&self.acceptance, &ACCEPTANCES)?,
            receipt: Said::read_optional(&self.receipt, &RECEIPTS)?,
            progress: Said::read_optional(&self.progress, &PROGRESSES)?,
            salt: &self.salt,
            output_ids: &self.output_ids,
            resumed_ids: &self.resumed_ids,
            text: &self.text,
            prompt_ids: self.prompt_ids.as_deref(),
            embedding: self.embedding.as_deref(),
        })
    }
}

impl<'a> Said<'a> {
    fn read(bytes: &'a [u8], kind: &'static Kind) -> Result<Self, Fault> {
        let message = Message::read(bytes, kind.name, kind.max_bytes)?;
        let values = kind.decode(message.payload)?;
        Ok(Said { message, values, kind })
    }

    fn read_optional(bytes: &'a Option<Vec<u8>>, kind: &'static Kind) -> Result<Option<Self>, Fault> {
        bytes.as_ref().map(|bytes| Said::read(bytes, kind)).transpose()
    }

    fn is_shown(&self, json: Json<'_>) -> bool {
        view::shows(json, self.kind.fields, &self.values, Some(self.message.signer))
    }

    /// whether it is signed, by whom it names in header and payload alike.
    pub(crate) fn is_signed(&self) -> bool {
        self.values[self.kind.signer].bytes() == Some(self.message.signer) && self.message.is_signed()
    }
}

impl Answer<'_> {
    fn is_shown(&self, json: Json<'_>) -> bool {
        let shows = |json: Json<'_>, said: &Option<Said<'_>>| match said {
            Some(said) => said.is_shown(json),
            None => json.is_null(),
        };
        json.fields(&["order", "request", "acceptance", "receipt", "progress"]).is_ok_and(|found| {
            self.order.is_shown(found[0])
                && view::shows(found[1], REQUEST, &self.request, None)
                && shows(found[2], &self.acceptance)
                && shows(found[3], &self.receipt)
                && shows(found[4], &self.progress)
        })
    }
}

fn optional<'a, T>(json: Json<'a>, read: impl Fn(Json<'a>) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
    if json.is_null() { Ok(None) } else { read(json).map(Some) }
}

/// Standard padded base64 (RFC 4648 §4), in its one spelling.
fn bytes(json: Json<'_>) -> Result<Vec<u8>, Fault> {
    let text = json.text()?;
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    if !text.len().is_multiple_of(4) {
        return Err(Fault::Base64);
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in &text[..text.len() - padding] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Fault::Base64),
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // What is left over is nothing but zeros.
    if bits == 0 && count == 2 * padding { Ok(bytes) } else { Err(Fault::Base64) }
}
