//! Tunnels in the clear between two hosts that have protected ones of the same kind. Open vSwitch has the kernel protect all
//! packets of a kind between two addresses as soon as one tunnel asks for it; here each tunnel is what its own row says. Who
//! relied on the former must hear of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::wanted::{Wanted, WantedTunnel, What};

impl Wanted {
    pub(super) fn warn_of_unprotected_tunnels(&mut self) {
        let ports = || self.bridges.values().flat_map(|bridge| &bridge.ports);
        let tunnels = || {
            ports().filter_map(|(name, port)| match &port.what {
                Ok(What::Tunnel(tunnel)) => Some((name, tunnel)),
                _ => None,
            })
        };
        let ends = |t: &WantedTunnel| (t.config.remote, t.config.in_udp);
        let mut protected = BTreeMap::<_, Vec<(Option<IpAddr>, &String)>>::new();
        for (name, tunnel) in tunnels().filter(|(_, tunnel)| tunnel.protection.is_some()) {
            protected.entry(ends(tunnel)).or_default().push((tunnel.config.local, name));
        }
        let mut warnings = Vec::new();
        for (name, tunnel) in tunnels().filter(|(_, tunnel)| tunnel.protection.is_none()) {
            let local = tunnel.config.local;
            let may_be_same = |other: Option<IpAddr>| local.is_none() || other.is_none() || local == other;
            let beside = protected.get(&ends(tunnel)).into_iter().flatten();
            if let Some((_, other)) = beside.into_iter().find(|(local, _)| may_be_same(*local)) {
                warnings.push(format!(
                    "{name}: sends in the clear, though {other} to the same host is protected: Open vSwitch would protect both; \
                     give it the same IPsec options"
                ));
            }
        }
        self.warnings.extend(warnings);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::reconcile::testing::{add_br, add_port, database, map};
    use crate::reconcile::wanted::Wanted;

    #[test]
    fn who_stands_beside_a_protected_tunnel() {
        let db = database();
        add_br(&db, "br0", json!({}));
        for (name, kind, options) in [
            ("a0", "gre", &[("remote_ip", "192.0.2.1"), ("key", "1"), ("psk", "x")][..]),
            ("a1", "gre", &[("remote_ip", "192.0.2.1"), ("key", "2")]),
            ("a2", "gre", &[("remote_ip", "192.0.2.1"), ("key", "3"), ("psk", "x")]),
            ("b0", "vxlan", &[("remote_ip", "192.0.2.1"), ("key", "2")]),
            ("c0", "gre", &[("remote_ip", "192.0.2.2")]),
            ("d0", "geneve", &[("remote_ip", "::1"), ("local_ip", "::2"), ("psk", "x")]),
            ("d1", "geneve", &[("remote_ip", "::1"), ("local_ip", "::3")]),
            ("d2", "geneve", &[("remote_ip", "::1")]),
        ] {
            add_port(&db, "br0", name, json!({"type": kind, "options": map(options)}), json!({}));
        }
        let mut warnings = Wanted::from_database(db.borrow().db()).warnings;
        warnings.sort();
        let beginnings = ["a1: sends in the clear, though a0 ", "d2: sends in the clear, though d0 "];
        assert_eq!(warnings.len(), beginnings.len(), "{warnings:?}");
        assert!(warnings.iter().zip(beginnings).all(|(w, begins)| w.starts_with(begins)), "{warnings:?}");
    }
}
