//! Which ports' devices the host's own stack takes nothing from, and which addresses bridges go by: as with Open vSwitch's kernel
//! datapath, a device without addresses of its own that is a port is the switch's alone, and the bridge's own port has the lowest
//! Ethernet address of such devices that a manufacturer gave.

use std::collections::{BTreeMap, BTreeSet};

use datapath::port::fence::{Fence, Fenced};

use super::Reconciler;
use super::actual::{Attachment, BridgeState};
use super::mirrors::Output;
use super::wanted::Wanted;
use crate::devices::netlink::{Link, Links};
use crate::devices::reason;

/// Kinds of devices that live on what another one receives, before its own stack or instead of it.
const GUESTS: [&str; 5] = ["macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"];

/// The program, and where it is at work.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// None: not needed yet. Err: not to be had, which was said.
    fence: Option<Result<Fence, ()>>,
    /// By the index of the device.
    at: BTreeMap<u32, Fenced>,
}

impl Fences {
    /// Works at the devices with these indices, and nowhere else.
    fn follow(&mut self, wanted: BTreeSet<u32>) {
        self.at.retain(|index, _| wanted.contains(index));
        for index in wanted {
            if self.at.contains_key(&index) {
                continue;
            }
            let fence = self.fence.get_or_insert_with(|| {
                Fence::open().map_err(|e| {
                    tracing::warn!(
                        "what comes in by a port goes to the host's own stack, too, if it is for the host: {} (needs Linux 6.6 and CAP_BPF or CAP_SYS_ADMIN)",
                        reason(&e)
                    );
                })
            });
            let Ok(fence) = fence else { return };
            match fence.attach(index) {
                Ok(fenced) => drop(self.at.insert(index, fenced)),
                // the device has gone, or will be tried again
                Err(e) => tracing::debug!("device {index}: the host's stack takes from it: {}", reason(&e)),
            }
        }
    }
}

impl Reconciler {
    /// Keeps the host's stack away from devices that are the switch's alone.
    pub(super) async fn follow_fences(&mut self, wanted: &Wanted) {
        let mut alone: BTreeSet<u32> = {
            let state = self.state.borrow();
            let ports = state.bridges.iter().flat_map(|(b, bridge)| bridge.ports.iter().map(move |p| (b, p)));
            let asked = |bridge: &str, name: &str| {
                let wish = wanted.bridges.get(bridge).and_then(|b| b.ports.get(name));
                wish.is_some_and(|wish| !wish.host_input)
            };
            let direct = ports.filter_map(|(bridge, (name, port))| match port.attachment {
                Attachment::Direct { ifindex } if asked(bridge, name) => Some(ifindex),
                _ => None,
            });
            direct.filter(|index| can_be_alone(*index, &self.links)).collect()
        };
        if !alone.is_empty() {
            match self.netlink.addressed().await {
                Ok(addressed) => alone.retain(|index| !addressed.contains(index)),
                Err(e) => {
                    tracing::warn!("cannot list the host's addresses: {}", reason(&e));
                    alone.retain(|index| self.fences.at.contains_key(index));
                }
            }
        }
        self.fences.follow(alone);
    }

    /// The Ethernet address that a bridge's own port has from its devices.
    pub(super) fn inherited_mac(&self, bridge: &BridgeState) -> Option<[u8; 6]> {
        let is_output = |name: &String| {
            let outputs = bridge.mirrors.iter().map(|mirror| &mirror.wanted.output);
            outputs.into_iter().any(|output| matches!(output, Output::Port(ports) if ports.contains(name)))
        };
        let devices = bridge.ports.iter().filter(|(name, _)| !is_output(name));
        // of a bond, the first by name stands for all
        let mut bonds = BTreeSet::new();
        let devices = devices.filter(|(_, port)| port.bond.as_ref().is_none_or(|bond| bonds.insert(bond)));
        let fenced = devices.filter_map(|(_, port)| match port.attachment {
            Attachment::Direct { ifindex } if self.fences.at.contains_key(&ifindex) => {
                self.links.by_index(ifindex)
            }
            _ => None,
        });
        fenced.map(|link| link.mac).filter(is_given).min()
    }
}

/// Whether nobody else lives on what the device receives.
fn can_be_alone(index: u32, links: &Links) -> bool {
    let guest = |link: &Link| link.below == index && GUESTS.contains(&link.kind.as_str());
    links.by_index(index).is_some_and(|link| !link.is_bridge() && link.master == 0)
        && !links.iter().any(guest)
}

/// A station's address, and not one that somebody made up.
fn is_given(mac: &[u8; 6]) -> bool {
    *mac != [0; 6] && mac[0] & 0b11 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_others_live_on_are_shared() {
        let link = |index: u32, kind: &str, master: u32, below: u32| Link {
            index,
            kind: kind.into(),
            master,
            below,
            ..Link::default()
        };
        let links: Links = [
            link(1, "", 0, 0),
            link(2, "", 0, 0),
            link(3, "macvlan", 0, 2),
            link(4, "bridge", 0, 0),
            link(5, "veth", 4, 6),
            link(6, "veth", 0, 5),
            link(7, "", 0, 0),
            link(8, "vlan", 0, 7),
        ]
        .into_iter()
        .collect();
        for (index, want) in
            [(1, true), (2, false), (4, false), (5, false), (6, true), (7, true), (99, false)]
        {
            assert_eq!(can_be_alone(index, &links), want, "{index}");
        }
    }

    #[test]
    fn addresses_that_were_given() {
        for (first, want) in [(0x00, true), (0x52, false), (0x02, false), (0x01, false), (0xf4, true)] {
            assert_eq!(is_given(&[first, 0, 0, 0, 0, 1]), want, "{first:#x}");
        }
        assert!(!is_given(&[0; 6]));
    }
}
