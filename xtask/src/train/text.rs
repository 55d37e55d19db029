//! The text as a stream of tokens: speeches, each closed by the control token.
//!
//! In:     a play's text, speeches separated by blank lines.
//! Out:    training and held-out speeches; token streams.
//! Holds:  every byte of the text is counted once: a blank line is the two bytes of one `<|end|>`.

use super::vocabulary::Vocabulary;
use crate::rng::Rng;

const BLANK_LINE: &str = "\n\n";

/// The text, cut at a blank line into the part that is learned and the part that is held out.
#[derive(Debug)]
pub struct Text<'a> {
    /// Speeches to learn from.
    pub training: Vec<&'a str>,
    /// Speeches never seen in training; the last may lack its blank line.
    pub held_out: Vec<&'a str>,
    /// Size of the held-out part as it stands in the file.
    pub held_out_bytes: usize,
}

impl<'a> Text<'a> {
    /// Holds out the speeches after the first blank line beyond `1 − held_out` of the text.
    ///
    /// `None` if there is no such blank line.
    pub fn split(text: &'a str, held_out: f64) -> Option<Text<'a>> {
        let from = (text.len() as f64 * (1.0 - held_out)) as usize;
        let cut = from + text.get(from..)?.find(BLANK_LINE)?;
        let (training, held_out) = (&text[..cut], &text[cut + BLANK_LINE.len()..]);
        Some(Text {
            training: training.split(BLANK_LINE).collect(),
            held_out: held_out.split(BLANK_LINE).collect(),
            held_out_bytes: held_out.len(),
        })
    }
}

/// A stream that starts at a speech's boundary: the control token, then each speech and its end.
///
/// With a merge dropout above 0 the spelling of words varies with `rng`.
pub fn stream(vocabulary: &Vocabulary, speeches: &[&str], rng: &mut Rng, merge_dropout: f32) -> Vec<u32> {
    let mut ids = vec![vocabulary.end()];
    for speech in speeches {
        let dropout = (merge_dropout > 0.0).then_some((&mut *rng, merge_dropout));
        vocabulary.encode(speech, dropout, &mut ids);
        ids.push(vocabulary.end());
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_lies_in_one_part() {
        let text = "A:\none\n\nB:\ntwo\n\nC:\nthree\n\nD:\nfour\n";
        let parts = Text::split(text, 0.5).unwrap();
        assert_eq!(parts.training, ["A:\none", "B:\ntwo", "C:\nthree"]);
        assert_eq!(parts.held_out, ["D:\nfour\n"]);
        let training_bytes: usize = parts.training.iter().map(|speech| speech.len() + 2).sum();
        assert_eq!(training_bytes + parts.held_out_bytes, text.len());
        assert!(Text::split("no blank line", 0.1).is_none());
    }

    #[test]
    fn speeches_end_with_the_control_token() {
        let speeches = ["A:\none", "B:\ntwo"];
        let vocabulary = Vocabulary::learn(&speeches, 257);
        let ids = stream(&vocabulary, &speeches, &mut Rng::keyed(&[1]), 0.0);
        assert_eq!(ids.len(), 1 + 7 + 7);
        assert!([0, 7, 14].iter().all(|at| ids[*at] == vocabulary.end()));
    }
}
