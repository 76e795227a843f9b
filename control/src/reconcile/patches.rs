//! Patch ports: pairs that name each other, each in its bridge or both in one.

use std::collections::BTreeMap;
use std::sync::Arc;

use datapath::snapshot::{Patch, Port, PortId, PortKind};

use super::Reconciler;
use super::actual::State;

impl Reconciler {
    /// Joins patch ports to their peers as they are now, and parts them from those that are gone.
    pub(super) fn join_patches(&mut self) {
        let news = news(&self.state.borrow());
        for (bridge, name, patch) in news {
            self.replace(&bridge, &name, |port| Port {
                kind: PortKind::Patch(Arc::new(patch)),
                ..port.clone()
            });
        }
    }
}

/// What patch ports must be, that are not: (bridge, port, patch).
fn news(state: &State) -> Vec<(String, String, Patch)> {
    let patches = || {
        let ports = state.bridges.iter().flat_map(|(b, s)| s.ports.iter().map(move |(n, p)| (b, n, &p.port)));
        ports.filter_map(|(bridge, name, port)| match &port.kind {
            PortKind::Patch(patch) => Some((bridge, name, port.id, patch)),
            PortKind::Local(_) | PortKind::Tunnel(_) => None,
        })
    };
    let by_name: BTreeMap<&str, (PortId, &str)> =
        patches().map(|(_, name, id, patch)| (name.as_str(), (id, patch.name.as_str()))).collect();
    patches()
        .filter_map(|(bridge, name, _, patch)| {
            let peer = by_name.get(patch.name.as_str()).filter(|(_, back)| back == name).map(|(id, _)| *id);
            let changed = (peer != patch.peer).then(|| Patch { peer, ..(**patch).clone() })?;
            Some((bridge.clone(), name.clone(), changed))
        })
        .collect()
}
