//! The roster: who may vote in each epoch, proved from genesis, kept and passed on.
//!
//! In:     epoch records made here at each epoch's end, or sent by peers; questions from peers.
//! Out:    validator sets, learnt in order; the network's latest certificate, for a validator that starts far behind.
//! Touches: the partitions `<prefix>-roster-…`; its p2p channel.
//! Holds:  a set is learnt only from a record the set before it signed; bytes are bounded before they are believed; records
//!         are kept for ever, for light clients.
//! Absent: blocks and state (marshal and the stateful actor fetch those).

use crate::{
    Certificate, Digest, EpochRecord, MEMBERS_MAX, ValidatorSet, application::Marshal,
    certificate::SimplexFinalization, epochs::Epochs, runtime::Runtime,
};
use bytes::BufMut;
use commonware_codec::{
    Buf, Decode as _, Encode as _, EncodeSize, Error as CodecError, Read, ReadExt as _, Write, varint::UInt,
};
use commonware_consensus::marshal::Identifier;
use commonware_cryptography::ed25519::PublicKey;
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::buffer::paged::CacheRef;
use commonware_storage::{
    archive::{Archive as _, Identifier as At, prunable},
    translator::EightCap,
};
use commonware_utils::{Faults as _, N3f1, NZU64};
use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

/// The most records one answer carries.
const RECORDS_MAX: usize = 8;
/// How often peers are asked while something is missing.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Requests waiting for this task.
const QUEUE: usize = 64;

type Archive<E> = prunable::Archive<EightCap, E, Digest, EpochRecord>;

/// What the network says of itself to one who starts.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    /// The latest certificate among f+1 validators' answers; none if nothing is final yet.
    pub(crate) latest: Option<Certificate>,
    /// A quorum, this validator included, has finalised nothing.
    pub(crate) quiet: bool,
}

enum Message {
    Discover { reply: oneshot::Sender<Discovery> },
    Attach { marshal: Marshal },
    Keep { record: Box<EpochRecord> },
    Get { epoch: u64, reply: oneshot::Sender<Option<EpochRecord>> },
}

/// The way to the roster.
#[derive(Clone)]
pub(crate) struct Roster(mpsc::Sender<Message>);

impl Roster {
    /// Opens what is kept, learns it, and serves peers from then on.
    pub(crate) async fn start<E, S, R>(
        runtime: E,
        prefix: &str,
        epochs: Epochs,
        me: Option<PublicKey>,
        page_cache: CacheRef,
        buffer: NonZeroUsize,
        network: (S, R),
    ) -> Self
    where
        E: Runtime,
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let config = prunable::Config {
            translator: EightCap,
            metadata_partition: format!("{prefix}-roster-metadata"),
            key_partition: format!("{prefix}-roster-keys"),
            key_page_cache: page_cache,
            value_partition: format!("{prefix}-roster-values"),
            compression: None,
            codec_config: (),
            items_per_section: NZU64!(1_024),
            key_write_buffer: buffer,
            value_write_buffer: buffer,
            replay_buffer: buffer,
        };
        let archive: Archive<E> = prunable::Archive::init(runtime.child("archive"), config)
            .await
            .expect("the roster's archive opens");
        let (sender, mailbox) = mpsc::channel(QUEUE);
        let mut task = Task {
            archive: Some(archive),
            epochs,
            me,
            marshal: None,
            waiting: Vec::new(),
            samples: BTreeMap::new(),
        };
        task.learn_kept().await;
        runtime.spawn(move |runtime| task.run(runtime, mailbox, network));
        Self(sender)
    }

    /// Asks peers until f+1 validators have answered. Waits as long as they cannot be reached.
    pub(crate) async fn discover(&self) -> Option<Discovery> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Discover { reply }).await.ok()?;
        answer.await.ok()
    }

    /// From now on answers peers with the marshal's latest certificate.
    pub(crate) async fn attach(&self, marshal: Marshal) {
        let _ = self.0.send(Message::Attach { marshal }).await;
    }

    /// Keeps a record made here.
    pub(crate) async fn keep(&self, record: EpochRecord) {
        let _ = self.0.send(Message::Keep { record: Box::new(record) }).await;
    }

    /// The record that establishes an epoch's validators.
    pub(crate) async fn get(&self, epoch: u64) -> Option<EpochRecord> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Get { epoch, reply }).await.ok()?;
        answer.await.ok().flatten()
    }
}

