//! What Open vSwitch documents of column `vlan_mode`, as a table.

use super::*;

const fn tag(tpid: u16, pcp: u16, vid: u16) -> Tag {
    Tag { tpid, tci: Tci(pcp << 13 | vid) }
}

const UNTAGGED: Tags = Tags { outer: None, inner: 0, covers: false };

/// As a frame comes, with a tag of VLAN `vid` and priority 5.
const fn tagged(vid: u16) -> Tags {
    Tags { outer: Some(tag(0x8100, 5, vid)), inner: 0, covers: false }
}

fn set<const N: usize>(vids: [u16; N]) -> Option<VlanSet> {
    Some(vids.into_iter().collect())
}

fn access(vid: u16) -> VlanPolicy {
    VlanPolicy::new(VlanMode::Access, vid, None)
}

fn trunk<const N: usize>(vids: [u16; N]) -> VlanPolicy {
    VlanPolicy::new(VlanMode::Trunk, 0, set(vids))
}

fn native(mode: VlanMode, vid: u16) -> VlanPolicy {
    VlanPolicy::new(mode, vid, set([10, 20]))
}

fn customers<const N: usize>(vid: u16, cvlans: [u16; N]) -> VlanPolicy {
    let cvlans = (N > 0).then(|| cvlans.into_iter().collect());
    VlanPolicy::new(VlanMode::Dot1qTunnel, vid, None).with_customers(cvlans, 0x88a8)
}

#[test]
fn which_vlan_a_frame_is_in() {
    use VlanMode::{NativeTagged, NativeUntagged};
    let table = [
        (None, UNTAGGED, Some(0)),
        (None, tagged(0), Some(0)),
        (None, tagged(4095), Some(4095)),
        (Some(access(10)), UNTAGGED, Some(10)),
        (Some(access(10)), tagged(0), Some(10)),
        (Some(access(10)), tagged(10), None),
        (Some(trunk([10, 20])), tagged(20), Some(20)),
        (Some(trunk([10, 20])), tagged(30), None),
        (Some(trunk([10, 20])), UNTAGGED, None),
        (Some(trunk([0, 20])), UNTAGGED, Some(0)),
        (Some(native(NativeTagged, 30)), UNTAGGED, Some(30)),
        (Some(native(NativeTagged, 30)), tagged(0), Some(30)),
        (Some(native(NativeTagged, 30)), tagged(30), Some(30)),
        (Some(native(NativeTagged, 30)), tagged(10), Some(10)),
        (Some(native(NativeUntagged, 30)), tagged(11), None),
        (Some(native(NativeUntagged, 0)), UNTAGGED, Some(0)),
        (Some(customers(100, [])), UNTAGGED, Some(100)),
        (Some(customers(100, [])), tagged(7), Some(100)),
        (Some(customers(100, [7])), tagged(7), Some(100)),
        (Some(customers(100, [7])), tagged(8), None),
        (Some(customers(100, [7])), UNTAGGED, None),
    ];
    for (policy, tags, want) in table {
        let inside = ingress(policy.as_ref(), tags);
        assert_eq!(inside.map(|i| i.vid), want, "{policy:?} {tags:?}");
    }
}

#[test]
fn how_a_frame_leaves() {
    use Edit::{Keep, Pop, Push, Replace};
    use VlanMode::{NativeTagged, NativeUntagged};
    const DOT1Q: u16 = 0x8100;
    let table = [
        // a bridge without VLANs
        (None, UNTAGGED, None, Some(Keep)),
        (None, tagged(10), None, Some(Keep)),
        (None, tagged(0), None, Some(Keep)),
        // access
        (Some(access(10)), UNTAGGED, Some(access(10)), Some(Keep)),
        (Some(access(10)), UNTAGGED, Some(access(11)), None),
        (Some(access(10)), UNTAGGED, None, Some(Push(tag(DOT1Q, 0, 10)))),
        (Some(access(10)), tagged(0), None, Some(Replace(tag(DOT1Q, 5, 10)))),
        (Some(access(10)), tagged(0), Some(access(10)), Some(Pop)),
        (None, tagged(10), Some(access(10)), Some(Pop)),
        (None, UNTAGGED, Some(access(10)), None),
        (None, UNTAGGED, Some(access(0)), Some(Keep)),
        // trunks
        (None, tagged(10), Some(trunk([10])), Some(Keep)),
        (None, tagged(11), Some(trunk([10])), None),
        (None, UNTAGGED, Some(trunk([10])), None),
        // native VLANs
        (None, tagged(30), Some(native(NativeTagged, 30)), Some(Keep)),
        (None, tagged(30), Some(native(NativeUntagged, 30)), Some(Pop)),
        (None, tagged(10), Some(native(NativeUntagged, 30)), Some(Keep)),
        (None, tagged(11), Some(native(NativeUntagged, 30)), None),
        (None, UNTAGGED, Some(native(NativeUntagged, 30)), None),
        (Some(native(NativeTagged, 30)), UNTAGGED, None, Some(Push(tag(DOT1Q, 0, 30)))),
        (
            Some(native(NativeUntagged, 30)),
            UNTAGGED,
            Some(native(NativeTagged, 30)),
            Some(Push(tag(DOT1Q, 0, 30))),
        ),
        (Some(native(NativeUntagged, 30)), UNTAGGED, Some(native(NativeUntagged, 30)), Some(Keep)),
        // tags of customers
        (Some(customers(100, [])), tagged(7), None, Some(Push(tag(0x88a8, 0, 100)))),
        (Some(customers(100, [])), UNTAGGED, None, Some(Push(tag(0x88a8, 0, 100)))),
        (Some(customers(100, [])), tagged(7), Some(customers(100, [])), Some(Keep)),
        (Some(customers(100, [])), tagged(7), Some(customers(100, [7])), Some(Keep)),
        (Some(customers(100, [])), tagged(7), Some(customers(100, [8])), None),
        (Some(customers(100, [])), tagged(7), Some(customers(101, [])), None),
        (Some(customers(100, [])), tagged(7), Some(access(100)), None),
        (Some(customers(100, [])), UNTAGGED, Some(access(100)), Some(Keep)),
        (Some(customers(100, [])), tagged(0), Some(access(100)), Some(Pop)),
        (Some(customers(100, [])), tagged(0), Some(customers(100, [])), Some(Keep)),
        (None, tagged(100), Some(customers(100, [])), Some(Pop)),
    ];
    for (from, tags, to, want) in table {
        let inside = ingress(from.as_ref(), tags).unwrap();
        assert_eq!(egress(to.as_ref(), &inside), want, "{from:?} {tags:?} {to:?}");
    }
}

