//! What a child SA is for, and the traffic selectors that say so (RFC 7296 2.9).

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::wire::TrafficSelector;

/// IP protocols.
const GRE: u8 = 47;
const UDP: u8 = 17;
const ANY: RangeInclusive<u16> = 0..=u16::MAX;

/// One kind of packets between two hosts, as this host sees it. What is UDP takes two child SAs, as it does with Open
/// vSwitch: each of them has one port that is known, and any at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// GRE.
    Gre,
    /// UDP from any port to this one of the peer.
    UdpOut(u16),
    /// UDP from any port of the peer to this one of ours.
    UdpIn(u16),
}

/// The two ends of a child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// This host.
    Local,
    /// The peer.
    Remote,
}

impl Selector {
    /// Its selector for an end that has this address.
    pub(crate) fn at(self, end: End, ip: IpAddr) -> TrafficSelector {
        let (start_port, end_port) = self.ports(end).into_inner();
        TrafficSelector { protocol: self.protocol(), start_port, end_port, start: ip, end: ip }
    }

    /// It at one end, out of what the peer offers. None: it offers less, or something else. Behind a NAT the peer knows that
    /// end's address by another name, which it gets back (RFC 7296 2.23.1).
    pub(crate) fn narrow(
        self,
        offered: &[TrafficSelector],
        end: End,
        ip: IpAddr,
        translated: bool,
    ) -> Option<TrafficSelector> {
        let ports = self.ports(end);
        let mut fitting = offered.iter().filter(|ts| {
            (ts.protocol == 0 || ts.protocol == self.protocol())
                && ts.start_port <= *ports.start()
                && ts.end_port >= *ports.end()
        });
        let holds =
            |ts: &TrafficSelector| ts.start <= ip && ip <= ts.end && ts.start.is_ipv4() == ip.is_ipv4();
        if fitting.clone().any(holds) {
            return Some(self.at(end, ip));
        }
        fitting
            .find(|ts| translated && ts.start == ts.end && ts.start.is_ipv4() == ip.is_ipv4())
            .map(|ts| self.at(end, ts.start))
    }

    /// Whether the peer has granted just that at one end. Behind a NAT it may write the address that it knows: strongSwan
    /// does.
    pub(crate) fn is_granted(
        self,
        granted: &[TrafficSelector],
        end: End,
        ip: IpAddr,
        translated: bool,
    ) -> bool {
        let one = |ts: &TrafficSelector| {
            *ts == self.at(end, ip)
                || translated && *ts == self.at(end, ts.start) && ts.start.is_ipv4() == ip.is_ipv4()
        };
        !granted.is_empty() && granted.iter().all(one)
    }

    /// As strongSwan writes protocol and port of an end: `gre`, `udp/4789`.
    pub fn at_local(self) -> String {
        words(self.protocol(), self.ports(End::Local))
    }

    /// The other end, likewise.
    pub fn at_remote(self) -> String {
        words(self.protocol(), self.ports(End::Remote))
    }

    fn protocol(self) -> u8 {
        match self {
            Selector::Gre => GRE,
            Selector::UdpOut(_) | Selector::UdpIn(_) => UDP,
        }
    }

    fn ports(self, end: End) -> RangeInclusive<u16> {
        match (self, end) {
            (Selector::UdpIn(port), End::Local) | (Selector::UdpOut(port), End::Remote) => port..=port,
            (Selector::Gre, _) | (Selector::UdpIn(_), End::Remote) | (Selector::UdpOut(_), End::Local) => ANY,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Gre => f.write_str("GRE"),
            Selector::UdpOut(port) => write!(f, "UDP to its port {port}"),
            Selector::UdpIn(port) => write!(f, "UDP to our port {port}"),
        }
    }
}

