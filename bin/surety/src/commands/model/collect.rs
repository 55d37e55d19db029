//! `surety model pin|unpin|gc`: what stays, and making room.

use std::time::SystemTime;

use serde_json::json;
use surety_worker::store::{Entry, Reference, Sweep, Swept};

use crate::{
    bundled,
    cli::Global,
    data_dir::DataDir,
    look::aligned,
    models::Models,
    output::{self, hinted, size},
};

/// Arguments of `model pin` and `model unpin`.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// A name, file.gguf, hf:owner/repo/file or blake3:…
    #[arg(value_name = "REF")]
    reference: Reference,
}

/// Arguments of `model gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Let the store's own models and transfers take so many bytes (K, M, G and T are understood), and delete those
    /// used longest ago until they do. Without this no model is deleted.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep: Option<u64>,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit.to_ascii_uppercase()),
        _ => (text, ' '),
    };
    let power = match unit {
        ' ' => 0,
        'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        _ => return Err(format!("{unit} is no unit; K, M, G and T are, of 1000 each")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number of bytes, such as 20G".to_owned())?;
    number.checked_mul(1000_u64.pow(power)).ok_or_else(|| "so many bytes there are not".to_owned())
}

/// Pins a model, or unpins it.
pub fn pin(global: &Global, models: &Models, args: &PinArgs, pinned: bool) -> anyhow::Result<()> {
    let Entry { name, blake3, bytes, .. } = models.store().set_pinned(&args.reference, pinned)?;
    if global.json {
        return output::json(&json!({ "name": name, "blake3": blake3, "bytes": bytes, "pinned": pinned }));
    }
    let word = if pinned { "pinned: no collection deletes it" } else { "not pinned any more" };
    output::line(format_args!("{name} is {word}"))?;
    Ok(())
}

/// Makes room.
pub fn run(global: &Global, data_dir: &DataDir, models: &Models, args: &Args) -> anyhow::Result<()> {
    let sweep = Sweep {
        keep_bytes: args.keep,
        dry_run: args.dry_run,
        now: SystemTime::now(),
        cache: &data_dir.cache(),
        bundled: &[bundled::file().blake3],
    };
    let swept = models.store().collect(&sweep)?;
    let sum = |goes: bool| swept.iter().filter(|file| file.goes == goes).map(|file| file.bytes).sum::<u64>();
    let (freed, left) = (sum(true), sum(false));
    if global.json {
        let files: Vec<_> = swept
            .iter()
            .map(|file| {
                json!({
                    "path": file.path, "bytes": file.bytes, "names": file.names, "deleted": file.goes,
                    "why": file.why.to_string(),
                })
            })
            .collect();
        output::json(
            &json!({ "dry_run": args.dry_run, "freed_bytes": freed, "left_bytes": left, "files": files }),
        )?;
    } else {
        let word = |file: &Swept| match (file.goes, args.dry_run) {
            (true, true) => "would go",
            (true, false) => "deleted",
            (false, _) => "stays",
        };
        let rows: Vec<Vec<String>> = swept
            .iter()
            .map(|file| {
                let what = if file.names.is_empty() {
                    file.path.display().to_string()
                } else {
                    file.names.join(", ")
                };
                vec![word(file).to_owned(), size(file.bytes), what, file.why.to_string()]
            })
            .collect();
        for line in aligned(&rows) {
            output::line(line)?;
        }
        let word = if args.dry_run { "would be free" } else { "are free now" };
        output::note(format_args!("{} {word}; the store's own files take {}", size(freed), size(left)));
    }
    match args.keep {
        Some(keep) if left > keep => Err(hinted(
            format!("what may not go takes {}, more than {}", size(left), size(keep)),
            "the lines above say why each stays: unpin a model, or stop what serves it",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_bytes_are_read() {
        for (text, expected) in
            [("0", 0), ("17", 17), ("3k", 3_000), ("20G", 20_000_000_000), ("1T", 10_u64.pow(12))]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "3X", "99999999999T", "ß"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
