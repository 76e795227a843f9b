//! ESP by trains ([`datapath::port::esp_device`]): which devices have the inlet, and which far ends are reached by the lane.
//!
//! Nothing of it is there before an SA whose packets are of protocol 50, over IPv4. What a device cannot do goes by raw sockets; the
//! tunnels' rows say so, and it is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::port::RxRoad;
use datapath::port::esp_device::{Attached, Hop, Hops, Inlet, Lane};
use datapath::snapshot::PortKind;
use ikev2::NAT_PORT;

use super::Reconciler;
use super::device::UnderlayIo;
use super::wanted::Wanted;
use crate::devices::netlink::{Link, Neighbour};
use crate::devices::path::Path;
use crate::devices::xdp::XdpFeatures;
use crate::devices::{lane, reason};

/// How long what failed is left alone, unless its device changes.
const RETRY: Duration = Duration::from_secs(10);
/// How long what is not used any more stays, for packets that are on their way through it.
const GRACE: Duration = Duration::from_secs(1);

/// What has been made for it.
#[derive(Debug, Default)]
pub(super) struct Trains {
    inlet: Option<Made<Arc<Inlet>>>,
    /// By the index of a device that SAs' packets leave by.
    inlets: BTreeMap<u32, Made<Attached>>,
    lane: Option<Made<Arc<Lane>>>,
    features: Option<Made<XdpFeatures>>,
    /// Nobody goes by it since then.
    idle: Option<Instant>,
    /// Why packets of SAs go by raw sockets, by far end.
    failures: BTreeMap<IpAddr, String>,
}

/// Something that is made once and kept. Err: it could not be.
type Made<T> = Result<T, Failure>;

/// Why something could not be made.
#[derive(Debug)]
struct Failure {
    why: String,
    /// Changes of the device aside, not before then; None: never.
    again: Option<Instant>,
    /// The device as it was.
    link: Option<Box<Link>>,
}

impl Failure {
    fn new(why: String) -> Failure {
        Failure { why, again: Some(Instant::now() + RETRY), link: None }
    }

    /// Whether to try again, the device being as `link` says.
    fn is_over(&self, link: Option<&Link>) -> bool {
        self.again.is_some_and(|again| again <= Instant::now()) || self.link.as_deref() != link
    }
}

/// Forgets a failure that is over.
fn reconsider<T>(made: &mut Option<Made<T>>) {
    made.take_if(|made| made.as_ref().is_err_and(|failure| failure.is_over(None)));
}

/// The way to the far end of an SA.
#[derive(Debug)]
struct Route {
    remote: Ipv4Addr,
    path: Path,
}

impl Reconciler {
    /// Brings devices and far ends up to date with SAs, routes and neighbours.
    pub(super) async fn follow_trains(&mut self, wanted: &Wanted) {
        self.trains.failures.clear();
        let routes = match wanted.host.underlay_io {
            // A driver may restart its queues for XDP, and tcpdump sees less: that is for operators to ask for
            UnderlayIo::Raw | UnderlayIo::Auto => Vec::new(),
            UnderlayIo::Device => self.esp_routes().await,
        };
        if routes.is_empty() {
            self.set_hops(BTreeMap::new(), None);
            // packets of a moment ago are still in the lane, and some on the wire
            let idle = *self.trains.idle.get_or_insert_with(Instant::now);
            if idle.elapsed() >= GRACE {
                self.state.borrow_mut().inlet = None;
                self.trains =
                    Trains { failures: std::mem::take(&mut self.trains.failures), ..Trains::default() };
            }
        } else {
            self.trains.idle = None;
            self.follow_inlets(&routes);
            let hops = self.hops(&routes).await;
            let lane = if hops.is_empty() { None } else { self.lane(&routes).await };
            self.set_hops(hops, lane);
        }
        self.blame();
    }

    /// Tells tunnels that shall go by trains, and do not, why.
    fn blame(&mut self) {
        let state = self.state.borrow();
        let ports = state.bridges.values().flat_map(|bridge| &bridge.ports);
        let protected = ports.filter_map(|(name, port)| match &port.port.kind {
            PortKind::Tunnel(tunnel) if tunnel.policy.is_some() => Some((name, tunnel.config.remote)),
            _ => None,
        });
        for (name, remote) in protected {
            if let Some(why) = self.trains.failures.get(&remote) {
                self.choice.blame(name, why);
            }
        }
    }

    /// The ways to far ends of SAs whose packets are of protocol 50.
    async fn esp_routes(&mut self) -> Vec<Route> {
        let pairs: BTreeSet<(IpAddr, IpAddr)> = {
            let state = self.state.borrow();
            let esp = state.sas.children().filter(|(_, c)| c.child.udp.is_none());
            esp.map(|(_, c)| (c.child.local, c.child.remote)).collect()
        };
        let mut hosts = Vec::new();
        for (local, remote) in pairs {
            match (local, remote) {
                (IpAddr::V4(local), IpAddr::V4(remote)) => hosts.push((local, remote)),
                _ => self.trains.fail(remote, "ESP over IPv6 does not go in trains".into()),
            }
        }
        let mut routes = Vec::new();
        for (local, remote) in hosts {
            let path = self.paths.look_up(remote.into(), Some(local.into()), &self.links).await;
            routes.extend(path.ok().map(|path| Route { remote, path }));
        }
        routes
    }

