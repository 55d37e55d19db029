//! Methods of texts and mappings and lists, and functions.
//!
//! In:     a value, a name, arguments.
//! Out:    a value, or that it has no such method.
//! Touches: the renderer's account.
//! Holds:  J-6.7, J-6.8: each does what Python's of the same name does; nothing changes a value.
//! Absent: `format`; what changes a list or mapping in place.

use std::sync::Arc;

use surety_types::CivilDate;

use crate::TemplateError;
use crate::filters::CASE_BYTES;
use crate::lexer::is_space;
use crate::render::{Given, Renderer, Result, wrong};
use crate::text;
use crate::value::{Dict, Function, List, Value};

/// Numbers a range gives, at most (J-6.8).
const RANGE_MAX: u64 = 100_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Renderer<'_> {
    pub(crate) fn method(&mut self, value: &Value, name: &str, given: Given) -> Result<Value> {
        match value {
            Value::Text(text) => self.text_method(text, name, given),
            Value::Dict(dict) => self.dict_method(dict, name, given),
            Value::List(list) => self.list_method(list, name, given),
            Value::Loop(state) if name == "cycle" => {
                if given.positional.is_empty() || !given.named.is_empty() {
                    return wrong("cycle wants values to choose from");
                }
                Ok(given.positional[state.index.get() % given.positional.len()].clone())
            }
            other => wrong(format!("{} has no method {name}", other.kind())),
        }
    }

    fn text_method(&mut self, text: &str, name: &str, given: Given) -> Result<Value> {
        match name {
            "upper" => self.changed_by_method(text, name, given, str::to_uppercase),
            "lower" => self.changed_by_method(text, name, given, str::to_lowercase),
            "capitalize" => self.changed_by_method(text, name, given, text::capitalized),
            "title" => self.changed_by_method(text, name, given, text::titled_letters),
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = given.bind(name, ["chars"])?;
                self.stripped(text, chars.as_ref(), name != "rstrip", name != "lstrip")
            }
            "removeprefix" | "removesuffix" => {
                let part = one_text(name, given)?;
                self.read(part.len())?;
                let rest = match name {
                    "removeprefix" => text.strip_prefix(&*part),
                    _ => text.strip_suffix(&*part),
                };
                self.text(rest.unwrap_or(text))
            }
            "startswith" | "endswith" => {
                let [part] = given.bind(name, ["part"])?;
                let parts = match &part {
                    Some(Value::Text(_)) => part.as_slice(),
                    Some(Value::List(list)) => &list.items,
                    _ => return wrong(format!("{name} wants a text or several")),
                };
                for part in parts {
                    let Some(part) = part.text() else { return wrong(format!("{name} wants texts")) };
                    self.step(1)?;
                    self.read(part.len().min(text.len()))?;
                    if if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) } {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                match (old, new) {
                    (Some(Value::Text(old)), Some(Value::Text(new))) => {
                        self.replaced(text, &old, &new, count.as_ref())
                    }
                    _ => wrong("replace wants an old and a new text"),
                }
            }
            "split" | "rsplit" => self.split(text, name, given),
            "splitlines" => {
                let [keep_ends] = given.bind(name, ["keepends"])?;
                let keep_ends = keep_ends.is_some_and(|keep| keep.is_true());
                self.read(text.len())?;
                let mut items = Vec::new();
                for line in text::lines(text) {
                    items.push(self.text(&text[line.start..if keep_ends { line.end } else { line.text }])?);
                }
                self.list(items)
            }
            "count" | "find" | "rfind" => {
                let part = one_text(name, given)?;
                self.read(text.len() + part.len())?;
                let characters = |bytes: usize| text[..bytes].chars().count() as i64;
                Ok(Value::Int(match name {
                    "count" => {
                        let count = text.matches(&*part).count();
                        self.step(count as u64 / 4)?;
                        count as i64
                    }
                    "find" => text.find(&*part).map_or(-1, characters),
                    _ => text.rfind(&*part).map_or(-1, characters),
                }))
            }
            "join" => {
                let [items] = given.bind(name, ["iterable"])?;
                let Some(items) = items else { return wrong("join wants texts") };
                let items = self.items(&items)?;
                let mut joined = String::new();
                for (index, item) in items.items.iter().enumerate() {
                    let Some(item) = item.text() else {
                        return wrong(format!("join wants texts, not {}", item.kind()));
                    };
                    self.step(1)?;
                    if index > 0 {
                        self.push(&mut joined, text)?;
                    }
                    self.push(&mut joined, item)?;
                }
                self.pushed(joined)
            }
            _ => wrong(format!("a text has no method {name}")),
        }
    }

    fn changed_by_method(
        &mut self,
        text: &str,
        name: &str,
        given: Given,
        change: fn(&str) -> String,
    ) -> Result<Value> {
        given.bind(name, [])?;
        self.read(CASE_BYTES * text.len())?;
        let changed = change(text);
        self.text(&changed)
    }

    /// J-6.7: `split` from the front, `rsplit` from the back.
    fn split(&mut self, text: &str, name: &str, given: Given) -> Result<Value> {
        let [separator, most] = given.bind(name, ["sep", "maxsplit"])?;
        let most = match most {
            None => usize::MAX,
            Some(most) => match most.int() {
                Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
                None => return wrong(format!("{} is no count", most.kind())),
            },
        };
        self.read(text.len())?;
        let back = name == "rsplit";
        let mut items = Vec::new();
        match separator {
            None | Some(Value::None) => {
                let mut rest =
                    if back { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
                while !rest.is_empty() {
                    let end = if back { rest.rfind(is_space) } else { rest.find(is_space) };
                    let Some(end) = end.filter(|_| items.len() < most) else {
                        items.push(self.text(rest)?);
                        break;
                    };
                    if back {
                        let word = rest[end..].trim_start_matches(is_space);
                        items.push(self.text(word)?);
                        rest = rest[..end].trim_end_matches(is_space);
                    } else {
                        items.push(self.text(&rest[..end])?);
                        rest = rest[end..].trim_start_matches(is_space);
                    }
                }
            }
            Some(Value::Text(separator)) if separator.is_empty() => {
                return wrong("a text is split at nothing");
            }
            Some(Value::Text(separator)) => {
                self.read(separator.len())?;
                let most = most.saturating_add(1);
                if back {
                    for part in text.rsplitn(most, &*separator) {
                        items.push(self.text(part)?);
                    }
                } else {
                    for part in text.splitn(most, &*separator) {
                        items.push(self.text(part)?);
                    }
                }
            }
            Some(other) => return wrong(format!("{} is no text to split at", other.kind())),
        }
        if back {
            items.reverse();
        }
        self.list(items)
    }

    fn dict_method(&mut self, dict: &Dict, name: &str, given: Given) -> Result<Value> {
        match name {
            "get" => {
                let [Some(key), default] = given.bind(name, ["key", "default"])? else {
                    return wrong("get wants a key");
                };
                Ok(self.entry(dict, &key)?.or(default).unwrap_or(Value::None))
            }
            "items" => {
                given.bind(name, [])?;
                let mut pairs = Vec::with_capacity(dict.entries.len());
                for (key, value) in &dict.entries {
                    pairs.push(self.list(vec![key.clone(), value.clone()])?);
                }
                self.list(pairs)
            }
            "keys" => {
                given.bind(name, [])?;
                self.list(dict.entries.iter().map(|(key, _)| key.clone()).collect())
            }
            "values" => {
                given.bind(name, [])?;
                self.list(dict.entries.iter().map(|(_, value)| value.clone()).collect())
            }
            _ => match self.entry(dict, &Value::Text(name.into()))? {
                Some(called @ (Value::Macro(_) | Value::Function(_))) => self.call_value(called, name, given),
                _ => wrong(format!("a mapping has no method {name}")),
            },
        }
    }

    fn list_method(&mut self, list: &List, name: &str, given: Given) -> Result<Value> {
        if !matches!(name, "count" | "index") {
            return wrong(format!("a list has no method {name}"));
        }
        let [Some(wanted)] = given.bind(name, ["value"])? else {
            return wrong(format!("{name} wants a value"));
        };
        let mut count = 0;
        for (index, item) in list.items.iter().enumerate() {
            if self.equal(item, &wanted)? {
                if name == "index" {
                    return Ok(Value::Int(index as i64));
                }
                count += 1;
            }
        }
        if name == "index" { wrong("the value is not in the list") } else { Ok(Value::Int(count)) }
    }

    /// J-6.8.
    pub(crate) fn function(&mut self, function: Function, given: Given) -> Result<Value> {
        match function {
            Function::Range => {
                let bounds = given.bind("range", ["start", "stop", "step"])?;
                let mut numbers = [None; 3];
                for (number, bound) in numbers.iter_mut().zip(&bounds) {
                    *number = match bound {
                        None => None,
                        Some(bound) => match bound.int() {
                            Some(bound) => Some(bound),
                            None => return wrong(format!("{} is no bound of a range", bound.kind())),
                        },
                    };
                }
                let (start, stop, step) = match numbers {
                    [Some(stop), None, _] => (0, stop, 1),
                    [Some(start), Some(stop), step] => (start, stop, step.unwrap_or(1)),
                    [None, ..] => return wrong("range wants a bound"),
                };
                if step == 0 {
                    return wrong("a range has the step 0");
                }
                let distance = if step > 0 {
                    i128::from(stop) - i128::from(start)
                } else {
                    i128::from(start) - i128::from(stop)
                };
                let distance = u128::try_from(distance).unwrap_or(0);
                let count = distance.div_ceil(u128::from(step.unsigned_abs()));
                if count > u128::from(RANGE_MAX) {
                    return wrong(format!("a range has more than {RANGE_MAX} numbers"));
                }
                let count = count as i64;
                self.count_list(count as usize)?;
                let numbers = (0..count).map(|at| Value::Int(start + step * at)).collect();
                Ok(Value::List(self.counted_list(numbers)?))
            }
            Function::Namespace => {
                let pairs = self.pairs("namespace", given)?;
                let namespace = self.new_namespace()?;
                for (name, value) in pairs {
                    let Value::Text(name) = name else { return wrong("a namespace's names are texts") };
                    self.set_attribute(namespace, name, value)?;
                }
                Ok(Value::Namespace(namespace))
            }
            Function::Dict => {
                let pairs = self.pairs("dict", given)?;
                self.dict(pairs)
            }
            Function::RaiseException => {
                let [message] = given.bind("raise_exception", ["message"])?;
                let message = self.as_text(&message.unwrap_or(Value::Undefined))?;
                Err(TemplateError::Raised { line: 0, message: message.to_string() })
            }
            Function::StrftimeNow => {
                let format = one_text("strftime_now", given)?;
                let Some(date) = self.date else { return wrong("the request names no day") };
                self.date_text(&format, date)
            }
        }
    }

    /// What a mapping is made of: another or pairs, and names.
    fn pairs(&mut self, name: &str, given: Given) -> Result<Vec<(Value, Value)>> {
        if given.positional.len() > 1 {
            return wrong(format!("{name} takes at most 1 argument without a name"));
        }
        let mut pairs = Vec::new();
        match given.positional.first() {
            None => {}
            Some(Value::Dict(dict)) => {
                self.count_list(2 * dict.entries.len())?;
                pairs.extend(dict.entries.iter().cloned());
            }
            Some(other) => {
                let items = self.items(other)?;
                self.count_list(2 * items.items.len())?;
                for item in &items.items {
                    match item {
                        Value::List(pair) if pair.items.len() == 2 => {
                            pairs.push((pair.items[0].clone(), pair.items[1].clone()));
                        }
                        other => return wrong(format!("{} is no pair", other.kind())),
                    }
                }
            }
        }
        for (name, value) in given.named {
            pairs.push((self.text(&name)?, value));
        }
        Ok(pairs)
    }

    /// The part of C's `strftime` that templates use, at midnight of a day, in English (J-6.8).
    fn date_text(&mut self, format: &str, date: CivilDate) -> Result<Value> {
        let month = usize::from(date.month).checked_sub(1).and_then(|month| MONTHS.get(month));
        let Some(month) = month else { return wrong("the request's day is none") };
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                self.push(&mut out, character.encode_utf8(&mut [0; 4]))?;
                continue;
            }
            self.step(1)?;
            let part = match characters.next() {
                Some('Y') => format!("{:04}", date.year),
                Some('y') => format!("{:02}", date.year % 100),
                Some('m') => format!("{:02}", date.month),
                Some('d') => format!("{:02}", date.day),
                Some('B') => (*month).to_owned(),
                Some('b') => month[..3].to_owned(),
                Some('A') => weekday(date).to_owned(),
                Some('a') => weekday(date)[..3].to_owned(),
                Some('H' | 'M' | 'S') => "00".to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    let other = other.map_or(String::new(), String::from);
                    return wrong(format!("strftime_now does not know %{other}"));
                }
            };
            self.push(&mut out, &part)?;
        }
        self.pushed(out)
    }
}

/// The day of the week of a Gregorian date.
///
/// Source: T. Sakamoto, comp.lang.c, 1992.
fn weekday(date: CivilDate) -> &'static str {
    const SHIFTS: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let month = usize::from(date.month).clamp(1, 12);
    let year = u32::from(date.year) + 400 - u32::from(month < 3);
    let day = year + year / 4 - year / 100 + year / 400 + SHIFTS[month - 1] + u32::from(date.day);
    WEEKDAYS[(day % 7) as usize]
}

/// The one argument of a method, a text.
fn one_text(name: &str, given: Given) -> Result<Arc<str>> {
    match given.bind(name, ["text"])? {
        [Some(Value::Text(text))] => Ok(text),
        _ => wrong(format!("{name} wants a text")),
    }
}
