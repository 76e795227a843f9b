//! Security associations: what two hosts have agreed on for one direction, and how much of it is used up.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::SaKey;
use super::replay::ReplayWindow;
use crate::port::{InUdp, RxRoad};
use crate::snapshot::PolicyId;
use crate::wire::proto;

/// No SA outlives this many packets, so that a counter that goes on where one is refused never comes round.
const MOST_PACKETS: u64 = 1 << 62;

/// What the packets of an SA travel in.
#[derive(Debug, Clone)]
pub enum Road {
    /// IP protocol 50.
    Esp,
    /// UDP (RFC 3948).
    Udp {
        /// The far end's port, 4500 or what a NAT has made of it. Both SAs of a pair share it: what is sent goes to where the
        /// newest genuine packet came from (RFC 7296 section 2.23).
        remote_port: Arc<AtomicU16>,
        /// Ours.
        local_port: u16,
    },
}

impl Road {
    /// Which socket it is.
    #[inline]
    pub fn kind(&self) -> RxRoad {
        match self {
            Road::Esp => RxRoad::Esp,
            Road::Udp { .. } => RxRoad::Udp,
        }
    }
}

/// What an SA carries from one of its hosts to the other, and nothing else (RFC 4301 section 4.4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// GRE.
    Gre,
    /// A tunnel in UDP, to its port.
    InUdp {
        /// Which.
        kind: InUdp,
        /// From that port, too. Of the two SAs that come in for such a tunnel one is for packets from any port, which are all
        /// that tunnels send; the other is for answers to what we send, of which there are none.
        from_port: bool,
    },
}

impl Selector {
    /// The IP protocol, as it stands in field Next Header.
    #[inline]
    pub fn protocol(self) -> u8 {
        match self {
            Selector::Gre => proto::GRE,
            Selector::InUdp { .. } => proto::UDP,
        }
    }
}

/// What an SA is made of beside its key.
#[derive(Debug, Clone)]
pub struct SaConfig {
    /// Its index at the receiver.
    pub spi: u32,
    /// What it is for.
    pub selector: Selector,
    /// This host. With `remote` the selector's addresses.
    pub local: IpAddr,
    /// The other host.
    pub remote: IpAddr,
    /// Extended sequence numbers (RFC 4304).
    pub esn: bool,
    /// What its packets travel in. Inbound both roads are accepted whatever it says (RFC 7296 section 2.23).
    pub road: Road,
    /// Packets after which it is of no use any more (`u64::MAX`: what the sequence number allows).
    pub hard_packets: u64,
    /// Bytes of payload after which it is of no use any more (`u64::MAX`: no limit).
    pub hard_bytes: u64,
}

/// How much an SA has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets; of those that came, the ones whose ICV was right.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// When the last one passed, in seconds of [`crate::handle::Datapath::now`].
    pub last: Option<u32>,
    /// The highest sequence number.
    pub sequence: u64,
    /// Refused as replayed or too old. Inbound only.
    pub replayed: u64,
    /// Refused for a wrong ICV. Inbound only.
    pub forged: u64,
}

/// What an SA keeps account with, of any number of workers. On a cache line of its own: the key beside it is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Account {
    /// Packets that came; sequence numbers asked for.
    count: AtomicU64,
    bytes: AtomicU64,
    /// The second of the last packet, plus one; 0: none yet.
    last: AtomicU32,
}

impl Account {
    #[inline]
    fn last(&self) -> Option<u32> {
        self.last.load(Relaxed).checked_sub(1)
    }

    #[inline]
    fn touch(&self, now: u32) {
        let now = now.saturating_add(1);
        if self.last.load(Relaxed) != now {
            self.last.store(now, Relaxed);
        }
    }
}

/// An SA that packets come in by.
#[derive(Debug)]
pub struct InboundSa {
    /// What it was made of.
    pub config: SaConfig,
    /// Which host pair it belongs to.
    pub policy: PolicyId,
    pub(super) key: SaKey,
    pub(super) window: ReplayWindow,
    account: Account,
    pub(super) replayed: AtomicU64,
    pub(super) forged: AtomicU64,
}

impl InboundSa {
    /// A fresh SA. `replay_window` is its width in packets (see [`ReplayWindow::new`]).
    pub fn new(config: SaConfig, key: SaKey, policy: PolicyId, replay_window: u32) -> InboundSa {
        InboundSa {
            config,
            policy,
            key,
            window: ReplayWindow::new(replay_window),
            account: Account::default(),
            replayed: AtomicU64::new(0),
            forged: AtomicU64::new(0),
        }
    }

