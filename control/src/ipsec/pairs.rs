//! Which tunnels share a host pair. IPsec protects pairs of hosts, not tunnels: those between the same two addresses go
//! by the same SAs, and so have to ask for the same. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

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

/// A tunnel that wants to be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The interface's name.
    pub tunnel: String,
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
    pub tunnels: Vec<String>,
}

impl WantedPair {
    /// What it is called: its first tunnel.
    pub fn name(&self) -> &str {
        self.tunnels.first().map(String::as_str).unwrap_or_default()
    }
}

/// Puts tunnels together. Of those that do not agree, who worked before stays, else the first by name; the others get a
/// text for their rows.
pub fn pair_up(mut asks: Vec<Ask>) -> (BTreeMap<PairKey, WantedPair>, BTreeMap<String, String>) {
    asks.sort_by(|a, b| (!a.stands, &a.tunnel).cmp(&(!b.stands, &b.tunnel)));
    let mut pairs = BTreeMap::<PairKey, WantedPair>::new();
    let mut refused = BTreeMap::new();
    for Ask { tunnel, key, protection, .. } in asks {
        match pairs.get_mut(&key) {
            None => {
                pairs.insert(key, WantedPair { protection, tunnels: vec![tunnel] });
            }
            Some(pair) if pair.protection == protection => pair.tunnels.push(tunnel),
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
    use crate::reconcile::protection::{Auth, Encapsulation};
    use crate::secret::SecretText;

    fn ask(tunnel: &str, remote: &str, psk: &str, stands: bool) -> Ask {
        let protection = Protection {
            auth: Auth::Psk(SecretText::new(psk)),
            encapsulation: Encapsulation::Auto,
            plaintext: false,
            ike_lifetime: None,
            esp_lifetime: None,
            liveness: None,
            local_id: None,
            remote_id: None,
        };
        let key = PairKey { local: None, remote: remote.parse().unwrap() };
        Ask { tunnel: tunnel.into(), key, protection, stands }
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
        let tunnels: Vec<_> = pairs.values().map(|p| p.tunnels.clone()).collect();
        assert_eq!(tunnels, [vec!["c", "a", "d"], vec!["e"]]);
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["b"]);
        assert!(refused["b"].starts_with("b: its IPsec options differ from those of c, "), "{refused:?}");
        let plaintext = |mut ask: Ask| {
            ask.protection.plaintext = true;
            ask
        };
        let (_, refused) = pair_up(vec![ask("a", "::1", "x", false), plaintext(ask("b", "::1", "x", false))]);
        assert_eq!(refused.len(), 1, "nobody else's tunnel makes mine send in the clear");
    }
}
