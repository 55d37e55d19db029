//! Prompts that are not what their request gives are shown to be so, and no other.

use proptest::prelude::*;
use surety_proof::dispute::prompt::{PromptClaim, PromptFault, find_prompt_fault, judge_prompt};
use surety_proof::dispute::text::ClaimError;
use surety_types::{Canonical, Message, Prompt, Request};

use crate::{QWEN3, model::TinyModel, text::Said};

/// Chats, as this model reads them.
const TEMPLATE: &str = "{{ bos_token }}{% for tool in tools or [] %}{{ tool.says }}{% endfor %}\
                        {% for message in messages %}{{ message.content }}{% endfor %}";

fn spelled(model: &TinyModel, ids: &[u32]) -> Vec<u8> {
    let piece = |id: &u32| model.spelling.piece(*id).map_or(&[][..], |piece| model.spelling.bytes(piece));
    ids.iter().flat_map(|id| piece(id).to_vec()).collect()
}

/// Ids that spell whole characters.
fn ids(model: &TinyModel) -> Vec<u32> {
    (0..QWEN3.vocabulary).filter(|id| String::from_utf8(spelled(model, &[*id])).is_ok()).collect()
}

fn request(prompt: Prompt) -> Request {
    Request {
        prompt,
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        grammar: None,
        embedding: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn only_other_prompts_are_shown(
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        resumed in prop::collection::vec(0u32..40, 0..3),
        kind in 0u8..4,
        (how, at, other) in (0u8..4, any::<prop::sample::Index>(), 0u32..45),
    ) {
        let model = QWEN3.model(3);
        let (first, ids) = (QWEN3.first(), ids(&model));
        let chosen: Vec<u32> = chosen.iter().map(|index| ids[index.index(ids.len())]).collect();
        let text = String::from_utf8(spelled(&model, &chosen)).expect("whole characters");
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let right = match kind {
            0 => chosen.clone(),
            _ => [&[first][..], &chosen].concat(),
        };
        let request = request(match kind {
            0 => Prompt::Tokens(right.clone()),
            1 => Prompt::Text(text.clone()),
            2 => Prompt::chat(vec![Message::text("user", text)]),
            _ => Prompt::Chat {
                messages: vec![Message::text("user", "")],
                tools: vec![format!("{{\"says\":\"{escaped}\"}}")],
            },
        });
        let fault = |said: &Said| {
            find_prompt_fault(&said.rules, &said.strings, &said.trace, &request, Some(TEMPLATE))
                .expect("its own strings")
        };
        let judge = |said: &Said, claim: &PromptClaim| {
            let template = (kind >= 2).then_some(TEMPLATE);
            judge_prompt(&said.statement(""), &said.game, &request, template, claim)
        };
        let honest = Said::new(&model, &[&right[..], &resumed].concat(), resumed.len(), &[3, 4], false);
        prop_assert_eq!(fault(&honest), None);

        let mut given = right.clone();
        match how {
            0 => given[at.index(right.len())] = other,
            1 => given.insert(at.index(right.len() + 1), other),
            2 => drop(given.remove(at.index(right.len()))),
            _ => given.push(other),
        }
        if given.is_empty() {
            return Ok(());
        }
        let lying = Said::new(&model, &[&given[..], &resumed].concat(), resumed.len(), &[3, 4], false);
        let differs = if kind == 0 { given != right } else { spelled(&model, &given) != spelled(&model, &right) };
        let claim = fault(&lying);
        prop_assert_eq!(claim.is_some(), differs, "{:?} for {:?}", given, right);
        let Some(claim) = claim else { return Ok(()) };
        prop_assert_eq!(&PromptClaim::from_cbor(&claim.to_cbor()).expect("canonical"), &claim);
        prop_assert_eq!(judge(&lying, &claim), Ok(()));
        // Of an honest worker nothing shows it: not the same, nor any other fault of what can be shown.
        prop_assert!(judge(&honest, &claim).is_err());
        for fault in (0..9).map(|index| PromptFault::Id { index }).chain([PromptFault::Length]) {
            let shown = honest.beginnings();
            let found = judge(&honest, &PromptClaim { fault, steps: 10_000, shown });
            prop_assert!(matches!(found, Err(ClaimError::Right | ClaimError::Rule(_))), "{:?}: {:?}", fault, found);
        }
        let bare = PromptClaim { shown: Vec::new(), ..claim };
        let by_count = kind == 0 && bare.fault == PromptFault::Length;
        prop_assert_eq!(judge(&lying, &bare).is_ok(), by_count);
    }
}

#[test]
fn what_is_too_long_or_not_spelled_is_not_judged() {
    let model = QWEN3.model(3);
    let said = Said::new(&model, &[QWEN3.first(), 2], 0, &[3], false);
    let find = |said: &Said, text: String| {
        let request = request(Prompt::Text(text));
        find_prompt_fault(&said.rules, &said.strings, &said.trace, &request, None).expect("its own strings")
    };
    assert!(find(&said, "x".repeat(30_000)).is_some());
    assert_eq!(find(&said, "x".repeat(40_000)), None);
    let mut other = QWEN3.model(3);
    other.unjudged();
    assert_eq!(find(&Said::new(&other, &[QWEN3.first(), 2], 0, &[3], false), "x".into()), None);
}
