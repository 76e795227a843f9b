//! `BRIDGE.mgmt` and `BRIDGE.snoop` in the run directory: what `ovs-ofctl` speaks to. They come and go with their bridges.
//!
//! What is said there is the business of the crate `openflow`; here are sockets, the picture of a bridge that questions are
//! answered from, and the changes that a port may be asked for.

mod client;
mod picture;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use datapath::handle::Datapath;
use openflow::Bridge;
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::claim::SocketFile;
use crate::devices::netlink::Netlink;
use crate::reconcile::actual::{BridgeState, State};
use crate::rundir::RunDir;

/// How many clients of one bridge may be connected at the same time.
const MAX_CLIENTS: usize = 64;

/// What clients are answered from.
pub struct Context {
    /// Where sockets go.
    pub rundir: RunDir,
    /// The configuration.
    pub db: Rc<RefCell<ovsdb::Server>>,
    /// What forwards.
    pub datapath: Rc<Datapath>,
    /// What is there.
    pub state: Rc<RefCell<State>>,
    /// The host's links.
    pub netlink: Netlink,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("rundir", &self.rundir).finish_non_exhaustive()
    }
}

/// The sockets of all bridges.
#[derive(Debug)]
pub struct OpenFlow {
    context: Rc<Context>,
    bridges: BTreeMap<String, Served>,
}

/// How long not to try again to make a socket.
const PAUSE: Duration = Duration::from_secs(1);

/// The sockets of one bridge. Dropping it ends its clients.
#[derive(Debug)]
struct Served {
    ports: Rc<Ports>,
    looking: JoinHandle<()>,
    /// `mgmt` and `snoop`.
    sockets: [Option<Socket>; 2],
    /// When they were last tried to be made, and how often before that.
    tried: Instant,
    tries: u32,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// What the clients of a bridge have in common.
#[derive(Debug)]
struct Ports {
    activity: Cell<Activity>,
    /// Told when ports may have changed.
    look: Notify,
    /// The bridge as it was looked at last, for those who want to be told of its ports. Who is slow misses what was in between.
    news: watch::Sender<Rc<Bridge>>,
}

impl Ports {
    /// Looks at a bridge whenever something may have changed, if somebody listens.
    async fn look(self: Rc<Self>, context: Rc<Context>, bridge: String) {
        loop {
            self.look.notified().await;
            if self.news.receiver_count() > 0
                && let Some(seen) = picture::of(&context, &bridge, &self.activity).await
            {
                self.news.send_replace(Rc::new(seen));
            }
        }
    }
}

/// One of them. Dropping it ends its clients.
#[derive(Debug)]
struct Socket {
    _file: SocketFile,
    clients: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.clients.abort();
    }
}

/// When a bridge last got a packet, as far as looking now and then can tell.
#[derive(Debug, Clone, Copy)]
struct Activity {
    packets: u64,
    at: Instant,
}

impl Activity {
    fn look(&mut self, packets: u64, now: Instant) {
        if packets != self.packets {
            *self = Activity { packets, at: now };
        }
    }
}

impl OpenFlow {
    /// No sockets yet.
    pub fn new(context: Context) -> OpenFlow {
        OpenFlow { context: Rc::new(context), bridges: BTreeMap::new() }
    }

    /// Makes sockets for new bridges and removes those of bridges that are gone. To be called after each change, and every
    /// second or so, so that it is known how long a bridge has been idle. Must be called inside a `LocalSet`.
    pub fn follow(&mut self) {
        let state = self.context.state.borrow();
        self.bridges.retain(|name, _| state.bridges.contains_key(name));
        for (name, bridge) in &state.bridges {
            let now = Instant::now();
            let served = self.bridges.entry(name.clone()).or_insert_with(|| {
                let mut served = Served::new(&self.context, name, now);
                served.listen(&self.context, name);
                served
            });
            if served.sockets.iter().any(Option::is_none) && now.duration_since(served.tried) >= PAUSE {
                served.tried = now;
                served.tries = served.tries.saturating_add(1);
                served.listen(&self.context, name);
            }
            let mut activity = served.ports.activity.get();
            activity.look(received(bridge), now);
            served.ports.activity.set(activity);
            served.ports.look.notify_one();
        }
    }
}

/// Packets that came in by the ports that a bridge has.
fn received(bridge: &BridgeState) -> u64 {
    bridge.ports.values().map(|p| p.port.counters.sum().rx_packets).sum()
}

impl Served {
    fn new(context: &Rc<Context>, bridge: &str, now: Instant) -> Served {
        let ports = Rc::new(Ports {
            activity: Cell::new(Activity { packets: 0, at: now }),
            look: Notify::new(),
            news: watch::Sender::default(),
        });
        let looking = tokio::task::spawn_local(ports.clone().look(context.clone(), bridge.to_owned()));
        Served { ports, looking, sockets: [None, None], tried: now, tries: 0 }
    }

    /// Makes the sockets that are not there yet. What stands in the way is told once, and not at first: a process that was
    /// killed may hold them a moment longer than what its successor has waited for.
    fn listen(&mut self, context: &Rc<Context>, bridge: &str) {
        // A name with a slash is no device's, and would lead elsewhere
        if bridge.contains('/') {
            return;
        }
        for (socket, snoop) in self.sockets.iter_mut().zip([false, true]).filter(|(s, _)| s.is_none()) {
            let name = format!("{bridge}.{}", if snoop { "snoop" } else { "mgmt" });
            match SocketFile::listen_at_once(context.rundir.path().join(name)) {
                Ok((listener, file)) => {
                    let (context, ports) = (context.clone(), self.ports.clone());
                    let clients = accept(listener, context, bridge.to_owned(), ports, snoop);
                    *socket = Some(Socket { _file: file, clients: tokio::task::spawn_local(clients) });
                }
                Err(e) if self.tries == 1 => {
                    tracing::warn!(
                        "bridge {bridge}: no socket for ovs-ofctl; it is tried again each second: {e}"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// Serves clients for ever; they end when this future is dropped.
async fn accept(listener: UnixListener, context: Rc<Context>, bridge: String, ports: Rc<Ports>, snoop: bool) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if clients.len() >= MAX_CLIENTS => {
                    tracing::warn!("bridge {bridge}: too many OpenFlow clients: refused another");
                }
                Ok((stream, _)) if snoop => {
                    clients.spawn_local(client::snoop(stream, context.clone(), bridge.clone()));
                }
                Ok((stream, _)) => {
                    let (context, bridge) = (context.clone(), bridge.clone());
                    clients.spawn_local(client::converse(stream, context, bridge, ports.clone()));
                }
                Err(e) => {
                    tracing::warn!("cannot accept OpenFlow clients: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = clients.join_next(), if !clients.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_since_the_last_packet() {
        let start = Instant::now();
        let mut activity = Activity { packets: 0, at: start };
        for (packets, second, idle) in [(0, 1, 1), (5, 2, 0), (5, 3, 1), (5, 9, 7), (6, 10, 0), (3, 11, 0)] {
            let now = start + Duration::from_secs(second);
            activity.look(packets, now);
            assert_eq!(now - activity.at, Duration::from_secs(idle), "at {second}");
        }
    }
}
