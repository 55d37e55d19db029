//! Hashing a file that may be many gigabytes.
//!
//! In:     a path.
//! Out:    its BLAKE3 and its stamp.
//! Touches: reads the file.
//! Holds:  the file is read, not mapped, so its pages do not count as this process's memory; a file that
//!         changes while it is read is refused.

use std::{fs::File, io::Read, path::Path, time::UNIX_EPOCH};

use surety_types::Digest;

use super::{StoreError, index::Stamp, io_error};
use crate::progress::{Progress, Report, Step};

const BUFFER_BYTES: usize = 1 << 20;
/// How many bytes pass between two reports of progress.
const REPORT_BYTES: u64 = 16 << 20;
/// GGUF files begin with these bytes.
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// A model file's digest and what tells that it is still the same file.
pub fn hash_model(path: &Path, report: &mut Report<'_>) -> Result<(Digest, Stamp), StoreError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let before = stamp_of(&file.metadata().map_err(io_error("look at", path))?, path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut done, mut reported) = (0_u64, 0_u64);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_error("read", path)(error)),
        };
        if done == 0 && !buffer[..count].starts_with(&GGUF_MAGIC) {
            return Err(StoreError::NotGguf { path: path.to_owned() });
        }
        hasher.update(&buffer[..count]);
        done += count as u64;
        if done - reported >= REPORT_BYTES {
            reported = done;
            report(Progress { step: Step::Hashing, done, total: before.bytes });
        }
    }
    report(Progress { step: Step::Hashing, done, total: before.bytes });
    if done == 0 {
        return Err(StoreError::NotGguf { path: path.to_owned() });
    }
    let after = stamp(path)?;
    if after != before || done != before.bytes {
        return Err(StoreError::Changing { path: path.to_owned() });
    }
    Ok((Digest(*hasher.finalize().as_bytes()), before))
}

/// The stamp of the file at this path.
pub fn stamp(path: &Path) -> Result<Stamp, StoreError> {
    stamp_of(&std::fs::metadata(path).map_err(io_error("look at", path))?, path)
}

fn stamp_of(metadata: &std::fs::Metadata, path: &Path) -> Result<Stamp, StoreError> {
    if !metadata.is_file() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    let modified = metadata.modified().map_err(io_error("look at", path))?;
    let modified_ns = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Ok(Stamp { bytes: metadata.len(), modified_ns })
}
