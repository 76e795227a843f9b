//! Waiting for several descriptors at once, level-triggered.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::check;

/// An epoll instance. A descriptor that is closed leaves it by itself, unless it was duplicated.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// What [`Epoll::wait`] reports: the token given to [`Epoll::add`], and what is the matter with its descriptor.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// Something to fill an array with before [`Epoll::wait`].
    pub const EMPTY: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    /// The token given to [`Epoll::add`].
    #[inline]
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// There is something to read.
    #[inline]
    pub fn readable(&self) -> bool {
        self.0.events & libc::EPOLLIN as u32 != 0
    }

    /// An error is pending or the other end is gone; reading tells which.
    #[inline]
    pub fn failed(&self) -> bool {
        self.0.events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("token", &self.token())
            .field("readable", &self.readable())
            .field("failed", &self.failed())
            .finish()
    }
}

impl Epoll {
    /// An instance that waits for nothing yet.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Reports `fd` under `token` whenever it is readable or has an error pending.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), &mut event)
    }

    /// Reports `fd` no more.
    pub fn del(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), &mut libc::epoll_event { events: 0, u64: 0 })
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, event: &mut libc::epoll_event) -> io::Result<()> {
        // SAFETY: both descriptors are borrowed for the call, which reads `event` and keeps no pointer to it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), ptr::from_mut(event))
        })?;
        Ok(())
    }

    /// Waits until something is ready and puts it at the front of `events`; returns how many, 0 when `timeout` ran out or a
    /// signal came. A timeout is rounded up to whole milliseconds; None waits for ever, zero not at all.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let millis = timeout.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let array = events.as_mut_ptr().cast::<libc::epoll_event>();
        // SAFETY: `array` has `room` elements, Event being transparent over epoll_event; the kernel writes no more.
        match check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), array, room, millis) }) {
            Ok(n) => Ok(n as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;

    #[test]
    fn reports_what_is_ready_under_its_token() {
        let (epoll, a, b) = (Epoll::new().unwrap(), EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&a, 7).unwrap();
        epoll.add(&b, 8).unwrap();
        let mut events = [Event::EMPTY; 4];
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
        b.notify();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert_eq!((events[0].token(), events[0].readable(), events[0].failed()), (8, true, false));
        epoll.del(&b).unwrap();
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn a_wait_without_room_is_an_error_and_no_panic() {
        assert!(Epoll::new().unwrap().wait(&mut [], Some(Duration::ZERO)).is_err());
    }
}
