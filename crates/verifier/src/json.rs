//! JSON: the evidence file, and tools and arguments within a request. Nothing is copied but strings with escapes, and
//! nesting takes no stack.

use alloc::{borrow::Cow, vec::Vec};

use crate::fault::Fault;

/// Levels of a file, at most; no field is deeper than a few.
const MAX_FILE_DEPTH: u32 = 127;
///
const MAX_OBJECT_DEPTH: u32 = 64;

/// 2¹⁰²⁴ − 2⁹⁷⁰, the least number that is not finite as binary64: its digits.
const NOT_FINITE: &[u8; 309] = b"179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017\
    97758720709633028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447\
    5730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904174497792";

/// A place in JSON text, commonly where a value begins. What it is given is UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Json<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether whitespace is refused and numbers are bounded.
    is_compact: bool,
}

type Read<T> = Result<T, Fault>;

const WRONG: Fault = Fault::NotJson;

impl<'a> Json<'a> {
    /// A whole text that is one value.
    pub(crate) fn parse(text: &'a str) -> Read<Json<'a>> {
        let value = Json { text: text.as_bytes(), at: 0, is_compact: false };
        let mut end = value;
        end.skip(MAX_FILE_DEPTH)?;
        end.space();
        if end.at == text.len() { Ok(value) } else { Err(WRONG) }
    }

    fn peek(&self) -> u8 {
        // A zero is nowhere allowed outside strings.
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while !self.is_compact && matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Past a byte, if it comes next.
    fn next(&mut self, wanted: u8) -> bool {
        self.space();
        let is_it = self.peek() == wanted;
        self.at += usize::from(is_it);
        is_it
    }

    /// Past one value.
    fn skip(&mut self, max_depth: u32) -> Read<()> {
        // One bit for each level: whether it is an object.
        let (mut levels, mut depth) = (0u128, 0);
        loop {
            self.space();
            let mut is_open = false;
            match self.peek() {
                opening @ (b'{' | b'[') => {
                    if depth == max_depth {
                        return Err(WRONG);
                    }
                    let is_object = opening == b'{';
                    (levels, depth) = (levels << 1 | u128::from(is_object), depth + 1);
                    self.at += 1;
                    self.space();
                    is_open = self.peek() != if is_object { b'}' } else { b']' };
                    if is_open && is_object {
                        self.name()?;
                    }
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => drop(self.number()?),
                _ => {
                    let rest = &self.text[self.at..];
                    let word =
                        [&b"true"[..], b"false", b"null"].into_iter().find(|word| rest.starts_with(word));
                    self.at += word.ok_or(WRONG)?.len();
                }
            }
            if is_open {
                continue;
            }
            // A value has ended, or a level has nothing in it.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = levels & 1 == 1;
                if self.next(if is_object { b'}' } else { b']' }) {
                    (levels, depth) = (levels >> 1, depth - 1);
                    continue;
                }
                if !self.next(b',') {
                    return Err(WRONG);
                }
                if is_object {
                    self.space();
                    self.name()?;
                }
                break;
            }
        }
    }

    /// Past a name and its colon.
    fn name(&mut self) -> Read<Raw<'a>> {
        let name = self.string()?;
        if self.next(b':') { Ok(name) } else { Err(WRONG) }
    }

    /// Past a string.
    fn string(&mut self) -> Read<Raw<'a>> {
        if self.peek() != b'"' {
            return Err(WRONG);
        }
        let begin = self.at + 1;
        let mut has_escapes = false;
        loop {
            self.at += 1;
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 1;
                    match self.peek() {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => match self.unit()? {
                            0xdc00..0xe000 => return Err(WRONG),
                            0xd800..0xdc00 => {
                                self.at += 1;
                                let is_escape = self.peek() == b'\\';
                                self.at += 1;
                                if !is_escape
                                    || self.peek() != b'u'
                                    || !(0xdc00..0xe000).contains(&self.unit()?)
                                {
                                    return Err(WRONG);
                                }
                            }
                            _ => {}
                        },
                        _ => return Err(WRONG),
                    }
                }
                0..0x20 => return Err(WRONG),
                _ => {}
            }
        }
        let raw = Raw { text: &self.text[begin..self.at], has_escapes };
        self.at += 1;
        Ok(raw)
    }

    /// Four hexadecimal digits behind a `u`; stays at the last of them.
    fn unit(&mut self) -> Read<u32> {
        let digits = self.text.get(self.at + 1..self.at + 5).ok_or(WRONG)?;
        self.at += 4;
        unit(digits).ok_or(WRONG)
    }

    fn digits(&mut self) -> Read<&'a [u8]> {
        let from = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == from { Err(WRONG) } else { Ok(&self.text[from..self.at]) }
    }

    /// Past a number; its value if it is an integer of at most 20 digits, and not −0.
    fn number(&mut self) -> Read<Option<i128>> {
        let is_negative = self.peek() == b'-';
        self.at += usize::from(is_negative);
        let whole = self.digits()?;
        if whole.len() > 1 && whole[0] == b'0' {
            return Err(WRONG);
        }
        let mut is_integer = true;
        let mut fraction: &[u8] = &[];
        if self.peek() == b'.' {
            is_integer = false;
            self.at += 1;
            fraction = self.digits()?;
        }
        let mut exponent = 0i64;
        if matches!(self.peek(), b'e' | b'E') {
            is_integer = false;
            self.at += 1;
            let is_minus = self.peek() == b'-';
            self.at += usize::from(is_minus || self.peek() == b'+');
            // No text is long enough to make up for an exponent beyond this.
            exponent =
                self.digits()?.iter().fold(0, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1 << 40));
            exponent = if is_minus { -exponent } else { exponent };
        }
        let value = (is_integer && whole.len() <= 20)
            .then(|| whole.iter().fold(0, |value, digit| value * 10 + i128::from(digit - b'0')));
        if self.is_compact {
            let fits = match is_integer {
                true => value.is_some_and(|value| value < 1 << 63),
                false => is_finite(whole, fraction, exponent),
            };
            if !fits {
                return Err(WRONG);
            }
        }
        Ok(value
            .filter(|value| !(is_negative && *value == 0))
            .map(|value| if is_negative { -value } else { value }))
    }

    /// The values of an object's fields, if they are exactly these.
    pub(crate) fn fields(mut self, names: &[&str]) -> Read<Vec<Json<'a>>> {
        let missing = Json { at: usize::MAX, ..self };
        let mut found = alloc::vec![missing; names.len()];
        if !self.next(b'{') {
            return Err(Fault::Fields);
        }
        let mut left = names.len();
        if !self.next(b'}') {
            loop {
                self.space();
                let name = self.name()?;
                let at = names.iter().position(|wanted| name.is(wanted)).ok_or(Fault::Fields)?;
                if found[at].at != usize::MAX {
                    return Err(Fault::Fields);
                }
                self.space();
                found[at] = self;
                left -= 1;
                self.skip(MAX_FILE_DEPTH)?;
                if self.next(b'}') {
                    break;
                }
                self.next(b',');
            }
        }
        if left == 0 { Ok(found) } else { Err(Fault::Fields) }
    }

    /// The items of a list of at most `most`.
    pub(crate) fn list(mut self, most: usize) -> Read<Vec<Json<'a>>> {
        let mut items = Vec::new();
        if !self.next(b'[') {
            return Err(Fault::Fields);
        }
        if self.next(b']') {
            return Ok(items);
        }
        loop {
            self.space();
            if items.len() == most {
                return Err(Fault::Fields);
            }
            items.push(self);
            self.skip(MAX_FILE_DEPTH)?;
            if self.next(b']') {
                return Ok(items);
            }
            self.next(b',');
        }
    }

    /// A list of unsigned integers of 32 bits.
    pub(crate) fn ids(mut self) -> Read<Vec<u32>> {
        let mut ids = Vec::new();
        if !self.next(b'[') {
            return Err(Fault::Fields);
        }
        if self.next(b']') {
            return Ok(ids);
        }
        loop {
            self.space();
            if !matches!(self.peek(), b'-' | b'0'..=b'9') {
                return Err(Fault::Fields);
            }
            let id = self.number()?.and_then(|id| u32::try_from(id).ok());
            ids.push(id.ok_or(Fault::Fields)?);
            if self.next(b']') {
                return Ok(ids);
            }
            self.next(b',');
        }
    }

    /// A text, in UTF-8.
    pub(crate) fn text(mut self) -> Read<Cow<'a, [u8]>> {
        if self.peek() != b'"' {
            return Err(Fault::Fields);
        }
        Ok(self.string()?.unescaped())
    }

    pub(crate) fn integer(mut self) -> Option<i128> {
        if matches!(self.peek(), b'-' | b'0'..=b'9') { self.number().ok().flatten() } else { None }
    }

    /// Whether it is this text.
    pub(crate) fn is(mut self, text: &str) -> bool {
        self.peek() == b'"' && self.string().is_ok_and(|raw| raw.is(text))
    }

    pub(crate) fn truth(self) -> Option<bool> {
        match self.peek() {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.peek() == b'n'
    }
}

