//! Those who have not proved anything: half-open IKE SAs, and how many there may be (RFC 7296 2.6, RFC 8019).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::cookie::Cookies;
use super::peer::Peer;
use crate::config::{Limits, Path, PeerId};
use crate::crypto::Rng;
use crate::sa::answer::{HalfOpen, Progress, refuse_init};
use crate::sa::child::Refusal;
use crate::sa::payloads::{Parts, error_payload};
use crate::sa::{Cx, SessionId};
use crate::wire::{Datagram, Notify, Payload, Spi, notify};

/// All half-open IKE SAs.
#[derive(Debug)]
pub(super) struct Strangers {
    sessions: HashMap<SessionId, Box<HalfOpen>>,
    /// By the initiator's SPI and address, for requests that come again.
    requests: HashMap<(Spi, IpAddr), SessionId>,
    /// How many of each address, apart for those who have shown a cookie and so do receive what is sent there: they must
    /// not lack a place because of others who write in their name.
    by_source: HashMap<(IpAddr, bool), usize>,
    /// Those who have.
    shown: HashSet<SessionId>,
    /// Oldest first; all live equally long.
    ends: VecDeque<(Instant, SessionId)>,
    cookies: Cookies,
    errors: Allowance,
}

impl Strangers {
    pub fn new(rng: &mut dyn Rng) -> Strangers {
        Strangers {
            sessions: HashMap::new(),
            requests: HashMap::new(),
            by_source: HashMap::new(),
            shown: HashSet::new(),
            ends: VecDeque::new(),
            cookies: Cookies::new(rng),
            errors: Allowance::default(),
        }
    }

    /// IKE_SA_INIT came from somebody.
    pub fn init(
        &mut self,
        cx: &mut Cx<'_>,
        peers: &mut BTreeMap<PeerId, Peer>,
        path: Path,
        datagram: &Datagram<'_>,
    ) {
        let spi_i = datagram.header.initiator_spi;
        let source = path.remote.ip();
        if cx.numbers.owner(&spi_i).is_some() {
            // Our own request, sent back to us: whoever has the same key as the peer must not meet himself in its place
            return;
        }
        let known = self.requests.get(&(spi_i, source)).and_then(|id| self.sessions.get(id));
        if known.is_some_and(|known| known.repeat(cx, datagram.bytes)) {
            return;
        }
        let best =
            peers.values().filter_map(|peer| Some((peer.fits(path)?, peer.id))).max_by_key(|(fit, _)| *fit);
        let Some(peer) = best.and_then(|(_, id)| peers.get_mut(&id)) else {
            // No configuration has such an address
            return self.refuse(cx, path, spi_i, error_payload(notify::NO_PROPOSAL_CHOSEN));
        };
        let parts = Parts::new(datagram.payloads.clone());
        let Some(nonce) = &parts.nonce else {
            return self.refuse(cx, path, spi_i, error_payload(notify::INVALID_SYNTAX));
        };
        let shown =
            parts.notify(notify::COOKIE).is_some_and(|n| self.cookies.check(path, spi_i, nonce, &n.data));
        let of_source = self.by_source.get(&(source, shown)).copied().unwrap_or(0);
        let crowded = of_source >= cx.limits.half_open_per_source;
        if !shown && (crowded || self.sessions.len() >= cx.limits.cookies_from) {
            let cookie = self.cookies.make(cx.now, cx.rng, path, spi_i, nonce);
            let cookie = Payload::Notify(Notify::new(notify::COOKIE, cookie));
            return refuse_init(cx, path, spi_i, cookie);
        }
        if crowded || self.sessions.len() >= cx.limits.half_open {
            return;
        }
        match HalfOpen::new(cx, peer, path, datagram, &parts) {
            Ok(half_open) => self.add(cx, half_open, shown),
            Err(Refusal { notify, why }) => {
                // A peer whose first guess is another group must hear of it even while others use up all errors
                let detour = matches!(&notify, Payload::Notify(n) if n.kind == notify::INVALID_KE_PAYLOAD);
                if detour || self.allows_error(cx.now, cx.limits) {
                    // Anybody may have sent it in the peer's name
                    if !why.is_empty() && !peer.children.any_up() {
                        peer.trouble(cx, why);
                    }
                    refuse_init(cx, path, spi_i, notify);
                }
            }
        }
    }

    /// A datagram names one of our SPIs that is a stranger's. Gives the peer that it has turned out to be.
    pub fn receive(
        &mut self,
        cx: &mut Cx<'_>,
        peers: &mut BTreeMap<PeerId, Peer>,
        id: SessionId,
        path: Path,
        datagram: &Datagram<'_>,
    ) -> Option<PeerId> {
        let half_open = self.take(id)?;
        let source = (half_open.spi_i(), half_open.path.remote.ip());
        match half_open.receive(cx, peers, path, datagram) {
            (Some(half_open), _) => {
                self.put(half_open);
                None
            }
            (None, Progress::Established(peer)) => {
                // Its place in `ends` is passed over when its time comes
                self.forget(id, source);
                Some(peer)
            }
            (None, Progress::HalfOpen) => {
                self.forget(id, source);
                None
            }
        }
    }

    /// Answers with an error in the clear, unless too many were of late.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, path: Path, spi_i: Spi, notify: Payload) {
        if self.allows_error(cx.now, cx.limits) {
            refuse_init(cx, path, spi_i, notify);
        }
    }

    /// Whether one more error may be sent in the clear.
    pub fn allows_error(&mut self, now: Instant, limits: &Limits) -> bool {
        self.errors.take(now, limits.errors_per_second)
    }

    /// When [`Strangers::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Forgets those who have not gone on.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            if let Some(half_open) = self.sessions.remove(&id) {
                self.forget(id, (half_open.spi_i(), half_open.path.remote.ip()));
            }
        }
    }

    fn add(&mut self, cx: &Cx<'_>, half_open: HalfOpen, shown: bool) {
        let (id, source) = (half_open.id, half_open.path.remote.ip());
        self.requests.insert((half_open.spi_i(), source), id);
        *self.by_source.entry((source, shown)).or_default() += 1;
        if shown {
            self.shown.insert(id);
        }
        self.ends.push_back((cx.now + cx.limits.half_open_time, id));
        self.sessions.insert(id, Box::new(half_open));
    }

    fn take(&mut self, id: SessionId) -> Option<Box<HalfOpen>> {
        self.sessions.remove(&id)
    }

    fn put(&mut self, half_open: Box<HalfOpen>) {
        self.sessions.insert(half_open.id, half_open);
    }

    fn forget(&mut self, id: SessionId, (spi_i, source): (Spi, IpAddr)) {
        if self.requests.get(&(spi_i, source)) == Some(&id) {
            self.requests.remove(&(spi_i, source));
        }
        let place = (source, self.shown.remove(&id));
        if let Some(count) = self.by_source.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&place);
            }
        }
    }
}

/// So many a second, and as many saved up.
#[derive(Debug, Default)]
struct Allowance {
    second: Option<Instant>,
    taken: u32,
}

impl Allowance {
    fn take(&mut self, now: Instant, per_second: u32) -> bool {
        if self.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.taken = 0;
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowance_is_by_the_second() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        let mut in_second = |after: u64| {
            let now = start + Duration::from_millis(after);
            (0..5).filter(|_| allowance.take(now, 3)).count()
        };
        assert_eq!([in_second(0), in_second(999), in_second(1000), in_second(1500)], [3, 0, 3, 0]);
    }
}
