//! Participants that break the rules: the honest ones agree, go on, and hold the evidence.

use crate::{
    harness::{Network, key, steady},
    run, seeds,
};
use commonware_consensus::simplex::{
    mocks::conflicter::{Config, Conflicter},
    scheme::ed25519::Scheme,
};
use commonware_cryptography::{Sha256, Signer as _};
use commonware_glue::simulate::engine::InitContext;
use commonware_p2p::{
    Recipients,
    simulated::{SplitOrigin, SplitTarget},
    utils::mux::{Builder as _, Muxer},
};
use commonware_runtime::{Handle as TaskHandle, Spawner as _, Supervisor as _, deterministic};
use std::sync::Arc;
use surety_consensus::{CHANNELS, Chain, Channels, MemoryVoteRecord, PublicKey};

pub const GUILTY: usize = 3;

fn conflicter(network: &Network, init: InitContext<'_, PublicKey>) -> TaskHandle<()> {
    conflict(&network.chain(), init)
}

/// Votes for whatever it hears of and for something else besides.
pub fn conflict(chain: &Chain, init: InitContext<'_, PublicKey>) -> TaskHandle<()> {
    let scheme = chain.validators.signer(&chain.namespace, key(GUILTY as u64)).unwrap();
    let (sender, receiver) = init.channels.into_iter().next().unwrap();
    init.context.spawn(move |context| async move {
        let (mux, mut votes) = Muxer::builder(context.child("mux"), sender, receiver).build();
        mux.start();
        let votes = votes.register(0).await.unwrap();
        let liar: Conflicter<_, Scheme, Sha256> = Conflicter::new(context.child("liar"), Config { scheme });
        let _ = liar.start(votes).await;
    })
}

#[test]
fn an_equivocator_is_convicted_by_everybody() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.misdeed = Some((GUILTY, conflicter));
        run(seed, &network, 10, |plan| plan);
        let accused: Vec<_> = network.world.accused.lock().unwrap().iter().cloned().collect();
        assert_eq!(accused, [key(GUILTY as u64).public_key()]);
    }
}

/// Two whole validators with one key: one talks with participant 0, the other with 1 and 2.
fn twins(network: &Network, init: InitContext<'_, PublicKey>) -> TaskHandle<()> {
    let groups: [Vec<PublicKey>; 2] =
        [vec![key(0).public_key()], [1, 2].map(|seed| key(seed).public_key()).to_vec()];
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (sender, receiver) in init.channels {
        let (pairs_left, pairs_right) = split(&init.context, sender, receiver, groups.clone());
        left.push(pairs_left);
        right.push(pairs_right);
    }
    let mut tasks = Vec::new();
    for (name, channels) in [("left", left), ("right", right)] {
        let record = Arc::new(MemoryVoteRecord::default());
        let (duty, _) = network.duty(GUILTY, name.into(), false, record, None);
        let channels: [_; CHANNELS] = channels.try_into().unwrap_or_else(|_| panic!("as many as declared"));
        let context = init.context.child(name);
        let blocker = init.oracle.control(init.public_key.clone());
        let channels = Channels::from_pairs(channels);
        tasks.push(
            surety_consensus::start(context, channels, init.oracle.manager(), blocker, duty).unwrap().0,
        );
    }
    init.context.spawn(move |_| async move {
        futures::future::join_all(tasks).await;
    })
}

pub type Half<F> = (
    commonware_p2p::simulated::SplitSender<PublicKey, deterministic::Context, F>,
    commonware_p2p::simulated::Receiver<PublicKey>,
);
pub type Forward =
    fn(SplitOrigin, &Recipients<PublicKey>, &commonware_runtime::IoBuf) -> Option<Recipients<PublicKey>>;

fn group_of(origin: SplitOrigin) -> Vec<PublicKey> {
    match origin {
        SplitOrigin::Primary => vec![key(0).public_key()],
        SplitOrigin::Secondary => [1, 2].map(|seed| key(seed).public_key()).to_vec(),
    }
}

/// Keeps each twin's messages within its group.
fn forward(
    origin: SplitOrigin,
    recipients: &Recipients<PublicKey>,
    _: &commonware_runtime::IoBuf,
) -> Option<Recipients<PublicKey>> {
    let group = group_of(origin);
    let chosen: Vec<PublicKey> = match recipients {
        Recipients::All => group,
        Recipients::One(peer) => group.into_iter().filter(|member| member == peer).collect(),
        Recipients::Some(peers) => group.into_iter().filter(|member| peers.contains(member)).collect(),
    };
    Some(Recipients::Some(chosen))
}

pub fn split(
    context: &deterministic::Context,
    sender: commonware_p2p::simulated::Sender<PublicKey, deterministic::Context>,
    receiver: commonware_p2p::simulated::Receiver<PublicKey>,
    groups: [Vec<PublicKey>; 2],
) -> (Half<Forward>, Half<Forward>) {
    let (sender_left, sender_right) = sender.split_with(forward as Forward);
    let (receiver_left, receiver_right) = receiver.split_with(context.child("split"), move |(from, _)| {
        if groups[0].contains(from) {
            SplitTarget::Primary
        } else if groups[1].contains(from) {
            SplitTarget::Secondary
        } else {
            SplitTarget::None
        }
    });
    ((sender_left, receiver_left), (sender_right, receiver_right))
}

#[test]
fn twins_do_not_split_the_chain() {
    for seed in seeds(2) {
        let mut network = Network::new(4, steady);
        network.misdeed = Some((GUILTY, twins));
        run(seed, &network, 15, |plan| plan);
    }
}
