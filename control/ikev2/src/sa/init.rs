//! IKE_SA_INIT as initiator (RFC 7296 1.2): repeated with a cookie or another group where the responder asks for it.
//!
//! Nothing here is authenticated. A cookie and another of our groups are granted, a few times; other errors are noted as
//! a hint for the operator, and an answer is waited for still: they may be forged.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::auth::Auth;
use super::channel::{Channel, Ends};
use super::numbers::{Own, Owner, nonce};
use super::payloads::{Parts, error_name};
use super::retry::{Due, Retry};
use super::{Cx, SessionId, nat};
use crate::auth::{hash_algorithms, parse_hash_algorithms};
use crate::config::{PORT, Path, PeerConfig};
use crate::crypto::{Exchanged, IkeKeys, KeyPair};
use crate::endpoint::peer::{Peer, Session};
use crate::proposal::{Group, accept_ike, ike_proposals};
use crate::wire::{Datagram, Exchange, Header, KeyExchange, Notify, Payload, Spi, encode_clear, notify};

/// After so long all is made anew: keys, nonces, SPI.
const PATIENCE: Duration = Duration::from_secs(60);
/// The operator is told when so many requests have gone unanswered: after some four seconds.
const SILENCE: u32 = 5;
/// Cookies and groups that we let ourselves be sent back for.
const DETOURS: u8 = 6;

/// We have sent IKE_SA_INIT.
#[derive(Debug)]
pub(crate) struct Init {
    pub id: SessionId,
    pub begun: Instant,
    /// An IKE SA that the new one is to take the place of.
    pub replaces: Option<SessionId>,
    pub path: Path,
    spi: Own<Spi>,
    nonce: Vec<u8>,
    key: KeyPair,
    cookie: Option<Vec<u8>>,
    message: Vec<u8>,
    retry: Retry,
    detours: u8,
    /// What the responder has against it, if it was the responder.
    refusal: Option<String>,
}

impl Init {
    /// Begins, if our address is known. Otherwise tells of the trouble.
    pub fn new(cx: &mut Cx<'_>, peer: &mut Peer, replaces: Option<SessionId>) -> Option<Init> {
        let config = peer.config.clone();
        let local = config.local.filter(|_| !config.remote.is_unspecified());
        let (Some(local), Some(group)) = (local, config.ike.groups.first()) else {
            peer.trouble(cx, format!("no way to {} is known", config.remote));
            return None;
        };
        let key = match KeyPair::generate(*group, cx.rng) {
            Ok(key) => key,
            Err(error) => {
                peer.trouble(cx, error.to_string());
                return None;
            }
        };
        let id = cx.numbers.session();
        let mut init = Init {
            id,
            begun: cx.now,
            replaces,
            path: Path { local: SocketAddr::new(local, PORT), remote: SocketAddr::new(config.remote, PORT) },
            spi: cx.numbers.ike_spi(cx.rng, Owner::Peer(peer.id, id)),
            nonce: nonce(cx.rng),
            key,
            cookie: None,
            message: Vec::new(),
            retry: Retry::new(cx.now, PATIENCE),
            detours: 0,
            refusal: None,
        };
        init.send(cx, &config);
        Some(init)
    }

    /// Our SPI.
    pub fn spi(&self) -> Spi {
        *self.spi
    }

