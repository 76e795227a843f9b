//! Which ports run BFD.

use super::Reconciler;
use super::wanted::Wanted;
use crate::bfd::Port;
use crate::devices::mac_for;
use datapath::snapshot::PortKind;

impl Reconciler {
    /// Has sessions where the rows want them, on ports that work; and has workers pass up what is for those.
    pub(super) fn follow_bfd(&mut self, wanted: &Wanted) {
        let mut sessions = Vec::new();
        let mut marks = Vec::new();
        for (bridge_name, bridge) in &wanted.bridges {
            for (name, port) in &bridge.ports {
                let state = self.state.borrow();
                let Some(standing) = state.bridges.get(bridge_name).and_then(|b| b.ports.get(name)) else {
                    continue;
                };
                let mark = port.bfd.as_ref().map(|config| [config.src_ip.octets(), config.dst_ip.octets()]);
                if standing.port.bfd != mark {
                    marks.push((bridge_name, name, mark));
                }
                let (Some(config), Some(row)) = (&port.bfd, port.row) else { continue };
                let keyed = matches!(&standing.port.kind, PortKind::Tunnel(t) if t.config.in_key.is_some_and(|key| key != 0));
                sessions.push(Port {
                    name: name.clone(),
                    row,
                    id: standing.port.id,
                    mac: mac_for(&[bridge_name.as_str(), name.as_str()]),
                    deaf: keyed && config.check_tnl_key,
                    counters: standing.port.counters.clone(),
                    config: config.clone(),
                });
            }
        }
        for (bridge, name, mark) in marks {
            self.replace(bridge, name, |port| datapath::snapshot::Port { bfd: mark, ..port.clone() });
        }
        let bfd = self.state.borrow().bfd.clone();
        bfd.follow(sessions);
    }
}
