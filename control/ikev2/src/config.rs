//! What the endpoint is told: peers, how long keys live, and how much strangers may ask of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::auth::{Credential, Identity, Trust};
use crate::proposal::{EspOffer, IkeOffer};
use crate::selector::Selector;

/// UDP port of IKE.
pub const PORT: u16 = 500;
/// UDP port of IKE behind the non-ESP marker, and of ESP in UDP (RFC 3948).
pub const NAT_PORT: u16 = 4500;

/// A peer, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// The two ends of a datagram. The local port, 500 or 4500, tells the socket; on 4500 the driver puts the non-ESP marker
/// in front and takes it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// This host.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
}

/// One host to be protected with: a pair of addresses, and how both prove who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerConfig {
    /// For logs and status: the tunnel's name.
    pub name: String,
    /// The address of this host that the peer knows. Without one the peer is answered on any address, but cannot be
    /// initiated to: identities, traffic selectors and NAT detection need it.
    pub local: Option<IpAddr>,
    /// The peer's address. The unspecified address stands for any: such a peer is only answered.
    pub remote: IpAddr,
    /// Who we say we are; without it the certificate's name, or the local address.
    pub local_id: Option<Identity>,
    /// Who we expect the peer to say it is. With a PSK it must; a certificate is checked by `trust`, and this only tells
    /// apart peers that share an address.
    pub remote_id: Option<Identity>,
    /// How we prove who we are.
    pub credential: Credential,
    /// What proof we accept.
    pub trust: Trust,
    /// Algorithms for IKE itself.
    pub ike: IkeOffer,
    /// Algorithms for ESP.
    pub esp: EspOffer,
    /// What is protected, each by child SAs of its own, all under one IKE SA. The first is asked for in IKE_AUTH. Nothing
    /// else is granted.
    pub protects: Vec<Selector>,
    /// By which road ESP travels.
    pub encapsulation: Encapsulation,
    /// When keys are renewed.
    pub lifetimes: Lifetimes,
    /// After so long without a sign of life the peer is asked for one. Zero: never.
    pub liveness: Duration,
    /// Whether to begin on our own, now and whenever nothing is left. Else the peer is only answered.
    pub initiate: bool,
}

/// The road of ESP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encapsulation {
    /// UDP if a NAT is between, if the peer forces it, or if the peer is Underpass too, as that is faster; else protocol 50.
    #[default]
    Auto,
    /// Protocol 50, whatever is between.
    Esp,
    /// Always UDP.
    Udp,
}

/// When keys are renewed. Each SA takes up to a tenth less, by chance, so that not all are renewed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Age at which an IKE SA is rekeyed. It is deleted when a tenth more, and no less than a minute, has passed.
    pub ike: Duration,
    /// Age at which a child SA is rekeyed; its hard limit likewise.
    pub child: Duration,
    /// Packets sent or received after which a child SA is rekeyed; a quarter more may be sent at all. Without extended
    /// sequence numbers never more than 2^32 - 1.
    pub packets: u64,
    /// Bytes, likewise.
    pub bytes: u64,
}

impl Default for Lifetimes {
    fn default() -> Lifetimes {
        Lifetimes {
            ike: Duration::from_secs(4 * 3600),
            child: Duration::from_secs(3600),
            // 2^36 packets of AES-GCM keep the odds against it far below 2^-32 (RFC 4106 leaves it to us)
            packets: 1 << 36,
            bytes: 1 << 46,
        }
    }
}

/// How much may be asked of the endpoint by those who have not proved anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From so many half-open IKE SAs on a cookie is demanded first (RFC 7296 2.6).
    pub cookies_from: usize,
    /// Half-open IKE SAs at a time.
    pub half_open: usize,
    /// Half-open IKE SAs of one source address; from then on it must show a cookie, and may have as many again.
    pub half_open_per_source: usize,
    /// A half-open IKE SA is forgotten after so long.
    pub half_open_time: Duration,
    /// Unprotected error answers a second.
    pub errors_per_second: u32,
    /// Established IKE SAs of one peer.
    pub ike_per_peer: usize,
    /// Child SAs of one peer.
    pub children_per_peer: usize,
    /// Largest IP packet that IKE sends once the peer takes fragments (RFC 7383).
    pub packet: usize,
}

impl Limits {
    /// Length of the longest IKE message on a path that is not split, if the peer takes fragments.
    pub(crate) fn message(&self, path: Path, fragments: bool) -> usize {
        const UDP_AND_MARKER: usize = 8 + 4;
        let ip = if path.remote.is_ipv4() { 20 } else { 40 };
        if fragments { self.packet.saturating_sub(ip + UDP_AND_MARKER) } else { usize::MAX }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            cookies_from: 30,
            half_open: 1000,
            half_open_per_source: 10,
            half_open_time: Duration::from_secs(30),
            errors_per_second: 20,
            ike_per_peer: 8,
            children_per_peer: 32,
            packet: 1280,
        }
    }
}
