//! Datagrams against those that Open vSwitch 3.1 sent, captured on the wire, and against a reader of their structure.

use proptest::prelude::*;

use super::*;

/// A packet that an access port of VLAN 10 gave, flooded to three ports; and all counters.
const PORTS_AND_SWITCH: &str = "\
    0000000500000001c00002010000000000000001000003e800000006000000010000008c00000001020003e800000001\
    0000000100000000000000028000000300000002000003e90000001000000000000000000000000a0000000000000001\
    0000004c0000000100000040000000040000003cffffffffffff02000000000188b55a5a5a5a5a5a5a5a5a5a5a5a5a5a\
    5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a000000020000005c00000001020003e8\
    000000020000089b00000028000000330000003700000000011ab0000000000000000000000000000000000000000000\
    000000000000089f00000018000000020000001000000000ffffffff00000007ffffffff00000002000000cc00000001\
    000000070000000400000002000000340000000000000000ffffffffffffffffffffffffffffffffffffffffffffffff\
    ffffffffffffffffffffffffffffffffffffffff000003ec0000000c00006eb57d30004c0000fffe000003ed00000008\
    00000003627230000000000100000058000000070000000600000002540be40000000001000000000000000000000000\
    0000000000000000ffffffff0000000000000000ffffffff000000000000000000000000ffffffffffffffff00000008\
    000000000000000000000002000000cc00000001000000040000000400000002000000340000000000000000ffffffff\
    ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff000003ec0000000c\
    00006eb57d30004c00000002000003ed0000000800000002703300000000000100000058000000040000000600000002\
    540be400000000010000000300000000000000c40000000300000000ffffffff0000000300000000ffffffff00000000\
    0000071c00000005ffffffffffffffff00000000000000000000000000000002000000cc000000010000000300000004\
    00000002000000340000000000000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
    ffffffffffffffffffffffff000003ec0000000c00006eb57d30004c00000001000003ed000000080000000270320000\
    0000000100000058000000030000000600000002540be4000000000100000003000000000000012c0000000500000000\
    ffffffff0000000000000000ffffffff00000000000008e60000000dffffffffffffffff000000000000000000000000\
    00000002000000cc00000001000000020000000400000002000000340000000000000000ffffffffffffffffffffffff\
    ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff000003ec0000000c00006eb57d30004c\
    00000003000003ed0000000800000002703100000000000100000058000000020000000600000002540be40000000001\
    0000000300000000000008220000000a00000000ffffffff0000000200000000ffffffff000000000000013c00000005\
    ffffffffffffffff000000000000000000000000\
";

/// A packet, by an agent that has an IPv6 address.
const OVER_IPV6: &str = "\
    000000050000000220010db80000000000000000000000010000000000000001000003e800000001000000010000008c\
    00000001020003e8000000010000000100000000000000028000000500000002000003e9000000100000000000000000\
    0000000000000000000000010000004c0000000100000040000000040000003cffffffffffff02000000000188b55a5a\
    5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\
";

/// Packets to and fro through a GRE tunnel without a key.
const THROUGH_GRE: &str = "\
    0000000500000001c00002010000000000000001000007d00000000200000001000000b400000001020003e800000001\
    0000000100000000000000008000000500000003000003e9000000100000000000000000000000000000000000000001\
    0000004c0000000100000040000000040000003c02000000000102000000000488b55a5a5a5a5a5a5a5a5a5a5a5a5a5a\
    5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a0000040000000020000000000000002f\
    c6336402c63364010000000000000000000000000000000000000001000000b400000002020003e80000000100000002\
    00000000000000028000000100000003000003e90000001000000000000000000000000000000000000000010000004c\
    0000000100000040000000040000003c02000000000402000000000188b55a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\
    5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a000003ff00000020000000000000002fc6336401\
    c633640200000000000000000000000000000000\
";

const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SECOND: Duration = Duration::from_secs(1);
const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    [&dst[..], &src, &[0x88, 0xb5], &[0x5a; 46]].concat()
}

/// Flooded without a tag.
fn flooded(header: &[u8]) -> Flow<'_> {
    Flow {
        pool: 1,
        drops: 0,
        input: 2,
        copies: 3,
        output: 0,
        tags: [0, 0],
        len: 60,
        header,
        came_by: None,
        left_by: None,
    }
}