    /// A datagram names our SPI.
    pub fn receive(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        path: Path,
        datagram: &Datagram<'_>,
    ) -> Option<Session> {
        let header = &datagram.header;
        let answers = header.response && !header.initiator && header.message_id == 0;
        if !answers || header.exchange != Exchange::SaInit || path.remote.ip() != self.path.remote.ip() {
            return Some(Session::Init(self));
        }
        let parts = Parts::new(datagram.payloads.clone());
        if parts.sa.is_some() {
            return self.proceed(cx, peer, path, datagram, &parts);
        }
        let config = peer.config.clone();
        if let Some(cookie) = parts.notify(notify::COOKIE) {
            // RFC 7296 2.6
            if (1..=64).contains(&cookie.data.len()) && self.detour() {
                self.cookie = Some(cookie.data.clone());
                self.send(cx, &config);
            }
        } else if let Some(wanted) = parts.notify(notify::INVALID_KE_PAYLOAD) {
            self.change_group(cx, peer, &wanted.data);
        } else if let Some(error) = parts.error() {
            let refusal = refusal(&config, error.kind);
            peer.trouble(cx, refusal.clone());
            self.refusal = Some(refusal);
        }
        Some(Session::Init(self))
    }

    /// RFC 7296 1.2: the same again with a key of the group that the responder wants, if it is one of ours. All groups are
    /// offered again, so that a forger cannot choose a weak one.
    fn change_group(&mut self, cx: &mut Cx<'_>, peer: &mut Peer, wanted: &[u8]) {
        let id = <[u8; 2]>::try_from(wanted).map(u16::from_be_bytes);
        let group = id.ok().and_then(Group::from_id).filter(|group| peer.config.ike.groups.contains(group));
        let Some(group) = group else {
            let ours: Vec<_> = peer.config.ike.groups.iter().map(Group::to_string).collect();
            let theirs = id.map_or("an unknown one".to_owned(), |id| format!("number {id}"));
            return peer.trouble(
                cx,
                format!(
                    "{} wants another Diffie-Hellman group, {theirs}; ours are {}",
                    self.path.remote.ip(),
                    ours.join(", ")
                ),
            );
        };
        if group == self.key.group() || !self.detour() {
            return;
        }
        if let Ok(key) = KeyPair::generate(group, cx.rng) {
            self.key = key;
            let config = peer.config.clone();
            self.send(cx, &config);
        }
    }

    fn detour(&mut self) -> bool {
        self.detours += 1;
        self.detours <= DETOURS
    }

    /// The responder has chosen; its public value makes the keys.
    fn proceed(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        path: Path,
        datagram: &Datagram<'_>,
        parts: &Parts,
    ) -> Option<Session> {
        let config = peer.config.clone();
        let spi_r = datagram.header.responder_spi;
        let (Some(answer), Some(ke), Some(nonce_r)) = (&parts.sa, &parts.ke, &parts.nonce) else {
            return Some(Session::Init(self));
        };
        let suite = match accept_ike(answer, &config.ike, None) {
            Ok((suite, _)) => suite,
            Err(error) => {
                peer.trouble(cx, error.to_string());
                self.refusal = Some(error.to_string());
                return Some(Session::Init(self));
            }
        };
        // An answer to an earlier request of ours, with another group, comes late
        if spi_r == [0; 8] || suite.group != self.key.group() || ke.group != suite.group.id() {
            return Some(Session::Init(self));
        }
        // Our key serves once: it is not spent on what anybody may have sent
        if let Err(error) = suite.group.check_public(&ke.data) {
            peer.trouble(cx, error.to_string());
            return Some(Session::Init(self));
        }
        let exchanged = Exchanged { nonce_i: &self.nonce, nonce_r, spi_i: *self.spi, spi_r };
        let underpass = parts.vendors.iter().any(|vendor| vendor == nat::VENDOR_ID);
        let nat = nat::Nat::detect(
            config.encapsulation,
            *self.spi,
            spi_r,
            path,
            &parts.notifies,
            nat::fakes(config.encapsulation, false),
        );
        let path = nat.path(path);
        let ends = Ends {
            own: self.spi.clone(),
            spi_i: *self.spi,
            spi_r,
            initiator: true,
            path,
            limit: cx.limits.message(path, parts.has(notify::IKEV2_FRAGMENTATION_SUPPORTED)),
            next: [1, 0],
        };
        let channel = self.key.agree(&ke.data).and_then(|shared| {
            Channel::new(cx.now, ends, suite, IkeKeys::derive(&suite, exchanged, &shared))
        });
        let channel = match channel {
            Ok(channel) => channel,
            Err(error) => {
                peer.trouble(cx, error.to_string());
                return None;
            }
        };
        let hashes = parts.notify(notify::SIGNATURE_HASH_ALGORITHMS);
        let selector = *config.protects.first()?;
        let auth = Auth {
            id: self.id,
            begun: self.begun,
            replaces: self.replaces,
            channel,
            nat,
            underpass,
            nonce_i: self.nonce,
            nonce_r: nonce_r.clone(),
            answer: datagram.bytes.to_vec(),
            local_id: peer.local_id(path.local.ip()),
            selector,
            spi_in: cx.numbers.esp_spi(cx.rng),
        };
        let hashes = hashes.map(|n| parse_hash_algorithms(&n.data)).unwrap_or_default();
        auth.begin(cx, peer, &self.message, &hashes, &parts.requests)
    }

