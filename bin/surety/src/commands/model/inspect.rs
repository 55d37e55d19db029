//! `surety model inspect`: what a model is made of, and who hosts it.

use serde_json::json;
use surety_engine::Model;
use surety_types::{Manifest, ModelId};
use surety_worker::store::Reference;

use super::{
    audit::{hosts, hosts_json, hosts_text},
    network, open,
};
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::LookArgs,
    models::Models,
    output::{self, Style, out_style, size},
};

/// Arguments of `model inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, file.gguf, hf:owner/repo[/file] or blake3:…; with a ledger also a name of that.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Ask the ledger who offers it, and each of those for proof that it holds it. So do --genesis and --rpc-url.
    #[arg(long)]
    hosts: bool,
    #[command(flatten)]
    look: LookArgs,
}

/// A model, here or elsewhere.
struct Subject {
    name: String,
    id: ModelId,
    manifest: Manifest,
    /// Memory for each token, known of a model that is here.
    kv_bytes: Option<u64>,
}

/// Shows it.
pub async fn run(global: &Global, data_dir: &DataDir, models: &Models, args: Args) -> anyhow::Result<()> {
    let look = match args.hosts || args.look.is_given() {
        true => Some(args.look.open(data_dir)?),
        false => None,
    };
    let (subject, hosted) = match (models.find(&args.reference), look) {
        (Err(error), None) => return Err(error),
        (Err(_), Some(look)) => {
            let hosted = network::find(&look, &args.reference).await?;
            let (id, manifest) = (hosted.id, hosted.manifest.clone());
            (Subject { name: args.reference.to_string(), id, manifest, kv_bytes: None }, Some(hosted))
        }
        (Ok(found), look) => {
            let model = open(&found.file, data_dir, &found.name)?;
            models.store().note_model(found.file.blake3, model.id());
            let hosted = match look {
                Some(look) => Some(network::on_ledger(&look, model.id()).await?),
                None => None,
            };
            let (id, manifest, kv_bytes) = (model.id(), model.manifest().clone(), Some(kv_bytes(&model)));
            (Subject { name: found.name, id, manifest, kv_bytes }, hosted)
        }
    };
    let Subject { name, id, manifest, kv_bytes } = &subject;
    let hosted = match hosted {
        Some(hosted) => Some(hosts(hosted).await?),
        None => None,
    };
    if global.json {
        let mut result =
            json!({ "name": name, "id": id, "manifest": manifest, "kv_bytes_per_token": kv_bytes });
        if let Some(hosted) = &hosted {
            result["network"] = hosts_json(hosted);
        }
        return output::json(&result);
    }
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let formats: Vec<_> =
        manifest.formats.iter().map(|format| format!("{} × {}", format.tensors, format.name)).collect();
    let template =
        manifest.template_digest.map_or("none; chat is not possible".to_owned(), |digest| digest.to_string());
    let digests: Vec<String> = manifest.files.iter().map(|file| format!("blake3 {}", file.blake3)).collect();
    let files = format!("{}, {}", size(bytes), digests.join(", "));
    let memory = kv_bytes.map_or_else(String::new, |bytes| format!(", {} of memory each", size(bytes)));
    let rows = [
        ("name", name.clone()),
        ("id", id.to_string()),
        ("calls itself", output::printable(&manifest.name)),
        ("file", files),
        ("architecture", output::printable(&manifest.architecture)),
        ("layers", format!("{} of width {}", manifest.layers, manifest.width)),
        (
            "heads",
            format!(
                "{} of {} elements, {} for keys and values",
                manifest.heads, manifest.head_dim, manifest.kv_heads
            ),
        ),
        ("feed forward", manifest.feed_forward.to_string()),
        ("vocabulary", format!("{} tokens", manifest.vocabulary)),
        ("context", format!("{} tokens{memory}", manifest.context)),
        ("tensors", formats.join(", ")),
        ("tokenizer", manifest.tokenizer_digest.to_string()),
        ("chat template", template),
        ("arithmetic", format!("version {}", manifest.arithmetic)),
    ];
    for (label, value) in rows {
        output::line(format_args!("{}  {value}", out_style(Style::Dim, format_args!("{label:<13}"))))?;
    }
    if let Some(hosted) = hosted {
        output::line(out_style(Style::Bold, "hosts"))?;
        for line in hosts_text(&hosted) {
            output::line(line)?;
        }
    }
    Ok(())
}

fn kv_bytes(model: &Model) -> u64 {
    (model.kv_page_bytes() / surety_kernels::PAGE_POSITIONS) as u64
}
