//! One client: its bytes into a session, the session's events into answers and changes.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use openflow::{Event, PortConfig, PortMod, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Activity, Context, picture};
use crate::reconcile::publish;
use crate::reconcile::report::device;

/// How long a client may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes taken from a client at a time.
const READ_SIZE: usize = 4096;
/// Settings that the datapath knows nothing of. The other two that change nothing here speak of what there is not:
/// packet-in messages, and a spanning tree by OpenFlow.
const UNKNOWN: [PortConfig; 3] = [PortConfig::NO_RECV, PortConfig::NO_RECV_STP, PortConfig::NO_FWD];

/// Answers until the client leaves. It is read from only when all it has asked is answered.
pub(super) async fn converse(
    mut stream: UnixStream,
    context: Rc<Context>,
    bridge: String,
    activity: Rc<Cell<Activity>>,
) {
    let mut session = Session::new();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        // who does not read is let go
        loop {
            match session.poll() {
                Ok(None) => break,
                Ok(Some(event)) => {
                    let Some(reply) = context.reply(&bridge, &activity, event).await else { return };
                    if write(&mut stream, &reply).await.is_err() {
                        return;
                    }
                }
                Err(broken) => {
                    tracing::debug!("bridge {bridge}: an OpenFlow client is let go: {broken}");
                    let _ = write(&mut stream, &broken.farewell).await;
                    return;
                }
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => session.receive(buffer.get(..n).unwrap_or_default()),
            _ => return,
        }
    }
}

/// Where the messages between switch and controllers can be watched. There are none.
pub(super) async fn snoop(mut stream: UnixStream) {
    let mut buffer = vec![0; READ_SIZE];
    if let Ok(Some(Event::Send(hello))) = Session::new().poll()
        && write(&mut stream, &hello).await.is_ok()
    {
        while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    }
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await?
}

impl Context {
    /// What to send. None: the bridge is gone.
    async fn reply(&self, bridge: &str, activity: &Cell<Activity>, event: Event) -> Option<Vec<u8>> {
        match event {
            Event::Send(reply) => Some(reply),
            Event::Ask(question) => Some(question.answer(&picture::of(self, bridge, activity).await?)),
            Event::Modify(change) => {
                let seen = picture::of(self, bridge, activity).await?;
                Some(match change.check(&seen) {
                    Ok(config) if UNKNOWN.iter().any(|bit| config.has(*bit)) => change.refusal(),
                    Ok(config) => {
                        self.modify(bridge, &change, config).await;
                        Vec::new()
                    }
                    Err(refusal) => refusal,
                })
            }
        }
    }

    /// Gives a port its settings. What the kernel refuses stays as it is, as in Open vSwitch.
    async fn modify(&self, bridge: &str, change: &PortMod, config: PortConfig) {
        let Ok(links) = self.netlink.links().await else { return };
        let (link, publishes) = {
            let mut state = self.state.borrow_mut();
            let ports = state.bridges.get_mut(bridge).map(|b| b.ports.values_mut());
            let Some(port) = ports.into_iter().flatten().find(|p| p.port.ofport == change.port) else {
                return;
            };
            let before = port.config;
            port.config = config.with(PortConfig::DOWN, false);
            let flood = |config: PortConfig| config.has(PortConfig::NO_FLOOD);
            (device(&port.attachment, &links).cloned(), flood(before) != flood(config))
        };
        let down = config.has(PortConfig::DOWN);
        if let Some(link) = link.filter(|link| link.up == down)
            && let Err(e) = self.netlink.set_up(link.index, !down).await
        {
            tracing::warn!(
                "bridge {bridge}: cannot bring {} {}: {e}",
                link.name,
                if down { "down" } else { "up" }
            );
        }
        if publishes {
            publish::publish(&self.datapath, &self.state).await;
        }
    }
}
