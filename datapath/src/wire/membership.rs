//! Who wants to hear which multicast group: IGMP versions 1 to 3 (RFC 1112, 2236, 3376) and MLD versions 1 and 2 (RFC 2710,
//! 3810). What a switch reads of them (RFC 4541), and no more.
//!
//! ```text
//! IGMP 1, 2  |type|    |checksum|      group (4)      |
//! IGMP 3     |22  |    |checksum|    |records| then of each record |kind|aux|sources|   group (4)   | sources (4 each) | aux words |
//! MLD 1      |type|    |checksum|delay|    |          group (16)          |
//! MLD 2      |143 |    |checksum|    |records| then of each record |kind|aux|sources|   group (16)  | sources (16 each) | aux words |
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::{Sum, pseudo};
use super::parse::{Ip, Version};
use super::{get16, proto};

const IGMP_QUERY: u8 = 0x11;
const IGMP1_REPORT: u8 = 0x12;
const IGMP2_REPORT: u8 = 0x16;
const IGMP2_LEAVE: u8 = 0x17;
const IGMP3_REPORT: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLD1_REPORT: u8 = 131;
const MLD1_DONE: u8 = 132;
const MLD2_REPORT: u8 = 143;
/// Bytes of the shortest IGMP message, and in front of what MLD tells.
const HEADER: usize = 8;
/// Where IGMP versions 1 and 2 have their group.
const IGMP_GROUP: usize = 4;
/// Bytes of a record in front of its group.
const RECORD: usize = 4;
/// Kinds of records (RFC 3376 4.2.12, RFC 3810 5.2.12): MODE_IS_INCLUDE, CHANGE_TO_INCLUDE_MODE, the last.
const MODE_IS_INCLUDE: u8 = 1;
const CHANGE_TO_INCLUDE_MODE: u8 = 3;
const BLOCK_OLD_SOURCES: u8 = 6;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A router asks who hears what.
    Query,
    /// A host says what it hears, or hears no longer.
    Report,
    /// IGMP of a kind that is none of the above: other protocols of routers.
    Other,
}

/// What kind of message the packet is. None: it is none.
pub fn kind(frame: &[u8], ip: &Ip) -> Option<Kind> {
    if ip.later_fragment {
        return None;
    }
    let first = frame.get(ip.l4..ip.end).and_then(|message| message.first().copied());
    match (ip.version, ip.proto, first) {
        (Version::V4, proto::IGMP, Some(IGMP_QUERY)) => Some(Kind::Query),
        (Version::V4, proto::IGMP, Some(IGMP1_REPORT | IGMP2_REPORT | IGMP2_LEAVE | IGMP3_REPORT)) => {
            Some(Kind::Report)
        }
        (Version::V4, proto::IGMP, _) => Some(Kind::Other),
        (Version::V6, proto::ICMPV6, Some(MLD_QUERY)) => Some(Kind::Query),
        (Version::V6, proto::ICMPV6, Some(MLD1_REPORT | MLD1_DONE | MLD2_REPORT)) => Some(Kind::Report),
        _ => None,
    }
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// A router is where it came from. Not so when a switch asks in a router's stead, from no address (RFC 4541 2.1.1).
    Router,
    /// Somebody there hears groups, or no longer.
    Changes(Changes<'a>),
}

/// One group that somebody hears from now on, or no longer. IPv4 groups are mapped (RFC 4291 2.5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The group. Always a multicast address.
    pub group: Ipv6Addr,
    /// False: it is left.
    pub joins: bool,
}

/// The groups that a report tells of, one after the other. What is cut short is not among them.
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    /// From the next group or record on.
    rest: &'a [u8],
    version: Version,
    left: Left,
}

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// One group by itself.
    Group { joins: bool },
    /// So many records.
    Records(u16),
}

/// The destination of a packet, mapped if it is of IPv4.
pub fn destination(frame: &[u8], ip: &Ip) -> Option<Ipv6Addr> {
    let addresses = ip.addresses(frame);
    match ip.version {
        Version::V4 => addresses.last_chunk().map(|dst: &[u8; 4]| Ipv4Addr::from(*dst).to_ipv6_mapped()),
        Version::V6 => addresses.last_chunk().map(|dst: &[u8; 16]| Ipv6Addr::from(*dst)),
    }
}

