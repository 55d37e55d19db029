//! Every operation of every instance against the array instance, on random and edge values.

use super::scalar::Scalar;
use super::*;
use crate::Backend;
use crate::backend::Available;
use crate::generate::Generator;

/// A value that is often an edge: zeros, subnormals, ties, powers of two, extremes, infinities, NaNs.
fn float(generator: &mut Generator) -> f32 {
    let sign = if generator.below(2) == 0 { 1.0 } else { -1.0 };
    match generator.below(10) {
        0 => {
            sign * [0.0, 1.0, 0.5, 1.5, 2.5, 127.5, 8388607.5, 8388608.0, 65504.0, 65520.0]
                [generator.below(10)]
        }
        1 => f32::from_bits(generator.below(1 << 23) as u32) * sign,
        2 => sign * f32::from_bits((generator.below(256) as u32) << 23),
        3 => [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN][generator.below(5)],
        4 => (generator.below(4001) as f32 - 2000.0) / 2.0,
        5 => f32::from_bits(generator.next() as u32),
        _ => generator.normal(100.0),
    }
}

struct Record<V>(V, Vec<u32>);

impl<V: Lanes> Record<V> {
    fn floats(&mut self, v: V::Floats) {
        let mut lanes = [0.0; WIDTH];
        self.0.store(&mut lanes, v);
        self.1.extend(crate::testing::bits(&lanes));
    }

    /// Where the operation's result is only specified for numbers.
    fn numbers(&mut self, inputs: [&[f32; WIDTH]; 2], v: V::Floats) {
        let mut lanes = [0.0; WIDTH];
        self.0.store(&mut lanes, v);
        for l in 0..WIDTH {
            let (a, b) = (inputs[0][l], inputs[1][l]);
            if !a.is_nan() && !b.is_nan() {
                // Equal zeros: either.
                self.1.push(if lanes[l] == 0.0 { 0 } else { lanes[l].to_bits() });
            }
        }
    }

    fn ints(&mut self, v: V::Ints) {
        for shift in [0, 8, 16, 24] {
            let mut bytes = [0; WIDTH];
            let shifted = shift_right(self.0, v, shift);
            self.0.store_i8(&mut bytes, shifted);
            self.1.extend(bytes.map(|byte| byte as u32));
        }
    }
}

/// An arithmetic shift through memory: the trait has none, as no kernel needs one.
fn shift_right<V: Lanes>(v: V, a: V::Ints, shift: u32) -> V::Ints {
    // SAFETY: every instance's `Ints` is 16 plain i32, in order.
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(size_of::<V::Ints>(), 64);
        let mut lanes: [i32; WIDTH] = std::mem::transmute_copy(&a);
        lanes.iter_mut().for_each(|lane| *lane >>= shift);
        let _ = v;
        std::mem::transmute_copy(&lanes)
    }
}

fn ints<V: Lanes>(lanes: [i32; WIDTH]) -> V::Ints {
    // SAFETY: as in `shift_right`.
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(size_of::<V::Ints>(), 64);
        std::mem::transmute_copy(&lanes)
    }
}

