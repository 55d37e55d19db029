//! The pause of a worker, on disk: it outlives the process.
//!
//! In:     until when. Out: whether a worker that starts now is paused.
//! Touches: `worker/KEY.paused` in the data directory.
//! Holds:  the file is whole or not there; one that cannot be read counts as a pause without end, since whoever paused a
//!         worker does not want it to work.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Where a worker's pause is kept.
#[derive(Clone, Debug)]
pub struct PauseFile(PathBuf);

/// A pause that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// When it ends, in milliseconds since 1970; none: when somebody says so.
    pub until_ms: Option<u64>,
}

impl Pause {
    /// How long it still takes; none without an end.
    pub fn left(&self, now_ms: u64) -> Option<Duration> {
        self.until_ms.map(|until| Duration::from_millis(until.saturating_sub(now_ms)))
    }
}

impl PauseFile {
    /// That of the worker with this key's name.
    pub fn new(folder: &Path, key: &str) -> Self {
        Self(folder.join(format!("{key}.paused")))
    }

    /// The pause that holds at this moment.
    pub fn read(&self, now_ms: u64) -> Option<Pause> {
        self.kept().filter(|pause| pause.left(now_ms) != Some(Duration::ZERO))
    }

    /// The pause that was kept, over or not.
    pub fn kept(&self) -> Option<Pause> {
        match fs::read(&self.0) {
            Ok(text) => Some(serde_json::from_slice(&text).unwrap_or(Pause { until_ms: None })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(Pause { until_ms: None }),
        }
    }

    /// Keeps a pause, or that there is none.
    pub fn write(&self, pause: Option<Pause>) -> io::Result<()> {
        let Some(pause) = pause else {
            return match fs::remove_file(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&file, &pause)?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        Ok(())
    }
}

/// The time, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_its_process_until_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = PauseFile::new(&folder.path().join("worker"), "w");
        assert_eq!(file.read(0), None);
        file.write(None).unwrap();
        let pause = Pause { until_ms: Some(1_000) };
        file.write(Some(pause)).unwrap();
        assert_eq!(file.read(999), Some(pause));
        assert_eq!(pause.left(400), Some(Duration::from_millis(600)));
        assert_eq!((file.read(1_000), file.kept()), (None, Some(pause)), "over, and still to be ended");
        let endless = Pause { until_ms: None };
        file.write(Some(endless)).unwrap();
        assert_eq!(file.read(u64::MAX), Some(endless));
        fs::write(&file.0, "garbage").unwrap();
        assert_eq!(file.read(0), Some(endless), "whoever paused it does not want it to work");
        file.write(None).unwrap();
        assert_eq!(file.read(0), None);
    }
}
