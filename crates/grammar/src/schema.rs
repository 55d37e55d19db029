//! From schemas to rules (G-3 … G-5).
//!
//! In:     the forms of a grammar.
//! Out:    rules that take what the forms permit, each value in the forms of G-4.
//! Holds:  every keyword is taken, is an annotation, or is refused by name.
//! Absent: automata (`compile`).

use std::collections::BTreeMap;

use crate::GrammarError;
use crate::compile::{END, RuleId, Rules, START};
use crate::json::Json;
use crate::source::Source;

/// What a bound on items may say.
const ITEMS_MAX: usize = 1024;
/// What a bound on a string's length may say.
const LENGTH_MAX: usize = 1024;
/// Digits of a number before its point, and after it.
const DIGITS_MAX: usize = 15;
/// Schemas that are read, those that are read again because they are named included, at most.
const SCHEMAS_MAX: usize = 1 << 12;

/// References that lead from one to the next, at most.
const FOLLOWING_MAX: usize = 64;

/// Keywords that say nothing about a value.
const ANNOTATIONS: &[&str] = &[
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
];

/// Rules that many share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Character,
    String,
    Integer,
    Number,
    Any,
}

/// What a schema says, at its top.
enum Shape<'a> {
    Any,
    Reference(&'a str),
    Literals(Vec<&'a Json>),
    Either(&'a [Json]),
    Types(Vec<&'a str>),
}

/// The rules of a grammar; rule 0 is that of the whole answer.
pub(crate) fn rules(source: &Source) -> Result<Rules, GrammarError> {
    let mut rules = Rules::default();
    let whole = rules.rule();
    let mut shared = BTreeMap::new();
    let mut read = 0;
    let mut bodies = Vec::new();
    for form in &source.forms {
        let mut schemas = Schemas {
            rules,
            root: &form.schema,
            shared,
            made: BTreeMap::new(),
            pending: Vec::new(),
            following: 0,
            read,
        };
        bodies.push(schemas.rule_of(&form.schema, "")?);
        schemas.finish()?;
        Schemas { rules, shared, read, .. } = schemas;
    }
    let mut from = START;
    for index in 0..source.most {
        let to = rules.node(whole)?;
        for (form, body) in source.forms.iter().zip(&bodies) {
            let before = rules.literal(whole, from, form.prefix.as_bytes())?;
            let after = rules.node(whole)?;
            rules.call(whole, before, *body, after);
            let last = rules.literal(whole, after, form.suffix.as_bytes())?;
            rules.empty(whole, last, to);
        }
        rules.empty(whole, to, END);
        if index + 1 < source.most {
            from = rules.literal(whole, to, source.separator.as_bytes())?;
        }
    }
    Ok(rules)
}

/// The schemas of one form.
struct Schemas<'a> {
    rules: Rules,
    root: &'a Json,
    shared: BTreeMap<Shared, RuleId>,
    /// The rule of each schema that has one, by where the schema lies.
    made: BTreeMap<*const Json, RuleId>,
    /// Rules that are still to be filled.
    pending: Vec<(RuleId, &'a Json, String)>,
    /// References followed, one from the other.
    following: usize,
    /// Schemas read so far.
    read: usize,
}

impl<'a> Schemas<'a> {
    /// Fills the rules that are not filled yet.
    fn finish(&mut self) -> Result<(), GrammarError> {
        while let Some((rule, schema, path)) = self.pending.pop() {
            self.body(rule, START, END, schema, &path, &mut Vec::new())?;
        }
        Ok(())
    }

    /// A value by a schema, in a rule of its own unless it is short.
    fn value(
        &mut self,
        rule: RuleId,
        from: usize,
        to: usize,
        schema: &'a Json,
        path: &str,
    ) -> Result<(), GrammarError> {
        let short = match shape(schema, path)? {
            Shape::Literals(_) | Shape::Any => true,
            Shape::Types(types) => types.iter().all(|name| is_short(name)),
            _ => false,
        };
        if short {
            return self.body(rule, from, to, schema, path, &mut Vec::new());
        }
        let callee = self.rule_of(schema, path)?;
        self.rules.call(rule, from, callee, to);
        Ok(())
    }

    /// The rule of a schema; it is filled later.
    fn rule_of(&mut self, schema: &'a Json, path: &str) -> Result<RuleId, GrammarError> {
        if let Some(rule) = self.made.get(&std::ptr::from_ref(schema)) {
            return Ok(*rule);
        }
        let rule = match shape(schema, path)? {
            Shape::Reference(reference) => {
                self.read += 1;
                let pointer = pointer(reference, path)?;
                let named = self.resolve(&pointer, path)?;
                if self.following >= FOLLOWING_MAX {
                    return Err(invalid(path, "leads back to itself with nothing between"));
                }
                self.following += 1;
                let rule = self.rule_of(named, &pointer)?;
                self.following -= 1;
                rule
            }
            _ => {
                let rule = self.rules.rule();
                self.pending.push((rule, schema, path.to_owned()));
                rule
            }
        };
        self.made.insert(schema, rule);
        Ok(rule)
    }

    /// A value by a schema, in the rule at hand. `chain` names what it is part of without a byte between.
    fn body(
        &mut self,
        rule: RuleId,
        from: usize,
        to: usize,
        schema: &'a Json,
        path: &str,
        chain: &mut Vec<*const Json>,
    ) -> Result<(), GrammarError> {
        self.read += 1;
        if self.read > SCHEMAS_MAX {
            return Err(GrammarError::TooLarge { what: "schemas in it", most: SCHEMAS_MAX });
        }
        let own = std::ptr::from_ref(schema);
        if chain.contains(&own) {
            return Err(invalid(path, "leads back to itself with nothing between"));
        }
        chain.push(own);
        match shape(schema, path)? {
            Shape::Any => {
                let any = self.any()?;
                self.rules.call(rule, from, any, to);
            }
            Shape::Reference(reference) => {
                let pointer = pointer(reference, path)?;
                let named = self.resolve(&pointer, path)?;
                self.body(rule, from, to, named, &pointer, chain)?;
            }
            Shape::Literals(values) => {
                for value in values {
                    let last = self.rules.literal(rule, from, value.written().as_bytes())?;
                    self.rules.empty(rule, last, to);
                }
            }
            Shape::Either(schemas) => {
                for (index, schema) in schemas.iter().enumerate() {
                    self.body(rule, from, to, schema, &format!("{path}/anyOf/{index}"), chain)?;
                }
            }
            Shape::Types(types) => {
                for name in types {
                    self.of_type(rule, from, to, name, schema, path)?;
                }
            }
        }
        chain.pop();
        Ok(())
    }

    fn of_type(
        &mut self,
        rule: RuleId,
        from: usize,
        to: usize,
        name: &str,
        schema: &'a Json,
        path: &str,
    ) -> Result<(), GrammarError> {
        let words: &[&str] = match name {
            "null" => &["null"],
            "boolean" => &["true", "false"],
            _ => &[],
        };
        for word in words {
            let last = self.rules.literal(rule, from, word.as_bytes())?;
            self.rules.empty(rule, last, to);
        }
        match name {
            "integer" | "number" => {
                let callee = self.number(name == "number")?;
                self.rules.call(rule, from, callee, to);
            }
            "string" => {
                let (least, most) = bounds(schema, path, "minLength", "maxLength", LENGTH_MAX)?;
                let callee = match (least, most) {
                    (0, None) => self.string()?,
                    _ => self.bounded_string(least, most)?,
                };
                self.rules.call(rule, from, callee, to);
            }
            "object" => self.object(rule, from, to, schema, path)?,
            "array" => {
                let (least, most) = bounds(schema, path, "minItems", "maxItems", ITEMS_MAX)?;
                self.array(rule, from, to, schema.get("items"), least, most, path)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing, or one space or line break (G-4).
    fn space(&mut self, rule: RuleId, from: usize) -> Result<usize, GrammarError> {
        let to = self.rules.node(rule)?;
        self.rules.empty(rule, from, to);
        for byte in [b' ', b'\n'] {
            self.rules.bytes(rule, from, byte, byte, to);
        }
        Ok(to)
    }

    fn byte(&mut self, rule: RuleId, from: usize, byte: u8) -> Result<usize, GrammarError> {
        self.rules.literal(rule, from, &[byte])
    }

    /// The end of an object or array.
    fn close(&mut self, rule: RuleId, from: usize, byte: u8, to: usize) -> Result<(), GrammarError> {
        let from = self.space(rule, from)?;
        self.rules.bytes(rule, from, byte, byte, to);
        Ok(())
    }

    /// An object: its properties in the order of the schema.
    fn object(
        &mut self,
        rule: RuleId,
        from: usize,
        to: usize,
        schema: &'a Json,
        path: &str,
    ) -> Result<(), GrammarError> {
        let empty: &'a [(String, Json)] = &[];
        let properties = match schema.get("properties") {
            None => empty,
            Some(Json::Object(properties)) => properties,
            Some(_) => return Err(invalid(path, "has `properties` that are no object")),
        };
        let closed = match schema.get("additionalProperties") {
            None => !properties.is_empty(),
            Some(Json::Bool(more)) => !more || !properties.is_empty(),
            Some(_) => {
                return Err(GrammarError::Unsupported {
                    path: shown(path),
                    keyword: "additionalProperties".into(),
                });
            }
        };
        let mut required = std::collections::BTreeSet::new();
        match schema.get("required") {
            None => {}
            Some(Json::Array(names)) => {
                for name in names {
                    let Json::String(name) = name else {
                        return Err(invalid(path, "requires something that is no name"));
                    };
                    if !properties.iter().any(|(own, _)| own == name) {
                        return Err(invalid(path, &format!("requires `{name}`, which is no property of it")));
                    }
                    required.insert(name.as_str());
                }
            }
            Some(_) => return Err(invalid(path, "has a `required` that is no list")),
        }
        if !closed {
            return self.free_object(rule, from, to);
        }
        // Where nothing is written of the object yet, and where something is.
        let mut bare = self.byte(rule, from, b'{')?;
        let mut written = self.rules.node(rule)?;
        for (name, schema) in properties {
            let path = format!("{path}/properties/{}", escaped(name));
            let key = Json::String(name.clone()).written();
            let first = self.space(rule, bare)?;
            let comma = self.byte(rule, written, b',')?;
            let later = self.space(rule, comma)?;
            self.rules.empty(rule, later, first);
            let key = self.rules.literal(rule, first, key.as_bytes())?;
            let colon = self.byte(rule, key, b':')?;
            let value = self.space(rule, colon)?;
            let after = self.rules.node(rule)?;
            self.value(rule, value, after, schema, &path)?;
            let skipped = self.rules.node(rule)?;
            if !required.contains(name.as_str()) {
                self.rules.empty(rule, bare, skipped);
                self.rules.empty(rule, written, after);
            }
            (bare, written) = (skipped, after);
        }
        self.close(rule, bare, b'}', to)?;
        self.close(rule, written, b'}', to)
    }

    #[expect(clippy::too_many_arguments, reason = "a way in a rule, and what an array may be")]
    fn array(
        &mut self,
        rule: RuleId,
        from: usize,
        to: usize,
        items: Option<&'a Json>,
        least: usize,
        most: Option<usize>,
        path: &str,
    ) -> Result<(), GrammarError> {
        let path = format!("{path}/items");
        let item = match items {
            Some(items) => self.rule_of(items, &path)?,
            None => self.any()?,
        };
        let open = self.byte(rule, from, b'[')?;
        if least == 0 {
            self.close(rule, open, b']', to)?;
        }
        let mut before = self.space(rule, open)?;
        for index in 1..=most.unwrap_or(least.max(1)) {
            let after = self.rules.node(rule)?;
            self.rules.call(rule, before, item, after);
            if index >= least {
                self.close(rule, after, b']', to)?;
            }
            let comma = self.byte(rule, after, b',')?;
            before = self.space(rule, comma)?;
            if most.is_none() && index == least.max(1) {
                self.rules.call(rule, before, item, after);
            }
        }
        Ok(())
    }

    fn any(&mut self) -> Result<RuleId, GrammarError> {
        self.shared(Shared::Any)
    }

    fn string(&mut self) -> Result<RuleId, GrammarError> {
        self.shared(Shared::String)
    }

    fn number(&mut self, fraction: bool) -> Result<RuleId, GrammarError> {
        self.shared(if fraction { Shared::Number } else { Shared::Integer })
    }

    fn bounded_string(&mut self, least: usize, most: Option<usize>) -> Result<RuleId, GrammarError> {
        let character = self.shared(Shared::Character)?;
        let rule = self.rules.rule();
        let mut at = self.byte(rule, START, b'"')?;
        for index in 0..=most.unwrap_or(least) {
            if index >= least {
                self.rules.bytes(rule, at, b'"', b'"', END);
            }
            match most {
                None if index == least => self.rules.call(rule, at, character, at),
                Some(most) if index == most => {}
                _ => {
                    let next = self.rules.node(rule)?;
                    self.rules.call(rule, at, character, next);
                    at = next;
                }
            }
        }
        Ok(rule)
    }

    fn shared(&mut self, which: Shared) -> Result<RuleId, GrammarError> {
        if let Some(rule) = self.shared.get(&which) {
            return Ok(*rule);
        }
        let rule = self.rules.rule();
        self.shared.insert(which, rule);
        match which {
            Shared::Character => self.character(rule, START, END)?,
            Shared::String => {
                let inside = self.byte(rule, START, b'"')?;
                self.character(rule, inside, inside)?;
                self.rules.bytes(rule, inside, b'"', b'"', END);
            }
            Shared::Integer | Shared::Number => self.digits(rule, which == Shared::Number)?,
            Shared::Any => {
                for word in ["null", "true", "false"] {
                    let last = self.rules.literal(rule, START, word.as_bytes())?;
                    self.rules.empty(rule, last, END);
                }
                for other in [Shared::String, Shared::Number] {
                    let callee = self.shared(other)?;
                    self.rules.call(rule, START, callee, END);
                }
                self.free_object(rule, START, END)?;
                self.array(rule, START, END, None, 0, None, "")?;
            }
        }
        Ok(rule)
    }

    /// An object of any members.
    fn free_object(&mut self, rule: RuleId, from: usize, to: usize) -> Result<(), GrammarError> {
        let (string, any) = (self.string()?, self.any()?);
        let open = self.byte(rule, from, b'{')?;
        self.close(rule, open, b'}', to)?;
        let key = self.space(rule, open)?;
        let (named, after) = (self.rules.node(rule)?, self.rules.node(rule)?);
        self.rules.call(rule, key, string, named);
        let colon = self.byte(rule, named, b':')?;
        let value = self.space(rule, colon)?;
        self.rules.call(rule, value, any, after);
        self.close(rule, after, b'}', to)?;
        let comma = self.byte(rule, after, b',')?;
        let next = self.space(rule, comma)?;
        self.rules.call(rule, next, string, named);
        Ok(())
    }

    /// A character of a string, in UTF-8 or escaped (G-4).
    fn character(&mut self, rule: RuleId, from: usize, to: usize) -> Result<(), GrammarError> {
        for (low, high) in [(0x20, 0x21), (0x23, 0x5b), (0x5d, 0x7f)] {
            self.rules.bytes(rule, from, low, high, to);
        }
        let escape = self.byte(rule, from, b'\\')?;
        for byte in *b"\"\\/bfnrt" {
            self.rules.bytes(rule, escape, byte, byte, to);
        }
        // Four hexadecimal digits, none of them of a surrogate: `d` is followed by 0 … 7.
        let unit = self.byte(rule, escape, b'u')?;
        let [after_any, after_d, third, fourth] =
            [self.rules.node(rule)?, self.rules.node(rule)?, self.rules.node(rule)?, self.rules.node(rule)?];
        for (low, high) in [(b'0', b'9'), (b'a', b'f'), (b'A', b'F')] {
            for (at, next) in [(after_any, third), (third, fourth), (fourth, to)] {
                self.rules.bytes(rule, at, low, high, next);
            }
        }
        for (low, high) in [(b'0', b'9'), (b'a', b'c'), (b'e', b'f'), (b'A', b'C'), (b'E', b'F')] {
            self.rules.bytes(rule, unit, low, high, after_any);
        }
        for byte in *b"dD" {
            self.rules.bytes(rule, unit, byte, byte, after_d);
        }
        self.rules.bytes(rule, after_d, b'0', b'7', third);
        // UTF-8: the bytes of a character after its first, by what the first was.
        let (one, two) = (self.rules.node(rule)?, self.rules.node(rule)?);
        self.rules.bytes(rule, one, 0x80, 0xbf, to);
        self.rules.bytes(rule, two, 0x80, 0xbf, one);
        self.rules.bytes(rule, from, 0xc2, 0xdf, one);
        for (low, high) in [(0xe1, 0xec), (0xee, 0xef)] {
            self.rules.bytes(rule, from, low, high, two);
        }
        let three = self.rules.node(rule)?;
        self.rules.bytes(rule, three, 0x80, 0xbf, two);
        self.rules.bytes(rule, from, 0xf1, 0xf3, three);
        for (first, low, high, next) in [
            (0xe0, 0xa0, 0xbf, one),
            (0xed, 0x80, 0x9f, one),
            (0xf0, 0x90, 0xbf, two),
            (0xf4, 0x80, 0x8f, two),
        ] {
            let second = self.byte(rule, from, first)?;
            self.rules.bytes(rule, second, low, high, next);
        }
        Ok(())
    }

    /// A number of at most 15 digits before its point, and if it may have a fraction 15 after it and an exponent of two.
    fn digits(&mut self, rule: RuleId, fraction: bool) -> Result<(), GrammarError> {
        let minus = self.byte(rule, START, b'-')?;
        let whole = self.rules.node(rule)?;
        for from in [START, minus] {
            if fraction || from == START {
                self.rules.bytes(rule, from, b'0', b'0', whole);
            }
        }
        let mut at = self.rules.node(rule)?;
        for from in [START, minus] {
            self.rules.bytes(rule, from, b'1', b'9', at);
        }
        self.some_digits(rule, &mut at, DIGITS_MAX - 1, whole)?;
        self.rules.empty(rule, whole, END);
        if !fraction {
            return Ok(());
        }
        let (point, exponent) = (self.byte(rule, whole, b'.')?, self.rules.node(rule)?);
        let mut at = self.rules.node(rule)?;
        self.rules.bytes(rule, point, b'0', b'9', at);
        let end = self.rules.node(rule)?;
        self.some_digits(rule, &mut at, DIGITS_MAX - 1, end)?;
        self.rules.empty(rule, end, END);
        for from in [whole, end] {
            for byte in *b"eE" {
                self.rules.bytes(rule, from, byte, byte, exponent);
            }
        }
        let sign = self.rules.node(rule)?;
        self.rules.empty(rule, exponent, sign);
        for byte in *b"+-" {
            self.rules.bytes(rule, exponent, byte, byte, sign);
        }
        let mut at = self.rules.node(rule)?;
        self.rules.bytes(rule, sign, b'0', b'9', at);
        self.some_digits(rule, &mut at, 1, END)
    }

    /// Up to `most` more digits, after each of which there may be the end.
    fn some_digits(
        &mut self,
        rule: RuleId,
        at: &mut usize,
        most: usize,
        end: usize,
    ) -> Result<(), GrammarError> {
        self.rules.empty(rule, *at, end);
        for _ in 0..most {
            let next = self.rules.node(rule)?;
            self.rules.bytes(rule, *at, b'0', b'9', next);
            self.rules.empty(rule, next, end);
            *at = next;
        }
        Ok(())
    }

    /// What a pointer names.
    fn resolve(&self, pointer: &str, path: &str) -> Result<&'a Json, GrammarError> {
        let mut at = self.root;
        for name in pointer.split('/').skip(1) {
            let name = name.replace("~1", "/").replace("~0", "~");
            let next = match at {
                Json::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
                other => other.get(&name),
            };
            at = next.ok_or_else(|| invalid(path, &format!("names `#{pointer}`, which is not there")))?;
        }
        Ok(at)
    }
}

/// Takes too little to have a rule of its own.
fn is_short(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "string" | "integer" | "number")
}

/// What a schema says; every keyword is looked at.
fn shape<'a>(schema: &'a Json, path: &str) -> Result<Shape<'a>, GrammarError> {
    let members = match schema {
        Json::Bool(true) => return Ok(Shape::Any),
        Json::Bool(false) => return Err(invalid(path, "is `false`, which nothing meets")),
        Json::Object(members) => members,
        _ => return Err(invalid(path, "is no schema")),
    };
    let only = |allowed: &[&str]| {
        let known = |name: &str| ANNOTATIONS.contains(&name) || allowed.contains(&name);
        match members.iter().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((keyword, _)) => {
                Err(GrammarError::Unsupported { path: shown(path), keyword: keyword.clone() })
            }
        }
    };
    let types = types(schema, path)?;
    if let Some(reference) = schema.get("$ref") {
        only(&["$ref"])?;
        return match reference {
            Json::String(reference) => Ok(Shape::Reference(reference)),
            _ => Err(invalid(path, "has a `$ref` that is no string")),
        };
    }
    if let Some(either) = schema.get("anyOf") {
        only(&["anyOf"])?;
        return match either {
            Json::Array(schemas) if !schemas.is_empty() => Ok(Shape::Either(schemas)),
            _ => Err(invalid(path, "has an `anyOf` that is no list of schemas")),
        };
    }
    let literals: Option<Vec<&Json>> = match (schema.get("const"), schema.get("enum")) {
        (None, None) => None,
        (Some(value), None) => Some(vec![value]),
        (None, Some(Json::Array(values))) => Some(values.iter().collect()),
        (Some(_), Some(_)) => return Err(invalid(path, "has both `const` and `enum`")),
        _ => return Err(invalid(path, "has an `enum` that is no list")),
    };
    if let Some(mut values) = literals {
        only(&["const", "enum", "type"])?;
        if let Some(types) = &types {
            values.retain(|value| types.iter().any(|name| is_of(value, name)));
        }
        if values.is_empty() {
            return Err(invalid(path, "has no value that is of its type"));
        }
        return Ok(Shape::Literals(values));
    }
    let objects = ["properties", "required", "additionalProperties"];
    let arrays = ["items", "minItems", "maxItems"];
    let strings = ["minLength", "maxLength"];
    let has = |names: &[&str]| names.iter().any(|name| schema.get(name).is_some());
    let types = match types {
        Some(types) => types,
        // A schema that speaks of one kind of value means that kind.
        None if has(&objects) => vec!["object"],
        None if has(&arrays) => vec!["array"],
        None if has(&strings) => vec!["string"],
        None => {
            only(&[])?;
            return Ok(Shape::Any);
        }
    };
    let mut allowed = vec!["type"];
    for (name, words) in [("object", &objects[..]), ("array", &arrays[..]), ("string", &strings[..])] {
        allowed.extend(words.iter().filter(|_| types.contains(&name)));
    }
    only(&allowed)?;
    Ok(Shape::Types(types))
}

/// The types that a schema names.
fn types<'a>(schema: &'a Json, path: &str) -> Result<Option<Vec<&'a str>>, GrammarError> {
    const TYPES: &[&str] = &["object", "array", "string", "integer", "number", "boolean", "null"];
    let names: Vec<&Json> = match schema.get("type") {
        None => return Ok(None),
        Some(Json::Array(names)) => names.iter().collect(),
        Some(name) => vec![name],
    };
    let mut types = Vec::new();
    for name in names {
        match name {
            Json::String(name) if TYPES.contains(&name.as_str()) && !types.contains(&name.as_str()) => {
                types.push(name.as_str());
            }
            _ => return Err(invalid(path, "has a `type` that is none, or names one twice")),
        }
    }
    if types.is_empty() {
        return Err(invalid(path, "has no `type` in its list"));
    }
    // Every integer is a number.
    if types.contains(&"number") {
        types.retain(|name| *name != "integer");
    }
    Ok(Some(types))
}

