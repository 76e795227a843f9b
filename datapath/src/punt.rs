//! What workers pass up to control: IKE messages that came to the ESP port, and word of SPIs that nobody has.
//!
//! Anybody can send either, so the queue is bounded in messages and in bytes. Strangers may fill but a part of it: what
//! is left is for the hosts that a tunnel leads to, which a flood under other names then cannot shut out.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Something for control to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Punt {
    /// An IKE message, the non-ESP marker gone.
    Ike {
        /// The address it was sent to.
        local: IpAddr,
        /// Whom it came from.
        remote: SocketAddr,
        /// The message from the IKE header on.
        bytes: Vec<u8>,
    },
    /// ESP with an SPI that is not known, from the far end of a tunnel: it may not have noticed that we lost our state.
    UnknownSpi {
        /// Whom it came from.
        remote: IpAddr,
        /// What it carried.
        spi: u32,
    },
}

/// Room in the queue.
#[derive(Debug, Clone, Copy)]
struct Room {
    messages: usize,
    bytes: usize,
}

/// For everybody.
const STRANGERS: Room = Room { messages: 64, bytes: 128 << 10 };
/// For the far ends of tunnels.
const PEERS: Room = Room { messages: 512, bytes: 1 << 20 };
/// Pairs of host and SPI that wait at most.
const SPIS: usize = 64;

/// The queue. Not shared by itself: [`crate::handle`] locks it.
#[derive(Debug, Default)]
pub(crate) struct Punts {
    waiting: VecDeque<Punt>,
    bytes: usize,
    spis: HashSet<(IpAddr, u32)>,
}

impl Punts {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Queues an IKE message; false when there is no room. `peer`: a tunnel leads to `remote`.
    pub(crate) fn ike(&mut self, local: IpAddr, remote: SocketAddr, message: &[u8], peer: bool) -> bool {
        let room = if peer { PEERS } else { STRANGERS };
        if self.waiting.len() >= room.messages || self.bytes + message.len() > room.bytes {
            return false;
        }
        self.bytes += message.len();
        self.waiting.push_back(Punt::Ike { local, remote, bytes: message.to_vec() });
        true
    }

    /// Queues word of an SPI, once for each while it waits; false when it is there or there is no room.
    pub(crate) fn unknown_spi(&mut self, remote: IpAddr, spi: u32) -> bool {
        let new =
            self.spis.len() < SPIS && self.waiting.len() < PEERS.messages && self.spis.insert((remote, spi));
        if new {
            self.waiting.push_back(Punt::UnknownSpi { remote, spi });
        }
        new
    }

    /// Everything that waits, in order.
    pub(crate) fn take(&mut self) -> Vec<Punt> {
        std::mem::take(self).waiting.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));

    fn host(i: usize) -> SocketAddr {
        SocketAddr::from(([10, 9, (i >> 8) as u8, i as u8], 4500))
    }

    #[test]
    fn strangers_leave_room_for_peers() {
        let mut punts = Punts::default();
        let strangers = (0..10_000).filter(|i| punts.ike(HERE, host(*i), &[0; 400], false)).count();
        assert_eq!(strangers, STRANGERS.messages);
        let peers = (0..10_000).filter(|i| punts.ike(HERE, host(*i), &[0; 400], true)).count();
        assert_eq!(strangers + peers, PEERS.messages);
        assert_eq!(punts.take().len(), PEERS.messages);
        assert!(punts.is_empty() && punts.ike(HERE, host(0), &[0; 400], false));
    }

    #[test]
    fn long_messages_are_bounded_by_their_bytes() {
        let mut punts = Punts::default();
        let taken = |punts: &mut Punts, peer| {
            (0..10_000).filter(|i| punts.ike(HERE, host(*i), &[0; 65_000], peer)).count()
        };
        assert_eq!(taken(&mut punts, false), STRANGERS.bytes / 65_000);
        taken(&mut punts, true);
        let bytes: usize = punts
            .take()
            .iter()
            .map(|p| match p {
                Punt::Ike { bytes, .. } => bytes.len(),
                Punt::UnknownSpi { .. } => 0,
            })
            .sum();
        assert!((PEERS.bytes - 65_000..=PEERS.bytes).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_unknown_spi_is_told_once() {
        let mut punts = Punts::default();
        let told = |punts: &mut Punts, spi| (0..3).filter(|_| punts.unknown_spi(HERE, spi)).count();
        assert_eq!([7, 7, 8].map(|spi| told(&mut punts, spi)), [1, 0, 1]);
        assert_eq!((0..10_000).filter(|spi| punts.unknown_spi(HERE, 100 + spi)).count(), SPIS - 2);
        assert_eq!(punts.take().len(), SPIS);
        assert_eq!(told(&mut punts, 7), 1);
    }
}
