//! Items: what a conversation is made of, as OpenAI's responses have it.
//!
//! In:     the items of a body. Out: messages, calls of functions and their results, and references to items that are kept; or an
//!         error that names the place. Ids of items, and what they stand for.
//! Touches: nothing.
//! Holds:  what is neither text nor a call of a function nor its result is refused by name.
//! Absent: finding what is referred to (`history`).

use serde_json::value::RawValue;
use surety_types::{Message, ToolCall, request::MAX_MESSAGES};

use crate::{
    api::{
        ask::missing,
        fields::{self, Fields, quote},
        parameters as table, tools,
    },
    error::{ApiError, Code},
    id::RequestId,
};

/// Parts of one message's content.
const PARTS_MAX: usize = 4096;
/// Roles of messages, and as chat templates know them.
const ROLES: [(&str, &str); 4] =
    [("user", "user"), ("assistant", "assistant"), ("system", "system"), ("developer", "system")];
/// What the ids of items begin with, by their kind: messages, calls, results of calls.
const PREFIXES: [&str; 3] = ["msg", "fc", "fco"];

/// One item of the input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    Said(Said),
    /// An item of another response.
    Reference {
        response: RequestId,
        place: Place,
    },
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Message {
        /// As the caller wrote it.
        role: &'static str,
        parts: Vec<String>,
    },
    /// A call of a function; its id is what the result names.
    Call(ToolCall),
    /// What a function said.
    Result { call_id: String, parts: Vec<String> },
}

/// Where in a response an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Input(u16),
    Output(u16),
}

impl Said {
    fn prefix(&self) -> &'static str {
        match self {
            Said::Message { .. } => "msg",
            Said::Call(_) => "fc",
            Said::Result { .. } => "fco",
        }
    }

    /// The id of this item, which stands there.
    pub(super) fn id(&self, response: RequestId, place: Place) -> String {
        item_id(self.prefix(), response, place)
    }

    /// Bytes of its text.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Said::Message { parts, .. } => parts.iter().map(String::len).sum(),
            Said::Call(call) => call.name.len() + call.arguments.len(),
            Said::Result { parts, .. } => parts.iter().map(String::len).sum(),
        }
    }

    /// Adds it to a conversation, as chat templates see it: what the assistant calls belongs to what it said before.
    pub(super) fn join(self, messages: &mut Vec<Message>) {
        match self {
            Said::Message { role, parts } => {
                let (_, role) = ROLES.iter().find(|(name, _)| *name == role).copied().unwrap_or(ROLES[0]);
                messages.push(Message::text(role, parts.concat()));
            }
            Said::Call(call) => match messages.last_mut() {
                Some(last) if last.role == "assistant" => last.tool_calls.push(call),
                _ => {
                    let message = Message::text("assistant", "");
                    messages.push(Message { tool_calls: vec![call], ..message });
                }
            },
            Said::Result { call_id, parts } => {
                let message = Message::text("tool", parts.concat());
                messages.push(Message { tool_call_id: Some(call_id), ..message });
            }
        }
    }
}

/// A text, or a list of items.
pub(super) fn input(raw: &RawValue) -> Result<Vec<Input>, ApiError> {
    match fields::first_byte(raw) {
        b'"' => {
            let parts = vec![fields::string("input", raw)?];
            Ok(vec![Input::Said(Said::Message { role: "user", parts })])
        }
        b'[' => fields::list("input", raw, MAX_MESSAGES)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| item(format!("input[{index}]"), raw))
            .collect(),
        _ => Err(fields::wrong_type("input", raw, "a text or a list of items")),
    }
}

fn item(path: String, raw: &RawValue) -> Result<Input, ApiError> {
    let mut fields = Fields::object(path.clone(), raw)?;
    let kind_path = fields.path("type");
    match fields.string("type")?.as_deref() {
        None | Some("message") => message(&path, fields).map(Input::Said),
        Some("function_call") => call(fields).map(Input::Said),
        Some("function_call_output") => result(fields).map(Input::Said),
        Some("item_reference") => reference(fields),
        Some(other) => {
            let message = format!(
                "`{kind_path}` is \"{}\". Only \"message\", \"function_call\", \"function_call_output\" and \"item_reference\" are \
                 supported here; say the rest in words.",
                quote(other),
            );
            Err(ApiError::new(Code::UnsupportedParameter, message).with_param(kind_path))
        }
    }
}

