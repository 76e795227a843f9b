//! CREATE_CHILD_SA in the IKE SA's place (RFC 7296 1.3.2, 2.8 and 2.18). The child SAs move to the new one.

use std::time::Duration;

use super::channel::{Channel, Ends};
use super::child::{Refusal, public};
use super::established::{Birth, IkeSa, Phase, REPLACED, Task, Underway};
use super::numbers::{Own, Owner, nonce};
use super::payloads::{Parts, error_name};
use super::{Cx, SessionId};
use crate::config::Path;
use crate::crypto::{Exchanged, IkeKeys, KeyPair, Secret};
use crate::endpoint::peer::{Peer, Session};
use crate::proposal::{Group, IkeSuite, accept_ike, choose_ike, ike_proposals, list};
use crate::wire::{Exchange, Notify, Payload, Spi, notify};

const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);
/// Groups that we let ourselves be sent back for.
const DETOURS: u8 = 3;

/// The request to put another IKE SA in this one's place.
#[derive(Debug)]
pub(crate) struct RekeyIke {
    /// Of the new IKE SA.
    id: SessionId,
    spi: Own<Spi>,
    nonce: Vec<u8>,
    key: KeyPair,
    detours: u8,
    /// The IKE SA that the peer has made for the same purpose meanwhile, and the lower nonce of it.
    rival: Option<(SessionId, Vec<u8>)>,
}

impl RekeyIke {
    /// The request; with a group that the peer has sent us back for.
    pub fn begin(
        sa: &IkeSa,
        cx: &mut Cx<'_>,
        peer: &Peer,
        detour: Option<(Group, u8)>,
    ) -> Option<(Exchange, Vec<Payload>, Underway)> {
        if !sa.is_open() {
            return None;
        }
        let (group, detours) = detour.unwrap_or((sa.channel.suite.group, 0));
        let key = KeyPair::generate(group, cx.rng).ok()?;
        let id = cx.numbers.session();
        let spi = cx.numbers.ike_spi(cx.rng, Owner::Peer(peer.id, id));
        let nonce = nonce(cx.rng);
        let payloads = vec![
            Payload::Sa(ike_proposals(&peer.config.ike, Some(*spi))),
            Payload::Nonce(nonce.clone()),
            public(&key),
        ];
        let request = RekeyIke { id, spi, nonce, key, detours, rival: None };
        Some((Exchange::CreateChildSa, payloads, Underway::RekeyIke(request)))
    }

    /// The IKE SA that the peer has made for the same purpose.
    pub fn rival(&mut self) -> Option<&mut SessionId> {
        self.rival.as_mut().map(|(id, _)| id)
    }

    /// What the peer has made in the same IKE SA's place goes with that.
    pub fn close_rival(&self, cx: &mut Cx<'_>, peer: &mut Peer, why: &str) {
        if let Some((rival, _)) = self.rival {
            peer.close(cx, rival, why);
        }
    }

    /// The peer has answered.
    pub fn answered(self, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, parts: Parts) {
        if let Some(error) = parts.error() {
            if sa.is_open() {
                self.refused(sa, cx, peer, error);
            }
            return;
        }
        // We are deleting it meanwhile, and so what comes of it
        let unwanted = !sa.is_open();
        let rival = self.rival.clone();
        let lowest = parts.nonce.as_ref().map_or(&self.nonce, |nonce_r| nonce_r.min(&self.nonce)).clone();
        let new = match self.successor(sa, cx, peer, &parts) {
            Ok(new) => new,
            Err(why) => {
                peer.trouble(cx, why);
                match rival.filter(|_| !unwanted) {
                    Some((rival, _)) => yield_to(sa, cx, peer, rival),
                    None => sa.rekey_at = cx.soon(LATER),
                }
                return;
            }
        };
        let id = new.id;
        peer.sessions.insert(id, Session::Established(Box::new(new)));
        if unwanted {
            return peer.close(cx, id, "it is redundant");
        }
        match rival {
            // RFC 7296 2.8.2: the lowest of four nonces loses, and who made that IKE SA deletes it
            Some((rival, other)) if lowest < other => {
                peer.close(cx, id, "it is redundant");
                yield_to(sa, cx, peer, rival);
            }
            rival => {
                if let Some((rival, _)) = rival
                    && let Some(Session::Established(rival)) = peer.sessions.get_mut(&rival)
                {
                    rival.phase = Phase::Replaced { until: cx.now + REPLACED };
                }
                hand_over(sa, cx, peer, id);
                sa.phase = Phase::Closing;
                sa.queue(Task::DeleteIke);
            }
        }
    }

