//! Every peer and every IKE SA of this host: whose a datagram is, and whose turn it is.

mod cookie;
pub(crate) mod peer;
mod status;
mod strangers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{Limits, Path, PeerConfig, PeerId};
use crate::crypto::Rng;
use crate::output::{ChildId, ChildUse, Output};
use crate::sa::Cx;
use crate::sa::established::Task;
use crate::sa::numbers::{Numbers, Owner};
use crate::status::{IkeSecrets, PeerStatus};
use crate::wire::{self, Datagram, Exchange, Header, Notify, ParseError, Payload, notify};

use peer::Peer;
use strangers::Strangers;

/// IKEv2 without I/O. The driver tells it of datagrams, commands and the time, and after each of these calls
/// [`Endpoint::poll`] until nothing is left to be done and [`Endpoint::timeout`] for when to come back.
pub struct Endpoint {
    rng: Box<dyn Rng + Send>,
    limits: Limits,
    numbers: Numbers,
    peers: BTreeMap<PeerId, Peer>,
    /// When each peer is to be looked at again.
    deadlines: BTreeSet<(Instant, PeerId)>,
    strangers: Strangers,
    out: VecDeque<Output>,
}

/// What handling something may use, and the rest of the endpoint beside it.
macro_rules! cx {
    ($endpoint:expr, $now:expr, $unix_now:expr) => {
        Cx {
            now: $now,
            unix_now: $unix_now,
            rng: &mut *$endpoint.rng,
            limits: &$endpoint.limits,
            numbers: &mut $endpoint.numbers,
            out: &mut $endpoint.out,
        }
    };
}

impl Endpoint {
    /// With no peers: it answers nobody.
    pub fn new(mut rng: Box<dyn Rng + Send>, limits: Limits) -> Endpoint {
        let strangers = Strangers::new(&mut *rng);
        let (numbers, peers, deadlines) = (Numbers::default(), BTreeMap::new(), BTreeSet::new());
        Endpoint { rng, limits, numbers, peers, deadlines, strangers, out: VecDeque::new() }
    }

    /// A peer is new, or its configuration is. The same one again changes nothing. SAs that another one does not allow
    /// are deleted and made anew.
    pub fn configure(&mut self, now: Instant, peer: PeerId, config: PeerConfig) {
        self.peers.entry(peer).or_insert_with(|| Peer::new(peer, config.clone()));
        self.with(now, 0, peer, |cx, peer| peer.configure(cx, config));
    }

    /// A peer is to be known no more. Its SAs are deleted, and it is told so.
    pub fn remove(&mut self, now: Instant, peer: PeerId) {
        self.with(now, 0, peer, |cx, peer| peer.leave(cx, "the tunnel was removed"));
    }

    /// A datagram came, its non-ESP marker taken off. `unix_now` is in seconds since 1970, for the dates of certificates.
    pub fn receive(&mut self, now: Instant, unix_now: u64, path: Path, datagram: &[u8]) {
        match wire::parse(datagram) {
            Ok(datagram) => self.dispatch(now, unix_now, path, &datagram),
            Err(ParseError::MajorVersion(version)) if version > 2 => {
                self.answer_unprotected(now, path, datagram, Notify::new(notify::INVALID_MAJOR_VERSION, []));
            }
            Err(ParseError::UnsupportedCritical(kind)) => {
                let refusal = Notify::new(notify::UNSUPPORTED_CRITICAL_PAYLOAD, [kind]);
                self.answer_unprotected(now, path, datagram, refusal);
            }
            Err(error) => tracing::debug!(remote = %path.remote, %error, "IKE message dropped"),
        }
    }

    fn dispatch(&mut self, now: Instant, unix_now: u64, path: Path, datagram: &Datagram<'_>) {
        let header = &datagram.header;
        let cx = &mut cx!(self, now, unix_now);
        if header.exchange == Exchange::SaInit && !header.response {
            if header.initiator
                && header.message_id == 0
                && header.responder_spi == [0; 8]
                && header.initiator_spi != [0; 8]
            {
                self.strangers.init(cx, &mut self.peers, path, datagram);
            }
            return;
        }
        let own = if header.initiator { &header.responder_spi } else { &header.initiator_spi };
        match cx.numbers.owner(own) {
            Some(Owner::Peer(id, session)) => {
                let in_clear = datagram.sealed.is_none() && header.exchange != Exchange::SaInit;
                self.with(now, unix_now, id, |cx, peer| match in_clear {
                    true => peer.hint(cx, session, path, datagram),
                    false => peer.receive(cx, session, path, datagram),
                });
            }
            Some(Owner::Stranger(session)) => {
                if let Some(peer) = self.strangers.receive(cx, &mut self.peers, session, path, datagram) {
                    self.with(now, unix_now, peer, |cx, peer| peer.settle(cx));
                }
            }
            None if !header.response => {
                let refusal = Notify::new(notify::INVALID_IKE_SPI, []);
                self.answer_unprotected(now, path, datagram.bytes, refusal);
            }
            None => {}
        }
    }

