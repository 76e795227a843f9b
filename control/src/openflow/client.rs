//! One client: its bytes into a session, the session's events into answers and changes.

use std::future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use openflow::{Bridge, Broken, Event, PortConfig, PortMod, Session, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::{Context, Ports, picture};
use crate::reconcile::publish;
use crate::reconcile::report::device;

/// How long a client may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes taken from a client at a time.
const READ_SIZE: usize = 4096;
/// Settings that the datapath knows nothing of. The other two that change nothing here speak of what there is not:
/// packet-in messages, and a spanning tree by OpenFlow.
const UNKNOWN: [PortConfig; 3] = [PortConfig::NO_RECV, PortConfig::NO_RECV_STP, PortConfig::NO_FWD];

/// Answers until the client leaves. It is read from only when all it has asked is answered, and told of ports only when it has
/// read what it was told before.
pub(super) async fn converse(stream: UnixStream, context: Rc<Context>, bridge: String, ports: Rc<Ports>) {
    let session = Session::new(context.versions(&bridge));
    let mut client = Client { stream, session, news: None, context, bridge, ports };
    if let Err(End::Broken(broken)) = client.serve().await {
        tracing::debug!("bridge {}: an OpenFlow client is let go: {broken}", client.bridge);
        let _ = write(&mut client.stream, &broken.farewell).await;
    }
}

/// Why a connection ends.
enum End {
    /// By us.
    Broken(Broken),
    /// By the client, which has left or does not read; or the bridge is gone.
    Gone,
}

impl From<Broken> for End {
    fn from(broken: Broken) -> End {
        End::Broken(broken)
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

struct Client {
    stream: UnixStream,
    session: Session,
    /// While it wants to be told of ports.
    news: Option<watch::Receiver<Rc<Bridge>>>,
    context: Rc<Context>,
    bridge: String,
    ports: Rc<Ports>,
}

impl Client {
    async fn serve(&mut self) -> Result<(), End> {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            loop {
                let event = self.session.poll()?;
                self.listen().await?;
                let Some(event) = event else { break };
                let reply = self.reply(event).await.ok_or(End::Gone)?;
                write(&mut self.stream, &reply).await?;
            }
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => self.session.receive(buffer.get(..n).unwrap_or_default()),
                    _ => return Err(End::Gone),
                },
                bridge = changed(&mut self.news) => {
                    let bridge = bridge.ok_or(End::Gone)?;
                    let told = self.session.news(&bridge)?;
                    write(&mut self.stream, &told).await?;
                }
            }
        }
    }

    /// Begins to hear of ports if the client wants to, or ceases.
    async fn listen(&mut self) -> Result<(), End> {
        if self.session.listens() != self.news.is_some() {
            self.news = self.session.listens().then(|| self.ports.news.subscribe());
            self.session.news(&self.picture().await.ok_or(End::Gone)?)?;
        }
        Ok(())
    }

    /// None: the bridge is gone.
    async fn picture(&self) -> Option<Bridge> {
        picture::of(&self.context, &self.bridge, &self.ports.activity).await
    }

    /// What to send. None: the bridge is gone.
    async fn reply(&mut self, event: Event) -> Option<Vec<u8>> {
        match event {
            Event::Send(reply) => Some(reply),
            Event::Ask(question) => Some(question.answer(&self.picture().await?)),
            Event::Modify(change) => Some(match change.check(&self.picture().await?) {
                Ok(config) if UNKNOWN.iter().any(|bit| config.has(*bit)) => change.refusal(),
                Ok(config) => {
                    self.context.modify(&self.bridge, &change, config).await;
                    self.session.modified(&change, config);
                    self.ports.look.notify_one();
                    Vec::new()
                }
                Err(refusal) => refusal,
            }),
        }
    }
}

/// The bridge's next picture; none: it is gone.
async fn changed(news: &mut Option<watch::Receiver<Rc<Bridge>>>) -> Option<Rc<Bridge>> {
    match news {
        None => future::pending().await,
        Some(news) => news.changed().await.ok().map(|()| news.borrow_and_update().clone()),
    }
}

/// Where the messages between switch and controllers can be watched. There are none.
pub(super) async fn snoop(mut stream: UnixStream, context: Rc<Context>, bridge: String) {
    let mut buffer = vec![0; READ_SIZE];
    if let Ok(Some(Event::Send(hello))) = Session::new(context.versions(&bridge)).poll()
        && write(&mut stream, &hello).await.is_ok()
    {
        while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    }
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await?
}

impl Context {
    /// Those that column `protocols` of the bridge allows; all that there are if it is empty.
    fn versions(&self, bridge: &str) -> Vec<Version> {
        let db = self.db.borrow();
        let row = db.db().rows("Bridge").find(|(_, row)| row.str("name") == bridge);
        let allowed =
            row.and_then(|(_, row)| row.get("protocols")).map(ovsdb::Datum::atoms).unwrap_or_default();
        let named = |name: &str| allowed.is_empty() || allowed.iter().any(|a| a.as_str() == Some(name));
        Version::ALL.into_iter().filter(|version| named(version.name())).collect()
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
