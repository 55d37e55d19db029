//! The forward pass: rows of tokens through every layer.
//!
//! In:     a batch of rows, each belonging to a segment of one sequence, and the KV cache.
//! Out:    the state vectors of the rows asked for, and their logits.
//! Touches: the KV cache: keys and values of every row are stored.
//! Holds:  a row's result depends on its own sequence alone.
//! Absent: what becomes of the logits (`generation`), which rows are computed when (`scheduler`).

use std::ops::Range;

use surety_kernels::{
    Activations, AttentionStep, Executor, Faults, HeadNorms, KvCache, Output, Segment as KvSegment,
};

use crate::image::LayerMatrix;
use crate::model::{LayerFloats, Model};

/// Rows whose logits are computed together.
const LOGIT_ROWS: usize = 32;

/// Consecutive positions of one sequence.
pub(crate) struct Segment<'a> {
    pub(crate) pages: &'a [u32],
    pub(crate) first_position: usize,
    /// Rows of the batch.
    pub(crate) rows: Range<usize>,
}

/// The buffers of a forward pass, made once for the largest batch.
///
/// Names follow the rules of A-7; [rows, n] row-major.
pub(crate) struct Forward {
    x: Vec<f32>,
    normed: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Activations,
    y: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    hidden: Activations,
    /// State vectors of the outputs, quantised `LOGIT_ROWS` at a time.
    states: Vec<f32>,
    state_group: Activations,
    logits: Vec<f32>,
    /// The outputs whose logits are in `logits`.
    group: Range<usize>,
}

impl Forward {
    /// Buffers for batches of at most `rows_max` rows.
    pub(crate) fn new(model: &Model, rows_max: usize) -> Self {
        let architecture = model.architecture();
        let (width, feed_forward) = (architecture.width as usize, architecture.feed_forward as usize);
        let forms = model.activation_forms();
        let zeros = |columns: usize| vec![0.0; rows_max * columns];
        Self {
            x: zeros(width),
            normed: Activations::new(rows_max, width, forms),
            q: zeros(architecture.query_width()),
            k: zeros(architecture.kv_width()),
            v: zeros(architecture.kv_width()),
            attended: Activations::new(rows_max, architecture.query_width(), forms),
            y: zeros(width),
            gate: zeros(feed_forward),
            up: zeros(feed_forward),
            hidden: Activations::new(rows_max, feed_forward, forms),
            states: Vec::new(),
            state_group: Activations::new(LOGIT_ROWS, width, forms),
            logits: Vec::new(),
            group: 0..0,
        }
    }

