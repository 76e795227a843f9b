//! Two IKE SAs with one peer, made from scratch: by both sides at once, or one for the other.

use std::time::Duration;

use super::Cx;
use super::established::IkeSa;
use crate::endpoint::peer::{Peer, Session};

/// A peer that has made a new IKE SA deletes the old one within so long, or we do.
const PRUNE: Duration = Duration::from_secs(30);

/// `new` has just been established. What it makes superfluous goes.
pub(crate) fn arrive(new: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, initial_contact: bool) {
    if !new.channel.initiator {
        // Our own attempt, not yet answered, is needless. One of which the peer may hold a part goes on
        peer.sessions.retain(|_, session| !matches!(session, Session::Init(init) if init.replaces.is_none()));
    }
    if let Some(old) = new.replaces {
        peer.close(cx, old, "a new IKE SA has taken its place");
    }
    while peer.sessions.len() >= cx.limits.ike_per_peer
        && let Some(oldest) = peer.sessions.keys().next().copied()
    {
        peer.drop_session(cx, oldest, "the peer has made too many IKE SAs");
    }
    let others: Vec<_> = peer.open().filter(|other| Some(other.id) != new.replaces).map(|sa| sa.id).collect();
    for id in others {
        let Some(Session::Established(other)) = peer.sessions.get_mut(&id) else { continue };
        // One that was made at the same time the peer cannot have known of
        let concurrent = other.born >= new.begun;
        if !concurrent && initial_contact {
            // RFC 7296 2.4: the peer has restarted
            peer.drop_session(cx, id, "the peer has restarted");
            continue;
        }
        if !(concurrent && new.underpass && other.channel.initiator != new.channel.initiator) {
            // Whoever wanted the newer one deletes the other: other implementations go by rules of their own
            other.prune_at = Some(cx.now + PRUNE);
            continue;
        }
        // As with rekeying, the lowest of four nonces loses, and who made that IKE SA deletes it
        let loser = if new.lowest < other.lowest { &mut *new } else { &mut **other };
        if !loser.channel.initiator {
            loser.prune_at = Some(cx.now + PRUNE);
        } else if loser.id == id {
            peer.close(cx, id, "it is redundant");
        } else {
            new.close(cx, peer, "it is redundant");
            return;
        }
    }
}
