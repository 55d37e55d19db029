//! `tojson`, as `transformers` gives it to templates: Python's `json.dumps`, characters as they are unless asked otherwise.
//!
//! In:     a value, the filter's arguments.
//! Out:    JSON.
//! Touches: the renderer's account.
//! Holds:  J-6.3.
//! Absent: reading JSON.

use std::sync::Arc;

use crate::render::{Given, Renderer, Result, wrong};
use crate::value::{Value, float_text};

/// How to write.
struct Style {
    ensure_ascii: bool,
    /// Spaces a level, each item on a line of its own.
    indent: Option<usize>,
    item_separator: Arc<str>,
    key_separator: Arc<str>,
    sort_keys: bool,
}

impl Renderer<'_> {
    pub(crate) fn json(&mut self, value: &Value, given: Given) -> Result<Value> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ensure_ascii, indent, separators, sort_keys] = given.bind("tojson", names)?;
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(other) => match other.int() {
                Some(indent) => Some(usize::try_from(indent).unwrap_or(0)),
                None => return wrong(format!("tojson cannot indent by {}", other.kind())),
            },
        };
        let (item_separator, key_separator) = match separators {
            None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
            Some(Value::List(list)) => match &list.items[..] {
                [Value::Text(item), Value::Text(key)] => (item.clone(), key.clone()),
                _ => return wrong("tojson's separators are two texts"),
            },
            Some(other) => return wrong(format!("tojson's separators are two texts, not {}", other.kind())),
        };
        let style = Style {
            ensure_ascii: ensure_ascii.is_some_and(|value| value.is_true()),
            indent,
            item_separator,
            key_separator,
            sort_keys: sort_keys.is_some_and(|value| value.is_true()),
        };
        let mut text = String::new();
        self.write_json(&mut text, value, &style, 0)?;
        self.pushed(text)
    }

    fn write_json(&mut self, out: &mut String, value: &Value, style: &Style, level: usize) -> Result<()> {
        self.step(1)?;
        match value {
            Value::None => self.push(out, "null"),
            Value::Bool(true) => self.push(out, "true"),
            Value::Bool(false) => self.push(out, "false"),
            Value::Int(value) => self.push(out, &value.to_string()),
            Value::Float(value) => self.push(out, &float_text(*value)),
            Value::Text(text) => self.write_json_text(out, text, style),
            Value::List(list) if list.items.is_empty() => self.push(out, "[]"),
            Value::List(list) => {
                self.push(out, "[")?;
                for (index, item) in list.items.iter().enumerate() {
                    self.separate(out, style, index, level + 1)?;
                    self.write_json(out, item, style, level + 1)?;
                }
                self.new_line(out, style, level)?;
                self.push(out, "]")
            }
            Value::Dict(dict) if dict.entries.is_empty() => self.push(out, "{}"),
            Value::Dict(dict) => {
                self.push(out, "{")?;
                let mut order: Vec<usize> = (0..dict.entries.len()).collect();
                if style.sort_keys {
                    self.count_list(order.len())?;
                    let keys: Vec<Value> = dict.entries.iter().map(|(key, _)| key.clone()).collect();
                    order = self.sorted(&keys, false)?;
                }
                for (index, at) in order.into_iter().enumerate() {
                    let (key, value) = &dict.entries[at];
                    self.separate(out, style, index, level + 1)?;
                    match key {
                        Value::Text(key) => self.write_json_text(out, key, style)?,
                        other => {
                            self.push(out, "\"")?;
                            self.write_json(out, other, style, level)?;
                            self.push(out, "\"")?;
                        }
                    }
                    self.push(out, &style.key_separator)?;
                    self.write_json(out, value, style, level + 1)?;
                }
                self.new_line(out, style, level)?;
                self.push(out, "}")
            }
            other => wrong(format!("{} has no JSON", other.kind())),
        }
    }

    fn separate(&mut self, out: &mut String, style: &Style, index: usize, level: usize) -> Result<()> {
        if index > 0 {
            self.push(out, &style.item_separator)?;
        }
        self.new_line(out, style, level)
    }

    fn new_line(&mut self, out: &mut String, style: &Style, level: usize) -> Result<()> {
        let Some(indent) = style.indent else { return Ok(()) };
        let spaces = indent.saturating_mul(level);
        self.count((spaces as u64).saturating_add(1))?;
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', spaces));
        Ok(())
    }

    fn write_json_text(&mut self, out: &mut String, text: &str, style: &Style) -> Result<()> {
        self.push(out, "\"")?;
        let mut plain = 0;
        for (at, character) in text.char_indices() {
            let escaped = match character {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                '\0'..='\u{1f}' => format!("\\u{:04x}", u32::from(character)),
                '\u{7f}'.. if style.ensure_ascii => {
                    let mut units = [0; 2];
                    character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => continue,
            };
            self.step(1)?;
            self.push(out, &text[plain..at])?;
            self.push(out, &escaped)?;
            plain = at + character.len_utf8();
        }
        self.push(out, &text[plain..])?;
        self.push(out, "\"")
    }
}
