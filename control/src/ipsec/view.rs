//! What operators see: an interface's `status` and `error`, and `ipsec/status`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use ikev2::auth::{Credential, Trust};
use ikev2::{ChildState, ChildStatus, IkeState, IkeStatus, PeerState, PeerStatus, Selector};

use super::Ipsec;
use super::credentials::Loaded;
use super::pairs::{Kind, PairKey, selectors};
use super::peers::Pair;
use super::sas::Sas;

/// What a tunnel's row says of its protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// There is an SA to send by.
    pub up: bool,
    /// For column `status`.
    pub status: Vec<(&'static str, String)>,
    /// For column `error`: why it is not up, as far as that is known.
    pub error: Option<String>,
}

impl Ipsec {
    /// Every protected tunnel, by name.
    pub fn views(&self) -> BTreeMap<String, View> {
        self.visit(|key, pair, peer, blocked| {
            let view = |(tunnel, kind): &(String, Kind)| {
                (tunnel.clone(), view(tunnel, *kind, key, pair, peer, blocked))
            };
            pair.wanted.tunnels.iter().map(view).collect::<Vec<_>>()
        })
        .into_iter()
        .flatten()
        .collect()
    }

    /// `ipsec/status [name]`: everything about the host pairs of all tunnels, or of one. Err: there is no such tunnel.
    pub fn status(&self, tunnel: Option<&str>) -> Result<String, String> {
        let shown = |pair: &Pair| tunnel.is_none_or(|name| pair.wanted.names().any(|t| t == name));
        let state = self.state.borrow();
        let texts = self.visit(|key, pair, peer, blocked| {
            shown(pair).then(|| pair_text(key, pair, peer, blocked, &state.sas))
        });
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        match (texts.is_empty(), tunnel) {
            (true, Some(name)) => Err(format!("{name}: no tunnel that IPsec protects has this name")),
            (true, None) => Ok("No tunnel asks for IPsec".into()),
            (false, _) => Ok(texts.join("\n")),
        }
    }

    /// Goes over the pairs, each with what the engine says of it and why its family has no sockets.
    fn visit<T>(
        &self,
        mut visit: impl FnMut(&PairKey, &Pair, Option<&PeerStatus>, Option<&str>) -> T,
    ) -> Vec<T> {
        let (peers, sockets) = (self.peers.borrow(), self.sockets.borrow());
        let known = peers.engine.status(Instant::now());
        let known: BTreeMap<_, _> = known.iter().map(|status| (status.peer, status)).collect();
        let visit = |(key, pair): (&PairKey, &Pair)| {
            visit(key, pair, known.get(&pair.peer).copied(), sockets.trouble(key.remote.is_ipv6()))
        };
        peers.pairs.iter().map(visit).collect()
    }
}

/// What is wrong, the plainest cause first. Nothing is while there is an SA, but for files that cannot be read.
fn trouble(key: &PairKey, pair: &Pair, up: bool, blocked: Option<&str>) -> Option<String> {
    let unreadable = pair.unreadable.as_deref();
    if up {
        return unreadable.map(str::to_owned);
    }
    let no_route = || key.local.is_none().then(|| format!("there is no route to {}", key.remote));
    let known = blocked.or(unreadable).map(str::to_owned);
    known.or_else(no_route).or_else(|| pair.trouble().map(str::to_owned))
}

fn view(
    tunnel: &str,
    kind: Kind,
    key: &PairKey,
    pair: &Pair,
    peer: Option<&PeerStatus>,
    blocked: Option<&str>,
) -> View {
    let needs = selectors(kind);
    let current = |selector: &Selector| {
        peer.and_then(|p| p.children.iter().find(|child| child.outbound && child.selector == *selector))
    };
    let up = needs.iter().all(|selector| current(selector).is_some());
    let state = match peer.map_or(PeerState::Down, |p| p.state) {
        _ if up => PeerState::Up,
        // Something else between the two hosts is
        PeerState::Up | PeerState::Connecting => PeerState::Connecting,
        PeerState::Down => PeerState::Down,
    };
    let mut status = vec![("ipsec", state_word(state).to_owned())];
    if let Some(peer) = peer {
        if let Some(ike) = peer.ike.iter().rev().find(|ike| ike.state == IkeState::Established) {
            status.extend(ike.suite.map(|suite| ("ipsec_ike", suite.to_string())));
            status.extend(ike.remote_id.as_ref().map(|id| ("ipsec_peer", id.to_string())));
        }
        if let Some(child) = needs.first().and_then(current) {
            status.push(("ipsec_esp", child.suite.to_string()));
            status.push(("ipsec_encapsulation", if child.udp.is_some() { "udp" } else { "esp" }.to_owned()));
        }
    }
    let error = trouble(key, pair, up, blocked).map(|why| format!("{tunnel}: {why}"));
    View { up, status, error }
}

fn pair_text(
    key: &PairKey,
    pair: &Pair,
    peer: Option<&PeerStatus>,
    blocked: Option<&str>,
    sas: &Sas,
) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {:<16}{value}", format!("{name}:"));
    };
    line("Hosts", &key.to_string());
    line("State", state_word(peer.map_or(PeerState::Down, |p| p.state)));
    line("Authentication", &authentication(&pair.loaded));
    if pair.wanted.protection.plaintext {
        line("Plaintext", "accepted; sent while there is no SA");
    }
    let up = peer.is_some_and(|p| p.state == PeerState::Up);
    let last = trouble(key, pair, up, blocked).or_else(|| peer?.last_error.clone());
    line("Last error", last.as_deref().unwrap_or("none"));
    if let Some(retry) = peer.and_then(|p| p.retry_in) {
        line("Next attempt", &format!("in {}", time(retry)));
    }
    for ike in peer.iter().flat_map(|p| &p.ike) {
        out += &ike_text(ike);
    }
    for child in peer.iter().flat_map(|p| &p.children) {
        out += &child_text(child, sas);
    }
    format!("Tunnel {}\n{out}", pair.wanted.names().collect::<Vec<_>>().join(", "))
}

