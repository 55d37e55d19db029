//! Filters and tests, by name.
//!
//! In:     a subject, a name, arguments.
//! Out:    a value, or that there is no such filter or test, or that it does not go with the subject.
//! Touches: the renderer's account.
//! Holds:  J-6.1 to J-6.6: each does what jinja2's of the same name does.
//! Absent: filters no chat template uses; marking text as safe has no effect, since nothing is escaped.

use std::cmp::Ordering;

use crate::lexer::is_space;
use crate::render::{Given, Renderer, Result, wrong};
use crate::syntax::{Comparison, Operator};
use crate::text;
use crate::value::{Number, Value};

/// A byte whose case is changed is read so often (J-8.4).
pub(crate) const CASE_BYTES: usize = 32;

impl Renderer<'_> {
    /// J-6.1.
    pub(crate) fn filter(&mut self, name: &str, subject: Value, given: Given) -> Result<Value> {
        match name {
            "abs" => {
                given.bind(name, [])?;
                match subject.number() {
                    Some(Number::Int(value)) if value < 0 => self.negative(&subject),
                    Some(Number::Int(value)) => Ok(Value::Int(value)),
                    Some(Number::Float(value)) => Ok(Value::Float(value.abs())),
                    None => wrong(format!("{} has no absolute value", subject.kind())),
                }
            }
            "capitalize" => self.changed(name, subject, given, text::capitalized),
            "lower" => self.changed(name, subject, given, str::to_lowercase),
            "title" => self.changed(name, subject, given, text::titled_words),
            "upper" => self.changed(name, subject, given, str::to_uppercase),
            "default" | "d" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
                let replaced = match boolean.is_some_and(|boolean| boolean.is_true()) {
                    true => !subject.is_true(),
                    false => matches!(subject, Value::Undefined),
                };
                match default {
                    _ if !replaced => Ok(subject),
                    Some(default) => Ok(default),
                    None => self.text(""),
                }
            }
            "dictsort" => self.dict_sorted(subject, given),
            "first" | "last" => {
                given.bind(name, [])?;
                let first = name == "first";
                if let Value::Text(_) = subject {
                    return self.item(&subject, &Value::Int(if first { 0 } else { -1 }));
                }
                let items = self.items(&subject)?;
                let item = if first { items.items.first() } else { items.items.last() };
                Ok(item.cloned().unwrap_or(Value::Undefined))
            }
            "float" => {
                let [default] = given.bind(name, ["default"])?;
                let found = match (&subject, subject.number()) {
                    (Value::Undefined, _) => return wrong("an undefined value is no number"),
                    (_, Some(number)) => Some(number.float()),
                    (Value::Text(text), _) => {
                        self.read(text.len())?;
                        text::float(text)
                    }
                    _ => None,
                };
                Ok(found.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
            }
            "indent" => self.indented(subject, given),
            "int" => {
                let [default, base] = given.bind(name, ["default", "base"])?;
                if base.is_some_and(|base| base.int() != Some(10)) {
                    return wrong("int reads numbers to the base 10 only");
                }
                let found = match (&subject, subject.number()) {
                    (Value::Undefined, _) => return wrong("an undefined value is no number"),
                    (_, Some(Number::Int(value))) => Some(value),
                    (_, Some(Number::Float(value))) => Some(truncated(value)?),
                    (Value::Text(text), _) => {
                        self.read(text.len())?;
                        match (text::int(text), text::float(text)) {
                            (Some(value), _) => Some(value),
                            (None, Some(value)) => Some(truncated(value)?),
                            _ => None,
                        }
                    }
                    _ => None,
                };
                Ok(found.map(Value::Int).or(default).unwrap_or(Value::Int(0)))
            }
            "items" => {
                given.bind(name, [])?;
                match subject {
                    Value::Undefined => self.list(Vec::new()),
                    Value::Dict(_) => self.method(&subject, name, Given::default()),
                    other => wrong(format!("{} has no pairs", other.kind())),
                }
            }
            "join" => {
                let [separator, attribute] = given.bind(name, ["d", "attribute"])?;
                let separator = match separator {
                    Some(separator) => self.as_text(&separator)?,
                    None => "".into(),
                };
                let items = self.items(&subject)?;
                let mut joined = String::new();
                for (index, item) in items.items.iter().enumerate() {
                    self.step(1)?;
                    if index > 0 {
                        self.push(&mut joined, &separator)?;
                    }
                    let item = self.part(item, attribute.as_ref())?;
                    self.write_text(&mut joined, &item)?;
                }
                self.pushed(joined)
            }
            "length" | "count" => {
                given.bind(name, [])?;
                let count = match &subject {
                    Value::Undefined => 0,
                    Value::Text(text) => {
                        self.read(text.len())?;
                        text.chars().count()
                    }
                    Value::List(list) => list.items.len(),
                    Value::Dict(dict) => dict.entries.len(),
                    Value::Loop(state) => state.items.items.len(),
                    other => return wrong(format!("{} has no length", other.kind())),
                };
                Ok(Value::Int(count as i64))
            }
            "list" => {
                given.bind(name, [])?;
                Ok(Value::List(self.items(&subject)?))
            }
            "map" => self.mapped(subject, given),
            "max" => self.extreme(name, subject, given, Ordering::Greater),
            "min" => self.extreme(name, subject, given, Ordering::Less),
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                let (Some(old), Some(new)) = (old, new) else {
                    return wrong("replace wants an old and a new text");
                };
                let (subject, old, new) = (self.as_text(&subject)?, self.as_text(&old)?, self.as_text(&new)?);
                self.replaced(&subject, &old, &new, count.as_ref())
            }
            "reverse" => {
                given.bind(name, [])?;
                if let Value::Text(text) = &subject {
                    self.read(text.len())?;
                    let reversed: String = text.chars().rev().collect();
                    return self.text(&reversed);
                }
                let items = self.items(&subject)?;
                self.list(items.items.iter().rev().cloned().collect())
            }
            "safe" | "string" => {
                given.bind(name, [])?;
                Ok(Value::Text(self.as_text(&subject)?))
            }
            "select" => self.selected(subject, given, false, true),
            "reject" => self.selected(subject, given, false, false),
            "selectattr" => self.selected(subject, given, true, true),
            "rejectattr" => self.selected(subject, given, true, false),
            "sort" => {
                let [reverse, case_sensitive, attribute] =
                    given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                let items = self.items(&subject)?;
                let keys = self.keys(&items.items, case_sensitive.as_ref(), attribute.as_ref())?;
                let order = self.sorted(&keys, reverse.is_some_and(|reverse| reverse.is_true()))?;
                self.list(order.into_iter().map(|at| items.items[at].clone()).collect())
            }
            "tojson" => self.json(&subject, given),
            "trim" => {
                let [chars] = given.bind(name, ["chars"])?;
                let subject = self.as_text(&subject)?;
                self.stripped(&subject, chars.as_ref(), true, true)
            }
            "unique" => {
                let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
                let items = self.items(&subject)?;
                let keys = self.keys(&items.items, case_sensitive.as_ref(), attribute.as_ref())?;
                let mut kept: Vec<usize> = Vec::new();
                for at in 0..keys.len() {
                    let mut known = false;
                    for other in &kept {
                        known = known || self.equal(&keys[*other], &keys[at])?;
                    }
                    if !known {
                        kept.push(at);
                    }
                }
                self.list(kept.into_iter().map(|at| items.items[at].clone()).collect())
            }
            _ => wrong(format!("there is no filter {name}")),
        }
    }

    /// A text made of a text.
    fn changed(
        &mut self,
        name: &str,
        subject: Value,
        given: Given,
        change: fn(&str) -> String,
    ) -> Result<Value> {
        given.bind(name, [])?;
        let subject = self.as_text(&subject)?;
        self.read(CASE_BYTES * subject.len())?;
        let changed = change(&subject);
        self.text(&changed)
    }

    fn indented(&mut self, subject: Value, given: Given) -> Result<Value> {
        let [width, first, blank] = given.bind("indent", ["width", "first", "blank"])?;
        let indent = match width {
            None => " ".repeat(4).into(),
            Some(Value::Text(text)) => text,
            Some(other) => match self.binary(&Value::Text(" ".into()), Operator::Multiply, &other)? {
                Value::Text(text) => text,
                _ => return wrong("indent wants a number or a text"),
            },
        };
        let (first, blank) =
            (first.is_some_and(|first| first.is_true()), blank.is_some_and(|blank| blank.is_true()));
        let Value::Text(subject) = subject else {
            return wrong(format!("{} has no lines to indent", subject.kind()));
        };
        self.read(subject.len())?;
        let mut out = String::new();
        // Behind a last line end there is an empty line.
        let mut ended = true;
        for (index, line) in text::lines(&subject).enumerate() {
            self.indent_line(&mut out, index, &subject[line.start..line.text], &indent, [first, blank])?;
            ended = line.end > line.text;
        }
        if ended {
            let index = usize::from(!subject.is_empty());
            self.indent_line(&mut out, index, "", &indent, [first, blank])?;
        }
        self.pushed(out)
    }

    fn indent_line(
        &mut self,
        out: &mut String,
        index: usize,
        line: &str,
        indent: &str,
        [first, blank]: [bool; 2],
    ) -> Result<()> {
        self.step(1)?;
        if index > 0 {
            self.push(out, "\n")?;
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            self.push(out, indent)?;
        }
        self.push(out, line)
    }

    /// Items by a test that they, or an attribute of each, pass or fail (J-6.4).
    fn selected(
        &mut self,
        subject: Value,
        mut given: Given,
        by_attribute: bool,
        passing: bool,
    ) -> Result<Value> {
        let mut positional = std::mem::take(&mut given.positional).into_iter();
        let attribute = if by_attribute {
            let Some(attribute) = positional.next() else {
                return wrong("the attribute to select by is missing");
            };
            Some(attribute)
        } else {
            None
        };
        let test = positional.next();
        let arguments: Vec<Value> = positional.collect();
        let items = self.items(&subject)?;
        let mut kept = Vec::new();
        for item in &items.items {
            self.step(1)?;
            let part = self.part(item, attribute.as_ref())?;
            let passes = match &test {
                None => part.is_true(),
                Some(Value::Text(test)) => {
                    let given = Given { positional: arguments.clone(), named: given.named.clone() };
                    self.test(test, &part, given)?
                }
                Some(other) => return wrong(format!("{} is no test's name", other.kind())),
            };
            if passes == passing {
                kept.push(item.clone());
            }
        }
        self.list(kept)
    }

    /// J-6.5.
    fn mapped(&mut self, subject: Value, mut given: Given) -> Result<Value> {
        let items = self.items(&subject)?;
        let mut results = Vec::new();
        if given.positional.is_empty() {
            let [attribute, default] = given.bind("map", ["attribute", "default"])?;
            let Some(attribute) = attribute else { return wrong("map wants a filter or an attribute") };
            for item in &items.items {
                self.step(1)?;
                let part = match (self.part(item, Some(&attribute))?, &default) {
                    (Value::Undefined, Some(default)) => default.clone(),
                    (part, _) => part,
                };
                results.push(part);
            }
            return self.list(results);
        }
        let Value::Text(name) = given.positional.remove(0) else { return wrong("map wants a filter's name") };
        for item in &items.items {
            self.step(1)?;
            let given = Given { positional: given.positional.clone(), named: given.named.clone() };
            // The filter may be `map` again.
            results.push(self.deeper(|renderer| renderer.filter(&name, item.clone(), given))?);
        }
        self.list(results)
    }

    /// An attribute of a value, `a.b` being that of an attribute, and a number an index; or the value itself.
    fn part(&mut self, value: &Value, attribute: Option<&Value>) -> Result<Value> {
        match attribute {
            None | Some(Value::None) => Ok(value.clone()),
            Some(Value::Int(_)) => self.item(value, attribute.unwrap_or(&Value::None)),
            Some(Value::Text(path)) => {
                self.read(path.len())?;
                let mut value = value.clone();
                for name in path.split('.') {
                    self.step(1)?;
                    if matches!(value, Value::Undefined) {
                        return wrong(format!("a value is undefined, so that it has no {name}"));
                    }
                    value = match name.parse::<i64>() {
                        Ok(index) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                            self.item(&value, &Value::Int(index))?
                        }
                        _ => self.attribute(&value, name)?,
                    };
                }
                Ok(value)
            }
            Some(other) => wrong(format!("{} is no attribute's name", other.kind())),
        }
    }

    /// What items are compared by: they or an attribute of each, texts in lower case unless that is to count.
    fn keys(
        &mut self,
        items: &[Value],
        case_sensitive: Option<&Value>,
        attribute: Option<&Value>,
    ) -> Result<Vec<Value>> {
        self.count_list(items.len())?;
        let mut keys = Vec::with_capacity(items.len());
        for item in items {
            let key = self.part(item, attribute)?;
            keys.push(match (key, case_sensitive.is_some_and(Value::is_true)) {
                (Value::Text(text), false) => {
                    self.read(CASE_BYTES * text.len())?;
                    let lower = text.to_lowercase();
                    self.text(&lower)?
                }
                (key, _) => key,
            });
        }
        Ok(keys)
    }

    /// The indices of keys in their order; equal ones stay in theirs (J-6.6).
    pub(crate) fn sorted(&mut self, keys: &[Value], reverse: bool) -> Result<Vec<usize>> {
        let texts = keys.iter().filter(|key| key.text().is_some()).count();
        let numbers = keys.iter().filter(|key| key.number().is_some()).count();
        if keys.len() > 1 && texts.max(numbers) < keys.len() {
            return wrong("only texts, or only numbers, can be sorted");
        }
        let rounds = u64::from(keys.len().checked_ilog2().unwrap_or(0)) + 1;
        for key in keys {
            let bytes = key.text().map_or(0, str::len) as u64;
            self.step(rounds.saturating_mul(1 + bytes / 64))?;
        }
        self.count_list(keys.len())?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        let compare = |a: &usize, b: &usize| match (&keys[*a], &keys[*b]) {
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (a, b) => match (a.number(), b.number()) {
                (Some(a), Some(b)) => a.compare(b),
                _ => Ordering::Equal,
            },
        };
        order.sort_by(|a, b| if reverse { compare(b, a) } else { compare(a, b) });
        Ok(order)
    }

    fn dict_sorted(&mut self, subject: Value, given: Given) -> Result<Value> {
        let names = ["case_sensitive", "by", "reverse"];
        let [case_sensitive, by, reverse] = given.bind("dictsort", names)?;
        let Value::Dict(dict) = subject else {
            return wrong(format!("{} is no mapping to sort", subject.kind()));
        };
        let by_value = match by {
            None => false,
            Some(by) => match by.text() {
                Some("key") => false,
                Some("value") => true,
                _ => return wrong("dictsort sorts by key or by value"),
            },
        };
        self.count_list(dict.entries.len())?;
        let chosen: Vec<Value> = dict
            .entries
            .iter()
            .map(|(key, value)| if by_value { value.clone() } else { key.clone() })
            .collect();
        let keys = self.keys(&chosen, case_sensitive.as_ref(), None)?;
        let order = self.sorted(&keys, reverse.is_some_and(|reverse| reverse.is_true()))?;
        let mut pairs = Vec::with_capacity(order.len());
        for at in order {
            let (key, value) = &dict.entries[at];
            pairs.push(self.list(vec![key.clone(), value.clone()])?);
        }
        self.list(pairs)
    }

    fn extreme(&mut self, name: &str, subject: Value, given: Given, wanted: Ordering) -> Result<Value> {
        let [case_sensitive, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
        let items = self.items(&subject)?;
        let keys = self.keys(&items.items, case_sensitive.as_ref(), attribute.as_ref())?;
        let mut best = 0;
        for at in 1..keys.len() {
            self.step(1)?;
            if self.order(&keys[at], &keys[best])? == wanted {
                best = at;
            }
        }
        Ok(items.items.get(best).cloned().unwrap_or(Value::Undefined))
    }

    /// J-6.2.
    pub(crate) fn test(&mut self, name: &str, subject: &Value, given: Given) -> Result<bool> {
        let comparison = match name {
            "eq" | "equalto" | "==" => Some(Comparison::Equal),
            "ne" | "!=" => Some(Comparison::NotEqual),
            "lt" | "lessthan" | "<" => Some(Comparison::Less),
            "le" | "<=" => Some(Comparison::LessOrEqual),
            "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
            "ge" | ">=" => Some(Comparison::GreaterOrEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [Some(other)] = given.bind(name, ["other"])? else {
                return wrong(format!("{name} wants a value"));
            };
            return self.holds(subject, comparison, &other);
        }
        if name == "divisibleby" {
            let [Some(divisor)] = given.bind(name, ["num"])? else {
                return wrong("divisibleby wants a number");
            };
            let rest = self.binary(subject, Operator::Remainder, &divisor)?;
            return Ok(!rest.is_true());
        }
        given.bind(name, [])?;
        Ok(match name {
            "boolean" => matches!(subject, Value::Bool(_)),
            "callable" => matches!(subject, Value::Macro(_) | Value::Function(_)),
            "defined" => !matches!(subject, Value::Undefined),
            "undefined" => matches!(subject, Value::Undefined),
            "even" | "odd" => {
                let rest = self.binary(subject, Operator::Remainder, &Value::Int(2))?;
                rest.is_true() == (name == "odd")
            }
            "true" => matches!(subject, Value::Bool(true)),
            "false" => matches!(subject, Value::Bool(false)),
            "float" => matches!(subject, Value::Float(_)),
            "integer" => matches!(subject, Value::Int(_)),
            "iterable" => {
                matches!(
                    subject,
                    Value::Undefined | Value::Text(_) | Value::List(_) | Value::Dict(_) | Value::Loop(_)
                )
            }
            "lower" | "upper" => {
                let subject = self.as_text(subject)?;
                self.read(CASE_BYTES * subject.len())?;
                let changed = if name == "lower" { subject.to_lowercase() } else { subject.to_uppercase() };
                // Python's `islower` and `isupper` want a letter that has a case.
                changed == *subject && subject.chars().any(text::is_cased)
            }
            "mapping" => matches!(subject, Value::Dict(_)),
            "none" => matches!(subject, Value::None),
            "number" => subject.number().is_some(),
            "sequence" => {
                matches!(subject, Value::Undefined | Value::Text(_) | Value::List(_) | Value::Dict(_))
            }
            "string" => matches!(subject, Value::Text(_)),
            _ => return wrong(format!("there is no test {name}")),
        })
    }

    /// A text without the characters at its ends that are whitespace, or among those given.
    pub(crate) fn stripped(
        &mut self,
        text: &str,
        chars: Option<&Value>,
        start: bool,
        end: bool,
    ) -> Result<Value> {
        self.read(text.len())?;
        let mut known = Vec::new();
        let given = match chars {
            None | Some(Value::None) => None,
            Some(Value::Text(chars)) => Some(chars),
            Some(other) => return wrong(format!("characters to strip are a text, not {}", other.kind())),
        };
        if let Some(chars) = given {
            self.read(4 * text.len())?;
            self.count(4 * chars.len() as u64)?;
            known = chars.chars().collect();
            known.sort_unstable();
        }
        let goes = |character: char| match given {
            None => is_space(character),
            Some(_) => known.binary_search(&character).is_ok(),
        };
        let text = if start { text.trim_start_matches(goes) } else { text };
        let text = if end { text.trim_end_matches(goes) } else { text };
        self.text(text)
    }

    /// A text in which another stands in place of a part, at most so often from its beginning.
    pub(crate) fn replaced(
        &mut self,
        text: &str,
        old: &str,
        new: &str,
        count: Option<&Value>,
    ) -> Result<Value> {
        let most = match count {
            None | Some(Value::None) => usize::MAX,
            Some(count) => match count.int() {
                Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
                None => return wrong(format!("{} is no count", count.kind())),
            },
        };
        self.read(text.len() + old.len())?;
        let mut out = String::new();
        let mut copied = 0;
        for (at, found) in text.match_indices(old).take(most) {
            self.step(1)?;
            self.push(&mut out, &text[copied..at])?;
            self.push(&mut out, new)?;
            copied = at + found.len();
        }
        self.push(&mut out, &text[copied..])?;
        self.pushed(out)
    }
}

/// A float without its fraction.
fn truncated(value: f64) -> Result<i64> {
    let whole = value.trunc();
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) {
        Ok(whole as i64)
    } else {
        wrong("a number is too large")
    }
}
