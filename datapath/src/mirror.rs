//! Mirrors (SPAN): copies of what passes a bridge, for a port or a VLAN where somebody watches. Which frames are copied.

use std::sync::Arc;

use crate::counters::PortCounters;
use crate::snapshot::PortId;
use crate::vlan::VlanSet;

/// A row of table Mirror, as workers go by it.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Its name, for logs.
    pub name: String,
    /// Frames that come in by these are copied.
    pub sources: PortSet,
    /// And those that leave by these.
    pub destinations: PortSet,
    /// Of those only the ones in these VLANs. None: all.
    pub vlans: Option<Arc<VlanSet>>,
    /// Where copies go.
    pub output: MirrorOutput,
    /// Bytes of a frame that are copied. None: all.
    pub snaplen: Option<u32>,
    /// How much was copied: `tx_packets` and `tx_bytes`, of whole frames.
    pub counters: Arc<PortCounters>,
}

/// Where copies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorOutput {
    /// To a port that has no other traffic, and takes nothing in.
    Port(PortId),
    /// To every port of a VLAN.
    Vlan(u16),
}

impl Mirror {
    /// Whether frames of a VLAN are copied.
    pub fn watches(&self, vlan: u16) -> bool {
        self.vlans.as_ref().is_none_or(|set| set.contains(vlan))
    }
}

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<u64>);

impl PortSet {
    /// Whether the port is in it.
    #[inline]
    pub fn contains(&self, port: PortId) -> bool {
        self.0.get(usize::from(port.0 / 64)).is_some_and(|word| word >> (port.0 % 64) & 1 != 0)
    }
}

impl FromIterator<PortId> for PortSet {
    fn from_iter<T: IntoIterator<Item = PortId>>(ports: T) -> PortSet {
        let mut set = PortSet::default();
        for PortId(port) in ports {
            let at = usize::from(port / 64);
            if set.0.len() <= at {
                set.0.resize(at + 1, 0);
            }
            if let Some(word) = set.0.get_mut(at) {
                *word |= 1 << (port % 64);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_ports() {
        let set: PortSet = [0, 63, 64, 1000].map(PortId).into_iter().collect();
        let held: Vec<u16> = (0..=u16::MAX).filter(|id| set.contains(PortId(*id))).collect();
        assert_eq!(held, [0, 63, 64, 1000]);
        assert!(!PortSet::default().contains(PortId(0)));
    }
}