    fn refused(self, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, error: &Notify) {
        if let Some((rival, _)) = self.rival {
            return yield_to(sa, cx, peer, rival);
        }
        let remote = sa.channel.path.remote.ip();
        match error.kind {
            notify::TEMPORARY_FAILURE => sa.rekey_at = cx.soon(SOON),
            notify::INVALID_KE_PAYLOAD => {
                sa.rekey_at = cx.soon(LATER);
                let wanted = <[u8; 2]>::try_from(&error.data[..])
                    .map(u16::from_be_bytes)
                    .ok()
                    .and_then(Group::from_id);
                let ours = wanted.filter(|group| peer.config.ike.groups.contains(group));
                if let Some(group) = ours.filter(|_| self.detours < DETOURS) {
                    let begun = RekeyIke::begin(sa, cx, peer, Some((group, self.detours + 1)));
                    sa.underway_with(cx, begun);
                }
            }
            kind => {
                // It may grant an IKE SA made from scratch what it does not grant here
                let ours = list(&ike_proposals(&peer.config.ike, None));
                peer.trouble(
                    cx,
                    format!(
                        "{remote} refuses to rekey the IKE SA with {}; we offer {ours}",
                        error_name(kind)
                    ),
                );
                sa.rekey_at = cx.soon(LATER);
                peer.start_over(cx, sa.id);
            }
        }
    }

    fn successor(self, sa: &IkeSa, cx: &mut Cx<'_>, peer: &Peer, parts: &Parts) -> Result<IkeSa, String> {
        let remote = sa.channel.path.remote.ip();
        let incomplete = || format!("{remote} answers the request to rekey the IKE SA incompletely");
        let (Some(answer), Some(ke), Some(nonce_r)) = (&parts.sa, &parts.ke, &parts.nonce) else {
            return Err(incomplete());
        };
        let (suite, spi_r) =
            accept_ike(answer, &peer.config.ike, Some(*self.spi)).map_err(|error| error.to_string())?;
        let spi_r = spi_r.filter(|spi| *spi != [0; 8]).ok_or_else(incomplete)?;
        if suite.group != self.key.group() || ke.group != suite.group.id() {
            return Err(incomplete());
        }
        let shared = self.key.agree(&ke.data).map_err(|error| error.to_string())?;
        let new = New {
            id: self.id,
            own: self.spi.clone(),
            initiator: true,
            suite,
            exchanged: Exchanged { nonce_i: &self.nonce, nonce_r, spi_i: *self.spi, spi_r },
            shared,
        };
        new.established(sa, cx, peer).map_err(|error| error.to_string())
    }
}

/// The peer asks to put another IKE SA in this one's place.
pub(crate) fn answer(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, path: Path, parts: &Parts) {
    let busy = match &sa.underway {
        // RFC 7296 2.25.1
        Some(Underway::CreateChild(_) | Underway::RekeyChild(_) | Underway::DeleteChild(_)) => true,
        Some(Underway::RekeyIke(request)) => request.rival.is_some(),
        Some(Underway::DeleteIke | Underway::Liveness) | None => false,
    };
    if busy {
        return sa.refuse(cx, path, notify::TEMPORARY_FAILURE);
    }
    if peer.open().count() >= cx.limits.ike_per_peer {
        return sa.refuse(cx, path, notify::NO_ADDITIONAL_SAS);
    }
    let (new, payloads, lowest) = match grant(sa, cx, peer, parts) {
        Ok(granted) => granted,
        Err(Refusal { notify, why }) => {
            if !why.is_empty() {
                peer.trouble(cx, why);
            }
            return sa.channel.answer(cx, path, Exchange::CreateChildSa, &[notify]);
        }
    };
    sa.channel.answer(cx, path, Exchange::CreateChildSa, &payloads);
    let id = new.id;
    peer.sessions.insert(id, Session::Established(Box::new(new)));
    match &mut sa.underway {
        Some(Underway::RekeyIke(request)) => request.rival = Some((id, lowest)),
        _ => yield_to(sa, cx, peer, id),
    }
}

/// The peer deletes the IKE SA while our request to rekey it is under way: what it has put in its place, if anything, is
/// what we go on with (RFC 7296 2.25.2).
pub(crate) fn forget(request: RekeyIke, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer) {
    if let Some((rival, _)) = request.rival {
        yield_to(sa, cx, peer, rival);
    }
}

