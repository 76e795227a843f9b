//! Word when links, addresses or routes change.

use std::io;
use std::pin::Pin;

use futures_util::{FutureExt, Stream, StreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use super::Task;

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Routes only.
    Routes,
    /// Links or addresses.
    Links,
}

/// Tells when links, addresses or routes have changed.
pub struct Monitor {
    messages: Pin<Box<dyn Stream<Item = Change> + Send>>,
    _connection: Task,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitor")
    }
}

impl Monitor {
    /// Starts to listen. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Monitor> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route, Link};
        let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let connection = Task(tokio::spawn(connection));
        let messages = messages.map(|(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_),
            ) => Change::Routes,
            // Also when the kernel says that it had more to say than there was room for
            _ => Change::Links,
        });
        Ok(Monitor { messages: Box::pin(messages), _connection: connection })
    }

    /// Waits for a change. Never returns if the socket has failed.
    pub async fn changed(&mut self) -> Change {
        match self.messages.next().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Takes all that has been announced by now.
    pub fn drain(&mut self) -> Option<Change> {
        let mut most = None;
        while let Some(Some(change)) = self.messages.next().now_or_never() {
            most = most.max(Some(change));
        }
        most
    }
}
