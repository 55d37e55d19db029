//! Parameters of Ollama's routes: every name a body or its `options` may hold, and what becomes of it.
//!
//! In, out: the rows of the table (`api/parameters`), and those of `options`.
//! Holds:  a name is ignored only if the answer would be the same without it.

use crate::api::parameters::{Parameter, Route, Shape, Treatment};

const CHAT: &[Route] = &[Route::OllamaChat];
const GENERATE: &[Route] = &[Route::OllamaGenerate];
const SHOW: &[Route] = &[Route::OllamaShow];
const BOTH: &[Route] = &[Route::OllamaChat, Route::OllamaGenerate];
const EMBED: &[Route] = &[Route::OllamaEmbed];
const VECTORS: &[Route] = &[Route::OllamaEmbed, Route::OllamaEmbeddings];
/// Those that ask a model something.
const ASKING: &[Route] =
    &[Route::OllamaChat, Route::OllamaGenerate, Route::OllamaEmbed, Route::OllamaEmbeddings];
const ALL: &[Route] = &[
    Route::OllamaChat,
    Route::OllamaGenerate,
    Route::OllamaEmbed,
    Route::OllamaEmbeddings,
    Route::OllamaShow,
];

const fn row(
    name: &'static str,
    routes: &'static [Route],
    treatment: Treatment,
    shape: Shape,
    about: &'static str,
) -> Parameter {
    Parameter { name, routes, treatment, shape, about }
}

const fn examined(name: &'static str, routes: &'static [Route], about: &'static str) -> Parameter {
    row(name, routes, Treatment::Examined, Shape::Any, about)
}

const fn ignored(name: &'static str, routes: &'static [Route], about: &'static str) -> Parameter {
    row(name, routes, Treatment::Ignored, Shape::Any, about)
}

const fn refused(name: &'static str, instead: &'static str) -> Parameter {
    let about = "Not supported: refused rather than ignored, because it asks for another answer.";
    row(name, BOTH, Treatment::Refused(instead), Shape::Any, about)
}

use Treatment::Taken;

/// The rows.
pub(crate) const PARAMETERS: &[Parameter] = &[
    row(
        "model",
        ALL,
        Taken,
        Shape::Text,
        "A served name, with or without `:latest`, `name@<first 8 or more digits of the id>`, or a whole id; `:nitro`, `:floor` and `:verified` may follow.",
    ),
    row("name", SHOW, Taken, Shape::Text, "The older name of `model`."),
    row(
        "messages",
        CHAT,
        Taken,
        Shape::Any,
        "The conversation: `role` is `system`, `user`, `assistant` or `tool`, `content` a text; the assistant's may \
         have `tool_calls`, a tool's `tool_name` or `tool_call_id`. The last must not be the assistant's. None: only whether the model is served is told.",
    ),
    row(
        "prompt",
        GENERATE,
        Taken,
        Shape::Text,
        "What the user says, or with `raw` the text to go on with. None: only whether the model is served is told.",
    ),
    row(
        "prompt",
        &[Route::OllamaEmbeddings],
        Taken,
        Shape::Text,
        "The text. None: only whether the model is served is told.",
    ),
    row(
        "input",
        EMBED,
        Taken,
        Shape::Texts,
        "A text, or a list of up to 2,048: a vector for each. None: only whether the model is served is told.",
    ),
    row(
        "dimensions",
        EMBED,
        Taken,
        Shape::Integer(crate::api::parameters::DIMENSIONS),
        "Only the first so many numbers, scaled to length one again. Refused unless the model was made for vectors.",
    ),
    row("system", GENERATE, Taken, Shape::Text, "What the system says first."),
    row(
        "raw",
        GENERATE,
        Taken,
        Shape::Flag,
        "The prompt is the whole text: the model's template is not used.",
    ),
    row(
        "options",
        VECTORS,
        Taken,
        Shape::Any,
        "As elsewhere: what says how an answer is drawn changes no vector.",
    ),
    row("stream", BOTH, Taken, Shape::Flag, "Answer in lines of JSON, each an object. Default true."),
    row(
        "options",
        BOTH,
        Taken,
        Shape::Any,
        "`temperature` (default 0.8), `top_k` (40), `top_p` (0.9), `min_p` (0), `seed` (-1: fresh randomness), `num_predict` \
         (-1: the rest of the context window), `stop`, `repeat_penalty` (1, which is off), `presence_penalty`, \
         `frequency_penalty`. How a machine computes is ignored; `num_ctx` too, because a prompt is never shortened.",
    ),
    row("logprobs", BOTH, Taken, Shape::Flag, "Report how likely each token was."),
    row(
        "top_logprobs",
        BOTH,
        Taken,
        Shape::Integer(crate::api::parameters::TOP_LOGPROBS),
        "How many alternatives to report per token; needs `logprobs: true`.",
    ),
    row(
        "surety",
        ASKING,
        Taken,
        Shape::Any,
        "`date` (YYYY-MM-DD, for templates that mention today), `worker` (first 8 or more digits of its key), `deadline_ms` (for the whole answer).",
    ),
    row(
        "provider",
        ASKING,
        Taken,
        Shape::Provider,
        "What is wanted of whoever answers, as OpenRouter spells it. Workers are named by the first 8 or more digits of \
         their keys, operators by 0x and those of their addresses.",
    ),
    row(
        "tools",
        CHAT,
        Taken,
        Shape::Any,
        "Functions the model may call, up to 128, if its chat template shows it any.",
    ),
    row(
        "format",
        BOTH,
        Taken,
        Shape::Any,
        "`\"json\"`, or a JSON Schema: the answer meets it by construction, unless its limit or a stop string cuts it off. Keywords \
         that are not supported are refused by name.",
    ),
    examined("think", BOTH, "Only false: thoughts are part of the text here."),
    examined("images", GENERATE, "Only empty."),
    examined("suffix", GENERATE, "Only empty."),
    examined("template", GENERATE, "Only empty."),
    examined("context", GENERATE, "Only empty."),
    ignored("keep_alive", ASKING, "Accepted and ignored: workers keep what they serve."),
    ignored(
        "truncate",
        ASKING,
        "Accepted and ignored: a prompt that does not fit is refused, never shortened.",
    ),
    ignored("shift", BOTH, "Accepted and ignored: an answer ends where the context window does."),
    ignored("verbose", SHOW, "Accepted and ignored."),
    refused("width", "This network speaks text only."),
    refused("height", "This network speaks text only."),
    refused("steps", "This network speaks text only."),
];

/// Members of `options` that are read.
pub(super) const TAKEN: [&str; 12] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "num_predict",
    "stop",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "repeat_last_n",
    "num_ctx",
];

/// Members of `options` that say how a machine is to compute, or what to cut from a prompt that is too long: the answer is the
/// same without them.
pub(super) const IGNORED: [&str; 8] =
    ["num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa"];

/// Members of `options` that are harmless where they are off: the value that is.
pub(super) const OFF: [(&str, f32); 3] = [("typical_p", 1.0), ("tfs_z", 1.0), ("mirostat", 0.0)];

/// Those that matter only beside one of the former.
pub(super) const BESIDE: [&str; 2] = ["mirostat_tau", "mirostat_eta"];
