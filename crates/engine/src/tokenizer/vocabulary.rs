//! The vocabulary: each token's text, bytes and role.
//!
//! In:     GGUF metadata.
//! Out:    tokens by id and by text, the special ones among them, and those that end a generation.
//! Touches: nothing.
//! Holds:  texts are unique and bounded; every id named here exists.
//! Absent: how text becomes tokens (`bpe`, `sentencepiece`, `wordpiece`).
//!
//! GGUF says little about roles, so llama.cpp tells many by their names; the names below are its names.

use std::{borrow::Cow, ops::BitOr};

use super::{Description, TOKEN_BYTES_MAX, TOKENS_MAX, TokenizerError, texts::Texts};
use crate::gguf::Gguf;

/// How a kind of vocabulary spells bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte is one printable character (`byte_character`).
    ByteLevel,
    /// A space is `▁`; bytes without a token are `<0x0A>`.
    SentencePiece,
    /// A word begins with `▁`.
    WordPiece,
}

/// What GGUF's `tokenizer.ggml.token_type` and the names below say of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(u8);

impl Attributes {
    pub(super) const NORMAL: Attributes = Attributes(1);
    pub(super) const UNKNOWN: Attributes = Attributes(1 << 1);
    pub(super) const CONTROL: Attributes = Attributes(1 << 2);
    pub(super) const USER_DEFINED: Attributes = Attributes(1 << 3);
    pub(super) const BYTE: Attributes = Attributes(1 << 4);
    /// White space after the token belongs to it.
    pub(super) const STRIP_AFTER: Attributes = Attributes(1 << 5);
    /// Unused and undefined tokens.
    const NONE: Attributes = Attributes(0);

    /// From the value in `tokenizer.ggml.token_type`.
    fn from_type(kind: i64) -> Self {
        match kind {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            6 => Self::BYTE,
            _ => Self::NONE,
        }
    }

    pub(super) fn has_any(self, other: Attributes) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Attributes {
    type Output = Attributes;

    fn bitor(self, other: Attributes) -> Attributes {
        Attributes(self.0 | other.0)
    }
}

/// The tokens the metadata gives a role.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    end_of_turn: Option<u32>,
    end_of_message: Option<u32>,
    fill_pad: Option<u32>,
    fill_repository: Option<u32>,
    fill_separator: Option<u32>,
}

pub(super) struct Vocabulary {
    spelling: Spelling,
    texts: Texts,
    attributes: Vec<Attributes>,
    /// The bytes of all tokens, one after the other, and where each ends.
    pieces: Vec<u8>,
    piece_ends: Vec<u32>,
    pub(super) special: SpecialIds,
    /// Tokens that end a generation, ascending.
    pub(super) ends: Vec<u32>,
}

