//! Faults: what is done to a network, or by a caller, and who answers for it.
//!
//! In:     nothing. Out: a table.
//! Touches: nothing.
//! Holds:  every row of the requirements' matrix has a fault, which a test sees to.
//! Absent: how each is injected (`bare`, `paid`).

/// The requirements' rows.
pub const ROWS: [&str; 22] = [
    "bad client input",
    "wrong key",
    "budget hit mid-stream",
    "gateway killed",
    "gateway overloaded",
    "link partition",
    "slow link",
    "worker crash",
    "worker hang",
    "worker slow-loris tokens",
    "worker wrong weights/quantization",
    "worker wrong sampler/seed",
    "worker edited text after inference",
    "worker replays an old answer",
    "storage shard missing/corrupt",
    "model publisher withdrew",
    "verifier offline",
    "verifier lies",
    "chain halted",
    "clock skew",
    "upgrade mismatch",
    "DNS/TLS failure",
];

/// The network that a fault takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Two workers and a gateway; no ledger.
    Bare,
    /// The same, each worker at a link of its own.
    Linked,
    /// The same as bare, with clocks that can be moved.
    Clocked,
    /// Validators, a gateway that pays, an honest worker, and liars.
    Paid,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident $name:literal $row:literal $site:ident;)*) => {
        /// What is done to the network, or by the caller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Fault] = &[$(Fault::$fault,)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)* }
            }

            /// The requirements' row that it is of; empty for the control.
            pub fn row(self) -> &'static str {
                match self { $(Fault::$fault => $row,)* }
            }

            /// What it takes.
            pub fn site(self) -> Site {
                match self { $(Fault::$fault => Site::$site,)* }
            }
        }
    };
}

faults! {
    /// No fault: nobody is to be named.
    None "none" "" Bare;
    /// A parameter has a value that it cannot have.
    WrongValue "wrong-value" "bad client input" Bare;
    /// A parameter is misspelt.
    UnknownParameter "unknown-parameter" "bad client input" Bare;
    /// The body is no object.
    NoObject "no-object" "bad client input" Bare;
    /// Nobody serves the model.
    UnknownModel "unknown-model" "bad client input" Bare;
    /// The prompt is longer than any window.
    TooLong "too-long" "bad client input" Bare;
    /// The request's own constraints leave nobody.
    RuledOut "ruled-out" "bad client input" Bare;
    /// The caller goes away in mid-answer.
    CallerLeaves "caller-leaves" "bad client input" Bare;
    /// The caller shows a key that the gateway does not know.
    WrongKey "wrong-key" "wrong key" Bare;
    /// A key's budget is spent while one of its streams is in its middle.
    BudgetSpent "budget-spent" "budget hit mid-stream" Paid;
    /// The gateway is killed.
    GatewayKilled "gateway-killed" "gateway killed" Bare;
    /// The gateway is stopped for some seconds.
    GatewayStandsStill "gateway-stands-still" "gateway overloaded" Bare;
    /// The gateway holds as much as it takes.
    GatewayOverloaded "gateway-overloaded" "gateway overloaded" Bare;
    /// The link of the only worker that may answer is cut.
    LinkCut "link-cut" "link partition" Linked;
    /// Nothing reaches it, and it is heard.
    LinkLosesThere "link-loses-there" "link partition" Linked;
    /// It is not heard, and everything reaches it.
    LinkLosesBack "link-loses-back" "link partition" Linked;
    /// All links are cut at once: the gateway's own, to whoever sits at it.
    AllLinksCut "all-links-cut" "link partition" Linked;
    /// A few kilobits pass in a second.
    LinkSlow "link-slow" "slow link" Linked;
    /// The only worker that may answer is killed.
    WorkerCrash "worker-crash" "worker crash" Bare;
    /// A worker is killed, and another goes on.
    WorkerCrashContinued "worker-crash-continued" "worker crash" Bare;
    /// All workers are gone.
    NobodyThere "nobody-there" "worker crash" Bare;
    /// The only worker that may answer is stopped.
    WorkerHang "worker-hang" "worker hang" Bare;
    /// It runs a few milliseconds of every second.
    WorkerDrips "worker-drips" "worker slow-loris tokens" Bare;
    /// A worker serves other weights under the model's name.
    OtherWeights "other-weights" "worker wrong weights/quantization" Paid;
    /// It samples at another temperature.
    OtherSampler "other-sampler" "worker wrong sampler/seed" Paid;
    /// It stops early, and says that the model did.
    EarlyStop "early-stop" "worker wrong sampler/seed" Paid;
    /// It puts a sentence of its own before the conversation.
    Injected "injected" "worker edited text after inference" Paid;
    /// It changes the text after the model gave it.
    Edited "edited" "worker edited text after inference" Paid;
    /// It gives an old answer to the same question again, whatever seed is asked for.
    Replayed "replayed" "worker replays an old answer" Paid;
    /// A byte of the model's file is another, its time the same, when the worker is started again.
    StorageDamaged "storage-damaged" "storage shard missing/corrupt" Bare;
    /// A byte of the packed weights is another.
    PackedDamaged "packed-damaged" "storage shard missing/corrupt" Bare;
    /// The file is gone.
    StorageMissing "storage-missing" "storage shard missing/corrupt" Bare;
    /// The only worker with a model has left.
    ModelWithdrawn "model-withdrawn" "model publisher withdrew" Bare;
    /// Every worker that could audit is stopped.
    VerifierOffline "verifier-offline" "verifier offline" Paid;
    /// An honest answer is accused.
    VerifierLies "verifier-lies" "verifier lies" Paid;
    /// Every validator is stopped.
    ChainHalted "chain-halted" "chain halted" Paid;
    /// A worker's clock is an hour ahead.
    WorkerAhead "worker-clock-ahead" "clock skew" Clocked;
    /// A worker's clock is an hour behind.
    WorkerBehind "worker-clock-behind" "clock skew" Clocked;
    /// The gateway's clock is an hour ahead.
    GatewayAhead "gateway-clock-ahead" "clock skew" Clocked;
    /// The gateway's clock is an hour behind.
    GatewayBehind "gateway-clock-behind" "clock skew" Clocked;
    /// A worker speaks the next version of the protocol of orders.
    UpgradeMismatch "upgrade-mismatch" "upgrade mismatch" Bare;
    /// The gateway's ledger node has a name that does not resolve.
    NameUnknown "name-unknown" "DNS/TLS failure" Paid;
    /// It shows a certificate that nobody vouches for.
    CertificateUnknown "certificate-unknown" "DNS/TLS failure" Paid;
}

