//! A peer: its IKE SAs, its child SAs, and the will to have one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Identity;
use crate::config::{Lifetimes, Path, PeerConfig, PeerId};
use crate::output::{ChildId, ChildUse, Event};
use crate::sa::auth::Auth;
use crate::sa::children::{Children, Flow};
use crate::sa::established::{IkeSa, Task};
use crate::sa::init::Init;
use crate::sa::{Cx, SessionId, delete};
use crate::selector::Selector;
use crate::wire::{Datagram, Payload, notify};

/// Who was up for so long may be begun with anew at once.
const STABLE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub id: PeerId,
    pub config: Arc<PeerConfig>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub children: Children,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// It is to be known no more once its IKE SAs are deleted.
    pub leaving: bool,
    /// When the endpoint has planned to look at it again.
    pub deadline: Option<Instant>,
    next_attempt: Option<Instant>,
    /// Attempts since the last success.
    failures: u32,
    up_since: Option<Instant>,
    /// The peer may be about to begin itself.
    gives_way: bool,
}

/// Whether SAs made under one configuration may live on under another.
fn same_security(a: &PeerConfig, b: &PeerConfig) -> bool {
    let essence = |config: &PeerConfig| PeerConfig {
        name: String::new(),
        lifetimes: Lifetimes::default(),
        liveness: Duration::ZERO,
        protects: Vec::new(),
        initiate: false,
        ..config.clone()
    };
    essence(a) == essence(b)
}

/// An IKE SA of a peer, by how far it is.
#[derive(Debug)]
pub(crate) enum Session {
    /// We have sent IKE_SA_INIT.
    Init(Box<Init>),
    /// We have sent IKE_AUTH.
    Auth(Box<Auth>),
    /// Both ends are authenticated.
    Established(Box<IkeSa>),
}

impl Session {
    /// Another IKE SA has taken the place of one that this one may be about to take the place of, or to give way to.
    pub fn follow(&mut self, from: SessionId, to: SessionId) {
        let other = match self {
            Session::Init(init) => init.replaces.as_mut(),
            Session::Auth(auth) => auth.replaces.as_mut(),
            Session::Established(sa) => return sa.follow(from, to),
        };
        if let Some(other) = other.filter(|other| **other == from) {
            *other = to;
        }
    }
}

impl Peer {
    /// With no SAs yet.
    pub fn new(id: PeerId, config: PeerConfig) -> Peer {
        Peer {
            id,
            config: Arc::new(config),
            sessions: BTreeMap::new(),
            children: Children::new(id),
            trouble: None,
            leaving: false,
            deadline: None,
            next_attempt: None,
            failures: 0,
            up_since: None,
            gives_way: false,
        }
    }

    /// Its configuration is this. SAs that do not fit it are deleted and made anew.
    pub fn configure(&mut self, cx: &mut Cx<'_>, config: PeerConfig) {
        let unfit = self.leaving || !same_security(&self.config, &config);
        let others = self.config.protects != config.protects;
        self.config = Arc::new(config);
        if unfit {
            self.leaving = false;
            self.delete_all(cx, "its configuration has changed");
            self.trouble = None;
            self.failures = 0;
            self.next_attempt = None;
        } else if others {
            self.protect_others(cx);
        }
        self.settle(cx);
    }

    /// What is to be protected has changed: what is not any more loses its child SAs, what is new gets some at once.
    fn protect_others(&mut self, cx: &mut Cx<'_>) {
        let config = self.config.clone();
        for (child, ike, spi_in) in self.children.apart_from(&config.protects) {
            delete::let_go(self, child);
            self.command(cx, ike, Task::DeleteChild(spi_in));
        }
        self.failures = 0;
        self.next_attempt = None;
    }

    /// It is to be known no more.
    pub fn leave(&mut self, cx: &mut Cx<'_>, why: &str) {
        self.leaving = true;
        self.next_attempt = None;
        self.delete_all(cx, why);
    }

