//! Which ports are watched, by BFD and CFM.

use super::Reconciler;
use super::report::device;
use super::wanted::Wanted;
use crate::devices::mac_for;
use crate::watch::Port;
use datapath::snapshot::{PortKind, Watch};
use ovsdb::{RowUpdate, Server};
use std::cell::RefCell;

impl Reconciler {
    /// Has ports watched where the rows want it, if they work; and has workers pass up what is for those who watch.
    pub(super) fn follow_watch(&mut self, wanted: &Wanted) {
        let (mut sessions, mut points) = (Vec::new(), Vec::new());
        let mut marks = Vec::new();
        for (bridge_name, bridge) in &wanted.bridges {
            for (name, port) in &bridge.ports {
                let state = self.state.borrow();
                let Some(standing) = state.bridges.get(bridge_name).and_then(|b| b.ports.get(name)) else {
                    continue;
                };
                let bfd = port.bfd.as_ref().map(|config| [config.src_ip.octets(), config.dst_ip.octets()]);
                let cfm = port.cfm.as_ref().map(::cfm::Config::destination);
                let mark = (bfd.is_some() || cfm.is_some()).then_some(Watch { bfd, cfm });
                if standing.port.watch != mark {
                    marks.push((bridge_name, name, mark));
                }
                let Some(row) = port.row.filter(|_| mark.is_some()) else { continue };
                let keyed = matches!(&standing.port.kind, PortKind::Tunnel(t) if t.config.in_key.is_some_and(|key| key != 0));
                let mac = device(&standing.attachment, &self.links)
                    .map_or_else(|| mac_for(&[bridge_name, name]), |link| link.mac);
                let (id, counters) = (standing.port.id, &standing.port.counters);
                if let Some(config) = port.bfd.clone() {
                    let (name, counters) = (name.clone(), counters.clone());
                    let deaf = keyed && config.check_tnl_key;
                    sessions.push(Port { name, row, id, mac, deaf, counters, config });
                }
                if let Some(config) = port.cfm.clone() {
                    let (name, counters) = (name.clone(), counters.clone());
                    points.push(Port { name, row, id, mac, deaf: false, counters, config });
                }
            }
        }
        for (bridge, name, watch) in marks {
            self.replace(bridge, name, |port| datapath::snapshot::Port { watch, ..port.clone() });
        }
        let (bfd, cfm) = (self.state.borrow().bfd.clone(), self.state.borrow().cfm.clone());
        bfd.follow(sessions);
        cfm.follow(points);
    }

    /// Those who watch have news: for rows, and for those who choose by it where frames go.
    pub(super) fn write_watched(&self, db: &RefCell<Server>, updates: &[RowUpdate]) {
        self.write(db, updates);
        self.look_at_bonds();
        self.spanning.look_at_watch();
    }
}
