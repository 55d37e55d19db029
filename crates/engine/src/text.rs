//! From tokens to delivered text: whole characters only, stop strings withheld.
//!
//! In:     the bytes of each sampled token.
//! Out:    text that may be delivered now, and whether a stop string was completed.
//! Touches: nothing.
//! Holds:  the concatenation of everything released is the same however tokens arrive; no part of a stop
//!         string is ever released; nothing else is lost.
//! Absent: which tokens end an answer (`generation`).

use crate::tokenizer::Detokenizer;

/// What a token added to the text.
#[derive(Debug, PartialEq, Eq)]
pub struct Released {
    /// Text that may be delivered now; may be empty.
    pub text: String,
    /// A stop string was completed: nothing more is to be delivered.
    pub stopped: bool,
}

/// Holds back incomplete characters and everything that may yet become a stop string.
pub struct TextStream {
    detokenizer: Detokenizer,
    stop: Vec<String>,
    held: String,
    stopped: bool,
}

impl TextStream {
    /// Text that ends before the first of these.
    pub fn new(stop: &[String]) -> Self {
        let stop = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { detokenizer: Detokenizer::new(), stop, held: String::new(), stopped: false }
    }

    /// Adds the bytes of one token.
    pub fn push(&mut self, bytes: &[u8]) -> Released {
        let text = self.detokenizer.push(bytes);
        self.held.push_str(&text);
        self.release()
    }

    /// Ends the text: what was held back and is no stop string is released.
    pub fn finish(mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = self.detokenizer.finish();
        self.held.push_str(&rest);
        let Released { text, stopped } = self.release();
        if stopped { text } else { text + &self.held }
    }

    fn release(&mut self) -> Released {
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(start) = found {
            self.held.truncate(start);
            self.stopped = true;
            return Released { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stop.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Released { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }
}

/// Bytes at the end of `text` that are a proper prefix of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&bytes| text.as_bytes()[text.len() - bytes..] == stop.as_bytes()[..bytes])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stop: &[&str], pieces: &[&[u8]]) -> (String, bool) {
        let stop: Vec<String> = stop.iter().map(|stop| stop.to_string()).collect();
        let mut stream = TextStream::new(&stop);
        let mut text = String::new();
        for piece in pieces {
            let released = stream.push(piece);
            text += &released.text;
            if released.stopped {
                return (text, true);
            }
        }
        (text + &stream.finish(), false)
    }

    #[test]
    fn a_stop_string_split_over_tokens_is_withheld() {
        assert_eq!(run(&["\n\nUser:"], &[b"Hi", b"\n", b"\nUs", b"er:", b" more"]), ("Hi".into(), true));
    }

    #[test]
    fn a_false_start_is_released() {
        assert_eq!(run(&["abcd"], &[b"xab", b"c", b"x"]), ("xabcx".into(), false));
    }

    #[test]
    fn the_earliest_of_several_stops_wins() {
        assert_eq!(run(&["world", "lo w"], &[b"hello world"]), ("hel".into(), true));
    }

    #[test]
    fn characters_are_released_whole() {
        let mut stream = TextStream::new(&[]);
        let euro = "€".as_bytes();
        assert_eq!(stream.push(&euro[..1]).text, "");
        assert_eq!(stream.push(&euro[1..]).text, "€");
    }

    proptest! {
        #[test]
        fn splitting_never_changes_the_text(
            text in "[abc€]{0,40}", stop in "[abc]{1,4}", cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let expected = match text.find(&stop) {
                Some(start) => (text[..start].to_owned(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], &pieces), expected);
        }
    }
}
