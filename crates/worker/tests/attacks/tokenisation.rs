//! Row 6: the request's text becomes other tokens than the model prescribes.

use std::sync::LazyLock;

use surety_types::{Prompt, Request};
use surety_worker::audit::Discrepancy;
use xtask::random_model::{self, Format, Settings, Shape};

use crate::liar::{Computed, chat, compute_from};
use crate::{CASE, Case, Refused};

/// A model that begins every text with a token of its own.
static TEXT: LazyLock<Case> = LazyLock::new(|| {
    let settings = Settings { shape: Shape::TinyLlama, format: Format::Q8_0, seed: 4 };
    Case::of(random_model::bytes(&settings), text("A café\r\nin the Straße."), |order| {
        order.max_output_tokens = 12
    })
});

fn text(text: &str) -> Request {
    Request { prompt: Prompt::Text(text.into()), ..chat("", "") }
}

/// Signed as it was computed, and signed as if it had been computed from what was ordered.
fn refused(case: &Case, prompt: Vec<u32>) {
    assert_ne!(prompt, case.honest.prompt);
    let same_length = prompt.len() == case.honest.prompt.len();
    let claim = compute_from(&case.liar.model, prompt, &case.request, &case.order);
    match (case.claim(&claim), same_length) {
        (Err(Refused::Recomputation(Discrepancy::PromptCount { .. })), false) => {}
        (Err(Refused::Recomputation(Discrepancy::PromptTokens)), true) => {}
        other => panic!("{other:?}"),
    }
    case.refused_at_a_token(&Computed { prompt: case.honest.prompt.clone(), ..claim });
}

#[test]
fn a_beginning_twice_or_not_at_all_is_refused() {
    let case = &*TEXT;
    let bos = case.liar.model.tokenizer().bos().unwrap();
    assert_eq!(case.honest.prompt[0], bos);
    refused(case, [&[bos], &case.honest.prompt[..]].concat());
    refused(case, case.honest.prompt[1..].to_vec());
}

#[test]
fn another_normal_form_or_line_end_is_refused() {
    let case = &*TEXT;
    let prompt = |changed: &str| case.liar.model.prompt_tokens(&text(changed)).unwrap();
    // The accent as a character of its own; a line end of one character; a letter folded.
    refused(case, prompt("A cafe\u{301}\r\nin the Straße."));
    refused(case, prompt("A café\nin the Straße."));
    refused(case, prompt("A café\r\nin the Strasse."));
    refused(case, prompt("a café\r\nin the Straße."));
}

#[test]
fn another_chat_template_is_refused() {
    let case = &*CASE;
    let model = &case.liar.model;
    let tokens = |prompt| model.prompt_tokens(&Request { prompt, ..case.request.clone() }).unwrap();
    // A template without the system's turn, and none at all.
    let Prompt::Chat { messages, .. } = &case.request.prompt else { panic!("a chat") };
    refused(case, tokens(Prompt::chat(messages[1..].to_vec())));
    let content = messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n");
    refused(case, tokens(Prompt::Text(content)));
}
