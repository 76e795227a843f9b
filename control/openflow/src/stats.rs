//! Answers: features, and statistics of every kind.

use crate::error::{NICIRA, Refusal};
use crate::flows::{self, FlowQuestion};
use crate::ports;
use crate::request::{About, Question};
use crate::view::{Bridge, PortNo};
use crate::wire::{Parts, Version, Writer};

/// How many tables Open vSwitch has; all but the first are empty.
const TABLES: u8 = 254;
/// How many flows it says that each takes.
const MAX_FLOWS: u32 = 1_000_000;
/// FLOW_STATS, TABLE_STATS, PORT_STATS, QUEUE_STATS, and ARP_MATCH_IP (1.0) or GROUP_STATS (1.3).
const CAPABILITIES: [u32; 2] = [0xc7, 0x4f];
/// The actions of OpenFlow 1.0, from output to enqueue.
const ACTIONS: u32 = 0xfff;
/// Statistics of an experimenter.
const EXPERIMENTER: u16 = 0xffff;

const FEATURES_REPLY: u8 = 6;

/// A reply to statistics of which there is one part.
pub(crate) fn reply(version: Version, xid: u32, stat: u16, body: Writer) -> Vec<u8> {
    Writer::new().u16(stat).u16(0).bytes(&body.into_bytes()).message(
        version.number(),
        reply_kind(version),
        xid,
    )
}

fn reply_kind(version: Version) -> u8 {
    match version {
        Version::V10 => 17,
        Version::V13 => 19,
    }
}

pub(crate) fn answer(question: &Question, bridge: &Bridge) -> Result<Vec<u8>, Refusal> {
    let (version, xid) = (question.version, question.xid);
    let padding = if version == Version::V13 { 4 } else { 0 };
    let parts = |stat| Parts::new(version, reply_kind(version), xid, stat, vec![0; padding]);
    let all = |stat, items: &mut dyn Iterator<Item = Writer>| {
        let mut parts = parts(stat);
        items.for_each(|item| parts.push(item));
        parts.finish()
    };
    Ok(match &question.about {
        About::Features => features(version, xid, bridge),
        About::Description => all(0, &mut std::iter::once(description(bridge))),
        About::Flow(q) => flow(version, xid, q, bridge),
        About::Aggregate(q) => aggregate(version, xid, q, bridge),
        About::Table => all(3, &mut (0..TABLES).map(|id| table(version, id, bridge))),
        About::TableFeatures => all(12, &mut (0..TABLES).map(table_features)),
        About::PortStats(which) => {
            let meant = bridge.ports.iter().filter(|p| which.is_none_or(|n| n == p.number));
            all(4, &mut meant.map(|p| ports::counters(version, p)))
        }
        About::PortDescription => all(13, &mut bridge.ports.iter().map(|p| ports::description(version, p))),
        About::Queue(which) => {
            has_port(*which, bridge)?;
            all(5, &mut std::iter::empty())
        }
        About::QueueConfig(which) => queue_config(version, xid, *which, bridge)?,
    })
}

/// There are no queues; a port that is named must be there all the same.
fn has_port(which: Option<PortNo>, bridge: &Bridge) -> Result<(), Refusal> {
    match which {
        Some(number) if bridge.port(number).is_none() => Err(Refusal::QueuePort),
        _ => Ok(()),
    }
}

fn queue_config(
    version: Version,
    xid: u32,
    which: Option<PortNo>,
    bridge: &Bridge,
) -> Result<Vec<u8>, Refusal> {
    has_port(which, bridge)?;
    Ok(match version {
        Version::V10 => Writer::new().u16(which.ok_or(Refusal::QueuePort)?).zeros(6).message(1, 21, xid),
        Version::V13 => {
            Writer::new().u32(ports::wide(which.unwrap_or(ports::NONE))).zeros(4).message(4, 23, xid)
        }
    })
}

