//! Speed of the operations, named `op/key=value`, against the machine's read bandwidth.
//!
//! `cargo bench -p surety-kernels -- [WORD…]` runs the lines that contain every word. Times are medians (and
//! the best) of processor time, so that a busy machine disturbs them little; one line per case on standard output.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::num::NonZeroUsize;
use surety_kernels::{
    Activations, AttentionStep, Backend, Executor, Faults, Format, Forms, KvCache, KvShape, Matrix, Output,
    PAGE_POSITIONS, Region, RotaryPairs, RotaryParameters, RotaryTable, Scaling, Segment, packed_bytes,
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.iter().all(|word| name.contains(word.as_str()));
    for threads in [1, 2] {
        if wanted(&format!("read/threads={threads}")) {
            read(threads);
        }
    }
    for format in Format::ALL {
        for backend in Backend::available() {
            matmul(format, backend, &wanted);
        }
    }
    for backend in Backend::available() {
        rows(backend, &wanted);
        attention(backend, &wanted);
    }
}

/// Seconds of processor time this process has used.
#[cfg(target_os = "linux")]
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn processor_seconds() -> f64 {
    use std::time::SystemTime;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Processor seconds a thread.
struct Seconds {
    median: f64,
    best: f64,
}

impl Seconds {
    /// `amount` per second, in billions: the median, and the best.
    fn rate(&self, amount: f64) -> String {
        format!("{:.1} (best {:.1})", amount / self.median / 1e9, amount / self.best / 1e9)
    }
}

/// Times several runs, after one that warms the caches.
fn time(runs: usize, threads: usize, mut run: impl FnMut()) -> Seconds {
    run();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = processor_seconds();
            run();
            (processor_seconds() - start) / threads as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    Seconds { median: times[runs / 2], best: times[0] }
}

fn executor(backend: Backend, threads: usize) -> Executor {
    Executor::new(backend, NonZeroUsize::new(threads).expect("at least one")).expect("an available backend")
}

/// Reading memory that no cache holds: the ceiling of a decode.
fn read(threads: usize) {
    let bytes = 1 << 30;
    let mut region = Region::zeroed(bytes).expect("a gigabyte");
    region.fill(1);
    let sum = |part: &[u8]| {
        part.chunks_exact(8).map(|x| u64::from_ne_bytes(x.try_into().expect("8"))).fold(0, u64::wrapping_add)
    };
    let seconds = time(5, threads, || {
        std::thread::scope(|scope| {
            for part in region.chunks(bytes / threads) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
    });
    println!("read/threads={threads}: {} GB/s", seconds.rate(bytes as f64));
}

/// Not random, but no two blocks alike.
fn noise(seed: u32, i: usize) -> u32 {
    let x = (i as u32).wrapping_mul(0x9e37_79b9) ^ seed;
    (x ^ x >> 15).wrapping_mul(0x85eb_ca6b)
}

fn floats(count: usize, seed: u32) -> Vec<f32> {
    (0..count).map(|i| (noise(seed, i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn weights(format: Format, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..rows * format.row_bytes(columns)).map(|i| (noise(7, i) >> 13) as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        match format {
            Format::F32 => block[3] = 0x3c,
            Format::F16 | Format::BF16 => block[1] = 0x24,
            Format::Q8_0 | Format::Q4_0 => block[1] = 0x14,
            Format::Q4_K => (block[1], block[3]) = (0x14, 0x14),
            Format::Q6_K => block[209] = 0x14,
        }
    }
    bytes
}

fn matmul(format: Format, backend: Backend, wanted: &impl Fn(&str) -> bool) {
    let name = |rows: usize, threads: usize| {
        format!("matmul/format={format}/backend={backend}/rows={rows}/threads={threads}")
    };
    let cases: Vec<(usize, usize)> = [1, 2]
        .into_iter()
        .flat_map(|threads| [1, 2, 4, 8, 16, 128, 512].map(|rows| (rows, threads)))
        .filter(|(rows, threads)| wanted(&name(*rows, *threads)))
        .collect();
    if cases.is_empty() || (backend == Backend::Scalar && !wanted("scalar")) {
        return;
    }
    let columns = 1024;
    let n = if backend == Backend::Scalar { 1024 } else { (64 << 20) / columns };
    let mut packed = Region::zeroed(packed_bytes(format, n, columns)).expect("memory");
    executor(backend, 2).pack(format, n, columns, &weights(format, n, columns), &mut packed).expect("packs");
    for (rows, threads) in cases {
        let n = if rows >= 128 { n / 16 } else { n };
        let packed = &packed[..packed_bytes(format, n, columns)];
        let executor = executor(backend, threads);
        let mut activations = Activations::new(rows, columns, Forms::of([format]));
        activations.set_rows(rows);
        executor.quantise(&floats(rows * columns, 3), &mut activations, &Faults::new(rows));
        let mut out = vec![0.0; rows * n];
        let runs = if rows > 16 { 7 } else { 11 };
        let seconds = time(runs, threads, || {
            let matrix = Matrix::new(format, n, columns, packed);
            executor.matmul(&activations, &mut [Output { matrix, bias: None, out: &mut out }]);
        });
        println!(
            "{}: {} GB/s of weights, {} Gop/s",
            name(rows, threads),
            seconds.rate(packed.len() as f64),
            seconds.rate(2.0 * (rows * n * columns) as f64)
        );
    }
}

/// The operations that touch each row of a step once.
fn rows(backend: Backend, wanted: &impl Fn(&str) -> bool) {
    let (rows, columns) = (64, 2048);
    let executor = executor(backend, 1);
    let (x, y, weight) = (floats(rows * columns, 1), floats(rows * columns, 2), floats(columns, 3));
    let mut out = Activations::new(rows, columns, Forms::Quantised);
    out.set_rows(rows);
    let faults = Faults::new(rows);
    let mut report = |op: &str, run: &mut dyn FnMut(&mut Activations)| {
        let name = format!("{op}/backend={backend}");
        if wanted(&name) {
            let seconds = time(21, 1, || run(&mut out));
            println!("{name}: {} Gelement/s", seconds.rate((rows * columns) as f64));
        }
    };
    let mut sum = x.clone();
    report("quantise", &mut |out| executor.quantise(&x, out, &faults));
    report("rms_norm", &mut |out| executor.rms_norm(&x, &weight, 1e-6, out, &faults));
    report("add_rms_norm", &mut |out| {
        sum.copy_from_slice(&x);
        executor.add_rms_norm(&mut sum, &y, &weight, 1e-6, out, &faults);
    });
    report("silu_mul", &mut |out| executor.silu_mul(&x, &y, out, &faults));
    let mut integers = vec![0; x.len()];
    report("sampling_weights", &mut |_| executor.sampling_weights(&x, 1.0, 1.44, &mut integers));
    report("argmax", &mut |_| {
        black_box(executor.argmax(&x));
    });
    report("all_finite", &mut |_| {
        black_box(executor.all_finite(&x));
    });
}

/// One layer of attention: `rows` new positions of each of `sequences` at the end of `context`.
fn attention(backend: Backend, wanted: &impl Fn(&str) -> bool) {
    let (heads, kv_heads, head_dim) = (16, 8, 128);
    for (sequences, rows, context) in [(1, 1, 512), (1, 1, 4096), (16, 1, 512), (1, 512, 512), (1, 512, 4096)]
    {
        for threads in [1, 2] {
            let name = format!(
                "attention/backend={backend}/sequences={sequences}/rows={rows}/context={context}/threads={threads}"
            );
            if !wanted(&name) || (backend == Backend::Scalar && rows > 1) {
                continue;
            }
            let executor = executor(backend, threads);
            let pages = context / PAGE_POSITIONS;
            let shape = KvShape { layers: 1, kv_heads, head_dim };
            let mut cache = KvCache::new(shape, pages * sequences).expect("memory");
            let rotary = RotaryTable::new(RotaryParameters {
                head_dim,
                base: 1e6,
                context,
                positions: context,
                scaling: Scaling::None,
                factors: None,
            })
            .expect("a table");
            let all = rows * sequences;
            let tables: Vec<Vec<u32>> = (0..sequences)
                .map(|s| (0..pages as u32).map(|p| p * sequences as u32 + s as u32).collect())
                .collect();
            let segments: Vec<Segment<'_>> = tables
                .iter()
                .enumerate()
                .map(|(s, pages)| Segment {
                    pages,
                    first_position: context - rows,
                    rows: s * rows..(s + 1) * rows,
                })
                .collect();
            let step = AttentionStep {
                layer: 0,
                heads,
                norms: None,
                pairs: RotaryPairs::Halves,
                rotary: &rotary,
                segments: &segments,
            };
            let mut out = Activations::new(all, heads * head_dim, Forms::Quantised);
            out.set_rows(all);
            let q = floats(all * heads * head_dim, 1);
            let (k, v) = (floats(all * kv_heads * head_dim, 2), floats(all * kv_heads * head_dim, 3));
            let faults = Faults::new(all);
            let (mut rotated_q, mut rotated_k) = (q.clone(), k.clone());
            let seconds = time(5, threads, || {
                rotated_q.copy_from_slice(&q);
                rotated_k.copy_from_slice(&k);
                executor.attention(&step, &mut rotated_q, &mut rotated_k, &v, &mut cache, &mut out, &faults);
            });
            // Every query reads every key and every value it sees, a multiplication and an addition each.
            let visible: usize = (context - rows..context).map(|position| position + 1).sum();
            let operations = 4 * sequences * visible * heads * head_dim;
            println!("{name}: {} Gop/s, {:.0} µs", seconds.rate(operations as f64), seconds.median * 1e6);
        }
    }
}