    /// One more packet whose ICV was right.
    #[inline]
    pub(super) fn count(&self, bytes: u64, now: u32) {
        self.account.count.fetch_add(1, Relaxed);
        self.account.bytes.fetch_add(bytes, Relaxed);
        self.account.touch(now);
    }

    /// Whether it has carried all that it may.
    #[inline]
    pub(super) fn is_used_up(&self) -> bool {
        self.account.count.load(Relaxed) >= self.config.hard_packets
            || self.account.bytes.load(Relaxed) >= self.config.hard_bytes
    }

    /// What has come.
    pub fn usage(&self) -> Usage {
        Usage {
            packets: self.account.count.load(Relaxed),
            bytes: self.account.bytes.load(Relaxed),
            last: self.account.last(),
            sequence: self.window.top(),
            replayed: self.replayed.load(Relaxed),
            forged: self.forged.load(Relaxed),
        }
    }
}

/// An SA that packets go out by.
#[derive(Debug)]
pub struct OutboundSa {
    /// What it was made of.
    pub config: SaConfig,
    pub(super) key: SaKey,
    /// The last sequence number that may be given.
    last_sequence: u64,
    account: Account,
}

impl OutboundSa {
    /// A fresh SA. Its packets are numbered from 1.
    pub fn new(config: SaConfig, key: SaKey) -> OutboundSa {
        let numbers = if config.esn { MOST_PACKETS } else { u32::MAX.into() };
        OutboundSa {
            last_sequence: config.hard_packets.min(numbers),
            config,
            key,
            account: Account::default(),
        }
    }

    /// The number of the next packet, which carries `bytes` of payload at `now` (seconds). None: a hard limit is reached, and
    /// there will be no other (RFC 4303 section 3.3.3).
    #[inline]
    pub fn number(&self, bytes: u64, now: u32) -> Option<u64> {
        if self.account.bytes.load(Relaxed) >= self.config.hard_bytes {
            return None;
        }
        // Each call has a value of its own, also where several workers run past the limit: nothing is given twice.
        let number = self.account.count.fetch_add(1, Relaxed) + 1;
        if number > self.last_sequence {
            return None;
        }
        self.account.bytes.fetch_add(bytes, Relaxed);
        self.account.touch(now);
        Some(number)
    }

    /// What has gone.
    pub fn usage(&self) -> Usage {
        let sequence = self.account.count.load(Relaxed).min(self.last_sequence);
        Usage {
            packets: sequence,
            bytes: self.account.bytes.load(Relaxed),
            last: self.account.last(),
            sequence,
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn numbers_begin_with_one_and_end_at_the_limit() {
        for (hard_packets, hard_bytes) in [(3, u64::MAX), (u64::MAX, 21)] {
            let sa = outbound(SaConfig { hard_packets, hard_bytes, ..config() });
            let numbers: Vec<_> = (0..5).map(|_| sa.number(10, 4)).collect();
            assert_eq!(numbers, [Some(1), Some(2), Some(3), None, None]);
            assert_eq!((sa.usage().packets, sa.usage().last), (3, Some(4)));
        }
    }

    #[test]
    fn without_extended_numbers_an_sa_ends_before_they_wrap() {
        let sa = outbound(SaConfig { esn: false, ..config() });
        sa.account.count.store(u64::from(u32::MAX) - 2, Relaxed);
        let numbers: Vec<_> = (0..4).map(|_| sa.number(1, 0)).collect();
        assert_eq!(numbers, [Some(0xffff_fffe), Some(0xffff_ffff), None, None]);
        let sa = outbound(config());
        sa.account.count.store(u64::from(u32::MAX), Relaxed);
        assert_eq!(sa.number(1, 0), Some(1 << 32));
        sa.account.count.store(MOST_PACKETS, Relaxed);
        assert_eq!(sa.number(1, 0), None);
    }

    /// Workers run into the limit together: every number is given once, and none beyond.
    #[test]
    fn no_number_is_given_twice() {
        const LIMIT: u64 = 40_000;
        let sa = outbound(SaConfig { hard_packets: LIMIT, ..config() });
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..LIMIT).filter_map(|_| sa.number(1, 0)).collect::<Vec<_>>()))
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=LIMIT));
        assert_eq!(sa.usage().packets, LIMIT);
    }
}
