//! rtnetlink in one place: what links, addresses and routes there are, changes to them, and word when they change.
//!
//! Every call speaks of the network namespace in which the socket was opened. Errors are the kernel's own, so that
//! callers can tell ENODEV from EPERM.

mod address;
mod link;
mod monitor;
mod neighbour;
mod route;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_route::AddressFamily;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

pub use address::{Address, Lease};
pub use link::{Link, LinkStats, Links, NewLink};
pub use monitor::{Change, Monitor};
pub use neighbour::Neighbour;
pub use route::{Route, Way};

/// A handle on the kernel's routing socket. Clones share the socket; the last one closes it.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    _connection: Arc<Task>,
}

/// Stops the task that it holds.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, _connection: Arc::new(Task(tokio::spawn(connection))) })
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENXIO)) => Ok(()),
        other => other,
    }
}
