//! CREATE_CHILD_SA in a child SA's place (RFC 7296 1.3.3 and 2.8).
//!
//! Nothing is lost: who answers receives by the new SA before the answer leaves, and sends by the old one until that is
//! deleted; who has asked sends by the new one on the answer, and then deletes the old one.

use std::time::Duration;

use super::Cx;
use super::child_create::{Made, Making, grant};
use super::delete::{await_deletion, let_go};
use super::established::{IkeSa, Task, Underway};
use super::payloads::Parts;
use crate::config::Path;
use crate::endpoint::peer::Peer;
use crate::output::ChildId;
use crate::status::ChildState;
use crate::wire::{Exchange, Notify, Payload, notify, protocol};

/// A peer that cannot just now is asked again after so long, or double that.
const SOON: Duration = Duration::from_secs(1);
/// A peer that does not want to, likewise.
const LATER: Duration = Duration::from_secs(60);

/// The request to put another child SA in one's place.
#[derive(Debug)]
pub(crate) struct RekeyChild {
    pub old: ChildId,
    pub making: Making,
}

impl RekeyChild {
    /// The request, if the child SA is still to be rekeyed; `making` if the peer has sent us back for another group.
    pub fn begin(
        sa: &IkeSa,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        old: ChildId,
        making: Option<Making>,
    ) -> Option<(Exchange, Vec<Payload>, Underway)> {
        let config = peer.config.clone();
        let child = peer.children.get_mut(old)?;
        if !sa.is_open() || child.ike != sa.id || child.state != ChildState::Installed {
            return None;
        }
        // What the peer agreed to last time it will agree to again
        let group = child.suite.group.or(config.esp.groups.first().copied().flatten());
        let selector = child.selector;
        let making = making.or_else(|| Making::new(cx, selector, group, 0))?;
        child.state = ChildState::Rekeying;
        let spi = child.spi_in.to_be_bytes().to_vec();
        let mut payloads = vec![Payload::Notify(Notify {
            protocol: protocol::ESP,
            spi,
            kind: notify::REKEY_SA,
            data: Vec::new(),
        })];
        payloads.extend(making.payloads(&config, sa));
        Some((Exchange::CreateChildSa, payloads, Underway::RekeyChild(RekeyChild { old, making })))
    }

    /// The peer has answered.
    pub fn answered(mut self, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, parts: Parts) {
        let made = self.making.finish(sa, cx, peer, &parts);
        let old = self.old;
        let Some(child) = peer.children.get_mut(old).filter(|child| child.state == ChildState::Rekeying)
        else {
            // The peer has deleted it, replaced or not, while our request was under way
            if let Made::Failed(None, why) = made {
                peer.trouble(cx, why);
            }
            return;
        };
        child.state = ChildState::Installed;
        match made {
            Made::Child => {
                let spi_in = child.spi_in.clone();
                let_go(peer, old);
                sa.queue(Task::DeleteChild(spi_in));
            }
            Made::Redundant => await_deletion(cx, peer, old),
            // Ours came to nothing, the peer's has taken its place
            Made::AnotherGroup(_) | Made::Failed(..) if self.making.rival.is_some() => {
                await_deletion(cx, peer, old);
            }
            Made::AnotherGroup(group) => {
                let making = self.making.again(cx, group);
                child.rekey_at = cx.soon(LATER);
                if making.is_some() {
                    let begun = RekeyChild::begin(sa, cx, peer, old, making);
                    sa.underway_with(cx, begun);
                }
            }
            Made::Failed(Some(notify::TEMPORARY_FAILURE), _) => child.rekey_at = cx.soon(SOON),
            Made::Failed(Some(notify::CHILD_SA_NOT_FOUND), _) => {
                // RFC 7296 2.25: it is deleted without a word, and another one made from scratch
                peer.children.retire(cx, old, "the peer has lost the child SA");
                sa.queue(Task::CreateChild(self.making.selector));
            }
            Made::Failed(_, why) => {
                child.rekey_at = cx.soon(LATER);
                peer.trouble(cx, why);
                peer.start_over(cx, sa.id);
            }
        }
    }
}

/// The peer asks to put another child SA in one's place.
pub(crate) fn answer(
    sa: &mut IkeSa,
    cx: &mut Cx<'_>,
    peer: &mut Peer,
    path: Path,
    parts: &Parts,
    rekeys: &Notify,
) {
    let spi = <[u8; 4]>::try_from(&rekeys.spi[..]).map(u32::from_be_bytes).ok();
    let old = spi
        .and_then(|spi| peer.children.by_peer_spi(spi))
        .map(|child| (child.id, child.state, child.selector));
    let Some((old, state, selector)) = old else {
        if matches!(sa.underway, Some(Underway::CreateChild(_) | Underway::RekeyChild(_))) {
            // It may be the one that the answer, delayed, brings
            return sa.refuse(cx, path, notify::TEMPORARY_FAILURE);
        }
        let unknown = Notify { kind: notify::CHILD_SA_NOT_FOUND, ..rekeys.clone() };
        return sa.channel.answer(cx, path, Exchange::CreateChildSa, &[Payload::Notify(unknown)]);
    };
    match state {
        ChildState::Installed => {
            if grant(sa, cx, peer, path, parts, &[selector]).is_some() {
                await_deletion(cx, peer, old);
            }
        }
        ChildState::Rekeying => {
            let granted = grant(sa, cx, peer, path, parts, &[selector]);
            if let Some(Underway::RekeyChild(request)) = &mut sa.underway {
                request.making.rival = granted;
            }
        }
        // RFC 7296 2.25.1: it is being deleted, or has been replaced already
        ChildState::Rekeyed | ChildState::Deleting | ChildState::Draining => {
            sa.refuse(cx, path, notify::TEMPORARY_FAILURE);
        }
    }
}
