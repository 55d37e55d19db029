//! Passphrases: from a file, or typed unseen at a terminal.
//!
//! In:     `--passphrase-file`, or the terminal.
//! Out:    the passphrase, wiped when dropped.
//! Touches: the terminal's echo, which is on again afterwards whatever happens.
//! Absent: what it opens (`keystore`).

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::PathBuf,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::output::{hinted, io_failure};

const BYTES_MAX: u64 = 4096;

/// Where a passphrase comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct PassphraseArgs {
    /// Read the key's passphrase from this file (its first line).
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase of a key that has one: from the file, or typed; `None` where there is nobody to type it.
    pub fn existing(&self, key: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
        match &self.passphrase_file {
            Some(path) => read_file(path).map(Some),
            None if io::stdin().is_terminal() => typed(&format!("Passphrase of the key {key}: ")).map(Some),
            None => Ok(None),
        }
    }

    /// A new passphrase: from the file, or typed twice.
    pub fn new_one(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        let Some(path) = &self.passphrase_file else {
            if !io::stdin().is_terminal() {
                return Ok(None);
            }
            let first = typed("New passphrase: ")?;
            if *first != *typed("Once more: ")? {
                return Err(hinted("the two passphrases differ", "try again"));
            }
            return not_empty(first).map(Some);
        };
        not_empty(read_file(path)?).map(Some)
    }
}

fn not_empty(passphrase: Zeroizing<String>) -> anyhow::Result<Zeroizing<String>> {
    if passphrase.is_empty() {
        return Err(hinted("the passphrase is empty", "give one, or say --no-passphrase"));
    }
    Ok(passphrase)
}

fn read_file(path: &PathBuf) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|source| io_failure("open", path, source))?;
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|source| io_failure("read", path, source))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn typed(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let silence = Silence::begin()?;
    let mut err = io::stderr().lock();
    write!(err, "{prompt}")?;
    err.flush()?;
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(BYTES_MAX).read_line(&mut line)?;
    drop(silence);
    writeln!(err)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// While this lives, what is typed is not shown.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nobody to tell if the terminal went away meanwhile.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
