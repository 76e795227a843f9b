//! The child SAs of one peer: installed, sent by, replaced, received by for a while, removed.
//!
//! They belong to the peer and not to an IKE SA, as they outlive that when it is rekeyed. Of several for one kind of traffic
//! one is sent by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::channel::PATIENCE;
use super::numbers::Own;
use super::{Cx, SessionId};
use crate::auth::Authenticated;
use crate::config::{Lifetimes, PeerId};
use crate::crypto::{Rng, Secret};
use crate::output::{Child, ChildId, ChildUse, Direction, Event, UdpPorts};
use crate::proposal::EspSuite;
use crate::selector::Selector;
use crate::status::{ChildState, ChildStatus};

/// Packets under way when an SA is deleted still arrive for so long.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Who has answered a request sends by the new SA after so long, if nothing else tells that the peer is ready. Until then
/// the answer may have been lost: the peer has its time to ask again.
const SWITCH: Duration = Duration::from_secs(60);

/// All child SAs of a peer, oldest first.
#[derive(Debug)]
pub(crate) struct Children {
    peer: PeerId,
    list: Vec<ChildSa>,
    /// The ones that are sent by.
    current: BTreeMap<Selector, ChildId>,
}

/// A child SA that is installed.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub id: ChildId,
    pub selector: Selector,
    /// The IKE SA that it belongs to now.
    pub ike: SessionId,
    pub state: ChildState,
    /// Of several for the same traffic the one of the highest rank remains: the lower nonce of what made it (RFC 7296 2.8.1).
    pub rank: Vec<u8>,
    /// Whether that was our request.
    pub made_here: bool,
    /// To be deleted if by then another stands that makes it superfluous.
    pub prune_at: Option<Instant>,
    pub spi_in: Own<u32>,
    pub spi_out: u32,
    pub suite: EspSuite,
    /// When to rekey it; put off when the peer cannot just now.
    pub rekey_at: Instant,
    /// When to give it up.
    pub expires_at: Instant,
    local: IpAddr,
    remote: IpAddr,
    udp: Option<UdpPorts>,
    born: Instant,
    soft_packets: u64,
    soft_bytes: u64,
    traffic: ChildUse,
    sending: Sending,
    remove_at: Option<Instant>,
}

/// Whether packets have passed a child SA.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    pub sent: bool,
    pub received: bool,
}

/// Whether a child SA may be sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The peer has it.
    Ready,
    /// The peer was granted it, and may not know yet. After so long it does, or will never.
    From(Instant),
    /// It is about to be deleted.
    Never,
}

/// A child SA as both ends have agreed upon.
#[derive(Debug)]
pub(crate) struct NewChild {
    pub selector: Selector,
    pub rank: Vec<u8>,
    pub spi_in: Own<u32>,
    pub spi_out: u32,
    pub suite: EspSuite,
    pub keymat_in: Secret,
    pub keymat_out: Secret,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub udp: Option<UdpPorts>,
}

impl Children {
    /// None yet.
    pub fn new(peer: PeerId) -> Children {
        Children { peer, list: Vec::new(), current: BTreeMap::new() }
    }

    /// Installs a child SA of a peer that has proved who it is. `ready` says that the peer has it installed already, so
    /// that it can be sent by at once. Otherwise it is when there is no other.
    pub fn install(
        &mut self,
        cx: &mut Cx<'_>,
        _proof: &Authenticated,
        ike: SessionId,
        lifetimes: &Lifetimes,
        new: NewChild,
        ready: bool,
    ) -> ChildId {
        let id = cx.numbers.child();
        let selector = new.selector;
        let use_outbound = ready || !self.is_up(selector);
        let (rekey_at, expires_at) = limits(cx.now, cx.rng, lifetimes.child);
        let volume = Volume::new(lifetimes, new.suite.esn);
        cx.event(
            self.peer,
            Event::Install(Child {
                id,
                selector,
                inbound: Direction { spi: *new.spi_in, keymat: new.keymat_in },
                outbound: Direction { spi: new.spi_out, keymat: new.keymat_out },
                suite: new.suite,
                local: new.local,
                remote: new.remote,
                udp: new.udp,
                hard_packets: volume.hard_packets,
                hard_bytes: volume.hard_bytes,
                use_outbound,
            }),
        );
        self.list.push(ChildSa {
            id,
            selector,
            ike,
            state: ChildState::Installed,
            rank: new.rank,
            made_here: ready,
            prune_at: None,
            spi_in: new.spi_in,
            spi_out: new.spi_out,
            suite: new.suite,
            rekey_at,
            expires_at,
            local: new.local,
            remote: new.remote,
            udp: new.udp,
            born: cx.now,
            soft_packets: fewer(cx.rng, volume.soft_packets),
            soft_bytes: fewer(cx.rng, volume.soft_bytes),
            traffic: ChildUse::default(),
            sending: if ready { Sending::Ready } else { Sending::From(cx.now + SWITCH) },
            remove_at: None,
        });
        if use_outbound && self.current.insert(selector, id).is_none() {
            cx.event(self.peer, Event::Up(selector));
        }
        id
    }

