//! sFlow: an [`agent`] for each bridge that asks for one, between datapath and collectors. Workers take samples
//! ([`datapath::sflow`]), and the agent makes datagrams of them, and of what ports have counted.

pub mod agent;
pub mod wish;
mod xdr;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::sflow::{Sample, Sampler};
use datapath::snapshot::{PortId, PortKind};
use datapath::sys::ethtool;
use datapath::tunnel::Tos;
use datapath::wire::proto;
use tokio::sync::Notify;

use crate::devices::netlink::{Link, Links};
use crate::devices::reason;
use crate::reconcile::actual::{BridgeState, PortState, State};
use crate::reconcile::report::device_index;
use agent::{Agent, Flow, PortCounters, SwitchCounters, Tunnel};
use wish::Wish;

/// How often samples are taken from workers. With the room that there is for them it bounds how many there are in a second.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said that datagrams cannot be sent.
const COMPLAIN: Duration = Duration::from_secs(60);
/// Ticks of a process's CPU time (`/proc/self/stat`) are of so many milliseconds.
const TICK_MS: u32 = 10;

/// A bridge that is to be sampled, with all that its agent must know.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its name.
    pub bridge: String,
    /// What its row wants.
    pub wish: Wish,
    /// What the agent goes by.
    pub address: IpAddr,
    /// Column `datapath_id`.
    pub datapath_id: u64,
    /// The addresses that tunnels over IPv4 leave from, by interface.
    pub sources: BTreeMap<String, Ipv4Addr>,
}

/// All agents.
#[derive(Debug, Default)]
pub struct Sflow {
    inner: RefCell<Inner>,
    /// There is an agent again.
    begun: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// By bridge.
    entries: BTreeMap<String, Entry>,
    sockets: Sockets,
}

#[derive(Debug)]
struct Entry {
    asked: Asked,
    /// None: counters alone.
    sampler: Option<Arc<Sampler>>,
    sub_agent: u32,
    agent: Agent,
    since: Instant,
    /// The last second, from `since` on, in which there was a look at counters.
    second: u64,
    /// The devices of ports, by index.
    devices: BTreeMap<u32, Device>,
    /// Datagrams that could not be sent, and when that was last said.
    lost: u64,
    said: Option<Instant>,
}

/// What the kernel says of a port's device.
#[derive(Debug)]
struct Device {
    speed: u64,
    full_duplex: Option<bool>,
    link: Link,
}

impl Sflow {
    /// Has agents for these bridges, and for no others. One that is told something else begins anew. True: the state has changed.
    pub fn follow(&self, asked: Vec<Asked>, links: &Links, state: &mut State) -> bool {
        let mut guard = self.inner.borrow_mut();
        let mut before = std::mem::take(&mut guard.entries);
        let mut sub_agents: Vec<u32> = before.values().map(|entry| entry.sub_agent).collect();
        for asked in asked {
            let same = |entry: &Entry| entry.asked.wish == asked.wish && entry.asked.address == asked.address;
            let name = asked.bridge.clone();
            let mut entry = match before.remove(&name) {
                Some(entry) if same(&entry) => Entry { asked, ..entry },
                other => {
                    let free = || (0..).find(|id| !sub_agents.contains(id)).unwrap_or_default();
                    let sub_agent = other.map_or_else(free, |entry| entry.sub_agent);
                    sub_agents.push(sub_agent);
                    tracing::info!("bridge {name}: creating sFlow agent {sub_agent} ({})", asked.address);
                    Entry::new(asked, sub_agent)
                }
            };
            entry.devices = state.bridges.get(&name).map(|b| devices(b, links)).unwrap_or_default();
            let Entry { agent, devices, .. } = &mut entry;
            agent.keep(|index| devices.contains_key(&index));
            guard.entries.insert(name, entry);
        }
        let mut changed = false;
        for (name, bridge) in &mut state.bridges {
            let sampler = guard.entries.get(name).and_then(|entry| entry.sampler.as_ref());
            if bridge.sampler.as_ref().map(Arc::as_ptr) != sampler.map(Arc::as_ptr) {
                bridge.sampler = sampler.cloned();
                changed = true;
            }
        }
        self.begun.notify_one();
        changed
    }

