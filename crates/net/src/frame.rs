//! Framing: a message is its length, four bytes big-endian, and its body.
//!
//! In:     bytes in any pieces. Out: whole bodies, in order, or the reason why there is none.
//! Holds:  a length over the bound is refused when it is read, before room is made for it; nothing is kept of a body
//!         but what has arrived; bytes that end inside a frame are an error.
//! Absent: time limits (`stream`).

/// The bytes of a length.
const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than this direction allows.
    #[error("a frame of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// What was announced.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Without a body.
    #[error("an empty frame")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {bytes} bytes of it")]
    Truncated {
        /// How much had come, the length included.
        bytes: usize,
    },
}

/// A body with its length before it. Panics if the body is empty or over `max`: what we send, we have bounded.
pub fn encode_frame(body: &[u8], max: usize) -> Vec<u8> {
    assert!(!body.is_empty(), "a frame has a body");
    assert!(body.len() <= max, "a frame of {} bytes is over {max}", body.len());
    let length = u32::try_from(body.len()).expect("frames are bounded well below 4 GiB");
    let mut frame = Vec::with_capacity(LENGTH_BYTES + body.len());
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    frame
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    /// Bytes not yet taken, from `start`.
    buffer: Vec<u8>,
    start: usize,
    max: usize,
}

impl FrameDecoder {
    /// For bodies of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        FrameDecoder { buffer: Vec::new(), start: 0, max }
    }

    /// Adds bytes that have arrived. Take every whole frame before adding more: then no more is kept than one frame
    /// and one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next body, if it is all there.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes == 0 {
            return Err(FrameError::Empty);
        }
        if bytes > self.max {
            return Err(FrameError::TooLong { bytes, max: self.max });
        }
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let body = body.to_vec();
        self.start += LENGTH_BYTES + bytes;
        Ok(Some(body))
    }

    /// Whether part of a frame has arrived and the rest has not.
    pub fn is_within_frame(&self) -> bool {
        self.start < self.buffer.len()
    }

    /// The stream has ended: here, it must not be within a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.buffer.len() - self.start {
            0 => Ok(()),
            bytes => Err(FrameError::Truncated { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 300;

    /// Feeds `bytes` in pieces that end at `cuts`; bodies until the first error, and that error.
    fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Option<FrameError>) {
        let mut decoder = FrameDecoder::new(MAX);
        let mut bodies = Vec::new();
        let mut from = 0;
        for to in cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]) {
            if to < from {
                continue;
            }
            decoder.push(&bytes[from..to]);
            from = to;
            loop {
                match decoder.next_frame() {
                    Ok(Some(body)) => bodies.push(body),
                    Ok(None) => break,
                    Err(error) => return (bodies, Some(error)),
                }
            }
            assert!(decoder.buffer.len() <= LENGTH_BYTES + MAX + bytes.len());
        }
        let end = decoder.finish().err();
        assert_eq!(end.is_some(), decoder.is_within_frame());
        (bodies, end)
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=MAX), 0..8),
            mut cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| encode_frame(body, MAX)).collect();
            cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
            cuts.sort_unstable();
            prop_assert_eq!(decode(&bytes, &cuts), (bodies, None));
        }

        #[test]
        fn a_cut_stream_is_truncated_or_shorter(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=MAX), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| encode_frame(body, MAX)).collect();
            let kept = &bytes[..cut.index(bytes.len())];
            let (found, end) = decode(kept, &[]);
            prop_assert_eq!(&found[..], &bodies[..found.len()]);
            let whole: usize = found.iter().map(|body| LENGTH_BYTES + body.len()).sum();
            let rest = kept.len() - whole;
            prop_assert_eq!(end, (rest > 0).then_some(FrameError::Truncated { bytes: rest }));
        }

        #[test]
        fn garbage_gives_the_same_whatever_the_chunking(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..600),
            mut cuts in prop::collection::vec(0usize..600, 0..40),
        ) {
            cuts.sort_unstable();
            cuts.retain(|cut| *cut <= bytes.len());
            prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
        }
    }

    #[test]
    fn bounds_are_exact() {
        let check = |length: usize, expected: Option<FrameError>| {
            let mut bytes = (length as u32).to_be_bytes().to_vec();
            bytes.extend(vec![7; length.min(2 * MAX)]);
            assert_eq!(decode(&bytes, &[]).1, expected);
        };
        check(0, Some(FrameError::Empty));
        check(1, None);
        check(MAX, None);
        check(MAX + 1, Some(FrameError::TooLong { bytes: MAX + 1, max: MAX }));
        check(u32::MAX as usize, Some(FrameError::TooLong { bytes: u32::MAX as usize, max: MAX }));
    }
}
