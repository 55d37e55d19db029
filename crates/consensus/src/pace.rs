//! The pace of blocks: a proposer waits before it builds, not while it does.
//!
//! In:     requests to propose on a parent.
//! Out:    the same requests, once the parent is old enough.
//! Touches: the clock.
//! Holds:  a proposal begins no earlier than one pace after its parent's time, and no later than one pace after it was
//!         asked for; a request nobody waits for any more is dropped.
//! Absent: building. Waiting inside it would hold up the parent's finalisation, which waits for builds.

use crate::{
    BlockContext, Digest, Law,
    application::{Shared, milliseconds},
    runtime::Runtime,
};
use commonware_actor::Feedback;
use commonware_consensus::{
    Automaton, CertifiableAutomaton, Handoff, Relay, Reporter,
    simplex::{Plan, scheme::ed25519::Scheme, types::Activity},
    types::Round,
};
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use std::{sync::Arc, time::Duration};

/// An automaton that keeps the pace.
pub(crate) struct Paced<E, A, L: Law> {
    runtime: Arc<E>,
    inner: A,
    shared: Arc<Shared<L>>,
}

impl<E, A: Clone, L: Law> Clone for Paced<E, A, L> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<E: Runtime, A, L: Law> Paced<E, A, L> {
    pub(crate) fn new(runtime: E, inner: A, shared: Arc<Shared<L>>) -> Self {
        Self { runtime: Arc::new(runtime), inner, shared }
    }

    /// How long until a child of this parent is due. A parent from a clock ahead of ours costs one pace at most.
    fn wait(&self, parent: &Digest) -> Duration {
        let pace = self.shared.settings.pacing;
        let Some(parent) = self.shared.header_of(parent) else { return Duration::ZERO };
        let due = parent.timestamp_ms.saturating_add(pace.as_millis() as u64);
        Duration::from_millis(due.saturating_sub(milliseconds(self.runtime.current()))).min(pace)
    }
}

impl<E, A, L> Automaton for Paced<E, A, L>
where
    E: Runtime,
    A: Automaton<Context = BlockContext, Digest = Digest> + Sync,
    L: Law,
{
    type Context = BlockContext;
    type Digest = Digest;

    async fn propose(&mut self, context: BlockContext) -> oneshot::Receiver<Digest> {
        let wait = self.wait(&context.parent.1);
        if wait.is_zero() {
            return self.inner.propose(context).await;
        }
        let (mut sender, receiver) = oneshot::channel();
        let mut inner = self.inner.clone();
        self.runtime.child("pace").spawn(move |runtime| async move {
            let proposal = async move {
                runtime.sleep(wait).await;
                inner.propose(context).await.await
            };
            select! {
                _ = sender.closed() => {},
                proposed = proposal => {
                    if let Ok(digest) = proposed {
                        let _ = sender.send(digest);
                    }
                },
            }
        });
        receiver
    }

    async fn verify(&mut self, context: BlockContext, payload: Digest) -> oneshot::Receiver<bool> {
        self.inner.verify(context, payload).await
    }
}

impl<E, A, L> CertifiableAutomaton for Paced<E, A, L>
where
    E: Runtime,
    A: CertifiableAutomaton<Context = BlockContext, Digest = Digest> + Sync,
    L: Law,
{
    async fn prepare(&mut self, context: BlockContext) -> oneshot::Receiver<Handoff<Digest>> {
        self.inner.prepare(context).await
    }

    async fn certify(&mut self, round: Round, payload: Digest) -> oneshot::Receiver<bool> {
        self.inner.certify(round, payload).await
    }
}

impl<E, A, L> Relay for Paced<E, A, L>
where
    E: Runtime,
    A: Relay<Digest = Digest, PublicKey = PublicKey, Plan = Plan<PublicKey>>,
    L: Law,
{
    type Digest = Digest;
    type PublicKey = PublicKey;
    type Plan = Plan<PublicKey>;

    fn broadcast(&mut self, payload: Digest, plan: Self::Plan) -> Feedback {
        self.inner.broadcast(payload, plan)
    }
}

impl<E, A, L> Reporter for Paced<E, A, L>
where
    E: Runtime,
    A: Reporter<Activity = Activity<Scheme, Digest>>,
    L: Law,
{
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        self.inner.report(activity)
    }
}
