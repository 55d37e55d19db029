//! One value of each kind, for tests.

use crate::{
    digest::domain,
    plan::{LayerSlot, Pairs, Slot, SpellingEntry, TensorEntry, TensorFormat},
    *,
};

pub(crate) fn payer() -> SecretKey {
    SecretKey::from_bytes(&[1; 32])
}

pub(crate) fn worker() -> SecretKey {
    SecretKey::from_bytes(&[2; 32])
}

pub(crate) fn gateway() -> SecretKey {
    SecretKey::from_bytes(&[3; 32])
}

pub(crate) fn digest(seed: u8) -> Digest {
    Digest::of(domain::REQUEST, &[seed])
}

pub(crate) fn request() -> Request {
    Request {
        prompt: Prompt::Chat {
            messages: vec![
                Message::text("system", "Be brief."),
                Message { name: Some("zoë".into()), ..Message::text("user", "Où est la mer ?") },
                Message {
                    tool_calls: vec![ToolCall {
                        id: "call_1".into(),
                        name: "find".into(),
                        arguments: r#"{"what":"la mer","km":1.5}"#.into(),
                    }],
                    ..Message::text("assistant", "")
                },
                Message { tool_call_id: Some("call_1".into()), ..Message::text("tool", "{\"north\": 12}") },
            ],
            tools: vec![
                r#"{"type":"function","function":{"name":"find","parameters":{"type":"object"}}}"#.into(),
            ],
        },
        stop: vec!["\n\n".into()],
        logprobs: Some(2),
        prompt_logprobs: None,
        date: Some(CivilDate { year: 2026, month: 2, day: 28 }),
        grammar: None,
        embedding: None,
    }
}

pub(crate) fn embedding_request() -> Request {
    Request {
        prompt: Prompt::Text("la mer".into()),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        grammar: None,
        embedding: Some(Embedding { dimensions: Some(32) }),
    }
}

pub(crate) fn order() -> Order {
    Order {
        version: order::ORDER_VERSION,
        model: ModelId(digest(1)),
        request_digest: request().digest(),
        nonce: [9; 32],
        seed: Seed::Caller(-7),
        choice: 0,
        sampling: Sampling {
            temperature: 0.7,
            top_k: 40,
            logit_bias: vec![(5, -1.5), (900, 2.0)],
            ..Sampling::default()
        },
        max_output_tokens: 16,
        ignore_end: false,
        deadline_ms: 1_770_000_060_000,
        price_ceiling: Price { prompt: Amount(1), cached: Amount(1), output: Amount(u128::MAX) },
        channel: None,
        payer: payer().public(),
        issued_ms: 1_770_000_000_000,
        resumed: None,
        disclosure: None,
    }
}

pub(crate) fn confidential_order() -> Order {
    Order { disclosure: Some(Disclosure::Payer), ..order() }
}

pub(crate) fn resumed_order() -> Order {
    let resumed = Resumed { output_tokens: 2, output_digest: digest(6) };
    Order { max_output_tokens: 14, resumed: Some(resumed), ..order() }
}

pub(crate) fn acceptance() -> Acceptance {
    Acceptance {
        order: order().digest(),
        model: order().model,
        worker: worker().public(),
        deadline_ms: 1_770_000_060_000,
        price: Price::ZERO,
        prompt_tokens: 23,
        accepted_ms: 1_770_000_000_010,
        max_output_tokens: 16,
        region: Some(region()),
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        version: receipt::RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: order().digest(),
        model: order().model,
        arithmetic: receipt::ARITHMETIC_VERSION,
        prompt_tokens: 23,
        cached_tokens: 16,
        output_tokens: 3,
        prompt_digest: digest(2),
        output_digest: digest(3),
        text_digest: digest(4),
        finish: FinishReason::Stop,
        seed: order().seed_bytes(),
        state_commitment: digest(5),
        price: Price::ZERO,
        charge: Amount::ZERO,
        accepted_ms: 1_770_000_000_010,
        first_token_ms: Some(1_770_000_000_100),
        done_ms: 1_770_000_000_200,
        software: Text::clipped("surety 0.1.0"),
        worker: worker().public(),
    }
}

pub(crate) fn refusal() -> Receipt {
    Receipt {
        outcome: Outcome::Failed {
            code: FailureCode::ContextLengthExceeded,
            message: Text::clipped("prompt of 9000 tokens and 16 more do not fit a context of 8192"),
        },
        finish: FinishReason::Failed,
        output_tokens: 0,
        first_token_ms: None,
        state_commitment: Digest::ZERO,
        ..receipt()
    }
}

pub(crate) fn progress() -> Progress {
    Progress {
        order: order().digest(),
        output_tokens: 2,
        output_digest: digest(6),
        text_digest: digest(7),
        at_ms: 1_770_000_000_150,
        worker: worker().public(),
    }
}

pub(crate) fn channel() -> Channel {
    let account = |byte| alloy_primitives::Address::repeat_byte(byte);
    Channel {
        payer: account(1),
        payer_authorizer: account(2),
        receiver: account(3),
        receiver_authorizer: account(4),
        token: alloy_primitives::Address::ZERO,
        withdraw_delay_s: 900,
        salt: digest(12),
    }
}

