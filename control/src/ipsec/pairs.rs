//! Which tunnels share a host pair. IPsec protects pairs of hosts, not tunnels: those between the same two addresses have
//! their keys from one IKE SA, and so have to ask for the same; those of one kind go by the same SAs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::port::InUdp;
use ikev2::Selector;

use crate::reconcile::protection::Protection;

/// Two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairKey {
    /// This host's address, once there is a route to the other.
    pub local: Option<IpAddr>,
    /// The other host's.
    pub remote: IpAddr,
}

impl std::fmt::Display for PairKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.local {
            Some(local) => write!(f, "{local} - {}", self.remote),
            None => write!(f, "? - {}", self.remote),
        }
    }
}

/// What a tunnel's packets are in: GRE, or something in UDP.
pub type Kind = Option<InUdp>;

/// The child SAs that tunnels of a kind need: first the one that they send by.
pub fn selectors(kind: Kind) -> Vec<Selector> {
    match kind.map(InUdp::port) {
        None => vec![Selector::Gre],
        Some(port) => vec![Selector::UdpOut(port), Selector::UdpIn(port)],
    }
}

/// A tunnel that wants to be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The interface's name.
    pub tunnel: String,
    /// What its packets are in.
    pub kind: Kind,
    /// Between whom.
    pub key: PairKey,
    /// How.
    pub protection: Protection,
    /// It worked before.
    pub stands: bool,
}

/// A host pair, and who is protected with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPair {
    /// As its first tunnel asks.
    pub protection: Protection,
    /// Never empty. The first gives the pair its name.
    pub tunnels: Vec<(String, Kind)>,
}

impl WantedPair {
    /// What it is called: its first tunnel.
    pub fn name(&self) -> &str {
        self.names().next().unwrap_or_default()
    }

    /// Its tunnels' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tunnels.iter().map(|(name, _)| name.as_str())
    }

    /// What its tunnels' packets are in.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.tunnels.iter().map(|(_, kind)| *kind).collect()
    }

    /// The tunnel of another kind that has the UDP port of this one: no SA could tell them apart.
    fn rival(&self, kind: Kind) -> Option<&str> {
        let port = kind?.port();
        let rival = |(_, other): &&(String, Kind)| *other != kind && other.is_some_and(|o| o.port() == port);
        self.tunnels.iter().find(rival).map(|(name, _)| name.as_str())
    }
}

/// Puts tunnels together. Of those that do not agree, who worked before stays, else the first by name; the others get a
/// text for their rows.
pub fn pair_up(mut asks: Vec<Ask>) -> (BTreeMap<PairKey, WantedPair>, BTreeMap<String, String>) {
    asks.sort_by(|a, b| (!a.stands, &a.tunnel).cmp(&(!b.stands, &b.tunnel)));
    let mut pairs = BTreeMap::<PairKey, WantedPair>::new();
    let mut refused = BTreeMap::new();
    for Ask { tunnel, kind, key, protection, .. } in asks {
        match pairs.get_mut(&key) {
            None => {
                pairs.insert(key, WantedPair { protection, tunnels: vec![(tunnel, kind)] });
            }
            Some(pair) if pair.protection == protection => match pair.rival(kind) {
                None => pair.tunnels.push((tunnel, kind)),
                Some(first) => {
                    let why = format!(
                        "{tunnel}: {first} has its UDP port already; set another one (options:dst_port)"
                    );
                    refused.insert(tunnel, why);
                }
            },
            Some(pair) => {
                let first = pair.name();
                let why = format!(
                    "{tunnel}: its IPsec options differ from those of {first}, which leads to the same host; \
                     all tunnels between two hosts share their keys"
                );
                refused.insert(tunnel, why);
            }
        }
    }
    (pairs, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::protection::Auth;
    use crate::secret::SecretText;

    fn ask(tunnel: &str, remote: &str, psk: &str, stands: bool) -> Ask {
        let protection = Protection::by(Auth::Psk(SecretText::new(psk)));
        let key = PairKey { local: None, remote: remote.parse().unwrap() };
        Ask { tunnel: tunnel.into(), kind: None, key, protection, stands }
    }

    #[test]
    fn tunnels_between_two_hosts_share_or_are_refused() {
        let (pairs, refused) = pair_up(vec![
            ask("d", "192.0.2.1", "x", false),
            ask("b", "192.0.2.1", "y", false),
            ask("c", "192.0.2.1", "x", true),
            ask("a", "192.0.2.1", "x", false),
            ask("e", "192.0.2.2", "y", false),
        ]);
        let tunnels: Vec<_> = pairs.values().map(|p| p.names().collect::<Vec<_>>()).collect();
        assert_eq!(tunnels, [vec!["c", "a", "d"], vec!["e"]]);
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["b"]);
        assert!(refused["b"].starts_with("b: its IPsec options differ from those of c, "), "{refused:?}");
        let of = |kind, ask| Ask { kind: Some(kind), ..ask };
        let (pairs, refused) = pair_up(vec![
            ask("a", "192.0.2.1", "x", false),
            of(InUdp::Vxlan(4789), ask("b", "192.0.2.1", "x", false)),
            of(InUdp::Geneve(4789), ask("c", "192.0.2.1", "x", false)),
            of(InUdp::Geneve(6081), ask("d", "192.0.2.1", "x", false)),
        ]);
        assert_eq!(pairs.values().next().unwrap().kinds().len(), 3);
        assert!(refused["c"].starts_with("c: b has its UDP port already"), "{refused:?}");
        let plaintext = |mut ask: Ask| {
            ask.protection.plaintext = true;
            ask
        };
        let (_, refused) = pair_up(vec![ask("a", "::1", "x", false), plaintext(ask("b", "::1", "x", false))]);
        assert_eq!(refused.len(), 1, "nobody else's tunnel makes mine send in the clear");
    }
}
