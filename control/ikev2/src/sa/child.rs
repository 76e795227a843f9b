//! What both exchanges that make child SAs have in common: proposals, transport mode, selectors, keys.
//!
//! A child SA always is for one kind of traffic between the two addresses that IKE runs between, in transport mode. What a
//! peer offers beyond that is narrowed (RFC 7296 2.9); what does not hold it is refused.

use super::Cx;
use super::channel::Channel;
use super::children::NewChild;
use super::nat::Nat;
use super::numbers::{Own, nonce};
use super::payloads::{Parts, error_payload};
use crate::config::{Path, PeerConfig};
use crate::crypto::{KeyPair, Secret, child_keymat};
use crate::proposal::{ChildExchange, EspSuite, accept_esp, choose_esp, esp_proposals};
use crate::selector::{End, Selector, list};
use crate::wire::{KeyExchange, Notify, Payload, TrafficSelector, notify};

/// Between whom, and how, a child SA is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between<'a> {
    pub channel: &'a Channel,
    pub nat: Nat,
    pub config: &'a PeerConfig,
}

/// Nonces of the exchange that makes a child SA: in IKE_AUTH those of IKE_SA_INIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nonces<'a> {
    pub i: &'a [u8],
    pub r: &'a [u8],
}

/// Why a request for a child SA is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// For the peer.
    pub notify: Payload,
    /// For the operator; empty if there is nothing to tell.
    pub why: String,
}

impl Refusal {
    /// With a notification that has no data.
    pub fn new(kind: u16, why: impl Into<String>) -> Refusal {
        Refusal { notify: error_payload(kind), why: why.into() }
    }
}

/// What we ask for; in CREATE_CHILD_SA with a nonce, and a public value unless keys are to come from the IKE SA's alone.
pub(crate) fn request(
    config: &PeerConfig,
    path: Path,
    selector: Selector,
    spi_in: u32,
    own: Option<(&[u8], Option<&KeyPair>)>,
) -> Vec<Payload> {
    let exchange = if own.is_some() { ChildExchange::CreateChildSa } else { ChildExchange::Auth };
    let mut payloads = vec![
        error_payload(notify::USE_TRANSPORT_MODE),
        error_payload(notify::ESP_TFC_PADDING_NOT_SUPPORTED),
        Payload::Sa(esp_proposals(&config.esp, exchange, spi_in)),
    ];
    if let Some((nonce, key)) = own {
        payloads.push(Payload::Nonce(nonce.to_vec()));
        payloads.extend(key.map(public));
    }
    payloads.extend([
        Payload::TsI(vec![selector.at(End::Local, path.local.ip())]),
        Payload::TsR(vec![selector.at(End::Remote, path.remote.ip())]),
    ]);
    payloads
}

/// The KE payload of a key.
pub(crate) fn public(key: &KeyPair) -> Payload {
    Payload::Ke(KeyExchange { group: key.group().id(), data: key.public().to_vec() })
}

/// What came of our request: the child SA, or why there is none.
pub(crate) fn accept(
    between: Between<'_>,
    parts: &Parts,
    selector: Selector,
    spi_in: Own<u32>,
    nonces: Nonces<'_>,
    exchange: ChildExchange,
    key: Option<KeyPair>,
) -> Result<NewChild, String> {
    let remote = between.channel.path.remote.ip();
    let (Some(answer), Some(ts_i), Some(ts_r)) = (&parts.sa, &parts.ts_i, &parts.ts_r) else {
        return Err(format!("{remote} grants a child SA without saying which"));
    };
    let (suite, spi_out) =
        accept_esp(answer, &between.config.esp, exchange).map_err(|error| error.to_string())?;
    if !parts.has(notify::USE_TRANSPORT_MODE) {
        return Err(format!("{remote} wants tunnel mode: set it to transport mode (type=transport)"));
    }
    let local = between.channel.path.local.ip();
    if !selector.is_granted(ts_i, End::Local, local, between.nat.local)
        || !selector.is_granted(ts_r, End::Remote, remote, between.nat.remote)
    {
        let granted = (list(ts_i), list(ts_r));
        return Err(format!(
            "{remote} protects {} to {}, and not {selector} between {local} and {remote}",
            granted.0, granted.1
        ));
    }
    let shared = match (suite.group, key, &parts.ke) {
        (None, ..) => None,
        (Some(group), Some(key), Some(ke)) if key.group() == group && ke.group == group.id() => {
            Some(key.agree(&ke.data).map_err(|error| error.to_string())?)
        }
        (Some(group), ..) => return Err(format!("{remote} chose {group} and sends no key of it")),
    };
    let (keymat_out, keymat_in) = keymat(between.channel, suite, shared.as_ref(), nonces);
    Ok(between.child(selector, spi_in, spi_out, suite, [keymat_in, keymat_out], nonces))
}

