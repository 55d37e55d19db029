//! The network: a small Llama, its loss, and the gradient of that loss, all by hand.
//!
//! In:     one flat vector of parameters, windows of token ids, a dropout and the key of its masks.
//! Out:    the summed cross-entropy in nats; its gradient, added to a flat vector.
//! Holds:  the result depends on parameters, windows and key alone. Products come from a library and
//!         may round differently on another kind of CPU: training repeats to the bit on one kind.
//! Absent: the arithmetic users are served with. That is the engine's, specified to the bit.
//!
//! Shapes: N tokens are `windows × window_len`, window after window; every matrix is row-major, and
//! weights are [out, in] as in GGUF. Source: Touvron et al. 2023; Su et al. 2021 (pairs of
//! neighbouring elements rotate, as GGUF's `llama` has it); Ainslie et al. 2023; Shazeer 2020.

use std::ops::Range;

use super::product::{Matrix, MatrixMut, add_product, set_product};
use crate::rng::Rng;

/// Added to the mean square under the root of each norm.
pub const NORM_EPSILON: f32 = 1e-5;
/// The slowest rotary pair turns once in about this many radians' worth of positions.
pub const ROPE_BASE: f32 = 10_000.0;
/// Queries handled at a time; keys beyond the block's last query are never touched.
const QUERY_BLOCK: usize = 128;

/// The sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements between the feed-forward matrices.
    pub feed_forward: usize,
}

impl Shape {
    /// Elements of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of all key heads, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }
}

/// Where one block's parameters lie.
#[derive(Clone, Debug)]
pub struct LayerRanges {
    /// [width].
    pub attention_norm: Range<usize>,
    /// [query_width + 2 · kv_width, width]: queries, keys, values.
    pub qkv: Range<usize>,
    /// [width, query_width].
    pub attention_output: Range<usize>,
    /// [width].
    pub feed_forward_norm: Range<usize>,
    /// [2 · feed_forward, width]: gate, then up.
    pub gate_up: Range<usize>,
    /// [width, feed_forward].
    pub down: Range<usize>,
}

/// Where each parameter lies in the flat vector.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// [vocabulary, width]; input embedding and output matrix at once.
    pub embedding: Range<usize>,
    /// One per block.
    pub layers: Vec<LayerRanges>,
    /// [width].
    pub output_norm: Range<usize>,
}

impl Ranges {
    /// The layout of a network of this shape.
    pub fn of(shape: &Shape) -> Ranges {
        let mut end = 0;
        let mut next = |count: usize| {
            end += count;
            end - count..end
        };
        let embedding = next(shape.vocabulary * shape.width);
        let layers = (0..shape.layers)
            .map(|_| LayerRanges {
                attention_norm: next(shape.width),
                qkv: next(shape.qkv_width() * shape.width),
                attention_output: next(shape.width * shape.query_width()),
                feed_forward_norm: next(shape.width),
                gate_up: next(2 * shape.feed_forward * shape.width),
                down: next(shape.width * shape.feed_forward),
            })
            .collect();
        let output_norm = next(shape.width);
        Ranges { embedding, layers, output_norm }
    }

    /// Parameters in all.
    pub fn count(&self) -> usize {
        self.output_norm.end
    }

    /// The norms: vectors near 1, which are neither decayed nor quantised.
    pub fn norms(&self) -> impl Iterator<Item = &Range<usize>> {
        let of_layers =
            self.layers.iter().flat_map(|layer| [&layer.attention_norm, &layer.feed_forward_norm]);
        of_layers.chain([&self.output_norm])
    }

    /// The matrices, each with the number of elements of its rows.
    pub fn matrices(&self, shape: &Shape) -> Vec<(Range<usize>, usize)> {
        let mut matrices = vec![(self.embedding.clone(), shape.width)];
        for layer in &self.layers {
            matrices.push((layer.qkv.clone(), shape.width));
            matrices.push((layer.attention_output.clone(), shape.query_width()));
            matrices.push((layer.gate_up.clone(), shape.width));
            matrices.push((layer.down.clone(), shape.feed_forward));
        }
        matrices
    }
}

