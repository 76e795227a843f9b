//! Tunnels: kept as their rows say and as the routes to their far ends go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use datapath::fdb::Fdb;
use datapath::port::{InUdp, RxRoad, Underlay};
use datapath::snapshot::{PolicyId, Port, PortId, PortKind};
use datapath::tunnel::{Tunnel, TunnelConfig};
use ikev2::NAT_PORT;

use super::Reconciler;
use super::wanted::{Wanted, WantedPort, WantedTunnel, What};
use crate::devices::path::{self, Path};
use crate::devices::reason;
use crate::ipsec::pairs::{Ask, PairKey};

/// By which policy each protected tunnel goes, or why it must stay down; by name.
#[derive(Debug, Default)]
pub(super) struct Plan(BTreeMap<String, Result<PolicyId, String>>);

impl Plan {
    /// What tunnel `name` must refer to; None: it is a plain one. Err: the text for its row.
    pub(super) fn policy(&self, name: &str, wanted: &WantedTunnel) -> Result<Option<PolicyId>, String> {
        match (&wanted.protection, self.0.get(name)) {
            (None, _) => Ok(None),
            (Some(Err(why)), _) => Err(why.clone()),
            (Some(Ok(_)), Some(plan)) => plan.clone().map(Some),
            (Some(Ok(_)), None) => Err(format!("{name}: cannot be protected yet")),
        }
    }
}

impl Reconciler {
    /// Sees to it that every tunnel that asks for IPsec has a policy before there is a tunnel.
    pub(super) async fn protect(&mut self, wanted: &Wanted) -> Plan {
        let mut asks = Vec::new();
        for (bridge, name, port) in ports(wanted) {
            let Ok(What::Tunnel(WantedTunnel { config, protection: Some(Ok(protection)) })) = &port.what
            else {
                continue;
            };
            let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
            let standing = self.tunnel_of(bridge, name);
            // Without a route now, the address of before does as well
            let before = standing.as_ref().filter(|t| t.config.remote == config.remote);
            let local = source(config, path.as_ref()).or_else(|| before.and_then(|t| t.source));
            asks.push(Ask {
                tunnel: name.to_owned(),
                kind: config.in_udp,
                key: PairKey { local, remote: config.remote },
                protection: (**protection).clone(),
                stands: standing.is_some(),
            });
        }
        let (plan, changed) = self.ipsec.protect(asks);
        self.dirty |= changed;
        Plan(plan)
    }

    pub(super) async fn tunnel(&mut self, config: &TunnelConfig, policy: Option<PolicyId>) -> Tunnel {
        let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
        let mtu = path.as_ref().map_or(path::DEFAULT_MTU, |p| p.mtu);
        Tunnel { policy, ..Tunnel::new(config.clone(), source(config, path.as_ref()), mtu) }
    }

