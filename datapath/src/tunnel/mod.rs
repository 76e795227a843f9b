//! Tunnels: an Ethernet frame in GRE (RFC 2784, RFC 2890) between two addresses, in the clear, in UDP (RFC 8086) or in
//! [`crate::esp`]; or in VXLAN (RFC 7348) or Geneve (RFC 8926).
//!
//! Outward [`encap`] is the sink that the offloads write fitted frames into; inward [`demux`] finds the tunnel that a
//! packet belongs to and [`decap`] takes the frame out; `inside` is the UDP header that VXLAN and Geneve have in ESP. [`ecn`] carries congestion marks across (RFC 6040), [`entropy`] tells
//! flows apart for those on the way that cannot look inside.

pub mod carry;
pub mod decap;
pub mod demux;
pub mod ecn;
pub mod encap;
pub mod entropy;
mod inside;
mod outbox;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub use demux::Demux;
pub use outbox::Outbox;

use crate::esp::{self, OutboundSa};
use crate::port::{InUdp, RxRoad};
use crate::snapshot::PolicyId;
use crate::wire::{geneve, udp, vxlan};

/// The outer TOS or traffic class. ECN bits are handled by RFC 6040 in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tos {
    /// These DSCP bits.
    Fixed(u8),
    /// The inner packet's DSCP (0 when it is not IP).
    Inherit,
}

/// The outer TTL or hop limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// This.
    Fixed(u8),
    /// The inner packet's (64 when it is not IP).
    Inherit,
}

/// What the interface row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelConfig {
    /// `options:remote_ip`.
    pub remote: IpAddr,
    /// `options:local_ip`.
    pub local: Option<IpAddr>,
    /// `options:in_key` or `key`; of VXLAN and Geneve the VNI. None or Some(0): accepts packets without a key and with key 0.
    pub in_key: Option<u32>,
    /// `options:out_key` or `key`. Some(0) sends the key 0, None sends none.
    pub out_key: Option<u32>,
    /// `options:csum`: send checksums, GRE's own or UDP's (received ones are always verified).
    pub csum: bool,
    /// `options:seq`: send sequence numbers.
    pub seq: bool,
    /// `options:tos`.
    pub tos: Tos,
    /// `options:ttl`.
    pub ttl: Ttl,
    /// `options:df_default`.
    pub df: bool,
    /// It goes and is taken in UDP, so, and in nothing else: GRE with `options:encapsulation=udp` and no IPsec, VXLAN,
    /// Geneve; these two in ESP if there is a policy. None: GRE in IP, or in ESP.
    pub in_udp: Option<InUdp>,
}

impl TunnelConfig {
    /// What a row with `options:remote_ip` alone asks for.
    pub fn to(remote: IpAddr) -> TunnelConfig {
        TunnelConfig {
            remote,
            local: None,
            in_key: None,
            out_key: None,
            csum: false,
            seq: false,
            tos: Tos::Fixed(0),
            ttl: Ttl::Fixed(64),
            df: true,
            in_udp: None,
        }
    }
}

/// A tunnel as the workers use it.
#[derive(Debug)]
pub struct Tunnel {
    /// What the row says.
    pub config: TunnelConfig,
    /// The address that packets leave from: `local`, or what the route to `remote` says. IPv6 cannot send without;
    /// for IPv4 the kernel fills it in.
    pub source: Option<IpAddr>,
    /// MTU of the path to `remote` in bytes of outer IP packet; control keeps it up to date.
    pub path_mtu: AtomicU32,
    /// Index of the device that its packets leave by on the device road; 0: they go by the raw socket. Control keeps it up to date.
    pub egress: AtomicU32,
    /// Next GRE sequence number (RFC 2890).
    pub sequence: AtomicU32,
    /// The host pair whose SAs protect it. Some: its packets leave and are taken in ESP only, but for what
    /// [`crate::snapshot::Policy::may_send_plain`] allows.
    pub policy: Option<PolicyId>,
}

/// How a packet of a tunnel goes out.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// As GRE in IP.
    Plain,
    /// In UDP.
    InUdp(InUdp),
    /// In ESP.
    Protected(&'a OutboundSa),
}

impl Way<'_> {
    /// Which socket it goes by.
    #[inline]
    pub fn road(&self) -> RxRoad {
        match self {
            Way::Plain => RxRoad::Gre,
            Way::InUdp(kind) => RxRoad::InUdp(*kind),
            Way::Protected(sa) => sa.config.road.kind(),
        }
    }
}

impl Tunnel {
    /// A tunnel in the clear over a path of that MTU.
    pub fn new(config: TunnelConfig, source: Option<IpAddr>, path_mtu: u32) -> Tunnel {
        Tunnel {
            config,
            source,
            path_mtu: AtomicU32::new(path_mtu),
            egress: AtomicU32::new(0),
            sequence: AtomicU32::new(0),
            policy: None,
        }
    }

    /// Bytes of header that this tunnel puts right before the frame.
    pub fn header_len(&self) -> usize {
        let c = &self.config;
        match c.in_udp {
            Some(InUdp::Vxlan(_)) => return vxlan::HEADER,
            Some(InUdp::Geneve(_)) => return geneve::HEADER,
            None | Some(InUdp::Gre) => {}
        }
        4 + 4 * (usize::from(c.csum) + usize::from(c.out_key.is_some()) + usize::from(c.seq))
    }

    /// Bytes of UDP header that it has inside ESP.
    pub fn inner_udp(&self) -> usize {
        if self.config.in_udp.is_some() { udp::HEADER } else { 0 }
    }

    /// Bytes of outer IP header.
    pub fn ip_len(&self) -> usize {
        if self.config.remote.is_ipv4() { 20 } else { 40 }
    }

    /// The longest inner frame (Ethernet header included) that fits the path on that road.
    pub fn max_frame(&self, road: RxRoad) -> usize {
        let packet = (self.path_mtu.load(Relaxed) as usize).saturating_sub(self.ip_len());
        let gre = match road {
            RxRoad::Gre => packet,
            RxRoad::InUdp(_) => packet.saturating_sub(udp::HEADER),
            RxRoad::Esp => esp::room(packet).saturating_sub(self.inner_udp()),
            RxRoad::Udp => esp::room(packet.saturating_sub(udp::HEADER)).saturating_sub(self.inner_udp()),
        };
        gre.saturating_sub(self.header_len())
    }
}
