//! Said: the text of a response as it is told: messages and calls, in pieces.
//!
//! In:     the text as it comes. Out: items, and the events of each by number.
//! Touches: nothing.
//! Holds:  items and pieces follow from the text alone, not from how it came; what was told is never changed, only gone on with.
//! Absent: the events of the response itself (`record`), finding calls (`calls`).

use std::borrow::Cow;

use surety_types::{ToolCall, json};

use super::{
    items::Said,
    shapes::{CallItem, OutputItem, OutputMessage, OutputText, ResponseEvent},
};
use crate::api::calls::{Callable, Calls, Piece};

/// Characters of a piece of text. The first has one, so that it is not waited for.
const PIECE_CHARACTERS: usize = 4;

/// All that was said so far.
#[derive(Debug)]
pub(super) struct Told {
    text: String,
    /// Where functions may be called: what finds the calls.
    calls: Option<Calls>,
    items: Vec<Item>,
}

/// A message or a call.
#[derive(Debug)]
pub(super) enum Item {
    Message {
        text: String,
        /// Where its pieces end, in bytes.
        cuts: Vec<usize>,
        /// Nothing comes behind its text.
        is_whole: bool,
        /// Something came behind it.
        is_followed: bool,
    },
    Call {
        id: String,
        name: String,
        arguments: String,
        is_whole: bool,
    },
}

impl Told {
    pub(super) fn new(callable: Option<Callable>) -> Told {
        Told { text: String::new(), calls: callable.map(Calls::new), items: Vec::new() }
    }

    /// The text as the model wrote it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// More of the text.
    pub(super) fn hear(&mut self, text: &str) {
        self.text.push_str(text);
        match &mut self.calls {
            None => self.say(text),
            Some(calls) => {
                let pieces = calls.push(text);
                self.take(pieces);
            }
        }
    }

    /// There is no more text; if it is whole, so is what was said.
    pub(super) fn end(&mut self, whole: bool) {
        if let Some(calls) = &mut self.calls {
            let pieces = calls.finish();
            self.take(pieces);
        }
        if whole && self.items.is_empty() {
            self.items.push(Item::message());
        }
        if let Some(last) = self.items.last_mut() {
            last.flush(whole);
        }
    }

    fn take(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.say(&text),
                Piece::Begins { id, name } => {
                    if let Some(last) = self.items.last_mut() {
                        last.follow();
                    }
                    self.items.push(Item::Call { id, name, arguments: String::new(), is_whole: false });
                }
                Piece::Arguments(more) => {
                    if let Some(Item::Call { arguments, .. }) = self.items.last_mut() {
                        arguments.push_str(&more);
                    }
                }
                Piece::Ends => {
                    if let Some(Item::Call { is_whole, .. }) = self.items.last_mut() {
                        *is_whole = true;
                    }
                }
            }
        }
    }

    fn say(&mut self, more: &str) {
        if more.is_empty() {
            return;
        }
        if !matches!(self.items.last(), Some(Item::Message { .. })) {
            self.items.push(Item::message());
        }
        if let Some(last) = self.items.last_mut() {
            last.say(more);
        }
    }
}

impl Item {
    fn message() -> Item {
        Item::Message { text: String::new(), cuts: Vec::new(), is_whole: false, is_followed: false }
    }

    fn say(&mut self, more: &str) {
        let Item::Message { text, cuts, .. } = self else { return };
        text.push_str(more);
        // Cuts whole pieces from what is new.
        loop {
            let from = cuts.last().copied().unwrap_or(0);
            let size = if cuts.is_empty() { 1 } else { PIECE_CHARACTERS };
            let last = text[from..].char_indices().nth(size - 1);
            let Some((at, character)) = last else { return };
            cuts.push(from + at + character.len_utf8());
        }
    }

    /// What is left of a text is its last piece.
    fn flush(&mut self, whole: bool) {
        let Item::Message { text, cuts, is_whole, .. } = self else { return };
        if cuts.last().copied().unwrap_or(0) < text.len() {
            cuts.push(text.len());
        }
        *is_whole |= whole;
    }

    fn follow(&mut self) {
        self.flush(true);
        if let Item::Message { is_followed, .. } = self {
            *is_followed = true;
        }
    }