fn authentication(loaded: &Loaded) -> String {
    let own = match &loaded.credential {
        Credential::Psk(_) => "pre-shared key".to_owned(),
        Credential::Certificate(_) => {
            let name = loaded.credential.identity().map(ToString::to_string).unwrap_or_default();
            format!("certificate of {name}")
        }
    };
    let peer = match &loaded.trust {
        Trust::Psk(_) => String::new(),
        Trust::Pinned(_) => "; the peer's certificate is pinned".to_owned(),
        Trust::Authority { name: Some(name), .. } => format!("; the peer has to be {name}"),
        Trust::Authority { name: None, .. } => "; the peer may be anybody of the CA".to_owned(),
    };
    own + &peer
}

fn ike_text(ike: &IkeStatus) -> String {
    let state = match ike.state {
        IkeState::Connecting => "connecting",
        IkeState::Established => "established",
        IkeState::Rekeying => "being rekeyed",
        IkeState::Rekeyed => "rekeyed",
        IkeState::Deleting => "being deleted",
    };
    let spi = |spi: [u8; 8]| format!("{:016x}", u64::from_be_bytes(spi));
    let role = |initiator: bool| if ike.initiator == initiator { "*" } else { "" };
    let (i, r) = (spi(ike.spi_i), spi(ike.spi_r));
    let mut out = format!("  IKE SA {i}{}:{r}{}: {state}, {} old\n", role(true), role(false), time(ike.age));
    let id = |id: &Option<ikev2::auth::Identity>| id.as_ref().map_or("?".to_owned(), ToString::to_string);
    let (local, remote) = (ike.path.local, ike.path.remote);
    let _ = writeln!(out, "    {local} [{}] - {remote} [{}]", id(&ike.local_id), id(&ike.remote_id));
    let suite = ike.suite.map_or("not chosen yet".to_owned(), |s| s.to_string());
    let _ = write!(out, "    Algorithms:   {suite}");
    let notes = [
        (ike.nat_local, "NAT before us"),
        (ike.nat_remote, "NAT before the peer, or UDP forced"),
        (ike.underpass, "the peer is Underpass"),
    ];
    notes.iter().filter(|(is_so, _)| *is_so).for_each(|(_, note)| {
        let _ = write!(out, "; {note}");
    });
    out += "\n";
    let heard = ike.heard.map_or("never".to_owned(), |t| format!("{} ago", time(t)));
    let _ = writeln!(out, "    Peer heard:   {heard}");
    out + &limits(ike.rekey_in, ike.expires_in)
}

fn child_text(child: &ChildStatus, sas: &Sas) -> String {
    let state = match child.state {
        ChildState::Installed => "installed",
        ChildState::Rekeying => "being rekeyed",
        ChildState::Rekeyed => "rekeyed",
        ChildState::Deleting => "being deleted",
        ChildState::Draining => "deleted, still received by",
    };
    let road = child.udp.map_or("ESP".to_owned(), |udp| format!("ESP in UDP {}-{}", udp.local, udp.remote));
    let mut out = format!(
        "  Child SA {:08x} in, {:08x} out: {state}{}, {} old\n",
        child.spi_in,
        child.spi_out,
        if child.outbound { ", sent by" } else { "" },
        time(child.age)
    );
    let _ = writeln!(
        out,
        "    Algorithms:   {}, transport mode, {road}\n    Selectors:    {}[{}] - {}[{}]",
        child.suite,
        child.local,
        child.selector.at_local(),
        child.remote,
        child.selector.at_remote()
    );
    let installed = sas.children().map(|(_, installed)| installed).find(|i| i.child.id == child.id);
    // The engine's figures are a second old, the datapath's are of now
    if let Some((inbound, outbound)) = installed.map(|i| (i.inbound.usage(), i.outbound.usage())) {
        let _ = writeln!(
            out,
            "    Received:     {} packets, {} bytes; refused: {} replayed, {} forged\n    \
             Sent:         {} packets, {} bytes",
            inbound.packets,
            inbound.bytes,
            inbound.replayed,
            inbound.forged,
            outbound.packets,
            outbound.bytes
        );
    }
    out + &limits(child.rekey_in, child.expires_in)
}

fn limits(rekey: Option<Duration>, expiry: Option<Duration>) -> String {
    let rekey = rekey.map(|t| format!("    Rekey:        in {}\n", time(t)));
    let expiry = expiry.map(|t| format!("    Expires:      in {}\n", time(t)));
    rekey.into_iter().chain(expiry).collect()
}

fn state_word(state: PeerState) -> &'static str {
    match state {
        PeerState::Down => "down",
        PeerState::Connecting => "connecting",
        PeerState::Up => "up",
    }
}

/// `1 h 2 min`, `3 min 4 s`, `5 s`.
fn time(t: Duration) -> String {
    let s = t.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (s, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (86461, "24 h 1 min")]
        {
            assert_eq!(time(Duration::from_secs(s)), text);
        }
    }
}
