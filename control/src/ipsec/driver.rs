//! Runs the IKE engine: brings it datagrams and time, and does what it says, in its order.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use datapath::handle::Punt;
use datapath::port::RxRoad;
use ikev2::{Event, NAT_PORT, Output, Path, PeerId};
use tokio::time::MissedTickBehavior;

use super::sockets::{IkeSocket, LONGEST};
use super::{Ipsec, unix_now};
use crate::reconcile::publish::{self, Published, readable};

/// How often the engine hears what has passed through its SAs.
const TICK: Duration = Duration::from_secs(1);
/// Datagrams of one socket taken in before anything else is looked at.
const BURST: usize = 64;

impl Ipsec {
    /// Runs until [`Ipsec::end`] is called, and peers have been told.
    pub async fn run(self: Rc<Self>) {
        let events = publish::event_fd(&self.datapath);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; LONGEST];
        loop {
            self.carry_out().await;
            // Whoever floods us must not keep the rest of the process waiting
            tokio::task::yield_now().await;
            let [v4, v6] = self.sockets.borrow().open();
            let due = self.peers.borrow().engine.timeout();
            tokio::select! {
                () = self.work.notified() => {}
                () = self.ending.notified() => {
                    self.peers.borrow_mut().engine.shutdown(Instant::now());
                    return self.carry_out().await;
                }
                () = at(due) => self.peers.borrow_mut().engine.handle_timeout(Instant::now()),
                () = waiting(v4.as_deref()) => self.receive(v4.as_deref(), &mut buffer),
                () = waiting(v6.as_deref()) => self.receive(v6.as_deref(), &mut buffer),
                () = readable(events.as_ref()) => self.take_punts(),
                _ = ticks.tick() => {
                    self.take_punts();
                    self.tell_traffic();
                    self.tell_troubles();
                }
            }
        }
    }

    /// The process ends: tells peers. What runs [`Ipsec::run`] is done soon after.
    pub fn end(&self) {
        self.ending.notify_one();
    }

    /// Does all that the engine wants done. What it says of SAs is in force in every worker before the next message leaves;
    /// several of them in a row take one snapshot.
    async fn carry_out(&self) {
        let mut unpublished = false;
        loop {
            let next = self.peers.borrow_mut().engine.poll();
            match next {
                Some(Output::Event(peer, event)) => unpublished |= self.heed(peer, event),
                Some(Output::Transmit { path, datagram }) => {
                    if std::mem::take(&mut unpublished) {
                        self.publish().await;
                    }
                    self.send(&path, &datagram);
                }
                Some(Output::Keepalive(path)) => self.keep_alive(&path),
                None => break,
            }
        }
        if unpublished {
            self.publish().await;
        }
    }

    async fn publish(&self) {
        match publish::publish(&self.datapath, &self.state).await {
            Published::InForce => {}
            Published::Late => {
                tracing::error!("the datapath has not taken up new keys in time; traffic may be lost");
            }
            // The reconciler is about to put one of them away, and publishes then
            Published::EqualTunnels(_) => {}
        }
    }

    /// True: the state has changed.
    fn heed(&self, peer: PeerId, event: Event) -> bool {
        let mut peers = self.peers.borrow_mut();
        // Of a pair that is gone: so are its SAs
        let Some(pair) = peers.pair_of(peer) else { return false };
        let sas = &mut self.state.borrow_mut().sas;
        match event {
            Event::Install(child) => {
                let policy = pair.policy(child.selector);
                if let Some(Err(why)) = policy.map(|policy| sas.install(policy, child)) {
                    tracing::error!("{}: a new SA is of no use: {why}", pair.wanted.name());
                }
                return true;
            }
            Event::UseOutbound(id) => {
                sas.use_outbound(id);
                return true;
            }
            Event::Remove(id) => {
                sas.forget(id);
                return true;
            }
            Event::Moved(id, ports) => sas.moved(id, ports),
            Event::Up(selector) => {
                tracing::info!("{}: {selector} protected", pair.wanted.name());
                pair.set_up(selector);
            }
            Event::Down(selector, why) => {
                let name = pair.wanted.name();
                tracing::warn!("{name}: {selector} not protected any more, nothing of it passes: {why}");
                pair.up.remove(&selector);
                pair.set_down(why, Instant::now());
            }
            Event::Trouble(why) => {
                // Strangers cause it, too: what is no news must cost nothing
                if !pair.set_trouble(why, Instant::now()) {
                    return false;
                }
            }
        }
        self.news.notify_one();
        false
    }

    fn send(&self, path: &Path, datagram: &[u8]) {
        let sent = if path.local.port() == NAT_PORT {
            let underlay = self.state.borrow().underlay(RxRoad::Udp, path.remote.is_ipv6());
            underlay.map(|u| u.send_ike(path.local.ip(), path.remote, datagram))
        } else {
            let [v4, v6] = self.sockets.borrow().open();
            let socket = if path.remote.is_ipv6() { v6 } else { v4 };
            socket.map(|s| s.send(path, datagram))
        };
        // IKE sends it again; what keeps failing ends as the peer's silence
        if let Some(Err(e)) = sent {
            tracing::debug!("IKE to {}: {e}", path.remote);
        }
    }

    fn keep_alive(&self, path: &Path) {
        let underlay = self.state.borrow().underlay(RxRoad::Udp, path.remote.is_ipv6());
        if let Some(Err(e)) = underlay.map(|u| u.send_keepalive(path.local.ip(), path.remote)) {
            tracing::debug!("keepalive to {}: {e}", path.remote);
        }
    }

    fn receive(&self, socket: Option<&IkeSocket>, buffer: &mut [u8]) {
        let Some(socket) = socket else { return };
        for _ in 0..BURST {
            match socket.receive(buffer) {
                Ok(Some((path, len))) => {
                    let datagram = buffer.get(..len).unwrap_or_default();
                    self.peers.borrow_mut().engine.receive(Instant::now(), unix_now(), path, datagram);
                }
                Ok(None) => return,
                // Such as word that a peer's port is closed; reading it has cleared it
                Err(e) => tracing::debug!("UDP port 500: {e}"),
            }
        }
    }

    /// What came to port 4500 for IKE, and word of SPIs that nobody has.
    fn take_punts(&self) {
        let engine = &mut self.peers.borrow_mut().engine;
        for punt in self.datapath.punted() {
            match punt {
                Punt::Ike { local, remote, bytes } => {
                    let path = Path { local: SocketAddr::new(local, NAT_PORT), remote };
                    engine.receive(Instant::now(), unix_now(), path, &bytes);
                }
                Punt::UnknownSpi { remote, spi } => engine.unknown_spi(Instant::now(), remote, spi),
            }
        }
    }

    fn tell_traffic(&self) {
        let state = self.state.borrow();
        let engine = &mut self.peers.borrow_mut().engine;
        let now = Instant::now();
        for (_, child) in state.sas.children() {
            engine.traffic(now, child.child.id, child.usage());
        }
    }

    fn tell_troubles(&self) {
        let now = Instant::now();
        let news = self
            .peers
            .borrow_mut()
            .pairs
            .values_mut()
            .map(|pair| u32::from(pair.next_trouble(now)))
            .sum::<u32>();
        if news > 0 {
            self.news.notify_one();
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn waiting(socket: Option<&IkeSocket>) {
    match socket {
        None => std::future::pending().await,
        // Errors cannot occur while the runtime lives
        Some(socket) => drop(socket.readable().await),
    }
}