/// What chat templates never see of an item: it has its own id here.
fn unseen(fields: &mut Fields<'_>, names: &[&str]) {
    names.iter().for_each(|name| {
        fields.take(name);
    });
}

fn message(path: &str, mut fields: Fields<'_>) -> Result<Said, ApiError> {
    let role_path = fields.path("role");
    let role = fields.string("role")?.ok_or_else(|| missing(&role_path))?;
    let Some((role, _)) = ROLES.iter().find(|(name, _)| *name == role).copied() else {
        let names = ROLES.map(|(name, _)| format!("`{name}`")).join(", ");
        let message = format!("`{path}.role` is \"{}\". It must be one of {names}.", quote(&role));
        return Err(ApiError::invalid(role_path, message));
    };
    unseen(&mut fields, &["id", "status", "phase"]);
    let content_path = fields.path("content");
    let raw = fields.take("content").ok_or_else(|| missing(&content_path))?;
    let parts = texts(&content_path, raw)?;
    table::nothing_left(&fields, &["type", "role", "content", "id", "status", "phase"])?;
    Ok(Said::Message { role, parts })
}

fn call(mut fields: Fields<'_>) -> Result<Said, ApiError> {
    unseen(&mut fields, &["id", "status", "caller"]);
    of_tools(&mut fields)?;
    let call = tools::call_of_item(&mut fields)?;
    table::nothing_left(&fields, &["type", "call_id", "name", "arguments", "id", "status"])?;
    Ok(Said::Call(call))
}

/// Refuses what says of a call that it is of anything but the functions of the request.
fn of_tools(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    for name in ["namespace", "async"] {
        if fields.take(name).is_some_and(|raw| raw.get() != "false") {
            let path = fields.path(name);
            let message = format!(
                "`{path}` is not supported here. Leave it out: calls are of the functions in `tools`."
            );
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path));
        }
    }
    Ok(())
}

fn result(mut fields: Fields<'_>) -> Result<Said, ApiError> {
    // Whose it is, the call says.
    unseen(&mut fields, &["id", "status", "caller", "name"]);
    of_tools(&mut fields)?;
    let [call_path, path] = ["call_id", "output"].map(|name| fields.path(name));
    let call_id = fields.string("call_id")?.ok_or_else(|| missing(&call_path))?;
    let call_id = tools::short(&call_path, call_id)?;
    let raw = fields.take("output").ok_or_else(|| missing(&path))?;
    let parts = texts(&path, raw)?;
    table::nothing_left(&fields, &["type", "call_id", "output", "name", "id", "status"])?;
    Ok(Said::Result { call_id, parts })
}

/// A text, or a list of text parts.
fn texts(path: &str, raw: &RawValue) -> Result<Vec<String>, ApiError> {
    match fields::first_byte(raw) {
        b'"' => Ok(vec![fields::string(path, raw)?]),
        b'[' => fields::list(path, raw, PARTS_MAX)?
            .into_iter()
            .enumerate()
            .map(|(index, raw)| part(format!("{path}[{index}]"), raw))
            .collect(),
        _ => Err(fields::wrong_type(path, raw, "a text or a list of text parts")),
    }
}

fn part(path: String, raw: &RawValue) -> Result<String, ApiError> {
    let mut part = Fields::object(path, raw)?;
    let (kind_path, text_path) = (part.path("type"), part.path("text"));
    let kind = part.string("type")?.ok_or_else(|| missing(&kind_path))?;
    if !["input_text", "output_text", "text"].contains(&kind.as_str()) {
        let message = format!(
            "`{kind_path}` is \"{}\". Only \"input_text\" and \"output_text\" are supported here; say in words what it shows.",
            quote(&kind),
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(kind_path));
    }
    let text = part.string("text")?.ok_or_else(|| missing(&text_path))?;
    unseen(&mut part, &["annotations", "logprobs", "prompt_cache_breakpoint"]);
    table::nothing_left(&part, &["type", "text", "annotations", "logprobs", "prompt_cache_breakpoint"])?;
    Ok(text)
}

