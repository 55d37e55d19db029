//! `xtask mutate`: whether the tests notice if one voice of the arithmetic says something else.
//!
//! In:     the sources as they are; a list of changes of one bit, one operator or one bound.
//! Out:    for each whether the test that is named beside it fails; fails itself if one does not, or a change does not
//!         compile, or the test fails without it.
//! Touches: a copy of the tracked sources in `target/mutants`, and `target`, where it is compiled; never the sources.
//! Holds:  a change is made where its text stands exactly once, so that a list that has fallen behind is noticed.
//! Absent: changes nobody listed: this is no search.
//!
//! `cargo run -p xtask -- mutate [WORD…]` takes the changes whose names hold every word; each compiles a crate or two.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// Arguments of `xtask mutate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Take the changes whose names hold all of these.
    words: Vec<String>,
    /// Name them, and do nothing.
    #[arg(long)]
    list: bool,
}

/// A change, and the test that must notice.
struct Mutation {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// Arguments of `cargo test`.
    test: &'static str,
}

const REFERENCE: &str = "crates/reference/src/ops.rs";
const STEP: &str = "crates/kernels/src/step.rs";
const AVX2: &str = "crates/kernels/src/lane/avx2.rs";
const AVX512: &str = "crates/kernels/src/lane/avx512.rs";
const RULES: &str = "crates/proof/src/dispute/rules.rs";
const JUDGE: &str = "crates/proof/src/dispute/judge.rs";

const AGREE: &str = "-p surety-reference --test kernels_agree";
const INSTANCES: &str = "-p surety-kernels --lib every_instance_is_the_array_instance";
const TRACES: &str = "-p surety-proof --test dispute traces_";
const LIES: &str = "-p surety-proof --test dispute many_disputes_end_rightly";

const fn change(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    test: &'static str,
) -> Mutation {
    Mutation { name, file, from, to, test }
}

const MUTATIONS: [Mutation; 18] = [
    change("reference: log2(e), last bit", REFERENCE, "= 1.44269504;", "= 1.44269514;", AGREE),
    change("reference: order of a product", REFERENCE, "(x * inv) * w)", "x * (inv * w))", AGREE),
    change(
        "reference: rounding of 2^t",
        REFERENCE,
        "let n = t.round_ties_even();",
        "let n = t.floor();",
        AGREE,
    ),
    change(
        "reference: bound of a segment",
        REFERENCE,
        "w.chunks(1024).zip(x.chunks(1024))",
        "w.chunks(1023).zip(x.chunks(1023))",
        AGREE,
    ),
    change("scalar: 127 in a block's scale, last bit", STEP, "{ 127.0 / a }", "{ 127.00001 / a }", AGREE),
    change(
        "scalar: a sum of squares that is not fused",
        STEP,
        "x.mul_add(*x, lanes[i % LANES])",
        "x * x + lanes[i % LANES]",
        AGREE,
    ),
    change("scalar: order of a product", STEP, "(x * inverse) * weight", "x * (inverse * weight)", AGREE),
    change("scalar: the last of equal logits", STEP, "b.0 <= a.0 { a }", "b.0 < a.0 { a }", AGREE),
    change(
        "avx2: an addition that is not fused",
        AVX2,
        "_mm256_fmadd_ps(a, b, c)",
        "_mm256_add_ps(_mm256_mul_ps(a, b), c)",
        INSTANCES,
    ),
    change(
        "avx2: order of a sum",
        AVX2,
        "tree(_mm256_add_ps(a[0], a[1]))",
        "tree(a[0]) + tree(a[1])",
        INSTANCES,
    ),
    change(
        "avx2: rounding",
        AVX2,
        "_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT |",
        "_mm256_round_ps::<{ _MM_FROUND_TO_ZERO |",
        INSTANCES,
    ),
    change(
        "avx512: an addition that is not fused",
        AVX512,
        "_mm512_fmadd_ps(a, b, c)",
        "_mm512_add_ps(_mm512_mul_ps(a, b), c)",
        INSTANCES,
    ),
    change(
        "avx512: order of a sum",
        AVX512,
        "super::avx2::tree(_mm256_add_ps(low, high))",
        "super::avx2::tree(low) + super::avx2::tree(high)",
        INSTANCES,
    ),
    change(
        "avx512: rounding",
        AVX512,
        "_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT |",
        "_mm512_roundscale_ps::<{ _MM_FROUND_TO_ZERO |",
        INSTANCES,
    ),
    change(
        "judge: bound of a tile",
        RULES,
        "TILE.min(self.layout.vocabulary - tile * TILE)",
        "(TILE - 1).min(self.layout.vocabulary - tile * TILE)",
        TRACES,
    ),
    change(
        "judge: the position that a draw is of",
        RULES,
        "self.layout.given + output;\n        let u",
        "self.layout.given + output + 1;\n        let u",
        TRACES,
    ),
    change(
        "judge: the head that is read",
        RULES,
        "head.head / (self.layout.heads / self.layout.kv_heads)",
        "head.head % self.layout.kv_heads",
        TRACES,
    ),
    change(
        "judge: one bit of what it computes",
        JUDGE,
        "let computed = computed[part as usize];",
        "let computed = computed[part as usize] ^ 1;",
        LIES,
    ),
];

