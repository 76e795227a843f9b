//! IKE_SA_INIT and IKE_AUTH as responder (RFC 7296 1.2).
//!
//! Until IKE_AUTH the other side is a stranger: [`HalfOpen`] has no children and knows no way to have any.

use std::collections::BTreeMap;
use std::time::Instant;

use super::auth::check;
use super::channel::{Channel, Ends, Received};
use super::child::{self, Between, Nonces, Refusal, public};
use super::established::{Birth, IkeSa};
use super::nat::{self, Nat};
use super::numbers::{Owner, nonce};
use super::payloads::{Parts, error_payload};
use super::{Cx, SessionId};
use crate::auth::{
    AuthError, Authenticated, Identity, SignedOctets, certificate_requests, hash_algorithms,
    parse_hash_algorithms, prove,
};
use crate::config::{Path, PeerConfig, PeerId};
use crate::crypto::{Exchanged, IkeKeys, KeyPair};
use crate::endpoint::peer::{Peer, Session};
use crate::proposal::choose_ike;
use crate::wire::{CertRequest, Datagram, Exchange, Header, Notify, Payload, Spi, encode_clear, notify};

/// We have answered IKE_SA_INIT and wait for IKE_AUTH, or have refused that and stay to repeat our answer.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    pub id: SessionId,
    /// Whom we take it for, by its addresses.
    pub peer: PeerId,
    pub begun: Instant,
    /// Where the first request came from.
    pub path: Path,
    channel: Channel,
    nat: Nat,
    underpass: bool,
    request: Vec<u8>,
    answer: Vec<u8>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    peer_hashes: Vec<u16>,
    refused: bool,
}

/// What came of a datagram.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Still nobody has proved anything.
    HalfOpen,
    /// The IKE SA stands and belongs to this peer now.
    Established(PeerId),
}

