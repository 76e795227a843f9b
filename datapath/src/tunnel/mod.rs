//! Tunnels: an Ethernet frame in GRE (RFC 2784, RFC 2890) between two addresses.
#![allow(unused_variables, missing_docs)] // bodies follow

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::snapshot::{Port, PortId};

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
    /// `options:in_key` or `key`. None or Some(0): accepts packets without a key and with key 0.
    pub in_key: Option<u32>,
    /// `options:out_key` or `key`. Some(0) sends the key 0, None sends none.
    pub out_key: Option<u32>,
    /// `options:csum`: send checksums (received ones are always verified).
    pub csum: bool,
    /// `options:seq`: send sequence numbers.
    pub seq: bool,
    /// `options:tos`.
    pub tos: Tos,
    /// `options:ttl`.
    pub ttl: Ttl,
    /// `options:df_default`.
    pub df: bool,
}

/// A tunnel as the workers use it.
#[derive(Debug)]
pub struct Tunnel {
    /// What the row says.
    pub config: TunnelConfig,
    /// The address that packets leave from: `local`, or what the route to `remote` says. Needed for IPv6 only.
    pub source: Option<IpAddr>,
    /// MTU of the path to `remote` in bytes of outer IP packet; control keeps it up to date.
    pub path_mtu: AtomicU32,
    /// Next GRE sequence number (RFC 2890).
    pub sequence: AtomicU32,
}

impl Tunnel {
    /// A tunnel over a path of that MTU.
    pub fn new(config: TunnelConfig, source: Option<IpAddr>, path_mtu: u32) -> Tunnel {
        Tunnel { config, source, path_mtu: AtomicU32::new(path_mtu), sequence: AtomicU32::new(0) }
    }

    /// The longest inner frame (Ethernet header included) that fits the path.
    pub fn max_frame(&self) -> usize {
        let ip = if self.config.remote.is_ipv4() { 20 } else { 40 };
        let gre = 4
            + if self.config.csum { 4 } else { 0 }
            + if self.config.out_key.is_some() { 4 } else { 0 }
            + if self.config.seq { 4 } else { 0 };
        (self.path_mtu.load(Relaxed) as usize).saturating_sub(ip + gre)
    }
}

/// Finds the tunnel of a received packet: in_key before local_ip, as OVS orders them.
#[derive(Debug, Default)]
pub struct Demux {}

impl Demux {
    /// Built from every tunnel port of a snapshot. Err: two ports with the same (local, remote, in_key).
    pub fn build<'a>(ports: impl Iterator<Item = &'a Arc<Port>>) -> Result<Demux, (PortId, PortId)> {
        Ok(Demux {})
    }

    /// The port for a packet from `src` to `dst` with that key.
    pub fn find(&self, src: IpAddr, dst: IpAddr, key: Option<u32>) -> Option<PortId> {
        None
    }
}
