//! Server-sent events, as a gateway sends them.
//!
//! In:     bytes, in whatever pieces they come.
//! Out:    the data of each event.
//! Touches: nothing.
//! Holds:  no event grows beyond a bound; comments, other fields and either kind of line end are understood.
//! Absent: what the data means (`api`).
//! Source: WHATWG HTML, "Server-sent events", 9.2.6.

use thiserror::Error;

/// An event of more bytes than this was not sent by a gateway.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// An event that would not end.
#[derive(Debug, Error)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLong;

/// Takes bytes apart into events.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// The last byte was a carriage return, whose line feed, if it follows, belongs to it.
    returned: bool,
}

impl Events {
    /// Takes a piece; returns the data of each event that it completes.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<String>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            let line_feed_of_pair = byte == b'\n' && self.returned;
            self.returned = byte == b'\r';
            match byte {
                b'\n' if line_feed_of_pair => {}
                b'\n' | b'\r' => self.end_line(&mut events),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(EventTooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<String>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if let Some(data) = self.data.strip_suffix(b"\n") {
                events.push(String::from_utf8_lossy(data).into_owned());
            }
            self.data.clear();
        } else if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            self.data.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(stream: &str, expected: &[&str]) {
        assert_eq!(Events::default().push(stream.as_bytes()).unwrap(), expected, "{stream:?}");
    }

    #[test]
    fn events_are_taken_apart() {
        check("data: a\n\ndata:b\n\n", &["a", "b"]);
        check(": keep-alive\n\ndata: a\n\n", &["a"]);
        check("event: x\r\ndata: a\r\ndata: b\r\n\r\n", &["a\nb"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check("id: 1\n\n\n\ndata\n\ndata: unfinished", &[]);
        check("data:  two spaces\n\n", &[" two spaces"]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in "(data: ?[a-c ]{0,3}|:c|event: x|\r|\n|\r\n|é){0,20}",
            cut in 0..40_usize,
        ) {
            let whole = Events::default().push(bytes.as_bytes()).unwrap();
            let mut events = Events::default();
            let (a, b) = bytes.as_bytes().split_at(cut.min(bytes.len()));
            let mut parts = events.push(a).unwrap();
            parts.extend(events.push(b).unwrap());
            prop_assert_eq!(parts, whole);
        }
    }
}
