//! A flow as `ovs-fields(7)` writes it: what it says of a frame, and the frame. Fields above Ethernet are taken and shown, and
//! make no difference to a switch.

use std::fmt;

use datapath::snapshot::OfPort;

use super::super::fdb::LOCAL;
use crate::devices::{mac_text, parse_mac};

/// Of an IPv4, an IPv6 and an ARP frame.
const IP: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
/// "There is a tag", in the bit of the tag that tells little else.
const PRESENT: u16 = 0x1000;

/// Words that stand for a type of frame and a protocol.
const WORDS: [(&str, u16, Option<u8>); 13] = [
    ("ip", IP, None),
    ("icmp", IP, Some(1)),
    ("tcp", IP, Some(6)),
    ("udp", IP, Some(17)),
    ("sctp", IP, Some(132)),
    ("ipv6", IPV6, None),
    ("icmp6", IPV6, Some(58)),
    ("tcp6", IPV6, Some(6)),
    ("udp6", IPV6, Some(17)),
    ("sctp6", IPV6, Some(132)),
    ("arp", ARP, None),
    ("rarp", 0x8035, None),
    ("mpls", 0x8847, None),
];

/// What is shown of a frame behind its addresses, in this order, with what it is if nothing is said.
const IP_FIELDS: [(&str, &str); 6] = [
    ("nw_src", "0.0.0.0"),
    ("nw_dst", "0.0.0.0"),
    ("nw_tos", "0"),
    ("nw_ecn", "0"),
    ("nw_ttl", "0"),
    ("nw_frag", "no"),
];
const IPV6_FIELDS: [(&str, &str); 7] = [
    ("ipv6_src", "::"),
    ("ipv6_dst", "::"),
    ("ipv6_label", "0x00000"),
    ("nw_tos", "0"),
    ("nw_ecn", "0"),
    ("nw_ttl", "0"),
    ("nw_frag", "no"),
];
const ARP_FIELDS: [(&str, &str); 5] = [
    ("arp_spa", "0.0.0.0"),
    ("arp_tpa", "0.0.0.0"),
    ("arp_op", "0"),
    ("arp_sha", "00:00:00:00:00:00"),
    ("arp_tha", "00:00:00:00:00:00"),
];
const PORTS: [(&str, &str); 3] = [("tp_src", "0"), ("tp_dst", "0"), ("tcp_flags", "0")];
const ICMP: [(&str, &str); 2] = [("icmp_type", "0"), ("icmp_code", "0")];

/// Other names of fields.
const ALIASES: [(&str, &str); 17] = [
    ("eth_src", "dl_src"),
    ("eth_dst", "dl_dst"),
    ("eth_type", "dl_type"),
    ("vlan_vid", "dl_vlan"),
    ("vlan_pcp", "dl_vlan_pcp"),
    ("ip_src", "nw_src"),
    ("ip_dst", "nw_dst"),
    ("ip_proto", "nw_proto"),
    ("ip_ecn", "nw_ecn"),
    ("ip_frag", "nw_frag"),
    ("tcp_src", "tp_src"),
    ("tcp_dst", "tp_dst"),
    ("udp_src", "tp_src"),
    ("udp_dst", "tp_dst"),
    ("icmpv6_type", "icmp_type"),
    ("icmpv6_code", "icmp_code"),
    ("nw_proto", "nw_proto"),
];

/// Where a frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InPort {
    Number(OfPort),
    Unsaid,
}

impl InPort {
    pub(super) fn number(self) -> Option<OfPort> {
        match self {
            InPort::Number(n) => Some(n),
            InPort::Unsaid => None,
        }
    }
}

impl fmt::Display for InPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InPort::Number(LOCAL) => f.write_str("LOCAL"),
            InPort::Number(n) => n.fmt(f),
            InPort::Unsaid => f.write_str("ANY"),
        }
    }
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) in_port: InPort,
    src: [u8; 6],
    dst: [u8; 6],
    /// With [`PRESENT`]; 0: no tag.
    tci: u16,
    kind: u16,
    protocol: u8,
    /// Fields above Ethernet, as they were said.
    above: Vec<(String, String)>,
}