/// Fresh parameters: bell-shaped matrices, norms of 1. What enters the residual stream starts
/// smaller by the root of the number of additions to it.
pub fn initial_parameters(shape: &Shape, seed: u64) -> Vec<f32> {
    let ranges = Ranges::of(shape);
    let mut parameters = vec![0.0; ranges.count()];
    let mut rng = Rng::keyed(&[seed, 0x1417]);
    let mut fill = |range: &Range<usize>, deviation: f32| {
        parameters[range.clone()].iter_mut().for_each(|value| *value = deviation * rng.bell());
    };
    let inverse_root = |fan_in: usize| 1.0 / (fan_in as f32).sqrt();
    let residual = inverse_root(2 * shape.layers);
    fill(&ranges.embedding, inverse_root(shape.width));
    for layer in &ranges.layers {
        fill(&layer.qkv, inverse_root(shape.width));
        fill(&layer.attention_output, residual * inverse_root(shape.query_width()));
        fill(&layer.gate_up, inverse_root(shape.width));
        fill(&layer.down, residual * inverse_root(shape.feed_forward));
    }
    for norm in ranges.norms() {
        parameters[norm.clone()].fill(1.0);
    }
    parameters
}

/// Dropout: each element of the embedding and of what each sub-layer adds is zeroed with
/// probability `numerator / 256`, the others scaled up to keep the mean.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Out of 256; 0 turns dropout off.
    pub numerator: u8,
    /// Names the masks of this pass.
    pub key: [u64; 3],
}

impl Dropout {
    /// None at all, as when evaluating.
    pub const OFF: Dropout = Dropout { numerator: 0, key: [0; 3] };

    fn apply(&self, site: u64, values: &mut [f32]) {
        if self.numerator == 0 {
            return;
        }
        let keep = 256.0 / (256.0 - f32::from(self.numerator));
        let mut rng = Rng::keyed(&[self.key[0], self.key[1], self.key[2], site]);
        for values in values.chunks_mut(8) {
            let bytes = rng.next_u64().to_le_bytes();
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = if byte < self.numerator { 0.0 } else { *value * keep };
            }
        }
    }
}

/// Tokens in windows of `window_len`, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    /// [N]: what the network reads.
    pub inputs: &'a [u32],
    /// [N]: what should follow each of them.
    pub targets: &'a [u32],
    /// Tokens that see each other.
    pub window_len: usize,
}

/// What a block keeps of the forward pass for the backward pass.
#[derive(Debug)]
struct LayerTrace {
    /// [N, width]: the residual stream on entry.
    input: Vec<f32>,
    /// [N, width]: normalised input.
    attention_input: Vec<f32>,
    /// [N, qkv_width], queries and keys rotated.
    qkv: Vec<f32>,
    /// [N, query_width].
    attended: Vec<f32>,
    /// [N, width]: the residual stream between the two halves.
    middle: Vec<f32>,
    /// [N, width]: normalised middle.
    feed_forward_input: Vec<f32>,
    /// [N, 2 · feed_forward].
    gate_up: Vec<f32>,
    /// [N, feed_forward].
    gated: Vec<f32>,
}

/// A network's working memory for up to a fixed number of tokens.
#[derive(Debug)]
pub struct Network {
    shape: Shape,
    ranges: Ranges,
    traces: Vec<LayerTrace>,
    /// [N, width]: the residual stream, and on the way back its gradient.
    stream: Vec<f32>,
    /// [N, width].
    normed: Vec<f32>,
    /// [N, vocabulary]: logits, and on the way back their gradient.
    logits: Vec<f32>,
    /// Gradients of the wider intermediate values.
    wide: [Vec<f32>; 2],
    /// [N, width].
    narrow: Vec<f32>,
    /// [QUERY_BLOCK, window_len], twice: attention weights and their gradients.
    scores: [Vec<f32>; 2],
    /// [window_len, head_dim]: cosine and sine by position and pair, interleaved.
    rotary: Vec<f32>,
}

