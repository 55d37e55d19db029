//! Path: which model, which revision and which file a path of the hub's names.
//!
//! In:     paths. Out: what they ask for, decoded.
//! Touches: nothing.
//! Holds:  a path is taken apart before it is decoded, so that an encoded slash belongs to a name.
//! Absent: whether there is such a thing.

use percent_encoding::percent_decode_str;

/// Before a model's name, where something about it is asked.
const MODELS: &str = "/api/models/";
/// Between a model's name and a revision, where a file of it is asked for.
const RESOLVE: &str = "resolve";

/// What is asked about a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What it is, at a revision.
    Model { repo: String, revision: Option<String> },
    /// Which revisions there are.
    Refs { repo: String },
    /// Which files, or what is in a folder of them.
    Tree { repo: String, revision: String, folder: String },
}

/// A file of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AskedFile {
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) file: String,
}

/// Whether the clients of a hub use this path.
pub(crate) fn is_hubs(path: &str) -> bool {
    path.starts_with(MODELS)
        || ["/api/models", "/api/whoami-v2"].contains(&path)
        || path.split('/').skip(2).take(2).any(|segment| segment == RESOLVE)
}

/// A path of the hub's, as it is described: its routes are wider.
pub(crate) fn known_path(path: &str) -> &'static str {
    match Asked::parse(path) {
        None if !path.starts_with(MODELS) => "/{id}/resolve/{revision}/{file}",
        None | Some(Asked::Model { revision: None, .. }) => "/api/models/{id}",
        Some(Asked::Model { .. }) => "/api/models/{id}/revision/{revision}",
        Some(Asked::Refs { .. }) => "/api/models/{id}/refs",
        Some(Asked::Tree { .. }) => "/api/models/{id}/tree/{revision}",
    }
}

impl Asked {
    /// None for a path that asks for nothing there could be.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let segments = decoded(path.strip_prefix(MODELS)?)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (repo, rest) = match segments[..] {
            [name, "refs" | "revision" | "tree", ..] => (name.to_owned(), &segments[1..]),
            [name] => (name.to_owned(), &segments[1..]),
            [owner, name, ..] => (format!("{owner}/{name}"), &segments[2..]),
            [] => return None,
        };
        match *rest {
            [] => Some(Asked::Model { repo, revision: None }),
            ["revision", revision] => Some(Asked::Model { repo, revision: Some(revision.to_owned()) }),
            ["refs"] => Some(Asked::Refs { repo }),
            ["tree", revision, ref folder @ ..] => {
                Some(Asked::Tree { repo, revision: revision.to_owned(), folder: folder.join("/") })
            }
            _ => None,
        }
    }
}

impl AskedFile {
    /// None for a path that asks for no file.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let segments = decoded(path.strip_prefix('/')?)?;
        let at = segments.iter().take(3).skip(1).position(|segment| segment == RESOLVE)? + 1;
        let (repo, rest) = segments.split_at(at);
        let [_, revision, file @ ..] = rest else { return None };
        if file.is_empty() {
            return None;
        }
        Some(AskedFile { repo: repo.join("/"), revision: revision.clone(), file: file.join("/") })
    }
}

/// The segments of a path; none where one is empty or no text.
fn decoded(path: &str) -> Option<Vec<String>> {
    let decode = |segment: &str| {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        (!text.is_empty()).then(|| text.into_owned())
    };
    path.split('/').map(decode).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(repo: &str, revision: Option<&str>) -> Option<Asked> {
        Some(Asked::Model { repo: repo.into(), revision: revision.map(Into::into) })
    }

    fn tree(repo: &str, revision: &str, folder: &str) -> Option<Asked> {
        Some(Asked::Tree { repo: repo.into(), revision: revision.into(), folder: folder.into() })
    }

    fn file(repo: &str, revision: &str, file: &str) -> Option<AskedFile> {
        Some(AskedFile { repo: repo.into(), revision: revision.into(), file: file.into() })
    }

    #[test]
    fn models_are_named_with_and_without_an_owner() {
        for (path, expected) in [
            ("tiny", model("tiny", None)),
            ("surety/tiny", model("surety/tiny", None)),
            ("surety%2Ftiny", model("surety/tiny", None)),
            ("tiny/revision/1f3a", model("tiny", Some("1f3a"))),
            ("surety/tiny/revision/refs%2Fpr%2F1", model("surety/tiny", Some("refs/pr/1"))),
            ("tiny/refs", Some(Asked::Refs { repo: "tiny".into() })),
            ("surety/tiny/refs", Some(Asked::Refs { repo: "surety/tiny".into() })),
            ("tiny/tree/main", tree("tiny", "main", "")),
            ("surety/tiny/tree/main/a/b%20c", tree("surety/tiny", "main", "a/b c")),
            ("", None),
            ("surety/", None),
            ("surety/tiny/", None),
            ("surety/tiny/commits/main", None),
            ("surety/tiny/revision", None),
            ("surety/tiny/revision/a/b", None),
            ("surety//tree/main", None),
            ("%ff/tiny", None),
        ] {
            assert_eq!(Asked::parse(&format!("/api/models/{path}")), expected, "{path}");
            assert!(is_hubs(&format!("/api/models/{path}")));
        }
    }

    #[test]
    fn files_are_named_with_every_part_decoded_once() {
        for (path, expected) in [
            ("/tiny/resolve/main/tiny.gguf", file("tiny", "main", "tiny.gguf")),
            ("/surety/tiny/resolve/1f3a/tiny.gguf", file("surety/tiny", "1f3a", "tiny.gguf")),
            ("/surety%2Ftiny/resolve/main/a/b.gguf", file("surety/tiny", "main", "a/b.gguf")),
            ("/tiny/resolve/main/%2e%2e%2fsecret", file("tiny", "main", "../secret")),
            ("/tiny/resolve/main/%252e", file("tiny", "main", "%2e")),
            ("/tiny/resolve/main/", None),
            ("/tiny/resolve/main", None),
            ("/resolve/main/tiny.gguf", None),
            ("/a/b/c/resolve/main/tiny.gguf", None),
            ("/tiny/resolve/main/%ff", None),
        ] {
            assert_eq!(AskedFile::parse(path), expected, "{path}");
        }
        assert!(is_hubs("/tiny/resolve/main/x") && is_hubs("/a/b/resolve/main/x") && is_hubs("/api/models"));
        assert!(!is_hubs("/api/tags") && !is_hubs("/v1/models") && !is_hubs("/api/modelsque"));
    }

    proptest! {
        #[test]
        fn foreign_paths_never_panic(path in "(/api/models/)?([a-z%.]{0,3}/?|resolve/|tree/|%2[0-9fF]|%[a-f0-9]){0,9}") {
            let _ = (Asked::parse(&path), AskedFile::parse(&path), is_hubs(&path));
        }
    }
}
