//! The kernel's own IPsec: whether it has policies for what leaves this host, and word when they change.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use libc::{MSG_DONTWAIT, NLM_F_REQUEST};
use rtnetlink::sys::{Socket, SocketAddr, constants};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

// linux/xfrm.h
const GET_SPD_INFO: u16 = 0x25;
const NEW_SPD_INFO: u16 = 0x24;
/// Attribute of it: numbers of policies, u32 each: in, out, forward.
const SPD_INFO: u16 = 1;
const GROUP_POLICY: u32 = 4;

/// Words of change read in one go.
const AT_ONCE: usize = 64;

const HEADER: usize = 16;
/// Header and flags, in question and answer.
const MESSAGE: usize = HEADER + 4;

/// The kernel's IPsec policies. A kernel without IPsec has none.
#[derive(Debug)]
pub struct Policies {
    asking: io::Result<Socket>,
    word: Option<AsyncFd<Listener>>,
}

#[derive(Debug)]
struct Listener(Socket);

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Policies {
    /// Starts to listen. Must be called inside a tokio runtime.
    pub fn open() -> Policies {
        Policies { asking: Socket::new(constants::NETLINK_XFRM), word: listen().ok() }
    }

    /// Whether there are any for what leaves. Where the kernel does not say, there may be.
    pub fn exist(&self) -> bool {
        match &self.asking {
            Ok(socket) => ask(socket).map_or(true, |count| count > 0),
            Err(e) => e.raw_os_error() != Some(libc::EPROTONOSUPPORT),
        }
    }

    /// Returns when some have come or gone; never where the kernel does not tell.
    pub async fn changed(&mut self) {
        let Some(word) = &self.word else { return std::future::pending().await };
        // Errors cannot occur while the runtime lives
        if let Ok(mut ready) = word.readable().await {
            let mut message = Vec::with_capacity(4096);
            // Also when there was more than there was room for: being told is enough. What is left then is left for the next call
            for _ in 0..AT_ONCE {
                message.clear();
                if matches!(word.get_ref().0.recv(&mut message, MSG_DONTWAIT), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
                {
                    ready.clear_ready();
                    return;
                }
            }
        }
    }
}

fn listen() -> io::Result<AsyncFd<Listener>> {
    let mut socket = Socket::new(constants::NETLINK_XFRM)?;
    socket.bind(&SocketAddr::new(0, 1 << (GROUP_POLICY - 1)))?;
    socket.set_non_blocking(true)?;
    // The successor is unsafe for the sake of types that lie about their descriptor; this does not
    #[allow(deprecated)]
    AsyncFd::with_interest(Listener(socket), Interest::READABLE)
}

/// How many policies there are for what leaves.
fn ask(socket: &Socket) -> io::Result<u32> {
    let mut question = [0; MESSAGE];
    let fields = [
        (0, &(MESSAGE as u32).to_ne_bytes()[..]),
        (4, &GET_SPD_INFO.to_ne_bytes()),
        (6, &(NLM_F_REQUEST as u16).to_ne_bytes()),
    ];
    for (at, field) in fields {
        question[at..at + field.len()].copy_from_slice(field);
    }
    socket.send(&question, 0)?;
    // The kernel answers before the question has returned
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, MSG_DONTWAIT)?;
    outbound(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The number of outbound policies in an answer.
fn outbound(answer: &[u8]) -> Option<u32> {
    if u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?) != NEW_SPD_INFO {
        return None;
    }
    let mut attributes = answer.get(MESSAGE..)?;
    loop {
        let len = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..len)?;
        if kind == SPD_INFO {
            return Some(u32::from_ne_bytes(*value.get(4..)?.first_chunk()?));
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_lies_are_not_believed() {
        let mut answer = vec![0; MESSAGE];
        answer[4..6].copy_from_slice(&NEW_SPD_INFO.to_ne_bytes());
        for (kind, value) in [(9u16, vec![1; 3]), (SPD_INFO, [5u32, 7, 9].map(u32::to_ne_bytes).concat())] {
            answer.extend((value.len() as u16 + 4).to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            answer.extend(value);
            answer.resize(answer.len().next_multiple_of(4), 0);
        }
        assert_eq!(outbound(&answer), Some(7));
        for len in 0..answer.len() - 4 {
            assert_eq!(outbound(&answer[..len]), None, "{len} bytes");
        }
        for lie in [0u16, 3, 2000] {
            let mut answer = answer.clone();
            answer[MESSAGE..MESSAGE + 2].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(outbound(&answer), None, "length {lie}");
        }
    }
}