impl Network {
    /// Memory for passes over at most `tokens` tokens in windows of at most `window_len_max`.
    pub fn new(shape: Shape, tokens: usize, window_len_max: usize) -> Network {
        assert_eq!(shape.heads % shape.kv_heads, 0, "query heads share key heads evenly");
        assert_eq!(shape.head_dim % 2, 0, "rotary turns pairs");
        let zeros = |width: usize| vec![0.0; tokens * width];
        let trace = |_| LayerTrace {
            input: zeros(shape.width),
            attention_input: zeros(shape.width),
            qkv: zeros(shape.qkv_width()),
            attended: zeros(shape.query_width()),
            middle: zeros(shape.width),
            feed_forward_input: zeros(shape.width),
            gate_up: zeros(2 * shape.feed_forward),
            gated: zeros(shape.feed_forward),
        };
        let widest = (2 * shape.feed_forward).max(shape.qkv_width());
        Network {
            ranges: Ranges::of(&shape),
            traces: (0..shape.layers).map(trace).collect(),
            stream: zeros(shape.width),
            normed: zeros(shape.width),
            logits: zeros(shape.vocabulary),
            wide: [zeros(widest), zeros(shape.feed_forward.max(shape.query_width()))],
            narrow: zeros(shape.width),
            scores: [0; 2].map(|_| vec![0.0; QUERY_BLOCK * window_len_max]),
            rotary: rotary_table(shape.head_dim, window_len_max),
            shape,
        }
    }

    /// Cross-entropy in nats of each target, in order, without dropout.
    pub fn losses(&mut self, parameters: &[f32], windows: Windows<'_>) -> Vec<f32> {
        self.forward(parameters, windows, Dropout::OFF);
        let rows = self.logits.chunks_exact_mut(self.shape.vocabulary);
        rows.zip(windows.targets).map(|(row, target)| loss_and_gradient(row, *target, 1.0)).collect()
    }

    /// The sum of the losses in nats; adds the gradient of `scale` times that sum to `gradient`.
    pub fn learn(
        &mut self,
        parameters: &[f32],
        windows: Windows<'_>,
        dropout: Dropout,
        scale: f32,
        gradient: &mut [f32],
    ) -> f64 {
        self.forward(parameters, windows, dropout);
        let rows = self.logits.chunks_exact_mut(self.shape.vocabulary).zip(windows.targets);
        let loss = rows.map(|(row, target)| f64::from(loss_and_gradient(row, *target, scale))).sum();
        self.backward(parameters, windows, dropout, gradient);
        loss
    }

    fn forward(&mut self, parameters: &[f32], windows: Windows<'_>, dropout: Dropout) {
        let Shape { vocabulary, width, feed_forward, .. } = self.shape;
        let Windows { inputs, targets, window_len } = windows;
        let count = inputs.len();
        assert_eq!(count, targets.len(), "a target for every input");
        assert_eq!(count % window_len, 0, "whole windows");
        assert_eq!(parameters.len(), self.ranges.count());
        let matrix = |range: &Range<usize>, columns| Matrix::new(&parameters[range.clone()], columns);
        let stream = &mut self.stream[..count * width];
        let embedding = &parameters[self.ranges.embedding.clone()];
        for (row, token) in stream.chunks_exact_mut(width).zip(inputs) {
            row.copy_from_slice(&embedding[*token as usize * width..][..width]);
        }
        dropout.apply(0, stream);

        for (index, (layer, trace)) in self.ranges.layers.iter().zip(&mut self.traces).enumerate() {
            let qkv_width = self.shape.qkv_width();
            let query_width = self.shape.query_width();
            trace.input[..count * width].copy_from_slice(stream);
            let attention_input = &mut trace.attention_input[..count * width];
            rms_norm(stream, &parameters[layer.attention_norm.clone()], attention_input);
            let qkv = &mut trace.qkv[..count * qkv_width];
            set_product(
                MatrixMut::new(qkv, qkv_width),
                Matrix::new(attention_input, width),
                matrix(&layer.qkv, width).transposed(),
            );
            rotate_all(&self.shape, qkv, &self.rotary, window_len, 1.0);
            let attended = &mut trace.attended[..count * query_width];
            attend(&self.shape, qkv, window_len, &mut self.scores[0], attended);
            let added = &mut self.normed[..count * width];
            set_product(
                MatrixMut::new(added, width),
                Matrix::new(attended, query_width),
                matrix(&layer.attention_output, query_width).transposed(),
            );
            dropout.apply(2 * index as u64 + 1, added);
            add(stream, added);

            trace.middle[..count * width].copy_from_slice(stream);
            let feed_forward_input = &mut trace.feed_forward_input[..count * width];
            rms_norm(stream, &parameters[layer.feed_forward_norm.clone()], feed_forward_input);
            let gate_up = &mut trace.gate_up[..count * 2 * feed_forward];
            set_product(
                MatrixMut::new(gate_up, 2 * feed_forward),
                Matrix::new(feed_forward_input, width),
                matrix(&layer.gate_up, width).transposed(),
            );
            let gated = &mut trace.gated[..count * feed_forward];
            swiglu(gate_up, feed_forward, gated);
            set_product(
                MatrixMut::new(added, width),
                Matrix::new(gated, feed_forward),
                matrix(&layer.down, feed_forward).transposed(),
            );
            dropout.apply(2 * index as u64 + 2, added);
            add(stream, added);
        }

        let normed = &mut self.normed[..count * width];
        rms_norm(stream, &parameters[self.ranges.output_norm.clone()], normed);
        set_product(
            MatrixMut::new(&mut self.logits[..count * vocabulary], vocabulary),
            Matrix::new(normed, width),
            matrix(&self.ranges.embedding, width).transposed(),
        );
    }