fn reference(mut fields: Fields<'_>) -> Result<Input, ApiError> {
    let path = fields.path("id");
    let id = fields.string("id")?.ok_or_else(|| missing(&path))?;
    table::nothing_left(&fields, &["type", "id"])?;
    let Some((response, place)) = read_item_id(&id) else {
        let message = format!(
            "`{path}` is \"{}\", which is no item's id here. They look like msg_, fc_ or fco_ and 32 digits or more, as the \
             response that they are of has them.",
            quote(&id),
        );
        return Err(ApiError::invalid(path, message));
    };
    Ok(Input::Reference { response, place })
}

/// The id of an item of a response.
pub(super) fn item_id(prefix: &'static str, response: RequestId, place: Place) -> String {
    let digits = response.bits();
    match place {
        Place::Output(0) => format!("{prefix}_{digits:032x}"),
        Place::Output(index) => format!("{prefix}_{digits:032x}_{index:04x}"),
        Place::Input(index) => format!("{prefix}_{digits:032x}{index:04x}"),
    }
}

/// Reads what `item_id` writes.
fn read_item_id(text: &str) -> Option<(RequestId, Place)> {
    let (prefix, digits) = text.split_once('_').filter(|(_, digits)| digits.is_ascii())?;
    let prefix = PREFIXES.into_iter().find(|known| *known == prefix)?;
    let (response, index) = digits.split_at_checked(32)?;
    let response = RequestId::parse(&format!("req_{response}"))?;
    let number = |digits: &str| u16::from_str_radix(digits, 16).ok();
    let place = match (index, index.strip_prefix('_')) {
        ("", _) => Place::Output(0),
        (_, Some(index)) => Place::Output(number(index)?),
        (index, None) => Place::Input(number(index)?),
    };
    (item_id(prefix, response, place) == text).then_some((response, place))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_place() -> impl Strategy<Value = Place> {
        prop_oneof![any::<u16>().prop_map(Place::Input), any::<u16>().prop_map(Place::Output)]
    }

    #[test]
    fn what_is_called_belongs_to_what_was_said() {
        let call = |id: &str| {
            Said::Call(ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() })
        };
        let said = |role, text: &str| Said::Message { role, parts: vec![text.to_owned()] };
        let result = |id: &str| Said::Result { call_id: id.to_owned(), parts: vec!["1".into(), "2".into()] };
        let mut messages = Vec::new();
        let items = [
            said("developer", "be kind"),
            said("user", "go"),
            call("a"),
            call("b"),
            result("a"),
            result("b"),
            said("assistant", "and"),
            call("c"),
        ];
        items.into_iter().for_each(|item| item.join(&mut messages));
        let seen: Vec<(&str, &str, Vec<&str>, Option<&str>)> = messages
            .iter()
            .map(|message| {
                let calls = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
                (message.role.as_str(), message.content.as_str(), calls, message.tool_call_id.as_deref())
            })
            .collect();
        let expected = [
            ("system", "be kind", vec![], None),
            ("user", "go", vec![], None),
            ("assistant", "", vec!["a", "b"], None),
            ("tool", "12", vec![], Some("a")),
            ("tool", "12", vec![], Some("b")),
            ("assistant", "and", vec!["c"], None),
        ];
        assert_eq!(seen, expected);
    }

    proptest! {
        #[test]
        fn item_ids_are_read_as_they_were_written(
            bits in any::<u128>(),
            place in any_place(),
            prefix in prop::sample::select(PREFIXES.to_vec()),
        ) {
            let response = RequestId::of_bits(bits);
            prop_assert_eq!(read_item_id(&item_id(prefix, response, place)), Some((response, place)));
        }

        #[test]
        fn nothing_else_is_an_item_id(text in "((msg|fc|fco)_)?[0-9a-fA-F+_é]{0,40}") {
            if let Some((response, place)) = read_item_id(&text) {
                let ids = PREFIXES.map(|prefix| item_id(prefix, response, place));
                prop_assert!(ids.contains(&text));
            }
        }
    }
}
