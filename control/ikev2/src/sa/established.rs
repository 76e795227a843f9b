//! An IKE SA whose ends have proved who they are: its requests one by one, its timers, its end.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::channel::{Channel, Received};
use super::child_create::CreateChild;
use super::child_rekey::RekeyChild;
use super::children::{ChildSa, NewChild, limits};
use super::ike_rekey::RekeyIke;
use super::liveness::Liveness;
use super::nat::Nat;
use super::numbers::Own;
use super::payloads::{Parts, error_payload};
use super::{Cx, SessionId, child_create, child_rekey, collision, delete, ike_rekey};
use crate::auth::{Authenticated, Identity};
use crate::config::{NAT_PORT, Path, PeerConfig};
use crate::endpoint::peer::{Peer, Session};
use crate::output::ChildId;
use crate::selector::Selector;
use crate::status::{ChildState, IkeState};
use crate::wire::{Datagram, Exchange, Payload, notify, protocol};

/// Tasks of an IKE SA that wait for their turn.
const MAX_TASKS: usize = 64;
/// An IKE SA that is deleted still repeats its last answer for so long.
const CLOSED: Duration = Duration::from_secs(30);
/// The peer has so long to delete what has been replaced.
pub(crate) const REPLACED: Duration = Duration::from_secs(60);

/// An established IKE SA.
#[derive(Debug)]
pub(crate) struct IkeSa {
    pub id: SessionId,
    /// When its first message came or went.
    pub begun: Instant,
    /// When it was established.
    pub born: Instant,
    /// An IKE SA that this one takes the place of.
    pub replaces: Option<SessionId>,
    pub channel: Channel,
    pub proof: Authenticated,
    pub local_id: Identity,
    pub nat: Nat,
    pub underpass: bool,
    /// Of several IKE SAs with a peer that is Underpass too, the one of the highest rank remains: the lower nonce of
    /// IKE_SA_INIT, for that and all that have taken its place.
    pub rank: Vec<u8>,
    /// Whether that IKE_SA_INIT was our request.
    pub made_here: bool,
    pub phase: Phase,
    pub underway: Option<Underway>,
    pub rekey_at: Instant,
    /// To be replaced by one with new proofs.
    pub reauth_at: Option<Instant>,
    /// To be deleted if another stands by then.
    pub prune_at: Option<Instant>,
    /// What the peer makes no child SAs for in it. In IKE_AUTH, without a key exchange of its own, it may.
    pub refused: BTreeSet<Selector>,
    pub liveness: Liveness,
    /// When to try again to take the place of another.
    pub again_at: Option<Instant>,
    /// Whether the peer has heard from us since it granted the last child SA, and so may send by it.
    pub told: bool,
    expires_at: Instant,
    tasks: VecDeque<Task>,
}

/// What is known of an IKE SA when it is established.
#[derive(Debug)]
pub(crate) struct Birth {
    pub id: SessionId,
    pub begun: Instant,
    pub replaces: Option<SessionId>,
    pub nat: Nat,
    pub underpass: bool,
    pub rank: Vec<u8>,
    pub made_here: bool,
    pub local_id: Identity,
    pub reauth_in: Option<Duration>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In use.
    Open,
    /// Another has taken its place; the peer is to delete it, by then at the latest we do.
    Replaced { until: Instant },
    /// We delete it.
    Closing,
    /// It is deleted, and repeats its last answer at most.
    Closed { until: Instant },
}

/// What is to be requested of the peer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    CreateChild(Selector),
    RekeyChild(ChildId),
    RekeyIke,
    /// Delete the child SA that we receive by this SPI.
    DeleteChild(Own<u32>),
    DeleteIke,
    /// Delete the IKE SA that this one takes the place of.
    Supersede,
    Liveness,
}

/// The request that is under way.
#[derive(Debug)]
pub(crate) enum Underway {
    CreateChild(CreateChild),
    RekeyChild(RekeyChild),
    RekeyIke(RekeyIke),
    DeleteChild(Own<u32>),
    DeleteIke,
    Liveness,
}

impl IkeSa {
    /// Of a peer that has proved who it is.
    pub fn new(
        cx: &mut Cx<'_>,
        config: &PeerConfig,
        proof: Authenticated,
        channel: Channel,
        birth: Birth,
    ) -> IkeSa {
        let (rekey_at, expires_at) = limits(cx.now, cx.rng, config.lifetimes.ike);
        IkeSa {
            id: birth.id,
            begun: birth.begun,
            born: cx.now,
            replaces: birth.replaces,
            channel,
            proof,
            local_id: birth.local_id,
            nat: birth.nat,
            underpass: birth.underpass,
            rank: birth.rank,
            made_here: birth.made_here,
            phase: Phase::Open,
            underway: None,
            rekey_at,
            // a tenth sooner than the peer would delete it
            reauth_at: birth.reauth_in.map(|time| cx.now + time - time / 10),
            prune_at: None,
            refused: BTreeSet::new(),
            liveness: Liveness::new(cx.now),
            again_at: None,
            told: true,
            expires_at,
            tasks: VecDeque::new(),
        }
    }