    /// Expects the trace of the forward pass, and the gradient of the logits in their place.
    fn backward(&mut self, parameters: &[f32], windows: Windows<'_>, dropout: Dropout, gradient: &mut [f32]) {
        let Shape { vocabulary, width, feed_forward, .. } = self.shape;
        let Windows { inputs, window_len, .. } = windows;
        let (qkv_width, query_width) = (self.shape.qkv_width(), self.shape.query_width());
        let count = inputs.len();
        assert_eq!(gradient.len(), self.ranges.count());
        let matrix = |range: &Range<usize>, columns| Matrix::new(&parameters[range.clone()], columns);
        let norm = |range: &Range<usize>| &parameters[range.clone()];
        let logits = Matrix::new(&self.logits[..count * vocabulary], vocabulary);
        let narrow = &mut self.narrow[..count * width];

        // The output matrix, then the last norm: from here `stream` carries the gradient.
        add_product(
            MatrixMut::new(&mut gradient[self.ranges.embedding.clone()], width),
            logits.transposed(),
            Matrix::new(&self.normed[..count * width], width),
        );
        set_product(MatrixMut::new(narrow, width), logits, matrix(&self.ranges.embedding, width));
        let last = self.stream[..count * width].to_vec();
        let stream = &mut self.stream[..count * width];
        stream.fill(0.0);
        let output_norm = self.ranges.output_norm.clone();
        rms_norm_backward(&last, norm(&output_norm), narrow, stream, &mut gradient[output_norm]);

        for (index, (layer, trace)) in self.ranges.layers.iter().zip(&self.traces).enumerate().rev() {
            // The feed-forward half.
            narrow.copy_from_slice(stream);
            dropout.apply(2 * index as u64 + 2, narrow);
            add_product(
                MatrixMut::new(&mut gradient[layer.down.clone()], feed_forward),
                Matrix::new(narrow, width).transposed(),
                Matrix::new(&trace.gated[..count * feed_forward], feed_forward),
            );
            let [wide, gated] = &mut self.wide;
            let gated = &mut gated[..count * feed_forward];
            set_product(
                MatrixMut::new(gated, feed_forward),
                Matrix::new(narrow, width),
                matrix(&layer.down, feed_forward),
            );
            let gate_up = &mut wide[..count * 2 * feed_forward];
            swiglu_backward(&trace.gate_up[..count * 2 * feed_forward], feed_forward, gated, gate_up);
            add_product(
                MatrixMut::new(&mut gradient[layer.gate_up.clone()], width),
                Matrix::new(gate_up, 2 * feed_forward).transposed(),
                Matrix::new(&trace.feed_forward_input[..count * width], width),
            );
            set_product(
                MatrixMut::new(narrow, width),
                Matrix::new(gate_up, 2 * feed_forward),
                matrix(&layer.gate_up, width),
            );
            let range = layer.feed_forward_norm.clone();
            let middle = &trace.middle[..count * width];
            rms_norm_backward(middle, norm(&range), narrow, stream, &mut gradient[range]);

            // The attention half.
            narrow.copy_from_slice(stream);
            dropout.apply(2 * index as u64 + 1, narrow);
            add_product(
                MatrixMut::new(&mut gradient[layer.attention_output.clone()], query_width),
                Matrix::new(narrow, width).transposed(),
                Matrix::new(&trace.attended[..count * query_width], query_width),
            );
            let [wide, attended] = &mut self.wide;
            let attended = &mut attended[..count * query_width];
            set_product(
                MatrixMut::new(attended, query_width),
                Matrix::new(narrow, width),
                matrix(&layer.attention_output, query_width),
            );
            let qkv = &mut wide[..count * qkv_width];
            let trace_qkv = &trace.qkv[..count * qkv_width];
            attend_backward(&self.shape, trace_qkv, window_len, attended, &mut self.scores, qkv);
            rotate_all(&self.shape, qkv, &self.rotary, window_len, -1.0);
            add_product(
                MatrixMut::new(&mut gradient[layer.qkv.clone()], width),
                Matrix::new(qkv, qkv_width).transposed(),
                Matrix::new(&trace.attention_input[..count * width], width),
            );
            set_product(
                MatrixMut::new(narrow, width),
                Matrix::new(qkv, qkv_width),
                matrix(&layer.qkv, width),
            );
            let range = layer.attention_norm.clone();
            let input = &trace.input[..count * width];
            rms_norm_backward(input, norm(&range), narrow, stream, &mut gradient[range]);
        }

        dropout.apply(0, stream);
        let embedding = &mut gradient[self.ranges.embedding.clone()];
        for (row, token) in stream.chunks_exact(width).zip(inputs) {
            add(&mut embedding[*token as usize * width..][..width], row);
        }
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sixteen chains, so that the compiler may use vectors without reordering anything.
    let mut lanes = [0.0; 16];
    let (a_chunks, a_rest) = a.as_chunks::<16>();
    let (b_chunks, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// e^x with a relative error under 1e−6; arguments are clamped to ±87. Written so that the compiler
/// turns a loop of it into vector code, which a call into libm is not.
#[inline]
fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    let t = x.clamp(-87.0, 87.0) * std::f32::consts::LOG2_E;
    let shifted = t + SHIFT;
    let f = t - (shifted - SHIFT);
    let mut p = 1.540_353e-4;
    for coefficient in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0]
    {
        p = p * f + coefficient;
    }
    let power = (shifted.to_bits() << 23).wrapping_add(127 << 23);
    p * f32::from_bits(power)
}

/// Replaces a row of logits by `scale` times the gradient of its loss, and returns the loss in nats.
fn loss_and_gradient(row: &mut [f32], target: u32, scale: f32) -> f32 {
    let target = target as usize;
    let greatest = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let margin = greatest - row[target];
    row.iter_mut().for_each(|value| *value = exp(*value - greatest));
    let total: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value *= scale / total);
    row[target] -= scale;
    total.ln() + margin
}

