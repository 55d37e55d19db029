//! Models: what a name stands for.
//!
//! In:     what workers say they serve; aliases. Out: the one model that a name stands for; the list of all.
//! Touches: nothing.
//! Holds:  a name stands for one immutable model id or the caller is told of the several; a pinned name is never
//!         served by another model.
//! Absent: which worker answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use surety_net::WorkerAddress;
use surety_types::{
    CallFormat, Manifest, ModelId, PublicKey, ServedModel, Vectors, WorkerStatus, receipt::ARITHMETIC_VERSION,
};

use super::{
    Worker, Workers,
    choice::Fitness,
    preferences::{Quantization, Tier},
};
use crate::{
    api::{
        embeddings::EmbeddingNote,
        fields::quote,
        nearest::nearest,
        shapes::{ClaimNote, Model, ModelNote},
        suffix,
    },
    error::{ApiError, Code},
};

/// Digits that are enough to pin a model.
const PIN_DIGITS: std::ops::RangeInclusive<usize> = 8..=64;
/// Names listed in a message.
const NAMES_LISTED: usize = 8;

/// What must be known of a model that an upstream serves, and that is said to be another: what its answers reach.
pub(crate) fn upstream_note(claims: Option<ModelId>, tier: Tier) -> String {
    let seen = "the operator's upstream sees the text; nobody can compute its answers again, they are the operator's word";
    match claims {
        None => seen.to_owned(),
        Some(claims) if tier == Tier::Statistical => format!(
            "{seen}; it says that they are {claims}'s, and some are compared with that model's (R-14), which is shown them: another \
             model is found by that over many answers, and nothing is shown of one"
        ),
        Some(claims) => format!(
            "{seen}; it says that they are {claims}'s, with which they cannot be compared as no worker serves that exactly here, or \
             were compared and found to be another's (R-14)"
        ),
    }
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) id: ModelId,
    /// The name to answer with.
    pub(crate) name: String,
    /// The version of its arithmetic, or that it has none.
    pub(crate) arithmetic: u32,
    /// What its answers reach, of a worker against which nothing is known.
    pub(crate) tier: Tier,
    /// Which model it is said to be, where an upstream gives its answers.
    pub(crate) claims: Option<ModelId>,
    /// Tokens it knows.
    pub(crate) vocabulary: u32,
    /// Whether it has a chat template, or an upstream that has.
    pub(crate) chat: bool,
    /// How it writes calls of tools, as most of its workers have it; none if its template shows it none.
    pub(crate) calls: Option<CallFormat>,
    /// What most of its bytes are.
    pub(crate) quantization: Quantization,
    /// Numbers of a vector of it.
    pub(crate) width: u32,
    /// How it makes vectors, if it does.
    pub(crate) vectors: Option<Vectors>,
}

impl Workers {
    /// What `asked` stands for: a served name, an alias, `name@digits`, or an id, whatever its suffixes wish for.
    pub(crate) fn resolve(&self, asked: &str) -> Result<Resolved, ApiError> {
        let bare = suffix::split(asked).0;
        let asked = &*bare;
        let (name, pin) = match asked.split_once('@') {
            Some((name, pin)) => (name, Some(pin)),
            None => (asked, None),
        };
        let name = self.aliases.get(name).map_or(name, String::as_str);
        if pin.is_some_and(|pin| pin.starts_with("sha256:")) {
            let message = "`model` pins a SHA-256 digest. Models are known by BLAKE3 here: pin `name@blake3:` and the first 8 to \
                           64 digits of the id that /v1/models gives.";
            return Err(ApiError::invalid("model", message));
        }
        let digits = match pin.map(|pin| pin.strip_prefix("blake3:").unwrap_or(pin)) {
            Some(digits) if !PIN_DIGITS.contains(&digits.len()) => {
                let message = format!(
                    "`model` pins \"{}\". A pin is the first 8 to 64 digits of the model's id.",
                    quote(digits),
                );
                return Err(ApiError::invalid("model", message));
            }
            digits => digits,
        };
        // What a worker that is gone once said counts only where nobody who is here knows better.
        let statuses = self.statuses(Worker::is_reachable);
        let statuses = match Offers::of(&statuses).named(name)[..] {
            [] => self.statuses(|_| true),
            _ => statuses,
        };
        let offers = Offers::of(&statuses);
        let mut named = offers.named(name);
        if named.is_empty() {
            return Err(self.no_such_model(asked, &offers));
        }
        // A name that stands for a model which can be computed again stands for that: what is somebody's word must be pinned.
        if digits.is_none() && named.iter().any(|offer| !offer.model.manifest.is_by_word()) {
            named.retain(|offer| !offer.model.manifest.is_by_word());
        }
        let pinned =
            |offer: &&Offer<'_>| digits.is_none_or(|digits| offer.model.id.0.to_string().starts_with(digits));
        let matching: Vec<&Offer<'_>> = named.iter().copied().filter(pinned).collect();
        match matching[..] {
            [offer] => Ok(Resolved {
                id: offer.model.id,
                name: offer
                    .names
                    .first()
                    .map_or_else(|| offer.model.id.to_string(), |name| (*name).to_owned()),
                arithmetic: offer.model.manifest.arithmetic,
                tier: self.tier(&offer.model.manifest, None),
                claims: offer.model.manifest.claims,
                vocabulary: offer.model.manifest.vocabulary,
                chat: offer.chats(),
                calls: offer.calls(),
                quantization: Quantization::of(&offer.model.manifest),
                width: offer.model.manifest.width,
                vectors: offer.model.vectors,
            }),
            [] => {
                let message = format!(
                    "No worker serves \"{}\" under that pin; the name stands for {}. Pin that, or leave the pin out.",
                    quote(asked),
                    ids(&named),
                );
                Err(ApiError::new(Code::ModelUnknown, message).with_param("model"))
            }
            [first, ..] => {
                let message = format!(
                    "Workers serve different models as \"{name}\": {}. Pin one, e.g. \"{name}@{}\".",
                    ids(&matching),
                    &first.model.id.0.to_string()[..*PIN_DIGITS.start()],
                );
                Err(ApiError::invalid("model", message))
            }
        }
    }