/// The most bytes a roster message takes.
pub(crate) fn message_bytes_max() -> usize {
    let record = crate::block::HEADER_BYTES_MAX + SimplexFinalization::max_encode_size(MEMBERS_MAX as u32);
    1 + 10 + RECORDS_MAX * record + 1 + SimplexFinalization::max_encode_size(MEMBERS_MAX as u32)
}

struct Task<E: Runtime> {
    /// Taken while a write owns it.
    archive: Option<Archive<E>>,
    epochs: Epochs,
    me: Option<PublicKey>,
    marshal: Option<Marshal>,
    waiting: Vec<oneshot::Sender<Discovery>>,
    samples: BTreeMap<PublicKey, Option<Certificate>>,
}

impl<E: Runtime> Task<E> {
    async fn run<S, R>(
        mut self,
        runtime: E,
        mut mailbox: mpsc::Receiver<Message>,
        (mut sender, mut receiver): (S, R),
    ) where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let mut next_ask = runtime.current();
        loop {
            let due = runtime.sleep_until(next_ask);
            select! {
                message = mailbox.recv() => match message {
                    None => return,
                    Some(Message::Discover { reply }) => {
                        self.samples.clear();
                        self.waiting.push(reply);
                        self.answer_if_known();
                        next_ask = runtime.current();
                    }
                    Some(Message::Attach { marshal }) => self.marshal = Some(marshal),
                    Some(Message::Keep { record }) => self.keep(*record).await,
                    Some(Message::Get { epoch, reply }) => {
                        let _ = reply.send(self.kept(epoch).await);
                    }
                },
                message = receiver.recv() => match message {
                    Err(_) => return,
                    Ok((peer, bytes)) => match Wire::decode_cfg(bytes, &()) {
                        Ok(Wire::Ask { from }) => {
                            let answer = self.answer(from).await;
                            sender.send(Recipients::One(peer), answer.encode(), false);
                        }
                        Ok(Wire::Answer { records, latest }) => self.hear(peer, records, latest).await,
                        Err(error) => debug!(%peer, %error, "a roster message that is none"),
                    },
                },
                _ = due => {
                    next_ask = runtime.current() + ASK_EVERY;
                    if let Some(from) = self.wanted() {
                        sender.send(Recipients::All, Wire::Ask { from }.encode(), false);
                    }
                },
            }
        }
    }

    /// The first epoch to ask for: the first whose record is missing, or, while discovering, the first unknown.
    fn wanted(&self) -> Option<u64> {
        let latest = self.epochs.latest().epoch();
        let archive = self.archive.as_ref()?;
        // The genesis establishes the first epoch; records are of those after.
        let first = self.epochs.first();
        let kept = archive.next_gap(first + 1).0.unwrap_or(first);
        (kept < latest || !self.waiting.is_empty()).then_some(kept + 1)
    }

    async fn learn_kept(&mut self) {
        let mut epoch = self.epochs.first() + 1;
        while let Some(record) = self.kept(epoch).await {
            let Some(next) = record.header.next_validators else { break };
            self.epochs.learn(next);
            epoch += 1;
        }
    }

    async fn kept(&self, epoch: u64) -> Option<EpochRecord> {
        self.archive.as_ref()?.get(At::Index(epoch)).await.expect("the roster's archive reads")
    }

    async fn keep(&mut self, record: EpochRecord) {
        let Some(next) = record.header.next_validators.clone() else { return };
        let archive = self.archive.take().expect("the archive is always put back");
        let archive = archive.put_sync(next.epoch(), record.header.hash(), &record).await;
        self.archive = Some(archive.expect("the roster's archive writes"));
        self.epochs.learn(next);
    }

    async fn answer(&self, from: u64) -> Wire {
        let mut records = Vec::new();
        while records.len() < RECORDS_MAX
            && let Some(epoch) = from.checked_add(records.len() as u64)
            && let Some(record) = self.kept(epoch).await
        {
            records.push(record);
        }
        let latest = match &self.marshal {
            None => None,
            Some(marshal) => match marshal.get_info(Identifier::Latest).await {
                Some((height, _)) => marshal.get_finalization(height).await.map(Certificate),
                None => None,
            },
        };
        Wire::Answer { records, latest }
    }

    async fn hear(&mut self, peer: PublicKey, records: Vec<EpochRecord>, latest: Option<Certificate>) {
        for record in records {
            let Some(epoch) = record.header.next_validators.as_ref().map(ValidatorSet::epoch) else { return };
            let Some(before) = epoch.checked_sub(1).and_then(|before| self.epochs.set(before)) else {
                return;
            };
            if self.kept(epoch).await.is_some() {
                continue;
            }
            if let Err(error) = record.verify(self.epochs.namespace(), &before) {
                warn!(%peer, epoch, %error, "an epoch record that does not hold");
                return;
            }
            info!(epoch, "learnt an epoch's validators");
            self.keep(record).await;
        }
        if self.waiting.is_empty() {
            return;
        }
        if let Some(certificate) = &latest {
            // Of an epoch not known yet: ask on, the next answer brings its record.
            let Some(set) = self.epochs.set(certificate.epoch()) else { return };
            if let Err(error) = certificate.verify(self.epochs.namespace(), &set) {
                warn!(%peer, %error, "a certificate that does not hold");
                return;
            }
        }
        self.samples.insert(peer, latest);
        self.answer_if_known();
    }

    /// Answers those who wait once enough validators have spoken.
    fn answer_if_known(&mut self) {
        let set = self.epochs.latest();
        let members = set.members().len() as u32;
        let is_member = |key: &PublicKey| set.index(key).is_some();
        let others =
            self.samples.keys().filter(|key| is_member(key) && Some(*key) != self.me.as_ref()).count();
        let latest = self
            .samples
            .values()
            .flatten()
            .max_by_key(|certificate| (certificate.epoch(), certificate.view()));
        let mine = usize::from(self.me.as_ref().is_some_and(is_member));
        let faults = N3f1::max_faults(members) as usize;
        let quorum = N3f1::quorum(members) as usize;
        let discovery = match latest {
            // At least one of f+1 is honest, and no honest one is far behind.
            Some(latest) if others > faults => Discovery { latest: Some(latest.clone()), quiet: false },
            None if mine == 1 && others + mine >= quorum => Discovery { latest: None, quiet: true },
            None if mine == 0 && others > faults => Discovery { latest: None, quiet: false },
            _ => return,
        };
        for reply in self.waiting.drain(..) {
            let _ = reply.send(discovery.clone());
        }
    }
}