    /// This host goes. The peer is told, and not waited for.
    pub fn farewell(mut self, cx: &mut Cx<'_>) {
        for (id, session) in std::mem::take(&mut self.sessions) {
            if let Session::Established(mut sa) = session {
                delete::farewell(&mut sa, cx);
            }
            self.children.retire_all(cx, id, "Underpass shuts down");
        }
    }

    fn delete_all(&mut self, cx: &mut Cx<'_>, why: &str) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(cx, id, why));
    }

    /// How well the peer fits the addresses of a message: that of both ends, that of its own, or that of nobody.
    pub fn fits(&self, path: Path) -> Option<u8> {
        let ours = self.config.local.map(|local| local == path.local.ip());
        if self.leaving || ours == Some(false) {
            return None;
        }
        let theirs = match self.config.remote {
            remote if remote == path.remote.ip() => 2,
            remote if remote.is_unspecified() && remote.is_ipv4() == path.remote.is_ipv4() => 0,
            _ => return None,
        };
        Some(theirs + u8::from(ours.is_some()))
    }

    /// Who we say we are.
    pub fn local_id(&self, address: IpAddr) -> Identity {
        let config = &self.config;
        let named = config.local_id.as_ref().or_else(|| config.credential.identity());
        named.cloned().unwrap_or(Identity::Address(address))
    }

    /// Tells the operator of something that failed.
    pub fn trouble(&mut self, cx: &mut Cx<'_>, text: impl Into<String>) {
        let text = text.into();
        if self.trouble.as_ref() != Some(&text) {
            cx.event(self.id, Event::Trouble(text.clone()));
            self.trouble = Some(text);
        }
    }

    /// Nobody answers: the next attempt may begin at once, as the last one has taken its time.
    pub fn unanswered(&mut self, cx: &mut Cx<'_>, text: impl Into<String>) {
        self.failures = 0;
        self.trouble(cx, text);
    }

    /// The peer has deleted what there was. It may be about to make it anew itself, so it is given a moment.
    pub fn give_way(&mut self) {
        self.gives_way = true;
    }

