//! One thread wakes another that waits in epoll.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Readable from [`EventFd::notify`] until [`EventFd::drain`].
#[derive(Debug)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// Not readable yet.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(EventFd { file: File::from(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Makes it readable. The one way to fail is that 2^64-2 notifications wait already: it is readable then.
    pub fn notify(&self) {
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable; true when there had been a notification.
    pub fn drain(&self) -> bool {
        matches!((&self.file).read(&mut [0; 8]), Ok(8))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_notifications_drain_at_once() {
        let event = EventFd::new().unwrap();
        assert!(!event.drain());
        event.notify();
        event.notify();
        assert!(event.drain());
        assert!(!event.drain());
    }
}
