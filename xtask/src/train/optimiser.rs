//! AdamW, its schedule, and the state that a resumed training needs.
//!
//! In:     a summed gradient and the step it belongs to.
//! Out:    moved parameters.
//! Holds:  element by element, so threads cannot change the result.
//!
//! Source: Loshchilov & Hutter 2019.

use std::thread;

use super::THREADS;
use super::network::{Ranges, Shape};

/// Constants of the optimiser.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Learning rate after the warm-up.
    pub rate: f32,
    /// The schedule ends at this part of `rate`.
    pub rate_floor: f32,
    /// Steps of linear warm-up.
    pub warm_up_steps: u32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Pull of the matrices towards zero, times the rate.
    pub weight_decay: f32,
    /// The gradient is scaled down to this norm.
    pub gradient_norm_max: f32,
}

impl Settings {
    /// Linear warm-up, then half a cosine down to the floor at `steps`.
    fn rate_at(&self, step: u32, steps: u32) -> f32 {
        if step < self.warm_up_steps {
            return self.rate * (step + 1) as f32 / self.warm_up_steps as f32;
        }
        let progress = (step - self.warm_up_steps) as f32 / (steps - self.warm_up_steps).max(1) as f32;
        let cosine = 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
        self.rate * (self.rate_floor + (1.0 - self.rate_floor) * cosine)
    }
}

/// Parameters under training, and their moments.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps taken.
    pub step: u32,
    /// The network's parameters.
    pub parameters: Vec<f32>,
    /// Running means of the gradient.
    pub first: Vec<f32>,
    /// Running means of its square.
    pub second: Vec<f32>,
}

impl State {
    /// Before the first step.
    pub fn new(parameters: Vec<f32>) -> State {
        let zeros = vec![0.0; parameters.len()];
        State { step: 0, parameters, first: zeros.clone(), second: zeros }
    }

    /// Takes one of `steps` steps along a gradient.
    pub fn advance(&mut self, shape: &Shape, settings: &Settings, steps: u32, gradient: &[f32]) {
        let rate = settings.rate_at(self.step, steps);
        self.step += 1;
        let squares: f64 = gradient.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        let clip = (settings.gradient_norm_max / squares.sqrt() as f32).min(1.0);
        let power = i32::try_from(self.step).expect("fewer steps than 2³¹");
        let correction1 = 1.0 - settings.beta1.powi(power);
        let correction2 = 1.0 - settings.beta2.powi(power);
        for (range, _) in Ranges::of(shape).matrices(shape) {
            self.parameters[range].iter_mut().for_each(|value| *value *= 1.0 - rate * settings.weight_decay);
        }

        let part = self.parameters.len().div_ceil(THREADS);
        let moments = self.first.chunks_mut(part).zip(self.second.chunks_mut(part));
        let parts = self.parameters.chunks_mut(part).zip(moments).zip(gradient.chunks(part));
        thread::scope(|scope| {
            for ((parameters, (first, second)), gradient) in parts {
                scope.spawn(move || {
                    for at in 0..parameters.len() {
                        let slope = gradient[at] * clip;
                        first[at] += (1.0 - settings.beta1) * (slope - first[at]);
                        second[at] += (1.0 - settings.beta2) * (slope * slope - second[at]);
                        let deviation = (second[at] / correction2).sqrt() + 1e-8;
                        parameters[at] -= rate * (first[at] / correction1) / deviation;
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        rate: 0.1,
        rate_floor: 0.1,
        warm_up_steps: 4,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.0,
        gradient_norm_max: 1e9,
    };

    #[test]
    fn the_rate_warms_up_and_comes_down() {
        let rates: Vec<f32> = (0..=20).map(|step| SETTINGS.rate_at(step, 20)).collect();
        assert!((rates[0] - 0.025).abs() < 1e-6 && (rates[3] - 0.1).abs() < 1e-6 && rates[4] == 0.1);
        assert!(rates[4..].is_sorted_by(|a, b| a > b));
        assert!((rates[20] - 0.01).abs() < 1e-6);
    }

    #[test]
    fn a_bowl_is_descended() {
        let shape =
            Shape { vocabulary: 3, width: 2, layers: 0, heads: 1, kv_heads: 1, head_dim: 2, feed_forward: 1 };
        let mut state = State::new(vec![1.0, -2.0, 3.0, 0.5, 0.0, 1.0, -1.0, 2.0]);
        for _ in 0..200 {
            let gradient = state.parameters.clone();
            state.advance(&shape, &SETTINGS, 200, &gradient);
        }
        assert!(state.parameters.iter().all(|value| value.abs() < 0.1), "{:?}", state.parameters);
    }
}