    /// Whether an IKE SA with the peer stands.
    pub fn has_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// The IKE SAs that stand, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &IkeSa> {
        self.sessions.values().filter_map(|session| match session {
            Session::Established(sa) if sa.is_open() => Some(&**sa),
            _ => None,
        })
    }

    /// Begins a new IKE SA; `replaces` is deleted when that stands.
    pub fn start(&mut self, cx: &mut Cx<'_>, replaces: Option<SessionId>) {
        if let Some(init) = Init::new(cx, self, replaces) {
            self.sessions.insert(init.id, Session::Init(Box::new(init)));
        }
    }

    /// Begins a new IKE SA in the place of one that the peer refuses to do more with, unless one is under way.
    pub fn start_over(&mut self, cx: &mut Cx<'_>, replaces: SessionId) {
        if self.sessions.values().all(|session| matches!(session, Session::Established(_))) {
            self.start(cx, Some(replaces));
        }
    }

    /// Makes what is missing: an IKE SA, or a child SA in the one that stands.
    pub fn attempt(&mut self, cx: &mut Cx<'_>) {
        self.next_attempt = None;
        self.gives_way = false;
        self.failures = self.failures.saturating_add(1);
        let Some(sa) = self.open().last() else { return self.start(cx, None) };
        let id = sa.id;
        let fresh = |selector: &Selector| !sa.refused.contains(selector);
        let (fresh, refused): (Vec<_>, Vec<_>) = self.missing().partition(fresh);
        if fresh.is_empty() && !self.children.any_up() {
            return self.start(cx, Some(id));
        }
        for selector in fresh.into_iter().chain(refused) {
            self.command(cx, id, Task::CreateChild(selector));
        }
    }

    /// Makes what is missing, now.
    pub fn initiate(&mut self, cx: &mut Cx<'_>) {
        self.failures = 0;
        for session in self.sessions.values_mut() {
            match session {
                Session::Init(init) => init.hurry(cx.now),
                Session::Auth(auth) => auth.channel.hurry(cx.now),
                Session::Established(sa) => sa.channel.hurry(cx.now),
            }
        }
        if !self.is_complete() && !self.is_trying() && !self.leaving {
            self.attempt(cx);
        }
    }

    /// Has an IKE SA do something.
    pub fn command(&mut self, cx: &mut Cx<'_>, id: SessionId, task: Task) {
        self.with(cx, id, |cx, peer, session| match session {
            Session::Established(mut sa) => {
                sa.queue(task);
                sa.go_on(cx, peer);
                Some(Session::Established(sa))
            }
            other => Some(other),
        });
    }

    /// Deletes an IKE SA, the peer being told.
    pub fn close(&mut self, cx: &mut Cx<'_>, id: SessionId, why: &str) {
        self.with(cx, id, |cx, peer, session| match session {
            Session::Established(mut sa) => {
                sa.close(cx, peer, why);
                Some(Session::Established(sa))
            }
            Session::Init(_) | Session::Auth(_) => None,
        });
    }

    /// Forgets an IKE SA, the peer not being told.
    pub fn drop_session(&mut self, cx: &mut Cx<'_>, id: SessionId, why: &str) {
        if self.sessions.remove(&id).is_some() {
            self.children.retire_all(cx, id, why);
        }
    }

    /// Forgets the oldest IKE SAs of a peer that makes more and more: first those that are deleted already.
    pub fn keep_to_limits(&mut self, cx: &mut Cx<'_>) {
        let open: Vec<_> = self.open().map(|sa| sa.id).collect();
        let mut others: Vec<_> = self.sessions.keys().copied().filter(|id| !open.contains(id)).collect();
        others.truncate((others.len() + 1).saturating_sub(4 * cx.limits.ike_per_peer));
        let too_many = (open.len() + 1).saturating_sub(cx.limits.ike_per_peer);
        for id in others.into_iter().chain(open.into_iter().take(too_many)) {
            self.drop_session(cx, id, "the peer has made too many IKE SAs");
        }
    }

    /// A datagram names one of our SPIs.
    pub fn receive(&mut self, cx: &mut Cx<'_>, id: SessionId, path: Path, datagram: &Datagram<'_>) {
        self.with(cx, id, |cx, peer, session| match session {
            Session::Init(init) => init.receive(cx, peer, path, datagram),
            Session::Auth(auth) => auth.receive(cx, peer, path, datagram),
            Session::Established(sa) => sa.receive(cx, peer, path, datagram),
        });
        self.settle(cx);
    }

    /// Somebody says in the clear that our IKE SA is not known to the peer. It may be so, if a request of ours waits for an
    /// answer; then a new IKE SA is tried beside the old one, which stays until that stands (RFC 7296 2.21.4 forbids more).
    pub fn hint(&mut self, cx: &mut Cx<'_>, id: SessionId, path: Path, datagram: &Datagram<'_>) {
        let unknown =
            |payload: &Payload| matches!(payload, Payload::Notify(n) if n.kind == notify::INVALID_IKE_SPI);
        let Some(Session::Established(sa)) = self.sessions.get_mut(&id) else { return };
        let plausible = datagram.header.response
            && datagram.payloads.iter().any(unknown)
            && (datagram.header.initiator_spi, datagram.header.responder_spi)
                == (sa.channel.spi_i, sa.channel.spi_r)
            && path.remote.ip() == sa.channel.path.remote.ip();
        let wanted = plausible && sa.is_open() && sa.channel.is_waiting() && sa.liveness.doubt(cx.now);
        if wanted
            && self.config.initiate
            && !self.sessions.values().any(|s| !matches!(s, Session::Established(_)))
        {
            self.start(cx, Some(id));
        }
    }

    /// Asks the peer for a sign of life, if it was not asked just now.
    pub fn ask(&mut self, cx: &mut Cx<'_>) {
        let Some(Session::Established(sa)) = self
            .sessions
            .values_mut()
            .rev()
            .find(|session| matches!(session, Session::Established(sa) if sa.is_open()))
        else {
            return;
        };
        if sa.liveness.ask(cx.now) {
            let id = sa.id;
            self.command(cx, id, Task::Liveness);
        }
    }

    /// What the datapath has counted of a child SA.
    pub fn traffic(&mut self, cx: &mut Cx<'_>, child: ChildId, traffic: ChildUse) {
        let Some(ike) = self.children.get(child).map(|child| child.ike) else { return };
        let Flow { sent, received } = self.children.traffic(cx, child, traffic);
        let config = self.config.clone();
        if let Some(Session::Established(sa)) = self.sessions.get_mut(&ike) {
            if received {
                sa.liveness.heard(cx.now);
            } else if sent && sa.is_open() && sa.liveness.unanswered(cx.now, &sa.channel, &config) {
                self.command(cx, ike, Task::Liveness);
            }
        }
    }

    /// When [`Peer::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(|session| match session {
            Session::Init(init) => Some(init.timeout()),
            Session::Auth(auth) => auth.channel.timeout(),
            Session::Established(sa) => sa.timeout(self),
        });
        sessions.chain(self.children.timeout()).chain(self.next_attempt).min()
    }

    /// It is `cx.now`.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.with(cx, id, |cx, peer, session| match session {
                Session::Init(init) => init.handle_timeout(cx, peer),
                Session::Auth(auth) => auth.handle_timeout(cx, peer),
                Session::Established(sa) => sa.handle_timeout(cx, peer),
            });
        }
        self.children.handle_timeout(cx);
        self.settle(cx);
    }

    /// Plans the next attempt if nothing stands and nothing is tried.
    pub fn settle(&mut self, cx: &mut Cx<'_>) {
        if self.is_complete() {
            self.next_attempt = None;
            self.gives_way = false;
            if self.up_since.is_none() {
                self.up_since = Some(cx.now);
                self.trouble = None;
            }
            return;
        }
        if let Some(since) = self.up_since.take()
            && cx.now.saturating_duration_since(since) >= STABLE
        {
            self.failures = 0;
        }
        if self.leaving || !self.config.initiate || self.is_trying() {
            self.next_attempt = None;
            return;
        }
        let delay = match self.failures {
            0 if self.gives_way => FIRST_DELAY,
            0 => Duration::ZERO,
            n => LONGEST_DELAY.min(FIRST_DELAY * 2u32.saturating_pow(n - 1)),
        };
        let at = *self.next_attempt.get_or_insert(cx.now + delay);
        if at <= cx.now {
            self.attempt(cx);
        }
    }

    /// What is to be protected and has no child SA to be sent by.
    fn missing(&self) -> impl Iterator<Item = Selector> {
        self.config.protects.iter().copied().filter(|selector| !self.children.is_up(*selector))
    }

    /// Whether all that is to be protected can flow.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// When the next attempt begins, if nothing is under way.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.next_attempt
    }

    /// Whether something is under way that may bring a child SA.
    pub fn is_trying(&self) -> bool {
        self.sessions.values().any(|session| match session {
            Session::Init(_) | Session::Auth(_) => true,
            Session::Established(sa) => sa.is_making_child(),
        })
    }

    /// Has a session, taken out for as long, do something with the peer; it comes back as what it has become.
    fn with(
        &mut self,
        cx: &mut Cx<'_>,
        id: SessionId,
        what: impl FnOnce(&mut Cx<'_>, &mut Peer, Session) -> Option<Session>,
    ) {
        let Some(session) = self.sessions.remove(&id) else { return };
        match what(cx, self, session) {
            Some(session) => {
                self.sessions.insert(id, session);
            }
            None => self.children.retire_all(
                cx,
                id,
                self.trouble.clone().as_deref().unwrap_or("the IKE SA is gone"),
            ),
        }
    }
}