    /// Installs a child SA; `ready` if the peer has done so already. One that is not wanted any more goes again.
    pub fn install(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, child: NewChild, ready: bool) -> ChildId {
        let (wanted, spi_in) = (peer.config.protects.contains(&child.selector), child.spi_in.clone());
        let id = peer.children.install(cx, &self.proof, self.id, &peer.config.lifetimes, child, ready);
        self.told &= !ready;
        if !wanted {
            delete::let_go(peer, id);
            self.queue(Task::DeleteChild(spi_in));
        }
        collision::child_arrives(self, cx, peer, id);
        id
    }

    /// Makes way for itself among the peer's other IKE SAs.
    pub fn arrive(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, initial_contact: bool) {
        collision::arrive(self, cx, peer, initial_contact);
        self.go_on(cx, peer);
    }

    /// Whether it is in use.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a request that may bring a child SA is under way or waits.
    pub fn is_making_child(&self) -> bool {
        let underway = matches!(self.underway, Some(Underway::CreateChild(_) | Underway::RekeyChild(_)));
        self.is_open() && (underway || self.tasks.iter().any(|task| matches!(task, Task::CreateChild(_))))
    }

    /// Has something requested in its turn. What waits already is not done twice.
    pub fn queue(&mut self, task: Task) {
        if self.tasks.len() < MAX_TASKS && !self.tasks.contains(&task) {
            self.tasks.push_back(task);
        }
    }

    /// Has child SAs made for all that is to be protected, beside that for which IKE_AUTH has made one.
    pub fn queue_children(&mut self, config: &PeerConfig, first: Selector) {
        let others = config.protects.iter().filter(|selector| **selector != first);
        others.for_each(|selector| self.queue(Task::CreateChild(*selector)));
    }

    /// What waits for its turn, to be done by another IKE SA.
    pub fn take_tasks(&mut self) -> VecDeque<Task> {
        std::mem::take(&mut self.tasks)
    }

    /// A datagram names our SPI.
    pub fn receive(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        path: Path,
        datagram: &Datagram<'_>,
    ) -> Option<Session> {
        let received = self.channel.receive(cx, path, datagram);
        if !matches!(received, Received::Nothing)
            && self.channel.follow(path)
            && path.local.port() == NAT_PORT
        {
            peer.children.follow(cx, path.remote.port());
        }
        match received {
            Received::Nothing => {}
            Received::Request(exchange, payloads) => {
                // Whoever asks something new has our last answer, and what we have granted by that
                let mut granted = peer.children.waiting(self.id);
                granted.retain(|id| Some(*id) != self.rival_child());
                granted.iter().for_each(|id| peer.children.confirm(*id));
                self.request(cx, peer, path, exchange, Parts::new(payloads));
                granted.into_iter().for_each(|id| peer.children.prefer(cx, id));
            }
            Received::Answer(payloads) => {
                if !self.answer(cx, peer, Parts::new(payloads)) {
                    return None;
                }
            }
            Received::BadAnswer(error) => {
                peer.trouble(cx, format!("{} sends a malformed answer: {error}", path.remote.ip()));
                return None;
            }
        }
        self.go_on(cx, peer);
        Some(Session::Established(self))
    }

    fn request(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, path: Path, exchange: Exchange, parts: Parts) {
        match exchange {
            Exchange::CreateChildSa => self.create(cx, peer, path, &parts),
            Exchange::Informational => delete::informed(self, cx, peer, path, &parts),
            Exchange::SaInit | Exchange::Auth | Exchange::Other(_) => {
                self.channel.answer(cx, path, exchange, &[error_payload(notify::INVALID_SYNTAX)]);
            }
        }
    }

    /// CREATE_CHILD_SA does three things (RFC 7296 1.3); which one, its payloads tell.
    fn create(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, path: Path, parts: &Parts) {
        let for_ike = parts.sa.iter().flatten().any(|proposal| proposal.protocol == protocol::IKE);
        let rekeys = parts.notify(notify::REKEY_SA).filter(|n| n.protocol == protocol::ESP);
        if !self.is_open() {
            self.refuse(cx, path, notify::TEMPORARY_FAILURE);
        } else if for_ike {
            ike_rekey::answer(self, cx, peer, path, parts);
        } else if matches!(self.underway, Some(Underway::RekeyIke(_))) {
            // RFC 7296 2.25.2: it could be meant for either of two IKE SAs
            self.refuse(cx, path, notify::TEMPORARY_FAILURE);
        } else if !peer.children.has_room(cx.limits.children_per_peer) {
            self.refuse(cx, path, notify::NO_ADDITIONAL_SAS);
        } else if let Some(rekeys) = rekeys {
            child_rekey::answer(self, cx, peer, path, parts, rekeys);
        } else {
            child_create::answer(self, cx, peer, path, parts);
        }
    }

