//! CREATE_CHILD_SA for a new child SA (RFC 7296 1.3.1), and what it shares with rekeying one.

use super::Cx;
use super::child::{self, Between, Nonces, Refusal};
use super::delete::await_deletion;
use super::established::{IkeSa, Task, Underway};
use super::numbers::{Own, nonce};
use super::payloads::{Parts, error_name};
use crate::config::{Path, PeerConfig};
use crate::crypto::KeyPair;
use crate::endpoint::peer::Peer;
use crate::output::ChildId;
use crate::proposal::{ChildExchange, Group};
use crate::selector::Selector;
use crate::wire::{Exchange, Notify, Payload, notify};

/// Groups that we let ourselves be sent back for.
const DETOURS: u8 = 3;
/// SPIs deleted before we knew of them that are remembered.
const MAX_UNSEEN: usize = 8;

/// Our part of a child SA that is being made.
#[derive(Debug)]
pub(crate) struct Making {
    pub selector: Selector,
    pub spi_in: Own<u32>,
    pub nonce: Vec<u8>,
    key: Option<KeyPair>,
    detours: u8,
    /// The child SA that the peer has made for the same purpose meanwhile, and the lower nonce of it (RFC 7296 2.8.1).
    pub rival: Option<(ChildId, Vec<u8>)>,
    /// SPIs that the peer has deleted and we did not know: perhaps that of the child SA that its answer, delayed, brings.
    unseen: Vec<u32>,
}

/// The request for a new child SA.
#[derive(Debug)]
pub(crate) struct CreateChild(pub Making);

/// How a request for a child SA ended.
#[derive(Debug)]
pub(crate) enum Made {
    /// With a child SA, installed and sent by.
    Child,
    /// The peer has one that goes before it, or has deleted it already: ours is to go.
    Redundant,
    /// The peer wants a key of another group.
    AnotherGroup(Group),
    /// With an error from the peer, or one that we found.
    Failed(Option<u16>, String),
}

impl Making {
    /// With fresh numbers, and a key of `group` if there is to be one.
    pub fn new(cx: &mut Cx<'_>, selector: Selector, group: Option<Group>, detours: u8) -> Option<Making> {
        let key = match group.map(|group| KeyPair::generate(group, cx.rng)) {
            None => None,
            Some(Ok(key)) => Some(key),
            Some(Err(_)) => return None,
        };
        let (spi_in, nonce) = (cx.numbers.esp_spi(cx.rng), nonce(cx.rng));
        Some(Making { selector, spi_in, nonce, key, detours, rival: None, unseen: Vec::new() })
    }

    /// For another try with the group that the peer wants.
    pub fn again(&self, cx: &mut Cx<'_>, group: Group) -> Option<Making> {
        (self.detours < DETOURS)
            .then(|| Making::new(cx, self.selector, Some(group), self.detours + 1))
            .flatten()
    }

    /// The payloads of the request.
    pub fn payloads(&self, config: &PeerConfig, sa: &IkeSa) -> Vec<Payload> {
        child::request(
            config,
            sa.channel.path,
            self.selector,
            *self.spi_in,
            Some((&self.nonce, self.key.as_ref())),
        )
    }

    /// What came of it. The child SA is installed unless there is a better one.
    pub fn finish(&mut self, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, parts: &Parts) -> Made {
        if !sa.is_open() {
            // It is being deleted, and all that belongs to it
            return Made::Redundant;
        }
        let config = peer.config.clone();
        let remote = sa.channel.path.remote.ip();
        if let Some(error) = parts.error() {
            return match wanted_group(error, &config) {
                Some(group) if self.rival.is_none() => Made::AnotherGroup(group),
                _ => Made::Failed(Some(error.kind), self.refusal(&config, error.kind)),
            };
        }
        let Some(nonce_r) = &parts.nonce else {
            return Made::Failed(None, format!("{remote} answers CREATE_CHILD_SA without a nonce"));
        };
        let nonces = Nonces { i: &self.nonce, r: nonce_r };
        let between = Between { channel: &sa.channel, nat: sa.nat, config: &config };
        let exchange = ChildExchange::CreateChildSa;
        let child = match child::accept(
            between,
            parts,
            self.selector,
            self.spi_in.clone(),
            nonces,
            exchange,
            self.key.take(),
        ) {
            Ok(child) => child,
            Err(why) => {
                // The peer has it installed
                sa.queue(Task::DeleteChild(self.spi_in.clone()));
                return Made::Failed(None, why);
            }
        };
        if self.unseen.contains(&child.spi_out) {
            return Made::Failed(None, format!("{remote} deleted the child SA at once"));
        }
        match &self.rival {
            // The lowest of four nonces loses, and who made that child SA deletes it
            Some((_, lowest)) if nonces.i.min(nonces.r) < lowest.as_slice() => {
                sa.queue(Task::DeleteChild(self.spi_in.clone()));
                Made::Redundant
            }
            rival => {
                if let Some((rival, _)) = rival {
                    await_deletion(cx, peer, *rival);
                    peer.children.shun(*rival);
                }
                sa.install(cx, peer, child, true);
                Made::Child
            }
        }
    }

