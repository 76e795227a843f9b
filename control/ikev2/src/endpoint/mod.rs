//! Every peer and every IKE SA of this host: whose a datagram is, and whose turn it is.

mod cookie;
pub(crate) mod peer;
mod status;
mod strangers;

use std::collections::{BTreeMap, VecDeque};
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
        let (numbers, peers, out) = (Numbers::default(), BTreeMap::new(), VecDeque::new());
        Endpoint { rng, limits, numbers, peers, strangers, out }
    }

    /// A peer is new, or its configuration is. The same one again changes nothing. SAs that another one does not allow
    /// are deleted and made anew.
    pub fn configure(&mut self, now: Instant, peer: PeerId, config: PeerConfig) {
        let cx = &mut cx!(self, now, 0);
        let peer = self.peers.entry(peer).or_insert_with(|| Peer::new(peer, config.clone()));
        peer.configure(cx, config);
    }

    /// A peer is to be known no more. Its SAs are deleted, and it is told so.
    pub fn remove(&mut self, now: Instant, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.leave(&mut cx!(self, now, 0), "the tunnel was removed");
        }
        self.sweep();
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
        self.sweep();
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
                let Some(peer) = self.peers.get_mut(&id) else { return };
                if datagram.sealed.is_none() && header.exchange != Exchange::SaInit {
                    return peer.hint(cx, session, path, datagram);
                }
                peer.receive(cx, session, path, datagram);
            }
            Some(Owner::Stranger(session)) => {
                let peer = self.strangers.receive(cx, &mut self.peers, session, path, datagram);
                if let Some(peer) = peer.and_then(|id| self.peers.get_mut(&id)) {
                    peer.settle(cx);
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
        self.peers.values().filter_map(Peer::timeout).chain(self.strangers.timeout()).min()
    }

    /// It is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.strangers.handle_timeout(now);
        for peer in self.peers.values_mut().filter(|peer| peer.timeout().is_some_and(|at| at <= now)) {
            peer.handle_timeout(&mut cx!(self, now, 0));
        }
        self.sweep();
    }

    /// What is to be done next; see [`Output`].
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What has passed through a child SA, each second or so: limits by volume, signs of life and the first packet by a new
    /// SA show in it.
    pub fn traffic(&mut self, now: Instant, child: ChildId, traffic: ChildUse) {
        let cx = &mut cx!(self, now, 0);
        for peer in self.peers.values_mut() {
            if peer.traffic(cx, child, traffic) {
                break;
            }
        }
    }

    /// An ESP packet came that no SA is known for. Its sender is asked for a sign of life in IKE, now and then.
    pub fn unknown_spi(&mut self, now: Instant, remote: IpAddr, _spi: u32) {
        let cx = &mut cx!(self, now, 0);
        for peer in self.peers.values_mut().filter(|peer| peer.config.remote == remote) {
            peer.ask(cx);
        }
    }

    /// Rekeys the child SA that is sent by.
    pub fn rekey_child(&mut self, now: Instant, peer: PeerId) {
        let cx = &mut cx!(self, now, 0);
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if let Some((child, ike)) = peer.children.current() {
            peer.command(cx, ike, Task::RekeyChild(child));
        }
    }

    /// Rekeys the IKE SA.
    pub fn rekey_ike(&mut self, now: Instant, peer: PeerId) {
        let cx = &mut cx!(self, now, 0);
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if let Some(newest) = peer.open().last().map(|sa| sa.id) {
            peer.command(cx, newest, Task::RekeyIke);
        }
    }

    /// Makes a new IKE SA, with new proofs of identity, and deletes the old one when it stands.
    pub fn reauthenticate(&mut self, now: Instant, peer: PeerId) {
        let cx = &mut cx!(self, now, 0);
        let Some(peer) = self.peers.get_mut(&peer).filter(|peer| !peer.leaving) else { return };
        let old = peer.open().last().map(|sa| sa.id);
        if old.is_some() || !peer.is_trying() {
            peer.start(cx, old);
        }
    }

    /// Tries now, without waiting for the next attempt's time: there is reason to hope.
    pub fn initiate(&mut self, now: Instant, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.initiate(&mut cx!(self, now, 0));
        }
    }

    /// Deletes everything and says so to everybody, once: nobody waits for the answers.
    pub fn shutdown(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.peers).into_values() {
            peer.farewell(&mut cx!(self, now, 0));
        }
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

    /// Peers that were to go are gone once their IKE SAs are.
    fn sweep(&mut self) {
        self.peers.retain(|_, peer| !(peer.leaving && peer.sessions.is_empty()));
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