    /// The child SA that the peer was granted while we wait for one for the same purpose: one of them will go.
    fn rival_child(&self) -> Option<ChildId> {
        let making = match &self.underway {
            Some(
                Underway::CreateChild(CreateChild(making)) | Underway::RekeyChild(RekeyChild { making, .. }),
            ) => making,
            _ => return None,
        };
        making.rival.as_ref().map(|(id, _)| *id)
    }

    /// The IKE SA that the peer was granted while we wait for one for the same purpose.
    fn rival_ike(&mut self) -> Option<&mut SessionId> {
        match &mut self.underway {
            Some(Underway::RekeyIke(request)) => request.rival(),
            _ => None,
        }
    }

    /// Another IKE SA has taken the place of one that this one is to take the place of, or to give way to.
    pub fn follow(&mut self, from: SessionId, to: SessionId) {
        if let Some(old) = self.replaces.as_mut().filter(|old| **old == from) {
            *old = to;
        }
        if let Some(rival) = self.rival_ike().filter(|rival| **rival == from) {
            *rival = to;
        }
    }

    /// Answers CREATE_CHILD_SA with an error.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, path: Path, kind: u16) {
        self.channel.answer(cx, path, Exchange::CreateChildSa, &[error_payload(kind)]);
    }

    /// False: that was the end.
    fn answer(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, parts: Parts) -> bool {
        self.told = true;
        match self.underway.take() {
            Some(Underway::CreateChild(request)) => request.answered(self, cx, peer, parts),
            Some(Underway::RekeyChild(request)) => request.answered(self, cx, peer, parts),
            Some(Underway::RekeyIke(request)) => request.answered(self, cx, peer, parts),
            Some(Underway::DeleteChild(spi)) => delete::child_answered(cx, peer, &spi),
            Some(Underway::DeleteIke) => return false,
            Some(Underway::Liveness) | None => {}
        }
        self.liveness.heard(cx.now);
        true
    }

    /// Begins with what waits, if nothing is under way.
    pub fn go_on(&mut self, cx: &mut Cx<'_>, peer: &mut Peer) {
        while !self.channel.is_waiting() && !matches!(self.phase, Phase::Closed { .. }) {
            let Some(task) = self.tasks.pop_front() else { return };
            let begun = match task {
                Task::CreateChild(selector) => CreateChild::begin(self, cx, peer, selector),
                Task::RekeyChild(id) => RekeyChild::begin(self, cx, peer, id, None),
                Task::RekeyIke => RekeyIke::begin(self, cx, peer, None),
                Task::DeleteChild(spi) => delete::begin_child(self, spi),
                Task::DeleteIke => delete::begin_ike(self),
                Task::Supersede => {
                    collision::supersede(self, cx, peer);
                    None
                }
                Task::Liveness => Some((Exchange::Informational, Vec::new(), Underway::Liveness)),
            };
            self.underway_with(cx, begun);
        }
    }

    /// Sends a request, if there is anything to be requested.
    pub fn underway_with(&mut self, cx: &mut Cx<'_>, begun: Option<(Exchange, Vec<Payload>, Underway)>) {
        if let Some((exchange, payloads, underway)) = begun {
            self.channel.request(cx, exchange, &payloads);
            self.underway = Some(underway);
        }
    }

    /// Deletes it, the peer being told; its children go with it.
    pub fn close(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, why: &str) {
        if matches!(self.phase, Phase::Closing | Phase::Closed { .. }) {
            return;
        }
        if let Some(Underway::RekeyIke(request)) = &self.underway {
            request.close_rival(cx, peer, why);
        }
        peer.children.let_go_all(cx, self.id, why);
        self.phase = Phase::Closing;
        self.tasks.clear();
        self.queue(Task::DeleteIke);
        self.go_on(cx, peer);
    }

    /// It is deleted. What it answered last may have been lost.
    pub fn closed(&mut self, cx: &Cx<'_>) {
        self.phase = Phase::Closed { until: cx.now + CLOSED };
        self.tasks.clear();
        self.underway = None;
        self.channel.abandon();
    }

    /// When [`IkeSa::handle_timeout`] has something to do.
    pub fn timeout(&self, peer: &Peer) -> Option<Instant> {
        let own = match self.phase {
            Phase::Open => {
                let open = [
                    Some(self.rekey_at),
                    self.reauth_at,
                    self.prune_at,
                    self.again_at,
                    self.liveness.timeout(self, &peer.config),
                ];
                open.into_iter().flatten().chain([self.expires_at]).min()
            }
            Phase::Replaced { until } | Phase::Closed { until } => Some(until),
            Phase::Closing => None,
        };
        let open = self.is_open();
        let children = peer
            .children
            .of(self.id)
            .flat_map(|child| [child_due(child, open), child.prune_at.filter(|_| open)])
            .flatten();
        children.chain(own).chain(self.channel.timeout()).min()
    }

    /// It is `cx.now`.
    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>, peer: &mut Peer) -> Option<Session> {
        if !self.channel.handle_timeout(cx) {
            if self.phase == Phase::Open {
                peer.unanswered(cx, format!("{} does not answer any more", self.channel.path.remote.ip()));
            }
            return None;
        }
        match self.phase {
            Phase::Open => self.handle_open(cx, peer),
            Phase::Replaced { until } if until <= cx.now => self.close(cx, peer, "it was replaced"),
            Phase::Closed { until } if until <= cx.now => return None,
            Phase::Replaced { .. } | Phase::Closing | Phase::Closed { .. } => {}
        }
        self.handle_children(cx, peer);
        collision::prune_children(&mut self, cx, peer);
        self.go_on(cx, peer);
        Some(Session::Established(self))
    }

    fn handle_open(&mut self, cx: &mut Cx<'_>, peer: &mut Peer) {
        if self.expires_at <= cx.now {
            return self.close(cx, peer, "the IKE SA has expired: the peer did not let it be rekeyed");
        }
        if self.prune_at.is_some_and(|at| at <= cx.now) && collision::is_superfluous(self, cx, peer) {
            return self.close(cx, peer, "another IKE SA has taken its place");
        }
        if self.reauth_at.is_some_and(|at| at <= cx.now) {
            self.reauth_at = None;
            peer.start(cx, Some(self.id));
        }
        if self.again_at.is_some_and(|at| at <= cx.now) {
            collision::supersede(self, cx, peer);
        }
        if self.rekey_at <= cx.now {
            // put off for good unless it fails
            self.rekey_at = self.expires_at;
            self.queue(Task::RekeyIke);
        }
        if peer.config.initiate && self.liveness.suspects(cx.now, &self.channel) {
            peer.start_over(cx, self.id);
        }
        if self.liveness.due(cx, self.nat, &self.channel, &peer.config) {
            self.queue(Task::Liveness);
        }
    }

    fn handle_children(&mut self, cx: &mut Cx<'_>, peer: &mut Peer) {
        let open = self.is_open();
        let due: Vec<_> = peer
            .children
            .of(self.id)
            .filter(|child| child_due(child, open).is_some_and(|at| at <= cx.now))
            .map(|child| (child.id, child.spi_in.clone(), child.state, child.expires_at <= cx.now))
            .collect();
        for (id, spi_in, state, expired) in due {
            if state == ChildState::Installed && !expired {
                self.queue(Task::RekeyChild(id));
            } else {
                delete::let_go(peer, id);
                self.queue(Task::DeleteChild(spi_in));
                if expired {
                    peer.children.retire(
                        cx,
                        id,
                        "the child SA has expired: the peer did not let it be rekeyed",
                    );
                }
            }
            if let Some(child) = peer.children.get_mut(id) {
                child.rekey_at = child.expires_at;
            }
        }
    }

    /// For operators.
    pub fn state(&self) -> IkeState {
        match (self.phase, &self.underway) {
            (Phase::Open, Some(Underway::RekeyIke(_))) => IkeState::Rekeying,
            (Phase::Open, _) => IkeState::Established,
            (Phase::Replaced { .. }, _) => IkeState::Rekeyed,
            (Phase::Closing | Phase::Closed { .. }, _) => IkeState::Deleting,
        }
    }

    /// When it ends, whatever happens.
    pub fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

/// When something is to be done about a child SA: rekey it, or if it has been replaced and the peer does not delete it, do
/// so ourselves. Its hard limit comes in any case.
fn child_due(child: &ChildSa, open: bool) -> Option<Instant> {
    match child.state {
        ChildState::Installed | ChildState::Rekeyed if open => Some(child.rekey_at.min(child.expires_at)),
        ChildState::Installed | ChildState::Rekeying | ChildState::Rekeyed => Some(child.expires_at),
        ChildState::Deleting | ChildState::Draining => None,
    }
}