/// Selectors as strongSwan writes them.
pub(crate) fn list(selectors: &[TrafficSelector]) -> String {
    let one = |ts: &TrafficSelector| {
        let addresses =
            if ts.start == ts.end { ts.start.to_string() } else { format!("{}..{}", ts.start, ts.end) };
        match words(ts.protocol, ts.start_port..=ts.end_port) {
            words if words.is_empty() => addresses,
            words => format!("{addresses}[{words}]"),
        }
    };
    if selectors.is_empty() {
        "nothing".to_owned()
    } else {
        selectors.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

fn words(protocol: u8, ports: RangeInclusive<u16>) -> String {
    let protocol = match protocol {
        0 if ports == ANY => return String::new(),
        0 => "any".to_owned(),
        GRE => "gre".to_owned(),
        UDP => "udp".to_owned(),
        other => other.to_string(),
    };
    match ports.into_inner() {
        (0, u16::MAX) => protocol,
        (start, end) if start == end => format!("{protocol}/{start}"),
        (start, end) => format!("{protocol}/{start}-{end}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VXLAN: Selector = Selector::UdpIn(4789);

    fn ts(protocol: u8, start: &str, end: &str) -> TrafficSelector {
        let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
        TrafficSelector { protocol, start_port: 0, end_port: 65535, start, end }
    }

    fn ported(start_port: u16, end_port: u16) -> TrafficSelector {
        TrafficSelector { start_port, end_port, ..ts(17, "10.9.0.1", "10.9.0.1") }
    }

    #[test]
    fn offers_are_narrowed_to_gre_between_two_hosts() {
        let ip: IpAddr = "10.9.0.1".parse().unwrap();
        let wanted = Some(Selector::Gre.at(End::Local, ip));
        let same = ts(47, "10.9.0.1", "10.9.0.1");
        let cases = [
            (vec![same], wanted),
            // what strongSwan sends for a trap: the packet's, then the policy's
            (vec![same, same], wanted),
            (vec![ts(0, "0.0.0.0", "255.255.255.255")], wanted),
            (vec![ts(47, "10.9.0.0", "10.9.0.255")], wanted),
            (vec![ts(17, "10.9.0.1", "10.9.0.1"), same], wanted),
            (vec![ts(17, "10.9.0.1", "10.9.0.1")], None),
            (vec![ts(47, "10.9.0.2", "10.9.0.2")], None),
            (vec![ts(47, "::", "ffff::")], None),
            (vec![TrafficSelector { end_port: 7, ..same }], None),
            (vec![TrafficSelector { start_port: 1, ..same }], None),
            (vec![], None),
        ];
        for (offered, granted) in cases {
            assert_eq!(Selector::Gre.narrow(&offered, End::Local, ip, false), granted, "{}", list(&offered));
        }
    }

    #[test]
    fn udp_has_a_port_at_one_end_and_any_at_the_other() {
        let ip: IpAddr = "10.9.0.1".parse().unwrap();
        let (any, port) = (ported(0, 65535), ported(4789, 4789));
        let cases = [
            (End::Local, vec![port], Some(port)),
            (End::Local, vec![any], Some(port)),
            (End::Local, vec![ported(4000, 5000)], Some(port)),
            (End::Local, vec![ported(4789, 4788)], None),
            (End::Local, vec![ported(6081, 6081)], None),
            (End::Local, vec![ts(47, "10.9.0.1", "10.9.0.1")], None),
            // the packet's own port is not enough: others are to pass, too
            (End::Remote, vec![ported(50_000, 50_000)], None),
            (End::Remote, vec![ported(50_000, 50_000), any], Some(any)),
            (End::Remote, vec![ts(0, "10.9.0.1", "10.9.0.1")], Some(any)),
        ];
        for (end, offered, granted) in cases {
            assert_eq!(VXLAN.narrow(&offered, end, ip, false), granted, "{end:?} {}", list(&offered));
        }
        assert!(VXLAN.is_granted(&[port], End::Local, ip, false));
        assert!(!VXLAN.is_granted(&[any], End::Local, ip, false), "more than was asked for");
        assert!(!VXLAN.is_granted(&[port, any], End::Local, ip, false));
        assert!(!VXLAN.is_granted(&[], End::Local, ip, false));
    }

    #[test]
    fn a_peer_behind_a_nat_gets_its_own_address_back() {
        let ip: IpAddr = "10.9.0.1".parse().unwrap();
        let private = ts(47, "192.168.0.7", "192.168.0.7");
        let narrow = |offered: &[_], translated| Selector::Gre.narrow(offered, End::Remote, ip, translated);
        assert_eq!(narrow(&[private], true), Some(private));
        assert_eq!(narrow(&[private], false), None);
        assert_eq!(narrow(&[ts(47, "192.168.0.0", "192.168.0.255")], true), None);
    }

    #[test]
    fn as_strongswan_writes_them() {
        let texts =
            [ts(0, "::1", "::1"), ts(47, "10.0.0.0", "10.0.0.9"), ported(4789, 4789), ported(0, 65535)];
        assert_eq!(list(&texts), "::1 10.0.0.0..10.0.0.9[gre] 10.9.0.1[udp/4789] 10.9.0.1[udp]");
        assert_eq!(list(&[ported(1, 2)]), "10.9.0.1[udp/1-2]");
        assert_eq!((VXLAN.at_local(), VXLAN.at_remote()), ("udp/4789".into(), "udp".into()));
        assert_eq!(Selector::UdpOut(6081).at_remote(), "udp/6081");
    }

    fn any_traffic() -> impl Strategy<Value = Selector> {
        prop_oneof![
            Just(Selector::Gre),
            any::<u16>().prop_map(Selector::UdpIn),
            any::<u16>().prop_map(Selector::UdpOut)
        ]
    }

    proptest! {
        /// What is granted is within what was offered, and no less than what is wanted.
        #[test]
        fn nothing_is_granted_that_was_not_offered(
            selector in any_traffic(), protocol in prop_oneof![Just(0u8), Just(17), Just(47), any::<u8>()],
            ports: (u16, u16), ip: [u8; 4], ends: ([u8; 4], [u8; 4]), at_local: bool,
        ) {
            let end = if at_local { End::Local } else { End::Remote };
            let offered = TrafficSelector {
                protocol, start_port: ports.0, end_port: ports.1, start: ends.0.into(), end: ends.1.into(),
            };
            let ip = ip.into();
            if let Some(granted) = selector.narrow(&[offered], end, ip, false) {
                prop_assert!(protocol == 0 || protocol == granted.protocol);
                prop_assert!(offered.start_port <= granted.start_port && granted.end_port <= offered.end_port);
                prop_assert!(offered.start <= ip && ip <= offered.end);
                prop_assert_eq!(granted, selector.at(end, ip));
                prop_assert!(selector.is_granted(&[granted], end, ip, false));
            }
        }

        /// What one end asks for, the other end, which sees it from behind, grants.
        #[test]
        fn two_ends_agree(port: u16) {
            let ip = IpAddr::from([10, 9, 0, 1]);
            for (ours, theirs) in [
                (Selector::Gre, Selector::Gre),
                (Selector::UdpOut(port), Selector::UdpIn(port)),
                (Selector::UdpIn(port), Selector::UdpOut(port)),
            ] {
                let asked = ours.at(End::Local, ip);
                prop_assert_eq!(theirs.narrow(&[asked], End::Remote, ip, false), Some(asked));
            }
        }
    }
}