    /// The peer is known to have it: it may be sent by.
    pub fn confirm(&mut self, id: ChildId) {
        if let Some(child) = self.get_mut(id).filter(|child| child.is_waiting()) {
            child.sending = Sending::Ready;
        }
    }

    /// Sends by it from now on, unless that is done by a newer one or it must not be.
    pub fn prefer(&mut self, cx: &mut Cx<'_>, id: ChildId) {
        let ready = self.get(id).filter(|child| child.is_alive() && child.sending == Sending::Ready);
        let Some(selector) = ready.map(|child| child.selector) else { return };
        if self.current.get(&selector).is_some_and(|current| *current < id) {
            self.use_outbound(cx, selector, id);
        }
    }

    /// It will not be sent by: the peer is going to delete it.
    pub fn shun(&mut self, id: ChildId) {
        if let Some(child) = self.get_mut(id) {
            child.sending = Sending::Never;
        }
    }

    /// Of an IKE SA, those that the peer has been granted and may not know of yet.
    pub fn waiting(&self, ike: SessionId) -> Vec<ChildId> {
        self.of(ike).filter(|child| child.is_waiting()).map(|child| child.id).collect()
    }

    fn use_outbound(&mut self, cx: &mut Cx<'_>, selector: Selector, id: ChildId) {
        if self.current.insert(selector, id) != Some(id) {
            cx.event(self.peer, Event::UseOutbound(id));
        }
    }

    /// Sends by it no longer, and receives by it only what is under way, as it is deleted at one end at least. With no
    /// other SA to go on with, its traffic is down, and `why`.
    pub fn retire(&mut self, cx: &mut Cx<'_>, id: ChildId, why: &str) {
        self.retire_those(cx, why, DRAIN, |child| child.id == id);
    }

    /// Retires all that belong to an IKE SA which both ends know to be deleted, or which we know to be dead.
    pub fn retire_all(&mut self, cx: &mut Cx<'_>, ike: SessionId, why: &str) {
        for child in self.list.iter_mut().filter(|child| child.ike == ike) {
            child.remove_at = child.remove_at.map(|at| at.min(cx.now + DRAIN));
        }
        self.retire_those(cx, why, DRAIN, |child| child.ike == ike);
    }

    /// Retires all that belong to an IKE SA which we are about to delete. The peer goes on sending by them until it knows.
    pub fn let_go_all(&mut self, cx: &mut Cx<'_>, ike: SessionId, why: &str) {
        self.retire_those(cx, why, PATIENCE + DRAIN, |child| child.ike == ike);
    }

    fn retire_those(
        &mut self,
        cx: &mut Cx<'_>,
        why: &str,
        drain: Duration,
        those: impl Fn(&ChildSa) -> bool,
    ) {
        for child in self.list.iter_mut().filter(|child| child.is_alive() && those(child)) {
            child.state = ChildState::Draining;
            child.sending = Sending::Never;
            child.remove_at = Some(cx.now + drain);
        }
        let alive = |id: &ChildId| self.get(*id).is_some_and(ChildSa::is_alive);
        let lost: Vec<_> =
            self.current.iter().filter(|(_, id)| !alive(id)).map(|(selector, _)| *selector).collect();
        lost.into_iter().for_each(|selector| self.fall_back(cx, selector, why));
    }

    /// The one that was sent by for this is no more: another takes its place, or nothing is left.
    fn fall_back(&mut self, cx: &mut Cx<'_>, selector: Selector, why: &str) {
        // The newest that the peer is known to have; one that it wants to delete rather than one that it may not have yet;
        // of these the oldest
        let usable = |child: &ChildSa| match (child.state, child.sending) {
            (ChildState::Installed | ChildState::Rekeying, Sending::Ready) => Some((2, child.id.0)),
            (ChildState::Rekeyed, Sending::Ready) => Some((1, child.id.0)),
            (ChildState::Installed | ChildState::Rekeying | ChildState::Rekeyed, Sending::From(_)) => {
                Some((0, !child.id.0))
            }
            (ChildState::Deleting | ChildState::Draining, _) | (_, Sending::Never) => None,
        };
        let others = self.list.iter().filter(|child| child.selector == selector);
        if let Some((_, next)) = others.filter_map(|child| Some((usable(child)?, child.id))).max() {
            return self.use_outbound(cx, selector, next);
        }
        self.current.remove(&selector);
        for child in self.list.extract_if(.., |child| child.selector == selector && !child.is_alive()) {
            cx.event(self.peer, Event::Remove(child.id));
        }
        cx.event(self.peer, Event::Down(selector, why.to_owned()));
    }