/// Reads a message. None: it is none that matters, or its checksum is wrong.
pub fn read<'a>(frame: &'a [u8], ip: &Ip) -> Option<Message<'a>> {
    if ip.fragment {
        return None;
    }
    let message = frame.get(ip.l4..ip.end)?;
    let sum = match ip.version {
        Version::V4 => Sum::of(message),
        Version::V6 => pseudo(ip.addresses(frame), proto::ICMPV6, message.len()) + Sum::of(message),
    };
    if message.len() < HEADER || !sum.is_valid() {
        return None;
    }
    let asked_by_somebody = || {
        let addresses = ip.addresses(frame);
        addresses.get(..addresses.len() / 2).is_some_and(|src| src.iter().any(|b| *b != 0))
    };
    let changes = |left, at| {
        let rest = message.get(at..).unwrap_or_default();
        Some(Message::Changes(Changes { rest, version: ip.version, left }))
    };
    match (ip.version, ip.proto, *message.first()?) {
        (Version::V4, proto::IGMP, IGMP_QUERY) | (Version::V6, proto::ICMPV6, MLD_QUERY) => {
            asked_by_somebody().then_some(Message::Router)
        }
        (Version::V4, proto::IGMP, IGMP1_REPORT | IGMP2_REPORT) => {
            changes(Left::Group { joins: true }, IGMP_GROUP)
        }
        (Version::V4, proto::IGMP, IGMP2_LEAVE) => changes(Left::Group { joins: false }, IGMP_GROUP),
        (Version::V6, proto::ICMPV6, MLD1_REPORT) => changes(Left::Group { joins: true }, HEADER),
        (Version::V6, proto::ICMPV6, MLD1_DONE) => changes(Left::Group { joins: false }, HEADER),
        (Version::V4, proto::IGMP, IGMP3_REPORT) | (Version::V6, proto::ICMPV6, MLD2_REPORT) => {
            changes(Left::Records(get16(message, 6)?), HEADER)
        }
        _ => None,
    }
}

impl Changes<'_> {
    /// The address at the start of `bytes`, and how long it is.
    fn address(&self, bytes: &[u8]) -> Option<(Ipv6Addr, usize)> {
        match self.version {
            Version::V4 => bytes.first_chunk().map(|a: &[u8; 4]| (Ipv4Addr::from(*a).to_ipv6_mapped(), 4)),
            Version::V6 => bytes.first_chunk().map(|a: &[u8; 16]| (Ipv6Addr::from(*a), 16)),
        }
    }

    /// The next record's kind, how many sources it has, and its group.
    fn record(&mut self) -> Option<(u8, u16, Ipv6Addr)> {
        let (&[kind, aux, high, low], rest) = self.rest.split_first_chunk::<RECORD>()?;
        let sources = u16::from_be_bytes([high, low]);
        let (group, len) = self.address(rest)?;
        let skip = len * (1 + usize::from(sources)) + 4 * usize::from(aux);
        self.rest = rest.get(skip..).unwrap_or_default();
        Some((kind, sources, group))
    }
}

impl Iterator for Changes<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            let (group, joins) = match self.left {
                Left::Group { joins } => {
                    self.left = Left::Records(0);
                    (self.address(self.rest)?.0, joins)
                }
                Left::Records(0) => return None,
                Left::Records(n) => {
                    self.left = Left::Records(n - 1);
                    let (kind, sources, group) = self.record()?;
                    if !(MODE_IS_INCLUDE..=BLOCK_OLD_SOURCES).contains(&kind) {
                        continue;
                    }
                    // to include no source is to leave
                    let leaves = sources == 0 && matches!(kind, MODE_IS_INCLUDE | CHANGE_TO_INCLUDE_MODE);
                    (group, !leaves)
                }
            };
            if is_multicast(group) {
                return Some(Change { group, joins });
            }
        }
    }
}

