//! Computed: the engine that is this machine's arithmetic.
//!
//! In:     orders for a model that is loaded. Out: sequences of its scheduler.
//! Touches: the model's thread (`sequences`).
//! Absent: what the arithmetic is (`surety-engine`).

use std::sync::Arc;

use surety_engine::{Model, SequenceRequest, chat_template::ChatTemplate};
use surety_types::{CallFormat, Order, Request, Vectors};

use super::{
    admission::{Admitted, Refusal, admit},
    engine::{Engine, Gauges, Place, Places, Sequence},
    lie::Lie,
    sequences::Sequences,
};

/// A model on this machine.
pub(super) struct Computed {
    pub(super) model: Arc<Model>,
    pub(super) context_tokens: u32,
    pub(super) sequences: Sequences,
    pub(super) lie: Option<Lie>,
}

impl Engine for Computed {
    fn admit(&self, order: &Order, request: Request, resumed: Vec<u32>) -> Result<Admitted, Refusal> {
        admit(order, request, resumed, &self.model, self.context_tokens)
    }

    fn places(&self) -> &Places {
        self.sequences.places()
    }

    fn submit(&self, order: &Order, admitted: Admitted, place: Place, allowed: u32) -> Sequence {
        let mut request = sequence_request(order, admitted);
        if let Some(lie) = &self.lie {
            request = lie.sequence(request);
        }
        self.sequences.submit(request, place, allowed)
    }

    fn gauges(&self) -> &Gauges {
        self.sequences.gauges()
    }

    fn calls(&self) -> Option<CallFormat> {
        self.model.template().and_then(ChatTemplate::calls)
    }

    fn vectors(&self) -> Option<Vectors> {
        self.model.vectors()
    }
}

fn sequence_request(order: &Order, admitted: Admitted) -> SequenceRequest {
    SequenceRequest {
        max_output_tokens: order.resumed_tokens() + admitted.max_output_tokens,
        prompt: admitted.prompt,
        output: admitted.resumed,
        sampling: order.sampling.clone(),
        seed: order.seed_bytes(),
        stop: admitted.request.stop,
        ignore_end: order.ignore_end,
        logprobs: admitted.request.logprobs,
        prompt_logprobs: admitted.request.prompt_logprobs,
        embedding: admitted.request.embedding,
        grammar: admitted.grammar,
    }
}