impl Flow {
    /// `port` gives the number of the port with a name.
    pub(super) fn parse(text: &str, port: impl Fn(&str) -> Option<OfPort>) -> Result<Flow, String> {
        let mut flow = Flow {
            in_port: InPort::Unsaid,
            src: [0; 6],
            dst: [0; 6],
            tci: 0,
            kind: 0,
            protocol: 0,
            above: Vec::new(),
        };
        let bad = |why: String| format!("Bad openflow flow syntax: {text}: {why}");
        for field in text.split([',', ' ', '\t']).filter(|f| !f.is_empty()) {
            match field.split_once('=') {
                Some((name, value)) => flow.set(name, value, &port).map_err(bad)?,
                None => flow.word(field).map_err(bad)?,
            }
        }
        Ok(flow)
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word == "eth" {
            return Ok(());
        }
        let (_, kind, protocol) =
            WORDS.iter().find(|(w, ..)| *w == word).ok_or_else(|| format!("unknown field {word}"))?;
        self.kind = *kind;
        self.protocol = protocol.unwrap_or(self.protocol);
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str, port: impl Fn(&str) -> Option<OfPort>) -> Result<(), String> {
        let field = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, field)| field);
        let bad = |what: &str| format!("bad value for {field} ({value}: {what})");
        let mac = || parse_mac(value).ok_or_else(|| bad("invalid Ethernet address"));
        let number = || number(value).ok_or_else(|| bad("invalid number"));
        match field {
            "in_port" => {
                let known = match value {
                    "LOCAL" => Some(LOCAL),
                    _ => port(value).or_else(|| value.parse().ok()),
                };
                let known = known.ok_or_else(|| bad("invalid or unknown port for in_port"))?;
                self.in_port = InPort::Number(known);
            }
            "dl_src" => self.src = mac()?,
            "dl_dst" => self.dst = mac()?,
            "dl_type" => self.kind = number()?,
            "dl_vlan" => self.tci = self.tci & 0xe000 | PRESENT | number()? & 0xfff,
            "dl_vlan_pcp" => self.tci = self.tci & 0x1fff | PRESENT | (number()? & 7) << 13,
            "vlan_tci" => self.tci = number()?,
            "nw_proto" => self.protocol = u8::try_from(number()?).map_err(|_| bad("invalid number"))?,
            above if is_above(above) => self.above.push((above.to_owned(), value.to_owned())),
            other => return Err(format!("unknown field {other}")),
        }
        Ok(())
    }

    /// The frame, long enough for every header that is looked at.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = [self.dst, self.src].concat();
        if self.tci & PRESENT != 0 {
            frame.extend(VLAN.to_be_bytes());
            frame.extend((self.tci & !PRESENT).to_be_bytes());
        }
        frame.extend(self.kind.to_be_bytes());
        frame.resize(64, 0);
        frame
    }

    /// All of it, as Open vSwitch writes a flow.
    pub(super) fn text(&self, in_port: &str) -> String {
        let mut parts: Vec<String> = self.name().map(str::to_owned).into_iter().collect();
        parts.push(format!("in_port={in_port}"));
        match self.tci & PRESENT {
            0 => parts.push(format!("vlan_tci={:#06x}", self.tci)),
            _ => parts.extend([
                self.vlan(),
                format!("dl_vlan_pcp={}", self.tci >> 13),
                "vlan_tci1=0x0000".into(),
            ]),
        }
        parts.extend(self.addresses());
        let named = self.name().is_some_and(|name| name != "ip" && name != "ipv6");
        let fields: &[(&str, &str)] = match self.kind {
            IP => &IP_FIELDS,
            IPV6 => &IPV6_FIELDS,
            ARP => &ARP_FIELDS,
            kind => {
                parts.extend(self.name().is_none().then(|| format!("dl_type={kind:#06x}")));
                &[]
            }
        };
        for field in fields {
            if field.0 == "nw_tos" && !named {
                parts.push(format!("nw_proto={}", self.protocol));
            }
            parts.push(self.shown(field));
        }
        let behind: &[(&str, &str)] = match (self.kind, self.protocol) {
            (IP | IPV6, 6) => &PORTS,
            (IP | IPV6, 17 | 132) => &PORTS[..2],
            (IP, 1) | (IPV6, 58) => &ICMP,
            _ => &[],
        };
        parts.extend(behind.iter().map(|field| self.shown(field)));
        parts.join(",")
    }

    /// What the decision depends on.
    pub(super) fn looked_at(&self, in_port: &str) -> String {
        let word = WORDS.iter().find(|(_, kind, protocol)| *kind == self.kind && protocol.is_none());
        let mut parts: Vec<String> = word.map(|(word, ..)| (*word).to_owned()).into_iter().collect();
        parts.push(format!("in_port={in_port}"));
        if self.tci & PRESENT != 0 {
            parts.push(self.vlan());
        }
        parts.extend(self.addresses());
        match self.kind {
            IP | IPV6 => parts.push("nw_frag=no".into()),
            _ if word.is_some() => {}
            kind => parts.push(format!("dl_type={kind:#06x}")),
        }
        parts.join(",")
    }

    fn name(&self) -> Option<&'static str> {
        let exact = WORDS.iter().find(|(_, kind, p)| *kind == self.kind && *p == Some(self.protocol));
        let any = || WORDS.iter().find(|(_, kind, p)| *kind == self.kind && p.is_none());
        exact.or_else(any).map(|(word, ..)| *word)
    }

    fn vlan(&self) -> String {
        format!("dl_vlan={}", self.tci & 0xfff)
    }

    fn addresses(&self) -> [String; 2] {
        [format!("dl_src={}", mac_text(self.src)), format!("dl_dst={}", mac_text(self.dst))]
    }

    fn shown(&self, (field, unsaid): &(&str, &str)) -> String {
        let said = self.above.iter().rev().find(|(name, _)| name == field).map(|(_, value)| value.as_str());
        format!("{field}={}", said.unwrap_or(unsaid))
    }
}

