//! A network namespace that is there as long as its value is, and running code inside.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, run};

/// Where namespaces have their names.
pub const DIR: &str = "/run/netns";

/// A named network namespace (as `ip netns` makes them). Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes it; the loopback device is up and IPv6 off, so that no neighbour discovery disturbs an idle measurement.
    pub fn add(name: String) -> Result<Netns> {
        run("ip", &["netns", "add", &name])?;
        let ns = Netns { name };
        ns.enter(|| {
            for which in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1")?;
            }
            run("ip", &["link", "set", "lo", "up"])
        })?;
        Ok(ns)
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread that is inside. Sockets that it opens and processes that it starts stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new(DIR).join(&self.name);
        std::thread::scope(|s| {
            s.spawn(|| {
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))?;
                f()
            })
            .join()
            .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Runs `program` inside to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        self.enter(|| run(program, args))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Ends what runs in the namespace `name`, and removes it.
pub fn remove(name: &str) {
    if let Ok(pids) = process::output("ip", &["netns", "pids", name]) {
        for pid in pids.split_whitespace().filter_map(|p| p.parse().ok()) {
            process::kill(pid);
        }
    }
    if let Err(e) = run("ip", &["netns", "del", name]) {
        eprintln!("could not remove the namespace {name}: {e:#}");
    }
}