    /// When [`Init::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Instant {
        self.retry.at()
    }

    /// Repeats the request if it is time, and gives up at last.
    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>, peer: &mut Peer) -> Option<Session> {
        match self.retry.due(cx.now) {
            Due::Wait => {}
            Due::Resend => {
                cx.transmit(self.path, self.message.clone());
                if self.retry.sent() == SILENCE && self.refusal.is_none() {
                    peer.trouble(cx, silence(self.path));
                }
            }
            Due::GiveUp => {
                peer.unanswered(cx, self.refusal.unwrap_or_else(|| silence(self.path)));
                return None;
            }
        }
        Some(Session::Init(self))
    }

    /// Repeats the request now, because there is reason to hope.
    pub fn hurry(&mut self, now: Instant) {
        self.retry.hurry(now);
    }

    fn send(&mut self, cx: &mut Cx<'_>, config: &PeerConfig) {
        let header = Header {
            initiator_spi: *self.spi,
            responder_spi: [0; 8],
            exchange: Exchange::SaInit,
            initiator: true,
            response: false,
            message_id: 0,
        };
        let cookie =
            self.cookie.iter().map(|cookie| Payload::Notify(Notify::new(notify::COOKIE, cookie.clone())));
        let mut payloads: Vec<_> = cookie.collect();
        payloads.extend([
            Payload::Sa(ike_proposals(&config.ike, None)),
            Payload::Ke(KeyExchange { group: self.key.group().id(), data: self.key.public().to_vec() }),
            Payload::Nonce(self.nonce.clone()),
        ]);
        let fake = nat::fakes(config.encapsulation, false);
        payloads.extend(nat::notifies(config.encapsulation, *self.spi, [0; 8], self.path, fake));
        payloads.extend([
            Payload::Notify(Notify::new(notify::IKEV2_FRAGMENTATION_SUPPORTED, [])),
            Payload::Notify(Notify::new(notify::SIGNATURE_HASH_ALGORITHMS, hash_algorithms())),
            Payload::VendorId(nat::VENDOR_ID.to_vec()),
        ]);
        self.message = encode_clear(&header, &payloads);
        self.retry = Retry::new(cx.now, PATIENCE);
        cx.transmit(self.path, self.message.clone());
    }
}

fn silence(path: Path) -> String {
    format!(
        "no answer from {}: it may be down, or a firewall may stop UDP ports 500 and 4500",
        path.remote.ip()
    )
}

fn refusal(config: &PeerConfig, kind: u16) -> String {
    let remote = config.remote;
    match kind {
        notify::NO_PROPOSAL_CHOSEN => {
            let ours = crate::proposal::list(&ike_proposals(&config.ike, None));
            format!(
                "{remote} accepts none of our IKE proposals, or knows nothing of us (NO_PROPOSAL_CHOSEN); we offer {ours}"
            )
        }
        kind => format!("{remote} refuses IKE_SA_INIT with {}", error_name(kind)),
    }
}
