//! Ids: of files and batches.
//!
//! In: the system's random source. Out: `file-…` and `batch_…`.
//! Holds:  a batch's outputs and requests have ids that follow from its own, so that what was begun before a restart is
//!         found again; none of them betrays another.

use std::fmt;

use surety_types::Digest;

use crate::id::RequestId;

/// Names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(pub(super) u128);

/// Names a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BatchId(pub(super) u128);

fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Reads 32 lower-case digits behind a prefix.
fn digits(text: &str, prefix: &str) -> Option<u128> {
    let digits = text.strip_prefix(prefix)?;
    let lowercase_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 32 || !digits.bytes().all(lowercase_hex) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

impl FileId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        random().map(Self)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        digits(text, "file-").map(Self)
    }
}

impl BatchId {
    /// The batch that a request makes, however often it is sent.
    pub(super) fn of(request: RequestId) -> Self {
        Self(derived(request.bits(), "surety 2026 batch", 0))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        digits(text, "batch_").map(Self)
    }

    /// The file of its answers, or of what failed.
    pub(super) fn output(self, failed: bool) -> FileId {
        FileId(derived(self.0, "surety 2026 batch output", u64::from(failed)))
    }

    /// The request of one of its lines.
    pub(super) fn request(self, line: u64) -> RequestId {
        RequestId::of_bits(derived(self.0, "surety 2026 batch request", line))
    }
}

fn derived(id: u128, domain: &'static str, number: u64) -> u128 {
    let message = [&id.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let mut first = [0; 16];
    first.copy_from_slice(&Digest::of(domain, &message).0[..16]);
    u128::from_be_bytes(first)
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "file-{:032x}", self.0)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "batch_{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        let (file, batch) = (FileId(7), BatchId(u128::MAX));
        assert_eq!(FileId::parse(&file.to_string()), Some(file));
        assert_eq!(BatchId::parse(&batch.to_string()), Some(batch));
        assert_eq!(BatchId::parse(&file.to_string()), None);
        for text in ["", "file-", "file-7", &file.to_string().to_uppercase(), "file-../../etc/passwd"] {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
        let ids = [batch.request(1), batch.request(2), BatchId(0).request(1)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        assert_ne!(batch.output(false), batch.output(true));
    }
}
