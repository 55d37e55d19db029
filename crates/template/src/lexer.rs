//! The first pass over a template: text, and what stands between its marks.
//!
//! In:     a template's source.
//! Out:    its lexemes in order, each with its line; whitespace around blocks already taken away.
//! Touches: nothing.
//! Holds:  J-2; at most so many lexemes as the limits allow; time linear in the source.
//! Absent: line statements, other marks.

use std::borrow::Cow;

use crate::{Limit, TemplateError};

/// The smallest thing with a meaning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'s> {
    /// Text that stands for itself.
    Data(&'s str),
    /// `{{`.
    PrintBegin,
    /// `}}`.
    PrintEnd,
    /// `{%`.
    BlockBegin,
    /// `%}`.
    BlockEnd,
    Name(&'s str),
    Text(String),
    Int(i64),
    Float(f64),
    /// An operator or a bracket.
    Sign(&'static str),
    /// The source ends.
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Lexeme<'s> {
    pub(crate) line: u32,
    pub(crate) kind: Kind<'s>,
}

/// J-2.8: in this order, so that the longer ones come first.
const SIGNS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";", "!",
];

/// J-2.2: what counts as whitespace everywhere: the characters Python's `str.isspace` knows.
pub(crate) fn is_space(character: char) -> bool {
    matches!(character,
        '\t'..='\r' | '\u{1c}'..=' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}'
        | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// J-2.1: one kind of line end, and none at the very end.
pub(crate) fn normalise(source: &str) -> Cow<'_, str> {
    let source: Cow<'_, str> = if source.contains('\r') {
        Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(source)
    };
    match source {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_suffix('\n').unwrap_or(text)),
        Cow::Owned(mut text) => {
            if text.ends_with('\n') {
                text.pop();
            }
            Cow::Owned(text)
        }
    }
}

/// The lexemes of a normalised source, `End` last.
pub(crate) fn lexemes(source: &str, most: u64) -> Result<Vec<Lexeme<'_>>, TemplateError> {
    let mut lexer = Lexer { source, position: 0, line: 1, line_start: true, found: Vec::new(), most };
    lexer.run()?;
    Ok(lexer.found)
}