/// Names of tokens that end a turn; the first found stands in for `tokenizer.ggml.eot_token_id`.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const END_OF_MESSAGE: &[&str] = &["<|eom_id|>"];
const FILL_PREFIX: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FILL_SUFFIX: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FILL_MIDDLE: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FILL_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FILL_REPOSITORY: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FILL_SEPARATOR: &[&str] = &["<|file_sep|>"];
/// Names of tokens that end a generation wherever they occur.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];
/// Control tokens of the harmony format whose text belongs to the answer.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Vocabulary {
    pub(super) fn from_gguf(gguf: &Gguf, spelling: Spelling) -> Result<Self, TokenizerError> {
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        if !(1..=TOKENS_MAX).contains(&tokens.len()) {
            return Err(TokenizerError::Size { count: tokens.len() });
        }
        let mut texts = Texts::with_capacity(tokens.len());
        for (id, text) in (0u32..).zip(tokens.iter()) {
            if text.len() > TOKEN_BYTES_MAX {
                return Err(TokenizerError::TooLong { id, bytes: text.len() });
            }
            let text =
                if text.is_empty() { Cow::Owned(format!("[EMPTY_{id}]")) } else { Cow::Borrowed(text) };
            if let Err(first) = texts.push(&text) {
                return Err(TokenizerError::Duplicate { first, second: id, text: text.into_owned() });
            }
        }
        let attributes = match gguf.optional_integers(TOKEN_TYPE)? {
            None => vec![Attributes::NORMAL; texts.len()],
            Some(kinds) if kinds.len() < texts.len() => {
                return Err(TokenizerError::Length {
                    key: TOKEN_TYPE,
                    found: kinds.len(),
                    tokens: texts.len(),
                });
            }
            Some(kinds) => kinds[..texts.len()].iter().map(|&kind| Attributes::from_type(kind)).collect(),
        };
        let mut vocabulary = Self {
            spelling,
            texts,
            attributes,
            pieces: Vec::new(),
            piece_ends: Vec::new(),
            special: SpecialIds::default(),
            ends: Vec::new(),
        };
        vocabulary.special = vocabulary.special_ids(gguf)?;
        vocabulary.find_by_name(gguf);
        vocabulary.find_ends();
        vocabulary.spell_out()?;
        vocabulary.strip_after_special(gguf)?;
        Ok(vocabulary)
    }

    /// Roles the metadata names, with each kind's defaults.
    fn special_ids(&self, gguf: &Gguf) -> Result<SpecialIds, TokenizerError> {
        let tokens = self.len();
        let exists = |id: u32| (id as usize) < tokens;
        // A role this engine acts on must name a token that exists.
        let checked = |key: &'static str, default: Option<u32>| match gguf.optional_u32(key)? {
            Some(id) if !exists(id) => Err(TokenizerError::SpecialRange { key, id, tokens }),
            id => Ok(id.or(default.filter(|&id| exists(id)))),
        };
        let lenient = |key| self.placeholder(gguf, key);
        let (bos, eos, unknown, separator) = match self.spelling {
            Spelling::ByteLevel => (None, None, None, None),
            Spelling::SentencePiece => (Some(1), Some(2), Some(0), None),
            Spelling::WordPiece => (Some(101), None, Some(100), Some(102)),
        };
        Ok(SpecialIds {
            bos: checked("tokenizer.ggml.bos_token_id", bos)?,
            eos: checked("tokenizer.ggml.eos_token_id", eos)?,
            end_of_turn: checked("tokenizer.ggml.eot_token_id", None)?,
            end_of_message: checked("tokenizer.ggml.eom_token_id", None)?,
            unknown: lenient("tokenizer.ggml.unknown_token_id").or(unknown.filter(|&id| exists(id))),
            separator: lenient("tokenizer.ggml.seperator_token_id").or(separator.filter(|&id| exists(id))),
            fill_pad: lenient("tokenizer.ggml.fim_pad_token_id"),
            fill_repository: lenient("tokenizer.ggml.fim_rep_token_id"),
            fill_separator: lenient("tokenizer.ggml.fim_sep_token_id"),
        })
    }

    /// A role that files often fill with a number that is no token.
    fn placeholder(&self, gguf: &Gguf, key: &str) -> Option<u32> {
        gguf.u32(key).ok().filter(|&id| (id as usize) < self.len())
    }

    /// Roles the metadata leaves out, told by name. Such tokens are control tokens, whatever their type says.
    /// Where several names of a list occur, the lowest id takes the role.
    fn find_by_name(&mut self, gguf: &Gguf) {
        let infill = [
            (["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"], FILL_PREFIX),
            (["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"], FILL_SUFFIX),
            (["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"], FILL_MIDDLE),
        ];
        let infill =
            infill.map(|(keys, names)| (keys.into_iter().find_map(|key| self.placeholder(gguf, key)), names));
        let mut found = |role: Option<u32>, names: &[&str]| {
            role.or_else(|| {
                let id = names.iter().filter_map(|&name| self.texts.id(name)).min()?;
                self.attributes[id as usize] = self.attributes[id as usize] | Attributes::CONTROL;
                Some(id)
            })
        };
        self.special.end_of_turn = found(self.special.end_of_turn, END_OF_TURN);
        self.special.end_of_message = found(self.special.end_of_message, END_OF_MESSAGE);
        self.special.fill_pad = found(self.special.fill_pad, FILL_PAD);
        self.special.fill_repository = found(self.special.fill_repository, FILL_REPOSITORY);
        self.special.fill_separator = found(self.special.fill_separator, FILL_SEPARATOR);
        for (role, names) in infill {
            found(role, names);
        }
    }

    /// Which tokens end a generation, told by role and name.
    fn find_ends(&mut self) {
        let special = self.special;
        let roles = [
            special.fill_pad,
            special.fill_repository,
            special.fill_separator,
            special.eos,
            special.end_of_turn,
            special.end_of_message,
        ];
        let named = ENDS.iter().filter_map(|&name| self.texts.id(name));
        for id in named.clone() {
            self.attributes[id as usize] = self.attributes[id as usize] | Attributes::CONTROL;
        }
        let mut ends: Vec<u32> = roles.into_iter().flatten().chain(named).collect();
        ends.sort_unstable();
        ends.dedup();
        for id in SHOWN.iter().filter_map(|&name| self.texts.id(name)) {
            self.attributes[id as usize] = Attributes::USER_DEFINED;
        }

        let has =
            |ends: &[u32], name: &str| self.texts.id(name).is_some_and(|id| ends.binary_search(&id).is_ok());
        let call = has(&ends, "<|call|>") || has(&ends, "<|calls|>");
        let mut remove = Vec::new();
        // In the harmony format <|end|> only ends a message.
        if call && (has(&ends, "<|return|>") || has(&ends, "<|flush|>")) && has(&ends, "<|end|>") {
            remove.push(("<|end|>", Attributes::USER_DEFINED));
        }
        // Here </s> is an ordinary token.
        if (has(&ends, "<|tool_response>") || has(&ends, "<|plamo:eos|>")) && has(&ends, "</s>") {
            remove.push(("</s>", Attributes::NORMAL));
        }
        for (name, attributes) in remove {
            let Some(id) = self.texts.id(name) else { continue };
            ends.retain(|&end| end != id);
            self.attributes[id as usize] = attributes;
        }
        self.ends = ends;
    }

    /// The bytes of every token.
    fn spell_out(&mut self) -> Result<(), TokenizerError> {
        let literal = Attributes::CONTROL | Attributes::UNKNOWN | Attributes::USER_DEFINED;
        for (id, text) in (0u32..).zip(self.texts.iter()) {
            let attributes = self.attributes[id as usize];
            if attributes.has_any(literal) {
                self.pieces.extend_from_slice(text.as_bytes());
            } else if attributes.has_any(Attributes::NORMAL) {
                match self.spelling {
                    Spelling::ByteLevel => spell_bytes(text, &mut self.pieces),
                    Spelling::SentencePiece | Spelling::WordPiece => {
                        self.pieces.extend_from_slice(text.replace('▁', " ").as_bytes());
                    }
                }
            } else if attributes.has_any(Attributes::BYTE) {
                let byte =
                    byte_token(text).ok_or_else(|| TokenizerError::Byte { id, text: text.to_string() })?;
                self.pieces.push(byte);
            }
            // TOKEN_BYTES_MAX, TOKENS_MAX and the bound on metadata keep this inside u32.
            self.piece_ends.push(self.pieces.len() as u32);
        }
        Ok(())
    }

    /// In Phi-3 vocabularies white space after a special token belongs to it; GGUF does not say so.
    fn strip_after_special(&mut self, gguf: &Gguf) -> Result<(), TokenizerError> {
        let name = gguf.optional_string("general.name")?.unwrap_or_default().to_ascii_lowercase();
        if !(name.contains("phi-3") || name.contains("phi3")) {
            return Ok(());
        }
        let special = Attributes::CONTROL | Attributes::USER_DEFINED | Attributes::UNKNOWN;
        for (text, attributes) in self.texts.iter().zip(&mut self.attributes) {
            let strips = attributes.has_any(special) || text == "</s>";
            if strips && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>") {
                *attributes = *attributes | Attributes::STRIP_AFTER;
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Panics if the id does not exist.
    pub(super) fn text(&self, id: u32) -> &str {
        self.texts.get(id)
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.texts.id(text)
    }

    pub(super) fn attributes(&self, id: u32) -> Attributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }

    /// The bytes of a token, none if the id does not exist.
    pub(super) fn piece(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.piece_ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |previous| self.piece_ends[previous]);
        &self.pieces[start as usize..end as usize]
    }

    /// Whether a byte-level vocabulary has all bytes that occur in texts, and no token that is read as other bytes than it
    /// spells. `reached` says of each token whether ordinary text can become it.
    pub(super) fn spells_what_it_reads(&self, reached: &[bool]) -> bool {
        // Not C0, C1 and F5 on: no UTF-8 holds them.
        let mut bytes = (0..=0xf4).filter(|byte| !(0xc0..=0xc1).contains(byte));
        let is_token = |byte| self.id(byte_character(byte).encode_utf8(&mut [0; 4])).is_some();
        let as_read = |id: u32| {
            let special = Attributes::CONTROL | Attributes::USER_DEFINED | Attributes::UNKNOWN;
            let (text, attributes, mut read) = (self.text(id), self.attributes(id), Vec::new());
            spell_bytes(text, &mut read);
            let found = !attributes.has_any(special) || self.piece(id) == text.as_bytes();
            let merged = !reached[id as usize] || self.piece(id) == read;
            found && merged && !attributes.has_any(Attributes::STRIP_AFTER)
        };
        bytes.all(is_token) && (0..self.len() as u32).all(as_read)
    }

    pub(super) fn describe(&self, description: &mut Description<'_>) {
        description.text(match self.spelling {
            Spelling::ByteLevel => "byte-level BPE",
            Spelling::SentencePiece => "SentencePiece",
            Spelling::WordPiece => "WordPiece",
        });
        description.number(self.texts.len() as u64);
        for (text, attributes) in self.texts.iter().zip(&self.attributes) {
            description.text(text);
            description.number(attributes.0.into());
        }
        description.id(self.special.unknown);
        description.number(self.ends.len() as u64);
        self.ends.iter().for_each(|&id| description.number(id.into()));
    }
}

