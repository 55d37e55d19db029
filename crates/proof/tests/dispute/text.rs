//! Texts that are not what their ids spell are shown to be so, and no other: random ids, bytes that are no characters, silent
//! ids, ends, stop strings, resumed answers.

use proptest::prelude::*;
use surety_proof::dispute::text::{ClaimError, TextClaim, TextFault, find_text_fault, judge_text};
use surety_proof::dispute::trace::{Strings, Trace};
use surety_proof::dispute::{
    Division, Game, Hashed, Node, Source, Statement, Tree, game, judge::Shown, rules::Rules,
};
use surety_types::{Canonical, Detokenizer, FinishReason, Prompt, Request, Spelling};

use crate::{QWEN3, THREADS, digests, greedy, model::TinyModel};

/// An answer of any ids; which text belongs to it is another question.
pub struct Said {
    pub rules: Rules,
    pub strings: Strings<Vec<u8>>,
    pub trace: Trace,
    pub game: Game,
}

impl Said {
    pub fn new(model: &TinyModel, given: &[u32], resumed: usize, output: &[u32], ignore_end: bool) -> Said {
        let [all, resumed, outputs] = [given.len(), resumed, output.len()].map(|count| count as u32);
        let header = model.plan.header().clone();
        let rules =
            Rules::new(header, greedy(), [1; 32], ignore_end, all, resumed, outputs).expect("a trace");
        let (plan, spelling) = (model.plan.to_bytes(), model.spelling.to_bytes());
        let (file, rotary) = (model.file.clone(), model.rotary.clone());
        let strings = Strings::new(plan, spelling, file, rotary, given, output).expect("short");
        let trace = Trace::build(&rules, &strings, THREADS, u64::MAX, &mut |_, _| ()).expect("a trace");
        let mut game = Game::new(rules.layout().words()).expect("a trace");
        let first: Division = game::division(trace.hashed(), game.node());
        game.divide(&first).expect("its own");
        Said { rules, strings, trace, game }
    }

    pub fn statement(&self, text: &str) -> Statement {
        Statement::of(self.rules.clone(), digests(&self.strings, text)).expect("short")
    }

    fn fault(&self, request: &Request, finish: FinishReason, text: &str) -> Option<TextClaim> {
        find_text_fault(&self.rules, &self.strings, &self.trace, request, finish, text)
            .expect("its own strings")
    }

    fn judge(
        &self,
        sent: &str,
        request: &Request,
        finish: FinishReason,
        claim: &TextClaim,
    ) -> Result<(), ClaimError> {
        judge_text(&self.statement(sent), &self.game, Some(request), finish, claim)
    }
}

fn request(stop: Vec<String>) -> Request {
    Request {
        prompt: Prompt::Tokens(vec![1]),
        stop,
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        embedding: None,
        grammar: None,
    }
}

/// the text of some outputs, and how many of them there are until a stop string.
fn text_of(
    spelling: &Spelling,
    ends: &[u32],
    begun: &[u32],
    output: &[u32],
    stop: &[String],
) -> (String, usize) {
    let mut held = Detokenizer::new();
    let mut push = |id: &u32| {
        let piece = spelling.piece(*id).filter(|piece| !piece.silent && !ends.contains(id));
        held.push(piece.map_or(&[], |piece| spelling.bytes(piece)))
    };
    begun.iter().for_each(|id| drop(push(id)));
    let mut text = String::new();
    for (count, id) in (1..).zip(output) {
        text += &push(id);
        if let Some(at) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(at);
            return (text, count);
        }
    }
    text += &held.finish();
    if let Some(at) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        text.truncate(at);
    }
    (text, output.len())
}