    /// Brings tunnels up to date with their rows and with the paths to their far ends.
    pub(super) async fn follow_tunnels(&mut self, wanted: &Wanted, plan: &Plan) {
        self.choice.begin(wanted.host.underlay_io);
        for (bridge_name, name, port) in ports(wanted) {
            let Ok(What::Tunnel(wish)) = &port.what else { continue };
            let config = &wish.config;
            let Some(standing) = self.tunnel_of(bridge_name, name) else { continue };
            let opened = match plan.policy(name, wish) {
                Ok(policy) => self
                    .open_underlays(config, policy)
                    .map(|()| policy)
                    .map_err(|e| format!("could not open network device {name} ({})", reason(&e))),
                Err(why) => Err(why),
            };
            let policy = match opened {
                Ok(policy) => policy,
                Err(why) => {
                    self.fail(bridge_name, name, why);
                    continue;
                }
            };
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
            if standing.config == *config && standing.policy == policy && !moved {
                self.choose_road(name, &standing, path.as_ref());
                continue;
            }
            if standing.policy.is_some() && policy.is_none() {
                tracing::warn!("{name}: asks for IPsec no more, and sends in the clear from now on");
            }
            let tunnel = self.tunnel(config, policy).await;
            self.choose_road(name, &tunnel, path.as_ref());
            self.replace(bridge_name, name, |port| {
                // Sequence numbers go on: a receiver may discard what looks old (RFC 2890 section 2.2)
                let next = standing.sequence.load(Relaxed);
                tunnel.sequence.store(next, Relaxed);
                Port { kind: PortKind::Tunnel(Arc::new(tunnel)), ..port.clone() }
            });
            if standing.config.remote != config.remote {
                self.redirected.extend(self.learned_at(bridge_name, name));
                self.begin_anew(bridge_name, name);
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
                    PortKind::Local(_) | PortKind::Patch(_) => None,
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

    /// Opens the sockets that a tunnel rides on, as far as they are not open. A protected one has all of them: that for GRE, or
    /// for what it is in, so that what comes in the clear is counted, and not answered by the kernel.
    pub(super) fn open_underlays(
        &mut self,
        config: &TunnelConfig,
        policy: Option<PolicyId>,
    ) -> std::io::Result<()> {
        let v6 = config.remote.is_ipv6();
        self.open_underlay(config.in_udp.map_or(RxRoad::Gre, RxRoad::InUdp), v6)?;
        if policy.is_some() {
            self.open_underlay(RxRoad::Esp, v6)?;
            // Another IKE daemon may have the port; the tunnel waits for it, and its row says so
            let opened = self.open_underlay(RxRoad::Udp, v6);
            self.ipsec.nat_port(v6, &opened);
        }
        Ok(())
    }

    fn open_underlay(&mut self, road: RxRoad, v6: bool) -> std::io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.underlay(road, v6).is_some() {
            return Ok(());
        }
        let underlay = match (road, v6) {
            (RxRoad::Gre, false) => Underlay::gre4(),
            (RxRoad::Gre, true) => Underlay::gre6(),
            (RxRoad::Esp, false) => Underlay::esp4(),
            (RxRoad::Esp, true) => Underlay::esp6(),
            (RxRoad::Udp, false) => Underlay::udp4(NAT_PORT),
            (RxRoad::Udp, true) => Underlay::udp6(NAT_PORT),
            (RxRoad::InUdp(kind), false) => Underlay::in_udp4(kind),
            (RxRoad::InUdp(kind), true) => Underlay::in_udp6(kind),
        };
        state.underlays.push(Arc::new(underlay?));
        self.dirty = true;
        Ok(())
    }

    /// Closes sockets that no tunnel rides on: their packets are then the kernel's again.
    pub(super) fn keep_underlays(&mut self) {
        let mut state = self.state.borrow_mut();
        let ports = state.bridges.values().flat_map(|b| b.ports.values());
        let tunnels = ports.filter_map(|p| match &p.port.kind {
            PortKind::Tunnel(t) => Some((t.config.remote.is_ipv6(), t.policy.is_some(), t.config.in_udp)),
            PortKind::Local(_) | PortKind::Patch(_) => None,
        });
        let tunnels: BTreeSet<(bool, bool, Option<InUdp>)> = tunnels.collect();
        let [farewell4, farewell6] = self.ipsec.needed();
        let before = state.underlays.len();
        state.underlays.retain(|underlay| {
            let v6 = underlay.is_ipv6();
            let protected = tunnels.iter().any(|(family, protected, _)| (*family, *protected) == (v6, true));
            let any = |kind| [false, true].iter().any(|protected| tunnels.contains(&(v6, *protected, kind)));
            match underlay.road() {
                RxRoad::Gre => any(None),
                RxRoad::InUdp(kind) => any(Some(kind)),
                RxRoad::Esp => protected,
                RxRoad::Udp => protected || if v6 { farewell6 } else { farewell4 },
            }
        });
        self.dirty |= state.underlays.len() != before;
    }

    pub(super) fn tunnel_of(&self, bridge: &str, name: &str) -> Option<Arc<Tunnel>> {
        match &self.state.borrow().bridges.get(bridge)?.ports.get(name)?.port.kind {
            PortKind::Tunnel(tunnel) => Some(tunnel.clone()),
            PortKind::Local(_) | PortKind::Patch(_) => None,
        }
    }

    /// Another bridge may be behind the port: what the spanning tree knew of it is void.
    fn begin_anew(&self, bridge: &str, name: &str) {
        let mut state = self.state.borrow_mut();
        if let Some(port) = state.bridges.get_mut(bridge).and_then(|b| b.ports.get_mut(name)) {
            port.leads_since = Instant::now();
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

/// Every port with its bridge's name and its own.
fn ports(wanted: &Wanted) -> impl Iterator<Item = (&str, &str, &WantedPort)> {
    let bridges = wanted.bridges.iter();
    bridges.flat_map(|(b, bridge)| bridge.ports.iter().map(move |(n, p)| (b.as_str(), n.as_str(), p)))
}