/// Of IPv6, or mapped.
fn is_multicast(group: Ipv6Addr) -> bool {
    group.to_ipv4_mapped().map_or(group.is_multicast(), |v4| v4.is_multicast())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::parse;

    const HOST: [u8; 4] = [10, 0, 0, 7];
    const HOST6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

    fn v4(src: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = Sum::of(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2([2; 6], [1, 0, 0x5e, 0, 0, 1]).ipv4(src, [224, 0, 0, 22], 1);
        ip.write(&mut frame, etherparse::IpNumber(proto::IGMP), &message).unwrap();
        frame
    }

    /// Behind a hop-by-hop header with a router alert, as MLD is sent.
    fn v6(src: [u8; 16], message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let dst = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
        let sum = pseudo(&[src, dst].concat(), proto::ICMPV6, message.len()) + Sum::of(&message);
        message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let len = (message.len() + 8) as u16;
        let mut frame = [&[0x33, 0x33, 0, 0, 0, 0x16][..], &[2; 6], &[0x86, 0xdd], &[0x60, 0, 0, 0]].concat();
        frame.extend(len.to_be_bytes());
        frame.extend([0, 1]);
        frame.extend([src, dst].concat());
        frame.extend([proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
        frame.extend(message);
        frame
    }

    fn told(frame: &[u8]) -> Option<Vec<(String, bool)>> {
        let ip = parse(frame)?.ip?;
        match read(frame, &ip)? {
            Message::Router => Some(vec![("router".into(), true)]),
            Message::Changes(changes) => Some(
                changes
                    .map(|c| {
                        (c.group.to_ipv4_mapped().map_or(c.group.to_string(), |g| g.to_string()), c.joins)
                    })
                    .collect(),
            ),
        }
    }

    fn of(frame: &[u8]) -> Option<Kind> {
        kind(frame, &parse(frame)?.ip?)
    }

    fn one(group: &str, joins: bool) -> Option<Vec<(String, bool)>> {
        Some(vec![(group.to_owned(), joins)])
    }

    #[test]
    fn igmp() {
        let group = [239, 1, 2, 3];
        for (kind, what, joins) in [(0x12, "joins", true), (0x16, "joins", true), (0x17, "leaves", false)] {
            let frame = v4(HOST, &[&[kind, 0, 0, 0][..], &group].concat());
            assert_eq!((of(&frame), told(&frame)), (Some(Kind::Report), one("239.1.2.3", joins)), "{what}");
        }
        let query = [0x11, 100, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            (of(&v4(HOST, &query)), told(&v4(HOST, &query))),
            (Some(Kind::Query), one("router", true))
        );
        assert_eq!((of(&v4([0; 4], &query)), told(&v4([0; 4], &query))), (Some(Kind::Query), None));
        // PIM version 1, and nothing at all
        assert_eq!(of(&v4(HOST, &[0x14, 0, 0, 0, 0, 0, 0, 0])), Some(Kind::Other));
        assert_eq!(told(&v4(HOST, &[0x14, 0, 0, 0, 0, 0, 0, 0])), None);
        // somebody who is no group
        assert_eq!(told(&v4(HOST, &[0x16, 0, 0, 0, 10, 0, 0, 1])), Some(vec![]));
        let mut wrong = v4(HOST, &[&[0x16, 0, 0, 0][..], &group].concat());
        wrong[36] ^= 1;
        assert_eq!((of(&wrong), told(&wrong)), (Some(Kind::Report), None));
    }

    #[test]
    fn igmp_3_and_mld_2() {
        let record = |kind, aux: u8, sources: u8, group: &[u8], size: usize| {
            let more = vec![9; size * usize::from(sources) + 4 * usize::from(aux)];
            [&[kind, aux, 0, sources][..], group, &more].concat()
        };
        let kinds = [(1, 0), (1, 1), (2, 0), (3, 0), (3, 2), (4, 0), (5, 1), (6, 1), (7, 0), (0, 1)];
        let joins = [false, true, true, false, true, true, true, true];
        let mut frames = Vec::new();
        for v6_too in [false, true] {
            let mut message = vec![if v6_too { 143 } else { 0x22 }, 0, 0, 0, 0, 0, 0, kinds.len() as u8];
            for (i, (kind, sources)) in kinds.into_iter().enumerate() {
                let i = i as u8;
                let group6 = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, i];
                let group: &[u8] = if v6_too { &group6 } else { &[239, 0, 0, i] };
                message.extend(record(kind, i % 3, sources, group, group.len()));
            }
            frames.push(if v6_too { v6(HOST6, &message) } else { v4(HOST, &message) });
        }
        let name = |i: usize, v6| {
            if v6 { format!("ff0e::{i:x}").replace("::0", "::") } else { format!("239.0.0.{i}") }
        };
        for (frame, v6) in frames.iter().zip([false, true]) {
            let want: Vec<_> = joins.iter().enumerate().map(|(i, joins)| (name(i, v6), *joins)).collect();
            assert_eq!((of(frame), told(frame)), (Some(Kind::Report), Some(want)));
        }
    }

    #[test]
    fn mld() {
        let group = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        for (kind, joins) in [(131, true), (132, false)] {
            let frame = v6(HOST6, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat());
            assert_eq!((of(&frame), told(&frame)), (Some(Kind::Report), one("ff0e::9", joins)));
        }
        let query = [&[130, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        assert_eq!(told(&v6(HOST6, &query)), one("router", true));
        assert_eq!((of(&v6([0; 16], &query)), told(&v6([0; 16], &query))), (Some(Kind::Query), None));
        // an echo request
        assert_eq!(of(&v6(HOST6, &[128, 0, 0, 0, 0, 0, 0, 0])), None);
    }

    proptest! {
        /// However long a report is said to be, what is told of it stood in it.
        #[test]
        fn no_more_than_there_is(records in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
            let head = [if six { 143 } else { 0x22 }, 0, 0, 0, 0, 0];
            let message = [&head[..], &records.to_be_bytes(), &body].concat();
            let frame = if six { v6(HOST6, &message) } else { v4(HOST, &message) };
            let told = told(&frame).unwrap();
            let least = if six { 20 } else { 8 };
            prop_assert!(told.len() <= body.len() / least && told.len() <= usize::from(records));
        }

        #[test]
        fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..200), proto in prop_oneof![Just(2u8), Just(58), any::<u8>()],
                     six in any::<bool>()) {
            for (at, value) in if six { [(12, 0x86), (13, 0xdd), (14, 0x60), (20, proto)] } else { [(12, 8), (13, 0), (14, 0x45), (23, proto)] } {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = (of(&frame), told(&frame));
        }
    }
}
