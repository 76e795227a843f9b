//! What a bond says of a station when its active member changes, so that switches behind it learn the new way: a RARP
//! request in the station's name, as Open vSwitch and hypervisors send it.

use datapath::vlan::{self, Edit, Tag, Tags, VlanLimit, VlanPolicy};
use datapath::wire::ethernet::{DOT1Q, Tci};
use datapath::wire::parse::Link;

/// Hardware Ethernet, protocol IPv4, with the lengths of their addresses, and "request reverse" (RFC 903).
const RARP: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
const IPV4_NONE: [u8; 4] = [0; 4];

/// The frame for a station in `vlan`, as a port with that policy sends it. None: the port is not in that VLAN.
pub fn frame(mac: [u8; 6], vlan: u16, policy: Option<&VlanPolicy>) -> Option<Vec<u8>> {
    let addresses = [[0xff; 6], mac].concat();
    let body = [&RARP[..], &mac, &IPV4_NONE, &mac, &IPV4_NONE].concat();
    let tag = (vlan != 0).then_some(Tag { tpid: DOT1Q, tci: Tci(vlan) });
    let with = |tag: Option<Tag>| {
        let tag = tag.map(Tag::bytes).unwrap_or_default();
        let tag = if tag == [0; 4] { &[][..] } else { &tag[..] };
        [&addresses[..], tag, &body].concat()
    };
    let inside = with(tag);
    let link = Link::parse(&inside)?;
    let inside = vlan::ingress(None, Tags::read(&inside, &link, VlanLimit::One))?;
    Some(match vlan::egress(policy, &inside)? {
        Edit::Keep => with(tag),
        Edit::Pop => with(None),
        Edit::Push(tag) | Edit::Replace(tag) => with(Some(tag)),
    })
}

#[cfg(test)]
mod tests {
    use datapath::vlan::VlanMode;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn tagged_as_the_port_has_it() {
        let plain = frame(MAC, 0, None).unwrap();
        assert_eq!(plain.len(), 42);
        assert_eq!(plain[..16], *b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x07\x80\x35\0\x01");
        assert_eq!(plain[20..], *b"\0\x03\x02\0\0\0\0\x07\0\0\0\0\x02\0\0\0\0\x07\0\0\0\0");
        let tagged = frame(MAC, 5, None).unwrap();
        assert_eq!((tagged.len(), &tagged[12..18]), (46, &b"\x81\0\0\x05\x80\x35"[..]));
        let access = VlanPolicy::new(VlanMode::Access, 5, None);
        assert_eq!(frame(MAC, 5, Some(&access)), Some(plain.clone()));
        assert_eq!(frame(MAC, 6, Some(&access)), None);
        assert_eq!(frame(MAC, 0, Some(&access)), None);
        let trunk = VlanPolicy::new(VlanMode::Trunk, 0, Some([0, 5].into_iter().collect()));
        assert_eq!(frame(MAC, 5, Some(&trunk)), Some(tagged));
        assert_eq!(frame(MAC, 0, Some(&trunk)), Some(plain));
        assert_eq!(frame(MAC, 6, Some(&trunk)), None);
    }
}