const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";

/// The byte of a text of the form `<0x0A>`.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hexadecimal { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The character by which a byte-level vocabulary spells a byte: itself where it is printable, else one of the
/// characters from U+0100 on, in order.
pub(super) fn byte_character(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0x00..=0x20 => shifted(byte),
        0x7f..=0xa0 => shifted(byte - 0x7f + 0x21),
        0xad => shifted(0x43),
    }
}

fn shifted(by: u8) -> char {
    char::from_u32(0x100 + u32::from(by)).expect("U+0100 to U+0143 are characters")
}

/// The inverse of `byte_character`.
fn character_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121) as u8 + 0x7f),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes a byte-level text spells. A text with other characters in it stands for itself: it was added
/// to the vocabulary as it is.
fn spell_bytes(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for character in text.chars() {
        match character_byte(character) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(text.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_their_characters_are_one_to_one() {
        let characters: std::collections::BTreeSet<char> = (0..=255).map(byte_character).collect();
        assert_eq!(characters.len(), 256);
        for byte in 0..=255 {
            assert_eq!(character_byte(byte_character(byte)), Some(byte));
        }
        assert_eq!(
            characters.into_iter().collect::<String>().chars().filter(|c| c.is_whitespace()).count(),
            0
        );
        assert_eq!((byte_character(b' '), byte_character(b'\n'), byte_character(0x7f)), ('Ġ', 'Ċ', 'ġ'));
        assert_eq!(character_byte('Ġ'), Some(b' '));
        assert_eq!(character_byte(' '), None);
    }

    #[test]
    fn byte_tokens_are_two_hexadecimal_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        for text in ["<0xA>", "<0x00A>", "<0xZZ>", "0x0A", "<0x+A>"] {
            assert_eq!(byte_token(text), None, "{text}");
        }
    }
}
