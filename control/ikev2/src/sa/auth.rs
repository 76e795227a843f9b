//! IKE_AUTH as initiator (RFC 7296 1.2): both prove who they are, and make the first child SA.

use std::time::Instant;

use super::channel::{Channel, Received};
use super::child::{self, Between, Nonces};
use super::child_create::unprotected;
use super::established::{Birth, IkeSa};
use super::nat::Nat;
use super::numbers::Own;
use super::payloads::{Parts, error_name, error_payload};
use super::{Cx, SessionId};
use crate::auth::{
    AuthError, Authenticated, Identity, SignedOctets, Trust, certificate_requests, prove, verify,
};
use crate::config::{Path, PeerConfig};
use crate::endpoint::peer::{Peer, Session};
use crate::proposal::ChildExchange;
use crate::selector::Selector;
use crate::wire::{CertRequest, Datagram, Exchange, Notify, Payload, notify};

/// We have sent IKE_AUTH.
#[derive(Debug)]
pub(crate) struct Auth {
    pub id: SessionId,
    pub begun: Instant,
    pub replaces: Option<SessionId>,
    pub channel: Channel,
    pub nat: Nat,
    pub underpass: bool,
    pub nonce_i: Vec<u8>,
    pub nonce_r: Vec<u8>,
    /// The responder's IKE_SA_INIT, which it signs.
    pub answer: Vec<u8>,
    pub local_id: Identity,
    /// What the child SA to be is for.
    pub selector: Selector,
    /// Its SPI.
    pub spi_in: Own<u32>,
}

impl Auth {
    /// Sends our proof over `request`, our IKE_SA_INIT, and asks for a child SA.
    pub fn begin(
        mut self,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        request: &[u8],
        peer_hashes: &[u16],
        peer_requests: &[CertRequest],
    ) -> Option<Session> {
        let config = peer.config.clone();
        let id = self.local_id.to_wire();
        let keys = &self.channel.keys;
        let octets =
            SignedOctets::new(self.channel.suite.prf, request, &self.nonce_r, keys.sk_pi.as_bytes(), &id);
        let proof = match prove(&config.credential, &octets, peer_hashes) {
            Ok(proof) => proof,
            Err(error) => {
                peer.trouble(cx, error.to_string());
                return None;
            }
        };
        let mut payloads = vec![Payload::IdI(id)];
        payloads.extend(config.credential.certificates(peer_requests).into_iter().map(Payload::Cert));
        // RFC 7296 2.4: whatever else the peer holds of us is from before a restart
        if !peer.has_open() {
            payloads.push(error_payload(notify::INITIAL_CONTACT));
        }
        payloads.extend(certificate_requests(&config.trust).map(Payload::CertReq));
        payloads.extend(config.remote_id.as_ref().map(|id| Payload::IdR(id.to_wire())));
        payloads.push(Payload::Auth(proof));
        payloads.extend(child::request(&config, self.channel.path, self.selector, *self.spi_in, None));
        self.channel.request(cx, Exchange::Auth, &payloads);
        Some(Session::Auth(Box::new(self)))
    }

    /// A datagram names our SPI.
    pub fn receive(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        peer: &mut Peer,
        path: Path,
        datagram: &Datagram<'_>,
    ) -> Option<Session> {
        match self.channel.receive(cx, path, datagram) {
            Received::Nothing | Received::Request(..) => Some(Session::Auth(self)),
            Received::BadAnswer(error) => {
                peer.trouble(
                    cx,
                    format!("{} answers IKE_AUTH with a malformed message: {error}", path.remote.ip()),
                );
                None
            }
            Received::Answer(payloads) => self.proceed(cx, peer, Parts::new(payloads)),
        }
    }

    fn proceed(mut self: Box<Self>, cx: &mut Cx<'_>, peer: &mut Peer, parts: Parts) -> Option<Session> {
        let config = peer.config.clone();
        let remote = self.channel.path.remote.ip();
        if parts.auth.is_none() {
            peer.trouble(cx, refusal(&config, self.selector, parts.error()));
            return None;
        }
        let proof = match self.verify(cx, &config, &parts) {
            Ok(proof) => proof,
            Err(error) => {
                peer.trouble(cx, format!("{remote}: {error}"));
                // RFC 7296 2.21.2: the peer believes that all is well. It is told, and not waited for
                let failed = [error_payload(notify::AUTHENTICATION_FAILED)];
                self.channel.request(cx, Exchange::Informational, &failed);
                return None;
            }
        };
        let nonces = Nonces { i: &self.nonce_i, r: &self.nonce_r };
        let between = Between { channel: &self.channel, nat: self.nat, config: &config };
        let child = match parts.sa {
            Some(_) => {
                let exchange = ChildExchange::Auth;
                child::accept(between, &parts, self.selector, self.spi_in, nonces, exchange, None)
            }
            None => Err(refusal(&config, self.selector, parts.error())),
        };
        let birth = Birth {
            id: self.id,
            begun: self.begun,
            replaces: self.replaces,
            nat: self.nat,
            underpass: self.underpass,
            rank: nonces.i.min(nonces.r).to_vec(),
            made_here: true,
            local_id: self.local_id,
            reauth_in: parts.notify(notify::AUTH_LIFETIME).and_then(lifetime),
        };
        let mut sa = IkeSa::new(cx, &config, proof, self.channel, birth);
        match child {
            Ok(child) => {
                sa.install(cx, peer, child, true);
            }
            Err(why) => {
                sa.refused.insert(self.selector);
                peer.trouble(cx, why);
            }
        }
        sa.queue_children(&config, self.selector);
        sa.arrive(cx, peer, false);
        Some(Session::Established(Box::new(sa)))
    }

