//! Models for Anthropic's clients: the same list, in their shape and page by page.
//!
//! In:     the models there are; a query. Out: a page, or a model.
//! Touches: nothing.
//! Holds:  every model is on one page, whichever way pages are turned; work is bounded by the list.
//! Absent: what a name stands for (`route`).

use super::shapes::{ModelInfo, ModelPage};
use crate::{
    api::{fields::quote, nearest::nearest, shapes::Model, time::rfc3339},
    error::{ApiError, Code},
};

const LIMIT: std::ops::RangeInclusive<usize> = 1..=1000;
const LIMIT_DEFAULT: usize = 20;
const NAMES: [&str; 5] = ["limit", "after_id", "before_id", "lifecycle", "beta"];
/// All there are here.
const ACTIVE: &str = "active";
const LIFECYCLES: [&str; 3] = [ACTIVE, "deprecated", "retired"];

/// Which page is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    limit: usize,
    after: Option<String>,
    before: Option<String>,
    /// Whether the models there are, are of a lifecycle that is wanted.
    active: bool,
}

/// The page that a query asks for.
pub(crate) fn page(query: &str, models: Vec<Model>) -> Result<ModelPage, ApiError> {
    let wanted = Wanted::read(query)?;
    let mut models: Vec<ModelInfo> = models.into_iter().map(info).collect();
    // A name may stand for several.
    models.dedup_by(|one, other| one.id == other.id);
    if !wanted.active {
        models.clear();
    }
    let find = |param: &str, id: &str| {
        models.iter().position(|model| model.id == id).ok_or_else(|| {
            let message =
                format!("`{param}` is \"{}\", and there is no such model. Begin without it.", quote(id));
            ApiError::invalid(param.to_owned(), message)
        })
    };
    let (from, to) = match (&wanted.after, &wanted.before) {
        (Some(_), Some(_)) => {
            let message = "`after_id` and `before_id` ask for two directions. Send one of them.";
            return Err(ApiError::invalid("before_id", message));
        }
        _ if !wanted.active => (0, 0),
        (Some(after), None) => (find("after_id", after)? + 1, models.len()),
        (None, Some(before)) => (0, find("before_id", before)?),
        (None, None) => (0, models.len()),
    };
    let has_more = to - from > wanted.limit;
    let (from, to) = match (has_more, wanted.before) {
        (false, _) => (from, to),
        (true, Some(_)) => (to - wanted.limit, to),
        (true, None) => (from, from + wanted.limit),
    };
    let data = models[from..to].to_vec();
    let id = |model: Option<&ModelInfo>| model.map(|model| model.id.clone());
    Ok(ModelPage { has_more, first_id: id(data.first()), last_id: id(data.last()), data })
}

/// A model in Anthropic's shape.
pub(crate) fn info(model: Model) -> ModelInfo {
    ModelInfo {
        kind: "model",
        display_name: model.id.clone(),
        id: model.id,
        created_at: rfc3339(model.created * 1000),
        lifecycle: ACTIVE,
        max_input_tokens: model.context_length,
        max_tokens: model.context_length,
        surety: model.surety,
    }
}

impl Wanted {
    fn read(query: &str) -> Result<Wanted, ApiError> {
        let mut wanted = Wanted { limit: LIMIT_DEFAULT, after: None, before: None, active: true };
        let mut lifecycles: Option<bool> = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value));
            match name.trim_end_matches("[]") {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| LIMIT.contains(limit));
                    wanted.limit = limit.ok_or_else(|| {
                        let message = format!(
                            "`limit` is \"{}\". It must be an integer from {} to {}.",
                            quote(&value),
                            LIMIT.start(),
                            LIMIT.end(),
                        );
                        ApiError::invalid("limit", message)
                    })?;
                }
                "after_id" => wanted.after = Some(value),
                "before_id" => wanted.before = Some(value),
                "lifecycle" => {
                    for value in value.split(',') {
                        if !LIFECYCLES.contains(&value) {
                            let names = LIFECYCLES.join(", ");
                            let message =
                                format!("`lifecycle` is \"{}\". It must be one of {names}.", quote(value));
                            return Err(ApiError::invalid("lifecycle", message));
                        }
                        *lifecycles.get_or_insert(false) |= value == ACTIVE;
                    }
                }
                // Which of its shapes a client reads makes no difference here.
                "beta" => {}
                other => {
                    let name = quote(other);
                    let message = match nearest(other, NAMES.into_iter()) {
                        Some(near) => format!("There is no parameter `{name}` here. Did you mean `{near}`?"),
                        None => {
                            format!("There is no parameter `{name}` here. There are {}.", NAMES.join(", "))
                        }
                    };
                    return Err(ApiError::new(Code::UnknownParameter, message).with_param(name));
                }
            }
        }
        wanted.active = lifecycles.unwrap_or(true);
        Ok(wanted)
    }
}

