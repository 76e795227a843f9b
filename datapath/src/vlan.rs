//! VLANs (IEEE 802.1Q): which one a frame is in as it enters by a port, and how it is tagged as it leaves by another. Pure.
//!
//! A port without a [`VlanPolicy`] is a trunk of every VLAN, and a frame without a tag is in VLAN 0. Inside the bridge a frame
//! is [`Inside`]: its VLAN, and the tag that a trunk would show. What is done to its bytes is an [`Edit`] of the frame as it
//! came, so the commonest, a frame from one plain port to another, is left alone.

use std::sync::Arc;

use crate::wire::ethernet::{self, Tci};
use crate::wire::parse::Link;

/// VLAN ids there are.
const VIDS: usize = 4096;

/// A set of VLAN ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanSet([u64; VIDS / 64]);

impl VlanSet {
    /// Every VLAN.
    pub const ALL: VlanSet = VlanSet([u64::MAX; VIDS / 64]);

    /// Whether `vid` is in it.
    #[inline]
    pub fn contains(&self, vid: u16) -> bool {
        self.0.get(usize::from(vid / 64)).is_some_and(|word| word >> (vid % 64) & 1 != 0)
    }

    fn set(&mut self, vid: u16, is_in: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vid / 64)) {
            *word = *word & !(1 << (vid % 64)) | u64::from(is_in) << (vid % 64);
        }
    }
}

/// Numbers above 4095 are none.
impl FromIterator<u16> for VlanSet {
    fn from_iter<T: IntoIterator<Item = u16>>(vids: T) -> VlanSet {
        let mut set = VlanSet([0; VIDS / 64]);
        vids.into_iter().for_each(|vid| set.set(vid, true));
        set
    }
}

/// Column `vlan_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VlanMode {
    /// Frames are in the VLAN of their tag, or in VLAN 0.
    #[default]
    Trunk,
    /// One VLAN, whose frames have no tag here.
    Access,
    /// A trunk on which frames without a tag are in the native VLAN; those that leave have its tag.
    NativeTagged,
    /// The same, and those of the native VLAN leave without a tag.
    NativeUntagged,
    /// One VLAN, whose frames have the tags of a customer here, or none (802.1ad).
    Dot1qTunnel,
}

/// `other_config:priority-tags`: whether frames in VLAN 0 leave with a tag for the sake of their priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum PriorityTags {
    #[default]
    Never,
    IfNonzero,
    Always,
}

/// What a port makes of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanPolicy {
    mode: VlanMode,
    /// The only VLAN, or the native one.
    vid: u16,
    /// The VLANs of a trunk. None: all.
    trunks: Option<VlanSet>,
    /// The VLANs of a customer that may pass a [`VlanMode::Dot1qTunnel`]. None: all.
    cvlans: Option<VlanSet>,
    /// EtherType of the tag that a [`VlanMode::Dot1qTunnel`] pushes.
    tpid: u16,
    priority_tags: PriorityTags,
}

impl VlanPolicy {
    /// With `vid` as the port's own VLAN, if it has one, and `trunks` as those of a trunk. A native VLAN is always among
    /// them, and VLAN 0 is then not: nothing is left to be in it.
    pub fn new(mode: VlanMode, vid: u16, mut trunks: Option<VlanSet>) -> VlanPolicy {
        if matches!(mode, VlanMode::NativeTagged | VlanMode::NativeUntagged) && vid != 0 {
            let set = trunks.get_or_insert(VlanSet::ALL);
            set.set(vid, true);
            set.set(0, false);
        }
        let (tpid, priority_tags) = (ethernet::DOT1AD, PriorityTags::Never);
        VlanPolicy { mode, vid, trunks, cvlans: None, tpid, priority_tags }
    }

    /// With `other_config:priority-tags`.
    pub fn with_priority_tags(self, priority_tags: PriorityTags) -> VlanPolicy {
        VlanPolicy { priority_tags, ..self }
    }

    /// With column `cvlans` and `other_config:qinq-ethtype`.
    pub fn with_customers(self, cvlans: Option<VlanSet>, tpid: u16) -> VlanPolicy {
        VlanPolicy { cvlans, tpid, ..self }
    }

    /// None when it is what a port is without one.
    pub fn shared(self) -> Option<Arc<VlanPolicy>> {
        let plain = self.mode == VlanMode::Trunk && self.trunks.is_none();
        (!plain || self.priority_tags != PriorityTags::Never).then(|| Arc::new(self))
    }

    fn trunks(&self, vid: u16) -> bool {
        self.trunks.as_ref().is_none_or(|set| set.contains(vid))
    }

