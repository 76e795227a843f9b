//! IKE SAs and what is exchanged in them, one state or exchange a file.
//!
//! An IKE SA is born as initiator (`init`, then `auth`) or as responder (`answer`), and is `established` once the peer
//! has proved who it is; only then can it have children. What established SAs do is in `child_create`, `child_rekey`,
//! `ike_rekey`, `delete` and `liveness`; what of two that collide remains, in `collision`.

pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod channel;
pub(crate) mod child;
pub(crate) mod child_create;
pub(crate) mod child_rekey;
pub(crate) mod children;
pub(crate) mod collision;
pub(crate) mod delete;
pub(crate) mod established;
pub(crate) mod ike_rekey;
pub(crate) mod init;
pub(crate) mod liveness;
pub(crate) mod nat;
pub(crate) mod numbers;
pub(crate) mod payloads;
pub(crate) mod retry;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::{Limits, Path, PeerId};
use crate::crypto::Rng;
use crate::output::{Event, Output};

use numbers::Numbers;

/// Names an IKE SA within the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub u64);

/// What handling one datagram, timer or command may use.
pub(crate) struct Cx<'a> {
    pub now: Instant,
    /// Seconds since 1970, for certificates.
    pub unix_now: u64,
    pub rng: &'a mut (dyn Rng + Send),
    pub limits: &'a Limits,
    pub numbers: &'a mut Numbers,
    pub out: &'a mut VecDeque<Output>,
}

impl Cx<'_> {
    /// Tells the driver.
    pub fn event(&mut self, peer: PeerId, event: Event) {
        self.out.push_back(Output::Event(peer, event));
    }

    /// Sends.
    pub fn transmit(&mut self, path: Path, datagram: Vec<u8>) {
        self.out.push_back(Output::Transmit { path, datagram });
    }

    /// Some time from `from` to its double, so that two peers that wait do not meet again.
    pub fn soon(&mut self, from: Duration) -> Instant {
        let mut chance = [0; 2];
        self.rng.fill(&mut chance);
        self.now + from + from.mul_f64(f64::from(u16::from_be_bytes(chance)) / f64::from(u16::MAX))
    }
}