fn hex(datagrams: &[Vec<u8>]) -> String {
    datagrams.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn ports_and_the_switch_as_open_vswitch_tells_them() {
    let mut agent = Agent::new(AGENT, 0, 1);
    let header = frame([0xff; 6], [2, 0, 0, 0, 0, 1]);
    agent.flow(&Flow { tags: [0, 10], ..flooded(&header) }, SECOND);
    let switch =
        SwitchCounters { cpu_ms: [0x33, 0x37], memory: 0x11a_b000, hits: 2, misses: 16, lost: 0, flows: 7 };
    agent.switch(&switch, SECOND);
    let port = |index, name: &str, ofport| PortCounters {
        index,
        name: name.into(),
        datapath_id: 0x6eb5_7d30_004c,
        ofport,
        speed: 10_000_000_000,
        full_duplex: Some(true),
        admin_up: index != 7,
        oper_up: index != 7,
        ..PortCounters::default()
    };
    let counted = [
        PortCounters { out_discards: 8, ..port(7, "br0", 65534) },
        PortCounters {
            in_octets: 196,
            in_packets: 3,
            in_discards: 3,
            out_octets: 1820,
            out_packets: 5,
            ..port(4, "p3", 2)
        },
        PortCounters { in_octets: 300, in_packets: 5, out_octets: 2278, out_packets: 13, ..port(3, "p2", 1) },
        PortCounters {
            in_octets: 2082,
            in_packets: 10,
            in_discards: 2,
            out_octets: 316,
            out_packets: 5,
            ..port(2, "p1", 3)
        },
    ];
    counted.iter().for_each(|port| agent.port(port, SECOND));
    agent.flush(SECOND);
    assert_eq!(hex(&agent.datagrams()), PORTS_AND_SWITCH);
}

#[test]
fn an_agent_with_an_ipv6_address() {
    let mut agent = Agent::new("2001:db8::1".parse().unwrap(), 0, 1);
    let header = frame([0xff; 6], [2, 0, 0, 0, 0, 1]);
    agent.flow(&Flow { copies: 5, ..flooded(&header) }, SECOND);
    agent.flush(SECOND);
    assert_eq!(hex(&agent.datagrams()), OVER_IPV6);
}

#[test]
fn tunnels_as_open_vswitch_tells_them() {
    let mut agent = Agent::new(AGENT, 0, 1);
    let sent = Tunnel { protocol: 47, src: HERE, dst: THERE, dst_port: 0, tos: 0, key: None };
    let (one, four) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 4]);
    let (came, left) = (frame(one, four), frame(four, one));
    let received = Tunnel { src: THERE, dst: HERE, ..sent };
    agent.flow(&Flow { input: 0, copies: 5, came_by: Some(received), ..flooded(&came) }, SECOND);
    agent.flow(&Flow { pool: 2, copies: 1, left_by: Some(sent), ..flooded(&left) }, SECOND);
    agent.flush(2 * SECOND);
    assert_eq!(hex(&agent.datagrams()), THROUGH_GRE);
    // key and VNI have structures of their own, in front of the addresses
    let vxlan = Tunnel { protocol: 17, dst_port: 4789, key: Some(99), ..sent };
    agent.flow(&Flow { copies: 1, left_by: Some(vxlan), ..flooded(&left) }, SECOND);
    agent.flush(SECOND);
    let egress = "000004050000000400000063\
                  000003ff000000200000000000000011c6336401c633640200000000000012b50000000000000000";
    assert!(hex(&agent.datagrams()).ends_with(egress));
}

/// Reads words of a datagram.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn word(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn record(&mut self) -> (u32, Reader<'a>) {
        let (format, len) = (self.word(), self.word() as usize);
        assert_eq!(len % 4, 0, "format {format}");
        (format, Reader(self.take(len)))
    }
}

proptest! {
    /// Whatever is sampled: each datagram is no longer than it may be, has as many samples as it says, of as many records as
    /// they say, and nothing is lost or told twice.
    #[test]
    fn datagrams_are_whole(
        v6 in any::<bool>(),
        flows in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..=1024), 0u32..4, any::<[bool; 2]>(), any::<Option<u32>>()), 0..60),
        ports in 0u32..40,
    ) {
        let address = if v6 { "2001:db8::1".parse().unwrap() } else { AGENT };
        let mut agent = Agent::new(address, 3, 64);
        for (header, copies, [came, left], key) in &flows {
            let tunnel = Tunnel { protocol: 47, src: HERE, dst: THERE, dst_port: 0, tos: 0, key: *key };
            let (came_by, left_by) = (came.then_some(tunnel), left.then_some(tunnel));
            agent.flow(&Flow { copies: *copies, came_by, left_by, ..flooded(header) }, SECOND);
        }
        for index in 1..=ports {
            let name = "p".repeat(index as usize % 16);
            agent.port(&PortCounters { index, name, ..PortCounters::default() }, SECOND);
        }
        agent.switch(&SwitchCounters::default(), SECOND);
        agent.flush(SECOND);
        let (mut flow_numbers, mut told) = (0, 0);
        for (number, datagram) in (1..).zip(agent.datagrams()) {
            prop_assert!(datagram.len() <= MOST, "{}", datagram.len());
            let mut words = Reader(&datagram);
            prop_assert_eq!((words.word(), words.word()), (5, if v6 { 2 } else { 1 }));
            words.take(if v6 { 16 } else { 4 });
            prop_assert_eq!((words.word(), words.word(), words.word()), (3, number, 1000));
            for _ in 0..words.word() {
                let (format, mut sample) = words.record();
                let sequence = sample.word();
                let of_flow = format == FLOW_SAMPLE;
                match format {
                    FLOW_SAMPLE => {
                        flow_numbers += 1;
                        prop_assert_eq!((sequence, sample.word(), sample.word()), (flow_numbers, SWITCH, 64));
                        sample.take(16);
                    }
                    _ => {
                        told += 1;
                        prop_assert_eq!((format, sequence), (COUNTERS_SAMPLE, 1));
                        sample.word();
                    }
                }
                for _ in 0..sample.word() {
                    let (format, mut record) = sample.record();
                    if of_flow && format == RAW_HEADER {
                        record.take(12);
                        let header = &flows[flow_numbers as usize - 1].0;
                        prop_assert_eq!(record.word() as usize, header.len());
                        prop_assert_eq!(record.take(header.len()), &header[..]);
                    }
                }
                prop_assert!(sample.0.is_empty());
            }
            prop_assert!(words.0.is_empty());
        }
        prop_assert_eq!((flow_numbers as usize, told), (flows.len(), ports + 1));
    }
}

#[test]
fn ports_that_are_gone_take_no_memory() {
    let mut agent = Agent::new(AGENT, 0, 1);
    agent.switch(&SwitchCounters::default(), SECOND);
    for index in 1..100 {
        agent.port(&PortCounters { index, ..PortCounters::default() }, SECOND);
        agent.keep(|stands| stands == index);
    }
    assert_eq!(agent.counters.keys().copied().collect::<Vec<_>>(), [99, SWITCH]);
}
