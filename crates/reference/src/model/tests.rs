use super::*;
use crate::gguf::tests::Writer;
use crate::ops::LOG2_E;

const WIDTH: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const FEED_FORWARD: usize = 96;
const VOCABULARY: usize = 40;
const LAYERS: usize = 2;

/// Floats without order around a middle.
fn noise(name: &str, count: usize, middle: f32, spread: f32) -> Vec<f32> {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        middle + ((state >> 40) as f32 / 8388608.0 - 1.0) * spread
    };
    (0..count).map(|_| next()).collect()
}

/// The tensors (name, columns, rows, values) of a tiny model of an architecture.
fn tensors(architecture: &str) -> Vec<(String, usize, usize, Vec<f32>)> {
    let mut tensors = Vec::new();
    let mut add = |name: String, columns: usize, rows: usize| {
        let (middle, spread) = if name.contains("norm") { (1.0, 0.5) } else { (0.0, 0.4) };
        let values = noise(&name, columns * rows, middle, spread);
        tensors.push((name, columns, rows, values));
    };
    add("token_embd.weight".into(), WIDTH, VOCABULARY);
    for layer in 0..LAYERS {
        let mut part = |part: &str, columns, rows| add(format!("blk.{layer}.{part}"), columns, rows);
        part("attn_norm.weight", WIDTH, 1);
        part("ffn_norm.weight", WIDTH, 1);
        for (letter, heads) in [("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)] {
            part(&format!("attn_{letter}.weight"), WIDTH, heads * HEAD_DIM);
            if architecture == "qwen2" {
                part(&format!("attn_{letter}.bias"), heads * HEAD_DIM, 1);
            }
            if architecture == "qwen3" && letter != "v" {
                part(&format!("attn_{letter}_norm.weight"), HEAD_DIM, 1);
            }
        }
        part("attn_output.weight", HEADS * HEAD_DIM, WIDTH);
        part("ffn_gate.weight", WIDTH, FEED_FORWARD);
        part("ffn_up.weight", WIDTH, FEED_FORWARD);
        part("ffn_down.weight", FEED_FORWARD, WIDTH);
    }
    add("output_norm.weight".into(), WIDTH, 1);
    if architecture != "qwen3" {
        add("output.weight".into(), WIDTH, VOCABULARY);
    }
    tensors
}

fn metadata(architecture: &str) -> Writer {
    let mut writer = Writer::default();
    writer.text("general.architecture", architecture);
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", 64),
        ("embedding_length", WIDTH),
        ("feed_forward_length", FEED_FORWARD),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD_DIM),
        ("attention.value_length", HEAD_DIM),
    ] {
        writer.u32(&format!("{architecture}.{key}"), value as u32);
    }
    writer.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5);
    writer.f32(&format!("{architecture}.rope.freq_base"), 500.0);
    writer
}

fn file(architecture: &str) -> Vec<u8> {
    let mut writer = metadata(architecture);
    for (name, columns, rows, values) in tensors(architecture) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.tensor(&name, &[columns as u64, rows as u64], 0, &bytes);
    }
    writer.finish()
}

/// The same forward pass in binary64 with std's functions, over whole matrices: logits of the last position.
fn in_binary64(architecture: &str, tokens: &[u32]) -> Vec<f64> {
    let all = tensors(architecture);
    let tensor = |name: &str| -> Option<Vec<f64>> {
        let found = all.iter().find(|(own, ..)| own == name)?;
        Some(found.3.iter().map(|&value| f64::from(value)).collect())
    };
    let product = |name: &str, x: &[f64]| -> Vec<f64> {
        let weight = tensor(&format!("{name}.weight")).expect("a tensor");
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let out = weight.chunks(x.len()).map(dot);
        match tensor(&format!("{name}.bias")) {
            None => out.collect(),
            Some(bias) => out.zip(bias).map(|(out, bias)| out + bias).collect(),
        }
    };
    let norm = |name: &str, x: &[f64]| -> Vec<f64> {
        let Some(weight) = tensor(name) else { return x.to_vec() };
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(weight).map(|(x, w)| x / (mean + f64::from(1e-5_f32)).sqrt() * w).collect()
    };
    let turn = |row: Vec<f64>, name: &str, position: usize| -> Vec<Vec<f64>> {
        let turned = row.chunks(HEAD_DIM).map(|head| {
            let mut head = norm(name, head);
            let h = HEAD_DIM / 2;
            for i in 0..h {
                let angle = position as f64 * 500f64.powf(-(i as f64) / h as f64);
                let (a, b) = if architecture == "llama" { (2 * i, 2 * i + 1) } else { (i, i + h) };
                let pair = (head[a], head[b]);
                head[a] = pair.0 * angle.cos() - pair.1 * angle.sin();
                head[b] = pair.1 * angle.cos() + pair.0 * angle.sin();
            }
            head
        });
        turned.collect()
    };
    let add = |x: &[f64], y: Vec<f64>| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x + y).collect() };

    let embedding = tensor("token_embd.weight").expect("a tensor");
    let mut rows: Vec<Vec<f64>> =
        tokens.iter().map(|&token| embedding[token as usize * WIDTH..][..WIDTH].to_vec()).collect();
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let normed: Vec<Vec<f64>> = rows.iter().map(|x| norm(&name("attn_norm.weight"), x)).collect();
        let keys: Vec<_> = normed
            .iter()
            .enumerate()
            .map(|(t, n)| turn(product(&name("attn_k"), n), &name("attn_k_norm.weight"), t))
            .collect();
        let values: Vec<_> = normed.iter().map(|n| product(&name("attn_v"), n)).collect();
        for (position, n) in normed.iter().enumerate() {
            let queries = turn(product(&name("attn_q"), n), &name("attn_q_norm.weight"), position);
            let mut o = Vec::new();
            for (j, q) in queries.iter().enumerate() {
                let kv = j / 2;
                let score = |t: usize| q.iter().zip(&keys[t][kv]).map(|(q, k)| q * k).sum::<f64>() / 4.0;
                let weights: Vec<f64> = (0..=position).map(|t| score(t).exp()).collect();
                let total: f64 = weights.iter().sum();
                let entry =
                    |d: usize| (0..=position).map(|t| weights[t] * values[t][kv * HEAD_DIM + d]).sum::<f64>();
                o.extend((0..HEAD_DIM).map(|d| entry(d) / total));
            }
            rows[position] = add(&rows[position], product(&name("attn_output"), &o));
            let n = norm(&name("ffn_norm.weight"), &rows[position]);
            let gate = product(&name("ffn_gate"), &n);
            let up = product(&name("ffn_up"), &n);
            let gated: Vec<f64> = gate.iter().zip(up).map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect();
            rows[position] = add(&rows[position], product(&name("ffn_down"), &gated));
        }
    }
    let state = norm("output_norm.weight", rows.last().expect("at least one token"));
    product(if architecture == "qwen3" { "token_embd" } else { "output" }, &state)
}