    fn refusal(&self, config: &PeerConfig, kind: u16) -> String {
        let (remote, selector) = (config.remote, self.selector);
        match kind {
            notify::NO_PROPOSAL_CHOSEN => {
                let ours = crate::proposal::esp_proposals(&config.esp, ChildExchange::CreateChildSa, 0);
                let ours = crate::proposal::list(&ours);
                format!("{remote} accepts none of our ESP proposals (NO_PROPOSAL_CHOSEN); we offer {ours}")
            }
            notify::TS_UNACCEPTABLE => unprotected(config, selector),
            kind => format!("{remote} refuses a child SA for {selector} with {}", error_name(kind)),
        }
    }
}

impl CreateChild {
    /// The request, unless the peer has been faster.
    pub fn begin(
        sa: &IkeSa,
        cx: &mut Cx<'_>,
        peer: &Peer,
        selector: Selector,
    ) -> Option<(Exchange, Vec<Payload>, Underway)> {
        if !sa.is_open() || peer.children.has(sa.id, selector) || !peer.config.protects.contains(&selector) {
            return None;
        }
        let group = peer.config.esp.groups.first().copied().flatten();
        let making = Making::new(cx, selector, group, 0)?;
        let payloads = making.payloads(&peer.config, sa);
        Some((Exchange::CreateChildSa, payloads, Underway::CreateChild(CreateChild(making))))
    }

    /// The peer has answered.
    pub fn answered(mut self, sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, parts: Parts) {
        match self.0.finish(sa, cx, peer, &parts) {
            Made::Child | Made::Redundant => {}
            Made::AnotherGroup(group) => {
                let Some(making) = self.0.again(cx, group) else { return };
                let payloads = making.payloads(&peer.config, sa);
                let underway = Underway::CreateChild(CreateChild(making));
                sa.underway_with(cx, Some((Exchange::CreateChildSa, payloads, underway)));
            }
            Made::Failed(Some(notify::TEMPORARY_FAILURE), _) => {}
            // The peer's has come to be
            Made::Failed(..) if self.0.rival.is_some() => {}
            Made::Failed(_, why) => {
                sa.refused.insert(self.0.selector);
                peer.trouble(cx, why);
            }
        }
    }
}

/// The peer asks for a new child SA.
pub(crate) fn answer(sa: &mut IkeSa, cx: &mut Cx<'_>, peer: &mut Peer, path: Path, parts: &Parts) {
    let wanted = by_need(sa, peer);
    if let Some((id, lowest)) = grant(sa, cx, peer, path, parts, &wanted)
        && let Some(Underway::CreateChild(CreateChild(making))) = &mut sa.underway
        && peer.children.get(id).is_some_and(|child| child.selector == making.selector)
    {
        making.rival = Some((id, lowest));
    }
}

/// What is protected, first of all that for which an IKE SA has no child SA yet: it may be that the peer's selectors hold all
/// of it.
fn by_need(sa: &IkeSa, peer: &Peer) -> Vec<Selector> {
    let mut wanted = peer.config.protects.clone();
    wanted.sort_by_key(|selector| peer.children.has(sa.id, *selector));
    wanted
}

/// Makes the child SA that the peer asks for. It is installed before the peer hears of it.
pub(crate) fn grant(
    sa: &mut IkeSa,
    cx: &mut Cx<'_>,
    peer: &mut Peer,
    path: Path,
    parts: &Parts,
    wanted: &[Selector],
) -> Option<(ChildId, Vec<u8>)> {
    let config = peer.config.clone();
    let between = Between { channel: &sa.channel, nat: sa.nat, config: &config };
    match child::grant(cx, between, parts, wanted, None) {
        Ok((payloads, child)) => {
            let lowest = child.rank.clone();
            let id = sa.install(cx, peer, child, false);
            sa.channel.answer(cx, path, Exchange::CreateChildSa, &payloads);
            Some((id, lowest))
        }
        Err(Refusal { notify, why }) => {
            if !why.is_empty() {
                peer.trouble(cx, why);
            }
            sa.channel.answer(cx, path, Exchange::CreateChildSa, &[notify]);
            None
        }
    }
}

/// The peer has deleted a child SA that we know nothing of.
pub(crate) fn deleted_unseen(sa: &mut IkeSa, spi: u32) {
    let making = match &mut sa.underway {
        Some(Underway::CreateChild(request)) => &mut request.0,
        Some(Underway::RekeyChild(request)) => &mut request.making,
        _ => return,
    };
    if making.unseen.len() < MAX_UNSEEN {
        making.unseen.push(spi);
    }
}

/// The group that INVALID_KE_PAYLOAD asks for, if it is one of ours.
fn wanted_group(error: &Notify, config: &PeerConfig) -> Option<Group> {
    let id =
        <[u8; 2]>::try_from(&error.data[..]).ok().filter(|_| error.kind == notify::INVALID_KE_PAYLOAD)?;
    Group::from_id(u16::from_be_bytes(id)).filter(|group| config.esp.groups.contains(&Some(*group)))
}

/// The peer protects something else.
pub(crate) fn unprotected(config: &PeerConfig, selector: Selector) -> String {
    format!(
        "{} protects other traffic than {selector} between us (TS_UNACCEPTABLE): check addresses and protocol there",
        config.remote
    )
}
