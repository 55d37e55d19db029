//! Pages: what people see, out of the binary.
//!
//! In:     GET requests of browsers.
//! Out:    the files that `web/` builds into `web/dist`, compressed as the browser wishes.
//! Touches: nothing.
//! Holds:  every file comes with the policy that lets no script but these run, and no request go anywhere else; what is named by its
//!         digest may be kept for ever, and anything else is asked for anew.
//! Absent: what the pages do (`web/`).

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::look;
use crate::gateway::Shared;

/// A file of the pages.
#[derive(Debug)]
struct Asset {
    /// Where it is served.
    path: &'static str,
    content_type: &'static str,
    /// Weak: its compressed forms share it.
    etag: &'static str,
    /// Whether another content would have another path.
    is_named_by_digest: bool,
    plain: &'static [u8],
    /// Where that is shorter.
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// What `web/build/embed.mjs` lists.
const ASSETS: &[Asset] = include!("../../../../web/dist/table.rs");

/// As logs and metrics name every file but `/`.
pub(super) const PATH: &str = "/assets/{file}";
const HOME: &str = "/";

/// The pages have one policy of Trusted Types, for the service worker's address; no other text becomes code, and none HTML. The verifier of
/// receipts is WebAssembly, which browsers admit by a word of its own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; font-src 'self'; \
    img-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types surety";
const PERMISSIONS_POLICY: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), usb=()";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Adds the paths of all files.
pub(super) fn routes(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let files = ASSETS.iter().filter(|asset| asset.path != HOME);
    files
        .fold(router, |router, asset| {
            router.route(asset.path, get(move |headers: HeaderMap| async move { asset.response(&headers) }))
        })
        .route(HOME, get(home))
}

/// Whether a path is a file's.
pub(super) fn is_page(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

/// Whether the caller has what has this tag.
pub(super) fn is_known(asked: &HeaderMap, etag: &str) -> bool {
    asked.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        let mut tags = tags.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag.trim_start_matches("W/"))
    })
}

/// The chat page for browsers; for programs, how to use the API.
async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let page = ASSETS.iter().find(|asset| asset.path == HOME);
    let mut response = match page.filter(|_| accepts(&headers, header::ACCEPT, "text/html")) {
        Some(page) => page.response(&headers),
        None => look::welcome(&shared).into_response(),
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

impl Asset {
    fn response(&self, asked: &HeaderMap) -> Response {
        let is_known = is_known(asked, self.etag);
        let (encoding, bytes) = self.form(asked);
        let mut response = match is_known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => Response::new(Body::from(Bytes::from_static(bytes))),
        };
        let headers = response.headers_mut();
        let mut say = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        if let Some(encoding) = encoding.filter(|_| !is_known) {
            say(header::CONTENT_ENCODING, encoding);
        }
        say(header::CONTENT_TYPE, self.content_type);
        say(header::ETAG, self.etag);
        say(header::CACHE_CONTROL, if self.is_named_by_digest { IMMUTABLE } else { "no-cache" });
        say(header::VARY, "accept-encoding");
        say(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
        say(header::REFERRER_POLICY, "no-referrer");
        say(HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY);
        say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        say(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
        response
    }

    /// The shortest form that is accepted, and how it is encoded.
    fn form(&self, asked: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
        let form = |name: &'static str, bytes: Option<&'static [u8]>| {
            bytes.filter(|_| accepts(asked, header::ACCEPT_ENCODING, name)).map(|bytes| (Some(name), bytes))
        };
        form("br", self.brotli).or_else(|| form("gzip", self.gzip)).unwrap_or((None, self.plain))
    }
}

/// Whether a header that lists what is accepted names this, and does not give it the weight zero.
fn accepts(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let lists = headers.get_all(header).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        });
        is_it && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use proptest::prelude::*;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn what_is_accepted_is_what_is_named_and_not_refused() {
        for (value, expected) in [
            ("br", true),
            ("gzip, deflate, BR", true),
            ("gzip;q=1.0, br;q=0.5", true),
            ("br;q=0", false),
            ("br; q=0.000", false),
            ("gzip", false),
            ("brotli", false),
            ("", false),
        ] {
            let asked = headers(header::ACCEPT_ENCODING, value);
            assert_eq!(accepts(&asked, header::ACCEPT_ENCODING, "br"), expected, "{value:?}");
        }
    }

    #[test]
    fn the_table_has_every_file_that_was_built() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/dist");
        let mut built = BTreeSet::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&folder).expect("within").to_str().expect("UTF-8").to_owned();
                if !["br", "gz", "rs"].iter().any(|other| name.ends_with(&format!(".{other}"))) {
                    let name = if name == "index.html" { "" } else { name.trim_end_matches(".html") };
                    built.insert(format!("/{name}"));
                }
            }
        }
        let listed: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(listed, built);
        assert!(listed.contains(HOME) && listed.len() == ASSETS.len());
    }

    #[test]
    fn the_policy_permits_nothing_unsafe_and_nobody_else() {
        // WebAssembly computes; it runs no script.
        let policy = CONTENT_SECURITY_POLICY.replacen(
            "script-src 'self' 'wasm-unsafe-eval';",
            "script-src 'self';",
            1,
        );
        for word in ["unsafe", "http", "*", "data:", "blob:"] {
            assert!(!policy.contains(word), "{word}");
        }
        assert!(CONTENT_SECURITY_POLICY.starts_with("default-src 'none';"));
    }

    proptest! {
        /// Whatever is asked for, a form is given that was asked for, and the tag that was told is known again.
        #[test]
        fn any_header_is_answered(encodings in "[ -~]{0,40}", tags in "[ -~]{0,40}", index in 0..ASSETS.len()) {
            let asset = &ASSETS[index];
            let mut asked = headers(header::ACCEPT_ENCODING, &encodings);
            asked.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&tags).expect("printable"));
            let (encoding, bytes) = asset.form(&asked);
            prop_assert!(encoding.is_none_or(|name| encodings.to_ascii_lowercase().contains(name)));
            prop_assert!(!bytes.is_empty() && bytes.len() <= asset.plain.len());
            asset.response(&asked);
            let again = headers(header::IF_NONE_MATCH, &format!("\"other\", {}", asset.etag));
            prop_assert_eq!(asset.response(&again).status(), StatusCode::NOT_MODIFIED);
        }
    }
}
