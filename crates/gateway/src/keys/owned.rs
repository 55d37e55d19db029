//! Owned: what came with a key, and is given to nobody who comes with another.
//!
//! In:     a thing, and the number of the key it came with. Out: the thing, to whose it is.
//! Touches: nothing.
//! Holds:  there is no way to the thing but to say for whom.

use serde::{Deserialize, Serialize};

use super::NOBODY;

/// Something that is kept, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owned<T> {
    /// The number of the key; callers do not see it.
    #[serde(default)]
    tenant: u64,
    #[serde(flatten)]
    thing: T,
}

impl<T> Owned<T> {
    pub(crate) fn by(tenant: u64, thing: T) -> Owned<T> {
        Owned { tenant, thing }
    }

    /// The thing, to a tenant whose it is.
    pub(crate) fn of(self, tenant: u64) -> Option<T> {
        (self.tenant == tenant).then_some(self.thing)
    }

    /// The same also of what is nobody's.
    pub(crate) fn of_or_nobodys(self, tenant: u64) -> Option<T> {
        (self.tenant == tenant || self.tenant == NOBODY).then_some(self.thing)
    }

    /// Whose it is, and the thing: for who acts in its tenant's name, or counts what all have.
    pub(crate) fn apart(self) -> (u64, T) {
        (self.tenant, self.thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_given_to_whose_it_is() {
        let given = |owner, tenant| {
            let thing = Owned::by(owner, "thing");
            (thing.clone().of(tenant).is_some(), thing.of_or_nobodys(tenant).is_some())
        };
        assert_eq!(given(7, 7), (true, true));
        assert_eq!(given(7, 8), (false, false));
        assert_eq!(given(7, NOBODY), (false, false));
        assert_eq!(given(NOBODY, 7), (false, true));
    }

    #[test]
    fn what_was_kept_before_there_were_keys_is_nobodys() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Thing {
            id: String,
        }
        let read = |json: &str| serde_json::from_str::<Owned<Thing>>(json).expect("a thing").apart();
        let thing = || Thing { id: "x".to_owned() };
        assert_eq!(read(r#"{"id":"x"}"#), (NOBODY, thing()));
        let json = serde_json::to_string(&Owned::by(7, thing())).expect("JSON");
        assert_eq!(read(&json), (7, thing()));
    }
}
