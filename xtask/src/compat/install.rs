//! Install: what a suite needs, in the cache, by what is pinned.
//!
//! In:     a list of pinned packages. Out: an interpreter that has them.
//! Touches: the cache folder; the package registries, through `pip` and `npm`, unless all is there already.
//! Holds:  a folder that has its mark is whole: one that an interrupted run left is made anew.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Needs, SUITES};

/// Says that a folder is whole.
const MARK: &str = "installed";
/// Digits of a folder's name.
const DIGITS: usize = 16;
/// What `npm` needs; what runs beside its packages.
const NODE_FILES: [&str; 2] = ["package.json", "package-lock.json"];
const NODE_SCRIPTS: [&str; 2] = ["check.mjs", "x402_client.mjs"];

/// What runs a suite.
pub(super) struct Program {
    pub(super) interpreter: PathBuf,
    /// Where its script is.
    pub(super) scripts: PathBuf,
}

/// Sees that a suite's packages are there.
pub(super) fn program(needs: &Needs, cache: &Path) -> Result<Program> {
    let suites = fs::canonicalize(SUITES)?;
    match needs {
        Needs::Python(pins) => {
            let pins = suites.join(pins);
            let folder = made(cache, "python", &[&pins], |folder| {
                // `PYTHON` names another interpreter.
                let python = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
                call(&python, &["-m".as_ref(), "venv".as_ref(), folder.as_os_str()])?;
                let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"].map(OsStr::new);
                let interpreter = folder.join("bin/python");
                call(interpreter.as_os_str(), &[&pip[..], &[pins.as_os_str()]].concat())
            })?;
            Ok(Program { interpreter: folder.join("bin/python"), scripts: suites })
        }
        Needs::Node => {
            let files = NODE_FILES.map(|name| suites.join(name));
            let [package, lock] = &files;
            let folder = made(cache, "node", &[package, lock], |folder| {
                for from in [package, lock] {
                    fs::copy(from, folder.join(from.file_name().context("a file")?))?;
                }
                let npm = ["ci", "--no-audit", "--no-fund", "--silent", "--prefix"].map(OsStr::new);
                call(OsStr::new("npm"), &[&npm[..], &[folder.as_os_str()]].concat())
            })?;
            // Node finds packages beside the script.
            for script in NODE_SCRIPTS {
                fs::copy(suites.join(script), folder.join(script))?;
            }
            Ok(Program { interpreter: "node".into(), scripts: folder })
        }
    }
}

/// The folder of what these files pin, made if it is not there.
fn made(
    cache: &Path,
    kind: &str,
    files: &[&PathBuf],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    }
    let digits = hasher.finalize().to_hex();
    let folder = cache.join(format!("{kind}-{}", &digits[..DIGITS]));
    if folder.join(MARK).exists() {
        return Ok(folder);
    }
    let names = files.iter().filter_map(|file| file.file_name()?.to_str()).collect::<Vec<_>>().join(", ");
    eprintln!("installing what {names} pins into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    make(&folder).with_context(|| format!("what {names} pins could not be installed"))?;
    fs::write(folder.join(MARK), names)?;
    Ok(folder)
}

fn call(program: &OsStr, args: &[&OsStr]) -> Result<()> {
    let status = Command::new(program).args(args).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("{} cannot be started", program.display()))?;
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(())
}
