//! ESP by trains ([`datapath::port::esp_device`]): which devices have the inlet, and which far ends are reached by the lane.
//!
//! Nothing of it is there before an SA whose packets are of protocol 50, over IPv4. What a device cannot do is said once, and
//! goes by raw sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use datapath::port::RxRoad;
use datapath::port::esp_device::{Attached, Hop, Hops, Inlet, Lane};
use ikev2::NAT_PORT;

use super::Reconciler;
use super::device::UnderlayIo;
use super::wanted::Wanted;
use crate::devices::netlink::Neighbour;
use crate::devices::path::Path;
use crate::devices::xdp::XdpFeatures;
use crate::devices::{lane, reason};

/// What has been made for it.
#[derive(Debug, Default)]
pub(super) struct Trains {
    /// By the index of a device that SAs' packets leave by; None: it could not be had, as has been said.
    inlets: BTreeMap<u32, Option<Attached>>,
    lane: Option<Made<Arc<Lane>>>,
    features: Option<Made<XdpFeatures>>,
    /// Devices that it has been said of that nothing can be redirected to them.
    refusing: BTreeSet<u32>,
    inlet_failed: bool,
}

/// Something that is made once. Err: it could not be, as has been said.
type Made<T> = Result<T, ()>;

/// The way to the far end of an SA.
#[derive(Debug)]
struct Route {
    remote: Ipv4Addr,
    path: Path,
}

impl Reconciler {
    /// Brings devices and far ends up to date with SAs, routes and neighbours.
    pub(super) async fn follow_trains(&mut self, wanted: &Wanted) {
        let routes = match wanted.host.underlay_io {
            // A driver may restart its queues for XDP, and tcpdump sees less: that is for operators to ask for
            UnderlayIo::Raw | UnderlayIo::Auto => Vec::new(),
            UnderlayIo::Device => self.esp_routes().await,
        };
        if routes.is_empty() {
            self.set_hops(BTreeMap::new(), None);
            self.state.borrow_mut().inlet = None;
            self.trains = Trains::default();
            return;
        }
        self.follow_inlets(&routes);
        let hops = self.hops(&routes).await;
        let lane = if hops.is_empty() { None } else { self.lane().await };
        self.set_hops(hops, lane);
    }

    /// The ways to far ends of SAs whose packets are of protocol 50.
    async fn esp_routes(&mut self) -> Vec<Route> {
        let hosts: BTreeSet<(Ipv4Addr, Ipv4Addr)> = {
            let state = self.state.borrow();
            let esp = state.sas.children().filter(|(_, c)| c.child.udp.is_none());
            let hosts = esp.filter_map(|(_, c)| match (c.child.local, c.child.remote) {
                (IpAddr::V4(local), IpAddr::V4(remote)) => Some((local, remote)),
                _ => None,
            });
            hosts.collect()
        };
        let mut routes = Vec::new();
        for (local, remote) in hosts {
            let path = self.paths.look_up(remote.into(), Some(local.into()), &self.links).await;
            routes.extend(path.ok().map(|path| Route { remote, path }));
        }
        routes
    }

    /// Puts the inlet to work on the devices that packets leave by: there the others' come in, if not elsewhere.
    fn follow_inlets(&mut self, routes: &[Route]) {
        let inlet = self.state.borrow().inlet.clone();
        let inlet = match inlet {
            Some(inlet) => inlet,
            None if self.trains.inlet_failed => return,
            None => match Inlet::open(NAT_PORT) {
                Ok(inlet) => {
                    let inlet = Arc::new(inlet);
                    let mut state = self.state.borrow_mut();
                    state.inlet = Some(inlet.clone());
                    state.tell_inlet();
                    inlet
                }
                Err(e) => {
                    tracing::info!("ESP is received by raw sockets: {}", reason(&e));
                    self.trains.inlet_failed = true;
                    return;
                }
            },
        };
        let devices: BTreeMap<u32, &str> =
            routes.iter().map(|r| (r.path.ifindex, r.path.link.as_str())).collect();
        self.trains.inlets.retain(|index, _| devices.contains_key(index));
        for (index, name) in devices {
            self.trains.inlets.entry(index).or_insert_with(|| match inlet.attach(index) {
                Ok(attached) => {
                    tracing::info!("{name}: ESP is received in trains, by XDP");
                    Some(attached)
                }
                Err(e) => {
                    let why = match e.raw_os_error() {
                        Some(libc::EBUSY) => "another XDP program is there".to_owned(),
                        _ => format!("its driver does not take XDP ({})", reason(&e)),
                    };
                    tracing::info!("{name}: ESP is received by a raw socket: {why}");
                    None
                }
            });
        }
    }