    /// What its id begins with.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Item::Message { .. } => "msg",
            Item::Call { .. } => "fc",
        }
    }

    /// Whether it is complete whatever becomes of the response.
    pub(super) fn is_followed(&self) -> bool {
        match self {
            Item::Message { is_followed, .. } => *is_followed,
            Item::Call { is_whole, .. } => *is_whole,
        }
    }

    /// Whether there is anything to show of it.
    pub(super) fn is_said(&self) -> bool {
        match self {
            Item::Message { text, is_whole, .. } => *is_whole || !text.is_empty(),
            Item::Call { is_whole, .. } => *is_whole,
        }
    }

    /// As what is said next goes on from it; none if it says nothing.
    pub(super) fn said(&self) -> Option<Said> {
        match self {
            Item::Message { text, .. } => {
                (!text.is_empty()).then(|| Said::Message { role: "assistant", parts: vec![text.clone()] })
            }
            Item::Call { id, name, arguments, .. } => {
                let [id, name] = [id, name].map(String::clone);
                Some(Said::Call(ToolCall { id, name, arguments: json::compact(arguments) }))
            }
        }
    }

    /// How many events there are of it so far.
    pub(super) fn events(&self) -> u64 {
        match self {
            // A message begins with its first piece, or is whole without one.
            Item::Message { cuts, is_whole: false, .. } if cuts.is_empty() => 0,
            Item::Message { cuts, is_whole, .. } => 2 + cuts.len() as u64 + if *is_whole { 3 } else { 0 },
            Item::Call { is_whole, .. } => {
                if *is_whole {
                    4
                } else {
                    0
                }
            }
        }
    }

    /// As it stands.
    pub(super) fn whole(&self, id: String, status: &'static str) -> OutputItem<'_> {
        match self {
            Item::Message { text, .. } => message(id, status, vec![OutputText::new(text)]),
            Item::Call { arguments, .. } => self.call(id, status, arguments),
        }
    }

    /// As it begins.
    fn begun(&self, id: String) -> OutputItem<'_> {
        match self {
            Item::Message { .. } => message(id, "in_progress", Vec::new()),
            Item::Call { .. } => self.call(id, "in_progress", ""),
        }
    }

    fn call<'a>(&'a self, id: String, status: &'static str, arguments: &'a str) -> OutputItem<'a> {
        let (call_id, name) = match self {
            Item::Call { id, name, .. } => (id.as_str(), name.as_str()),
            Item::Message { .. } => ("", ""),
        };
        let [call_id, name, arguments] = [call_id, name, arguments].map(Cow::Borrowed);
        OutputItem::Call(CallItem { id, kind: "function_call", status, call_id, name, arguments })
    }

    /// The event of it that has this number among those there are.
    pub(super) fn event(&self, number: u64, id: String, status: &'static str) -> ResponseEvent<'_> {
        let of_item = |kind, item| ResponseEvent { kind, item: Some(item), ..ResponseEvent::default() };
        if number == 0 {
            return of_item("response.output_item.added", self.begun(id));
        }
        if number + 1 == self.events() && self.is_whole() {
            return of_item("response.output_item.done", self.whole(id, status));
        }
        match self {
            Item::Message { text, cuts, .. } => message_event(text, cuts, number - 1, id),
            Item::Call { name, arguments, .. } => {
                let event = ResponseEvent { item_id: Some(id), ..ResponseEvent::default() };
                match number {
                    1 => ResponseEvent {
                        kind: "response.function_call_arguments.delta",
                        delta: Some(arguments),
                        ..event
                    },
                    _ => ResponseEvent {
                        kind: "response.function_call_arguments.done",
                        arguments: Some(arguments),
                        name: Some(name),
                        ..event
                    },
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Item::Message { is_whole, .. } | Item::Call { is_whole, .. } => *is_whole,
        }
    }
}

fn message<'a>(id: String, status: &'static str, content: Vec<OutputText<'a>>) -> OutputItem<'a> {
    OutputItem::Message(OutputMessage { id, kind: "message", status, role: "assistant", content })
}

/// The events of a message's text: its part begins, its pieces, all of it, its part ends.
fn message_event<'a>(text: &'a str, cuts: &[usize], number: u64, id: String) -> ResponseEvent<'a> {
    let pieces = cuts.len() as u64;
    let of_text =
        |kind| ResponseEvent { kind, item_id: Some(id), content_index: Some(0), ..ResponseEvent::default() };
    match number {
        0 => {
            let part = Some(OutputText::new(""));
            ResponseEvent { part, ..of_text("response.content_part.added") }
        }
        place if place <= pieces => {
            let piece = (place - 1) as usize;
            let from = piece.checked_sub(1).map_or(0, |before| cuts[before]);
            let delta = Some(&text[from..cuts[piece]]);
            ResponseEvent { delta, logprobs: Some([]), ..of_text("response.output_text.delta") }
        }
        place if place == 1 + pieces => {
            ResponseEvent { text: Some(text), logprobs: Some([]), ..of_text("response.output_text.done") }
        }
        _ => {
            let part = Some(OutputText::new(text));
            ResponseEvent { part, ..of_text("response.content_part.done") }
        }
    }
}
