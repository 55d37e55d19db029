//! Training of the bundled demonstration model.
//!
//! In:     a text of speeches separated by blank lines, and a recipe.
//! Out:    a GGUF file that speaks in such speeches; progress on stderr.
//! Touches: the text, the file, and a checkpoint beside it while training.
//! Holds:  the same recipe on the same kind of CPU gives the same file, interrupted or not. The work
//!         is always cut in two and joined in the same order, whatever the machine.
//! Absent: any claim that the model is useful. It shows that the machinery works.

mod product;

mod network;

mod optimiser;

mod vocabulary;

mod text;

mod checkpoint;

mod export;

use std::f64::consts::LN_2;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::rng::Rng;
use network::{Dropout, Network, Ranges, Shape, Windows};
use optimiser::State;
use text::Text;
use vocabulary::Vocabulary;

/// Each step's windows are cut in this many shards, each on a thread of its own.
const THREADS: usize = 2;

/// What is trained, and how.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Names initial weights, windows and masks.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u32,
    shape: Shape,
    optimiser: optimiser::Settings,
    /// Tokens of a step.
    step_tokens: usize,
    /// Tokens of a window in most steps.
    window_len: usize,
    /// Every such step uses windows of the model's whole context instead, so that all positions are
    /// learned.
    whole_context_every: u32,
    context_len: usize,
    /// Of embeddings and residual additions, out of 256.
    dropout_numerator: u8,
    /// Probability that a merge is passed over when the training text is spelled …
    merge_dropout: f32,
    /// … in this part of the steps; the rest see the spelling that users' prompts get.
    merge_dropout_until: f32,
    /// Part of the text, at its end, that is never trained on.
    held_out: f64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            seed: 1,
            steps: 1_900,
            shape: Shape {
                vocabulary: 1_024,
                width: 192,
                layers: 6,
                heads: 6,
                kv_heads: 3,
                head_dim: 32,
                feed_forward: 512,
            },
            optimiser: optimiser::Settings {
                rate: 3e-3,
                rate_floor: 0.02,
                warm_up_steps: 50,
                beta1: 0.9,
                beta2: 0.98,
                weight_decay: 0.1,
                gradient_norm_max: 1.0,
            },
            step_tokens: 4_096,
            window_len: 256,
            whole_context_every: 8,
            context_len: 1_024,
            dropout_numerator: 26,
            merge_dropout: 0.1,
            merge_dropout_until: 0.7,
            held_out: 0.1,
        }
    }
}

/// Where things are, and what is good enough.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The text to learn.
    pub text: PathBuf,
    /// The GGUF file to write.
    pub out: PathBuf,
    /// Where an interrupted training goes on from.
    pub checkpoint: PathBuf,
    /// A model that does worse on the held-out text is not written.
    pub bits_per_byte_max: f64,
    /// How it is trained.
    pub recipe: Recipe,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Parameters of the network.
    pub parameters: usize,
    /// Held-out loss with the trained weights.
    pub bits_per_byte_f32: f64,
    /// Held-out loss with the weights as the file has them.
    pub bits_per_byte_q8_0: f64,
    /// Size of the file.
    pub file_size: u64,
    /// Time spent by this process.
    pub elapsed: Duration,
}