    /// Keeps the agents; does not return.
    pub async fn run(self: Rc<Self>, state: Rc<RefCell<State>>) {
        loop {
            if self.inner.borrow().entries.is_empty() {
                self.begun.notified().await;
            }
            self.turn(&state.borrow());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes datagrams of what there is, and sends them.
    fn turn(&self, state: &State) {
        let mut guard = self.inner.borrow_mut();
        let Inner { entries, sockets } = &mut *guard;
        for (name, entry) in entries {
            let Some(bridge) = state.bridges.get(name) else { continue };
            entry.look(bridge, state);
            for datagram in entry.agent.datagrams() {
                for target in &entry.asked.wish.targets {
                    if let Err(e) = sockets.send(&datagram, *target) {
                        entry.lost += 1;
                        if entry.said.is_none_or(|said| said.elapsed() > COMPLAIN) {
                            entry.said = Some(Instant::now());
                            let (lost, why) = (entry.lost, reason(&e));
                            tracing::warn!(
                                "bridge {name}: cannot send sFlow to {target}: {why} ({lost} datagrams lost)"
                            );
                        }
                    }
                }
            }
        }
    }
}

impl Entry {
    fn new(asked: Asked, sub_agent: u32) -> Entry {
        let Wish { rate, header, .. } = asked.wish;
        Entry {
            sampler: rate.map(|rate| Arc::new(Sampler::new(rate, header))),
            sub_agent,
            agent: Agent::new(asked.address, sub_agent, rate.unwrap_or(0)),
            asked,
            since: Instant::now(),
            second: 0,
            devices: BTreeMap::new(),
            lost: 0,
            said: None,
        }
    }

    /// Tells the agent what is new. Once a second what waits is to be sent.
    fn look(&mut self, bridge: &BridgeState, state: &State) {
        let now = self.since.elapsed();
        let samples = self.sampler.as_ref().map(|sampler| sampler.samples()).unwrap_or_default();
        if !samples.is_empty() {
            let ports: HashMap<PortId, (&String, &PortState)> =
                bridge.ports.iter().map(|(name, port)| (port.port.id, (name, port))).collect();
            for sample in &samples {
                self.agent.flow(&flow(sample, &ports, &self.asked.sources), now);
            }
        }
        if now.as_secs() == self.second {
            return;
        }
        let before = std::mem::replace(&mut self.second, now.as_secs());
        let interval = u64::from(self.asked.wish.polling);
        // each has its turn in another second
        let due =
            |place: u64| interval != 0 && (self.second + place) / interval != (before + place) / interval;
        if due(0) {
            self.agent.switch(&switch_counters(state), now);
        }
        for (place, (name, port)) in (1..).zip(&bridge.ports) {
            if let Some(device) = device_index(&port.attachment).and_then(|index| self.devices.get(&index))
                && due(place)
            {
                self.agent.port(&port_counters(name, port, device, self.asked.datapath_id), now);
            }
        }
        self.agent.flush(now);
    }
}

/// The devices of a bridge's ports, by index.
fn devices(bridge: &BridgeState, links: &Links) -> BTreeMap<u32, Device> {
    let indices = bridge.ports.values().filter_map(|port| device_index(&port.attachment));
    let device = |index: u32| {
        let link = links.by_index(index)?.clone();
        let running = ethtool::link(&link.name).ok();
        let speed = running.and_then(|l| l.speed).map_or(0, |mbps| u64::from(mbps) * 1_000_000);
        Some((index, Device { speed, full_duplex: running.and_then(|l| l.full_duplex), link }))
    };
    indices.filter_map(device).collect()
}

/// A sample in the words of the agent. A port of another bridge, behind a patch port, has no index here.
fn flow<'a>(
    sample: &'a Sample,
    ports: &HashMap<PortId, (&String, &PortState)>,
    sources: &BTreeMap<String, Ipv4Addr>,
) -> Flow<'a> {
    let index = |id| ports.get(&id).and_then(|(_, port)| device_index(&port.attachment)).unwrap_or(0);
    let tunnel = |id| ports.get(&id).and_then(|(name, port)| tunnel(port, sources.get(*name)));
    let fate = sample.fate;
    let output = fate.last.filter(|_| fate.copies == 1);
    let turned = |t: Tunnel| Tunnel { src: t.dst, dst: t.src, ..t };
    Flow {
        pool: sample.pool,
        drops: sample.drops,
        input: index(sample.from),
        copies: fate.copies,
        output: output.map_or(0, index),
        tags: [fate.came, fate.left],
        len: sample.len,
        header: &sample.header,
        came_by: tunnel(sample.from).map(|(sent, key)| Tunnel { key, tos: 0, ..turned(sent) }),
        left_by: output.and_then(tunnel).map(|(sent, _)| sent),
    }
}

