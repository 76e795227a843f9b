//! eBPF by `bpf(2)`: programs written with [`Assembler`], loaded, and attached to a device; maps between them and us.
//!
//! Programs, maps and links are descriptors. A link attaches its program for as long as it is open, so what was attached goes
//! with the process, however that ends.

mod insn;
mod map;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_uint};
use zerocopy::{Immutable, IntoBytes};

pub use insn::{Assembler, If, Insn, Label, Op, Operand, Reg, Size};
pub use map::{Map, MapKind};

/// Functions of the kernel that programs call, by number (`bpf-helpers(7)`).
pub mod helper {
    /// `map_lookup_elem(map, key)`: the value, or 0.
    pub const MAP_LOOKUP: i32 = 1;
    /// `skb_store_bytes(skb, offset, from, len, flags)`
    pub const SKB_STORE_BYTES: i32 = 9;
    /// `skb_load_bytes(skb, offset, to, len)`
    pub const SKB_LOAD_BYTES: i32 = 26;
    /// `csum_diff(from, from_len, to, to_len, seed)`
    pub const CSUM_DIFF: i32 = 28;
    /// `skb_adjust_room(skb, bytes, mode, flags)`
    pub const SKB_ADJUST_ROOM: i32 = 50;
    /// `redirect_map(map, key, flags)`
    pub const REDIRECT_MAP: i32 = 51;
    /// `xdp_adjust_head(xdp, bytes)`
    pub const XDP_ADJUST_HEAD: i32 = 44;
    /// `redirect_neigh(ifindex, next_hop, len, flags)`
    pub const REDIRECT_NEIGH: i32 = 152;
}

// bpf_cmd
const MAP_CREATE: c_int = 0;
const PROG_LOAD: c_int = 5;
#[cfg(test)]
const PROG_TEST_RUN: c_int = 10;
const LINK_CREATE: c_int = 28;

// linux/if_link.h
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

// linux/bpf.h: before the program that is named, or before all if none is
const BPF_F_BEFORE: u32 = 1 << 3;

/// Bytes of verifier log that are asked for when a program is refused.
const LOG: usize = 64 << 10;

/// Lines of it that say what is wrong: the last.
const LOG_TAIL: usize = 6;

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramKind {
    /// Decides about packets in the traffic control of a device (BPF_PROG_TYPE_SCHED_CLS).
    SchedCls = 3,
    /// Decides about packets as the driver hands them up (BPF_PROG_TYPE_XDP).
    Xdp = 6,
}

/// Where a program sits on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// XDP.
    Xdp = 37,
    /// Traffic control, what comes in. Linux 6.6.
    TcxIngress = 46,
    /// Traffic control, what goes out. Linux 6.6.
    TcxEgress = 47,
}

/// A program that the kernel did not take.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// bpf(2) said no. The verifier's last words, if it has said any.
    #[error("the kernel refuses the eBPF program {name}: {error}{}{log}", if log.is_empty() { "" } else { "; " })]
    Refused {
        /// Name of the program.
        name: &'static str,
        /// EPERM: CAP_BPF and CAP_NET_ADMIN are missing, or locked down. EACCES, EINVAL: the verifier found fault with it, or this
        /// kernel is too old for it.
        error: io::Error,
        /// The end of what the verifier wrote.
        log: String,
    },
    /// A jump leads nowhere.
    #[error("the eBPF program {0} has a jump that leads nowhere")]
    Unfinished(&'static str),
}