#[test]
fn the_forward_pass_is_near_binary64() {
    let tokens: Vec<u32> = (0..24).map(|i| i * 7 % VOCABULARY as u32).collect();
    for architecture in ["llama", "qwen2", "qwen3"] {
        let file = file(architecture);
        let model = Model::open(&file).expect("a whole model");
        let states = model.run(&tokens).expect("finite");
        for length in [1, 2, 24] {
            let logits = model.logits(&states[length - 1]).expect("finite");
            let exact = in_binary64(architecture, &tokens[..length]);
            let size = exact.iter().fold(0.0_f64, |size, logit| size.max(logit.abs()));
            for (token, (logit, exact)) in logits.iter().zip(&exact).enumerate() {
                // Keys and values are rounded to binary16, whose unit is 2⁻¹¹.
                let error = (f64::from(*logit) - exact).abs();
                assert!(
                    error < 2e-3 * size,
                    "{architecture}, {length} tokens, logit {token}: {logit} {exact}"
                );
            }
        }
    }
}

#[test]
fn a_session_is_a_prefix_of_a_run() {
    let file = file("qwen3");
    let model = Model::open(&file).expect("a whole model");
    let states = model.run(&[1, 2, 3]).expect("finite");
    let mut session = model.session();
    for (token, state) in [1, 2, 3].into_iter().zip(&states) {
        assert_eq!(session.push(token).as_ref(), Ok(state));
    }
    assert_eq!(session.position(), 3);
    let bytes: Vec<u8> = states[1..].iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(state_digest(&states[1..]), *blake3::hash(&bytes).as_bytes());
}

#[test]
fn a_session_ends_at_the_context_and_knows_its_vocabulary() {
    let file = file("llama");
    let model = Model::open(&file).expect("a whole model");
    let mut session = model.session();
    assert_eq!(session.push(40), Err(PushError::UnknownToken(40)));
    for token in 0..64 {
        session.push(token % 40).expect("within the context");
    }
    assert_eq!(session.push(0), Err(PushError::ContextFull));
}

/// Weights so great that a product overflows: the sequence ends, without a panic.
#[test]
fn an_overflow_is_reported() {
    let mut writer = metadata("llama");
    for (name, columns, rows, values) in tensors("llama") {
        let factor = if name == "blk.1.ffn_up.weight" { 1e38 } else { 1.0 };
        let bytes: Vec<u8> = values.iter().flat_map(|value| (value * factor).to_le_bytes()).collect();
        writer.tensor(&name, &[columns as u64, rows as u64], 0, &bytes);
    }
    let file = writer.finish();
    let model = Model::open(&file).expect("finite weights");
    assert!(matches!(model.run(&[1]), Err(PushError::NonFinite(_))));
}

#[test]
fn models_that_disagree_with_their_metadata_are_refused() {
    let check = |change: &dyn Fn(&mut Writer), skip: &str, expected: &str| {
        let mut writer = metadata("llama");
        change(&mut writer);
        for (name, columns, rows, values) in tensors("llama") {
            if name != skip {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                writer.tensor(&name, &[columns as u64, rows as u64], 0, &bytes);
            }
        }
        let error = Model::open(&writer.finish()).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    };
    check(&|_| (), "output_norm.weight", "output_norm.weight is missing");
    check(&|w| _ = w.u32("llama.feed_forward_length", 64), "", "not 32 × 64");
    check(&|w| _ = w.u32("llama.attention.key_length", 32), "", "value_length is 16, not 32");
    check(&|w| _ = w.u32("llama.rope.dimension_count", 8), "", "dimension_count is 8");
    check(&|w| _ = w.u32("llama.attention.head_count", 0), "", "head_count is");
    check(&|w| _ = w.text("llama.rope.scaling.type", "longrope"), "", "scaling.type");
    check(&|w| _ = w.text("general.architecture", "phi3"), "", "architecture phi3");
}

/// A query head's scale, as writes it, for the head size of these tests.
#[test]
fn the_score_scale_is_log2e_over_the_root() {
    assert_eq!(LOG2_E * (1.0 / (HEAD_DIM as f32).sqrt()), LOG2_E / 4.0);
}
