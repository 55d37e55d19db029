//! How a person names a model.
//!
//! In:     what was typed: `file.gguf`, `hf:owner/repo[/file]`, `name`, `name@id-prefix`, `blake3:…`.
//! Out:    a parsed `Reference`.
//! Touches: nothing.
//! Holds:  every accepted part is safe to use in a path or an address.
//! Absent: looking anything up.

use std::{fmt, path::PathBuf, str::FromStr};

use thiserror::Error;

/// Fewest digits of a pin: shorter ones say too little to be worth trusting.
const PIN_DIGITS_MIN: usize = 4;
/// A BLAKE3 digest in hexadecimal.
const PIN_DIGITS_MAX: usize = 64;
/// Longest name of a model.
pub const NAME_BYTES_MAX: usize = 96;

/// A parsed reference to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A file on this machine.
    Path(PathBuf),
    /// A file of a hub's repository.
    Hub(HubReference),
    /// A name of the store, perhaps pinned to the first digits of its model id.
    Name {
        /// The name.
        name: String,
        /// Lower-case hexadecimal digits, 4 to 64.
        pin: Option<String>,
    },
    /// The first digits of a model id or of a file's BLAKE3.
    Id(String),
}

/// A repository of a hub, and perhaps one file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubReference {
    repository: String,
    file: Option<String>,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("a model reference must not be empty")]
    Empty,
    /// After `hf:` comes no `owner/repo`.
    #[error("`{0}` names no repository")]
    Repository(String),
    /// The name has characters a name may not have.
    #[error("`{0}` cannot be a model's name")]
    Name(String),
    /// What follows `@` or `blake3:` is not hexadecimal, or too short, or too long.
    #[error("`{0}` is not the beginning of a model id")]
    Pin(String),
}

impl ReferenceError {
    /// What the person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => {
                "give file.gguf, hf:owner/repo[/file], a name from `surety model list`, or blake3:…"
            }
            Self::Repository(_) => "write hf:owner/repo, or hf:owner/repo/file.gguf",
            Self::Name(_) => {
                "names are made of letters, digits, `.`, `_` and `-`, begin with a letter or digit, and have at most 96 bytes; a file's path needs a `/` or must end in .gguf"
            }
            Self::Pin(_) => "give 4 to 64 hexadecimal digits, as `surety model list` shows them",
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return rest.parse().map(Self::Hub);
        }
        if let Some(digits) = text.strip_prefix("blake3:") {
            return pin(digits).map(Self::Id);
        }
        if text.contains(['/', '\\']) || text.to_ascii_lowercase().ends_with(".gguf") {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let (name, digits) = match text.split_once('@') {
            Some((name, digits)) => (name, Some(digits)),
            None => (text, None),
        };
        if !is_name(name) {
            return Err(ReferenceError::Name(name.to_owned()));
        }
        let pin = digits.map(|digits| pin(digits.strip_prefix("blake3:").unwrap_or(digits))).transpose()?;
        Ok(Self::Name { name: name.to_owned(), pin })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub(hub) => hub.fmt(f),
            Self::Name { name, pin: None } => f.write_str(name),
            Self::Name { name, pin: Some(pin) } => write!(f, "{name}@{pin}"),
            Self::Id(digits) => write!(f, "blake3:{digits}"),
        }
    }
}

impl HubReference {
    /// `owner/repo`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The file's path within the repository, if one was named.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same repository with this file.
    pub fn with_file(&self, file: &str) -> Result<Self, ReferenceError> {
        if is_safe_path(file) {
            Ok(Self { repository: self.repository.clone(), file: Some(file.to_owned()) })
        } else {
            Err(ReferenceError::Repository(file.to_owned()))
        }
    }
}

impl FromStr for HubReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let mut parts = text.splitn(3, '/');
        let (owner, repository, file) = (parts.next(), parts.next(), parts.next());
        match (owner, repository) {
            (Some(owner), Some(repository))
                if is_name(owner) && is_name(repository) && file.is_none_or(is_safe_path) =>
            {
                Ok(Self { repository: format!("{owner}/{repository}"), file: file.map(str::to_owned) })
            }
            _ => Err(ReferenceError::Repository(text.to_owned())),
        }
    }
}

impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "hf:{}/{file}", self.repository),
            None => write!(f, "hf:{}", self.repository),
        }
    }
}

/// True for what may name a model, an owner or a repository.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Relative, with ordinary names only: it can neither leave its folder nor change the address it is put into.
fn is_safe_path(path: &str) -> bool {
    path.len() <= 512
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| !c.is_control() && !matches!(c, '\\' | ':' | '?' | '#' | '%'))
        })
}

fn pin(digits: &str) -> Result<String, ReferenceError> {
    let fits = (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&digits.len());
    if fits && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err(ReferenceError::Pin(digits.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<Reference, ReferenceError>) {
        assert_eq!(text.parse(), expected, "{text}");
    }

    fn name(name: &str, pin: Option<&str>) -> Result<Reference, ReferenceError> {
        Ok(Reference::Name { name: name.into(), pin: pin.map(Into::into) })
    }

    #[test]
    fn the_forms_people_type() {
        check("qwen3-0.6b", name("qwen3-0.6b", None));
        check("qwen3-0.6b@ABCD", name("qwen3-0.6b", Some("abcd")));
        check("qwen3-0.6b@blake3:abcd1", name("qwen3-0.6b", Some("abcd1")));
        check("blake3:0123", Ok(Reference::Id("0123".into())));
        check("model.GGUF", Ok(Reference::Path("model.GGUF".into())));
        check("./model", Ok(Reference::Path("./model".into())));
        check(
            "hf:Qwen/Qwen3-0.6B-GGUF",
            Ok(Reference::Hub(HubReference { repository: "Qwen/Qwen3-0.6B-GGUF".into(), file: None })),
        );
        check(
            "hf:a/b/sub/c d.gguf",
            Ok(Reference::Hub(HubReference { repository: "a/b".into(), file: Some("sub/c d.gguf".into()) })),
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check("", Err(ReferenceError::Empty));
        for text in ["hf:", "hf:a", "hf:a/", "hf:a/b/", "hf:a/b/../c", "hf:../b", "hf:a/b/c?d", "hf:a/b//c"] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Repository(_))), "{text}");
        }
        for text in ["-x", "a b", "ä", "a=b", &"a".repeat(97)] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Name(_))), "{text}");
        }
        for text in ["blake3:", "blake3:abc", "blake3:xyzw", "a@", "a@12", &format!("a@{}", "0".repeat(65))] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Pin(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_prints_back(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