impl Fault {
    /// Who may be named; where that is a worker, the one that was struck. An answer that came whole and late leaves nobody to be
    /// named, and of a deadline that passed it cannot be told whether it was too short. By its acceptance a worker answers for
    /// the way to it, too; who only names what it was told by no signature says that it is not known.
    pub fn right(self, whole: bool) -> &'static [&'static str] {
        use Fault::*;
        match (self, whole) {
            (None | VerifierOffline, _) => &["nobody"],
            (
                WrongValue | UnknownParameter | NoObject | UnknownModel | TooLong | RuledOut | CallerLeaves
                | WrongKey | BudgetSpent,
                _,
            ) => &["caller"],
            (WorkerCrash | WorkerHang | WorkerCrashContinued, _) => &["worker"],
            (NobodyThere | ModelWithdrawn, _) => &["unknown"],
            (WorkerDrips | LinkCut | LinkLosesThere | LinkLosesBack | LinkSlow, true) => {
                &["nobody", "worker"]
            }
            (WorkerDrips | LinkCut | LinkLosesThere | LinkLosesBack | LinkSlow, false) => {
                &["worker", "unknown"]
            }
            (WorkerAhead | WorkerBehind | UpgradeMismatch, false) => &["worker", "unknown"],
            (StorageDamaged | StorageMissing | PackedDamaged, false) => &["worker", "unknown"],
            (WorkerAhead | WorkerBehind | UpgradeMismatch, true) => &["nobody"],
            (StorageDamaged | StorageMissing | PackedDamaged, true) => &["nobody"],
            (GatewayKilled | GatewayOverloaded, _) => &["gateway"],
            (GatewayStandsStill, false) => &["gateway"],
            (GatewayStandsStill, true) => &["nobody", "gateway"],
            (
                AllLinksCut | GatewayAhead | GatewayBehind | NameUnknown | CertificateUnknown | ChainHalted,
                false,
            ) => &["gateway", "unknown"],
            (
                AllLinksCut | GatewayAhead | GatewayBehind | NameUnknown | CertificateUnknown | ChainHalted,
                true,
            ) => &["nobody"],
            // Nobody can know before it was computed again; then it is known.
            (OtherWeights | OtherSampler | EarlyStop | Injected | Edited | Replayed, _) => &["worker"],
            (VerifierLies, _) => &["nobody"],
        }
    }

    /// Whether an answer that is whole was not struck.
    pub fn must_strike(self) -> bool {
        use Fault::*;
        matches!(
            self,
            CallerLeaves
                | WorkerCrash
                | WorkerHang
                | WorkerDrips
                | GatewayKilled
                | LinkCut
                | LinkLosesThere
                | LinkLosesBack
                | AllLinksCut
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_fault_and_every_fault_a_row_and_a_verdict() {
        for row in ROWS {
            assert!(Fault::ALL.iter().any(|fault| fault.row() == row), "{row} is not injected");
        }
        for fault in Fault::ALL {
            assert!(
                *fault == Fault::None || ROWS.contains(&fault.row()),
                "{}: {}",
                fault.name(),
                fault.row()
            );
            assert!(!fault.right(false).is_empty() && !fault.right(true).is_empty());
        }
    }
}