/// Makes every change in turn.
pub fn run(arguments: &Arguments) -> Result<()> {
    let wanted =
        |mutation: &&Mutation| arguments.words.iter().all(|word| mutation.name.contains(word.as_str()));
    let mutations: Vec<&Mutation> = MUTATIONS.iter().filter(wanted).collect();
    ensure!(!mutations.is_empty(), "no change is called so; --list names them");
    if arguments.list {
        mutations.iter().for_each(|mutation| println!("{}: cargo test {}", mutation.name, mutation.test));
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let copy = Scratch::of(&root)?;
    let mut tests: Vec<&str> = mutations.iter().map(|mutation| mutation.test).collect();
    tests.sort();
    tests.dedup();
    for test in tests {
        ensure!(copy.passes(test)?, "`cargo test {test}` fails as it is");
        eprintln!("`cargo test {test}` passes as it is");
    }
    let mut unnoticed = Vec::new();
    for mutation in &mutations {
        let began = Instant::now();
        let is_noticed = copy.is_noticed(mutation).with_context(|| mutation.name.to_owned())?;
        let told = if is_noticed { "noticed" } else { "NOT NOTICED" };
        println!("{:48} {told} by {} ({:.0} s)", mutation.name, mutation.test, began.elapsed().as_secs_f64());
        if !is_noticed {
            unnoticed.push(mutation.name);
        }
    }
    println!("{} changes, {} of them noticed", mutations.len(), mutations.len() - unnoticed.len());
    ensure!(unnoticed.is_empty(), "nobody notices: {}", unnoticed.join("; "));
    Ok(())
}

/// A copy of the sources, compiled beside them.
struct Scratch {
    folder: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Brings the copy up to date; what is the same is left, so that it is not compiled again.
    fn of(root: &Path) -> Result<Scratch> {
        let target = root.join("target");
        let folder = target.join("mutants");
        let listed =
            Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("running git")?;
        ensure!(listed.status.success(), "the sources are not in git");
        let listed = String::from_utf8(listed.stdout)?;
        for name in listed.split('\0').filter(|name| !name.is_empty() && !name.starts_with("models/")) {
            // What was deleted and not committed is still listed.
            let Ok(content) = fs::read(root.join(name)) else { continue };
            let path = folder.join(name);
            if fs::read(&path).ok().as_ref() != Some(&content) {
                fs::create_dir_all(path.parent().context("a file has a folder")?)?;
                fs::write(&path, content)?;
            }
        }
        Ok(Scratch { folder, target })
    }

    fn cargo(&self, test: &str, more: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--quiet", "--manifest-path"]).arg(self.folder.join("Cargo.toml"));
        command.arg("--target-dir").arg(&self.target).args(test.split(' ')).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn passes(&self, test: &str) -> Result<bool> {
        let built = self.cargo(test, &["--no-run"]).stderr(Stdio::inherit()).status()?;
        ensure!(built.success(), "it does not compile");
        Ok(self.cargo(test, &[]).status()?.success())
    }

    /// Whether the test fails once the change is made. The copy is as it was afterwards.
    fn is_noticed(&self, mutation: &Mutation) -> Result<bool> {
        let path = self.folder.join(mutation.file);
        let source = fs::read_to_string(&path)?;
        let places = source.matches(mutation.from).count();
        if places != 1 {
            bail!("{:?} stands {places} times in {}", mutation.from, mutation.file);
        }
        fs::write(&path, source.replace(mutation.from, mutation.to))?;
        let passes = self.passes(mutation.test);
        fs::write(&path, source)?;
        Ok(!passes?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_its_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for Mutation { name, file, from, to, .. } in &MUTATIONS {
            let source = fs::read_to_string(root.join(file)).expect("a source");
            assert_eq!(source.matches(from).count(), 1, "{name}: {from:?} in {file}");
            assert_ne!(from, to, "{name}");
        }
    }
}