/// What we grant on the peer's request, and the child SA that comes of it: for the first of `wanted` that the peer asks
/// for. `nonces` are given in IKE_AUTH; in CREATE_CHILD_SA they are exchanged here.
pub(crate) fn grant(
    cx: &mut Cx<'_>,
    between: Between<'_>,
    parts: &Parts,
    wanted: &[Selector],
    nonces: Option<Nonces<'_>>,
) -> Result<(Vec<Payload>, NewChild), Refusal> {
    let exchange = if nonces.is_some() { ChildExchange::Auth } else { ChildExchange::CreateChildSa };
    let path = between.channel.path;
    let (local, remote) = (path.local.ip(), path.remote.ip());
    let (Some(offered), Some(ts_i), Some(ts_r)) = (&parts.sa, &parts.ts_i, &parts.ts_r) else {
        return Err(Refusal::new(notify::INVALID_SYNTAX, ""));
    };
    if !parts.has(notify::USE_TRANSPORT_MODE) {
        let why = format!("{remote} wants tunnel mode: set it to transport mode (type=transport)");
        return Err(Refusal::new(notify::NO_PROPOSAL_CHOSEN, why));
    }
    let spi_in = cx.numbers.esp_spi(cx.rng);
    let choice = choose_esp(offered, &between.config.esp, exchange, *spi_in)
        .map_err(|error| Refusal::new(notify::NO_PROPOSAL_CHOSEN, format!("{remote}: ESP: {error}")))?;
    let narrowed = wanted.iter().find_map(|selector| between.narrow(*selector, ts_i, ts_r));
    let Some((selector, ts_i, ts_r)) = narrowed else {
        let ours = wanted.iter().map(Selector::to_string).collect::<Vec<_>>().join(" or ");
        let why = format!(
            "{remote} asks for {} to {}, and not for {ours} between {remote} and {local}",
            list(ts_i),
            list(ts_r)
        );
        return Err(Refusal::new(notify::TS_UNACCEPTABLE, why));
    };
    let (key, shared) = agree(cx, choice.suite, parts)?;
    let mut payloads = vec![error_payload(notify::USE_TRANSPORT_MODE), Payload::Sa(vec![choice.answer])];
    let nonce_r;
    let nonces = match (nonces, &parts.nonce) {
        (Some(nonces), _) => nonces,
        (None, Some(i)) => {
            nonce_r = nonce(cx.rng);
            payloads.push(Payload::Nonce(nonce_r.clone()));
            payloads.extend(key);
            Nonces { i, r: &nonce_r }
        }
        (None, None) => return Err(Refusal::new(notify::INVALID_SYNTAX, "")),
    };
    payloads.extend([Payload::TsI(vec![ts_i]), Payload::TsR(vec![ts_r])]);
    let (keymat_in, keymat_out) = keymat(between.channel, choice.suite, shared.as_ref(), nonces);
    let keymat = [keymat_in, keymat_out];
    Ok((payloads, between.child(selector, spi_in, choice.peer_spi, choice.suite, keymat, nonces)))
}

impl Between<'_> {
    /// One kind of traffic out of what the peer, who has the exchange's first selectors, offers.
    fn narrow(
        self,
        selector: Selector,
        ts_i: &[TrafficSelector],
        ts_r: &[TrafficSelector],
    ) -> Option<(Selector, TrafficSelector, TrafficSelector)> {
        let path = self.channel.path;
        let ts_i = selector.narrow(ts_i, End::Remote, path.remote.ip(), self.nat.remote)?;
        let ts_r = selector.narrow(ts_r, End::Local, path.local.ip(), self.nat.local)?;
        Some((selector, ts_i, ts_r))
    }

    fn child(
        self,
        selector: Selector,
        spi_in: Own<u32>,
        spi_out: u32,
        suite: EspSuite,
        [keymat_in, keymat_out]: [Secret; 2],
        nonces: Nonces<'_>,
    ) -> NewChild {
        let path = self.channel.path;
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let udp = self.nat.udp(path);
        let rank = nonces.i.min(nonces.r).to_vec();
        NewChild { selector, rank, spi_in, spi_out, suite, keymat_in, keymat_out, local, remote, udp }
    }
}

/// The key exchange of its own that a child SA may have: our public value, and what both share.
fn agree(
    cx: &mut Cx<'_>,
    suite: EspSuite,
    parts: &Parts,
) -> Result<(Option<Payload>, Option<Secret>), Refusal> {
    let Some(group) = suite.group else { return Ok((None, None)) };
    let Some(ke) = parts.ke.as_ref().filter(|ke| ke.group == group.id()) else {
        let wanted = Notify::new(notify::INVALID_KE_PAYLOAD, group.id().to_be_bytes());
        return Err(Refusal { notify: Payload::Notify(wanted), why: String::new() });
    };
    let failed = |error: crate::crypto::CryptoError| Refusal::new(notify::INVALID_SYNTAX, error.to_string());
    let key = KeyPair::generate(group, cx.rng).map_err(failed)?;
    let payload = public(&key);
    let shared = key.agree(&ke.data).map_err(failed)?;
    Ok((Some(payload), Some(shared)))
}

/// Keys of what the initiator of the exchange sends, and of what its responder sends (RFC 7296 2.17).
fn keymat(
    channel: &Channel,
    suite: EspSuite,
    shared: Option<&Secret>,
    nonces: Nonces<'_>,
) -> (Secret, Secret) {
    let len = suite.encr.keymat_len();
    let all = child_keymat(channel.suite.prf, &channel.keys.sk_d, shared, nonces.i, nonces.r, 2 * len);
    let (i, r) = all.as_bytes().split_at(len.min(all.len()));
    (Secret::from(i), Secret::from(r))
}
