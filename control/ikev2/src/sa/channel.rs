//! What two ends that share keys send each other: sealed, numbered, answered once, repeated byte for byte.
//!
//! Each side has at most one request under way (a window of one, RFC 7296 2.3) and remembers its last answer.

use std::time::{Duration, Instant};

use super::Cx;
use super::numbers::Own;
use super::payloads::error_payload;
use super::retry::{Due, Retry};
use crate::config::Path;
use crate::crypto::{CryptoError, IkeKeys, Protector, Rng};
use crate::proposal::IkeSuite;
use crate::wire::{
    self, Datagram, Exchange, Header, Notify, ParseError, Payload, Reassembly, Sealed, Spi, notify,
};

/// A request to a peer that is there is answered sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Both directions of an IKE SA's messages.
#[derive(Debug)]
pub(crate) struct Channel {
    _own: Own<Spi>,
    pub spi_i: Spi,
    pub spi_r: Spi,
    /// Whether we are the original initiator.
    pub initiator: bool,
    pub suite: IkeSuite,
    pub keys: IkeKeys,
    pub path: Path,
    /// When the peer's last authentic message came.
    pub heard: Instant,
    seal: Protector,
    open: Protector,
    /// Longest message that is not split; `usize::MAX` if the peer takes no fragments.
    limit: usize,
    next_request: u32,
    pending: Option<Pending>,
    /// Message ID of the request that the peer sends next.
    next_answer: u32,
    /// To the request before that.
    answered: Vec<Vec<u8>>,
    /// Fragments of the peer's next request, and of its answer to ours.
    request_parts: Reassembly,
    answer_parts: Reassembly,
}

#[derive(Debug)]
struct Pending {
    exchange: Exchange,
    datagrams: Vec<Vec<u8>>,
    retry: Retry,
}

/// What came of a datagram.
#[derive(Debug)]
pub(crate) enum Received {
    /// Nothing to act on: not authentic, not whole, or known already (and then answered again).
    Nothing,
    /// A request that is new, to be answered by [`Channel::answer`].
    Request(Exchange, Vec<Payload>),
    /// The answer to our request.
    Answer(Vec<Payload>),
    /// The answer to our request is authentic and cannot be understood.
    BadAnswer(ParseError),
}

/// Who an IKE SA's messages go between.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Our SPI, one of the two.
    pub own: Own<Spi>,
    pub spi_i: Spi,
    pub spi_r: Spi,
    pub initiator: bool,
    pub path: Path,
    /// See [`Channel`].
    pub limit: usize,
    /// Message ID of either side's next request: 1 behind IKE_SA_INIT, 0 in an IKE SA that was rekeyed.
    pub next: [u32; 2],
}

impl Channel {
    /// With keys that were just agreed upon.
    pub fn new(now: Instant, ends: Ends, suite: IkeSuite, keys: IkeKeys) -> Result<Channel, CryptoError> {
        let Ends { own, spi_i, spi_r, initiator, path, limit, next: [next_request, next_answer] } = ends;
        let (from_i, from_r) = keys.protectors(&suite)?;
        let (seal, open) = if initiator { (from_i, from_r) } else { (from_r, from_i) };
        Ok(Channel {
            _own: own,
            spi_i,
            spi_r,
            initiator,
            suite,
            keys,
            path,
            heard: now,
            seal,
            open,
            limit,
            next_request,
            pending: None,
            next_answer,
            answered: Vec::new(),
            request_parts: Reassembly::default(),
            answer_parts: Reassembly::default(),
        })
    }

    /// Our SPI.
    pub fn own_spi(&self) -> Spi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// See [`Ends::limit`].
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sends a request; none may be under way.
    pub fn request(&mut self, cx: &mut Cx<'_>, exchange: Exchange, payloads: &[Payload]) {
        let datagrams = self.sealed(cx.rng, exchange, false, self.next_request, payloads);
        transmit(cx, self.path, &datagrams);
        self.pending = Some(Pending { exchange, datagrams, retry: Retry::new(cx.now, PATIENCE) });
    }

    /// Sends a last request. If another one is under way, the peer may or may not have answered that: it gets the last
    /// one by both of the message IDs that it may expect, and takes one of them.
    pub fn farewell(&mut self, cx: &mut Cx<'_>, payloads: &[Payload]) {
        let ids = self.next_request..=self.next_request.saturating_add(u32::from(self.pending.is_some()));
        for id in ids {
            let datagrams = self.sealed(cx.rng, Exchange::Informational, false, id, payloads);
            transmit(cx, self.path, &datagrams);
        }
        self.pending = None;
    }

    /// Sends the answer to the request that was just received, to where that came from.
    pub fn answer(&mut self, cx: &mut Cx<'_>, path: Path, exchange: Exchange, payloads: &[Payload]) {
        self.answered = self.sealed(cx.rng, exchange, true, self.next_answer, payloads);
        self.next_answer = self.next_answer.saturating_add(1);
        self.request_parts = Reassembly::default();
        transmit(cx, path, &self.answered);
    }