fn inverse_rms(row: &[f32]) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + NORM_EPSILON).sqrt()
}

fn rms_norm(input: &[f32], weight: &[f32], output: &mut [f32]) {
    let width = weight.len();
    for (input, output) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        let inverse = inverse_rms(input);
        for ((output, input), weight) in output.iter_mut().zip(input).zip(weight) {
            *output = input * inverse * weight;
        }
    }
}

/// Adds the gradients of the norm's input and weight. `output_gradient` is overwritten.
fn rms_norm_backward(
    input: &[f32],
    weight: &[f32],
    output_gradient: &mut [f32],
    input_gradient: &mut [f32],
    weight_gradient: &mut [f32],
) {
    let width = weight.len();
    let rows = input.chunks_exact(width).zip(output_gradient.chunks_exact_mut(width));
    for ((input, upper), lower) in rows.zip(input_gradient.chunks_exact_mut(width)) {
        let inverse = inverse_rms(input);
        for at in 0..width {
            weight_gradient[at] += upper[at] * input[at] * inverse;
            upper[at] *= weight[at];
        }
        let along = dot(upper, input) * inverse * inverse / width as f32;
        for at in 0..width {
            lower[at] += inverse * (upper[at] - input[at] * along);
        }
    }
}

fn swiglu(gate_up: &[f32], feed_forward: usize, gated: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * feed_forward).zip(gated.chunks_exact_mut(feed_forward));
    for (gate_up, gated) in rows {
        let (gate, up) = gate_up.split_at(feed_forward);
        for ((gated, gate), up) in gated.iter_mut().zip(gate).zip(up) {
            *gated = gate * up / (1.0 + exp(-gate));
        }
    }
}

