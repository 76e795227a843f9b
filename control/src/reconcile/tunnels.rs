//! Tunnels: kept as their rows say and as the routes to their far ends go.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datapath::fdb::Fdb;
use datapath::port::Underlay;
use datapath::snapshot::{Port, PortId, PortKind};
use datapath::tunnel::{Tunnel, TunnelConfig};

use super::Reconciler;
use super::apply::copy;
use super::wanted::{Wanted, What};
use crate::devices::path::{self, Path};
use crate::devices::reason;

impl Reconciler {
    pub(super) async fn tunnel(&mut self, config: &TunnelConfig) -> Tunnel {
        let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
        let mtu = path.as_ref().map_or(path::DEFAULT_MTU, |p| p.mtu);
        Tunnel::new(config.clone(), source(config, path.as_ref()), mtu)
    }

    /// Brings tunnels up to date with their rows and with the paths to their far ends.
    pub(super) async fn follow_tunnels(&mut self, wanted: &Wanted) {
        for (bridge_name, bridge) in &wanted.bridges {
            for (name, port) in &bridge.ports {
                let Ok(What::Tunnel(config)) = &port.what else { continue };
                let Some(standing) = self.tunnel_of(bridge_name, name) else { continue };
                let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
                let source = source(config, path.as_ref());
                if let Some(path) = &path {
                    let before = standing.path_mtu.swap(path.mtu, Relaxed);
                    if before != path.mtu {
                        tracing::info!("{name}: MTU of the path to {} is {} bytes", config.remote, path.mtu);
                    }
                }
                // Without a route now, the address of before does as well
                let moved = source.is_some() && source != standing.source;
                if standing.config == *config && !moved {
                    continue;
                }
                if let Err(e) = self.open_underlay(config) {
                    self.fail(
                        bridge_name,
                        name,
                        format!("could not open network device {name} ({})", reason(&e)),
                    );
                    continue;
                }
                let tunnel = self.tunnel(config).await;
                self.replace(bridge_name, name, |port| {
                    // Sequence numbers go on: a receiver may discard what looks old (RFC 2890 section 2.2)
                    let next = standing.sequence.load(Relaxed);
                    tunnel.sequence.store(next, Relaxed);
                    Port { kind: PortKind::Tunnel(Arc::new(tunnel)), ..copy(port) }
                });
                if standing.config.remote != config.remote {
                    self.redirected.extend(self.learned_at(bridge_name, name));
                }
            }
        }
    }

    /// What each tunnel leaves by now: (bridge, port, path).
    pub(super) async fn egress(&mut self) -> Vec<(String, String, Option<Path>)> {
        let tunnels: Vec<(String, String, Arc<Tunnel>)> = {
            let state = self.state.borrow();
            let ports = state.bridges.iter().flat_map(|(b, s)| s.ports.iter().map(move |(n, p)| (b, n, p)));
            ports
                .filter_map(|(b, n, p)| match &p.port.kind {
                    PortKind::Tunnel(t) => Some((b.clone(), n.clone(), t.clone())),
                    PortKind::Local(_) => None,
                })
                .collect()
        };
        let mut found = Vec::new();
        for (bridge, name, tunnel) in tunnels {
            let path = self.paths.look_up(tunnel.config.remote, tunnel.config.local, &self.links).await.ok();
            found.push((bridge, name, path));
        }
        found
    }

    /// Opens the socket that the tunnel rides on, if it is not open.
    pub(super) fn open_underlay(&mut self, config: &TunnelConfig) -> std::io::Result<()> {
        let mut state = self.state.borrow_mut();
        let (place, open): (_, fn() -> std::io::Result<Underlay>) = match config.remote.is_ipv4() {
            true => (&mut state.underlay4, Underlay::gre4),
            false => (&mut state.underlay6, Underlay::gre6),
        };
        if place.is_none() {
            *place = Some(Arc::new(open()?));
            self.dirty = true;
        }
        Ok(())
    }

    /// Closes sockets that no tunnel rides on: GRE packets are then the kernel's again.
    pub(super) fn keep_underlays(&mut self) {
        let mut state = self.state.borrow_mut();
        let remotes =
            state.bridges.values().flat_map(|b| b.ports.values()).filter_map(|p| match &p.port.kind {
                PortKind::Tunnel(t) => Some(t.config.remote),
                PortKind::Local(_) => None,
            });
        let (v4, v6) = remotes.fold((false, false), |(v4, v6), r| (v4 | r.is_ipv4(), v6 | r.is_ipv6()));
        state.underlay4.take_if(|_| !v4);
        state.underlay6.take_if(|_| !v6);
    }

    pub(super) fn tunnel_of(&self, bridge: &str, name: &str) -> Option<Arc<Tunnel>> {
        match &self.state.borrow().bridges.get(bridge)?.ports.get(name)?.port.kind {
            PortKind::Tunnel(tunnel) => Some(tunnel.clone()),
            PortKind::Local(_) => None,
        }
    }

    /// Where the addresses behind a port are known, and by what number.
    fn learned_at(&self, bridge: &str, name: &str) -> Option<(Arc<Fdb>, PortId)> {
        let state = self.state.borrow();
        let port = state.bridges.get(bridge)?.ports.get(name)?;
        Some((port.fdb.clone(), port.port.id))
    }
}

fn source(config: &TunnelConfig, path: Option<&Path>) -> Option<IpAddr> {
    config.local.or_else(|| path.and_then(|p| p.source))
}