    /// Takes in a datagram that names our SPI.
    pub fn receive(&mut self, cx: &mut Cx<'_>, path: Path, datagram: &Datagram<'_>) -> Received {
        let header = &datagram.header;
        let Some(sealed) = &datagram.sealed else { return Received::Nothing };
        if (header.initiator_spi, header.responder_spi, header.initiator)
            != (self.spi_i, self.spi_r, !self.initiator)
        {
            return Received::Nothing;
        }
        if header.response {
            self.receive_answer(cx, header, sealed)
        } else {
            self.receive_request(cx, path, header, sealed)
        }
    }

    fn receive_answer(&mut self, cx: &Cx<'_>, header: &Header, sealed: &Sealed<'_>) -> Received {
        let Some(pending) = &self.pending else { return Received::Nothing };
        if header.message_id != self.next_request || header.exchange != pending.exchange {
            return Received::Nothing;
        }
        let Ok(plain) = self.open.open(sealed.aad, sealed.body) else { return Received::Nothing };
        self.heard = cx.now;
        let Some((first, plain)) = whole(&mut self.answer_parts, sealed, plain) else {
            return Received::Nothing;
        };
        self.pending = None;
        self.next_request = self.next_request.saturating_add(1);
        self.answer_parts = Reassembly::default();
        match wire::parse_inner(first, &plain) {
            Ok(payloads) => Received::Answer(payloads),
            Err(error) => Received::BadAnswer(error),
        }
    }

    fn receive_request(
        &mut self,
        cx: &mut Cx<'_>,
        path: Path,
        header: &Header,
        sealed: &Sealed<'_>,
    ) -> Received {
        let repeated = header.message_id.checked_add(1) == Some(self.next_answer);
        if header.message_id != self.next_answer && !repeated {
            return Received::Nothing;
        }
        let Ok(plain) = self.open.open(sealed.aad, sealed.body) else { return Received::Nothing };
        self.heard = cx.now;
        if repeated {
            // RFC 7383 2.6.1: once for all fragments of the request
            if sealed.fragment.is_none_or(|f| f.number == 1) {
                transmit(cx, path, &self.answered);
            }
            return Received::Nothing;
        }
        let Some((first, plain)) = whole(&mut self.request_parts, sealed, plain) else {
            return Received::Nothing;
        };
        match wire::parse_inner(first, &plain) {
            Ok(payloads) => Received::Request(header.exchange, payloads),
            Err(error) => {
                let refusal = match error {
                    // RFC 7296 2.5
                    ParseError::UnsupportedCritical(kind) => {
                        Payload::Notify(Notify::new(notify::UNSUPPORTED_CRITICAL_PAYLOAD, [kind]))
                    }
                    _ => error_payload(notify::INVALID_SYNTAX),
                };
                self.answer(cx, path, header.exchange, &[refusal]);
                Received::Nothing
            }
        }
    }

    /// Whether a request is under way.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// How often the request under way was sent.
    pub fn sent(&self) -> u32 {
        self.pending.as_ref().map_or(0, |pending| pending.retry.sent())
    }

    /// Stops waiting for the answer to the request that is under way. No other may follow: the peer would take it for the
    /// same one.
    pub fn abandon(&mut self) {
        self.pending = None;
    }

    /// Repeats the request under way now, because there is reason to hope.
    pub fn hurry(&mut self, now: Instant) {
        if let Some(pending) = &mut self.pending {
            pending.retry.hurry(now);
        }
    }

    /// When [`Channel::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.retry.at())
    }

    /// Repeats the request under way if it is time. False: nobody answers.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> bool {
        let Some(pending) = &mut self.pending else { return true };
        match pending.retry.due(cx.now) {
            Due::Wait => {}
            Due::Resend => transmit(cx, self.path, &pending.datagrams),
            Due::GiveUp => {
                self.pending = None;
                return false;
            }
        }
        true
    }

    /// Follows a peer that a NAT, or its own choice, has moved to other ports. What came on `path` must be authentic and
    /// new. Tells whether anything changed.
    pub fn follow(&mut self, path: Path) -> bool {
        let same_ends = path.remote.ip() == self.path.remote.ip() && path.local.ip() == self.path.local.ip();
        if !same_ends || path == self.path {
            return false;
        }
        self.path = path;
        true
    }

    fn sealed(
        &mut self,
        rng: &mut dyn Rng,
        exchange: Exchange,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Vec<Vec<u8>> {
        let header = Header {
            initiator_spi: self.spi_i,
            responder_spi: self.spi_r,
            exchange,
            initiator: self.initiator,
            response,
            message_id,
        };
        let encr = self.suite.encr;
        let seal = &mut self.seal;
        wire::encode_sealed(
            &header,
            payloads,
            self.limit,
            |len| encr.body_len(len),
            |aad, plain| seal.seal(aad, plain, rng),
        )
    }
}

/// The content of a message once all of it is there.
fn whole(parts: &mut Reassembly, sealed: &Sealed<'_>, plain: Vec<u8>) -> Option<(u8, Vec<u8>)> {
    match sealed.fragment {
        None => Some((sealed.first, plain)),
        Some(fragment) => parts.push(fragment.number, fragment.total, sealed.first, plain),
    }
}

fn transmit(cx: &mut Cx<'_>, path: Path, datagrams: &[Vec<u8>]) {
    datagrams.iter().for_each(|datagram| cx.transmit(path, datagram.clone()));
}
