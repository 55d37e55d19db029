//! The terminal: results to stdout, everything else to stderr.
//!
//! In:     results, errors, notes.
//! Out:    lines; colour only where a terminal shows it.
//! Touches: stdout, stderr.
//! Holds:  an error's chain of causes is printed once, with a `hint:` line when there is something to do.
//! Absent: progress bars (`progress`).

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;
use surety_client::{ledger::LedgerError, models::FindError};
use surety_worker::{
    load::OpenError,
    serve::StartError,
    store::{ReferenceError, StoreError, hub::HubError, io_hint},
};

use crate::{
    commands::{apikey, gateway, validator},
    keystore::KeystoreError,
};

/// An error of the binary's own, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    message: String,
    hint: String,
}

/// An error with a hint.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// Prints a line of results.
pub fn line(text: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints results without a line's end, at once.
pub fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints results as one line of JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    line(text)?;
    io::stdout().lock().flush()?;
    Ok(())
}

/// Prints a line for the person at the terminal, beside the results.
pub fn note(text: impl fmt::Display) {
    // In one piece: processes that share the terminal or the file write between pieces.
    let line = format!("{text}\n");
    // Nobody can be told that stderr is closed.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Text in a colour, if stderr shows any.
pub fn err_style(style: Style, text: impl fmt::Display) -> String {
    styled(io::stderr().is_terminal(), style, text)
}

/// Text in a colour, if stdout shows any.
pub fn out_style(style: Style, text: impl fmt::Display) -> String {
    styled(io::stdout().is_terminal(), style, text)
}

/// How text is set off.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

fn styled(shown: bool, style: Style, text: impl fmt::Display) -> String {
    let wanted = shown && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Good => "32",
        Style::Bad => "31",
    };
    if wanted { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
}

/// Text from elsewhere, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// The beginning of a text, on one line.
pub fn excerpt(text: &str, characters_max: usize) -> String {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = printable(&flat).chars().take(characters_max).collect();
    if flat.chars().count() > characters_max { format!("{shown}…") } else { shown }
}

/// A size as people say it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Prints an error, its causes and its hint.
pub fn print_error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent wrappers repeat what they wrap.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    note(format_args!("{} {}", err_style(Style::Bad, "error:"), printable(&text)));
    if let Some(hint) = hint(error) {
        note(format_args!("{} {}", err_style(Style::Bold, "hint:"), printable(&hint)));
    }
}

/// Whether the reader of our output has gone, as `head` does.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(closed)
}

/// What can be done about an error: the first cause that knows.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            return Some(hinted.hint.clone());
        }
        cause
            .downcast_ref::<StoreError>()
            .and_then(StoreError::hint)
            .or_else(|| cause.downcast_ref::<HubError>().and_then(HubError::hint))
            .or_else(|| cause.downcast_ref::<ReferenceError>().map(|error| error.hint().to_owned()))
            .or_else(|| cause.downcast_ref::<StartError>().and_then(StartError::hint))
            .or_else(|| cause.downcast_ref::<OpenError>().and_then(OpenError::hint))
            .or_else(|| cause.downcast_ref::<KeystoreError>().and_then(KeystoreError::hint))
            .or_else(|| cause.downcast_ref::<LedgerError>().and_then(LedgerError::hint).map(str::to_owned))
            .or_else(|| cause.downcast_ref::<FindError>().and_then(FindError::hint).map(str::to_owned))
            .or_else(|| gateway::hint(cause))
            .or_else(|| apikey::hint(cause))
            .or_else(|| validator::hint(cause))
    })
}

/// An error of the system about a path.
pub fn io_failure(attempt: &str, path: &std::path::Path, source: io::Error) -> anyhow::Error {
    let hint = io_hint(&source, path);
    let message = format!("cannot {attempt} {}: {source}", path.display());
    match hint {
        Some(hint) => hinted(message, hint),
        None => anyhow::Error::msg(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, expected) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (12_400_000, "12 MB"), (4_700_000_000, "4.7 GB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn excerpts_obey_no_stranger() {
        assert_eq!(excerpt("a\n b\u{1b}[2Jc", 10), "a b[2Jc");
        assert_eq!(excerpt("abcdef", 3), "abc…");
    }
}