    fn verify(&self, cx: &Cx<'_>, config: &PeerConfig, parts: &Parts) -> Result<Authenticated, AuthError> {
        let (Some(id), Some(auth)) = (&parts.id_r, &parts.auth) else {
            return Err(AuthError::PeerIdentity { kind: 0 });
        };
        let sk_pr = self.channel.keys.sk_pr.as_bytes();
        let octets = SignedOctets::new(self.channel.suite.prf, &self.answer, &self.nonce_i, sk_pr, id);
        check(cx, config, &octets, parts, id, auth)
    }

    /// Repeats the request if it is time, and gives up at last.
    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>, peer: &mut Peer) -> Option<Session> {
        if self.channel.handle_timeout(cx) {
            return Some(Session::Auth(self));
        }
        let to = self.channel.path.remote;
        peer.unanswered(
            cx,
            format!(
                "{} answers IKE_SA_INIT but not IKE_AUTH: a firewall may stop UDP port {} or fragments",
                to.ip(),
                to.port()
            ),
        );
        None
    }
}

/// Checks the peer's proof against what is configured.
pub(crate) fn check(
    cx: &Cx<'_>,
    config: &PeerConfig,
    octets: &SignedOctets,
    parts: &Parts,
    id: &crate::wire::Identification,
    auth: &crate::wire::AuthData,
) -> Result<Authenticated, AuthError> {
    let id = Identity::try_from(id)?;
    // A certificate names its owner in several ways, which `verify` knows about. A key names nobody
    if let (Trust::Psk(_), Some(wanted)) = (&config.trust, &config.remote_id)
        && !wanted.matches(&id)
    {
        return Err(AuthError::WrongName { named: id.to_string(), wanted: wanted.to_string() });
    }
    verify(&config.trust, octets, auth, &parts.certificates, &id, cx.unix_now)
}

/// The least time between proofs: a peer that wants them sooner would have us do nothing else.
const LEAST_LIFETIME: u32 = 60;

/// RFC 4478: after so many seconds the responder wants new proofs.
fn lifetime(notify: &Notify) -> Option<std::time::Duration> {
    let seconds = <[u8; 4]>::try_from(&notify.data[..]).ok()?;
    let seconds = u32::from_be_bytes(seconds).max(LEAST_LIFETIME);
    Some(std::time::Duration::from_secs(seconds.into()))
}

fn refusal(config: &PeerConfig, selector: Selector, error: Option<&Notify>) -> String {
    let remote = config.remote;
    match error.map(|error| error.kind) {
        Some(notify::AUTHENTICATION_FAILED) => format!(
            "{remote} refuses our proof of identity (AUTHENTICATION_FAILED): check PSK, certificates and names on both hosts; its log says which"
        ),
        Some(notify::NO_PROPOSAL_CHOSEN) => {
            let ours =
                crate::proposal::list(&crate::proposal::esp_proposals(&config.esp, ChildExchange::Auth, 0));
            format!("{remote} accepts none of our ESP proposals (NO_PROPOSAL_CHOSEN); we offer {ours}")
        }
        Some(notify::TS_UNACCEPTABLE) => unprotected(config, selector),
        Some(kind) => format!("{remote} refuses IKE_AUTH with {}", error_name(kind)),
        None => format!("{remote} answers IKE_AUTH without proof of its identity"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_has_us_prove_ourselves_without_pause() {
        let said = |data: &[u8]| lifetime(&Notify::new(notify::AUTH_LIFETIME, data));
        assert_eq!(said(&[0, 0, 0, 0]), Some(Duration::from_secs(60)));
        assert_eq!(said(&[0, 0, 0x0e, 0x10]), Some(Duration::from_secs(3600)));
        assert_eq!(said(&[1]), None);
    }
}
