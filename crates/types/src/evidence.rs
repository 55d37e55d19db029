//! Evidence: the file a user keeps, with everything needed to check an answer without asking anyone.
//!
//! In:     what a gateway kept of a request, or JSON from a stranger.
//! Out:    JSON for people and tools, or the checked parts.
//! Holds:  …: unknown and repeated fields are refused; `view`, the part people read, must say what the
//!         signed bytes say, so nothing that has a meaning can be edited unnoticed.
//! Absent: verifying signatures and bindings (`proof`).

use std::{borrow::Cow, collections::BTreeSet, fmt, marker::PhantomData};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{
    acceptance::Acceptance,
    codec::{Canonical, DecodeError},
    cose::{OpenError, Signed},
    digest::Digest,
    envelope::Envelope,
    key::PublicKey,
    order::Order,
    progress::Progress,
    receipt::Receipt,
    request::Request,
};

/// The version this code reads and writes.
pub const EVIDENCE_VERSION: u32 = 1;
/// A file, at most.
pub const MAX_EVIDENCE_BYTES: usize = 64 << 20;
/// Answers in one file.
pub const MAX_ANSWERS: usize = crate::envelope::MAX_PARTS;

/// Everything about one request that a user needs to hold the parties to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// As in the envelope.
    pub request_id: String,
    /// COSE bytes of an [`Envelope`].
    pub envelope: Vec<u8>,
    /// One per part of the envelope, in its order.
    pub answers: Vec<Answer>,
}

/// One worker's answer to one order, and all that was signed about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// COSE bytes of an [`Order`].
    #[serde(with = "base64_bytes")]
    pub order: Vec<u8>,
    /// Canonical CBOR of a [`Request`].
    #[serde(with = "base64_bytes")]
    pub request: Vec<u8>,
    /// COSE bytes of an [`Acceptance`]; none if the order was refused.
    #[serde(with = "optional_base64_bytes")]
    pub acceptance: Option<Vec<u8>>,
    /// COSE bytes of a [`Receipt`]; none if the worker broke off without one.
    #[serde(with = "optional_base64_bytes")]
    pub receipt: Option<Vec<u8>>,
    /// COSE bytes of the last [`Progress`], if there is no receipt and it signed any.
    #[serde(with = "optional_base64_bytes")]
    pub progress: Option<Vec<u8>>,
    /// Opens the receipt's state commitment; zero if there is none.
    #[serde(with = "salt_hex")]
    pub salt: [u8; 32],
    /// Ids of the output's tokens; of those signed for, if there is no receipt.
    pub output_ids: Vec<u32>,
    /// Ids of the tokens that the order resumes from.
    pub resumed_ids: Vec<u32>,
    /// The delivered text.
    pub text: String,
    /// The channel that the order names, canonical CBOR, where it is known: who contests the answer says by it whom a
    /// refund is paid to.
    #[serde(with = "optional_base64_bytes")]
    pub channel: Option<Vec<u8>>,
    /// Ids of the prompt's tokens, where they are known.
    #[serde(deserialize_with = "present")]
    pub prompt_ids: Option<Vec<u32>>,
    /// The vector, where one was asked for and came.
    #[serde(with = "optional_base64_bytes")]
    pub embedding: Option<Vec<u8>>,
}