    /// The models that can be asked for, by every name.
    pub(crate) fn models(&self, created: u64) -> Vec<Model> {
        let ready = self.statuses(|worker| worker.state().0 == Fitness::Ready);
        let ready = |id: ModelId| {
            ready.iter().filter(|status| status.models.iter().any(|model| model.id == id)).count() as u32
        };
        let statuses = self.statuses(|_| true);
        let mut models = BTreeMap::new();
        for offer in Offers::of(&statuses).0.values() {
            let aliases = self.aliases.iter().filter(|(_, target)| offer.is_named(target));
            let aliases = aliases.map(|(alias, _)| alias.as_str());
            for name in offer.names.iter().copied().chain(aliases) {
                let mut model = offer.describe(name, ready(offer.model.id), created);
                let manifest = &offer.model.manifest;
                let tier = self.tier_offered(offer.model.id, manifest);
                model.surety.tier = tier.name();
                model.surety.note = manifest.is_by_word().then(|| upstream_note(manifest.claims, tier));
                model.surety.claims = manifest.claims.map(|claims| self.claim(claims));
                models.insert((name.to_owned(), offer.model.id), model);
            }
        }
        models.into_values().collect()
    }

    /// What answers by a model reach, of this worker or of one against which nothing is known: every answer is signed, and exact
    /// where the arithmetic is ours; what is said to be a model that somebody serves exactly can be compared with it.
    pub(crate) fn tier(&self, manifest: &Manifest, worker: Option<PublicKey>) -> Tier {
        if manifest.arithmetic == ARITHMETIC_VERSION {
            return Tier::Exact;
        }
        let differs = |claims| worker.is_some_and(|worker| self.comparisons.differs(worker, claims));
        match manifest.claims {
            Some(claims) if self.is_served_exactly(claims) && !differs(claims) => Tier::Statistical,
            _ => Tier::Signed,
        }
    }

    /// What answers by a model reach, of the best of the workers that serve it.
    fn tier_offered(&self, id: ModelId, manifest: &Manifest) -> Tier {
        let serves = |worker: &Arc<Worker>| {
            worker.state().1.is_some_and(|status| status.models.iter().any(|served| served.id == id))
        };
        let workers = self.all();
        let mut tiers = workers
            .iter()
            .filter(|worker| serves(worker))
            .map(|worker| self.tier(manifest, Some(worker.key())));
        tiers.find(|tier| *tier != Tier::Signed).unwrap_or(Tier::Signed)
    }

    /// What the answers of those workers by a model reach.
    pub(crate) fn tier_of_answers(&self, model: &Resolved, workers: &[PublicKey]) -> Tier {
        let differs = |claims| workers.iter().any(|worker| self.comparisons.differs(*worker, claims));
        if model.tier == Tier::Statistical && model.claims.is_some_and(differs) {
            return Tier::Signed;
        }
        model.tier
    }

    /// Whether any worker that is known says that it computes this model.
    fn is_served_exactly(&self, id: ModelId) -> bool {
        let is_it =
            |served: &ServedModel| served.id == id && served.manifest.arithmetic == ARITHMETIC_VERSION;
        self.statuses(|_| true).iter().any(|status| status.models.iter().any(is_it))
    }

    /// What is said of the model that an upstream's is said to be.
    fn claim(&self, claims: ModelId) -> ClaimNote {
        let (compared, workers_differing) = self.comparisons.of_model(claims);
        let is_served = self.is_served_exactly(claims);
        ClaimNote { model: claims.to_string(), is_served, compared, workers_differing }
    }

    /// What the models are made of, by their ids.
    pub(crate) fn manifests(&self) -> BTreeMap<String, Manifest> {
        let statuses = self.statuses(|_| true);
        let models = statuses.iter().flat_map(|status| &status.models);
        models.map(|model| (model.id.to_string(), model.manifest.clone())).collect()
    }

    /// The names that workers serve a model under.
    pub(crate) fn names_of(&self, id: ModelId) -> BTreeSet<String> {
        let statuses = self.statuses(|_| true);
        let models = statuses.iter().flat_map(|status| &status.models).filter(|model| model.id == id);
        models.flat_map(|model| model.names.iter().cloned()).collect()
    }