fn grant(
    sa: &IkeSa,
    cx: &mut Cx<'_>,
    peer: &Peer,
    parts: &Parts,
) -> Result<(IkeSa, Vec<Payload>, Vec<u8>), Refusal> {
    let (Some(offered), Some(nonce_i)) = (&parts.sa, &parts.nonce) else {
        return Err(Refusal::new(notify::INVALID_SYNTAX, ""));
    };
    let id = cx.numbers.session();
    let own = cx.numbers.ike_spi(cx.rng, Owner::Peer(peer.id, id));
    let remote = sa.channel.path.remote.ip();
    let choice = choose_ike(offered, &peer.config.ike, Some(*own))
        .map_err(|error| Refusal::new(notify::NO_PROPOSAL_CHOSEN, format!("{remote}: IKE: {error}")))?;
    let group = choice.suite.group;
    let Some(ke) = parts.ke.as_ref().filter(|ke| ke.group == group.id()) else {
        let wanted = Notify::new(notify::INVALID_KE_PAYLOAD, group.id().to_be_bytes());
        return Err(Refusal { notify: Payload::Notify(wanted), why: String::new() });
    };
    let failed = |error: crate::crypto::CryptoError| Refusal::new(notify::INVALID_SYNTAX, error.to_string());
    let spi_i = choice.peer_spi.filter(|spi| *spi != [0; 8]);
    let spi_i = spi_i.ok_or_else(|| Refusal::new(notify::INVALID_SYNTAX, ""))?;
    let key = KeyPair::generate(group, cx.rng).map_err(failed)?;
    let nonce_r = nonce(cx.rng);
    let payloads = vec![Payload::Sa(vec![choice.answer]), Payload::Nonce(nonce_r.clone()), public(&key)];
    let shared = key.agree(&ke.data).map_err(failed)?;
    let new = New {
        id,
        own: own.clone(),
        initiator: false,
        suite: choice.suite,
        exchanged: Exchanged { nonce_i, nonce_r: &nonce_r, spi_i, spi_r: *own },
        shared,
    };
    Ok((new.established(sa, cx, peer).map_err(failed)?, payloads, nonce_i.min(&nonce_r).clone()))
}

/// An IKE SA that both ends have agreed to put in another's place.
struct New<'a> {
    id: SessionId,
    own: Own<Spi>,
    initiator: bool,
    suite: IkeSuite,
    exchanged: Exchanged<'a>,
    shared: Secret,
}

impl New<'_> {
    /// The proofs of the old one are its own.
    fn established(
        self,
        old: &IkeSa,
        cx: &mut Cx<'_>,
        peer: &Peer,
    ) -> Result<IkeSa, crate::crypto::CryptoError> {
        let New { id, own, initiator, suite, exchanged, shared } = self;
        let Exchanged { spi_i, spi_r, .. } = exchanged;
        let keys =
            IkeKeys::derive_rekey(&suite, exchanged, &shared, old.channel.suite.prf, &old.channel.keys.sk_d);
        let (path, limit) = (old.channel.path, old.channel.limit());
        let ends = Ends { own, spi_i, spi_r, initiator, path, limit, next: [0, 0] };
        let channel = Channel::new(cx.now, ends, suite, keys)?;
        let reauth_in = old.reauth_at.map(|at| at.saturating_duration_since(cx.now));
        let birth = Birth {
            id,
            begun: cx.now,
            replaces: old.replaces,
            nat: old.nat,
            underpass: old.underpass,
            rank: old.rank.clone(),
            made_here: old.made_here,
            local_id: old.local_id.clone(),
            reauth_in: None,
        };
        let mut new = IkeSa::new(cx, &peer.config, old.proof.clone(), channel, birth);
        (new.prune_at, new.again_at, new.told) = (old.prune_at, old.again_at, old.told);
        new.reauth_at = reauth_in.map(|time| cx.now + time);
        Ok(new)
    }
}

/// The peer's IKE SA takes the place of this one, which the peer is to delete.
fn yield_to(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, to: SessionId) {
    hand_over(sa, cx, peer, to);
    sa.phase = Phase::Replaced { until: cx.now + REPLACED };
}

fn hand_over(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, to: SessionId) {
    if !peer.open().any(|heir| heir.id == to) {
        // It has been deleted already
        return peer.children.retire_all(cx, sa.id, "the IKE SA that took its place is gone");
    }
    peer.children.inherit(sa.id, to);
    peer.sessions.values_mut().for_each(|session| session.follow(sa.id, to));
    for task in sa.take_tasks() {
        if !matches!(task, Task::RekeyIke | Task::DeleteIke | Task::Liveness) {
            peer.command(cx, to, task);
        }
    }
}
