//! What a request carries of a grammar: forms, each a schema between two literal texts (G-2).
//!
//! In:     forms, from whoever makes a request; text from anyone.
//! Out:    the one text that says so; parsed forms.
//! Holds:  a grammar has one text; any other is refused.

use crate::GrammarError;
use crate::json::{Json, write_string};

/// Bytes of a grammar, at most.
pub const GRAMMAR_BYTES_MAX: usize = 32 << 10;
/// Forms of a grammar, at most.
pub const FORMS_MAX: usize = 128;
/// Forms that may follow each other in one answer, at most.
pub const REPEATS_MAX: usize = 16;

/// One form of an answer: literal text, JSON that meets a schema, literal text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form<'a> {
    /// Before the JSON.
    pub prefix: &'a str,
    /// A JSON Schema.
    pub schema: &'a str,
    /// After it.
    pub suffix: &'a str,
}

/// A grammar as it is parsed.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) forms: Vec<ParsedForm>,
    pub(crate) most: usize,
    pub(crate) separator: String,
}

/// A form as it is parsed.
#[derive(Clone, Debug)]
pub(crate) struct ParsedForm {
    pub(crate) prefix: String,
    pub(crate) schema: Json,
    pub(crate) suffix: String,
}

/// The grammar of an answer that is one of some forms, or up to `most` of them with `separator` between.
///
/// # Errors
/// `GrammarError` if it is none: it is compiled to see so.
pub fn forms(forms: &[Form<'_>], most: usize, separator: &str) -> Result<String, GrammarError> {
    let mut out = String::from("{\"forms\":[");
    for (index, form) in forms.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"prefix\":" } else { "{\"prefix\":" });
        write_string(form.prefix, &mut out);
        out.push_str(",\"schema\":");
        Json::parse(form.schema)?.write(&mut out);
        out.push_str(",\"suffix\":");
        write_string(form.suffix, &mut out);
        out.push('}');
    }
    out.push_str(&format!("],\"most\":{most},\"separator\":"));
    write_string(separator, &mut out);
    out.push('}');
    crate::Grammar::compile(&out)?;
    Ok(out)
}

/// The grammar of JSON that meets a schema.
///
/// # Errors
/// `GrammarError` if the schema is not supported.
pub fn json_schema(schema: &str) -> Result<String, GrammarError> {
    forms(&[Form { schema, ..Form::default() }], 1, "")
}

/// The grammar of any JSON object.
pub fn json_object() -> String {
    r#"{"forms":[{"prefix":"","schema":{"type":"object"},"suffix":""}],"most":1,"separator":""}"#.to_owned()
}

impl Source {
    pub(crate) fn parse(text: &str) -> Result<Source, GrammarError> {
        if text.len() > GRAMMAR_BYTES_MAX {
            return Err(GrammarError::TooLong { bytes: text.len() });
        }
        let json = Json::parse(text)?;
        if json.written() != text {
            return Err(GrammarError::Form(
                "it is not compact, or a string has longer escapes than it needs",
            ));
        }
        let [Json::Array(forms), most, Json::String(separator)] =
            members(json, ["forms", "most", "separator"])?
        else {
            return Err(GrammarError::Form("it has a list of forms and a separator"));
        };
        let most = most.count().filter(|most| (1..=REPEATS_MAX).contains(most));
        let most = most.ok_or(GrammarError::Form("it repeats its forms once to sixteen times"))?;
        if forms.is_empty() || forms.len() > FORMS_MAX {
            return Err(GrammarError::Form("it has one to 128 forms"));
        }
        let form = |form| match members(form, ["prefix", "schema", "suffix"])? {
            [Json::String(prefix), schema, Json::String(suffix)] => Ok(ParsedForm { prefix, schema, suffix }),
            _ => Err(GrammarError::Form("prefix and suffix are strings")),
        };
        let forms = forms.into_iter().map(form).collect::<Result<_, _>>()?;
        Ok(Source { forms, most, separator })
    }
}

/// The members of an object that has these, in this order.
fn members<const N: usize>(json: Json, names: [&str; N]) -> Result<[Json; N], GrammarError> {
    let wrong = GrammarError::Form("its members are not those of the rule, in its order");
    let Json::Object(members) = json else { return Err(wrong) };
    if !members.iter().map(|(name, _)| name.as_str()).eq(names) {
        return Err(wrong);
    }
    let values: Vec<Json> = members.into_iter().map(|(_, value)| value).collect();
    values.try_into().map_err(|_| wrong)
}
