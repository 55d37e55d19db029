//! Look: what Ollama's clients ask before they ask a model.
//!
//! In:     requests. Out: the models there are, what they are like, which version this is.
//! Touches: nothing.
//! Holds:  nothing is said that no manifest says.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde_json::{Value, json};
use surety_types::{FormatSummary, Manifest};

use super::{
    read,
    shapes::{OllamaDetails, OllamaModel, OllamaModels, OllamaShow, OllamaVersion},
};
use crate::{
    api::{body::Text, dialect::OllamaErrorBody, openapi::OllamaShowRequest, shapes::Model, time::rfc3339},
    error::{ApiError, Code},
    gateway::Shared,
};

/// The version whose requests and answers these are; clients refuse to work with some older ones.
const VERSION: &str = concat!("0.12.11+surety.", env!("CARGO_PKG_VERSION"));

/// Elements and bytes of one block of a tensor format.
const FORMATS: [(&str, u64, u64); 14] = [
    ("F32", 1, 4),
    ("F16", 1, 2),
    ("BF16", 1, 2),
    ("Q4_0", 32, 18),
    ("Q4_1", 32, 20),
    ("Q5_0", 32, 22),
    ("Q5_1", 32, 24),
    ("Q8_0", 32, 34),
    ("Q2_K", 256, 84),
    ("Q3_K", 256, 110),
    ("Q4_K", 256, 144),
    ("Q5_K", 256, 176),
    ("Q6_K", 256, 210),
    ("MXFP4", 32, 17),
];

/// Which of Ollama's versions this follows.
#[utoipa::path(get, path = "/api/version", tag = "state", responses((status = 200, description = "The version.", body = OllamaVersion)))]
pub(crate) async fn version() -> Json<OllamaVersion> {
    Json(OllamaVersion { version: VERSION })
}

/// The models that can be asked for, as Ollama shapes them.
#[utoipa::path(get, path = "/api/tags", tag = "models", responses((status = 200, description = "By name.", body = OllamaModels)))]
pub(crate) async fn tags(State(shared): State<Arc<Shared>>) -> Json<OllamaModels> {
    Json(models(&shared, |_| true))
}

/// The models that a worker is ready to answer with, as Ollama shapes them.
#[utoipa::path(get, path = "/api/ps", tag = "models", responses((status = 200, description = "By name.", body = OllamaModels)))]
pub(crate) async fn running(State(shared): State<Arc<Shared>>) -> Json<OllamaModels> {
    Json(models(&shared, |model| model.surety.workers_ready > 0))
}

/// What a model is like, as Ollama shapes it.
#[utoipa::path(post, path = "/api/show", tag = "models", request_body = OllamaShowRequest, responses(
    (status = 200, description = "The model.", body = OllamaShow),
    (status = "4XX", description = "No worker serves it.", body = OllamaErrorBody),
))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<OllamaShow>, ApiError> {
    let Text { text, share: _share } = shared.intake.read_undeclared(&headers, body).await?;
    let name = super::served(&shared, read::read_name(&text)?);
    let id = shared.workers.resolve(&name)?.id;
    let models = shared.workers.models(shared.started);
    let model = models.into_iter().find(|model| model.surety.id == id.to_string());
    let manifest = shared.workers.manifests().remove(&id.to_string());
    // Between the two looks the worker may have gone.
    let (model, manifest) = model.zip(manifest).ok_or_else(|| {
        ApiError::new(Code::ModelUnknown, "No worker serves it any more.").with_param("model")
    })?;
    Ok(Json(OllamaShow {
        template: "",
        parameters: "",
        modelfile: "",
        details: details(&manifest),
        model_info: header(&manifest, model.context_length),
        capabilities: if model.surety.tools { vec!["completion", "tools"] } else { vec!["completion"] },
        modified_at: rfc3339(model.created * 1000),
        surety: model.surety,
    }))
}

fn models(shared: &Shared, wanted: impl Fn(&Model) -> bool) -> OllamaModels {
    let manifests = shared.workers.manifests();
    let models = shared.workers.models(shared.started).into_iter().filter(wanted);
    let describe = |model: Model| {
        let manifest = manifests.get(&model.surety.id)?;
        Some(OllamaModel {
            name: model.id.clone(),
            model: model.id,
            modified_at: rfc3339(model.created * 1000),
            size: model.surety.file_bytes,
            digest: model.surety.id.rsplit(':').next().unwrap_or_default().to_owned(),
            details: details(manifest),
            context_length: model.context_length,
            surety: model.surety,
        })
    };
    OllamaModels { models: models.filter_map(describe).collect() }
}

fn details(manifest: &Manifest) -> OllamaDetails {
    let most = manifest.formats.iter().max_by_key(|format| format.bytes);
    OllamaDetails {
        parent_model: "",
        format: "gguf",
        family: manifest.architecture.clone(),
        families: vec![manifest.architecture.clone()],
        parameter_size: parameters(&manifest.formats).map_or_else(String::new, human),
        quantization_level: most.map_or_else(String::new, |format| format.name.clone()),
    }
}

/// What a model's header says, by the names it has there.
fn header(manifest: &Manifest, context_tokens: u32) -> BTreeMap<String, Value> {
    let architecture = &manifest.architecture;
    let mut header = BTreeMap::from([
        ("general.architecture".to_owned(), json!(architecture)),
        ("general.basename".to_owned(), json!(manifest.name)),
    ]);
    if let Some(count) = parameters(&manifest.formats) {
        header.insert("general.parameter_count".to_owned(), json!(count));
    }
    for (name, value) in [
        ("context_length", context_tokens),
        ("block_count", manifest.layers),
        ("embedding_length", manifest.width),
        ("feed_forward_length", manifest.feed_forward),
        ("attention.head_count", manifest.heads),
        ("attention.head_count_kv", manifest.kv_heads),
        ("attention.key_length", manifest.head_dim),
        ("vocab_size", manifest.vocabulary),
    ] {
        header.insert(format!("{architecture}.{name}"), json!(value));
    }
    header
}

/// How many numbers tensors of these formats hold, if all are known.
fn parameters(formats: &[FormatSummary]) -> Option<u64> {
    let count = |format: &FormatSummary| {
        let (_, elements, bytes) = FORMATS.iter().find(|(name, _, _)| *name == format.name)?;
        format.bytes.checked_div(*bytes)?.checked_mul(*elements)
    };
    formats.iter().try_fold(0u64, |sum, format| sum.checked_add(count(format)?))
}

/// A count as people say it.
fn human(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.2}K", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", count as f64 / 1e6),
        _ => format!("{:.1}B", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_where_their_formats_are_known() {
        let format = |name: &str, bytes| FormatSummary { name: name.to_owned(), tensors: 1, bytes };
        assert_eq!(parameters(&[format("Q8_0", 34 * 1000), format("F32", 4 * 5)]), Some(32_005));
        assert_eq!(parameters(&[format("Q8_0", 34), format("IQ1_S", 50)]), None);
        assert_eq!(parameters(&[format("Q2_K", u64::MAX)]).map(|_| ()), None);
        assert_eq!(human(32_005), "32.01K");
        assert_eq!(human(134_515_008), "134.52M");
        assert_eq!(human(7_615_616_512), "7.6B");
        assert_eq!(human(12), "12");
    }
}
