//! What operators do: equality, order, arithmetic, subscripts; and values as text.
//!
//! In:     values.
//! Out:    a value, or that these do not go together.
//! Touches: the renderer's account.
//! Holds:  J-4.4 to J-4.7, J-5; integers are checked, floats finite; whatever walks into a value takes a step for each it meets,
//!         so that sharing cannot make a small value endless.
//! Absent: formatting by `%`.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::render::{Renderer, Result, wrong};
use crate::syntax::{Comparison, Operator};
use crate::value::{List, Number, Value, float_text};

impl Renderer<'_> {
    /// J-5.4.
    pub(crate) fn equal(&mut self, left: &Value, right: &Value) -> Result<bool> {
        self.step(1)?;
        Ok(match (left, right) {
            (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
            (Value::Text(left), Value::Text(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                self.read(left.len())?;
                left == right
            }
            (Value::List(left), Value::List(right)) => {
                if left.items.len() != right.items.len() {
                    return Ok(false);
                }
                for (left, right) in left.items.iter().zip(&right.items) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(left), Value::Dict(right)) => {
                if left.entries.len() != right.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &left.entries {
                    let Some(other) = self.entry(right, key)? else { return Ok(false) };
                    if !self.equal(value, &other)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Namespace(left), Value::Namespace(right)) => left == right,
            (Value::Macro(left), Value::Macro(right)) => left == right,
            (Value::Function(left), Value::Function(right)) => left == right,
            (Value::Loop(left), Value::Loop(right)) => Rc::ptr_eq(left, right),
            _ => match (left.number(), right.number()) {
                (Some(left), Some(right)) => left.compare(right).is_eq(),
                _ => false,
            },
        })
    }

    /// J-5.5.
    pub(crate) fn order(&mut self, left: &Value, right: &Value) -> Result<Ordering> {
        if let (Value::Text(left), Value::Text(right)) = (left, right) {
            self.read(left.len().min(right.len()))?;
            return Ok(left.cmp(right));
        }
        match (left.number(), right.number()) {
            (Some(left), Some(right)) => Ok(left.compare(right)),
            _ => wrong(format!("{} and {} have no order", left.kind(), right.kind())),
        }
    }

    pub(crate) fn holds(&mut self, left: &Value, comparison: Comparison, right: &Value) -> Result<bool> {
        Ok(match comparison {
            Comparison::Equal => self.equal(left, right)?,
            Comparison::NotEqual => !self.equal(left, right)?,
            Comparison::Less => self.order(left, right)?.is_lt(),
            Comparison::LessOrEqual => self.order(left, right)?.is_le(),
            Comparison::Greater => self.order(left, right)?.is_gt(),
            Comparison::GreaterOrEqual => self.order(left, right)?.is_ge(),
            Comparison::In => self.contains(right, left)?,
            Comparison::NotIn => !self.contains(right, left)?,
        })
    }

    /// J-4.6.
    pub(crate) fn contains(&mut self, container: &Value, item: &Value) -> Result<bool> {
        match (container, item) {
            (Value::Text(text), Value::Text(part)) => {
                self.read(text.len() + part.len())?;
                Ok(text.contains(&**part))
            }
            (Value::List(list), _) => {
                for other in &list.items {
                    if self.equal(other, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Dict(dict), _) => Ok(self.entry(dict, item)?.is_some()),
            (Value::Undefined, _) => Ok(false),
            _ => wrong(format!("{} is not a thing {} can be in", container.kind(), item.kind())),
        }
    }

    /// J-4.4.
    pub(crate) fn binary(&mut self, left: &Value, operator: Operator, right: &Value) -> Result<Value> {
        match (operator, left, right) {
            (Operator::Join, _, _) => {
                let mut text = String::new();
                self.write_text(&mut text, left)?;
                self.write_text(&mut text, right)?;
                return self.pushed(text);
            }
            (Operator::Add, Value::Text(left), Value::Text(right)) => {
                let mut text = String::new();
                self.count((left.len() + right.len()) as u64)?;
                text.reserve_exact(left.len() + right.len());
                text.push_str(left);
                text.push_str(right);
                return self.pushed(text);
            }
            (Operator::Add, Value::List(left), Value::List(right)) => {
                self.count_list(left.items.len() + right.items.len())?;
                let items = left.items.iter().chain(&right.items).cloned().collect();
                return Ok(Value::List(self.counted_list(items)?));
            }
            (Operator::Multiply, Value::Text(_) | Value::List(_), Value::Int(count))
            | (Operator::Multiply, Value::Int(count), Value::Text(_) | Value::List(_)) => {
                let repeated = if matches!(left, Value::Int(_)) { right } else { left };
                return self.repeated(repeated, *count);
            }
            _ => {}
        }
        let (Some(a), Some(b)) = (left.number(), right.number()) else {
            let (left, right) = (left.kind(), right.kind());
            return wrong(format!("{left} and {right} cannot be {}", verb(operator)));
        };
        match (a, b) {
            (Number::Int(a), Number::Int(b)) if operator != Operator::Divide => whole(a, operator, b),
            _ => fraction(a.float(), operator, b.float()),
        }
    }

    fn repeated(&mut self, value: &Value, count: i64) -> Result<Value> {
        let count = count.max(0) as u64;
        match value {
            Value::Text(text) => {
                self.count((text.len() as u64).saturating_mul(count))?;
                // An empty text may be repeated as often as one likes.
                let text = if text.is_empty() { String::new() } else { text.repeat(count as usize) };
                self.pushed(text)
            }
            Value::List(list) => {
                let items = (list.items.len() as u64).saturating_mul(count);
                self.count_list(usize::try_from(items).unwrap_or(usize::MAX))?;
                let items = list.items.iter().cycle().take(items as usize).cloned().collect();
                Ok(Value::List(self.counted_list(items)?))
            }
            _ => wrong(format!("{} cannot be repeated", value.kind())),
        }
    }

    pub(crate) fn negative(&mut self, value: &Value) -> Result<Value> {
        match value.number() {
            Some(Number::Int(value)) => {
                value.checked_neg().map_or_else(too_large, |value| Ok(Value::Int(value)))
            }
            Some(Number::Float(value)) => Ok(Value::Float(-value)),
            None => wrong(format!("{} has no negative", value.kind())),
        }
    }

    pub(crate) fn positive(&mut self, value: &Value) -> Result<Value> {
        match value.number() {
            Some(Number::Int(value)) => Ok(Value::Int(value)),
            Some(Number::Float(value)) => Ok(Value::Float(value)),
            None => wrong(format!("{} is no number", value.kind())),
        }
    }

    /// J-4.7.
    pub(crate) fn item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        match (value, key) {
            (Value::Dict(dict), _) => Ok(self.entry(dict, key)?.unwrap_or(Value::Undefined)),
            (Value::List(list), _) => {
                let Some(index) = key.int() else { return Ok(Value::Undefined) };
                let index = from_end(index, list.items.len());
                Ok(index.and_then(|index| list.items.get(index)).cloned().unwrap_or(Value::Undefined))
            }
            (Value::Text(text), _) => {
                let Some(index) = key.int() else { return Ok(Value::Undefined) };
                self.read(text.len())?;
                let found = if index >= 0 {
                    usize::try_from(index).ok().and_then(|index| text.chars().nth(index))
                } else {
                    usize::try_from(-(index + 1)).ok().and_then(|index| text.chars().nth_back(index))
                };
                match found {
                    Some(character) => self.text(character.encode_utf8(&mut [0; 4])),
                    None => Ok(Value::Undefined),
                }
            }
            (Value::Namespace(_) | Value::Loop(_), Value::Text(name)) => self.attribute(value, name),
            _ => Ok(Value::Undefined),
        }
    }

    /// J-4.7.
    pub(crate) fn slice(&mut self, value: &Value, bounds: &[Value; 3]) -> Result<Value> {
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound {
                Value::None => None,
                other => match other.int() {
                    Some(index) => Some(index),
                    None => return wrong(format!("{} is no bound of a slice", other.kind())),
                },
            };
        }
        match value {
            Value::List(list) => {
                let (start, step, count) = span(numbers, list.items.len())?;
                self.count_list(count)?;
                let items = (0..count).map(|at| list.items[place(start, step, at)].clone()).collect();
                Ok(Value::List(self.counted_list(items)?))
            }
            Value::Text(text) => {
                self.read(text.len())?;
                let (start, step, count) = span(numbers, text.chars().count())?;
                if step == 1 {
                    let mut characters = text.chars();
                    if start > 0 {
                        characters.nth(start as usize - 1);
                    }
                    let from = characters.as_str();
                    let bytes = from.char_indices().nth(count).map_or(from.len(), |(at, _)| at);
                    return self.text(&from[..bytes]);
                }
                // J-8.5: the characters are laid out, four bytes each.
                self.count(4 * text.len() as u64)?;
                let characters: Vec<char> = text.chars().collect();
                let taken: String = (0..count).map(|at| characters[place(start, step, at)]).collect();
                self.text(&taken)
            }
            _ => wrong(format!("{} cannot be sliced", value.kind())),
        }
    }

    /// What a value gives one after another (J-5.6).
    pub(crate) fn items(&mut self, value: &Value) -> Result<Rc<List>> {
        let items = match value {
            Value::List(list) => return Ok(list.clone()),
            Value::Undefined => Vec::new(),
            Value::Dict(dict) => {
                self.count_list(dict.entries.len())?;
                let keys = dict.entries.iter().map(|(key, _)| key.clone()).collect();
                return self.counted_list(keys);
            }
            Value::Text(text) => {
                let mut items = Vec::new();
                for character in text.chars() {
                    items.push(self.text(character.encode_utf8(&mut [0; 4]))?);
                }
                items
            }
            other => return wrong(format!("{} holds nothing to go through", other.kind())),
        };
        self.count_list(items.len())?;
        self.counted_list(items)
    }

    // --- Values as text (J-5.7).

    /// A value as a text of its own.
    pub(crate) fn as_text(&mut self, value: &Value) -> Result<std::sync::Arc<str>> {
        if let Value::Text(text) = value {
            return Ok(text.clone());
        }
        let mut text = String::new();
        self.write_text(&mut text, value)?;
        match self.pushed(text)? {
            Value::Text(text) => Ok(text),
            other => wrong(format!("{} is no text", other.kind())),
        }
    }

    /// A value as it is printed.
    pub(crate) fn write_text(&mut self, out: &mut String, value: &Value) -> Result<()> {
        match value {
            Value::Text(text) => self.push(out, text),
            Value::Undefined => Ok(()),
            other => self.write_representation(out, other),
        }
    }

    /// A value as it is printed within another.
    fn write_representation(&mut self, out: &mut String, value: &Value) -> Result<()> {
        self.step(1)?;
        match value {
            Value::Undefined => self.push(out, "Undefined"),
            Value::None => self.push(out, "None"),
            Value::Bool(true) => self.push(out, "True"),
            Value::Bool(false) => self.push(out, "False"),
            Value::Int(value) => self.push(out, &value.to_string()),
            Value::Float(value) => self.push(out, &float_text(*value)),
            Value::Text(text) => self.write_quoted(out, text),
            Value::List(list) => {
                self.push(out, "[")?;
                for (index, item) in list.items.iter().enumerate() {
                    self.push(out, if index > 0 { ", " } else { "" })?;
                    self.write_representation(out, item)?;
                }
                self.push(out, "]")
            }
            Value::Dict(dict) => {
                self.push(out, "{")?;
                for (index, (key, value)) in dict.entries.iter().enumerate() {
                    self.push(out, if index > 0 { ", " } else { "" })?;
                    self.write_representation(out, key)?;
                    self.push(out, ": ")?;
                    self.write_representation(out, value)?;
                }
                self.push(out, "}")
            }
            other => wrong(format!("{} has no text", other.kind())),
        }
    }

    /// J-5.9.
    fn write_quoted(&mut self, out: &mut String, text: &str) -> Result<()> {
        let quote = if text.contains('\'') && !text.contains('"') { "\"" } else { "'" };
        self.push(out, quote)?;
        let mut plain = 0;
        for (at, character) in text.char_indices() {
            let code = u32::from(character);
            let escaped = match character {
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\'' if quote == "'" => "\\'".to_owned(),
                _ if is_shown(character) => continue,
                _ if code < 0x100 => format!("\\x{code:02x}"),
                _ if code < 0x1_0000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            };
            self.step(1)?;
            self.push(out, &text[plain..at])?;
            self.push(out, &escaped)?;
            plain = at + character.len_utf8();
        }
        self.push(out, &text[plain..])?;
        self.push(out, quote)
    }
}

/// J-5.9: whether a character within quotes stands for itself: no controls, no spaces but the common one, nothing that only
/// directs others, nothing for private use.
fn is_shown(character: char) -> bool {
    !matches!(u32::from(character),
        0..=0x1f | 0x7f..=0xa0 | 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x1680
        | 0x180e | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x2064 | 0x2066..=0x206f | 0x3000
        | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f
        | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0001 | 0xe0020..=0xe007f | 0xf0000..)
}

fn verb(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "added",
        Operator::Subtract => "subtracted",
        Operator::Multiply => "multiplied",
        Operator::Divide | Operator::FloorDivide | Operator::Remainder => "divided",
        Operator::Power => "raised to a power",
        Operator::Join => "joined",
    }
}

fn too_large<T>() -> Result<T> {
    wrong("a number is too large")
}

fn whole(a: i64, operator: Operator, b: i64) -> Result<Value> {
    let value = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::FloorDivide | Operator::Remainder if b == 0 => return wrong("a number is divided by zero"),
        Operator::FloorDivide => a.checked_div(b).map(|quotient| {
            let inexact = a.wrapping_rem(b) != 0;
            quotient - i64::from(inexact && (a < 0) != (b < 0))
        }),
        // The sign of what is left is the divisor's.
        Operator::Remainder => {
            let rest = a.wrapping_rem(b);
            Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        Operator::Power if b < 0 => return wrong("a number is raised to a negative power"),
        Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        Operator::Divide | Operator::Join => None,
    };
    value.map_or_else(too_large, |value| Ok(Value::Int(value)))
}

fn fraction(a: f64, operator: Operator, b: f64) -> Result<Value> {
    let divides = matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Remainder);
    if divides && b == 0.0 {
        return wrong("a number is divided by zero");
    }
    let value = match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => floor_division(a, b).0,
        Operator::Remainder => floor_division(a, b).1,
        Operator::Power | Operator::Join => return wrong("a float is raised to a power"),
    };
    if value.is_finite() { Ok(Value::Float(value)) } else { too_large() }
}