    /// RFC 7296 1.5 and 2.5: the request's header comes back with an error, of which the peer may make what it wants.
    fn answer_unprotected(&mut self, now: Instant, path: Path, request: &[u8], refusal: Notify) {
        let Some(header) = Header::peek(request).filter(|header| !header.response) else { return };
        if self.strangers.allows_error(now, &self.limits) {
            let header = Header { response: true, initiator: !header.initiator, ..header };
            let datagram = wire::encode_clear(&header, &[Payload::Notify(refusal)]);
            self.out.push_back(Output::Transmit { path, datagram });
        }
    }

    /// When to call [`Endpoint::handle_timeout`], unless something else changes that.
    pub fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at).into_iter().chain(self.strangers.timeout()).min()
    }

    /// It is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.strangers.handle_timeout(now);
        let due: Vec<_> = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.with(now, 0, id, |cx, peer| peer.handle_timeout(cx));
        }
    }

    /// What is to be done next; see [`Output`].
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What has passed through a child SA, each second or so: limits by volume, signs of life and the first packet by a new
    /// SA show in it.
    pub fn traffic(&mut self, now: Instant, child: ChildId, traffic: ChildUse) {
        let owner = self.peers.values().find(|peer| peer.children.get(child).is_some()).map(|peer| peer.id);
        if let Some(peer) = owner {
            self.with(now, 0, peer, |cx, peer| peer.traffic(cx, child, traffic));
        }
    }

    /// An ESP packet came that no SA is known for. Its sender is asked for a sign of life in IKE, now and then.
    pub fn unknown_spi(&mut self, now: Instant, remote: IpAddr, _spi: u32) {
        let there = self.peers.values().filter(|peer| peer.config.remote == remote);
        for id in there.map(|peer| peer.id).collect::<Vec<_>>() {
            self.with(now, 0, id, |cx, peer| peer.ask(cx));
        }
    }

    /// Rekeys the child SAs that are sent by.
    pub fn rekey_child(&mut self, now: Instant, peer: PeerId) {
        self.with(now, 0, peer, |cx, peer| {
            let current: Vec<_> = peer.children.current().collect();
            for (child, ike) in current {
                peer.command(cx, ike, Task::RekeyChild(child));
            }
        });
    }

    /// Rekeys the IKE SA.
    pub fn rekey_ike(&mut self, now: Instant, peer: PeerId) {
        self.with(now, 0, peer, |cx, peer| {
            if let Some(newest) = peer.open().last().map(|sa| sa.id) {
                peer.command(cx, newest, Task::RekeyIke);
            }
        });
    }

    /// Makes a new IKE SA, with new proofs of identity, and deletes the old one when it stands.
    pub fn reauthenticate(&mut self, now: Instant, peer: PeerId) {
        self.with(now, 0, peer, |cx, peer| match peer.open().last().map(|sa| sa.id) {
            Some(old) => peer.start_over(cx, old),
            None => peer.initiate(cx),
        });
    }

    /// Tries now, without waiting for the next attempt's time: there is reason to hope.
    pub fn initiate(&mut self, now: Instant, peer: PeerId) {
        self.with(now, 0, peer, |cx, peer| peer.initiate(cx));
    }

    /// Deletes everything and says so to everybody, once: nobody waits for the answers.
    pub fn shutdown(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.peers).into_values() {
            peer.farewell(&mut cx!(self, now, 0));
        }
        self.deadlines.clear();
        self.strangers = Strangers::new(&mut *self.rng);
    }

    /// All peers, for operators.
    pub fn status(&self, now: Instant) -> Vec<PeerStatus> {
        self.peers.values().filter(|peer| !peer.leaving).map(|peer| peer.status(now)).collect()
    }

    /// The keys of all established IKE SAs: only when an operator asks for them.
    pub fn secrets(&self) -> Vec<IkeSecrets> {
        self.peers.values().flat_map(Peer::secrets).collect()
    }

    /// Has a peer do something. One that was to go is gone once its IKE SAs are.
    fn with(&mut self, now: Instant, unix_now: u64, id: PeerId, what: impl FnOnce(&mut Cx<'_>, &mut Peer)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        what(&mut cx!(self, now, unix_now), peer);
        let gone = peer.leaving && peer.sessions.is_empty();
        let deadline = if gone { None } else { peer.timeout() };
        if let Some(before) = std::mem::replace(&mut peer.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        self.deadlines.extend(deadline.map(|at| (at, id)));
        if gone {
            self.peers.remove(&id);
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("limits", &self.limits)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