impl HalfOpen {
    /// Answers IKE_SA_INIT.
    ///
    /// # Errors
    /// The refusal to be sent instead, and for the operator why.
    pub fn new(
        cx: &mut Cx<'_>,
        peer: &Peer,
        path: Path,
        datagram: &Datagram<'_>,
        parts: &Parts,
    ) -> Result<HalfOpen, Refusal> {
        let config = &peer.config;
        let remote = path.remote.ip();
        let (Some(offered), Some(ke), Some(nonce_i)) = (&parts.sa, &parts.ke, &parts.nonce) else {
            return Err(Refusal::new(notify::INVALID_SYNTAX, ""));
        };
        let choice = choose_ike(offered, &config.ike, None)
            .map_err(|error| Refusal::new(notify::NO_PROPOSAL_CHOSEN, format!("{remote}: IKE: {error}")))?;
        let group = choice.suite.group;
        if ke.group != group.id() {
            let wanted = Notify::new(notify::INVALID_KE_PAYLOAD, group.id().to_be_bytes());
            return Err(Refusal { notify: Payload::Notify(wanted), why: String::new() });
        }
        let failed =
            |error: crate::crypto::CryptoError| Refusal::new(notify::INVALID_SYNTAX, error.to_string());
        // Before anything is spent on it: who is refused leaves no half-open IKE SA behind, and so is asked for no cookie
        group.check_public(&ke.data).map_err(failed)?;
        let key = KeyPair::generate(group, cx.rng).map_err(failed)?;
        let public = public(&key);
        let shared = key.agree(&ke.data).map_err(failed)?;

        let id = cx.numbers.session();
        let own = cx.numbers.ike_spi(cx.rng, Owner::Stranger(id));
        let (spi_i, spi_r) = (datagram.header.initiator_spi, *own);
        let nonce_r = nonce(cx.rng);
        let underpass = parts.vendors.iter().any(|vendor| vendor == nat::VENDOR_ID);
        let fake = nat::fakes(config.encapsulation, underpass);
        let fragments = parts.has(notify::IKEV2_FRAGMENTATION_SUPPORTED);
        let exchanged = Exchanged { nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
        let keys = IkeKeys::derive(&choice.suite, exchanged, &shared);
        let limit = cx.limits.message(path, fragments);
        let ends = Ends { own, spi_i, spi_r, initiator: false, path, limit, next: [0, 1] };
        let channel = Channel::new(cx.now, ends, choice.suite, keys).map_err(failed)?;

        let mut payloads = vec![Payload::Sa(vec![choice.answer]), public, Payload::Nonce(nonce_r.clone())];
        if nat::knows_nat(&parts.notifies) {
            payloads.extend(nat::notifies(config.encapsulation, spi_i, spi_r, path, fake));
        }
        if fragments {
            payloads.push(error_payload(notify::IKEV2_FRAGMENTATION_SUPPORTED));
        }
        let hashes = parts.notify(notify::SIGNATURE_HASH_ALGORITHMS);
        if hashes.is_some() {
            payloads.push(Payload::Notify(Notify::new(notify::SIGNATURE_HASH_ALGORITHMS, hash_algorithms())));
        }
        payloads.extend(certificate_requests(&config.trust).map(Payload::CertReq));
        payloads.push(Payload::VendorId(nat::VENDOR_ID.to_vec()));
        let answer = encode_clear(&answer_header(spi_i, spi_r), &payloads);
        cx.transmit(path, answer.clone());
        Ok(HalfOpen {
            id,
            peer: peer.id,
            begun: cx.now,
            path,
            channel,
            nat: Nat::detect(config.encapsulation, spi_i, [0; 8], path, &parts.notifies, fake),
            underpass,
            request: datagram.bytes.to_vec(),
            answer,
            nonce_i: nonce_i.clone(),
            nonce_r,
            peer_hashes: hashes.map(|n| parse_hash_algorithms(&n.data)).unwrap_or_default(),
            refused: false,
        })
    }

    /// Answers alike if this is the very same request (RFC 7296 2.1). Another one under the same SPI, with a key of another
    /// group perhaps, stands for itself.
    pub fn repeat(&self, cx: &mut Cx<'_>, request: &[u8]) -> bool {
        let same = self.request == request;
        if same {
            cx.transmit(self.path, self.answer.clone());
        }
        same
    }

    /// The SPI of the initiator.
    pub fn spi_i(&self) -> Spi {
        self.channel.spi_i
    }

    /// A datagram names our SPI.
    pub fn receive(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        peers: &mut BTreeMap<PeerId, Peer>,
        path: Path,
        datagram: &Datagram<'_>,
    ) -> (Option<Box<HalfOpen>>, Progress) {
        match self.channel.receive(cx, path, datagram) {
            Received::Request(Exchange::Auth, payloads) if !self.refused => {
                // It may have moved to port 4500 (RFC 7296 2.23)
                self.channel.follow(path);
                self.authenticate(cx, peers, path, Parts::new(payloads))
            }
            _ => (Some(self), Progress::HalfOpen),
        }
    }

    fn authenticate(
        self: Box<Self>,
        cx: &mut Cx<'_>,
        peers: &mut BTreeMap<PeerId, Peer>,
        path: Path,
        parts: Parts,
    ) -> (Option<Box<HalfOpen>>, Progress) {
        let found = self.find(cx, peers, &parts);
        let peer = found.as_ref().map_or(self.peer, |(id, _)| *id);
        let Some(peer) = peers.get_mut(&peer) else {
            // Its configuration has gone in the meantime
            return self.refuse(cx, path);
        };
        let config = peer.config.clone();
        let proven = found.and_then(|(_, proof)| Ok((proof, self.prove(peer, &parts.requests)?)));
        let (proof, mut payloads) = match proven {
            Ok(proven) => proven,
            Err(error) => {
                let who = parts.id_i.as_ref().and_then(|id| Identity::try_from(id).ok());
                let who = who.map(|id| format!(" ({id})")).unwrap_or_default();
                peer.trouble(cx, format!("{}{who}: {error}", path.remote.ip()));
                return self.refuse(cx, path);
            }
        };
        let nonces = Nonces { i: &self.nonce_i, r: &self.nonce_r };
        let between = Between { channel: &self.channel, nat: self.nat, config: &config };
        let child = child::grant(cx, between, &parts, &config.protects, Some(nonces));
        let birth = Birth {
            id: self.id,
            begun: self.begun,
            replaces: None,
            nat: self.nat,
            underpass: self.underpass,
            rank: nonces.i.min(nonces.r).to_vec(),
            made_here: false,
            local_id: peer.local_id(path.local.ip()),
            reauth_in: None,
        };
        let mut sa = IkeSa::new(cx, &config, proof, self.channel, birth);
        cx.numbers.hand_over(&sa.channel.own_spi(), Owner::Peer(peer.id, sa.id));
        match child {
            Ok((granted, child)) => {
                sa.install(cx, peer, child, false);
                payloads.extend(granted);
            }
            Err(Refusal { notify, why }) => {
                payloads.push(notify);
                peer.trouble(cx, why);
            }
        }
        sa.channel.answer(cx, path, Exchange::Auth, &payloads);
        sa.arrive(cx, peer, parts.has(notify::INITIAL_CONTACT));
        if config.protects.len() > 1 {
            // The rest the peer is about to ask for
            peer.give_way();
        }
        let id = peer.id;
        peer.sessions.insert(sa.id, Session::Established(Box::new(sa)));
        (None, Progress::Established(id))
    }

    /// The peer whose proof this is: of those that fit the addresses, the one expected first.
    fn find(
        &self,
        cx: &Cx<'_>,
        peers: &BTreeMap<PeerId, Peer>,
        parts: &Parts,
    ) -> Result<(PeerId, Authenticated), AuthError> {
        let (Some(id), Some(auth)) = (&parts.id_i, &parts.auth) else {
            return Err(AuthError::PeerIdentity { kind: 0 });
        };
        let sk_pi = self.channel.keys.sk_pi.as_bytes();
        let octets = SignedOctets::new(self.channel.suite.prf, &self.request, &self.nonce_r, sk_pi, id);
        let mut candidates: Vec<_> =
            peers.values().filter_map(|peer| Some((peer.fits(self.path)?, peer))).collect();
        candidates.sort_by_key(|(fit, peer)| (peer.id != self.peer, std::cmp::Reverse(*fit)));
        let mut first_error = None;
        for (_, peer) in candidates.into_iter().take(MAX_CANDIDATES) {
            match check(cx, &peer.config, &octets, parts, id, auth) {
                Ok(proof) => return Ok((peer.id, proof)),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(AuthError::PeerIdentity { kind: id.kind }))
    }

    /// Our own proof.
    fn prove(&self, peer: &Peer, requests: &[CertRequest]) -> Result<Vec<Payload>, AuthError> {
        let config: &PeerConfig = &peer.config;
        let id = peer.local_id(self.channel.path.local.ip()).to_wire();
        let sk_pr = self.channel.keys.sk_pr.as_bytes();
        let octets = SignedOctets::new(self.channel.suite.prf, &self.answer, &self.nonce_i, sk_pr, &id);
        let proof = prove(&config.credential, &octets, &self.peer_hashes)?;
        let mut payloads = vec![Payload::IdR(id)];
        payloads.extend(config.credential.certificates(requests).into_iter().map(Payload::Cert));
        payloads.push(Payload::Auth(proof));
        Ok(payloads)
    }

    /// RFC 7296 2.21.2: within the SA, as it has keys; and the reason stays here.
    fn refuse(mut self: Box<Self>, cx: &mut Cx<'_>, path: Path) -> (Option<Box<HalfOpen>>, Progress) {
        self.channel.answer(cx, path, Exchange::Auth, &[error_payload(notify::AUTHENTICATION_FAILED)]);
        self.refused = true;
        (Some(self), Progress::HalfOpen)
    }
}

/// Peers of one address whose proofs are tried.
const MAX_CANDIDATES: usize = 16;

fn answer_header(spi_i: Spi, spi_r: Spi) -> Header {
    Header {
        initiator_spi: spi_i,
        responder_spi: spi_r,
        exchange: Exchange::SaInit,
        initiator: false,
        response: true,
        message_id: 0,
    }
}

/// A refusal of IKE_SA_INIT, or its cookie: no state is kept of it.
pub(crate) fn refuse_init(cx: &mut Cx<'_>, path: Path, spi_i: Spi, notify: Payload) {
    cx.transmit(path, encode_clear(&answer_header(spi_i, [0; 8]), &[notify]));
}
