//! Ports that are members of bonds, and those that are so no longer.

use datapath::snapshot::{Port, StpState};
use std::sync::Arc;

use super::Reconciler;
use super::wanted::Wanted;

impl Reconciler {
    /// Has bonds as they are wanted, and of their members those forward that are chosen.
    pub(super) fn follow_bonds(&mut self, wanted: &Wanted) {
        let mut state = self.state.borrow_mut();
        for (bridge_name, bridge) in &mut state.bridges {
            let Some(wish) = wanted.bridges.get(bridge_name) else { continue };
            bridge.holders.retain(|bond, _| wish.bonds.contains_key(bond));
            for (name, port) in &mut bridge.ports {
                let bond = wish.ports.get(name).and_then(|wish| wish.bond.clone());
                if port.bond == bond {
                    continue;
                }
                let stp = match bond {
                    Some(_) => StpState::Backup,
                    None => self.spanning.first_state(bridge_name, name),
                };
                port.bond = bond;
                port.port = Arc::new(Port { stp, ..Port::clone(&port.port) });
                // who was behind the port alone is not behind the bond, nor the other way round
                self.redirected.push((port.fdb.clone(), port.port.id));
                self.dirty = true;
            }
        }
        let bonds = state.bonds.clone();
        self.dirty |= bonds.follow(wanted, &mut state, &self.links);
    }

    /// Links may have changed: bonds, which publish what they choose, need not wait for a pass.
    pub(super) fn look_at_bonds(&self) {
        let mut state = self.state.borrow_mut();
        let bonds = state.bonds.clone();
        bonds.look(&mut state, &self.links);
    }
}
