//! Two IKE SAs with one peer, made from scratch: by both sides at once, or one for the other.

use std::time::Duration;

use super::Cx;
use super::established::{IkeSa, Task};
use crate::endpoint::peer::{Peer, Session};

/// Who made an IKE SA that is superfluous deletes it after so long: by then the peer has the other one, too.
const OWN: Duration = Duration::from_secs(5);
/// The other end does so after so long, or up to double that, if who made it has not: other implementations go by rules of
/// their own.
const OTHERS: Duration = Duration::from_secs(60);

/// `new` has just been established. What it makes superfluous goes.
pub(crate) fn arrive(new: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, initial_contact: bool) {
    if !new.channel.initiator {
        // Our own attempt, not yet answered, is needless. One of which the peer may hold a part goes on
        peer.sessions.retain(|_, session| !matches!(session, Session::Init(init) if init.replaces.is_none()));
    }
    if new.replaces.is_some() {
        // In its turn: once it has child SAs for all that the old one has some for
        new.queue(Task::Supersede);
    }
    peer.keep_to_limits(cx);
    let others: Vec<_> = peer.open().filter(|other| Some(other.id) != new.replaces).map(|sa| sa.id).collect();
    for id in others {
        let Some(Session::Established(other)) = peer.sessions.get_mut(&id) else { continue };
        // RFC 7296 2.4: the peer has restarted. What came to be while it was asking for this it cannot have known of
        if initial_contact && other.born < new.begun {
            peer.drop_session(cx, id, "the peer has restarted");
            continue;
        }
        // As with rekeying, the lowest of four nonces loses: both of us see it alike, whatever was first at which end.
        // Of others who make a new one, the newer one has its reasons
        let newer_loses = new.underpass && new.rank < other.rank;
        let loser = if newer_loses { &mut *new } else { &mut **other };
        loser.prune_at = Some(if loser.made_here { cx.now + OWN } else { cx.soon(OTHERS) });
    }
}

/// Its time has come: whether there still is an IKE SA that makes this one superfluous. As long as the peer may not know
/// of that one, it is waited for.
pub(crate) fn is_superfluous(sa: &mut IkeSa, cx: &Cx<'_>, peer: &Peer) -> bool {
    let mut better = peer.open().filter(|other| !sa.underpass || other.rank > sa.rank).peekable();
    let any = better.peek().is_some();
    let superfluous = better.any(|other| peer.children.any_ready(other.id));
    sa.prune_at = (any && !superfluous).then(|| cx.now + OWN);
    superfluous
}