    /// How far ends are reached whose next hop the kernel knows, by a device that takes what is redirected to it.
    async fn hops(&mut self, routes: &[Route]) -> BTreeMap<Ipv4Addr, Hop> {
        let neighbours = match self.netlink.neighbours().await {
            Ok(neighbours) => neighbours,
            Err(e) => {
                tracing::warn!("cannot list the host's neighbours: {}", reason(&e));
                Vec::new()
            }
        };
        let mut hops = BTreeMap::new();
        for Route { remote, path } in routes {
            let next = path.gateway.unwrap_or(IpAddr::V4(*remote));
            let known = |n: &&Neighbour| n.link == path.ifindex && n.ip == next;
            let Some(neighbour) = neighbours.iter().find(known) else { continue };
            if neighbour.stale
                && let Err(e) = self.netlink.confirm_neighbour(path.ifindex, next).await
            {
                tracing::debug!("{next}: {}", reason(&e));
            }
            let link = self.links.by_index(path.ifindex).filter(|l| l.up && l.carrier && l.mac != [0; 6]);
            if let Some(link) = link
                && self.trains.takes_redirected(path)
            {
                let hop = Hop { ifindex: link.index, from: link.mac, to: neighbour.mac, mtu: path.mtu };
                hops.insert(*remote, hop);
            }
        }
        hops
    }

    async fn lane(&mut self) -> Option<Arc<Lane>> {
        if self.trains.lane.is_none() {
            let made = lane::open().await;
            if let Err(e) = &made {
                tracing::info!("ESP is sent by raw sockets: {}", reason(e));
            }
            self.trains.lane = Some(made.map(Arc::new).map_err(drop));
        }
        self.trains.lane.as_ref()?.as_ref().ok().cloned()
    }

    /// Tells the socket for ESP who is reached by the lane, if that is news.
    fn set_hops(&mut self, hops: BTreeMap<Ipv4Addr, Hop>, lane: Option<Arc<Lane>>) {
        let Some(socket) = self.state.borrow().underlay(RxRoad::Esp, false) else { return };
        let mut to: Hops = match lane {
            Some(lane) => Hops { lane, to: hops.into_iter().collect() },
            None => return socket.set_hops(None),
        };
        // The device may have gone in the meantime
        to.to.retain(|_, hop| to.lane.reach(hop.ifindex).is_ok());
        let before = socket.hops();
        if before.as_ref().is_some_and(|b| b.to == to.to && Arc::ptr_eq(&b.lane, &to.lane)) {
            return;
        }
        for (remote, hop) in &to.to {
            if !before.as_ref().is_some_and(|b| b.to.contains_key(remote)) {
                let name = self.links.by_index(hop.ifindex).map_or("", |l| l.name.as_str());
                tracing::info!("ESP to {remote} leaves in trains, by {name}");
            }
        }
        socket.set_hops(Some(Arc::new(to)));
    }
}

impl Trains {
    fn takes_redirected(&mut self, path: &Path) -> bool {
        let features = self.features.get_or_insert_with(|| {
            XdpFeatures::open()
                .inspect_err(|e| tracing::info!("ESP is sent by raw sockets: {}", reason(e)))
                .map_err(drop)
        });
        let Ok(features) = features else { return false };
        let takes = features.takes_redirected(path.ifindex).unwrap_or_else(|e: io::Error| {
            tracing::debug!("{}: {}", path.link, reason(&e));
            false
        });
        if takes {
            self.refusing.remove(&path.ifindex);
        } else if self.refusing.insert(path.ifindex) {
            tracing::info!(
                "{}: ESP is sent by a raw socket: its driver takes no redirected packets",
                path.link
            );
        }
        takes
    }
}