/// Trains, evaluates and writes the model.
pub fn run(settings: &Settings) -> Result<Report> {
    let started = Instant::now();
    let recipe = settings.recipe;
    let text = read_text(&settings.text)?;
    for folder in [&settings.out, &settings.checkpoint].into_iter().filter_map(|path| path.parent()) {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let parts = Text::split(&text, recipe.held_out).context("the text has no speeches to hold out")?;
    let vocabulary = Vocabulary::learn(&parts.training, recipe.shape.vocabulary);
    let held_out = HeldOut::new(&vocabulary, &parts);

    let fresh = || State::new(network::initial_parameters(&recipe.shape, recipe.seed));
    let name = format!("{recipe:?}, {} bytes of text", text.len());
    let count = Ranges::of(&recipe.shape).count();
    let state = checkpoint::load(&settings.checkpoint, &name, count)?;
    let mut trainer = Trainer::new(recipe, &vocabulary, &parts, state.unwrap_or_else(fresh));
    eprintln!(
        "{count} parameters, {} tokens to learn from, {} steps of {} tokens",
        trainer.stream_len, recipe.steps, recipe.step_tokens
    );
    let first_step = trainer.state.step;
    while trainer.state.step < recipe.steps {
        let loss = trainer.step();
        let step = trainer.state.step;
        if step.is_multiple_of(10) || step == recipe.steps {
            let pace = started.elapsed().as_secs_f64() / f64::from(step - first_step);
            let left = Duration::from_secs_f64(pace * f64::from(recipe.steps - step));
            let eta = format!("ETA {}:{:02}", left.as_secs() / 60, left.as_secs() % 60);
            eprintln!("step {step}/{}  loss {loss:.3} nats/token  {eta}", recipe.steps);
        }
        if step.is_multiple_of(100) && step != recipe.steps {
            checkpoint::save(&settings.checkpoint, &name, &trainer.state)?;
            let bits = trainer.bits_per_byte(&trainer.state.parameters.clone(), &held_out);
            eprintln!("step {step}/{}  held-out {bits:.4} bits/byte", recipe.steps);
        }
    }

    let parameters = trainer.state.parameters.clone();
    let bits_per_byte_f32 = trainer.bits_per_byte(&parameters, &held_out);
    let decoded = export::quantised(&parameters, &recipe.shape);
    let bits_per_byte_q8_0 = trainer.bits_per_byte(&decoded, &held_out);
    ensure!(
        bits_per_byte_q8_0 <= settings.bits_per_byte_max,
        "held-out loss is {bits_per_byte_q8_0:.4} bits per byte, more than the {} asked for; no file written",
        settings.bits_per_byte_max
    );
    let file_size = write_file(&settings.out, &parameters, &recipe, &vocabulary, bits_per_byte_q8_0)?;
    if settings.checkpoint.exists() {
        fs::remove_file(&settings.checkpoint)
            .with_context(|| format!("removing {}", settings.checkpoint.display()))?;
    }
    let elapsed = started.elapsed();
    Ok(Report { parameters: count, bits_per_byte_f32, bits_per_byte_q8_0, file_size, elapsed })
}

fn read_text(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    if let Some(at) = text.find(|character: char| !character.is_ascii()) {
        bail!("{} has a character beyond ASCII at byte {at}; the trainer reads ASCII only", path.display());
    }
    Ok(text)
}

fn write_file(
    path: &Path,
    parameters: &[f32],
    recipe: &Recipe,
    vocabulary: &Vocabulary,
    bits_per_byte: f64,
) -> Result<u64> {
    let description = format!(
        "A demonstration, not a useful model: {:.1} million parameters trained on the public-domain plays of \
         Shakespeare collected as tinyshakespeare; {bits_per_byte:.2} bits per byte on the held-out tenth.",
        parameters.len() as f64 / 1e6
    );
    let card = export::Card {
        name: "Shakespeare demo",
        description: &description,
        context_len: recipe.context_len as u32,
    };
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let written = export::write(BufWriter::new(file), parameters, &recipe.shape, vocabulary, &card);
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::metadata(path)?.len())
}

/// The held-out part as one stream of tokens.
#[derive(Debug)]
struct HeldOut {
    stream: Vec<u32>,
    bytes: usize,
}

impl HeldOut {
    fn new(vocabulary: &Vocabulary, parts: &Text<'_>) -> HeldOut {
        let stream = text::stream(vocabulary, &parts.held_out, &mut Rng::keyed(&[]), 0.0);
        HeldOut { stream, bytes: parts.held_out_bytes }
    }
}

/// One shard's memory.
#[derive(Debug)]
struct Shard {
    network: Network,
    gradient: Vec<f32>,
}

#[derive(Debug)]
struct Trainer<'a> {
    recipe: Recipe,
    vocabulary: &'a Vocabulary,
    speeches: &'a [&'a str],
    state: State,
    shards: [Shard; THREADS],
    /// Tokens of the training text in its ordinary spelling.
    stream_len: usize,
    epoch: Option<Epoch>,
}

/// One pass over the training text.
#[derive(Debug)]
struct Epoch {
    index: u32,
    stream: Vec<u32>,
    /// Where each window starts, shuffled.
    starts: Vec<usize>,
}