#[test]
fn priorities_without_a_vlan() {
    use PriorityTags::{Always, IfNonzero, Never};
    let low = Tags { outer: Some(tag(0x8100, 0, 0)), inner: 0, covers: false };
    let table = [
        (tagged(0), Never, Edit::Keep),
        (tagged(0), IfNonzero, Edit::Keep),
        (tagged(0), Always, Edit::Keep),
        (low, Never, Edit::Pop),
        (low, IfNonzero, Edit::Pop),
        (low, Always, Edit::Keep),
        (UNTAGGED, Always, Edit::Keep),
    ];
    for (tags, priority_tags, want) in table {
        let policy = VlanPolicy::new(VlanMode::Trunk, 0, None).with_priority_tags(priority_tags);
        let inside = ingress(None, tags).unwrap();
        assert_eq!(egress(policy.shared().as_deref(), &inside), Some(want), "{tags:?} {priority_tags:?}");
    }
    let policy = VlanPolicy::new(VlanMode::Trunk, 0, None).with_priority_tags(Always);
    let served = ingress(Some(&customers(100, [])), tagged(7)).unwrap();
    assert_eq!(egress(Some(&policy), &served), Some(Edit::Push(tag(0x88a8, 5, 100))));
    let own = ingress(Some(&access(0)), UNTAGGED).unwrap();
    assert_eq!(egress(Some(&policy), &own), Some(Edit::Push(tag(0x8100, 0, 0))));
    let bare = access(10).with_priority_tags(IfNonzero);
    let shown = egress(Some(&bare), &ingress(None, tagged(10)).unwrap());
    assert_eq!(shown, Some(Edit::Replace(tag(0x8100, 5, 0))));
}

#[test]
fn the_second_tag_counts_when_told_so() {
    let frame = b"DDDDDDSSSSSS\x88\xa8\x00\x64\x81\x00\x20\x07\x08\x00payload";
    let link = Link::parse(frame).unwrap();
    for (limit, inner, access_takes) in [(VlanLimit::One, 0, true), (VlanLimit::Two, 7, false)] {
        let tags = Tags::read(frame, &link, limit);
        assert_eq!(tags, Tags { outer: Some(tag(0x88a8, 0, 100)), inner, covers: false });
        let inside = ingress(None, tags).unwrap();
        assert_eq!(egress(Some(&access(100)), &inside).is_some(), access_takes);
        assert_eq!(egress(Some(&customers(100, [8])), &inside), None);
        assert_eq!(egress(Some(&customers(100, [inner])), &inside), Some(Edit::Pop));
    }
    assert_eq!(Tags::read(&frame[..18], &Link::parse(&frame[..18]).unwrap(), VlanLimit::Two).inner, 0);
}

#[test]
fn sets_hold_what_there_is() {
    let some: VlanSet = [0, 63, 64, 4095, 4096, 65535].into_iter().collect();
    let held: Vec<u16> = (0..=u16::MAX).filter(|vid| some.contains(*vid)).collect();
    assert_eq!(held, [0, 63, 64, 4095]);
    assert!((0..4096).all(|vid| VlanSet::ALL.contains(vid)));
}

#[test]
fn what_every_port_is_needs_no_policy() {
    assert!(VlanPolicy::new(VlanMode::Trunk, 0, None).shared().is_none());
    assert!(trunk([1]).shared().is_some());
    assert!(access(0).shared().is_some());
}

/// A tag of VLAN 0 in front of another must not be what keeps the other from being seen.
#[test]
fn a_priority_tag_lets_nobody_into_the_vlan_behind_it() {
    let frame = |vid: u8| [&[2; 12][..], &[0x81, 0, 0, vid, 0x81, 0, 0, 20, 0x08, 0, 0x45]].concat();
    let read = |vid| {
        let frame = frame(vid);
        Tags::read(&frame, &Link::parse(&frame).unwrap(), VlanLimit::One)
    };
    let policies = [
        access(0),
        access(10),
        trunk([0, 10]),
        native(VlanMode::NativeUntagged, 10),
        native(VlanMode::NativeTagged, 10),
        customers(100, [0]),
    ];
    let inside = ingress(None, read(0)).unwrap();
    assert_eq!(egress(None, &inside), Some(Edit::Keep));
    for policy in &policies {
        assert_eq!(ingress(Some(policy), read(0)), None, "{policy:?}");
        assert_eq!(egress(Some(policy), &inside), None, "{policy:?}");
        assert_eq!(shown_by(Some(policy), &inside), Edit::Keep, "{policy:?}");
    }
    // behind a tag of a VLAN the next one is payload
    let inside = ingress(None, read(10)).unwrap();
    assert_eq!(egress(Some(&access(10)), &inside), Some(Edit::Pop));
}