    /// What a model is made of.
    pub(crate) fn manifest(&self, id: ModelId) -> Option<Manifest> {
        let statuses = self.statuses(|_| true);
        let mut models = statuses.iter().flat_map(|status| &status.models);
        models.find(|model| model.id == id).map(|model| model.manifest.clone())
    }

    /// Where a model's files should be: the workers that can be reached and serve it, those that are well first.
    pub(crate) fn holders(&self, id: ModelId) -> Vec<WorkerAddress> {
        let serves = |worker: &Arc<Worker>| {
            let (fitness, status) = worker.state();
            let serves = status?.models.iter().any(|model| model.id == id);
            (serves && fitness != Fitness::Unreachable)
                .then(|| (fitness != Fitness::Ready || worker.is_doubted(), *worker.connection.address()))
        };
        let mut holders: Vec<_> = self.all().iter().filter_map(serves).collect();
        holders.sort_by_key(|(unwell, _)| *unwell);
        holders.into_iter().map(|(_, address)| address).collect()
    }

    fn no_such_model(&self, asked: &str, offers: &Offers<'_>) -> ApiError {
        // Whoever is not heard yet may well serve it.
        if let Err(unready) = self.unready() {
            return unready.with_param("model");
        }
        let names: BTreeSet<&str> = offers
            .0
            .values()
            .flat_map(|offer| offer.names.iter().copied())
            .chain(self.aliases.keys().map(String::as_str))
            .collect();
        let plain = asked.split_once('@').map_or(asked, |(name, _)| name);
        let advice = match nearest(plain, names.iter().copied()) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => {
                let listed: Vec<&str> = names.iter().copied().take(NAMES_LISTED).collect();
                format!("There are: {}. GET /v1/models lists them all.", listed.join(", "))
            }
        };
        let message =
            format!("No worker serves a model \"{}\" ({}). {advice}", quote(asked), self.census_in_words());
        ApiError::new(Code::ModelUnknown, message).with_param("model")
    }
}

/// Every model that some workers serve, by id.
struct Offers<'a>(BTreeMap<ModelId, Offer<'a>>);

/// A model, under all the names that workers give it.
struct Offer<'a> {
    model: &'a ServedModel,
    names: Vec<&'a str>,
    context_tokens: u32,
    /// How many workers say that it writes calls so.
    calls: BTreeMap<Option<CallFormat>, u32>,
}

impl<'a> Offers<'a> {
    fn of(statuses: &'a [Arc<WorkerStatus>]) -> Self {
        let mut offers: BTreeMap<ModelId, Offer<'a>> = BTreeMap::new();
        for model in statuses.iter().flat_map(|status| &status.models) {
            let offer = offers.entry(model.id).or_insert(Offer {
                model,
                names: Vec::new(),
                context_tokens: 0,
                calls: BTreeMap::new(),
            });
            *offer.calls.entry(model.calls).or_default() += 1;
            for name in &model.names {
                if !offer.names.contains(&name.as_str()) {
                    offer.names.push(name);
                }
            }
            offer.context_tokens = offer.context_tokens.max(model.context_tokens);
        }
        Self(offers)
    }

    /// The models that go by a name or are of an id.
    fn named(&self, name: &str) -> Vec<&Offer<'a>> {
        self.0.values().filter(|offer| offer.is_named(name)).collect()
    }
}

impl Offer<'_> {
    fn is_named(&self, name: &str) -> bool {
        self.names.contains(&name) || name.parse::<ModelId>().is_ok_and(|id| id == self.model.id)
    }

    /// How most of its workers say that it writes calls; the template is the same for all.
    fn calls(&self) -> Option<CallFormat> {
        self.calls.iter().max_by_key(|(_, workers)| **workers).and_then(|(calls, _)| *calls)
    }

    fn chats(&self) -> bool {
        self.model.manifest.template_digest.is_some() || self.model.manifest.is_by_word()
    }

    fn describe(&self, name: &str, workers_ready: u32, created: u64) -> Model {
        let manifest = &self.model.manifest;
        Model {
            id: name.to_owned(),
            object: "model",
            created,
            owned_by: "surety",
            context_length: self.context_tokens,
            surety: ModelNote {
                id: self.model.id.to_string(),
                architecture: manifest.architecture.clone(),
                file_bytes: manifest.files.iter().map(|file| file.bytes).sum(),
                formats: manifest.formats.iter().map(|format| format.name.clone()).collect(),
                vocabulary: manifest.vocabulary,
                tier: Tier::Signed.name(),
                note: None,
                claims: None,
                chat: self.chats(),
                tools: self.calls().is_some(),
                embeddings: self.model.vectors.map(|vectors| EmbeddingNote::of(vectors, manifest.width)),
                workers_ready,
            },
        }
    }
}

fn ids(offers: &[&Offer<'_>]) -> String {
    let ids: Vec<String> = offers.iter().take(NAMES_LISTED).map(|offer| offer.model.id.to_string()).collect();
    ids.join(", ")
}
