//! Every peer and every IKE SA of this host.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{Limits, Path, PeerConfig, PeerId};
use crate::crypto::Rng;
use crate::output::{ChildId, ChildUse, Output};
use crate::status::{IkeSecrets, PeerStatus};

/// IKEv2 without I/O. The driver tells it of datagrams, commands and the time, and after each of these calls
/// [`Endpoint::poll`] until nothing is left to be done and [`Endpoint::timeout`] for when to come back.
pub struct Endpoint {
    #[expect(dead_code, reason = "exchanges come with the state machine")]
    rng: Box<dyn Rng + Send>,
    limits: Limits,
    peers: BTreeMap<PeerId, PeerConfig>,
    out: VecDeque<Output>,
}

impl Endpoint {
    /// With no peers: it answers nobody.
    pub fn new(rng: Box<dyn Rng + Send>, limits: Limits) -> Endpoint {
        Endpoint { rng, limits, peers: BTreeMap::new(), out: VecDeque::new() }
    }

    /// A peer is new, or its configuration is. The same one again changes nothing. SAs that another one does not allow
    /// are deleted and made anew.
    pub fn configure(&mut self, _now: Instant, peer: PeerId, config: PeerConfig) {
        self.peers.insert(peer, config);
    }

    /// A peer is to be known no more. Its SAs are deleted, and it is told so.
    pub fn remove(&mut self, _now: Instant, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// A datagram came, its non-ESP marker taken off. `unix_now` is in seconds since 1970, for the dates of certificates.
    pub fn receive(&mut self, _now: Instant, _unix_now: u64, _path: Path, _datagram: &[u8]) {}

    /// When to call [`Endpoint::handle_timeout`], unless something else changes that.
    pub fn timeout(&self) -> Option<Instant> {
        None
    }

    /// It is `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// What is to be done next; see [`Output`].
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What has passed through a child SA, each second or so: limits by volume, signs of life and the first packet by a new
    /// SA show in it.
    pub fn traffic(&mut self, _now: Instant, _child: ChildId, _use: ChildUse) {}

    /// An ESP packet came that no SA is known for. Its sender is asked for a sign of life in IKE, now and then.
    pub fn unknown_spi(&mut self, _now: Instant, _remote: IpAddr, _spi: u32) {}

    /// Rekeys the child SA that is sent by.
    pub fn rekey_child(&mut self, _now: Instant, _peer: PeerId) {}

    /// Rekeys the IKE SA.
    pub fn rekey_ike(&mut self, _now: Instant, _peer: PeerId) {}

    /// Makes a new IKE SA, with new proofs of identity, and deletes the old one when it stands.
    pub fn reauthenticate(&mut self, _now: Instant, _peer: PeerId) {}

    /// Tries now, without waiting for the next attempt's time: there is reason to hope.
    pub fn initiate(&mut self, _now: Instant, _peer: PeerId) {}

    /// Deletes everything and says so to everybody, once: nobody waits for the answers.
    pub fn shutdown(&mut self, _now: Instant) {
        self.peers.clear();
    }

    /// All peers, for operators.
    pub fn status(&self, _now: Instant) -> Vec<PeerStatus> {
        Vec::new()
    }

    /// The keys of all established IKE SAs: only when an operator asks for them.
    pub fn secrets(&self) -> Vec<IkeSecrets> {
        Vec::new()
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