/// Whether a text is one JSON object as requests hold it.
pub(crate) fn is_object(text: &str) -> bool {
    let mut end = Json { text: text.as_bytes(), at: 0, is_compact: true };
    text.starts_with('{') && end.skip(MAX_OBJECT_DEPTH).is_ok() && end.at == text.len()
}

/// Whether a number is finite as the nearest binary64; ties are to even, so the least that is not is the tie.
fn is_finite(whole: &[u8], fraction: &[u8], exponent: i64) -> bool {
    let digits = || whole.iter().chain(fraction).skip_while(|digit| **digit == b'0');
    let zeros = (whole.len() + fraction.len() - digits().count()) as i64;
    // Digits before the point of the number that begins with its first digit that is not zero.
    match whole.len() as i64 - zeros + exponent {
        _ if digits().next().is_none() => true,
        ..309 => true,
        310.. => false,
        309 => digits()
            .chain(core::iter::repeat(&b'0'))
            .zip(NOT_FINITE)
            .find(|(a, b)| a != b)
            .is_some_and(|(a, b)| a < b),
    }
}

fn unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| char::from(*digit).to_digit(16).map(|digit| unit << 4 | digit))
}

/// A string as it stands between its quotes; its escapes are known to be right.
#[derive(Clone, Copy)]
struct Raw<'a> {
    text: &'a [u8],
    has_escapes: bool,
}

impl<'a> Raw<'a> {
    fn is(self, text: &str) -> bool {
        if self.has_escapes { *self.unescaped() == *text.as_bytes() } else { self.text == text.as_bytes() }
    }

    fn unescaped(self) -> Cow<'a, [u8]> {
        if !self.has_escapes {
            return Cow::Borrowed(self.text);
        }
        let mut unescaped = Vec::with_capacity(self.text.len());
        let mut bytes = self.text.iter();
        let mut high = 0;
        while let Some(byte) = bytes.next() {
            if *byte != b'\\' {
                unescaped.push(*byte);
                continue;
            }
            unescaped.push(match bytes.next().copied().unwrap_or_default() {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let found = unit(&bytes.as_slice()[..4]).unwrap_or_default();
                    bytes = bytes.as_slice()[4..].iter();
                    let code = match found {
                        0xd800..0xdc00 => {
                            high = found;
                            continue;
                        }
                        0xdc00..0xe000 => 0x10000 + ((high - 0xd800) << 10) + (found - 0xdc00),
                        _ => found,
                    };
                    let character = char::from_u32(code).unwrap_or_default();
                    unescaped.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                plain => plain,
            });
        }
        Cow::Owned(unescaped)
    }
}
