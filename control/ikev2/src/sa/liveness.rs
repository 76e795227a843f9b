//! Signs of life: asking for them (RFC 7296 2.4), and giving them to a NAT (RFC 3948 2.3).

use std::time::{Duration, Instant};

use super::Cx;
use super::channel::Channel;
use super::established::IkeSa;
use super::nat::Nat;
use crate::config::{NAT_PORT, PeerConfig};
use crate::output::Output;

/// How long a NAT is trusted to remember us.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// So long may we send and receive nothing before we ask, if that is shorter than what is configured.
const UNANSWERED: Duration = Duration::from_secs(5);
/// After so many requests, some 2.5 s, a peer that knows nothing of us any more is met anew.
const SUSPICION: u32 = 4;
/// What comes from anybody makes us do something no more often than this.
const HINTS: Duration = Duration::from_secs(5);

/// When the peer was heard of, and when the NAT was.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// By ESP.
    heard: Instant,
    /// When the peer was asked out of turn.
    asked: Option<Instant>,
    /// When somebody said in the clear that it does not know us.
    doubted: Option<Instant>,
    keepalive_at: Instant,
    /// A new IKE SA has been tried for this silence.
    suspicious: bool,
}

impl Liveness {
    /// All is well.
    pub fn new(now: Instant) -> Liveness {
        Liveness { heard: now, asked: None, doubted: None, keepalive_at: now + KEEPALIVE, suspicious: false }
    }

    /// An authentic ESP packet came.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.suspicious = false;
    }

    /// True if the peer should be asked, as we send to it and nothing comes back.
    pub fn unanswered(&mut self, now: Instant, channel: &Channel, config: &PeerConfig) -> bool {
        let patience = UNANSWERED.min(config.liveness);
        !patience.is_zero() && now >= self.silent_since(channel) + patience && self.ask(now)
    }

    /// True if the peer, silent otherwise, has left so much unanswered that it may have lost all. If it has, a new IKE SA
    /// gets through where requests by the old one do not; if not, no harm is done.
    pub fn suspects(&mut self, now: Instant, channel: &Channel) -> bool {
        let suspects = channel.sent() >= SUSPICION && now >= self.silent_since(channel) + UNANSWERED;
        suspects && !std::mem::replace(&mut self.suspicious, true)
    }

    /// Since when the peer has been silent.
    pub fn silent_since(&self, channel: &Channel) -> Instant {
        self.heard.max(channel.heard)
    }

    /// True if the peer may be asked out of turn.
    pub fn ask(&mut self, now: Instant) -> bool {
        now_and_then(&mut self.asked, now)
    }

    /// True if a doubt may be acted on.
    pub fn doubt(&mut self, now: Instant) -> bool {
        now_and_then(&mut self.doubted, now)
    }

    /// When [`Liveness::due`] has something to do.
    pub fn timeout(&self, sa: &IkeSa, config: &PeerConfig) -> Option<Instant> {
        let ask = (!config.liveness.is_zero() && !sa.channel.is_waiting())
            .then(|| self.silent_since(&sa.channel) + config.liveness);
        ask.into_iter().chain(keeps_alive(sa.nat, &sa.channel).then_some(self.keepalive_at)).min()
    }

    /// Reminds the NAT of us if it is time. True if the peer is to be asked.
    pub fn due(&mut self, cx: &mut Cx<'_>, nat: Nat, channel: &Channel, config: &PeerConfig) -> bool {
        if keeps_alive(nat, channel) && self.keepalive_at <= cx.now {
            self.keepalive_at = cx.now + KEEPALIVE;
            cx.out.push_back(Output::Keepalive(channel.path));
        }
        !config.liveness.is_zero()
            && !channel.is_waiting()
            && self.silent_since(channel) + config.liveness <= cx.now
    }
}

fn now_and_then(last: &mut Option<Instant>, now: Instant) -> bool {
    let lately = last.is_some_and(|at| now < at + HINTS);
    if !lately {
        *last = Some(now);
    }
    !lately
}

fn keeps_alive(nat: Nat, channel: &Channel) -> bool {
    nat.local && channel.path.local.port() == NAT_PORT
}
