//! The spelling: which bytes each of a model's ids stands for. Disputes open it instead of the file's vocabulary.
//!
//! In:     the pieces of a vocabulary, from whoever loads it.
//! Out:    the one string that says so (D-2.4), its digest.
//! Touches: nothing.
//! Holds:  no piece and no spelling is longer than a judge can place.
//! Absent: how text becomes ids (`engine`), what the bytes of an answer become (`detokenizer`).
//!
//! The rules `D-…` cited here are in `docs/spec/dispute.md`.

use crate::digest::{Digest, domain};

/// Bytes that one id spells, at most. With 2²⁰ ids, each byte of which may become the three of U+FFFD, a text is shorter than
/// 2³² bytes.
pub const PIECE_BYTES_MAX: usize = 1 << 10;
/// Bytes that all ids spell together, at most.
pub const PIECES_BYTES_MAX: u32 = (1 << 31) - 1;
/// Of an id's word: it has no place in the text of an answer.
const SILENT: u32 = 1 << 31;

const _: () = assert!((3 * (PIECE_BYTES_MAX as u64)) << 20 < 1 << 32, "places in a text are 32 bits");

/// Why a vocabulary has no spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpellingError {
    /// An id spells too much.
    #[error("id {id} spells {bytes} bytes; at most {PIECE_BYTES_MAX} are judged")]
    Piece {
        /// Which.
        id: u32,
        /// How much.
        bytes: usize,
    },
    /// All of them together do.
    #[error("the ids spell more than {PIECES_BYTES_MAX} bytes together")]
    Pieces,
}

/// Where an id's piece lies among the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte.
    pub start: u32,
    /// How many there are.
    pub bytes: u32,
    /// It has no place in the text of an answer.
    pub silent: bool,
}

impl Piece {
    /// From the word of the id before (0 of the first), and the id's own. `None` if they are in no spelling of so many bytes.
    pub fn from_words(before: u32, own: u32, pieces_bytes: u32) -> Option<Piece> {
        let (start, end) = (before & !SILENT, own & !SILENT);
        let bytes = end.checked_sub(start).filter(|bytes| *bytes as usize <= PIECE_BYTES_MAX)?;
        (end <= pieces_bytes).then_some(Piece { start, bytes, silent: own & SILENT != 0 })
    }
}

/// What a model's ids spell (D-2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// By id: the end of its piece, and whether it is silent.
    words: Vec<u32>,
    /// One after another.
    pieces: Vec<u8>,
}

impl Spelling {
    /// Of the pieces of all ids in order; `true` of those that have no place in the text of an answer.
    ///
    /// # Errors
    /// `SpellingError` if they are too long.
    pub fn new<'a>(ids: impl IntoIterator<Item = (&'a [u8], bool)>) -> Result<Spelling, SpellingError> {
        let mut spelling = Spelling { words: Vec::new(), pieces: Vec::new() };
        for (piece, silent) in ids {
            if piece.len() > PIECE_BYTES_MAX {
                return Err(SpellingError::Piece { id: spelling.words.len() as u32, bytes: piece.len() });
            }
            spelling.pieces.extend_from_slice(piece);
            let end = u32::try_from(spelling.pieces.len()).ok().filter(|end| *end <= PIECES_BYTES_MAX);
            let end = end.ok_or(SpellingError::Pieces)?;
            spelling.words.push(end | if silent { SILENT } else { 0 });
        }
        Ok(spelling)
    }

    /// Bytes of all pieces.
    pub fn pieces_bytes(&self) -> u32 {
        self.pieces.len() as u32
    }

    /// Where the piece of an id lies; `None` of an id that the vocabulary has not.
    pub fn piece(&self, id: u32) -> Option<Piece> {
        let own = *self.words.get(id as usize)?;
        let before = id.checked_sub(1).map_or(0, |before| self.words[before as usize]);
        Piece::from_words(before, own, self.pieces_bytes())
    }

    /// The bytes of a piece.
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        &self.pieces[piece.start as usize..][..piece.bytes as usize]
    }

    /// The whole string: a word for each id, then the pieces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.words.iter().flat_map(|word| word.to_le_bytes());
        words.chain(self.pieces.iter().copied()).collect()
    }

    /// Its digest, under `surety 2026 spelling`: what a plan holds.
    pub fn digest(&self) -> Digest {
        Digest::of(domain::SPELLING, &self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spelling_is_the_words_of_the_rule() {
        let spelling =
            Spelling::new([(b"ab".as_slice(), false), (b"<s>", true), (b"", false)]).expect("short");
        let words: Vec<u8> = [2, 5 | SILENT, 5].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        assert_eq!(spelling.to_bytes(), [&words, b"ab<s>".as_slice()].concat());
        let piece = spelling.piece(1).expect("there");
        assert_eq!((piece, spelling.bytes(piece)), (Piece { start: 2, bytes: 3, silent: true }, &b"<s>"[..]));
        assert_eq!(spelling.piece(3), None);
    }

    #[test]
    fn what_is_too_long_is_refused_by_name() {
        let long = [b'a'; PIECE_BYTES_MAX + 1];
        assert!(Spelling::new([(&long[1..], false)]).is_ok());
        let error = Spelling::new([(b"".as_slice(), false), (&long, false)]).expect_err("too long");
        assert_eq!(error, SpellingError::Piece { id: 1, bytes: PIECE_BYTES_MAX + 1 });
    }

    proptest! {
        #[test]
        fn every_piece_is_found_again(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), any::<bool>()), 0..40),
        ) {
            let spelling =
                Spelling::new(pieces.iter().map(|(piece, silent)| (piece.as_slice(), *silent))).expect("short");
            for (id, (bytes, silent)) in (0..).zip(&pieces) {
                let piece = spelling.piece(id).expect("there");
                prop_assert_eq!((spelling.bytes(piece), piece.silent), (bytes.as_slice(), *silent));
            }
            prop_assert_eq!(spelling.piece(pieces.len() as u32), None);
        }

        #[test]
        fn no_words_place_a_piece_outside(before: u32, own: u32, pieces_bytes in 0..=PIECES_BYTES_MAX) {
            if let Some(piece) = Piece::from_words(before, own, pieces_bytes) {
                prop_assert!(piece.start + piece.bytes <= pieces_bytes);
                prop_assert!(piece.bytes as usize <= PIECE_BYTES_MAX);
            }
        }
    }
}