/// One way of editing a text.
fn edited(text: &str, how: u8, at: usize) -> String {
    let at = text.floor_char_boundary(at % (text.len() + 1));
    let (before, after) = text.split_at(at);
    match how {
        0 => format!("{before}x{after}"),
        1 => format!("{text}{}", text.chars().next().unwrap_or('y')),
        2 => before.to_owned(),
        _ => format!("{before}{}", after.chars().skip(1).collect::<String>()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn only_other_texts_are_shown(
        given in prop::collection::vec(0u32..45, 1..8),
        resumed in 0usize..8,
        output in prop::collection::vec(prop_oneof![8 => 0u32..45, 1 => any::<u32>()], 1..9),
        ignore_end: bool,
        stop in prop::collection::vec(
            prop_oneof![Just("a".to_owned()), Just(" b".into()), Just("é\n".into()), Just("\u{fffd}".into())], 0..3,
        ),
        cancelled: bool,
        (how, at) in (0u8..4, any::<usize>()),
    ) {
        let model = QWEN3.model(3);
        let resumed = resumed.min(given.len());
        let ends: &[u32] = if ignore_end { &[] } else { &[1, 7] };
        let begun = &given[given.len() - resumed..];
        let (text, count) = text_of(&model.spelling, ends, begun, &output, &stop);
        let output = &output[..count];
        let said = Said::new(&model, &given, resumed, output, ignore_end);
        let request = request(stop);
        let finish = if cancelled { FinishReason::Cancelled } else { FinishReason::Stop };
        let judged = resumed == 0 || request.stop.is_empty();
        if judged {
            prop_assert_eq!(said.fault(&request, finish, &text), None, "{:?}", text);
        }

        let sent = edited(&text, how, at);
        let Some(claim) = said.fault(&request, finish, &sent) else {
            // A text that was cut is a beginning, and may be one that was cancelled, or ends where a stop string begins.
            let beginning = text.starts_with(&sent) && (cancelled || !request.stop.is_empty());
            prop_assert!(sent == text || beginning || !judged, "{:?} is not {:?}", sent, text);
            return Ok(());
        };
        prop_assert_eq!(&TextClaim::from_cbor(&claim.to_cbor()).expect("canonical"), &claim);
        prop_assert_eq!(said.judge(&sent, &request, finish, &claim), Ok(()));
        // The same about the right text shows nothing; nor does any other fault said of what is shown.
        prop_assert!(said.judge(&text, &request, finish, &claim).is_err());
        let right = said.statement(&text);
        for fault in [
            TextFault::Long,
            TextFault::Short { outputs: (0..=count as u32).collect() },
            TextFault::Byte { at: at as u64 % 9, output: at as u32 % 9 },
            TextFault::Stop { at: at as u64 % 9, stop: how },
        ] {
            for bytes in [text.len() as u64, sent.len() as u64, 0, u64::MAX] {
                let claim = TextClaim { bytes, fault: fault.clone(), ..claim.clone() };
                prop_assert!(judge_text(&right, &said.game, Some(&request), finish, &claim).is_err());
            }
        }
        let bare = TextClaim { shown: Vec::new(), ..claim.clone() };
        prop_assert!(said.judge(&sent, &request, finish, &bare).is_err());
        let early = Game::new(said.rules.layout().words()).expect("a trace");
        let found = judge_text(&said.statement(&sent), &early, Some(&request), finish, &claim);
        prop_assert_eq!(found, Err(ClaimError::NoTrace));
    }

    #[test]
    fn no_claim_shows_an_honest_text_false(
        output in prop::collection::vec(0u32..40, 1..7),
        stop in prop::collection::vec(prop_oneof![Just("a".to_owned()), Just("é".into())], 0..2),
        (at, index, which) in (0u64..12, 0u32..9, 0u8..4),
    ) {
        let model = QWEN3.model(3);
        let (text, count) = text_of(&model.spelling, &[1, 7], &[], &output, &stop);
        let said = Said::new(&model, &[3, 4], 0, &output[..count], false);
        let (request, finish) = (request(stop), FinishReason::Stop);
        let fault = match which {
            0 => TextFault::Byte { at, output: index },
            1 => TextFault::Long,
            2 => TextFault::Short { outputs: (0..=index).collect() },
            _ => TextFault::Stop { at, stop: (index % 2) as u8 },
        };
        // All that there is of these strings is shown.
        let claim = said.everything(&text, fault);
        let found = said.judge(&text, &request, finish, &claim);
        prop_assert!(matches!(found, Err(ClaimError::Right | ClaimError::Rule(_))), "{:?}", found);
    }
}

impl Said {
    /// The beginnings of trace, ids and spelling.
    pub fn beginnings(&self) -> Vec<Shown> {
        let root = self.trace.hashed().tree().root();
        let first = Node { first: 0, chunks: 1 };
        let open = |source| Some(Shown { source, opening: self.strings.open(source, first)? });
        let mut shown = vec![Shown { source: Source::Trace, opening: self.trace.hashed().open(root, first) }];
        shown.extend([Source::Given, Source::Output, Source::Spelling].into_iter().filter_map(open));
        shown
    }

    /// A claim that shows the beginnings of all strings.
    fn everything(&self, text: &str, fault: TextFault) -> TextClaim {
        let mut shown = self.beginnings();
        let bytes = text.len() as u64;
        let tree = Tree::derived(surety_types::digest::domain::OUTPUT_TEXT, bytes).expect("short");
        let text = Hashed::new(tree, text.as_bytes());
        let opening = text.open(tree.root(), Node { first: 0, chunks: 1 });
        shown.push(Shown { source: Source::Text, opening });
        TextClaim { bytes, fault, shown }
    }
}
