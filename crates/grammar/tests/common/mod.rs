//! Schemas at random, and a validator that shares nothing with the grammar.

#![allow(dead_code, reason = "each test file uses some of it")]

use serde_json::{Map, Value, json};

/// xorshift64*: the same numbers from the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % count
    }
}

const NAMES: &[&str] =
    &["a", "name", "größe", "with \"quotes\"", "back\\slash", "line\nbreak", "ключ", "x/y~z", ""];

/// A schema; `depth` bounds how deep it is nested, `named` are definitions that it may name.
pub fn schema(random: &mut Random, depth: usize, named: &[&str]) -> Value {
    let simple = depth == 0;
    match random.below(if simple { 8 } else { 14 }) {
        0 => json!({"type": "string"}),
        1 => json!({"type": "integer", "description": "a number"}),
        2 => json!({"type": "number"}),
        3 => json!({"type": ["boolean", "null"]}),
        4 => json!({"enum": ["red", "rot", "rouge", "крас\u{1}ный", 17, -1.5e3, null, {"a": [1, "b"]}]}),
        5 => json!({"const": NAMES[random.below(NAMES.len())]}),
        6 => {
            let least = random.below(4);
            json!({"type": ["string", "null"], "minLength": least, "maxLength": least + random.below(4)})
        }
        7 if !named.is_empty() => json!({"$ref": format!("#/$defs/{}", named[random.below(named.len())])}),
        7 => json!({}),
        8 => {
            let least = random.below(3);
            let mut array =
                json!({"type": "array", "items": schema(random, depth - 1, named), "minItems": least});
            if random.below(2) == 0 {
                array["maxItems"] = json!(least + random.below(3));
            }
            array
        }
        9 => {
            let some: Vec<Value> =
                (0..1 + random.below(4)).map(|_| schema(random, depth - 1, named)).collect();
            json!({"anyOf": some})
        }
        10 => json!({"type": "object"}),
        _ => object(random, depth, named),
    }
}

fn object(random: &mut Random, depth: usize, named: &[&str]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for _ in 0..random.below(5) {
        let name = NAMES[random.below(NAMES.len())];
        if properties.insert(name.to_owned(), schema(random, depth - 1, named)).is_none()
            && random.below(4) > 0
        {
            required.push(name);
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// A whole schema: an object at the top, sometimes with definitions that lead back to themselves.
pub fn document(random: &mut Random) -> Value {
    if random.below(2) == 0 {
        return object(random, 3, &[]);
    }
    let mut document = object(random, 2, &["node", "list"]);
    document["$defs"] = json!({
        "node": {"type": "object", "required": ["value", "next"], "additionalProperties": false, "properties": {
            "value": schema(random, 1, &[]),
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"$ref": "#/$defs/list"}, {"type": "null"}]},
        }},
        "list": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/node"}},
    });
    document
}

/// Whether a value meets a schema, by the rules of JSON Schema.
pub fn meets(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = match schema {
        Value::Bool(all) => return *all,
        Value::Object(schema) => schema,
        _ => panic!("no schema: {schema}"),
    };
    schema.iter().all(|(keyword, says)| match keyword.as_str() {
        "$ref" => meets(root, root.pointer(&says.as_str().unwrap()[1..]).expect("it is there"), value),
        "anyOf" => says.as_array().unwrap().iter().any(|schema| meets(root, schema, value)),
        "enum" => says.as_array().unwrap().contains(value),
        "const" => says == value,
        "type" => match says {
            Value::Array(names) => names.iter().any(|name| is_of(value, name)),
            name => is_of(value, name),
        },
        "minLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 >= says.as_u64().unwrap())
        }
        "maxLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 <= says.as_u64().unwrap())
        }
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= says.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= says.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| meets(root, says, item))),
        "required" => value.as_object().is_none_or(|members| {
            says.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|members| {
            says.as_object()
                .unwrap()
                .iter()
                .all(|(name, schema)| members.get(name).is_none_or(|value| meets(root, schema, value)))
        }),
        "additionalProperties" => {
            says == &json!(true)
                || value.as_object().is_none_or(|members| {
                    let known = schema.get("properties").and_then(Value::as_object);
                    members.keys().all(|name| known.is_some_and(|known| known.contains_key(name)))
                })
        }
        "description" | "$defs" => true,
        other => panic!("no keyword of these tests: {other}"),
    })
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}