impl<'a> Trainer<'a> {
    fn new(recipe: Recipe, vocabulary: &'a Vocabulary, parts: &'a Text<'a>, state: State) -> Trainer<'a> {
        let count = Ranges::of(&recipe.shape).count();
        let tokens = recipe.step_tokens / THREADS;
        assert!(tokens.is_multiple_of(recipe.window_len) && tokens.is_multiple_of(recipe.context_len));
        let shards = std::array::from_fn(|_| Shard {
            network: Network::new(recipe.shape, tokens, recipe.context_len),
            gradient: vec![0.0; count],
        });
        let stream_len = text::stream(vocabulary, &parts.training, &mut Rng::keyed(&[]), 0.0).len();
        Trainer { recipe, vocabulary, speeches: &parts.training, state, shards, stream_len, epoch: None }
    }

    /// Takes one step and returns its loss in nats per token.
    fn step(&mut self) -> f64 {
        let Recipe { seed, steps, step_tokens, .. } = self.recipe;
        let step = self.state.step;
        let (inputs, targets, window_len) = self.windows(step);
        let dropout_numerator = self.recipe.dropout_numerator;
        let parameters = &self.state.parameters;
        let shard_tokens = step_tokens / THREADS;
        let losses = thread::scope(|scope| {
            let windows = inputs.chunks(shard_tokens).zip(targets.chunks(shard_tokens)).enumerate();
            let running = self.shards.iter_mut().zip(windows).map(|(shard, (index, (inputs, targets)))| {
                let key = [seed, u64::from(step), index as u64];
                let dropout = Dropout { numerator: dropout_numerator, key };
                let scale = 1.0 / step_tokens as f32;
                scope.spawn(move || {
                    let Shard { network, gradient } = shard;
                    gradient.fill(0.0);
                    let windows = Windows { inputs, targets, window_len };
                    network.learn(parameters, windows, dropout, scale, gradient)
                })
            });
            let running: Vec<_> = running.collect();
            running.into_iter().map(|thread| thread.join().expect("a shard runs to its end")).sum::<f64>()
        });
        let (first, rest) = self.shards.split_first_mut().expect("at least one shard");
        for shard in rest {
            first.gradient.iter_mut().zip(&shard.gradient).for_each(|(to, from)| *to += from);
        }
        self.state.advance(&self.recipe.shape, &self.recipe.optimiser, steps, &first.gradient);
        losses / step_tokens as f64
    }

    /// Inputs, targets and window length of a step: a function of recipe and step alone.
    fn windows(&mut self, step: u32) -> (Vec<u32>, Vec<u32>, usize) {
        let Recipe { seed, step_tokens, window_len, context_len, whole_context_every, .. } = self.recipe;
        let epoch_steps = (self.stream_len / step_tokens).max(1) as u32;
        let index = step / epoch_steps;
        if self.epoch.as_ref().is_none_or(|epoch| epoch.index != index) {
            self.epoch = Some(self.new_epoch(index));
        }
        let Epoch { stream, starts, .. } = self.epoch.as_ref().expect("just made");

        let whole_context = step % whole_context_every == whole_context_every - 1;
        let window_len = if whole_context { context_len } else { window_len };
        let windows = step_tokens / window_len;
        let starts: Vec<usize> = if whole_context {
            let mut rng = Rng::keyed(&[seed, u64::from(step), 0x10_7e]);
            (0..windows).map(|_| rng.below(stream.len() - window_len)).collect()
        } else {
            let from = (step % epoch_steps) as usize * windows;
            (from..from + windows).map(|at| starts[at % starts.len()]).collect()
        };
        let tokens = |shift: usize| {
            let windows = starts.iter().map(|start| &stream[start + shift..][..window_len]);
            windows.flatten().copied().collect()
        };
        (tokens(0), tokens(1), window_len)
    }

    fn new_epoch(&self, index: u32) -> Epoch {
        let Recipe { seed, steps, step_tokens, window_len, .. } = self.recipe;
        let mut rng = Rng::keyed(&[seed, u64::from(index), 0xe70c]);
        let progress = index as usize * self.stream_len / step_tokens;
        let varied = progress < (steps as f32 * self.recipe.merge_dropout_until) as usize;
        let merge_dropout = if varied { self.recipe.merge_dropout } else { 0.0 };
        let stream = text::stream(self.vocabulary, self.speeches, &mut rng, merge_dropout);
        let phase = rng.below(window_len);
        let mut starts: Vec<usize> = (phase..stream.len() - window_len).step_by(window_len).collect();
        rng.shuffle(&mut starts);
        Epoch { index, stream, starts }
    }

    /// Loss on the held-out text per byte of it, blank lines included.
    ///
    /// Windows of the whole context advance by half of it, so that every token but the first ones is
    /// predicted from at least half a context.
    fn bits_per_byte(&mut self, parameters: &[f32], held_out: &HeldOut) -> f64 {
        let window_len = self.recipe.context_len.min(held_out.stream.len() - 1);
        let targets_end = held_out.stream.len() - 1;
        let last = targets_end - window_len;
        let starts: Vec<usize> = (0..last).step_by((window_len / 2).max(1)).chain([last]).collect();
        let shares: Vec<&[usize]> = starts.chunks(starts.len().div_ceil(THREADS)).collect();
        let nats = thread::scope(|scope| {
            let starts = &starts;
            let running = self.shards.iter_mut().zip(shares).map(|(shard, share)| {
                scope.spawn(move || {
                    let mut nats = 0.0;
                    for start in share {
                        let inputs = &held_out.stream[*start..start + window_len];
                        let targets = &held_out.stream[start + 1..=start + window_len];
                        let windows = Windows { inputs, targets, window_len };
                        let losses = shard.network.losses(parameters, windows);
                        // What the window before has already predicted is not counted again.
                        let before = starts.iter().rev().find(|other| *other < start);
                        let counted = before.map_or(0, |before| before + window_len - start);
                        nats += losses[counted..].iter().map(|loss| f64::from(*loss)).sum::<f64>();
                    }
                    nats
                })
            });
            let running: Vec<_> = running.collect();
            running.into_iter().map(|thread| thread.join().expect("a shard runs to its end")).sum::<f64>()
        });
        nats / LN_2 / held_out.bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speeches with a pattern that a tiny network picks up at once.
    fn plays() -> String {
        let lines = ["ANNA:\nSpeak, speak.", "BERT:\nWe know't, we know't.", "ANNA:\nNo more talking on't."];
        (0..240).map(|index| lines[index % 3]).collect::<Vec<_>>().join("\n\n")
    }

    fn recipe() -> Recipe {
        let shape = Shape {
            vocabulary: 280,
            width: 32,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            feed_forward: 32,
        };
        let default = Recipe::default();
        let optimiser = optimiser::Settings { warm_up_steps: 5, rate: 1e-2, ..default.optimiser };
        Recipe { steps: 24, shape, optimiser, step_tokens: 256, window_len: 32, context_len: 64, ..default }
    }

    #[test]
    fn an_interrupted_training_ends_the_same() {
        let text = plays();
        let parts = Text::split(&text, 0.1).unwrap();
        let vocabulary = Vocabulary::learn(&parts.training, recipe().shape.vocabulary);
        let fresh = State::new(network::initial_parameters(&recipe().shape, 1));
        let train = |state: State, until: u32| {
            let mut trainer = Trainer::new(recipe(), &vocabulary, &parts, state);
            let losses: Vec<f64> = (trainer.state.step..until).map(|_| trainer.step()).collect();
            (trainer.state, losses)
        };
        let (whole, losses) = train(fresh.clone(), 24);
        assert!(losses[23] < 0.5 * losses[0], "{losses:?}");
        let (half, _) = train(fresh, 11);
        let (resumed, _) = train(half, 24);
        assert!(whole == resumed, "the same state, to the bit");
    }

    #[test]
    fn every_held_out_token_is_counted_once() {
        let text = plays();
        let parts = Text::split(&text, 0.1).unwrap();
        let vocabulary = Vocabulary::learn(&parts.training, recipe().shape.vocabulary);
        let mut held_out = HeldOut::new(&vocabulary, &parts);
        let state = State::new(vec![0.0; Ranges::of(&recipe().shape).count()]);
        let silent = state.parameters.clone();
        let mut trainer = Trainer::new(recipe(), &vocabulary, &parts, state);
        // A network of zeros gives every token the same chance. Lengths around whole windows.
        for len in [20, 64, 65, 66, 96, 97, 98, 160, 161] {
            held_out.stream.truncate(161);
            held_out.stream = held_out.stream.iter().cycle().take(len).copied().collect();
            let expected = (len - 1) as f64 * 280f64.log2() / held_out.bytes as f64;
            let bits = trainer.bits_per_byte(&silent, &held_out);
            assert!((bits - expected).abs() < 1e-5 * expected, "{len} tokens: {bits} {expected}");
        }
    }

    #[test]
    fn the_default_recipe_fits_the_kernels() {
        let Recipe { shape, context_len, window_len, step_tokens, .. } = Recipe::default();
        for columns in [shape.width, shape.query_width(), shape.feed_forward] {
            assert!(columns.is_multiple_of(32), "{columns} columns are whole blocks of Q8_0");
        }
        assert!(context_len.is_multiple_of(window_len) && step_tokens.is_multiple_of(THREADS * context_len));
    }
}
