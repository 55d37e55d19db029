//! Suffix: what a caller says of routing behind a model's name, as in `name:floor` or `name@pin:verified`.
//!
//! In:     a model as the caller wrote it. Out: its name without suffixes; what they wish for.
//! Touches: nothing.
//! Holds:  only the words below are suffixes, at the end of the name and at the end of what is in front of its pin; any other
//!         colon is a part of the name.
//! Absent: what the wishes do (`route`, `session`).
//!
//! Source: OpenRouter, *Model Variants*, for `:nitro` and `:floor`.

use std::borrow::Cow;

use crate::{
    error::ApiError,
    route::preferences::{Preferences, Sort},
};

/// What suffixes wish for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) sort: Option<Sort>,
    /// Two of them wish for different orders.
    contradicts: bool,
    pub(crate) checked: bool,
}

/// All suffixes, as documented.
const SUFFIXES: [&str; 3] = [":verified", ":nitro", ":floor"];

/// A model's name, or alias, or id, with its pin, without suffixes; and what they wish for.
pub(crate) fn split(asked: &str) -> (Cow<'_, str>, Wishes) {
    let mut wishes = Wishes::default();
    let whole = strip(asked, &mut wishes);
    match whole.split_once('@') {
        None => (Cow::Borrowed(whole), wishes),
        Some((name, pin)) => match strip(name, &mut wishes) {
            bare if bare.len() == name.len() => (Cow::Borrowed(whole), wishes),
            bare => (Cow::Owned(format!("{bare}@{pin}")), wishes),
        },
    }
}

fn strip<'a>(mut text: &'a str, wishes: &mut Wishes) -> &'a str {
    while let Some((bare, suffix)) =
        SUFFIXES.iter().find_map(|suffix| text.strip_suffix(suffix).map(|bare| (bare, *suffix)))
        && !bare.is_empty()
    {
        text = bare;
        let sort = match suffix {
            ":nitro" => Sort::Throughput,
            ":floor" => Sort::Price,
            _ => {
                wishes.checked = true;
                continue;
            }
        };
        wishes.contradicts |= wishes.sort.replace(sort).is_some_and(|before| before != sort);
    }
    text
}

impl Wishes {
    /// Adds them to what the request says otherwise. Err: it says something else.
    pub(crate) fn add_to(self, preferences: &mut Preferences) -> Result<(), ApiError> {
        if self.contradicts {
            let message = "`model` ends in `:nitro` and in `:floor`: the first sorts workers by speed, the second by price. \
                           Leave one of them out.";
            return Err(ApiError::invalid("model", message));
        }
        if let Some(sort) = self.sort {
            if preferences.sort.is_some_and(|said| said != sort) {
                let message = "`model` ends in a suffix that sorts workers otherwise than `provider.sort` does. Leave one of \
                               them out.";
                return Err(ApiError::invalid("provider.sort", message));
            }
            preferences.sort = Some(sort);
        }
        preferences.checked |= self.checked;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffixes_are_taken_off_wherever_they_may_stand() {
        use Sort::{Price, Throughput};
        for (asked, name, sort, checked) in [
            ("tiny", "tiny", None, false),
            ("tiny:verified", "tiny", None, true),
            ("tiny:nitro", "tiny", Some(Throughput), false),
            ("tiny:floor:verified", "tiny", Some(Price), true),
            ("tiny:verified:floor:floor", "tiny", Some(Price), true),
            ("tiny@0123abcd:verified", "tiny@0123abcd", None, true),
            ("tiny:verified@0123abcd", "tiny@0123abcd", None, true),
            ("tiny:floor@blake3:0123abcd:verified", "tiny@blake3:0123abcd", Some(Price), true),
            ("blake3:0123abcd:verified", "blake3:0123abcd", None, true),
            ("qwen3:0.6b", "qwen3:0.6b", None, false),
            ("qwen3:0.6b:nitro", "qwen3:0.6b", Some(Throughput), false),
            ("tiny:latest", "tiny:latest", None, false),
            ("tiny:Verified", "tiny:Verified", None, false),
            ("tiny:verified ", "tiny:verified ", None, false),
            ("verified", "verified", None, false),
            (":verified", ":verified", None, false),
            ("", "", None, false),
        ] {
            let (bare, wishes) = split(asked);
            assert_eq!((&*bare, wishes.sort, wishes.checked), (name, sort, checked), "{asked}");
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let add = |asked: &str, sort| {
            let mut preferences = Preferences { sort, ..Preferences::default() };
            split(asked).1.add_to(&mut preferences).map(|()| preferences)
        };
        let error = add("tiny:nitro:floor", None).expect_err("two orders");
        assert_eq!(error.param(), Some("model"));
        let error = add("tiny:nitro", Some(Sort::Price)).expect_err("two orders");
        assert_eq!(error.param(), Some("provider.sort"));
        assert_eq!(add("tiny:floor", Some(Sort::Price)).expect("one order").sort, Some(Sort::Price));
        assert_eq!(add("tiny:verified", Some(Sort::Latency)).expect("both").sort, Some(Sort::Latency));
        assert!(add("tiny:verified", None).expect("a wish").checked);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_and_nothing_is_added(text in "[a-z:@]{0,12}(:verified|:nitro|:floor|@[a-f0-9]{8}){0,5}") {
            let (bare, _) = split(&text);
            prop_assert!(bare.len() <= text.len());
            prop_assert!(text.starts_with(bare.split('@').next().unwrap_or("")));
            let (again, wishes) = split(&bare);
            prop_assert_eq!(again, bare.clone());
            prop_assert_eq!(wishes, Wishes::default());
        }
    }
}