/// In OpenFlow 1.0 with the ports. Those that it has no room for are left out, and `ovs-ofctl`, which sees that there could be
/// more, asks for their descriptions.
fn features(version: Version, xid: u32, bridge: &Bridge) -> Vec<u8> {
    let w = Writer::new().u64(bridge.datapath_id).u32(0).u8(TABLES);
    match version {
        Version::V10 => {
            let w = w.zeros(3).u32(CAPABILITIES[0]).u32(ACTIONS);
            let room = (usize::from(u16::MAX) - 32) / 48;
            let ports = bridge.ports.iter().take(room).map(|p| ports::description(version, p));
            ports.fold(w, |w, port| w.bytes(&port.into_bytes())).message(1, FEATURES_REPLY, xid)
        }
        Version::V13 => w.zeros(3).u32(CAPABILITIES[1]).u32(0).message(4, FEATURES_REPLY, xid),
    }
}

fn description(bridge: &Bridge) -> Writer {
    Writer::new()
        .text("Nicira, Inc.", 256)
        .text("Open vSwitch", 256)
        .text(&bridge.software, 256)
        .text(&bridge.serial, 32)
        .text(&bridge.description, 256)
}

fn flow(version: Version, xid: u32, question: &FlowQuestion, bridge: &Bridge) -> Vec<u8> {
    let (stat, head) = match (version, question.nxm) {
        (_, true) => (EXPERIMENTER, Writer::new().u32(NICIRA).u32(0).zeros(4)),
        (Version::V10, false) => (1, Writer::new()),
        (Version::V13, false) => (1, Writer::new().zeros(4)),
    };
    let mut parts = Parts::new(version, reply_kind(version), xid, stat, head.into_bytes());
    if question.matches() {
        parts.push(match (version, question.nxm) {
            (_, true) => flows::nxm(&bridge.flow),
            (Version::V10, false) => flows::v10(&bridge.flow),
            (Version::V13, false) => flows::v13(&bridge.flow),
        });
    }
    parts.finish()
}

fn aggregate(version: Version, xid: u32, question: &FlowQuestion, bridge: &Bridge) -> Vec<u8> {
    let (packets, bytes, flows) =
        if question.matches() { (bridge.flow.packets, bridge.flow.bytes, 1) } else { (0, 0, 0) };
    let (stat, head) = match (version, question.nxm) {
        (_, true) => (EXPERIMENTER, Writer::new().u32(NICIRA).u32(1).zeros(4)),
        (Version::V10, false) => (2, Writer::new()),
        (Version::V13, false) => (2, Writer::new().zeros(4)),
    };
    reply(version, xid, stat, head.u64(packets).u64(bytes).u32(flows).zeros(4))
}

/// Every packet is looked up in the first table, and matches.
fn table(version: Version, id: u8, bridge: &Bridge) -> Writer {
    /// Every field of OpenFlow 1.0 may be a wildcard.
    const WILDCARDS: u32 = 0x3f_ffff;
    let (active, packets) = if id == 0 { (1, bridge.flow.packets) } else { (0, 0) };
    let w = Writer::new().u8(id).zeros(3);
    let w = match version {
        Version::V10 => w.zeros(32).u32(WILDCARDS).u32(MAX_FLOWS),
        Version::V13 => w,
    };
    w.u32(active).u64(packets).u64(packets)
}

/// What this table could do: send packets on. The properties that must be there are, and most are empty.
fn table_features(id: u8) -> Writer {
    const LENGTH: u16 = 64 + 8 * 8;
    let w = Writer::new().u16(LENGTH).u8(id).zeros(5 + 32 + 16).u32(0).u32(MAX_FLOWS);
    // INSTRUCTIONS: apply actions. APPLY_ACTIONS: output
    let w = w.u16(0).u16(8).u16(4).u16(4);
    let empty = |w: Writer, kind| w.u16(kind).u16(4).zeros(4);
    let w = empty(empty(w, 2), 4).u16(6).u16(8).u16(0).u16(4);
    // MATCH, WILDCARDS, WRITE_SETFIELD, APPLY_SETFIELD
    [8, 10, 12, 14].into_iter().fold(w, empty)
}