    /// Hands over to the IKE SA that takes another's place.
    pub fn inherit(&mut self, from: SessionId, to: SessionId) {
        self.list.iter_mut().filter(|child| child.ike == from).for_each(|child| child.ike = to);
    }

    /// Follows the peer to another UDP port.
    pub fn follow(&mut self, cx: &mut Cx<'_>, remote_port: u16) {
        for child in &mut self.list {
            if let Some(udp) = child.udp.as_mut().filter(|udp| udp.remote != remote_port) {
                udp.remote = remote_port;
                cx.event(self.peer, Event::Moved(child.id, *udp));
            }
        }
    }

    /// What the datapath has counted, and so what has passed since it was asked last.
    pub fn traffic(&mut self, cx: &mut Cx<'_>, id: ChildId, traffic: ChildUse) -> Flow {
        let Some(child) = self.get_mut(id) else { return Flow::default() };
        let received = traffic.inbound_packets > child.traffic.inbound_packets;
        let sent = traffic.outbound_packets > child.traffic.outbound_packets;
        child.traffic = traffic;
        let over = |count: fn(&ChildUse) -> [u64; 2], limit| count(&traffic).into_iter().any(|n| n >= limit);
        if over(|t| [t.inbound_packets, t.outbound_packets], child.soft_packets)
            || over(|t| [t.inbound_bytes, t.outbound_bytes], child.soft_bytes)
        {
            child.rekey_at = child.rekey_at.min(cx.now);
            // asked for once
            (child.soft_packets, child.soft_bytes) = (u64::MAX, u64::MAX);
        }
        if received {
            // The peer sends by it, so it is ready to receive
            self.confirm(id);
            self.prefer(cx, id);
        }
        Flow { sent, received }
    }