    fn serves(&self, customer: u16) -> bool {
        self.cvlans.as_ref().is_none_or(|set| set.contains(customer))
    }

    fn ingress(&self, tags: Tags) -> Option<Inside> {
        if tags.covers {
            return None;
        }
        let vid = tags.outer.map_or(0, |tag| tag.tci.vid());
        match self.mode {
            VlanMode::Access => (vid == 0).then(|| Inside::native(tags, self.vid)),
            VlanMode::NativeTagged | VlanMode::NativeUntagged if vid == 0 => {
                Some(Inside::native(tags, self.vid))
            }
            VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                self.trunks(vid).then(|| Inside::as_it_came(tags))
            }
            VlanMode::Dot1qTunnel => self.serves(vid).then_some(Inside {
                vid: self.vid,
                tag: Some(Tag { tpid: self.tpid, tci: Tci(self.vid) }),
                came: tags.outer,
                pushed: true,
                inner: vid,
                covers: false,
            }),
        }
    }

    fn is_member(&self, frame: &Inside) -> bool {
        let own = frame.vid == self.vid;
        match self.mode {
            _ if frame.covers => false,
            VlanMode::Access => own && frame.inner == 0,
            VlanMode::Dot1qTunnel => own && self.serves(frame.inner),
            VlanMode::NativeUntagged | VlanMode::Trunk | VlanMode::NativeTagged => self.trunks(frame.vid),
        }
    }

    fn edit(&self, frame: &Inside) -> Edit {
        let bare = match self.mode {
            // no tag of a customer leaves here
            VlanMode::Access => return Inside { pushed: false, ..*frame }.edit(true, self.priority_tags),
            VlanMode::Dot1qTunnel => true,
            VlanMode::NativeUntagged => frame.vid == self.vid,
            VlanMode::Trunk | VlanMode::NativeTagged => false,
        };
        frame.edit(bare, self.priority_tags)
    }
}

/// A tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Its EtherType.
    pub tpid: u16,
    /// Priority, drop eligibility, VLAN.
    pub tci: Tci,
}

impl Tag {
    /// A service's tag has the customer's priority on a port that cares for priorities.
    fn with_priority(self, of: Option<Tag>, priority_tags: PriorityTags) -> Tag {
        match of {
            Some(of) if priority_tags != PriorityTags::Never => {
                Tag { tci: Tci(self.tci.0 & 0x1fff | of.tci.0 & 0xe000), ..self }
            }
            _ => self,
        }
    }

    /// The four bytes that it is in a frame.
    pub fn bytes(self) -> [u8; ethernet::TAG] {
        let ([a, b], [c, d]) = (self.tpid.to_be_bytes(), self.tci.0.to_be_bytes());
        [a, b, c, d]
    }
}

/// What a switch looks at of a frame's tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tags {
    /// The first.
    pub outer: Option<Tag>,
    /// The VLAN in the second; 0 when there is none, or none is looked for.
    pub inner: u16,
    /// The first is of VLAN 0 and another stands behind it. Without the first the frame would be in a VLAN that nobody let it
    /// into, so no port with a policy takes it or is given it.
    pub covers: bool,
}

impl Tags {
    /// Those of `frame`, whose header is `link`. `limit` is `other_config:vlan-limit`: how many of them are looked at.
    #[inline]
    pub fn read(frame: &[u8], link: &Link, limit: VlanLimit) -> Tags {
        match link.vlan {
            None => Tags::default(),
            Some(tci) => Self::tagged(frame, tci, limit),
        }
    }

    #[cold]
    fn tagged(frame: &[u8], tci: Tci, limit: VlanLimit) -> Tags {
        let word = |at: usize| match frame.get(at..at + 2) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        let outer = Some(Tag { tpid: word(12), tci });
        let second = ethernet::is_tag(word(16));
        let inner = if second && limit == VlanLimit::Two { Tci(word(18)).vid() } else { 0 };
        Tags { outer, inner, covers: second && tci.vid() == 0 }
    }
}

/// How many tags of a frame count; what is behind them is payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum VlanLimit {
    #[default]
    One,
    Two,
}

impl VlanLimit {
    /// As a number.
    pub fn tags(self) -> usize {
        match self {
            VlanLimit::One => 1,
            VlanLimit::Two => 2,
        }
    }
}

