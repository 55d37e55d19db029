//! Values, and what can be said of one without making another.
//!
//! In:     what a template's expressions give.
//! Out:    kinds, truth, numbers, the decimal form of a float.
//! Touches: nothing.
//! Holds:  J-5; values never change, namespaces apart; those are numbers here, kept by the renderer, so that no value can
//!         hold itself and all are freed; how deep values nest is known, and bounded where they are made.
//! Absent: tuples, sets, bytes, integers beyond 64 bits, floats that are not finite.

use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    /// Finite.
    Float(f64),
    Text(Arc<str>),
    List(Rc<List>),
    Dict(Rc<Dict>),
    /// By its place among the renderer's.
    Namespace(usize),
    /// By its place among the renderer's.
    Macro(usize),
    Function(Function),
    Loop(Rc<Loop>),
}

#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Value>,
    /// How deep values nest in it, itself included.
    pub(crate) depth: u32,
}

/// Entries in the order of their making; no two keys are equal.
#[derive(Debug)]
pub(crate) struct Dict {
    pub(crate) entries: Vec<(Value, Value)>,
    /// How deep values nest in it, itself included.
    pub(crate) depth: u32,
}

/// What `loop` is.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) items: Rc<List>,
    pub(crate) index: Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Namespace,
    Dict,
    RaiseException,
    StrftimeNow,
}

/// What arithmetic works on; truth values are 0 and 1.
#[derive(Clone, Copy)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "an undefined value",
            Value::None => "none",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Dict(_) => "a mapping",
            Value::Namespace(_) => "a namespace",
            Value::Macro(_) => "a macro",
            Value::Function(_) => "a function",
            Value::Loop(_) => "a loop",
        }
    }

    /// J-5.3.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Namespace(_) | Value::Macro(_) | Value::Function(_) | Value::Loop(_) => true,
        }
    }

    /// How deep values nest in it.
    pub(crate) fn depth(&self) -> u32 {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            Value::Loop(state) => state.items.depth + 1,
            _ => 0,
        }
    }

    pub(crate) fn number(&self) -> Option<Number> {
        match self {
            Value::Bool(value) => Some(Number::Int(i64::from(*value))),
            Value::Int(value) => Some(Number::Int(*value)),
            Value::Float(value) => Some(Number::Float(*value)),
            _ => None,
        }
    }

    /// A whole number, or a truth value as 0 or 1.
    pub(crate) fn int(&self) -> Option<i64> {
        match self.number() {
            Some(Number::Int(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Number {
    pub(crate) fn float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    /// The order of the exact values (J-5.5).
    pub(crate) fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).expect("floats are finite"),
            (Number::Int(a), Number::Float(b)) => compare_mixed(a, b),
            (Number::Float(a), Number::Int(b)) => compare_mixed(b, a).reverse(),
        }
    }
}

fn compare_mixed(int: i64, float: f64) -> Ordering {
    if float.abs() >= 9.3e18 {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    let whole = i128::from(int).cmp(&(float.trunc() as i128));
    whole.then_with(|| 0.0.partial_cmp(&float.fract()).expect("floats are finite"))
}

/// The shortest decimal that reads back as the same float, laid out as Python does (J-5.8).
pub(crate) fn float_text(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(|character| *character != '.').collect();
    if !(-4..16).contains(&exponent) {
        let (first, others) = digits.split_at(1);
        let point = if others.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{others}e{exponent_sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    let (whole, fraction) = digits.split_at(whole);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_in_python() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (123456.789, "123456.789"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (-2.5, "-2.5"),
        ];
        for (value, expected) in cases {
            assert_eq!(float_text(*value), *expected);
        }
    }

    #[test]
    fn mixed_numbers_have_the_order_of_their_values() {
        let compare = |a, b| Number::Int(a).compare(Number::Float(b));
        assert_eq!(compare(1, 1.0), Ordering::Equal);
        assert_eq!(compare(1, 1.5), Ordering::Less);
        assert_eq!(compare(-1, -1.5), Ordering::Greater);
        assert_eq!(compare(i64::MAX, 9223372036854775808.0), Ordering::Less);
        assert_eq!(compare((1 << 53) + 1, 9007199254740992.0), Ordering::Greater);
        assert_eq!(compare(i64::MIN, -1e300), Ordering::Greater);
    }
}
