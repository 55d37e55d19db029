//! The request: what is to be answered, in the canonical form that an order commits to.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    codec::{Canonical, Invalid, at_most},
    digest::{Digest, domain},
    embedding::Embedding,
    json,
};

/// An encoded request, at most.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Messages in one chat.
pub const MAX_MESSAGES: usize = 4096;
/// Token ids in one prompt.
pub const MAX_PROMPT_TOKENS: usize = 1 << 20;
/// Stop strings.
pub const MAX_STOPS: usize = 16;
/// Bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 256;
/// Bytes of a role, a name or a call's id.
pub const MAX_NAME_BYTES: usize = 256;
/// Tools in one chat.
pub const MAX_TOOLS: usize = 128;
/// Bytes of one tool.
pub const MAX_TOOL_BYTES: usize = 64 << 10;
/// Calls in one message.
pub const MAX_TOOL_CALLS: usize = 128;
/// Bytes of one call's arguments.
pub const MAX_ARGUMENTS_BYTES: usize = 1 << 20;
/// Bytes of a grammar.
pub const MAX_GRAMMAR_BYTES: usize = 32 << 10;
/// Alternatives per token.
pub const MAX_TOP_LOGPROBS: u8 = 20;

/// The content of a request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Request {
    /// What to continue or answer.
    #[n(0)]
    pub prompt: Prompt,
    /// Generation ends before the first of these to appear in the text.
    #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_STOPS as u64 }, _, _>")]
    pub stop: Vec<String>,
    /// Log-probabilities of output tokens, with so many alternatives each.
    #[n(2)]
    pub logprobs: Option<u8>,
    /// Log-probabilities of prompt tokens, with so many alternatives each.
    #[n(3)]
    pub prompt_logprobs: Option<u8>,
    /// Today, for chat templates that mention it.
    #[n(4)]
    pub date: Option<CivilDate>,
    /// What the answer must keep to (`docs/spec/grammar.md`); the order names its digest.
    #[n(5)]
    pub grammar: Option<String>,
    /// A vector of the prompt, instead of an answer in text.
    #[n(6)]
    pub embedding: Option<Embedding>,
}

/// What to continue or answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Rendered by the model's chat template.
    #[n(0)]
    Chat {
        /// In order.
        #[cbor(n(0), decode_with = "crate::codec::list::<{ MAX_MESSAGES as u64 }, _, _>")]
        messages: Vec<Message>,
        /// What the model may call: each a JSON object as [`json::check`] has it, as templates print them.
        #[cbor(n(1), decode_with = "crate::codec::list::<{ MAX_TOOLS as u64 }, _, _>")]
        tools: Vec<String>,
    },
    /// Tokenised as it stands.
    #[n(1)]
    Text(#[n(0)] String),
    /// Taken as they are.
    #[n(2)]
    Tokens(#[cbor(n(0), decode_with = "crate::codec::list::<{ MAX_PROMPT_TOKENS as u64 }, _, _>")] Vec<u32>),
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Message {
    /// `system`, `user`, `assistant`, … as the template knows them.
    #[n(0)]
    pub role: String,
    /// What was said; empty where the assistant only calls.
    #[n(1)]
    pub content: String,
    /// By whom, where a template distinguishes.
    #[n(2)]
    pub name: Option<String>,
    /// What the assistant called.
    #[cbor(n(3), decode_with = "crate::codec::list::<{ MAX_TOOL_CALLS as u64 }, _, _>")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of.
    #[n(4)]
    pub tool_call_id: Option<String>,
}

/// A call of a function, as the assistant made it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct ToolCall {
    /// By which its result names it.
    #[n(0)]
    pub id: String,
    /// What is called.
    #[n(1)]
    pub name: String,
    /// With what: a JSON object as [`json::check`] has it.
    #[n(2)]
    pub arguments: String,
}

impl Message {
    /// A message of text alone.
    pub fn text(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        at_most("role", "bytes", self.role.len(), MAX_NAME_BYTES)?;
        at_most("name", "bytes", bytes(&self.name), MAX_NAME_BYTES)?;
        at_most("tool_call_id", "bytes", bytes(&self.tool_call_id), MAX_NAME_BYTES)?;
        at_most("tool_calls", "calls", self.tool_calls.len(), MAX_TOOL_CALLS)?;
        for call in &self.tool_calls {
            at_most("id", "bytes", call.id.len(), MAX_NAME_BYTES)?;
            at_most("name", "bytes", call.name.len(), MAX_NAME_BYTES)?;
            at_most("arguments", "bytes", call.arguments.len(), MAX_ARGUMENTS_BYTES)?;
            json::check(&call.arguments).map_err(|error| Invalid::new("arguments", error.to_string()))?;
        }
        Ok(())
    }
}

impl Prompt {
    /// A chat without tools.
    pub fn chat(messages: Vec<Message>) -> Prompt {
        Prompt::Chat { messages, tools: Vec::new() }
    }
}

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct CivilDate {
    /// 1 … 9999.
    #[n(0)]
    pub year: u16,
    /// 1 … 12.
    #[n(1)]
    pub month: u8,
    /// 1 … the month's last day.
    #[n(2)]
    pub day: u8,
}

impl CivilDate {
    /// The day in UTC that a moment falls on, or the last day of 9999 if it is later.
    ///
    /// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    pub fn from_unix_ms(ms: u64) -> CivilDate {
        const LAST_DAY: u64 = 2_932_896;
        let z = (ms / 86_400_000).min(LAST_DAY) + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        CivilDate { year: year as u16, month: month as u8, day: day as u8 }
    }

    fn check(&self) -> Result<(), Invalid> {
        let leap =
            self.year.is_multiple_of(4) && !self.year.is_multiple_of(100) || self.year.is_multiple_of(400);
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u8::from(leap),
            _ => 0,
        };
        if (1..=9999).contains(&self.year) && (1..=days).contains(&self.day) {
            Ok(())
        } else {
            Err(Invalid::new("date", format!("is no day: {}-{}-{}", self.year, self.month, self.day)))
        }
    }
}

