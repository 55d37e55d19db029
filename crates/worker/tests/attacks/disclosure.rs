//! Row 51: what those who see a receipt learn of the prompt.

use surety_proof::commit::prompt_digest;
use surety_types::{Prompt, Receipt, Signed};

use crate::CASE;

/// A receipt holds no words and no tokens; nothing else of an answer is ever posted, and of it only a digest.
#[test]
fn a_receipt_holds_nothing_of_the_prompt_or_the_answer() {
    let case = &*CASE;
    let answer = case.sign(&case.honest, |_, _| {});
    let receipt = answer.receipt.clone().unwrap();
    let holds = |bytes: &[u8]| receipt.windows(bytes.len()).any(|window| window == bytes);
    let Prompt::Chat { messages, .. } = &case.request.prompt else { panic!("a chat") };
    for word in messages.iter().map(|message| message.content.as_str()).chain([&*case.honest.text]) {
        assert!(word.split_whitespace().filter(|word| word.len() > 3).all(|word| !holds(word.as_bytes())));
    }
    for ids in [&case.honest.prompt, &case.honest.tokens] {
        let bytes: Vec<u8> = ids[..2].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert!(!holds(&bytes));
    }
    assert!(holds(case.receipt.prompt_digest.as_bytes()), "what it holds is found");
}

/// Out of reach: the digests are not salted, so whoever has the receipt and guesses the prompt knows that it guessed right.
#[test]
fn a_guess_is_confirmed_by_the_receipt() {
    let case = &*CASE;
    let answer = case.sign(&case.honest, |_, _| {});
    let receipt = Signed::<Receipt>::open(answer.receipt.as_ref().unwrap()).unwrap();
    let guess = case.liar.model.prompt_tokens(&case.request).unwrap();
    assert_eq!(prompt_digest(&guess), receipt.prompt_digest);
}