/// Whether a literal is of a type.
fn is_of(value: &Json, name: &str) -> bool {
    match value {
        Json::Null => name == "null",
        Json::Bool(_) => name == "boolean",
        Json::Number(number) => {
            name == "number"
                || name == "integer" && number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
        }
        Json::String(_) => name == "string",
        Json::Array(_) => name == "array",
        Json::Object(_) => name == "object",
    }
}

/// A least and a greatest count.
fn bounds(
    schema: &Json,
    path: &str,
    least: &str,
    most: &str,
    limit: usize,
) -> Result<(usize, Option<usize>), GrammarError> {
    let count = |name: &str| match schema.get(name) {
        None => Ok(None),
        Some(value) => match value.count().filter(|count| *count <= limit) {
            Some(count) => Ok(Some(count)),
            None => Err(invalid(path, &format!("has a `{name}` that is no whole number up to {limit}"))),
        },
    };
    let (low, high) = (count(least)?.unwrap_or(0), count(most)?);
    if high.is_some_and(|high| high < low) {
        return Err(invalid(path, &format!("has a `{most}` under its `{least}`")));
    }
    Ok((low, high))
}

/// The pointer of a reference within the same document.
fn pointer(reference: &str, path: &str) -> Result<String, GrammarError> {
    match reference.strip_prefix('#') {
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => Ok(pointer.to_owned()),
        _ => Err(invalid(path, "has a `$ref` to another document, or to an anchor")),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn shown(path: &str) -> String {
    format!("#{path}")
}

fn invalid(path: &str, problem: &str) -> GrammarError {
    GrammarError::Invalid { path: shown(path), problem: problem.to_owned() }
}