/// Why a file is not evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// Longer than any evidence.
    #[error("evidence of {bytes} bytes; at most {MAX_EVIDENCE_BYTES} are allowed")]
    TooLong {
        /// What was offered.
        bytes: usize,
    },
    /// Not JSON of the right shape.
    #[error("not an evidence file")]
    Malformed(#[source] serde_json::Error),
    /// Of another version.
    #[error("evidence of version {0}; this software reads {EVIDENCE_VERSION}")]
    Version(u32),
    /// Too many answers, or none.
    #[error("evidence with {0} answers; from 1 to {MAX_ANSWERS} are allowed")]
    Answers(usize),
    /// The request id is not the envelope's.
    #[error("the request id is not the one in the envelope")]
    RequestId,
    /// A signed message in it cannot be read.
    #[error("the {what} cannot be read")]
    Signed {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// A request in it cannot be read.
    #[error("the request cannot be read")]
    Request(#[source] DecodeError),
    /// The readable view does not say what the signed bytes say.
    #[error("the readable view does not say what the signed bytes say")]
    View(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct FileOut<'a> {
    surety: u32,
    request_id: &'a str,
    #[serde(with = "base64_bytes")]
    envelope: &'a [u8],
    answers: &'a [Answer],
    view: View,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIn<'a> {
    surety: u32,
    request_id: String,
    #[serde(with = "base64_bytes")]
    envelope: Vec<u8>,
    answers: Vec<Object<Answer>>,
    #[serde(borrow)]
    view: &'a RawValue,
}

/// A value that is written as an object: serde would take a list of its fields as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

fn unwrapped<T>(objects: Vec<Object<T>>) -> Vec<T> {
    objects.into_iter().map(|Object(value)| value).collect()
}

/// The signed bytes, decoded.
#[derive(Serialize)]
struct View {
    envelope: Says<Envelope>,
    answers: Vec<AnswerView>,
}

#[derive(Serialize)]
struct AnswerView {
    order: Says<Order>,
    request: Request,
    acceptance: Option<Says<Acceptance>>,
    receipt: Option<Says<Receipt>>,
    progress: Option<Says<Progress>>,
}

/// What a signed message says, and the key in its header.
#[derive(Serialize)]
struct Says<T> {
    signed_by: PublicKey,
    #[serde(flatten)]
    value: T,
}

impl Evidence {
    /// Reads a file. Signatures are not verified here.
    pub fn parse(json: &[u8]) -> Result<Evidence, EvidenceError> {
        if json.len() > MAX_EVIDENCE_BYTES {
            return Err(EvidenceError::TooLong { bytes: json.len() });
        }
        let Object(file): Object<FileIn<'_>> =
            serde_json::from_slice(json).map_err(EvidenceError::Malformed)?;
        if file.surety != EVIDENCE_VERSION {
            return Err(EvidenceError::Version(file.surety));
        }
        let evidence = Evidence {
            request_id: file.request_id,
            envelope: file.envelope,
            answers: unwrapped(file.answers),
        };
        //
        let view = serde_json::to_value(evidence.view()?).map_err(EvidenceError::Malformed)?;
        let mut found = serde_json::Deserializer::from_str(file.view.get());
        Expect(&view).deserialize(&mut found).map_err(EvidenceError::View)?;
        Ok(evidence)
    }

    /// The file, in one line.
    pub fn to_json(&self) -> Result<String, EvidenceError> {
        let file = FileOut {
            surety: EVIDENCE_VERSION,
            request_id: &self.request_id,
            envelope: &self.envelope,
            answers: &self.answers,
            view: self.view()?,
        };
        serde_json::to_string(&file).map_err(EvidenceError::Malformed)
    }

    fn view(&self) -> Result<View, EvidenceError> {
        if self.answers.is_empty() || self.answers.len() > MAX_ANSWERS {
            return Err(EvidenceError::Answers(self.answers.len()));
        }
        let envelope = says::<Envelope>("envelope", &self.envelope)?;
        if envelope.value.request_id != self.request_id {
            return Err(EvidenceError::RequestId);
        }
        let answers = self.answers.iter().map(Answer::view).collect::<Result<_, _>>()?;
        Ok(View { envelope, answers })
    }
}

impl Answer {
    fn view(&self) -> Result<AnswerView, EvidenceError> {
        Ok(AnswerView {
            order: says("order", &self.order)?,
            request: Request::from_cbor(&self.request).map_err(EvidenceError::Request)?,
            acceptance: self.acceptance.as_deref().map(|bytes| says("acceptance", bytes)).transpose()?,
            receipt: self.receipt.as_deref().map(|bytes| says("receipt", bytes)).transpose()?,
            progress: self.progress.as_deref().map(|bytes| says("progress", bytes)).transpose()?,
        })
    }
}

fn says<T: crate::cose::Signable>(what: &'static str, bytes: &[u8]) -> Result<Says<T>, EvidenceError> {
    let (value, signed_by) =
        Signed::<T>::peek_value(bytes).map_err(|source| EvidenceError::Signed { what, source })?;
    Ok(Says { signed_by, value })
}

/// Reads JSON and refuses the first thing that differs from the expected value, keeping nothing of it.
///
/// Repeated keys are refused as well: most readers would show one and hide the other.
#[derive(Clone, Copy)]
struct Expect<'a>(&'a Value);

impl<'de> DeserializeSeed<'de> for Expect<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Expect<'_> {
    fn same<E: de::Error>(self, same: bool) -> Result<(), E> {
        if same { Ok(()) } else { Err(E::custom(format_args!("expected {}", self.0))) }
    }
}

impl<'de> Visitor<'de> for Expect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.same(self.0.is_null())
    }
    fn visit_bool<E: de::Error>(self, found: bool) -> Result<(), E> {
        self.same(self.0.as_bool() == Some(found))
    }
    fn visit_u64<E: de::Error>(self, found: u64) -> Result<(), E> {
        self.same(self.0.as_u64() == Some(found))
    }
    fn visit_i64<E: de::Error>(self, found: i64) -> Result<(), E> {
        self.same(self.0.as_i64() == Some(found))
    }
    fn visit_str<E: de::Error>(self, found: &str) -> Result<(), E> {
        self.same(self.0.as_str() == Some(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut found: A) -> Result<(), A::Error> {
        let Value::Array(items) = self.0 else { return self.same(false) };
        for item in items {
            if found.next_element_seed(Expect(item))?.is_none() {
                return self.same(false);
            }
        }
        self.same(found.next_element_seed(Expect(&Value::Null))?.is_none())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut found: A) -> Result<(), A::Error> {
        let Value::Object(fields) = self.0 else { return self.same(false) };
        let mut seen = BTreeSet::new();
        while let Some(name) = found.next_key::<Cow<'de, str>>()? {
            let Some((name, value)) = fields.get_key_value(name.as_ref()) else { return self.same(false) };
            if !seen.insert(name) {
                return Err(de::Error::custom(format_args!("`{name}` appears twice")));
            }
            found.next_value_seed(Expect(value))?;
        }
        self.same(seen.len() == fields.len())
    }
}

/// An optional field that must nevertheless be there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

pub(crate) mod base64_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &(impl AsRef<[u8]> + ?Sized),
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    // The standard engine refuses absent padding and stray bits, so that one value has one spelling.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(Cow::<'de, str>::deserialize(d)?.as_ref()).map_err(de::Error::custom)
    }
}

pub(crate) mod optional_base64_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<Cow<'de, str>>::deserialize(d)?
            .map(|text| STANDARD.decode(text.as_ref()).map_err(de::Error::custom))
            .transpose()
    }
}

mod salt_hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(salt: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        Digest(*salt).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        Digest::deserialize(d).map(|digest| digest.0)
    }
}