/// A frame inside the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// The VLAN that it is in.
    pub vid: u16,
    /// Its tag on a trunk. One of VLAN 0 may have none.
    tag: Option<Tag>,
    /// The outer tag that it came with.
    came: Option<Tag>,
    /// `tag` stands in front of `came`, not in its place.
    pushed: bool,
    /// The VLAN of the tag behind `tag`, 0 for none.
    inner: u16,
    /// See [`Tags::covers`].
    covers: bool,
}

impl Inside {
    /// Without a tag, in VLAN 0.
    const PLAIN: Inside = Inside { vid: 0, tag: None, came: None, pushed: false, inner: 0, covers: false };

    fn as_it_came(tags: Tags) -> Inside {
        let vid = tags.outer.map_or(0, |tag| tag.tci.vid());
        let (tag, came) = (tags.outer, tags.outer);
        Inside { vid, tag, came, pushed: false, inner: tags.inner, covers: tags.covers }
    }

    /// In the VLAN of the port, with the priority of the tag that it came with, if it did.
    fn native(tags: Tags, vid: u16) -> Inside {
        Inside::as_it_came(tags).in_vlan(vid)
    }

    /// A copy of it in another VLAN, with the priority that it has.
    pub fn in_vlan(self, vid: u16) -> Inside {
        let tag = self.tag.unwrap_or(Tag { tpid: ethernet::DOT1Q, tci: Tci(0) });
        Inside { vid, tag: Some(Tag { tci: Tci(tag.tci.0 & 0xf000 | vid), ..tag }), ..self }
    }

    /// What makes the frame that came the one that leaves; `bare` of its tag inside.
    fn edit(&self, bare: bool, priority_tags: PriorityTags) -> Edit {
        if self.covers {
            return Edit::Keep;
        }
        if self.pushed {
            return match self.tag {
                Some(tag) if !bare => Edit::Push(tag.with_priority(self.came, priority_tags)),
                _ => Edit::between(self.came, self.came.filter(|tag| shown(*tag, priority_tags))),
            };
        }
        let wanted = match (bare, self.came) {
            (false, _) => self.tag.filter(|tag| shown(*tag, priority_tags)),
            (true, Some(came)) if priority_tags != PriorityTags::Never && came.tci.priority() != 0 => {
                Some(Tag { tpid: ethernet::DOT1Q, tci: Tci(came.tci.0 & 0xe000) })
            }
            (true, _) => None,
        };
        Edit::between(self.came, wanted)
    }
}

/// Whether a port shows a tag that the frame has inside: always when it says a VLAN or a priority. Open vSwitch's manual has
/// it that without `priority-tags` one of VLAN 0 goes, and Open vSwitch lets it pass.
fn shown(tag: Tag, priority_tags: PriorityTags) -> bool {
    tag.tci.vid() != 0 || tag.tci.priority() != 0 || priority_tags == PriorityTags::Always
}

/// What is done to the bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    Keep,
    /// This tag is put before all others.
    Push(Tag),
    /// The outer tag is taken away.
    Pop,
    /// The outer tag becomes this one.
    Replace(Tag),
}

impl Edit {
    fn between(came: Option<Tag>, wanted: Option<Tag>) -> Edit {
        match (came, wanted) {
            (None, Some(tag)) => Edit::Push(tag),
            (Some(_), None) => Edit::Pop,
            (Some(came), Some(tag)) if came != tag => Edit::Replace(tag),
            _ => Edit::Keep,
        }
    }
}

/// The frame inside, as it enters by a port with that policy. None: the port does not take it.
#[inline]
pub fn ingress(policy: Option<&VlanPolicy>, tags: Tags) -> Option<Inside> {
    match (policy, tags.outer) {
        (None, None) => Some(Inside::PLAIN),
        (None, Some(_)) => Some(Inside::as_it_came(tags)),
        (Some(policy), _) => policy.ingress(tags),
    }
}

/// What is done to a frame that leaves by a port with that policy. None: the port is not in its VLAN.
#[inline]
pub fn egress(policy: Option<&VlanPolicy>, frame: &Inside) -> Option<Edit> {
    match (policy, frame.tag) {
        (None, None) => Some(Edit::Keep),
        (None, Some(_)) => Some(frame.edit(false, PriorityTags::Never)),
        (Some(policy), _) => policy.is_member(frame).then(|| policy.edit(frame)),
    }
}

/// The same for a port that is given frames of every VLAN.
pub fn shown_by(policy: Option<&VlanPolicy>, frame: &Inside) -> Edit {
    policy.map_or_else(|| frame.edit(false, PriorityTags::Never), |policy| policy.edit(frame))
}

#[cfg(test)]
#[path = "vlan_tests.rs"]
mod tests;
