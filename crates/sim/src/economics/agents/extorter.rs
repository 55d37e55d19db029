//! Extorting accuser: an outsider that disputes right answers, and claims failures that were none, unless it is paid.
//!
//! Nobody pays: whoever wins a dispute has its costs back, so a threat is worth less than nothing.

/// How an extorter acts.
#[derive(Debug, Clone, Copy)]
pub struct Extorter {
    /// Right answers it disputes in an epoch.
    pub disputes: u64,
    /// Delivered answers it claims not to have had, in an epoch.
    pub claims: u64,
}