/// Every operation once, on values from `seed`.
#[inline(always)]
fn probe<V: Vector>(v: V, seed: u64) -> Vec<u32> {
    let generator = &mut Generator::new(seed);
    let mut record = Record(v, Vec::new());
    let [x, y, z]: [[f32; WIDTH]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| float(generator)));
    let (a, b, c) = (v.load(&x), v.load(&y), v.load(&z));
    record.floats(v.splat(x[0]));
    record.floats(v.add(a, b));
    record.floats(v.sub(a, b));
    record.floats(v.mul(a, b));
    record.floats(v.div(a, b));
    record.floats(v.fma(a, b, c));
    record.floats(v.rint(a));
    record.numbers([&x, &y], v.max(a, b));
    record.numbers([&x, &y], v.min(a, b));
    record.ints(v.magnitude(a));
    let numbers = x.map(|x| if x.is_nan() { 1.0 } else { x });
    record.1.push((v.greatest(v.load(&numbers)) + 0.0).to_bits());
    record.1.extend(crate::testing::bits(&[v.tree(a)]));

    let mut halves = [0; WIDTH];
    v.store_f16(&mut halves, v.load(&numbers));
    record.1.extend(halves.map(u32::from));
    let halves: [[u8; 2]; WIDTH] = std::array::from_fn(|_| (generator.next() as u16).to_le_bytes());
    record.floats(v.load_f32(&x.map(f32::to_le_bytes)));
    record.floats(v.load_f16(&halves));
    record.floats(v.load_bf16(&halves));
    let bytes: [u8; WIDTH] = std::array::from_fn(|_| generator.next() as u8);
    record.floats(v.load_u8(&bytes));
    record.floats(v.load_i8(&bytes));

    let small = x.map(|x| if x.abs() < 2e9 { x } else { 0.5 });
    record.ints(v.to_ints(v.load(&small)));
    let i: [i32; WIDTH] = std::array::from_fn(|_| generator.next() as i32);
    let j: [i32; WIDTH] = std::array::from_fn(|_| generator.below(5) as i32 - 2);
    record.ints(v.add_ints(ints::<V>(i), ints::<V>(j)));
    record.ints(v.max_ints(ints::<V>(i), ints::<V>(j)));
    record.ints(v.splat_ints(i[0]));
    record.1.push(v.greatest_int(ints::<V>(i)) as u32);
    record.1.push(v.sum_ints(ints::<V>(i)) as u32);
    record.floats(v.to_floats(ints::<V>(i.map(|i| i >> 7))));
    let exponents: [i32; WIDTH] = std::array::from_fn(|_| 128 - generator.below(300) as i32);
    record.floats(v.power_of_two(ints::<V>(exponents)));
    record.floats(v.power_of_two(ints::<V>(i.map(|i| i.min(128)))));

    let words = || -> [u8; 64] { [0; 64] };
    let [mut w, mut high] = [words(), words()];
    let extreme = generator.below(4);
    for byte in w.iter_mut().chain(&mut high) {
        *byte = [0x00, 0xff, 0x80, generator.next() as u8][if extreme == 3 { 3 } else { generator.below(4) }];
    }
    let q: [[i8; 4]; 8] = std::array::from_fn(|_| {
        std::array::from_fn(|_| match extreme {
            0 => 127,
            1 => -127,
            _ => (generator.below(255) as i32 - 127) as i8,
        })
    });
    let offset = generator.below(1 << 20) as i32 - (1 << 19);
    let w = v.load_words(&w);
    let (low, upper) = (v.low_nibbles(w), v.high_nibbles(w));
    for (word, other) in [(low, upper), (upper, low)] {
        record.ints(dot::<V, Nibbles>(v, [word, other], &q, 8, offset));
    }
    let high = v.load_words(&high);
    let six = [0, 1, 2, 3].map(|field| v.six_bits(low, high, field));
    record.ints(dot::<V, SixBits>(v, [six[0], six[1]], &q, 4, offset));
    record.ints(dot::<V, SixBits>(v, [six[2], six[3]], &q, 4, offset));
    // The bias of bytes is undone by the offset or by the instance.
    let sum: i32 = q.iter().flatten().map(|q| i32::from(*q)).sum();
    record.ints(dot::<V, Bytes>(v, [w, w], &q, 8, -128 * sum));
    record.1
}

#[inline(always)]
fn dot<V: Dot<C>, C>(v: V, words: [V::Words; 2], q: &[[i8; 4]; 8], steps: usize, offset: i32) -> V::Ints {
    let mut sum = v.begin(offset);
    for j in 0..steps {
        sum = v.step(sum, j, v.prepare(words[j % 2]), q[j]);
    }
    v.finish(sum, offset)
}

fn definition(seed: u64) -> Vec<u32> {
    probe(Scalar, seed)
}

instances! {
    fn probed = definition | probe, (seed: u64) -> Vec<u32>;
}

#[test]
fn every_instance_is_the_array_instance() {
    for backend in Backend::available() {
        let available = Available::new(backend).expect("listed as available");
        for seed in 0..20_000 {
            assert_eq!(probed(available, seed), definition(seed), "{backend}, seed {seed}");
        }
    }
}

/// Widening of all 2¹⁶ halves, and rounding next to every boundary between two of them.
#[inline(always)]
fn halves<V: Lanes>(v: V) -> Vec<u32> {
    let mut out = Vec::new();
    for first in (0..=u16::MAX).step_by(WIDTH) {
        let from: [[u8; 2]; WIDTH] = std::array::from_fn(|l| (first + l as u16).to_le_bytes());
        let mut wide = [0.0; WIDTH];
        v.store(&mut wide, v.load_f16(&from));
        out.extend(crate::testing::bits(&wide));
        // Every half itself, its midpoint with the next, and a step to either side of both.
        for (tie, step) in [(false, -1i32), (false, 0), (false, 1), (true, -1), (true, 0), (true, 1)] {
            let near = wide.map(|x| {
                let x = if x.is_nan() { 1.0 } else { x };
                let x = if tie { midpoint(x) } else { x };
                f32::from_bits(x.to_bits().wrapping_add_signed(step))
            });
            let near = near.map(|x| if x.is_nan() { 0.0 } else { x });
            let mut narrow = [0; WIDTH];
            v.store_f16(&mut narrow, v.load(&near));
            out.extend(narrow.map(u32::from));
        }
    }
    out
}

/// Halfway from a half to the one next to it away from zero.
fn midpoint(x: f32) -> f32 {
    let magnitude = x.abs();
    let step = if magnitude < 6.1035156e-5 {
        2.0f32.powi(-24)
    } else {
        f32::from_bits((magnitude.to_bits() & 0x7f80_0000) - (10 << 23))
    };
    (magnitude + step / 2.0).copysign(x)
}

fn halves_definition() -> Vec<u32> {
    halves(Scalar)
}

instances! {
    fn halved = halves_definition | halves, () -> Vec<u32>;
}

#[test]
fn halves_convert_alike_everywhere() {
    let expected = halves_definition();
    for backend in Backend::available() {
        assert!(halved(Available::new(backend).expect("listed")) == expected, "{backend}");
    }
}
