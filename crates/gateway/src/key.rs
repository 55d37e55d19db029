//! Key: the gateway's own, with which it signs orders and envelopes.
//!
//! In:     the data directory, the system's random source.
//! Out:    the key that is there, or a new one.
//! Touches: one file, `gateway.key`, readable by its owner only.
//! Holds:  a key that others may read is refused; a key is on the disk before it is used.
//! Absent: workers' and operators' keys.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use surety_types::SecretKey;

const FILE: &str = "gateway.key";
const DIGITS: usize = 64;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold a key of {DIGITS} hexadecimal digits", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system gave no random bytes.
    #[error("the system's random source failed")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            KeyError::File { .. } => {
                "check that the data directory exists, is writable and has room, or name another"
            }
            KeyError::Malformed { .. } => "restore the file from a copy, or remove it to have a new key made",
            KeyError::Exposed { .. } => {
                "chmod 600 the file if nobody else has read it; else remove it to have a new key made"
            }
            KeyError::Random(_) => "restart; if it happens again the operating system is at fault",
        }
    }
}

/// Reads the key in `data_dir`, or makes one.
pub(crate) fn load_or_create(data_dir: &Path) -> Result<SecretKey, KeyError> {
    let path = data_dir.join(FILE);
    match File::open(&path) {
        Ok(file) => load(file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, path),
        Err(source) => Err(KeyError::File { action: "open", path, source }),
    }
}

fn load(file: File, path: PathBuf) -> Result<SecretKey, KeyError> {
    let fail = |action, source| KeyError::File { action, path: path.clone(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(|source| fail("examine", source))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path, mode });
        }
    }
    let mut text = String::new();
    file.take(DIGITS as u64 + 2).read_to_string(&mut text).map_err(|source| fail("read", source))?;
    let mut bytes = [0; 32];
    let digits = text.trim_end().as_bytes();
    if digits.len() != DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(KeyError::Malformed { path });
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = str::from_utf8(pair).expect("hexadecimal digits");
        *byte = u8::from_str_radix(pair, 16).expect("hexadecimal digits");
    }
    Ok(SecretKey::from_bytes(&bytes))
}

fn create(data_dir: &Path, path: PathBuf) -> Result<SecretKey, KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    let temporary = data_dir.join(format!("{FILE}.new"));
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_private(&temporary, &digits)
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(data_dir)?.sync_all())
        .map_err(|source| KeyError::File { action: "write", path, source })?;
    Ok(SecretKey::from_bytes(&bytes))
}

fn write_private(path: &Path, digits: &str) -> io::Result<()> {
    // What an interrupted start left behind may have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    writeln!(file, "{digits}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = load_or_create(directory.path()).expect("a new key");
        let found = load_or_create(directory.path()).expect("the same key");
        assert_eq!(made.public(), found.public());
    }

    #[cfg(unix)]
    #[test]
    fn an_exposed_or_broken_key_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        load_or_create(directory.path()).expect("a new key");
        let path = directory.path().join(FILE);
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        mode(0o640);
        assert!(matches!(load_or_create(directory.path()), Err(KeyError::Exposed { mode: 0o640, .. })));
        mode(0o600);
        for text in ["", "zz", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66), "\u{e9}"] {
            fs::write(&path, text).expect("a file");
            assert!(matches!(load_or_create(directory.path()), Err(KeyError::Malformed { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = load_or_create(Path::new("/nonexistent/surety")).expect_err("no directory");
        assert!(error.to_string().contains("/nonexistent/surety/gateway.key"), "{error}");
    }
}
