//! IPsec: from what tunnels ask for to keys in the datapath. The IKE engine ([`ikev2`]) knows neither sockets nor clocks;
//! here it gets both.
//!
//! [`pairs`] puts tunnels between the same hosts together; `credentials` reads what they prove themselves with from
//! `files`; `peers` tells the engine; `driver` runs it over `sockets` and puts what it agrees on into [`sas`]. [`view`] is
//! what operators see of it, [`monitor`] what `ovs-monitor-ipsec` would say, [`keys`] what Wireshark needs.
//!
//! Fail closed: a pair is there before any tunnel that refers to it, and without an SA it sends and takes nothing.

pub(crate) mod credentials;
mod driver;
mod files;
pub mod keys;
pub mod monitor;
pub mod pairs;
mod peers;
pub mod sas;
mod sockets;
#[cfg(test)]
mod tests;
pub mod view;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use datapath::handle::Datapath;
use datapath::snapshot::PolicyId;
use ovsdb::Database;
use tokio::sync::Notify;

use crate::reconcile::actual::State;
use crate::reconcile::wanted::Wanted;
use monitor::Monitor;
use pairs::{Ask, pair_up};
use peers::Peers;
use sockets::Sockets;

/// Everything about IPsec. Shared by those who configure it, who look at it, and [`Ipsec::run`].
pub struct Ipsec {
    datapath: Rc<Datapath>,
    /// Holds the SAs, beside what they protect.
    state: Rc<RefCell<State>>,
    peers: RefCell<Peers>,
    sockets: RefCell<Sockets>,
    monitor: RefCell<Monitor>,
    /// The engine may have something to do.
    work: Notify,
    /// The end is near.
    ending: Notify,
    /// What operators see has changed.
    news: Notify,
}

/// What an operator can have renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The child SA that is sent by.
    Child,
    /// The IKE SA.
    Ike,
    /// The proofs of identity, with an IKE SA of its own.
    Proof,
    /// An attempt that waits for its time.
    Attempt,
}

impl std::fmt::Debug for Ipsec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ipsec").finish_non_exhaustive()
    }
}

impl Ipsec {
    /// Nothing is protected yet.
    pub fn new(datapath: Rc<Datapath>) -> Ipsec {
        Ipsec {
            datapath,
            state: Rc::default(),
            peers: RefCell::default(),
            sockets: RefCell::default(),
            monitor: RefCell::default(),
            work: Notify::new(),
            ending: Notify::new(),
            news: Notify::new(),
        }
    }

    /// Where SAs go.
    pub fn state(&self) -> Rc<RefCell<State>> {
        self.state.clone()
    }

    /// The rows may have changed: for `tunnels/show`.
    pub fn look(&self, db: &Database, wanted: &Wanted) {
        self.monitor.borrow_mut().look(db, wanted);
    }

    /// Protects these tunnels and no others. For each: the policy that it has to refer to, or the text for its row why it
    /// must stay down. The policies are in the state when this returns; the flag says that they have changed.
    pub fn protect(&self, asks: Vec<Ask>) -> (BTreeMap<String, Result<PolicyId, String>>, bool) {
        let (wanted, refused) = pair_up(asks);
        let now = Instant::now();
        let (mut peers, mut state) = (self.peers.borrow_mut(), self.state.borrow_mut());
        peers.reclaim(&state.policies());
        let (mut plan, changed) = peers.follow(wanted, &mut state.sas, now);
        plan.extend(refused.into_iter().map(|(tunnel, why)| (tunnel, Err(why))));
        self.sockets.borrow_mut().keep_for(peers.families(), now);
        self.work.notify_one();
        (plan, changed)
    }

    /// Whether tunnels over IPv4 and IPv6 need sockets, or did a moment ago: farewells are still to be sent.
    pub fn needed(&self) -> [bool; 2] {
        self.sockets.borrow().needed()
    }

    /// Notes why port 4500 cannot be had for a family, or that it can.
    pub fn nat_port(&self, v6: bool, opened: &std::io::Result<()>) {
        self.sockets.borrow_mut().nat_port(v6, opened);
    }

    /// Has a tunnel's SAs renewed now. Err: there is no such tunnel.
    pub fn renew(&self, tunnel: &str, what: Renewal) -> Result<(), String> {
        let mut peers = self.peers.borrow_mut();
        let peer = peers.pair_with(tunnel).map(|(_, pair)| pair.peer);
        let peer = peer.ok_or_else(|| format!("{tunnel}: no tunnel that IPsec protects has this name"))?;
        let (engine, now) = (&mut peers.engine, Instant::now());
        match what {
            Renewal::Child => engine.rekey_child(now, peer),
            Renewal::Ike => engine.rekey_ike(now, peer),
            Renewal::Proof => engine.reauthenticate(now, peer),
            Renewal::Attempt => engine.initiate(now, peer),
        }
        self.work.notify_one();
        Ok(())
    }

    /// Tries now to reach every peer that there is no SA with.
    pub fn retry(&self) {
        let mut peers = self.peers.borrow_mut();
        let all: Vec<_> = peers.pairs.values().map(|pair| pair.peer).collect();
        all.into_iter().for_each(|peer| peers.engine.initiate(Instant::now(), peer));
        self.work.notify_one();
    }

    /// Waits until what operators see has changed.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

/// Seconds since 1970: for what certificates say alone.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