impl Request {
    /// The digest an order commits to. Panics if the request is out of its bounds.
    pub fn digest(&self) -> Digest {
        Digest::of(domain::REQUEST, &self.to_cbor())
    }

    /// The digest of a grammar (G-1), as an order's sampling parameters name it.
    pub fn grammar_digest(grammar: &str) -> Digest {
        Digest::of(domain::GRAMMAR, grammar.as_bytes())
    }

    /// Whether the request has the grammar that an order's sampling parameters name, or neither has one (G-1).
    pub fn has_grammar_of(&self, order: &crate::Order) -> bool {
        self.grammar.as_deref().map(Request::grammar_digest) == order.sampling.grammar
    }

    /// The digest of an encoded request.
    pub fn digest_of(cbor: &[u8]) -> Digest {
        Digest::of(domain::REQUEST, cbor)
    }
}

impl Canonical for Request {
    const NAME: &'static str = "request";
    const MAX_BYTES: usize = MAX_REQUEST_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        match &self.prompt {
            Prompt::Chat { messages, tools } => {
                if messages.is_empty() {
                    return Err(Invalid::new("messages", "is empty"));
                }
                at_most("messages", "messages", messages.len(), MAX_MESSAGES)?;
                messages.iter().try_for_each(Message::check)?;
                at_most("tools", "tools", tools.len(), MAX_TOOLS)?;
                for tool in tools {
                    at_most("tools", "bytes in one tool", tool.len(), MAX_TOOL_BYTES)?;
                    json::check(tool).map_err(|error| Invalid::new("tools", error.to_string()))?;
                }
            }
            Prompt::Text(_) => {}
            Prompt::Tokens(ids) => at_most("prompt", "tokens", ids.len(), MAX_PROMPT_TOKENS)?,
        }
        at_most("stop", "strings", self.stop.len(), MAX_STOPS)?;
        for stop in &self.stop {
            at_most("stop", "bytes in one string", stop.len(), MAX_STOP_BYTES)?;
            if stop.is_empty() {
                return Err(Invalid::new("stop", "holds an empty string"));
            }
        }
        for (field, top) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            at_most(field, "alternatives", top.unwrap_or(0).into(), MAX_TOP_LOGPROBS.into())?;
        }
        if let Some(embedding) = &self.embedding {
            embedding.check()?;
            // a vector has no text that could stop, and no tokens that could be likely.
            let is_of_text = !self.stop.is_empty() || self.grammar.is_some();
            if is_of_text || self.logprobs.is_some() || self.prompt_logprobs.is_some() {
                let problem = "asks for a vector; stop strings, grammars and log-probabilities are of text";
                return Err(Invalid::new("embedding", problem));
            }
        }
        at_most("grammar", "bytes", self.grammar.as_ref().map_or(0, String::len), MAX_GRAMMAR_BYTES)?;
        self.date.as_ref().map_or(Ok(()), CivilDate::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_civil() {
        let check = |ms, year, month, day| {
            assert_eq!(CivilDate::from_unix_ms(ms), CivilDate { year, month, day });
        };
        check(0, 1970, 1, 1);
        check(951_782_399_999, 2000, 2, 28);
        check(951_782_400_000, 2000, 2, 29);
        check(951_868_800_000, 2000, 3, 1);
        check(1_798_761_600_000, 2027, 1, 1);
        check(253_402_300_799_999, 9999, 12, 31);
        check(u64::MAX, 9999, 12, 31);
        for day in (0..2_932_896).step_by(97) {
            CivilDate::from_unix_ms(day * 86_400_000).check().unwrap();
        }
        assert!(CivilDate { year: 2100, month: 2, day: 29 }.check().is_err());
        assert!(CivilDate { year: 2026, month: 13, day: 1 }.check().is_err());
        assert!(CivilDate { year: 2026, month: 1, day: 0 }.check().is_err());
    }
}
