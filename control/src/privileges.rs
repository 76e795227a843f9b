//! What the kernel must let us do, checked before anything is touched so that the message can say what is missing.

use std::fs::OpenOptions;
use std::io;

/// Why we cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some capabilities are not in force.
    #[error("missing {}. Run as root, or grant what is missing: \
             setcap {}+ep {program}, or in a systemd unit AmbientCapabilities={}",
            describe(.missing), setcap(.missing), .missing.iter().map(|c| c.name).collect::<Vec<_>>().join(" "))]
    Capabilities {
        /// Those.
        missing: Vec<Capability>,
        /// The file to which `setcap` would give them.
        program: String,
    },
    /// The TAP driver is not there.
    #[error(
        "cannot open /dev/net/tun, which bridges need for their local port: {0}. Load the driver (modprobe tun); \
             in a container pass --device /dev/net/tun"
    )]
    Tun(io::Error),
    /// Not a Linux that we know.
    #[error("cannot read this process's capabilities from /proc/self/status: {0}")]
    Unknown(String),
}

/// A capability that the daemon needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    name: &'static str,
    bit: u32,
    purpose: &'static str,
}

/// Numbers from capability.h.
const NEEDED: [Capability; 3] = [
    Capability { name: "CAP_NET_ADMIN", bit: 12, purpose: "make and configure devices" },
    Capability { name: "CAP_NET_RAW", bit: 13, purpose: "send and receive frames and GRE packets" },
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: 21,
        purpose: "join Linux bridges such as docker0 through a namespace",
    },
];

fn describe(missing: &[Capability]) -> String {
    let each: Vec<String> = missing.iter().map(|c| format!("{} (to {})", c.name, c.purpose)).collect();
    each.join(", ")
}

fn setcap(missing: &[Capability]) -> String {
    missing.iter().map(|c| c.name.to_ascii_lowercase()).collect::<Vec<_>>().join(",")
}

/// Checks everything, and names all that is missing at once.
pub fn check() -> Result<(), Error> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| Error::Unknown(e.to_string()))?;
    let effective = effective(&status).ok_or_else(|| Error::Unknown("no CapEff line".into()))?;
    let missing = missing(effective);
    if !missing.is_empty() {
        let program = std::env::current_exe().map_or("underpass".into(), |p| p.display().to_string());
        return Err(Error::Capabilities { missing, program });
    }
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(drop).map_err(Error::Tun)
}

/// Keeps what memory the process has, and will have, out of swap.
///
/// # Errors
/// It may not, or not as much as it may come to need: then nothing is locked, as a limit that is reached later would be the end.
pub fn lock_memory() -> io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Memlock);
    if let Some(bytes) = limit.current {
        let unlimited = Rlimit { current: None, maximum: None };
        setrlimit(Resource::Memlock, unlimited).map_err(|e| {
            io::Error::new(
                io::Error::from(e).kind(),
                format!("no more than {bytes} bytes may be locked (ulimit -l)"),
            )
        })?;
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<Capability> {
    NEEDED.iter().filter(|c| effective & (1 << c.bit) == 0).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"), Some(0x1ff_ffff_ffff));
        assert!(missing(0x1ff_ffff_ffff).is_empty());
        let missing = missing(0x1ff_ffff_ffff & !(1 << 13) & !(1 << 21));
        let text = Error::Capabilities { missing, program: "/usr/bin/underpass".into() }.to_string();
        assert!(text.starts_with("missing CAP_NET_RAW (to send"), "{text}");
        assert!(text.contains("setcap cap_net_raw,cap_sys_admin+ep /usr/bin/underpass"), "{text}");
        assert!(text.ends_with("AmbientCapabilities=CAP_NET_RAW CAP_SYS_ADMIN"), "{text}");
        assert!(!text.contains("NET_ADMIN"));
    }
}
