//! An sFlow agent (sflow.org, version 5), without I/O: samples and the time in, datagrams out.
//!
//! Which structures are sent, in which order and from which data sources, is as Open vSwitch has it, so that collectors that
//! know its bridges know ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::xdr::Xdr;

/// The most that a datagram carries, in bytes.
const MOST: usize = 1400;

/// Samples.
const FLOW_SAMPLE: u32 = 1;
const COUNTERS_SAMPLE: u32 = 2;

/// What is told of a sampled packet.
const RAW_HEADER: u32 = 1;
const EXTENDED_SWITCH: u32 = 1001;
const TUNNEL_EGRESS: u32 = 1023;
const TUNNEL_INGRESS: u32 = 1024;
const VNI_EGRESS: u32 = 1029;
const VNI_INGRESS: u32 = 1030;

/// What is told of a port, or of the switch.
const IF_COUNTERS: u32 = 1;
const ETHERNET_COUNTERS: u32 = 2;
const OPENFLOW_PORT: u32 = 1004;
const PORT_NAME: u32 = 1005;
const APP_RESOURCES: u32 = 2203;
const OVS_DP_STATS: u32 = 2207;

/// The switch as a source of data: a physical entity (class 2), of this number.
const SWITCH: u32 = 2 << 24 | 1000;
/// The header protocol of Ethernet.
const ETHERNET: u32 = 1;
/// The frame check sequence, which counts in a frame's length, and is not there.
const FCS: u32 = 4;
/// `ifType` ethernetCsmacd.
const ETHERNET_CSMACD: u32 = 6;
/// A counter that is not known.
const UNKNOWN: u32 = u32::MAX;
/// Output: dropped, for a reason that has no number.
const DISCARDED: u32 = 1 << 30 | 256;
/// Output: so many.
const SEVERAL: u32 = 1 << 31;

/// A packet that was sampled. Ports are interface indices; 0 for those that have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Packets that could have been sampled, up to this one.
    pub pool: u64,
    /// Samples that were lost, up to this one.
    pub drops: u64,
    /// Where it came in.
    pub input: u32,
    /// How many copies of it left.
    pub copies: u32,
    /// Where it left, if it was one.
    pub output: u32,
    /// Tag control information, as it came and as it left.
    pub tags: [u16; 2],
    /// In bytes, without the frame check sequence.
    pub len: u32,
    /// Its beginning.
    pub header: &'a [u8],
    /// The tunnel that it came by.
    pub came_by: Option<Tunnel>,
    /// The tunnel that it left by.
    pub left_by: Option<Tunnel>,
}

/// The outer headers of a tunnel over IPv4, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tunnel {
    pub protocol: u8,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub dst_port: u16,
    pub tos: u8,
    /// Key or VNI; None or 0 for none.
    pub key: Option<u32>,
}

/// What is counted of a port. Names are those of `if_counters` and `ethernet_counters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub index: u32,
    pub name: String,
    pub datapath_id: u64,
    pub ofport: u16,
    /// In bits a second.
    pub speed: u64,
    pub full_duplex: Option<bool>,
    pub admin_up: bool,
    pub oper_up: bool,
    pub in_octets: u64,
    pub in_packets: u64,
    pub in_multicast: u64,
    pub in_discards: u64,
    pub in_errors: u64,
    pub out_octets: u64,
    pub out_packets: u64,
    pub out_discards: u64,
    pub out_errors: u64,
    pub alignment_errors: u64,
    pub fcs_errors: u64,
}

/// What is counted of the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// CPU time used, in milliseconds: of the process itself, and of the kernel for it.
    pub cpu_ms: [u32; 2],
    /// Memory in use, in bytes.
    pub memory: u64,
    /// Packets received.
    pub hits: u64,
    /// Packets that no flow was known for.
    pub misses: u64,
    /// Packets received and not forwarded.
    pub lost: u64,
    /// Flows in the datapath.
    pub flows: u32,
}

/// The agent of one bridge.
#[derive(Debug)]
pub struct Agent {
    address: IpAddr,
    sub_agent: u32,
    rate: u32,
    datagrams: u32,
    flows: u32,
    /// Counter samples, by source.
    counters: BTreeMap<u32, u32>,
    /// Samples that wait, and how many they are.
    waiting: Vec<u8>,
    count: u32,
    ready: Vec<Vec<u8>>,
}

impl Agent {
    /// Samples one packet in `rate`. It goes by `address`, and by a number that tells it from others there.
    pub fn new(address: IpAddr, sub_agent: u32, rate: u32) -> Agent {
        Agent {
            address,
            sub_agent,
            rate,
            datagrams: 0,
            flows: 0,
            counters: BTreeMap::new(),
            waiting: Vec::new(),
            count: 0,
            ready: Vec::new(),
        }
    }