    /// Puts the inlet to work on the devices that packets leave by: there the others' come in, if not elsewhere.
    fn follow_inlets(&mut self, routes: &[Route]) {
        reconsider(&mut self.trains.inlet);
        let inlet = self.trains.inlet.get_or_insert_with(|| {
            let opened = Inlet::open(NAT_PORT).map(Arc::new);
            opened.map_err(|e| {
                tracing::info!("ESP is received by raw sockets: {}", reason(&e));
                Failure::new(reason(&e))
            })
        });
        let inlet = match inlet {
            Ok(inlet) => inlet.clone(),
            Err(failure) => {
                let why = failure.why.clone();
                return routes.iter().for_each(|r| self.trains.fail(r.remote.into(), why.clone()));
            }
        };
        if self.state.borrow().inlet.is_none() {
            let mut state = self.state.borrow_mut();
            state.inlet = Some(inlet.clone());
            state.tell_inlet();
        }
        let devices: BTreeSet<u32> = routes.iter().map(|r| r.path.ifindex).collect();
        self.trains.inlets.retain(|index, _| devices.contains(index));
        for Route { remote, path } in routes {
            let link = self.links.by_index(path.ifindex).map(Link::settings);
            let (made, before) = match self.trains.inlets.remove(&path.ifindex) {
                Some(Err(failure)) if failure.is_over(link.as_ref()) => (None, Some(failure.why)),
                made => (made, None),
            };
            let attached = made.unwrap_or_else(|| attach(&inlet, path, link, before.as_deref()));
            let why = attached.as_ref().err().map(|failure| failure.why.clone());
            self.trains.inlets.insert(path.ifindex, attached);
            if let Some(why) = why {
                self.trains.fail((*remote).into(), format!("{}: {why}", path.link));
            }
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
            let Some(link) = link else { continue };
            match self.trains.redirects(path) {
                Ok(()) => {
                    let hop = Hop { ifindex: link.index, from: link.mac, to: neighbour.mac, mtu: path.mtu };
                    hops.insert(*remote, hop);
                }
                Err(why) => self.trains.fail((*remote).into(), why),
            }
        }
        hops
    }

    async fn lane(&mut self, routes: &[Route]) -> Option<Arc<Lane>> {
        reconsider(&mut self.trains.lane);
        if self.trains.lane.is_none() {
            let made = lane::open().await;
            self.trains.lane = Some(made.map(Arc::new).map_err(|e| {
                tracing::info!("ESP is sent by raw sockets: {}", reason(&e));
                Failure::new(reason(&e))
            }));
        }
        match self.trains.lane.as_ref()? {
            Ok(lane) => Some(lane.clone()),
            Err(failure) => {
                let why = failure.why.clone();
                routes.iter().for_each(|r| self.trains.fail(r.remote.into(), why.clone()));
                None
            }
        }
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

/// Puts the inlet to work on the device of a path, which is as `link` says. `before`: why that failed the last time.
fn attach(inlet: &Inlet, path: &Path, link: Option<Link>, before: Option<&str>) -> Made<Attached> {
    match inlet.attach(path.ifindex) {
        Ok(attached) => {
            tracing::info!("{}: ESP is received in trains, by XDP", path.link);
            Ok(attached)
        }
        Err(e) => {
            // the other may go without a sign, as may what makes a veth refuse: the MTU of its far end. Else a driver is not
            // asked twice, as some restart their queues to find out
            let busy = e.raw_os_error() == Some(libc::EBUSY);
            let passing = busy || e.raw_os_error() == Some(libc::ERANGE);
            let why = match busy {
                true => "another XDP program is there".to_owned(),
                false => format!("its driver does not take XDP ({})", reason(&e)),
            };
            if before != Some(why.as_str()) {
                tracing::info!("{}: ESP is received by a raw socket: {why}", path.link);
            }
            Err(Failure { why, again: passing.then(|| Instant::now() + RETRY), link: link.map(Box::new) })
        }
    }
}

impl Trains {
    /// Packets to or from that host go by a raw socket, at least one way.
    fn fail(&mut self, remote: IpAddr, why: String) {
        self.failures.entry(remote).or_insert(why);
    }

    /// Whether packets may be redirected to the device of a path. Err: why not.
    fn redirects(&mut self, path: &Path) -> Result<(), String> {
        reconsider(&mut self.features);
        let features = self.features.get_or_insert_with(|| {
            XdpFeatures::open().map_err(|e| {
                tracing::info!("ESP is sent by raw sockets: {}", reason(&e));
                Failure::new(reason(&e))
            })
        });
        let features = features.as_ref().map_err(|failure| failure.why.clone())?;
        match features.takes_redirected(path.ifindex) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{}: its driver takes no redirected packets", path.link)),
            Err(e) => Err(format!("{}: {}", path.link, reason(&e))),
        }
    }
}
