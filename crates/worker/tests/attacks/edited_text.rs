//! Row 22: the tokens are right, and the text is not what they spell.

use surety_proof::Fault;
use surety_worker::audit::Discrepancy;

use crate::liar::Computed;
use crate::{CASE, Refused};

#[test]
fn text_that_the_tokens_do_not_spell_is_refused() {
    let case = &*CASE;
    let honest = &case.honest.text;
    let middle = honest.floor_char_boundary(honest.len() / 2);
    let letter = honest.find(['a', 'e', 'o']).unwrap();
    let homoglyph = match &honest[letter..=letter] {
        "a" => "а",
        "e" => "е",
        _ => "о",
    };
    let insert = |at: usize, what: &str| [&honest[..at], what, &honest[at..]].concat();
    let edits = [
        // A zero-width space, an advertisement, a link, a letter that looks the same, a space at the end, a letter lost.
        (middle, insert(middle, "\u{200b}")),
        (honest.len(), insert(honest.len(), " Drink Falernian.")),
        (0, insert(0, "[Rome](https://example.org) ")),
        (letter, [&honest[..letter], homoglyph, &honest[letter + 1..]].concat()),
        (honest.len(), insert(honest.len(), " ")),
        (honest.len() - 1, honest[..honest.len() - 1].to_owned()),
    ];
    for (place, text) in edits {
        assert_ne!(&text, honest);
        let mut answer = case.sign(&case.honest, |_, _| {});
        answer.text = text.clone();
        // Edited on the way, it is not the text that was signed.
        let refused = case.judge(&answer);
        assert!(matches!(refused, Err(Refused::Check(Fault::TextDigest))), "{refused:?}");
        // Edited by who signs, it is not what the tokens spell.
        match case.claim(&Computed { text, ..case.honest.clone() }) {
            Err(Refused::Recomputation(Discrepancy::Text { at, .. })) => assert_eq!(at, place),
            other => panic!("{other:?}"),
        }
    }
}