fn swiglu_backward(gate_up: &[f32], feed_forward: usize, gated_gradient: &[f32], gradient: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * feed_forward).zip(gated_gradient.chunks_exact(feed_forward));
    for ((gate_up, upper), lower) in rows.zip(gradient.chunks_exact_mut(2 * feed_forward)) {
        let (gate, up) = gate_up.split_at(feed_forward);
        let (gate_gradient, up_gradient) = lower.split_at_mut(feed_forward);
        for at in 0..feed_forward {
            let sigmoid = 1.0 / (1.0 + exp(-gate[at]));
            let silu = gate[at] * sigmoid;
            up_gradient[at] = upper[at] * silu;
            gate_gradient[at] = upper[at] * up[at] * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
}

fn rotary_table(head_dim: usize, positions: usize) -> Vec<f32> {
    let mut table = Vec::with_capacity(positions * head_dim);
    for position in 0..positions {
        for pair in 0..head_dim / 2 {
            let frequency = f64::from(ROPE_BASE).powf(-2.0 * pair as f64 / head_dim as f64);
            let angle = position as f64 * frequency;
            table.extend([angle.cos() as f32, angle.sin() as f32]);
        }
    }
    table
}

/// Turns every query and key by its position, or back when `direction` is −1.
fn rotate_all(shape: &Shape, qkv: &mut [f32], table: &[f32], window_len: usize, direction: f32) {
    let turned = shape.query_width() + shape.kv_width();
    for (index, row) in qkv.chunks_exact_mut(shape.qkv_width()).enumerate() {
        let angles = &table[index % window_len * shape.head_dim..][..shape.head_dim];
        for head in row[..turned].chunks_exact_mut(shape.head_dim) {
            for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
                let [x, y] = *pair;
                let (cosine, sine) = (angle[0], angle[1] * direction);
                *pair = [x * cosine - y * sine, x * sine + y * cosine];
            }
        }
    }
}

/// One head's share of a window of rows: `head_dim` columns starting at `column`.
fn head<'a>(shape: &Shape, rows: &'a [f32], width: usize, column: usize) -> Matrix<'a> {
    Matrix::new(rows, width).columns(column..column + shape.head_dim)
}

/// Fills `weights` [queries, keys] with the attention of a block of queries, the last of which sits
/// at position `keys − 1`; what lies in a query's future is zero.
fn attention_weights(q: Matrix<'_>, k: Matrix<'_>, head_dim: usize, weights: &mut [f32]) {
    let (queries, keys) = (q.rows(), k.rows());
    set_product(MatrixMut::new(weights, keys), q, k.transposed());
    let scale = 1.0 / (head_dim as f32).sqrt();
    for (index, row) in weights.chunks_exact_mut(keys).enumerate() {
        let (seen, future) = row.split_at_mut(keys - queries + index + 1);
        let greatest = seen.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        seen.iter_mut().for_each(|value| *value = exp((*value - greatest) * scale));
        let inverse = 1.0 / seen.iter().sum::<f32>();
        seen.iter_mut().for_each(|value| *value *= inverse);
        future.fill(0.0);
    }
}