    /// Computes a batch. `outputs` are the rows whose state vectors are wanted, in increasing order.
    ///
    /// Returns the rows in which a non-finite value turned up, in increasing order.
    pub(crate) fn run(
        &mut self,
        model: &Model,
        executor: &Executor,
        cache: &mut KvCache,
        tokens: &[u32],
        segments: &[Segment<'_>],
        outputs: &[usize],
    ) -> Vec<usize> {
        let architecture = model.architecture();
        let rows = tokens.len();
        let (width, feed_forward) = (architecture.width as usize, architecture.feed_forward as usize);
        let (query_width, kv_width) = (architecture.query_width(), architecture.kv_width());
        let epsilon = architecture.norm_epsilon;
        let faults = Faults::new(rows);
        let segments: Vec<KvSegment<'_>> = segments
            .iter()
            .map(|segment| KvSegment {
                pages: segment.pages,
                first_position: segment.first_position,
                rows: segment.rows.clone(),
            })
            .collect();

        let x = &mut self.x[..rows * width];
        let q = &mut self.q[..rows * query_width];
        let k = &mut self.k[..rows * kv_width];
        let v = &mut self.v[..rows * kv_width];
        let y = &mut self.y[..rows * width];
        let gate = &mut self.gate[..rows * feed_forward];
        let up = &mut self.up[..rows * feed_forward];
        for activations in [&mut self.normed, &mut self.attended, &mut self.hidden] {
            activations.set_rows(rows);
        }

        executor.embed(model.embedding(), tokens, x);
        for (index, floats) in model.layers().iter().enumerate() {
            let LayerFloats { attention_norm, feed_forward_norm, biases, head_norms } = floats;
            let matrix = |which| model.matrix(index, which);
            let bias = |which: usize| biases.as_ref().map(|biases| biases[which].as_slice());

            executor.rms_norm(x, attention_norm, epsilon, &mut self.normed, &faults);
            executor.matmul(
                &self.normed,
                &mut [
                    Output { matrix: matrix(LayerMatrix::Query), bias: bias(0), out: q },
                    Output { matrix: matrix(LayerMatrix::Key), bias: bias(1), out: k },
                    Output { matrix: matrix(LayerMatrix::Value), bias: bias(2), out: v },
                ],
            );
            let step = AttentionStep {
                layer: index,
                heads: architecture.heads as usize,
                norms: head_norms.as_ref().map(|[q, k]| HeadNorms { q, k, eps: epsilon }),
                pairs: architecture.family.rotary_pairs(),
                rotary: model.rotary(),
                segments: &segments,
            };
            executor.attention(&step, q, k, v, cache, &mut self.attended, &faults);
            let attention_output = matrix(LayerMatrix::AttentionOutput);
            executor.matmul(&self.attended, &mut [Output { matrix: attention_output, bias: None, out: y }]);

            executor.add_rms_norm(x, y, feed_forward_norm, epsilon, &mut self.normed, &faults);
            executor.matmul(
                &self.normed,
                &mut [
                    Output { matrix: matrix(LayerMatrix::Gate), bias: None, out: gate },
                    Output { matrix: matrix(LayerMatrix::Up), bias: None, out: up },
                ],
            );
            executor.silu_mul(gate, up, &mut self.hidden, &faults);
            let down = matrix(LayerMatrix::Down);
            executor.matmul(&self.hidden, &mut [Output { matrix: down, bias: None, out: y }]);
            executor.add(x, y);
        }

        // the outputs' rows are gathered first, since few rows of a batch are sampled.
        self.states.clear();
        for &row in outputs {
            self.states.extend_from_slice(&x[row * width..(row + 1) * width]);
        }
        self.group = 0..0;
        faults.rows().collect()
    }

    /// The state vector [width] of one of the outputs of the last `run`, without its logits, into `state`; whether it is finite.
    pub(crate) fn state(
        &self,
        model: &Model,
        executor: &Executor,
        index: usize,
        state: &mut Vec<f32>,
    ) -> bool {
        let width = model.architecture().width as usize;
        state.resize(width, 0.0);
        let x = &self.states[index * width..(index + 1) * width];
        executor.rms_norm_rows(x, model.output_norm(), model.architecture().norm_epsilon, state);
        executor.all_finite(state)
    }

    /// The state vector [width] and the logits [vocabulary] of one of the outputs of the last `run`.
    ///
    /// Outputs are to be taken in increasing order; logits are computed a group at a time.
    pub(crate) fn output(
        &mut self,
        model: &Model,
        executor: &Executor,
        index: usize,
    ) -> (&[f32], &mut [f32]) {
        let architecture = model.architecture();
        let (width, vocabulary) = (architecture.width as usize, architecture.vocabulary as usize);
        if !self.group.contains(&index) {
            let group = index..(index + LOGIT_ROWS).min(self.states.len() / width);
            let x = &self.states[group.start * width..group.end * width];
            self.state_group.set_rows(group.len());
            // A non-finite state makes its logits non-finite, which `generation` finds.
            let faults = Faults::new(group.len());
            executor.rms_norm(
                x,
                model.output_norm(),
                architecture.norm_epsilon,
                &mut self.state_group,
                &faults,
            );
            let length = group.len() * vocabulary;
            if self.logits.len() < length {
                self.logits.resize(length, 0.0);
            }
            let out = &mut self.logits[..length];
            executor.matmul(&self.state_group, &mut [Output { matrix: model.output(), bias: None, out }]);
            for row in faults.rows() {
                out[row * vocabulary] = f32::NAN;
            }
            self.group = group;
        }
        let row = index - self.group.start;
        (self.state_group.row_f32(row), &mut self.logits[row * vocabulary..(row + 1) * vocabulary])
    }
}
