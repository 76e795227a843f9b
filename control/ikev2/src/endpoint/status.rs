//! What operators get to see of a peer.

use std::time::Instant;

use super::peer::{Peer, Session};
use crate::sa::auth::Auth;
use crate::sa::established::{IkeSa, Phase};
use crate::sa::init::Init;
use crate::status::{IkeSecrets, IkeState, IkeStatus, PeerState, PeerStatus};

impl Peer {
    /// All about it.
    pub fn status(&self, now: Instant) -> PeerStatus {
        let state = match (self.is_complete(), self.sessions.is_empty()) {
            (true, _) => PeerState::Up,
            (false, _) if self.is_trying() || self.has_open() => PeerState::Connecting,
            (false, _) => PeerState::Down,
        };
        let closed = |session: &&Session| matches!(session, Session::Established(sa) if matches!(sa.phase, Phase::Closed { .. }));
        let ike = self.sessions.values().filter(|session| !closed(session)).map(|session| match session {
            Session::Init(init) => of_init(init, now),
            Session::Auth(auth) => of_auth(auth, now),
            Session::Established(sa) => of_established(sa, now),
        });
        PeerStatus {
            peer: self.id,
            name: self.config.name.clone(),
            local: self.config.local.or_else(|| self.open().last().map(|sa| sa.channel.path.local.ip())),
            remote: self.config.remote,
            state,
            last_error: self.trouble.clone(),
            retry_in: self.next_attempt().map(|at| at.saturating_duration_since(now)),
            ike: ike.collect(),
            children: self.children.status(now),
        }
    }

    /// The keys of its IKE SAs.
    pub fn secrets(&self) -> Vec<IkeSecrets> {
        let secrets = |session: &Session| {
            let channel = match session {
                Session::Init(_) => return None,
                Session::Auth(auth) => &auth.channel,
                Session::Established(sa) => &sa.channel,
            };
            let keys = channel.keys.clone();
            Some(IkeSecrets {
                peer: self.id,
                spi_i: channel.spi_i,
                spi_r: channel.spi_r,
                suite: channel.suite,
                sk_ei: keys.sk_ei,
                sk_er: keys.sk_er,
                sk_ai: keys.sk_ai,
                sk_ar: keys.sk_ar,
            })
        };
        self.sessions.values().filter_map(secrets).collect()
    }
}

fn of_init(init: &Init, now: Instant) -> IkeStatus {
    IkeStatus {
        state: IkeState::Connecting,
        initiator: true,
        spi_i: init.spi(),
        spi_r: [0; 8],
        path: init.path,
        suite: None,
        local_id: None,
        remote_id: None,
        age: now.saturating_duration_since(init.begun),
        rekey_in: None,
        expires_in: None,
        heard: None,
        nat_local: false,
        nat_remote: false,
        underpass: false,
    }
}

fn of_auth(auth: &Auth, now: Instant) -> IkeStatus {
    IkeStatus {
        state: IkeState::Connecting,
        initiator: true,
        spi_i: auth.channel.spi_i,
        spi_r: auth.channel.spi_r,
        path: auth.channel.path,
        suite: Some(auth.channel.suite),
        local_id: Some(auth.local_id.clone()),
        remote_id: None,
        age: now.saturating_duration_since(auth.begun),
        rekey_in: None,
        expires_in: None,
        heard: Some(now.saturating_duration_since(auth.channel.heard)),
        nat_local: auth.nat.local,
        nat_remote: auth.nat.remote,
        underpass: auth.underpass,
    }
}

fn of_established(sa: &IkeSa, now: Instant) -> IkeStatus {
    let state = sa.state();
    IkeStatus {
        state,
        initiator: sa.channel.initiator,
        spi_i: sa.channel.spi_i,
        spi_r: sa.channel.spi_r,
        path: sa.channel.path,
        suite: Some(sa.channel.suite),
        local_id: Some(sa.local_id.clone()),
        remote_id: Some(sa.proof.identity().clone()),
        age: now.saturating_duration_since(sa.born),
        rekey_in: (state == IkeState::Established).then(|| sa.rekey_at.saturating_duration_since(now)),
        expires_in: Some(sa.expires_at().saturating_duration_since(now)),
        heard: Some(now.saturating_duration_since(sa.liveness.silent_since(&sa.channel).max(sa.born))),
        nat_local: sa.nat.local,
        nat_remote: sa.nat.remote,
        underpass: sa.underpass,
    }
}