    /// A packet was sampled. Times count from the agent's beginning.
    pub fn flow(&mut self, flow: &Flow<'_>, now: Duration) {
        self.flows = self.flows.wrapping_add(1);
        let tunnels =
            [(flow.left_by, VNI_EGRESS, TUNNEL_EGRESS), (flow.came_by, VNI_INGRESS, TUNNEL_INGRESS)];
        let (mut records, mut count) = (Xdr::default(), 2);
        records.record(EXTENDED_SWITCH, |body| {
            for tag in flow.tags {
                body.u32(u32::from(tag & 0xfff)).u32(u32::from(tag >> 13));
            }
        });
        records.record(RAW_HEADER, |body| {
            body.u32(ETHERNET).u32(flow.len.saturating_add(FCS)).u32(FCS).opaque(flow.header);
        });
        for (tunnel, vni, addresses) in tunnels {
            let Some(tunnel) = tunnel else { continue };
            if let Some(key) = tunnel.key.filter(|key| *key != 0) {
                records.record(vni, |body| _ = body.u32(key));
                count += 1;
            }
            records.record(addresses, |body| tunnel.write(body));
            count += 1;
        }
        let output = match flow.copies {
            0 => DISCARDED,
            1 if flow.output != 0 => flow.output,
            several => SEVERAL | several,
        };
        let mut sample = Xdr::default();
        sample.record(FLOW_SAMPLE, |body| {
            body.u32(self.flows).u32(SWITCH).u32(self.rate).u32(flow.pool as u32).u32(flow.drops as u32);
            body.u32(flow.input).u32(output).u32(count).fixed(&records.0);
        });
        self.put(&sample.0, now);
    }

    /// What a port has counted by now.
    pub fn port(&mut self, port: &PortCounters, now: Duration) {
        self.counters_sample(port.index, 4, now, |records| {
            records.record(ETHERNET_COUNTERS, |body| {
                body.u32(port.alignment_errors as u32).u32(port.fcs_errors as u32);
                (0..11).for_each(|_| _ = body.u32(UNKNOWN));
            });
            records.record(OPENFLOW_PORT, |body| {
                body.u64(port.datapath_id).u32(u32::from(port.ofport));
            });
            records.record(PORT_NAME, |body| _ = body.opaque(port.name.as_bytes()));
            records.record(IF_COUNTERS, |body| port.write(body));
        });
    }

    /// Ports whose index `stands` does not know are gone, and what they were told of counts no more.
    pub fn keep(&mut self, stands: impl Fn(u32) -> bool) {
        self.counters.retain(|source, _| *source == SWITCH || stands(*source));
    }

    /// What the switch has counted by now.
    pub fn switch(&mut self, switch: &SwitchCounters, now: Duration) {
        let [user, system] = switch.cpu_ms;
        self.counters_sample(SWITCH, 2, now, |records| {
            records.record(APP_RESOURCES, |body| {
                // the most memory, descriptors, connections: not told, as by Open vSwitch
                body.u32(user).u32(system).u64(switch.memory).u64(0).u32(0).u32(0).u32(0).u32(0);
            });
            records.record(OVS_DP_STATS, |body| {
                body.u32(switch.hits as u32).u32(switch.misses as u32).u32(switch.lost as u32).u32(UNKNOWN);
                body.u32(switch.flows).u32(UNKNOWN);
            });
        });
    }

    fn counters_sample(&mut self, source: u32, count: u32, now: Duration, write: impl FnOnce(&mut Xdr)) {
        let number = self.counters.entry(source).or_default();
        *number = number.wrapping_add(1);
        let mut sample = Xdr::default();
        sample.record(COUNTERS_SAMPLE, |body| {
            body.u32(*number).u32(source).u32(count);
            write(body);
        });
        self.put(&sample.0, now);
    }

    /// Adds a sample to the datagram that is being filled.
    fn put(&mut self, sample: &[u8], now: Duration) {
        let header = if self.address.is_ipv4() { 28 } else { 40 };
        if self.count > 0 && header + self.waiting.len() + sample.len() > MOST {
            self.flush(now);
        }
        self.waiting.extend(sample);
        self.count += 1;
    }

    /// Nothing waits any longer.
    pub fn flush(&mut self, now: Duration) {
        if self.count == 0 {
            return;
        }
        self.datagrams = self.datagrams.wrapping_add(1);
        let mut datagram = Xdr::default();
        datagram.u32(5);
        match self.address {
            IpAddr::V4(address) => datagram.u32(1).fixed(&address.octets()),
            IpAddr::V6(address) => datagram.u32(2).fixed(&address.octets()),
        };
        datagram.u32(self.sub_agent).u32(self.datagrams).u32(now.as_millis() as u32).u32(self.count);
        datagram.fixed(&self.waiting);
        self.waiting.clear();
        self.count = 0;
        self.ready.push(datagram.0);
    }

    /// Takes the datagrams that are to be sent, to each collector.
    pub fn datagrams(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.ready)
    }
}

impl Tunnel {
    /// `sampled_ipv4`. Its length and source port differ from packet to packet, and are not told.
    fn write(&self, body: &mut Xdr) {
        body.u32(0).u32(u32::from(self.protocol)).fixed(&self.src.octets()).fixed(&self.dst.octets());
        body.u32(0).u32(u32::from(self.dst_port)).u32(0).u32(u32::from(self.tos));
    }
}

impl PortCounters {
    /// `if_counters`.
    fn write(&self, body: &mut Xdr) {
        let direction = match self.full_duplex {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        let status = u32::from(self.admin_up) | u32::from(self.oper_up) << 1;
        body.u32(self.index).u32(ETHERNET_CSMACD).u64(self.speed).u32(direction).u32(status);
        body.u64(self.in_octets).u32(self.in_packets as u32).u32(self.in_multicast as u32).u32(UNKNOWN);
        body.u32(self.in_discards as u32).u32(self.in_errors as u32).u32(UNKNOWN);
        body.u64(self.out_octets).u32(self.out_packets as u32).u32(UNKNOWN).u32(UNKNOWN);
        body.u32(self.out_discards as u32).u32(self.out_errors as u32);
        // promiscuous mode
        body.u32(0);
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