    /// When [`Children::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        self.list.iter().flat_map(|child| [child.waits_until(), child.remove_at]).flatten().min()
    }

    /// Switches to SAs that are ready by now and removes those that have drained.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        let ready: Vec<_> =
            self.list.iter().filter(|child| due(child.waits_until())).map(|child| child.id).collect();
        let (gone, left) = std::mem::take(&mut self.list).into_iter().partition(|child| due(child.remove_at));
        let gone: Vec<ChildSa> = gone;
        self.list = left;
        for id in ready {
            self.confirm(id);
            self.prefer(cx, id);
        }
        gone.into_iter().for_each(|child| cx.event(self.peer, Event::Remove(child.id)));
    }

    /// Of an IKE SA, those that are not yet deleted.
    pub fn of(&self, ike: SessionId) -> impl Iterator<Item = &ChildSa> {
        self.list.iter().filter(move |child| child.ike == ike && child.is_alive())
    }

    /// Of an IKE SA, those for this that neither end is about to delete.
    pub fn standing(&self, ike: SessionId, selector: Selector) -> impl Iterator<Item = &ChildSa> {
        let stands = |state| matches!(state, ChildState::Installed | ChildState::Rekeying);
        self.of(ike).filter(move |child| child.selector == selector && stands(child.state))
    }

    /// By its name.
    pub fn get(&self, id: ChildId) -> Option<&ChildSa> {
        self.list.iter().find(|child| child.id == id)
    }

    /// By its name, to be changed.
    pub fn get_mut(&mut self, id: ChildId) -> Option<&mut ChildSa> {
        self.list.iter_mut().find(|child| child.id == id)
    }

    /// By the SPI that the peer receives by: what it calls the SA by. Only such as are not yet deleted.
    pub fn by_peer_spi(&mut self, spi: u32) -> Option<&mut ChildSa> {
        self.list.iter_mut().find(|child| child.spi_out == spi && child.is_alive())
    }

    /// By the SPI that we receive by.
    pub fn by_own_spi(&mut self, spi: u32) -> Option<&mut ChildSa> {
        self.list.iter_mut().find(|child| *child.spi_in == spi)
    }

    /// The ones that are sent by, and the IKE SAs that they belong to.
    pub fn current(&self) -> impl Iterator<Item = (ChildId, SessionId)> {
        let current = |child: &&ChildSa| self.current.get(&child.selector) == Some(&child.id);
        self.list.iter().filter(current).map(|child| (child.id, child.ike))
    }

    /// Whether an IKE SA has one for this that neither end is about to delete.
    pub fn has(&self, ike: SessionId, selector: Selector) -> bool {
        self.standing(ike, selector).next().is_some()
    }

    /// Those that are for nothing of this, and not yet deleted; with the IKE SAs that they belong to.
    pub fn apart_from(&self, selectors: &[Selector]) -> Vec<(ChildId, SessionId, Own<u32>)> {
        let apart = self.list.iter().filter(|child| child.is_alive() && !selectors.contains(&child.selector));
        apart.map(|child| (child.id, child.ike, child.spi_in.clone())).collect()
    }

    /// Whether there may be more. Those that drain, and soon are gone, count little.
    pub fn has_room(&self, limit: usize) -> bool {
        self.list.iter().filter(|child| child.is_alive()).count() < limit && self.list.len() < 4 * limit
    }

    /// Whether there is one to send this by.
    pub fn is_up(&self, selector: Selector) -> bool {
        self.current.contains_key(&selector)
    }

    /// Whether there is one to send anything by.
    pub fn any_up(&self) -> bool {
        !self.current.is_empty()
    }

    /// For operators.
    pub fn status(&self, now: Instant) -> Vec<ChildStatus> {
        let status = |child: &ChildSa| ChildStatus {
            id: child.id,
            selector: child.selector,
            state: child.state,
            spi_in: *child.spi_in,
            spi_out: child.spi_out,
            suite: child.suite,
            local: child.local,
            remote: child.remote,
            udp: child.udp,
            age: now.saturating_duration_since(child.born),
            rekey_in: (child.state == ChildState::Installed)
                .then(|| child.rekey_at.saturating_duration_since(now)),
            expires_in: Some(child.remove_at.unwrap_or(child.expires_at).saturating_duration_since(now)),
            traffic: child.traffic,
            outbound: self.current.get(&child.selector) == Some(&child.id),
        };
        self.list.iter().map(status).collect()
    }
}

impl ChildSa {
    /// Not deleted by either side.
    pub fn is_alive(&self) -> bool {
        self.state != ChildState::Draining
    }

    /// Whether the peer is known to have it.
    pub fn is_ready(&self) -> bool {
        self.sending == Sending::Ready
    }

    fn is_waiting(&self) -> bool {
        self.waits_until().is_some()
    }

    fn waits_until(&self) -> Option<Instant> {
        match self.sending {
            Sending::From(at) if self.is_alive() => Some(at),
            _ => None,
        }
    }
}

/// When something that may live for `life` is renewed, and when it ends: up to a tenth sooner by chance, and a tenth but
/// no less than a minute later.
pub(crate) fn limits(now: Instant, rng: &mut dyn Rng, life: Duration) -> (Instant, Instant) {
    let soft = Duration::from_millis(fewer(rng, life.as_millis().try_into().unwrap_or(u64::MAX)));
    let hard = life + (life / 10).max(Duration::from_secs(60));
    (after(now, soft), after(now, hard))
}

/// What is further away than clocks reach is in thirty years.
fn after(now: Instant, time: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(30 * 365 * 86_400);
    now + time.min(LONG)
}

/// Up to a tenth less.
fn fewer(rng: &mut dyn Rng, limit: u64) -> u64 {
    let mut chance = [0; 2];
    rng.fill(&mut chance);
    let tenth = u128::from(limit / 10) * u128::from(u16::from_be_bytes(chance)) / u128::from(u16::MAX);
    limit - u64::try_from(tenth).unwrap_or(0)
}

struct Volume {
    soft_packets: u64,
    soft_bytes: u64,
    hard_packets: u64,
    hard_bytes: u64,
}

impl Volume {
    /// Sequence numbers must not wrap, whatever is configured (RFC 4303 3.3.3).
    fn new(lifetimes: &Lifetimes, esn: bool) -> Volume {
        let most = if esn { u64::MAX } else { u64::from(u32::MAX) };
        let more = |n: u64| n.saturating_add(n / 4);
        Volume {
            soft_packets: lifetimes.packets.min(most / 5 * 4),
            soft_bytes: lifetimes.bytes,
            hard_packets: more(lifetimes.packets).min(most),
            hard_bytes: more(lifetimes.bytes),
        }
    }
}
