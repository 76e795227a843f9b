//! INFORMATIONAL (RFC 7296 1.4): deleting child and IKE SAs, and what else a peer may let us know.

use super::Cx;
use super::child_rekey::RekeyChild;
use super::established::{IkeSa, Phase, REPLACED, Task, Underway};
use super::numbers::Own;
use super::payloads::Parts;
use super::{child_create, ike_rekey};
use crate::config::Path;
use crate::endpoint::peer::Peer;
use crate::output::ChildId;
use crate::status::ChildState;
use crate::wire::{Delete, Exchange, Payload, notify, protocol};

/// The request to delete a child SA.
pub(crate) fn begin_child(_sa: &IkeSa, spi_in: Own<u32>) -> Option<(Exchange, Vec<Payload>, Underway)> {
    let delete = Delete { protocol: protocol::ESP, spis: vec![spi_in.to_be_bytes().to_vec()] };
    Some((Exchange::Informational, vec![Payload::Delete(delete)], Underway::DeleteChild(spi_in)))
}

/// The request to delete the IKE SA itself.
pub(crate) fn begin_ike(sa: &mut IkeSa) -> Option<(Exchange, Vec<Payload>, Underway)> {
    sa.phase = Phase::Closing;
    let delete = Delete { protocol: protocol::IKE, spis: Vec::new() };
    Some((Exchange::Informational, vec![Payload::Delete(delete)], Underway::DeleteIke))
}

/// Deletes the IKE SA without waiting for an answer, not even for that to the request under way.
pub(crate) fn farewell(sa: &mut IkeSa, cx: &mut Cx<'_>) {
    if !matches!(sa.phase, Phase::Closed { .. }) {
        let delete = Delete { protocol: protocol::IKE, spis: Vec::new() };
        sa.channel.farewell(cx, &[Payload::Delete(delete)]);
    }
}

/// The peer sends by the child SA no more: only packets under way are to be received.
pub(crate) fn child_answered(cx: &mut Cx<'_>, peer: &mut Peer, spi_in: &Own<u32>) {
    let id = peer.children.by_own_spi(**spi_in).map(|child| child.id);
    if let Some(id) = id {
        peer.children.retire(cx, id, "the child SA was deleted");
    }
}

/// A child SA is about to be deleted by us: it is sent by no longer than it has to be.
pub(crate) fn let_go(peer: &mut Peer, id: ChildId) {
    if let Some(child) = peer.children.get_mut(id) {
        child.state = ChildState::Deleting;
    }
}

/// A child SA that the peer has replaced waits to be deleted by it.
pub(crate) fn await_deletion(cx: &Cx<'_>, peer: &mut Peer, id: ChildId) {
    if let Some(child) = peer.children.get_mut(id).filter(|child| child.is_alive()) {
        child.state = ChildState::Rekeyed;
        child.rekey_at = cx.now + REPLACED;
    }
}

/// The peer tells us something.
pub(crate) fn informed(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, path: Path, parts: &Parts) {
    if matches!(sa.phase, Phase::Closed { .. }) {
        return sa.channel.answer(cx, path, Exchange::Informational, &[]);
    }
    if parts.has(notify::AUTHENTICATION_FAILED) {
        // RFC 7296 2.21.2: it did not accept our proof, and has forgotten the IKE SA
        sa.channel.answer(cx, path, Exchange::Informational, &[]);
        let remote = path.remote.ip();
        let why = format!(
            "{remote} refuses our proof of identity (AUTHENTICATION_FAILED): check certificates and names on both hosts; its log says which"
        );
        peer.trouble(cx, why.clone());
        peer.children.retire_all(cx, sa.id, &why);
        return sa.closed(cx);
    }
    if parts.deletes.iter().any(|delete| delete.protocol == protocol::IKE) {
        // RFC 7296 2.25.2: whatever we have under way, be it its rekeying or deletion, is forgotten
        if let Some(Underway::RekeyIke(request)) = sa.underway.take() {
            ike_rekey::forget(request, sa, cx, peer);
        }
        if sa.is_open() {
            peer.give_way();
        }
        peer.children.retire_all(cx, sa.id, "the peer has deleted the IKE SA");
        sa.channel.answer(cx, path, Exchange::Informational, &[]);
        return sa.closed(cx);
    }
    let mut deleted = Vec::new();
    for spi in parts.deletes.iter().filter(|d| d.protocol == protocol::ESP).flat_map(|d| &d.spis) {
        deleted.extend(child_deleted(sa, cx, peer, spi));
    }
    let payload = Payload::Delete(Delete { protocol: protocol::ESP, spis: deleted.clone() });
    let payloads: &[Payload] = if deleted.is_empty() { &[] } else { &[payload] };
    sa.channel.answer(cx, path, Exchange::Informational, payloads);
    for lost in parts.notifies.iter().filter(|n| n.kind == notify::INVALID_SPI) {
        child_lost(sa, cx, peer, &lost.data);
    }
}

/// The peer deletes the child SA that it receives by `spi`. Gives our SPI of it for the answer, unless our own request to
/// delete it is under way (RFC 7296 1.4.1) or it is not known.
fn child_deleted(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, spi: &[u8]) -> Option<Vec<u8>> {
    let spi = u32::from_be_bytes(spi.try_into().ok()?);
    let Some(child) = peer.children.by_peer_spi(spi) else {
        child_create::deleted_unseen(sa, spi);
        return None;
    };
    let (id, own) = (child.id, child.spi_in.clone());
    if let Some(Underway::RekeyChild(RekeyChild { old, making })) = &sa.underway
        && let Some((rival, _)) = making.rival.as_ref().filter(|_| *old == id)
    {
        // It has what we have granted in this one's place
        peer.children.confirm(*rival);
    }
    let crossing = matches!(&sa.underway, Some(Underway::DeleteChild(spi_in)) if *spi_in == own);
    peer.children.retire(cx, id, "the peer has deleted the child SA");
    if !peer.is_complete() {
        peer.give_way();
    }
    (!crossing).then(|| own.to_be_bytes().to_vec())
}

/// The peer, authenticated, does not know the child SA that we send by: there is no use in it.
fn child_lost(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, spi: &[u8]) {
    let Ok(spi) = spi.try_into().map(u32::from_be_bytes) else { return };
    if let Some((id, spi_in)) = peer.children.by_peer_spi(spi).map(|child| (child.id, child.spi_in.clone())) {
        peer.children.retire(cx, id, "the peer has lost the child SA");
        sa.queue(Task::DeleteChild(spi_in));
    }
}