fn is_above(field: &str) -> bool {
    let shown = [&IP_FIELDS[..], &IPV6_FIELDS, &ARP_FIELDS, &PORTS, &ICMP];
    shown.into_iter().flatten().any(|(name, _)| *name == field)
        || matches!(field, "ip_dscp" | "nd_target" | "nd_sll" | "nd_tll" | "metadata" | "pkt_mark" | "tun_id")
}

/// Decimal, or hexadecimal with 0x.
fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Flow, String> {
        Flow::parse(text, |name| (name == "p0").then_some(5))
    }

    /// As Open vSwitch 3.1 shows them.
    #[test]
    fn shown_as_in_open_vswitch() {
        let macs = "dl_src=02:00:00:00:00:33,dl_dst=02:00:00:00:00:11";
        for (said, shown) in [
            ("", "in_port=P,vlan_tci=0x0000,MACS,dl_type=0x0000"),
            ("dl_type=0x88cc,", "in_port=P,vlan_tci=0x0000,MACS,dl_type=0x88cc"),
            ("vlan_tci=0x700a,", "in_port=P,dl_vlan=10,dl_vlan_pcp=3,vlan_tci1=0x0000,MACS,dl_type=0x0000"),
            (
                "dl_vlan_pcp=3,dl_vlan=10,",
                "in_port=P,dl_vlan=10,dl_vlan_pcp=3,vlan_tci1=0x0000,MACS,dl_type=0x0000",
            ),
            (
                "icmp,nw_src=10.0.0.1,ip_dst=10.0.0.2,",
                "icmp,in_port=P,vlan_tci=0x0000,MACS,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,icmp_type=0,icmp_code=0",
            ),
            (
                "tcp,tp_dst=80,",
                "tcp,in_port=P,vlan_tci=0x0000,MACS,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=80,tcp_flags=0",
            ),
            (
                "dl_type=0x800,nw_proto=17,",
                "udp,in_port=P,vlan_tci=0x0000,MACS,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0",
            ),
            (
                "ipv6,",
                "ipv6,in_port=P,vlan_tci=0x0000,MACS,ipv6_src=::,ipv6_dst=::,ipv6_label=0x00000,nw_proto=0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no",
            ),
            (
                "arp,",
                "arp,in_port=P,vlan_tci=0x0000,MACS,arp_spa=0.0.0.0,arp_tpa=0.0.0.0,arp_op=0,arp_sha=00:00:00:00:00:00,arp_tha=00:00:00:00:00:00",
            ),
        ] {
            let flow = parse(&format!("{said}in_port=p0 {macs}")).unwrap();
            assert_eq!(flow.text("P"), shown.replace("MACS", macs), "{said}");
            assert_eq!(flow.in_port, InPort::Number(5));
        }
        let tagged = parse(&format!("tcp,dl_vlan=10,in_port=65534,{macs}")).unwrap();
        assert_eq!(tagged.looked_at("P"), format!("ip,in_port=P,dl_vlan=10,{macs},nw_frag=no"));
        assert_eq!(tagged.in_port.to_string(), "LOCAL");
        assert_eq!(tagged.frame()[12..18], [0x81, 0, 0, 10, 8, 0]);
    }

    #[test]
    fn bad_flows() {
        for (text, why) in [
            ("nonsense", "nonsense: unknown field nonsense"),
            ("x=1", "x=1: unknown field x"),
            (
                "in_port=p0,dl_src=zz",
                "in_port=p0,dl_src=zz: bad value for dl_src (zz: invalid Ethernet address)",
            ),
            (
                "in_port=nosuch",
                "in_port=nosuch: bad value for in_port (nosuch: invalid or unknown port for in_port)",
            ),
            ("dl_vlan=x", "dl_vlan=x: bad value for dl_vlan (x: invalid number)"),
        ] {
            assert_eq!(parse(text), Err(format!("Bad openflow flow syntax: {why}")));
        }
    }
}