impl From<LoadError> for io::Error {
    fn from(error: LoadError) -> io::Error {
        let kind = match &error {
            LoadError::Refused { error, .. } => error.kind(),
            LoadError::Unfinished(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// A program in the kernel.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// A program at work on a device, until this is dropped.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LoadAttr {
    kind: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach: u32,
}

/// For BPF_LINK_CREATE.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkAttr {
    program: u32,
    ifindex: u32,
    hook: u32,
    flags: u32,
    /// Of traffic control: before which other program, and in which generation of them; 0: any.
    relative: [u32; 4],
}

impl Program {
    /// Loads `code` for `hook`. `name` (15 bytes at most) is what `bpftool` shows.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(
        kind: ProgramKind,
        hook: Hook,
        name: &'static str,
        code: Assembler,
    ) -> Result<Program, LoadError> {
        let insns = code.finish().ok_or(LoadError::Unfinished(name))?;
        match Program::submit(kind, hook, name, &insns, &mut []) {
            Ok(program) => Ok(program),
            Err(error) => {
                // once more for the log: to ask for it each time would cost more than it is worth
                let mut log = vec![0; LOG];
                match Program::submit(kind, hook, name, &insns, &mut log) {
                    Ok(program) => Ok(program),
                    Err(_) => Err(LoadError::Refused { name, error, log: tail(&log) }),
                }
            }
        }
    }

    fn submit(
        kind: ProgramKind,
        hook: Hook,
        name: &str,
        insns: &[Insn],
        log: &mut [u8],
    ) -> io::Result<Program> {
        let attr = LoadAttr {
            kind: kind as u32,
            insn_count: insns.len() as u32,
            insns: insns.as_ptr() as u64,
            // some of the kernel's functions are for those alone who say that they are GPL-compatible; the MIT licence is
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: 0,
            name: object_name(name),
            ifindex: 0,
            attach: hook as u32,
        };
        // SAFETY: instructions, licence and log are borrowed for the length of the call, with their own lengths beside them.
        unsafe { call_for_fd(PROG_LOAD, &attr) }.map(Program)
    }

    /// Attaches it to the device with that index, in the calling thread's network namespace; in traffic control before those that
    /// are there, any of which may end the chain.
    ///
    /// # Errors
    /// ENODEV: no such device. EBUSY: XDP, and another program is there. EINVAL: this kernel does not know the hook
    /// (traffic control: before 6.6).
    pub fn attach(&self, hook: Hook, ifindex: u32) -> io::Result<Link> {
        self.link(hook, ifindex, if hook == Hook::Xdp { 0 } else { BPF_F_BEFORE })
    }

    /// Attaches it as XDP in the device's driver, where packets come before the kernel has joined them.
    ///
    /// # Errors
    /// As [`Program::attach`]. EOPNOTSUPP, EINVAL and others: the driver knows no XDP, or not at this MTU or with these queues.
    pub fn attach_in_driver(&self, ifindex: u32) -> io::Result<Link> {
        self.link(Hook::Xdp, ifindex, XDP_FLAGS_DRV_MODE)
    }

    fn link(&self, hook: Hook, ifindex: u32, flags: u32) -> io::Result<Link> {
        let program = self.0.as_raw_fd() as u32;
        let attr = LinkAttr { program, ifindex, hook: hook as u32, flags, relative: [0; 4] };
        // SAFETY: nothing but numbers in it.
        unsafe { call_for_fd(LINK_CREATE, &attr) }.map(Link)
    }

    /// Runs it once over `frame`: what it gives back, and what has become of the frame.
    ///
    /// # Errors
    /// What the kernel says.
    #[cfg(test)]
    pub fn test_run(&self, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 512];
        let mut attr = TestAttr {
            program: self.0.as_raw_fd() as u32,
            result: 0,
            in_len: frame.len() as u32,
            out_len: out.len() as u32,
            input: frame.as_ptr() as u64,
            output: out.as_mut_ptr() as u64,
            repeat: 1,
            rest: [0; 11],
        };
        // SAFETY: both buffers outlive the call and have the lengths that stand beside them.
        check_long(unsafe { bpf(PROG_TEST_RUN, attr.as_mut_bytes()) })?;
        out.truncate(attr.out_len as usize);
        Ok((attr.result, out))
    }
}

/// How many programs are at work at a hook of a device.
#[cfg(test)]
pub fn attached(hook: Hook, ifindex: u32) -> io::Result<u32> {
    const PROG_QUERY: c_int = 16;
    // the number comes in the seventh place
    let mut attr = [ifindex, hook as u32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: nothing but numbers in it; where the programs' own numbers would go is null.
    check_long(unsafe { bpf(PROG_QUERY, attr.as_mut_bytes()) })?;
    Ok(attr[6])
}

#[cfg(test)]
#[derive(IntoBytes, zerocopy::FromBytes)]
#[repr(C)]
struct TestAttr {
    program: u32,
    result: u32,
    in_len: u32,
    out_len: u32,
    input: u64,
    output: u64,
    repeat: u32,
    rest: [u32; 11],
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `bpf(2)`.
///
/// # Safety
/// Every address in `attr` must be valid for what `command` does there, for the length of the call.
unsafe fn bpf(command: c_int, attr: &mut [u8]) -> libc::c_long {
    let (attr, len) = (attr.as_mut_ptr(), attr.len() as c_uint);
    // SAFETY: the kernel reads and writes `len` bytes at `attr`, which are borrowed; for the rest see above.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr, len) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `bpf(2)` with a command that makes a descriptor, which is closed on exec.
///
/// # Safety
/// As [`bpf`].
unsafe fn call_for_fd<T: IntoBytes + Immutable>(command: c_int, attr: &T) -> io::Result<OwnedFd> {
    let mut bytes = [0; 128];
    let attr = attr.as_bytes();
    let bytes = bytes.get_mut(..attr.len()).ok_or(io::ErrorKind::InvalidInput)?;
    bytes.copy_from_slice(attr);
    // SAFETY: the caller's promise.
    let fd = check_long(unsafe { bpf(command, bytes) })?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// A name as the kernel keeps it: 15 bytes, and a NUL.
fn object_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// The last lines of a verifier's log, in one.
fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or(&[]));
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or(&[]).join(" | ")
}

#[cfg(test)]
mod tests;