/// Quotient and rest as CPython computes them (`float_divmod`).
fn floor_division(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0.0_f64.copysign(b);
    }
    let floor = if quotient != 0.0 {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    } else {
        0.0_f64.copysign(a / b)
    };
    (floor, rest)
}

/// An index counted from the end if it is negative.
fn from_end(index: i64, count: usize) -> Option<usize> {
    if index >= 0 { usize::try_from(index).ok() } else { count.checked_sub(index.unsigned_abs() as usize) }
}

/// Start, step and number of the items of a slice of `count` items, as Python's `slice.indices` has them.
fn span([start, stop, step]: [Option<i64>; 3], count: usize) -> Result<(i64, i64, usize)> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return wrong("a slice has the step 0");
    }
    let count = count as i64;
    let (lowest, highest) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let clamped = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(count).clamp(lowest, highest),
        Some(bound) => bound.clamp(lowest, highest),
    };
    let (start, stop) = if step > 0 {
        (clamped(start, lowest), clamped(stop, highest))
    } else {
        (clamped(start, highest), clamped(stop, lowest))
    };
    let distance = if step > 0 { stop - start } else { start - stop };
    let items = if distance <= 0 { 0 } else { (distance as u64 - 1) / step.unsigned_abs() + 1 };
    Ok((start, step, items as usize))
}

/// The index of an item that `span` counted.
fn place(start: i64, step: i64, at: usize) -> usize {
    (start + step * at as i64) as usize
}