pub(crate) fn voucher() -> Voucher {
    Voucher {
        channel: channel(),
        max_claimable: 123_456_789_000_000_000_000,
        signature: [27; 65],
        order: order().digest(),
        covered_output_tokens: 64,
    }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        name: "sample".into(),
        files: vec![FileDigest { name: "sample.gguf".into(), bytes: 1234, blake3: digest(8) }],
        architecture: "llama".into(),
        layers: 2,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        feed_forward: 128,
        vocabulary: 512,
        context: 256,
        formats: vec![
            FormatSummary { name: "F32".into(), tensors: 5, bytes: 1280 },
            FormatSummary { name: "Q8_0".into(), tensors: 14, bytes: 65536 },
        ],
        tokenizer_digest: digest(9),
        template_digest: Some(digest(10)),
        arithmetic: 0,
        rotary_digest: digest(11),
        plan: Some(plan().digest()),
        claims: None,
    }
}

pub(crate) fn upstream_manifest() -> Manifest {
    Manifest::upstream("big", 4096, Some(manifest().id()))
}

/// Every id spells three bytes; the first four are silent in answers.
pub(crate) fn spelling() -> Spelling {
    let pieces: Vec<[u8; 3]> = (0..512u32).map(|id| [b'a' + (id % 26) as u8, 0xe2, id as u8]).collect();
    Spelling::new(pieces.iter().zip(0..).map(|(piece, id)| (piece.as_slice(), id < 4))).expect("short")
}

pub(crate) fn plan() -> Plan {
    let header = PlanHeader {
        pairs: Pairs::Interleaved,
        layers: 2,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        feed_forward: 128,
        vocabulary: 512,
        context: 256,
        eps: 1e-5,
        q_norm: false,
        k_norm: false,
        end_tokens: vec![2, 9],
        spelling: SpellingEntry {
            prompts: true,
            first: Some(1),
            bos: Some(1),
            eos: Some(2),
            ..SpellingEntry::of(&spelling())
        },
    };
    let shapes = header.clone();
    Plan::new(header, |slot| {
        let format = if slot.is_matrix() { TensorFormat::Q8_0 } else { TensorFormat::F32 };
        let (rows, columns) = slot.shape(&shapes);
        let offset = (1 << 32) + 4_096 * (slot.index() as u64 + 1);
        let absent = matches!(
            slot,
            Slot::OutputBias | Slot::Layer(_, LayerSlot::Bias(_) | LayerSlot::QueryNorm | LayerSlot::KeyNorm)
        );
        (!absent).then_some(TensorEntry { format, columns, rows, offset })
    })
    .expect("a sound plan")
}

pub(crate) fn envelope(receipt: &Signed<Receipt>) -> Envelope {
    Envelope {
        request_id: "req-1".into(),
        gateway: gateway().public(),
        model_name: "sample".into(),
        parts: vec![Part {
            order: order().digest(),
            receipt: Some(receipt.digest()),
            worker: worker().public(),
            first_output_token: 0,
            output_tokens: 3,
            purpose: None,
        }],
        received_ms: 1_770_000_000_000,
        first_byte_ms: 1_770_000_000_101,
        done_ms: 1_770_000_000_201,
        charge: Amount::ZERO,
    }
}

pub(crate) fn evidence() -> Evidence {
    let receipt = Signed::sign(receipt(), &worker());
    Evidence {
        request_id: "req-1".into(),
        envelope: Signed::sign(envelope(&receipt), &gateway()).bytes().to_vec(),
        answers: vec![Answer {
            order: Signed::sign(order(), &payer()).bytes().to_vec(),
            request: request().to_cbor(),
            acceptance: Some(Signed::sign(acceptance(), &worker()).bytes().to_vec()),
            receipt: Some(receipt.bytes().to_vec()),
            progress: None,
            salt: [4; 32],
            output_ids: vec![10, 20, 2],
            resumed_ids: Vec::new(),
            channel: None,
            text: "Là.".into(),
            prompt_ids: None,
            embedding: None,
        }],
    }
}

pub(crate) fn region() -> Region {
    Region::new("eu-de").expect("a region")
}

pub(crate) fn status() -> WorkerStatus {
    WorkerStatus {
        worker: worker().public(),
        software: Text::clipped("surety 0.1.0"),
        state: WorkerState::Ready,
        active_requests: 1,
        waiting_requests: 0,
        models: vec![ServedModel {
            id: manifest().id(),
            names: vec!["sample".into()],
            manifest: manifest(),
            context_tokens: 256,
            prefill_tokens_per_second: 1000,
            decode_tokens_per_second: 100,
            price: Price { prompt: Amount(100_000), cached: Amount(10_000), output: Amount(400_000) },
            calls: Some(CallFormat::Hermes),
            vectors: Some(Vectors { pooling: Pooling::Mean, may_be_cut: true }),
            batch_price: Some(Price {
                prompt: Amount(50_000),
                cached: Amount(5_000),
                output: Amount(200_000),
            }),
        }],
        region: Some(region()),
    }
}

pub(crate) fn statement() -> Statement {
    Statement {
        request_id: "req_1".into(),
        gateway: gateway().public(),
        path: Text::clipped("/v1/chat/completions"),
        model_name: "sample".into(),
        received_ms: 1_750_000_000_000,
        ended_ms: 1_750_000_002_000,
        end: StatedEnd::Failed {
            code: Text::clipped("worker_lost"),
            message: Text::clipped("Worker 2 was lost."),
            accountable: Text::clipped("worker"),
            worker: Some(worker().public()),
        },
        charge: Amount::ZERO,
        decisions: vec![Decision {
            at_ms: 1_750_000_000_001,
            qualified: 1,
            best: vec![worker().public()],
            removed: vec![KeptOut { constraint: Text::clipped("unreachable"), workers: 2 }],
        }],
        events: vec![StatedEvent {
            at_ms: 1_750_000_000_002,
            what: What::Accepted,
            worker: Some(worker().public()),
            order: Some(digest(4)),
            tokens: 0,
            why: Text::default(),
        }],
        left_out: 0,
    }
}