/// A part of a query, as it was before it was encoded; what is no encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let decoded = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::shapes::ModelNote;

    fn models(count: usize) -> Vec<Model> {
        let note = ModelNote {
            id: "blake3:00".to_owned(),
            architecture: "llama".to_owned(),
            file_bytes: 1,
            formats: Vec::new(),
            tier: "exact",
            note: None,
            claims: None,
            vocabulary: 9,
            chat: true,
            tools: false,
            embeddings: None,
            workers_ready: 1,
        };
        let model = |index: usize| Model {
            id: format!("owner/m+{index:03}"),
            object: "model",
            created: 951_782_400,
            owned_by: "surety",
            context_length: 64,
            surety: note.clone(),
        };
        (0..count).map(model).collect()
    }

    fn ids(page: &ModelPage) -> Vec<&str> {
        page.data.iter().map(|model| model.id.as_str()).collect()
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        let all = page("", models(3)).expect("a page");
        assert_eq!((all.data.len(), all.has_more), (3, false));
        assert_eq!(all.first_id.as_deref(), Some("owner/m+000"));
        assert_eq!(all.data[0].created_at, "2000-02-29T00:00:00Z");
        let two = page("limit=2&beta=true", models(3)).expect("a page");
        assert_eq!((ids(&two), two.has_more), (vec!["owner/m+000", "owner/m+001"], true));
        let rest = page("limit=2&after_id=owner%2Fm%2B001", models(3)).expect("a page");
        assert_eq!((ids(&rest), rest.has_more), (vec!["owner/m+002"], false));
        let before = page("limit=1&before_id=owner/m%2b002", models(3)).expect("a page");
        assert_eq!((ids(&before), before.has_more), (vec!["owner/m+001"], true));
        let none = page("lifecycle[]=retired&lifecycle%5B%5D=deprecated", models(3)).expect("a page");
        assert!(none.data.is_empty() && none.first_id.is_none() && !none.has_more);
        assert_eq!(page("lifecycle=retired,active", models(3)).expect("a page").data.len(), 3);
    }

    #[test]
    fn what_is_no_query_is_named() {
        for (query, param) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("after_id=zzz", "after_id"),
            ("before_id=", "before_id"),
            ("after_id=owner/m%2B001&before_id=owner/m%2B001", "before_id"),
            ("lifecycle=young", "lifecycle"),
            ("limti=1", "limti"),
        ] {
            assert_eq!(page(query, models(3)).expect_err(query).param(), Some(param));
        }
    }

    proptest! {
        #[test]
        fn turning_pages_shows_every_model_once(count in 0usize..40, limit in 1usize..12) {
            let (mut seen, mut query) = (Vec::new(), format!("limit={limit}"));
            loop {
                let page = page(&query, models(count)).expect("a page");
                seen.extend(page.data.iter().map(|model| model.id.clone()));
                if !page.has_more {
                    break;
                }
                let last = page.last_id.expect("more, so some").replace('+', "%2B");
                query = format!("limit={limit}&after_id={last}");
            }
            let all: Vec<String> = models(count).into_iter().map(|model| model.id).collect();
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn arbitrary_queries_never_panic(query in r"[a-z_\[\]%&=0-9+é]{0,60}") {
            let _ = page(&query, models(2));
        }
    }
}
