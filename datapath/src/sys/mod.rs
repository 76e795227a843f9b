//! The system calls behind ports and workers: the only `unsafe` of the project.
//!
//! Everything here is safe to call: a wrapper takes borrowed descriptors and slices, and hands the kernel nothing that
//! does not outlive the call.
#![allow(unsafe_code)]

pub mod bpf;
pub mod cmsg;
pub mod epoll;
pub mod ethtool;
pub mod eventfd;
pub mod mmsg;
pub mod packet_socket;
pub mod raw_ip;
pub mod tun;
pub mod udp;
pub mod vector;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, socklen_t};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The interface index of `device` in the calling thread's network namespace.
///
/// # Errors
/// ENODEV: there is no such device.
pub fn ifindex(device: &str) -> io::Result<u32> {
    let name = CString::new(device)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// How many cores are online, at least one.
pub fn cores() -> usize {
    // SAFETY: takes no pointers.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(cores).unwrap_or(1).max(1)
}

/// Major and minor version of the running kernel.
pub fn kernel() -> Option<(u32, u32)> {
    version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Turns -1 into the error that `errno` holds.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `setsockopt` with a value that is plain bytes. Private to this module: an option that takes pointers must not come here.
fn set_option<T: IntoBytes + Immutable>(
    fd: &impl AsFd,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    let bytes = value.as_bytes();
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: pointer and length are those of one slice, which the kernel only reads, and only during the call.
    check(unsafe { libc::setsockopt(fd, level, name, bytes.as_ptr().cast(), bytes.len() as socklen_t) })?;
    Ok(())
}

/// `getsockopt` of a value that any bytes are valid for.
fn get_option<T: FromBytes + IntoBytes>(fd: &impl AsFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = T::new_zeroed();
    let mut len = size_of::<T>() as socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to `value`, which has that many, and any bytes are valid there.
    check(unsafe { libc::getsockopt(fd, level, name, value.as_mut_bytes().as_mut_ptr().cast(), &mut len) })?;
    Ok(value)
}

// asm-generic/socket.h, linux/sock_diag.h: a list of numbers, drops the last
const SO_MEMINFO: c_int = 55;
const SK_MEMINFO_VARS: usize = 9;

/// Packets that a socket has dropped since it was made, for want of buffer above all; wraps.
pub fn drops(socket: &impl AsFd) -> Option<u32> {
    let info = get_option::<[u32; SK_MEMINFO_VARS]>(socket, libc::SOL_SOCKET, SO_MEMINFO).ok()?;
    info.last().copied()
}

/// Asks for socket buffers of `bytes`, beyond the system's limits where the process may (CAP_NET_ADMIN), and else up to
/// them. The kernel counts its own overhead in and doubles what it is given for that.
pub fn set_buffers(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    let size = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    if set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &size).is_err() {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        for (release, want) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("6.1.0-28-amd64\n", Some((6, 1))),
            ("5.14.0-503.el9.x86_64", Some((5, 14))),
            ("7.0-rc1", Some((7, 0))),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(version(release), want, "{release:?}");
        }
        assert!(kernel().is_some());
    }
}
