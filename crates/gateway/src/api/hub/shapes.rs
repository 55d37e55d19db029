//! Shapes of a hub's answers as JSON, with what we add.
//!
//! In:     values. Out: their JSON and their OpenAPI description.
//! Touches: nothing.
//! Holds:  what nobody counts or knows here (downloads, likes, dates, SHA-256) is left out, not made up.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::shapes::ModelNote;

/// A model, at one revision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubModel {
    /// `owner/name`, by which its files are asked for.
    pub(crate) id: String,
    /// The same.
    #[serde(rename = "modelId")]
    pub(crate) model_id: String,
    /// The owner's part of it.
    pub(crate) author: String,
    /// The revision: the first 40 digits of the model's id.
    pub(crate) sha: String,
    /// False: whoever may ask this gateway may have it.
    pub(crate) private: bool,
    /// False.
    pub(crate) gated: bool,
    /// False.
    pub(crate) disabled: bool,
    /// Format, architecture, formats of the tensors.
    pub(crate) tags: Vec<String>,
    /// `text-generation`.
    pub(crate) pipeline_tag: &'static str,
    /// Its files.
    pub(crate) siblings: Vec<HubSibling>,
    pub(crate) gguf: HubGguf,
    /// Bytes of its files together.
    #[serde(rename = "usedStorage")]
    pub(crate) used_storage: u64,
    pub(crate) surety: ModelNote,
}

/// A file of a model, in what is said of the model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubSibling {
    /// Its name.
    pub(crate) rfilename: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// BLAKE3 of its bytes.
    #[serde(rename = "blobId")]
    pub(crate) blob_id: String,
}

/// What a model's header says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubGguf {
    pub(crate) architecture: String,
    /// Positions.
    pub(crate) context_length: u32,
}

/// A file of a model, in the list of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubFile {
    /// `file`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// BLAKE3 of its bytes: no SHA-1 or SHA-256 of Git's.
    pub(crate) oid: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Its name.
    pub(crate) path: String,
}

/// The revisions of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubRefs {
    /// `main`, and no other.
    pub(crate) branches: Vec<HubBranch>,
    /// None.
    pub(crate) converts: Vec<String>,
    /// None.
    pub(crate) tags: Vec<String>,
}

/// What a name stands for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubBranch {
    /// `main`.
    pub(crate) name: &'static str,
    /// `refs/heads/main`.
    #[serde(rename = "ref")]
    pub(crate) reference: &'static str,
    /// The revision.
    #[serde(rename = "targetCommit")]
    pub(crate) target_commit: String,
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubUser {
    /// `user`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The key's name; `anonymous` where the gateway asks for none.
    pub(crate) name: String,
    /// The same.
    pub(crate) fullname: String,
    /// None.
    pub(crate) orgs: Vec<String>,
    pub(crate) auth: HubAuth,
}

/// How who asks came in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubAuth {
    /// `access_token`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(rename = "accessToken")]
    pub(crate) access_token: HubToken,
}

/// A key, as a hub calls it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HubToken {
    /// The key's name.
    #[serde(rename = "displayName")]
    pub(crate) display_name: String,
    /// `read`: nothing can be uploaded here.
    pub(crate) role: &'static str,
}