/// What travels on the roster's channel.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    /// For records from this epoch on, and the latest certificate.
    Ask { from: u64 },
    /// Records in order, and the latest certificate.
    Answer { records: Vec<EpochRecord>, latest: Option<Certificate> },
}

impl Write for Wire {
    fn write(&self, buf: &mut impl BufMut) {
        match self {
            Self::Ask { from } => {
                buf.put_u8(0);
                UInt(*from).write(buf);
            }
            Self::Answer { records, latest } => {
                buf.put_u8(1);
                UInt(records.len() as u64).write(buf);
                records.iter().for_each(|record| record.write(buf));
                latest.write(buf);
            }
        }
    }
}

impl EncodeSize for Wire {
    fn encode_size(&self) -> usize {
        1 + match self {
            Self::Ask { from } => UInt(*from).encode_size(),
            Self::Answer { records, latest } => {
                UInt(records.len() as u64).encode_size()
                    + records.iter().map(EncodeSize::encode_size).sum::<usize>()
                    + latest.encode_size()
            }
        }
    }
}

impl Read for Wire {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        match u8::read(buf)? {
            0 => Ok(Self::Ask { from: UInt::read(buf)?.into() }),
            1 => {
                let count: u64 = UInt::read(buf)?.into();
                if count > RECORDS_MAX as u64 {
                    return Err(CodecError::Invalid("Roster", "too many records"));
                }
                let records = (0..count).map(|_| EpochRecord::read(buf)).collect::<Result<_, _>>()?;
                Ok(Self::Answer { records, latest: Option::read(buf)? })
            }
            tag => Err(CodecError::InvalidEnum(tag)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block::tests::block, certificate::tests::certificate};
    use proptest::prelude::*;

    #[test]
    fn messages_round_trip_within_their_bound() {
        let last = block(5, vec![], MEMBERS_MAX);
        let record = EpochRecord {
            header: last.header().clone(),
            certificate: certificate(5, last.header().hash(), MEMBERS_MAX, MEMBERS_MAX as u64),
        };
        for wire in [
            Wire::Ask { from: u64::MAX },
            Wire::Answer { records: vec![], latest: None },
            Wire::Answer {
                records: vec![record.clone(); RECORDS_MAX],
                latest: Some(record.certificate.clone()),
            },
        ] {
            let bytes = wire.encode();
            assert!(bytes.len() <= message_bytes_max());
            assert_eq!(Wire::decode_cfg(bytes, &()).unwrap(), wire);
        }
        let many = Wire::Answer { records: vec![record; RECORDS_MAX + 1], latest: None };
        assert!(Wire::decode_cfg(many.encode(), &()).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Wire::decode_cfg(bytes, &());
        }
    }
}