struct Lexer<'s> {
    source: &'s str,
    position: usize,
    line: u32,
    /// Whether what was read last ended a line.
    line_start: bool,
    found: Vec<Lexeme<'s>>,
    most: u64,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.position..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.rest().as_bytes()[..bytes];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u32;
        self.line_start = passed.last() == Some(&b'\n');
        self.position += bytes;
    }

    fn push(&mut self, kind: Kind<'s>) -> Result<(), TemplateError> {
        if self.found.len() as u64 >= self.most {
            return Err(TemplateError::Limit { line: self.line, limit: Limit::Lexemes, allowed: self.most });
        }
        self.found.push(Lexeme { line: self.line, kind });
        Ok(())
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::Syntax { line: self.line, reason: reason.into() })
    }

    fn run(&mut self) -> Result<(), TemplateError> {
        while let Some((offset, mark)) = begin(self.rest()) {
            let rest = self.rest();
            let sign = sign_at(rest, offset + 2);
            let text = self.before(&rest[..offset], sign, mark != b'{');
            if !text.is_empty() {
                self.push(Kind::Data(text))?;
            }
            self.advance(offset + 2 + usize::from(sign.is_some()));
            match mark {
                b'{' => {
                    self.push(Kind::PrintBegin)?;
                    self.inside("}}", Kind::PrintEnd)?;
                }
                b'#' => self.comment()?,
                _ => match raw_begin(self.rest()) {
                    Some(bytes) => self.raw(bytes)?,
                    None => {
                        self.push(Kind::BlockBegin)?;
                        self.inside("%}", Kind::BlockEnd)?;
                    }
                },
            }
        }
        if !self.rest().is_empty() {
            self.push(Kind::Data(self.rest()))?;
            self.advance(self.rest().len());
        }
        self.push(Kind::End)
    }

    /// What is left of the text before a mark (J-2.4, J-2.5).
    fn before(&self, text: &'s str, sign: Option<u8>, block: bool) -> &'s str {
        match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            None if block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                if (line > 0 || self.line_start) && text[line..].chars().all(is_space) {
                    &text[..line]
                } else {
                    text
                }
            }
            _ => text,
        }
    }

    /// Passes the end of a block or comment, and what it takes away behind itself (J-2.4, J-2.6).
    fn end(&mut self, sign: Option<u8>, mark_bytes: usize, block: bool) {
        let bytes = usize::from(sign.is_some()) + mark_bytes;
        let behind = &self.rest()[bytes..];
        let taken = match sign {
            Some(b'-') => behind.len() - behind.trim_start_matches(is_space).len(),
            None if block && behind.starts_with('\n') => 1,
            _ => 0,
        };
        self.advance(bytes + taken);
    }

    fn comment(&mut self) -> Result<(), TemplateError> {
        let Some(end) = self.rest().find("#}") else { return self.fail("a comment has no end") };
        let sign = end.checked_sub(1).and_then(|at| sign_at(self.rest(), at));
        self.advance(end - usize::from(sign.is_some()));
        self.end(sign, 2, true);
        Ok(())
    }

    /// Text up to `endraw`, as it stands (J-2.7).
    fn raw(&mut self, begin_bytes: usize) -> Result<(), TemplateError> {
        self.advance(begin_bytes);
        let rest = self.rest();
        let mut from = 0;
        while let Some(at) = rest[from..].find("{%").map(|at| from + at) {
            let sign = sign_at(rest, at + 2);
            let inside = &rest[at + 2 + usize::from(sign.is_some())..];
            let Some(end) = inside.trim_start_matches(is_space).strip_prefix("endraw") else {
                from = at + 2;
                continue;
            };
            let end = end.trim_start_matches(is_space);
            let end_sign = sign_at(end, 0);
            if !end[usize::from(end_sign.is_some())..].starts_with("%}") {
                from = at + 2;
                continue;
            }
            let text = self.before(&rest[..at], sign, true);
            if !text.is_empty() {
                self.push(Kind::Data(text))?;
            }
            self.advance(rest.len() - end.len());
            self.end(end_sign, 2, true);
            return Ok(());
        }
        self.fail("raw has no endraw")
    }

    /// The lexemes up to a closing mark, which does not close while a bracket is open.
    fn inside(&mut self, mark: &'static str, closing: Kind<'s>) -> Result<(), TemplateError> {
        let block = mark == "%}";
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty() {
                let sign = sign_at(rest, 0).filter(|sign| block || *sign == b'-');
                if rest[usize::from(sign.is_some())..].starts_with(mark) {
                    self.push(closing)?;
                    self.end(sign, 2, block);
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else { return self.fail("the template ends within a tag") };
            if is_space(first) {
                self.advance(first.len_utf8());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first == '\'' || first == '"' {
                self.string(first)?;
            } else if first.is_ascii_alphabetic() || first == '_' {
                let name = &rest[..rest.len() - rest.trim_start_matches(is_name).len()];
                self.push(Kind::Name(name))?;
                self.advance(name.len());
            } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                match *sign {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" if open.pop() != Some(sign) => {
                        return self.fail(format!("'{sign}' closes nothing"));
                    }
                    _ => {}
                }
                self.push(Kind::Sign(sign))?;
                self.advance(sign.len());
            } else {
                return self.fail(format!("{first:?} has no meaning here"));
            }
        }
    }

    /// J-2.9.
    fn number(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let radix = match rest.as_bytes().get(..2) {
            Some(b"0x" | b"0X") => 16,
            Some(b"0o" | b"0O") => 8,
            Some(b"0b" | b"0B") => 2,
            _ => 10,
        };
        if radix != 10 {
            let digits = digits(&rest[2..], radix);
            let value = i64::from_str_radix(&rest[2..2 + digits].replace('_', ""), radix);
            let Ok(value) = value else { return self.fail("a number is too large or has no digits") };
            self.push(Kind::Int(value))?;
            self.advance(2 + digits);
            return Ok(());
        }
        let whole = digits(rest, 10);
        let mut bytes = whole;
        // `x.0.1` is two subscripts.
        let after_dot = self.source[..self.position].ends_with('.');
        if !after_dot {
            if rest[bytes..].starts_with('.') {
                let fraction = digits(&rest[bytes + 1..], 10);
                bytes += if fraction > 0 { 1 + fraction } else { 0 };
            }
            if rest[bytes..].starts_with(['e', 'E']) {
                let sign = usize::from(rest[bytes + 1..].starts_with(['+', '-']));
                let exponent = digits(&rest[bytes + 1 + sign..], 10);
                bytes += if exponent > 0 { 1 + sign + exponent } else { 0 };
            }
        }
        let digits = rest[..bytes].replace('_', "");
        let kind = if bytes > whole {
            digits.parse().ok().filter(|value: &f64| value.is_finite()).map(Kind::Float)
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|digit| digit != b'0') {
            return self.fail("a number begins with 0");
        } else {
            digits.parse().ok().map(Kind::Int)
        };
        let Some(kind) = kind else { return self.fail("a number is too large") };
        self.push(kind)?;
        self.advance(bytes);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut escaped = false;
        let mut escapes = false;
        let end = rest.bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = !escaped && *byte == quote as u8;
            escaped = !escaped && *byte == b'\\';
            escapes |= escaped;
            ends
        });
        let Some((end, _)) = end else { return self.fail("a text has no closing quote") };
        let inner = &rest[1..end];
        let text = if escapes { self.unescape(inner)? } else { inner.to_owned() };
        self.push(Kind::Text(text))?;
        self.advance(end + 1);
        Ok(())
    }

    /// J-2.10.
    fn unescape(&self, text: &str) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let Some(escape) = rest.chars().next() else { return self.fail("a text ends in an escape") };
            let after = &rest[escape.len_utf8()..];
            let (code, digits) = match escape {
                'x' => (16, 2),
                'u' => (16, 4),
                'U' => (16, 8),
                '0'..='7' => {
                    let digits = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                    let value = u32::from_str_radix(&rest[..digits], 8).ok().and_then(char::from_u32);
                    out.extend(value);
                    rest = &rest[digits..];
                    continue;
                }
                'N' => return self.fail("\\N is not in the language"),
                _ => (0, 0),
            };
            if digits > 0 {
                let value = after
                    .get(..digits)
                    .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|hex| u32::from_str_radix(hex, code).ok())
                    .and_then(char::from_u32);
                let Some(value) = value else { return self.fail(format!("\\{escape} names no character")) };
                out.push(value);
                rest = &after[digits..];
                continue;
            }
            match escape {
                '\n' => {}
                '\\' | '\'' | '"' => out.push(escape),
                'a' => out.push('\u{7}'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'v' => out.push('\u{b}'),
                other => {
                    out.push('\\');
                    out.push(other);
                }
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// The next opening mark, and its second byte.
fn begin(text: &str) -> Option<(usize, u8)> {
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let at = from + text[from..].find('{')?;
        match bytes.get(at + 1) {
            Some(mark @ (b'{' | b'%' | b'#')) => return Some((at, *mark)),
            _ => from = at + 1,
        }
    }
}

fn sign_at(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied().filter(|byte| matches!(byte, b'-' | b'+'))
}

/// The bytes of ` raw %}`, if that is what follows.
fn raw_begin(rest: &str) -> Option<usize> {
    let end = rest.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let behind = match end.strip_prefix('-') {
        Some(end) => end.strip_prefix("%}")?.trim_start_matches(is_space),
        None => end.strip_prefix("%}")?,
    };
    Some(rest.len() - behind.len())
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The bytes of digits that may have single underscores between them.
fn digits(text: &str, radix: u32) -> usize {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(|byte| char::from(*byte).is_digit(radix));
    let mut end = 0;
    while is_digit(end) || (end > 0 && bytes.get(end) == Some(&b'_') && is_digit(end + 1)) {
        end += 1;
    }
    end
}
