//! Putting a new picture in force, for whoever changes the state.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use datapath::handle::Datapath;
use datapath::snapshot::PortId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::actual::State;

/// How long workers may take to go by a new snapshot. They take microseconds unless the host is in trouble.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for them without letting go of the thread.
const AT_ONCE: Duration = Duration::from_micros(200);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Every worker goes by it, or by a later one.
    InForce,
    /// Not every worker has taken it up in time; it will be.
    Late,
    /// Nothing was published: of two tunnels that a received packet could belong to, this is the second.
    EqualTunnels(PortId),
}

/// Publishes what `state` holds now, and waits until it is in force.
pub async fn publish(datapath: &Datapath, state: &RefCell<State>) -> Published {
    state.borrow().tell_inlet();
    let picture = state.borrow().snapshot();
    let snapshot = match picture {
        Ok(snapshot) => snapshot,
        Err((_, second)) => return Published::EqualTunnels(second),
    };
    let generation = datapath.publish(snapshot);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    let mut applied = datapath.wait_applied(generation, AT_ONCE);
    while !applied {
        if tokio::time::Instant::now() > deadline {
            return Published::Late;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
        applied = datapath.wait_applied(generation, Duration::ZERO);
    }
    Published::InForce
}

/// Readable when workers have told something. Each holder hears of everything that happens from now on.
pub fn event_fd(datapath: &Datapath) -> Option<AsyncFd<OwnedFd>> {
    listen(datapath.event_fd())
}

/// The same for any descriptor of the datapath's.
pub fn listen(fd: BorrowedFd<'_>) -> Option<AsyncFd<OwnedFd>> {
    let fd = fd.try_clone_to_owned();
    // The successor is unsafe for the sake of types that lie about their descriptor; OwnedFd does not
    #[allow(deprecated)]
    match fd.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE)) {
        Ok(fd) => Some(fd),
        Err(e) => {
            tracing::error!("cannot listen to the datapath, and will look every second instead: {e}");
            None
        }
    }
}

/// Returns when the descriptor is readable; never when there is none.
pub async fn readable(fd: Option<&AsyncFd<OwnedFd>>) {
    match fd {
        None => std::future::pending().await,
        // Errors cannot occur while the runtime lives
        Some(fd) => {
            if let Ok(mut ready) = fd.readable().await {
                ready.clear_ready();
            }
        }
    }
}
