//! What the endpoint wants done.

use std::fmt;
use std::net::IpAddr;

use crate::config::{Path, PeerId};
use crate::crypto::Secret;
use crate::proposal::EspSuite;
use crate::selector::Selector;

/// To be carried out in the order in which [`crate::Endpoint::poll`] gives them: an `Install` must be in force before the
/// datagram behind it is sent.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send this message.
    Transmit {
        /// From where to where.
        path: Path,
        /// The IKE message. From port 4500 the driver puts the non-ESP marker in front.
        datagram: Vec<u8>,
    },
    /// Send one byte of 0xff, without a marker (RFC 3948 2.3): it keeps the mapping of the NAT before us alive.
    Keepalive(Path),
    /// Something happened with a peer.
    Event(PeerId, Event),
}

/// What happened with a peer.
#[derive(Debug, Clone)]
pub enum Event {
    /// Receive by this child SA from now on, and send by it if `use_outbound` is set.
    Install(Child),
    /// Send by this child SA from now on; the one before is to be received by still.
    UseOutbound(ChildId),
    /// The peer's UDP port, as a NAT shows it, is another now.
    Moved(ChildId, UdpPorts),
    /// Forget this child SA and its keys.
    Remove(ChildId),
    /// The first child SA for this is there: it can flow.
    Up(Selector),
    /// The last child SA for this is gone, and why.
    Down(Selector, String),
    /// Something failed and is being tried again, or the peer refuses: for the operator.
    Trouble(String),
}

/// Names a child SA for as long as the endpoint lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A pair of ESP SAs in transport mode between two addresses.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its name.
    pub id: ChildId,
    /// What it is for.
    pub selector: Selector,
    /// What we receive by.
    pub inbound: Direction,
    /// What we send by.
    pub outbound: Direction,
    /// Algorithm, and whether sequence numbers are extended.
    pub suite: EspSuite,
    /// Our address, as it stands in packets.
    pub local: IpAddr,
    /// The peer's address, as it stands in packets.
    pub remote: IpAddr,
    /// ESP travels in UDP between these ports.
    pub udp: Option<UdpPorts>,
    /// No more packets than this may be sent.
    pub hard_packets: u64,
    /// No more bytes than this may be sent.
    pub hard_bytes: u64,
    /// Whether to send by it at once; else [`Event::UseOutbound`] says when.
    pub use_outbound: bool,
}

/// One direction of a child SA.
#[derive(Debug, Clone)]
pub struct Direction {
    /// Chosen by who receives.
    pub spi: u32,
    /// The AES key, then the salt of 4 octets.
    pub keymat: Secret,
}

/// UDP ports of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpPorts {
    /// Ours: 4500.
    pub local: u16,
    /// The peer's, as we see it.
    pub remote: u16,
}

/// What has passed through a child SA since it was installed, as the datapath counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChildUse {
    /// Packets received and found authentic.
    pub inbound_packets: u64,
    /// Their bytes.
    pub inbound_bytes: u64,
    /// Packets sent.
    pub outbound_packets: u64,
    /// Their bytes.
    pub outbound_bytes: u64,
}
