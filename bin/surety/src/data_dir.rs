//! The data directory: one place for everything Surety keeps.
//!
//! In:     `--data-dir` or `SURETY_HOME`; else the platform's custom.
//! Out:    its path, and those of what is in it.
//! Touches: nothing before something is kept.
//! Absent: what is in the files.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::{cli::Global, output::hinted};

/// The data directory of this run.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// As the arguments, the environment or the platform have it.
    pub fn of(global: &Global) -> anyhow::Result<Self> {
        let path = match &global.data_dir {
            Some(path) if path.as_os_str().is_empty() => {
                return Err(hinted(
                    "the data directory has no name",
                    "give --data-dir a path, or unset SURETY_HOME",
                ));
            }
            Some(path) => std::path::absolute(path)?,
            None => {
                let platform = etcetera::base_strategy::choose_native_strategy().map_err(|_| {
                    hinted(
                        "this account has no home directory",
                        "name a data directory with --data-dir or SURETY_HOME",
                    )
                })?;
                platform.data_dir().join("surety")
            }
        };
        Ok(Self(path))
    }

    /// This very path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Packed weights.
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// Keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The gateway's receipts and its key.
    pub fn gateway(&self) -> PathBuf {
        self.0.join("gateway")
    }

    /// Where a running `up` says how to reach it.
    pub fn running(&self) -> PathBuf {
        self.0.join("up.json")
    }
}
