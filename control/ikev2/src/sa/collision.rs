//! Two IKE SAs with one peer, made from scratch, or two child SAs of one IKE SA for the same traffic: by both sides at once,
//! or one for the other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Cx;
use super::children::ChildSa;
use super::delete;
use super::established::{IkeSa, Task};
use crate::endpoint::peer::{Peer, Session};
use crate::output::ChildId;
use crate::selector::Selector;
use crate::status::ChildState;

/// A peer that cannot just now is asked again after so long, or double that.
const SOON: Duration = Duration::from_secs(1);
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

/// Deletes the IKE SA that this one takes the place of, once this one has child SAs for all that is to be protected, but for
/// what the peer refuses.
pub(crate) fn supersede(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer) {
    let config = peer.config.clone();
    let lacks =
        |selector: &&Selector| !sa.refused.contains(selector) && !peer.children.has(sa.id, **selector);
    let lacking: Vec<_> = config.protects.iter().filter(lacks).collect();
    let again = sa.again_at.take();
    if lacking.is_empty() && !sa.told {
        // Any request will do. If the peer did not know when the old ones go, it might go on by one that it has granted
        // elsewhere, and which we have not
        sa.queue(Task::Liveness);
        sa.queue(Task::Supersede);
    } else if lacking.is_empty() {
        if let Some(old) = sa.replaces.take() {
            peer.close(cx, old, "a new IKE SA has taken its place");
        }
    } else if again.is_none() {
        // The peer could not just now
        sa.again_at = Some(cx.soon(SOON));
    } else {
        lacking.into_iter().for_each(|selector| sa.queue(Task::CreateChild(*selector)));
        sa.queue(Task::Supersede);
    }
}

/// Its time has come: whether there still is an IKE SA that makes this one superfluous. What that lacks is made first: none
/// of the traffic may be without a child SA, and each end must know that the other has them.
pub(crate) fn is_superfluous(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer) -> bool {
    sa.prune_at = None;
    let better = peer.open().filter(|other| !sa.underpass || other.rank > sa.rank);
    let Some((id, tasks)) =
        better.map(|other| (other.id, lacking(sa, other, peer))).min_by_key(|(_, tasks)| tasks.len())
    else {
        return false;
    };
    let superfluous = tasks.is_empty();
    if !superfluous {
        sa.prune_at = Some(cx.now + OWN);
        tasks.into_iter().flatten().for_each(|task| peer.command(cx, id, task));
    }
    superfluous
}

/// What has to come to be before `other` can go on for `sa`, and what to do for it: nothing if it is the peer's turn.
fn lacking(sa: &IkeSa, other: &IkeSa, peer: &Peer) -> Vec<Option<Task>> {
    let protects = &peer.config.protects;
    let carried: BTreeSet<_> = peer.children.of(sa.id).map(|child| child.selector).collect();
    let wanted = |selector: &Selector| protects.contains(selector) && !other.refused.contains(selector);
    let children = carried.into_iter().filter(wanted);
    let unready =
        children.filter(|selector| !peer.children.standing(other.id, *selector).any(ChildSa::is_ready));
    let make = |selector| (!peer.children.has(other.id, selector)).then_some(Task::CreateChild(selector));
    unready.map(make).chain((!other.told).then_some(Some(Task::Liveness))).collect()
}

/// A child SA has been installed. If there is another for the same traffic, one of the two will be superfluous, once what is
/// under way has arrived: a request that meets what the peer has made meanwhile, and of which it had the answer already, makes
/// a second one that nobody has seen to collide (RFC 7296 2.8.1 is about requests that cross). Peers that are not Underpass
/// may want several.
pub(crate) fn child_arrives(sa: &IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, id: ChildId) {
    let Some(selector) = peer.children.get(id).map(|child| child.selector).filter(|_| sa.underpass) else {
        return;
    };
    let same: Vec<_> = peer.children.standing(sa.id, selector).map(|child| child.id).collect();
    for id in same.iter().filter(|_| same.len() > 1) {
        let Some(child) = peer.children.get_mut(*id) else { continue };
        child.prune_at = Some(if child.made_here { cx.now + OWN } else { cx.soon(OTHERS) });
    }
}

/// Deletes the child SAs whose time has come if there still is one that makes them superfluous.
pub(crate) fn prune_children(sa: &mut IkeSa, cx: &Cx<'_>, peer: &mut Peer) {
    if !sa.is_open() {
        return;
    }
    let due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
    let due: Vec<_> =
        peer.children.of(sa.id).filter(|child| due(child.prune_at)).map(|child| child.id).collect();
    for id in due {
        let rivalry = rivalry(sa, peer, id);
        let Some(child) = peer.children.get_mut(id) else { continue };
        child.prune_at = (rivalry == Rivalry::Undecided).then(|| cx.now + OWN);
        if rivalry == Rivalry::Lost {
            let spi_in = child.spi_in.clone();
            delete::let_go(peer, id);
            sa.queue(Task::DeleteChild(spi_in));
        }
    }
}

/// How a child SA fares among those for the same traffic.
#[derive(Debug, PartialEq, Eq)]
enum Rivalry {
    /// No other goes before it, or it goes anyway.
    None,
    /// As long as one of them is being rekeyed, or the peer may not know of the other.
    Undecided,
    Lost,
}

fn rivalry(sa: &IkeSa, peer: &Peer, id: ChildId) -> Rivalry {
    let Some(child) = peer.children.get(id) else { return Rivalry::None };
    let standing = || peer.children.standing(sa.id, child.selector);
    let mut better = standing().filter(|other| other.rank > child.rank).peekable();
    if better.peek().is_none() || !standing().any(|other| other.id == id) {
        return Rivalry::None;
    }
    let installed = |child: &ChildSa| child.state == ChildState::Installed;
    let lost = installed(child) && better.any(|other| installed(other) && other.is_ready());
    if lost { Rivalry::Lost } else { Rivalry::Undecided }
}