/// Causal attention in every window; attended [N, query_width].
fn attend(shape: &Shape, qkv: &[f32], window_len: usize, scores: &mut [f32], attended: &mut [f32]) {
    let (qkv_width, query_width, head_dim) = (shape.qkv_width(), shape.query_width(), shape.head_dim);
    let windows = qkv.chunks_exact(window_len * qkv_width);
    for (qkv, attended) in windows.zip(attended.chunks_exact_mut(window_len * query_width)) {
        for query_head in 0..shape.heads {
            let kv_head = query_head / (shape.heads / shape.kv_heads);
            let q = head(shape, qkv, qkv_width, query_head * head_dim);
            let k = head(shape, qkv, qkv_width, query_width + kv_head * head_dim);
            let v = head(shape, qkv, qkv_width, query_width + shape.kv_width() + kv_head * head_dim);
            let columns = query_head * head_dim..(query_head + 1) * head_dim;
            for from in (0..window_len).step_by(QUERY_BLOCK) {
                let to = (from + QUERY_BLOCK).min(window_len);
                let weights = &mut scores[..(to - from) * to];
                attention_weights(q.rows_in(from..to), k.rows_in(0..to), head_dim, weights);
                let out = MatrixMut::new(&mut attended[from * query_width..to * query_width], query_width);
                set_product(out.columns(columns.clone()), Matrix::new(weights, to), v.rows_in(0..to));
            }
        }
    }
}

