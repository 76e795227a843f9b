//! Which tunnel a received packet belongs to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::port::InUdp;
use crate::snapshot::{Port, PortId, PortKind};

/// Outer source, outer destination when the tunnel asks for one, key or VNI, and what it comes in if that is UDP.
type Tuple = (IpAddr, Option<IpAddr>, u32, Option<InUdp>);

/// Tunnels by what their packets look like. A tunnel that names its `local_ip` is preferred to one that does not; the
/// key must match in either case, where no key and key 0 are the same (OVS's in_key of 0). What comes in UDP is for tunnels
/// that send so, and the other way round.
#[derive(Debug, Default)]
pub struct Demux {
    tunnels: HashMap<Tuple, PortId, foldhash::fast::RandomState>,
    /// Whether a tunnel names its `local_ip` at all: mostly none does.
    local: bool,
}

impl Demux {
    /// Built from the tunnel ports of a snapshot; other ports are passed over.
    ///
    /// # Errors
    /// Two ports that no packet could tell apart: (the later, the earlier).
    pub fn build<'a>(ports: impl Iterator<Item = &'a Arc<Port>>) -> Result<Demux, (PortId, PortId)> {
        let mut demux = Demux::default();
        for port in ports {
            let PortKind::Tunnel(tunnel) = &port.kind else { continue };
            let c = &tunnel.config;
            let tuple = (c.remote, c.local, c.in_key.unwrap_or(0), c.in_udp);
            demux.local |= c.local.is_some();
            if let Some(other) = demux.tunnels.insert(tuple, port.id) {
                return Err((port.id, other));
            }
        }
        Ok(demux)
    }

    /// The port for a packet from `src` to `dst` with that key or VNI, which came in UDP or not.
    #[inline]
    pub fn find(&self, src: IpAddr, dst: IpAddr, key: Option<u32>, in_udp: Option<InUdp>) -> Option<PortId> {
        let find = |dst| self.tunnels.get(&(src, dst, key.unwrap_or(0), in_udp));
        let own = if self.local { find(Some(dst)) } else { None };
        own.or_else(|| find(None)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::BridgeId;
    use crate::tunnel::{Tunnel, TunnelConfig};

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn port(id: u16, remote: &str, local: Option<&str>, in_key: Option<u32>) -> Arc<Port> {
        let config = TunnelConfig { local: local.map(ip), in_key, ..TunnelConfig::to(ip(remote)) };
        Arc::new(Port::new(
            PortId(id),
            BridgeId(0),
            id,
            format!("gre{id}"),
            PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500))),
        ))
    }

    #[test]
    fn the_more_specific_tunnel_wins() {
        let ports = [
            port(1, "10.0.0.2", None, None),
            port(2, "10.0.0.2", Some("10.0.0.1"), None),
            port(3, "10.0.0.2", None, Some(5)),
            port(4, "fd00::2", None, Some(0)),
        ];
        let d = Demux::build(ports.iter()).unwrap();
        let cases = [
            ("10.0.0.2", "10.0.0.1", None, Some(2)),
            ("10.0.0.2", "10.0.0.9", None, Some(1)),
            ("10.0.0.2", "10.0.0.1", Some(0), Some(2)),
            ("10.0.0.2", "10.0.0.1", Some(5), Some(3)),
            ("10.0.0.2", "10.0.0.1", Some(6), None),
            ("10.0.0.3", "10.0.0.1", None, None),
            ("fd00::2", "fd00::1", None, Some(4)),
            ("fd00::2", "fd00::1", Some(1), None),
        ];
        for (src, dst, key, want) in cases {
            let found = d.find(ip(src), ip(dst), key, None);
            assert_eq!(found, want.map(PortId), "{src} -> {dst} key {key:?}");
            assert_eq!(d.find(ip(src), ip(dst), key, Some(InUdp::Gre)), None);
        }
    }

    #[test]
    fn what_comes_in_udp_is_another_tunnel() {
        let far = ip("10.0.0.2");
        let kinds = [
            None,
            Some(InUdp::Gre),
            Some(InUdp::Vxlan(4789)),
            Some(InUdp::Vxlan(8472)),
            Some(InUdp::Geneve(6081)),
        ];
        let ports = kinds.iter().zip(1..).map(|(&in_udp, id)| {
            let mut port = port(id, "10.0.0.2", None, None);
            let config = TunnelConfig { in_udp, ..TunnelConfig::to(far) };
            Arc::get_mut(&mut port).unwrap().kind =
                PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500)));
            port
        });
        let d = Demux::build(ports.collect::<Vec<_>>().iter()).unwrap();
        for (kind, want) in kinds.into_iter().zip(1..) {
            assert_eq!(d.find(far, ip("10.0.0.1"), None, kind), Some(PortId(want)));
        }
        assert_eq!(d.find(far, ip("10.0.0.1"), None, Some(InUdp::Geneve(4789))), None);
    }

    #[test]
    fn indistinguishable_tunnels_are_refused() {
        let ports = [port(1, "10.0.0.2", None, None), port(2, "10.0.0.2", None, Some(0))];
        assert_eq!(Demux::build(ports.iter()).unwrap_err(), (PortId(2), PortId(1)));
    }
}