/// The outer headers of what a tunnel sends, and the key of what it takes.
fn tunnel(port: &PortState, source: Option<&Ipv4Addr>) -> Option<(Tunnel, Option<u32>)> {
    let PortKind::Tunnel(tunnel) = &port.port.kind else { return None };
    let config = &tunnel.config;
    let (IpAddr::V4(dst), Some(src)) = (config.remote, source) else { return None };
    let (protocol, dst_port) = match config.in_udp {
        None => (proto::GRE, 0),
        Some(in_udp) => (proto::UDP, in_udp.port()),
    };
    let tos = match config.tos {
        Tos::Fixed(tos) => tos,
        Tos::Inherit => 0,
    };
    Some((Tunnel { protocol, src: *src, dst, dst_port, tos, key: config.out_key }, config.in_key))
}

/// From the switch's side, as column `statistics` has it.
fn port_counters(name: &str, port: &PortState, device: &Device, datapath_id: u64) -> PortCounters {
    let (sum, link) = (port.port.counters.sum(), &device.link);
    let lost = match &port.port.kind {
        PortKind::Local(local) => local.lost(),
        PortKind::Tunnel(_) | PortKind::Patch(_) => 0,
    };
    PortCounters {
        index: link.index,
        name: name.to_owned(),
        datapath_id,
        ofport: port.port.ofport,
        speed: device.speed,
        full_duplex: device.full_duplex,
        admin_up: link.up,
        oper_up: link.up && link.carrier,
        in_octets: sum.rx_bytes,
        in_packets: sum.rx_packets,
        in_multicast: sum.rx_multicast,
        in_discards: sum.rx_dropped.saturating_add(lost),
        in_errors: link.stats.rx_errors,
        out_octets: sum.tx_bytes,
        out_packets: sum.tx_packets,
        out_discards: sum.tx_dropped,
        out_errors: sum.tx_errors,
        alignment_errors: link.stats.rx_frame_err,
        fcs_errors: link.stats.rx_crc_err,
    }
}

/// Of the daemon and its datapath, as `dpctl/show` has it.
fn switch_counters(state: &State) -> SwitchCounters {
    let ports = state.bridges.values().flat_map(|bridge| bridge.ports.values());
    let real = ports.filter(|port| !matches!(port.port.kind, PortKind::Patch(_)));
    let (hits, lost) = real
        .map(|port| port.port.counters.sum())
        .fold((0, 0), |(hits, lost), sum| (hits + sum.rx_packets, lost + sum.rx_dropped));
    let (cpu_ms, memory) = usage().unwrap_or_default();
    SwitchCounters { cpu_ms, memory, hits, misses: 0, lost, flows: state.bridges.len() as u32 }
}

/// CPU time in milliseconds, and memory in bytes, of this process.
fn usage() -> Option<([u32; 2], u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // behind the program's name: user time is the 14th field of all, the state is the third
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let cpu = [ticks()?.wrapping_mul(TICK_MS), ticks()?.wrapping_mul(TICK_MS)];
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some((cpu, kib * 1024))
}

/// One socket for each version of IP, made when it is first needed. They are not connected, so that a collector that is away
/// for a while makes nothing fail.
#[derive(Debug, Default)]
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    fn send(&mut self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let (slot, any) = match to {
            SocketAddr::V4(_) => (&mut self.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (&mut self.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let socket = match slot {
            Some(socket) => socket,
            None => {
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_nonblocking(true)?;
                slot.insert(socket)
            }
        };
        socket.send_to(datagram, to).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let (_, memory) = usage().unwrap();
        assert!(memory > 100 * 1024, "{memory}");
    }

    #[test]
    fn datagrams_reach_both_kinds_of_address() {
        let mut sockets = Sockets::default();
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let collector = UdpSocket::bind(any).unwrap();
            let mut got = [0; 9];
            sockets.send(b"datagram", collector.local_addr().unwrap()).unwrap();
            assert_eq!(collector.recv(&mut got).unwrap(), 8);
        }
    }
}
