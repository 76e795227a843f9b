//! System calls for each frame in bulk TCP, by strace. A step of its own, for strace slows what it looks at.

use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::measure;
use crate::peers::Peer;
use crate::process::Job;
use crate::topo::{Host, Topology};
use crate::{iperf, netns::Netns};

/// How long strace looks on, in the middle of a TCP transfer.
const LOOK: Duration = Duration::from_secs(1);

/// What was counted on both hosts.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Syscalls {
    /// System calls of the switches.
    pub calls: u64,
    /// Packets that crossed the underlay devices, as each host sees them.
    pub frames: u64,
}

impl Syscalls {
    /// Calls for one frame through one switch.
    pub fn per_frame(&self) -> f64 {
        self.calls as f64 / self.frames.max(1) as f64
    }
}

/// Joins two hosts by `peer`, and counts.
pub fn count(peer: &dyn Peer) -> Result<Syscalls> {
    measure::in_temporary_directory(|dir| {
        let hosts = Topology::new(peer.container_mtu())?;
        let running = peer.join(&hosts, dir)?;
        measure::wait_for_ping(&hosts)?;
        let switches: Vec<u32> = running.switches.iter().map(|j| j.pid()).collect();
        thread::scope(|s| {
            let transfer = s.spawn(|| iperf::tcp(&hosts, 4, &[], &switches));
            sleep(Duration::from_millis(1500));
            let counted = watch(&hosts, &switches, dir);
            let transfer = transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))?;
            transfer.context("the transfer")?;
            counted
        })
    })
}

fn watch(hosts: &Topology, switches: &[u32], dir: &Path) -> Result<Syscalls> {
    let mut traces = Vec::new();
    for pid in switches {
        let summary = dir.join(format!("strace.{pid}"));
        let mut strace = Command::new("strace");
        strace.args(["-c", "-f", "-p", &pid.to_string(), "-o"]).arg(&summary);
        traces.push((Job::start(&mut strace, &dir.join("strace.log"))?, summary));
    }
    sleep(Duration::from_millis(300)); // until it has attached to every thread
    let before = frames(hosts)?;
    sleep(LOOK);
    let after = frames(hosts)?;
    let mut calls = 0;
    for (mut trace, summary) in traces {
        // strace prints its table when it is interrupted
        kill(Pid::from_raw(trace.pid() as i32), Signal::SIGINT)?;
        trace.wait_for_end()?;
        let text = std::fs::read_to_string(&summary).context("strace wrote nothing")?;
        calls += total(&text).with_context(|| format!("strace printed no total: {text}"))?;
    }
    // strace counted a little longer than the devices were looked at
    let longer = (LOOK + Duration::from_millis(300)).as_secs_f64() / LOOK.as_secs_f64();
    Ok(Syscalls { calls, frames: ((after - before) as f64 * longer) as u64 })
}

/// The number of calls in the last line of strace's table.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().rfind(|l| l.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Packets that the underlay devices of both hosts have sent and received.
fn frames(hosts: &Topology) -> Result<u64> {
    let of = |h: &Host| {
        let (received, sent) = device_packets(&h.ns, "u0")?;
        Ok::<u64, anyhow::Error>(received + sent)
    };
    Ok(of(&hosts.a)? + of(&hosts.b)?)
}

/// Packets that a device has received and sent.
pub fn device_packets(ns: &Netns, dev: &str) -> Result<(u64, u64)> {
    let text = ns.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    packets(&text, dev).with_context(|| format!("no counters of {dev}"))
}

fn packets(proc_net_dev: &str, dev: &str) -> Option<(u64, u64)> {
    let counters = proc_net_dev.lines().find_map(|l| l.trim().strip_prefix(dev)?.strip_prefix(':'))?;
    let field = |i: usize| counters.split_whitespace().nth(i)?.parse().ok();
    Some((field(1)?, field(9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_straces_table() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                      60.00    0.001000           5       200        12 recvmmsg\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.012345           5      2345        12 total\n";
        assert_eq!((total(table), total("")), (Some(2345), None));
    }

    #[test]
    fn reads_proc_net_dev() {
        let text = "Inter-|   Receive\n face |bytes packets\n  u0: 10 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n u01: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        assert_eq!((packets(text, "u0"), packets(text, "u")), (Some((2, 4)), None));
    }
}