/// The gradient of queries, keys and values [N, qkv_width] from that of the attended values. The
/// attention weights are computed anew: cheaper than keeping them.
fn attend_backward(
    shape: &Shape,
    qkv: &[f32],
    window_len: usize,
    attended_gradient: &[f32],
    scores: &mut [Vec<f32>; 2],
    gradient: &mut [f32],
) {
    let (qkv_width, query_width, head_dim) = (shape.qkv_width(), shape.query_width(), shape.head_dim);
    let scale = 1.0 / (head_dim as f32).sqrt();
    gradient.fill(0.0);
    let windows = qkv.chunks_exact(window_len * qkv_width);
    let windows = windows.zip(attended_gradient.chunks_exact(window_len * query_width));
    for ((qkv, upper), gradient) in windows.zip(gradient.chunks_exact_mut(window_len * qkv_width)) {
        for query_head in 0..shape.heads {
            let kv_head = query_head / (shape.heads / shape.kv_heads);
            let q_column = query_head * head_dim;
            let k_column = query_width + kv_head * head_dim;
            let v_column = k_column + shape.kv_width();
            let q = head(shape, qkv, qkv_width, q_column);
            let k = head(shape, qkv, qkv_width, k_column);
            let v = head(shape, qkv, qkv_width, v_column);
            let upper = head(shape, upper, query_width, q_column);
            for from in (0..window_len).step_by(QUERY_BLOCK) {
                let to = (from + QUERY_BLOCK).min(window_len);
                let [weights, weights_gradient] = &mut *scores;
                let weights = &mut weights[..(to - from) * to];
                let weights_gradient = &mut weights_gradient[..(to - from) * to];
                let (q, k, v) = (q.rows_in(from..to), k.rows_in(0..to), v.rows_in(0..to));
                let upper = upper.rows_in(from..to);
                attention_weights(q, k, head_dim, weights);
                let mut lower = |rows: Range<usize>, column: usize, left: Matrix<'_>, right: Matrix<'_>| {
                    let rows = &mut gradient[rows.start * qkv_width..rows.end * qkv_width];
                    let out = MatrixMut::new(rows, qkv_width).columns(column..column + head_dim);
                    add_product(out, left, right);
                };
                lower(0..to, v_column, Matrix::new(weights, to).transposed(), upper);
                set_product(MatrixMut::new(weights_gradient, to), upper, v.transposed());
                for (weights, gradient) in weights.chunks_exact(to).zip(weights_gradient.chunks_exact_mut(to))
                {
                    let mean = dot(weights, gradient);
                    for (gradient, weight) in gradient.iter_mut().zip(weights) {
                        *gradient = weight * (*gradient - mean) * scale;
                    }
                }
                let scores_gradient = Matrix::new(weights_gradient, to);
                lower(from..to, q_column, scores_gradient, k);
                lower(0..to, k_column, scores_gradient.transposed(), q);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { vocabulary: 19, width: 16, layers: 2, heads: 4, kv_heads: 2, head_dim: 8, feed_forward: 24 };
    const WINDOW: usize = QUERY_BLOCK + 9;

    fn tokens() -> (Vec<u32>, Vec<u32>) {
        let mut rng = Rng::keyed(&[11]);
        let mut tokens = |_| rng.below(TINY.vocabulary) as u32;
        let inputs = (0..2 * WINDOW).map(&mut tokens).collect();
        (inputs, (0..2 * WINDOW).map(tokens).collect())
    }

    /// The slope of the loss along several directions, by differences and by the gradient.
    #[test]
    fn gradients_match_differences() {
        let ranges = Ranges::of(&TINY);
        let (inputs, targets) = tokens();
        let windows = Windows { inputs: &inputs, targets: &targets, window_len: WINDOW };
        let mut parameters = initial_parameters(&TINY, 5);
        let mut rng = Rng::keyed(&[12]);
        parameters.iter_mut().for_each(|value| *value += 0.05 * rng.bell());
        let mut network = Network::new(TINY, inputs.len(), WINDOW);
        for numerator in [0, 40] {
            let dropout = Dropout { numerator, key: [1, 2, 3] };
            let mut gradient = vec![0.0; ranges.count()];
            let scale = 1.0 / inputs.len() as f32;
            let mut loss = |parameters: &[f32], gradient: &mut [f32]| {
                let sum = network.learn(parameters, windows, dropout, scale, gradient);
                sum * f64::from(scale)
            };
            loss(&parameters, &mut gradient);
            let mut unused = vec![0.0; ranges.count()];
            let tensors = ranges.matrices(&TINY).into_iter().map(|(range, _)| range);
            let tensors: Vec<Range<usize>> = tensors.chain(ranges.norms().cloned()).collect();
            assert_eq!(tensors.iter().map(Range::len).sum::<usize>(), ranges.count());
            for range in tensors {
                let norm = gradient[range.clone()].iter().map(|value| value * value).sum::<f32>().sqrt();
                assert!(norm > 1e-4, "{range:?} has a gradient to speak of: {norm}");
                // Along the gradient itself, and along it with half of its elements left out.
                for kept in 1..=2 {
                    let direction = |at: usize| if at % 2 < kept { gradient[at] / norm } else { 0.0 };
                    let expected: f64 = range.clone().map(|at| f64::from(direction(at) * gradient[at])).sum();
                    let step = 0.02;
                    let mut moved = |sign: f32| {
                        let mut moved = parameters.clone();
                        range.clone().for_each(|at| moved[at] += sign * step * direction(at));
                        loss(&moved, &mut unused)
                    };
                    let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
                    let error = (slope - expected).abs();
                    assert!(
                        error < 0.01 * expected + 2e-5,
                        "{range:?}, dropout {numerator}: {slope} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_future_is_not_seen() {
        let (inputs, targets) = tokens();
        let parameters = initial_parameters(&TINY, 5);
        let mut network = Network::new(TINY, inputs.len(), WINDOW);
        let mut losses = |inputs: &[u32]| {
            network.losses(&parameters, Windows { inputs, targets: &targets, window_len: WINDOW })
        };
        let before = losses(&inputs);
        let mut changed = inputs.clone();
        changed[WINDOW - 2] = (changed[WINDOW - 2] + 1) % TINY.vocabulary as u32;
        let after = losses(&changed);
        assert_eq!(before[..WINDOW - 2], after[..WINDOW - 2]);
        assert_ne!(before[WINDOW - 2..WINDOW], after[WINDOW - 2..WINDOW]);
        assert_eq!(before[WINDOW..], after[WINDOW..]);
    }

    #[test]
    fn exp_is_close() {
        for step in -8_000..8_000 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 1e-5, "{x}: {error}");
        }
    }
}
