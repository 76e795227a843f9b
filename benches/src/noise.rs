//! How quiet the machine is: what others use of it, what the hypervisor takes away, how fast it is just now.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// CPU time of the whole machine and of processes, in seconds, at one moment.
#[derive(Debug, Clone)]
pub struct Moment {
    at: Instant,
    busy: f64,
    steal: f64,
    others: f64,
    switches: f64,
}

/// What passed between two moments.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds that all cores spent working (iperf3, kernel and others included).
    pub busy: f64,
    /// CPU seconds that the hypervisor gave to somebody else.
    pub steal: f64,
    /// CPU seconds of processes that are no part of the benchmark.
    pub others: f64,
    /// CPU seconds of the switch processes of both hosts.
    pub switches: f64,
}

impl Moment {
    /// Now; `switches` are process ids.
    pub fn now(switches: &[u32]) -> Moment {
        let tick = tick();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cpu: Vec<f64> = stat.lines().next().unwrap_or_default().split(' ').flat_map(str::parse).collect();
        let at = |i: usize| cpu.get(i).copied().unwrap_or(0.0) * tick;
        let processes = Processes::read(tick);
        Moment {
            at: Instant::now(),
            busy: at(0) + at(1) + at(2) + at(5) + at(6), // user, nice, system, irq, softirq
            steal: at(7),
            others: processes.others(std::process::id()),
            switches: switches.iter().map(|p| processes.own(*p)).sum(),
        }
    }

    /// What passed from `self` to `later`.
    pub fn until(&self, later: &Moment) -> Usage {
        Usage {
            seconds: (later.at - self.at).as_secs_f64(),
            busy: later.busy - self.busy,
            steal: later.steal - self.steal,
            others: (later.others - self.others).max(0.0),
            switches: later.switches - self.switches,
        }
    }
}

/// Waits until other processes use less than a tenth of a core, for at most `limit`.
pub fn wait_for_quiet(limit: Duration) {
    let end = Instant::now() + limit;
    while Instant::now() < end && !crate::interrupted() {
        let before = Moment::now(&[]);
        std::thread::sleep(Duration::from_millis(500));
        let used = before.until(&Moment::now(&[]));
        if used.others < 0.1 * used.seconds {
            break;
        }
    }
}

/// What processes take that have nothing to do: the most of any one of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Idle {
    /// Cores.
    pub cores: f64,
    /// Memory in 10^6 bytes.
    pub resident_mb: f64,
}

/// Looks at `switches` for [`IDLE`], after a moment to calm down.
pub fn idle(switches: &[u32]) -> Result<Idle> {
    std::thread::sleep(Duration::from_millis(300));
    let before = run_times(switches)?;
    let start = Instant::now();
    while start.elapsed() < IDLE && !crate::interrupted() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut most = Idle { cores: 0.0, resident_mb: 0.0 };
    for (pid, before) in switches.iter().zip(before) {
        most.cores = most.cores.max((run_time(*pid)? - before) / seconds);
        most.resident_mb = most.resident_mb.max(resident_mb(*pid)?);
    }
    Ok(most)
}

const IDLE: Duration = Duration::from_secs(2);

/// Seconds that the threads of a process have run, to the nanosecond: a clock tick would be too coarse.
pub fn run_time(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// [`run_time`] of each.
pub fn run_times(pids: &[u32]) -> Result<Vec<f64>> {
    pids.iter().map(|pid| run_time(*pid)).collect()
}

/// Memory of a process that is in RAM, in 10^6 bytes.
pub fn resident_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("process {pid} has no VmRSS"))? * 1024.0 / 1e6)
}

/// Milliseconds that a fixed load takes on one core. It varies with what else the machine is doing, so it tells whether
/// two runs may be compared.
pub fn calibrate() -> f64 {
    let start = Instant::now();
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000_000 {
        x = black_box(x.rotate_left(5) ^ 0x517c_c1b7_2722_0a95).wrapping_mul(0x2545_f491_4f6c_dd1d);
    }
    black_box(x);
    start.elapsed().as_secs_f64() * 1e3
}

/// Seconds of one clock tick of /proc.
fn tick() -> f64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    1.0 / per_second as f64
}

struct Process {
    parent: u32,
    /// Its own CPU seconds.
    own: f64,
    /// Those of its children that ended.
    children: f64,
}

struct Processes(HashMap<u32, Process>);

impl Processes {
    fn read(tick: f64) -> Processes {
        let Ok(dir) = fs::read_dir("/proc") else { return Processes(HashMap::new()) };
        let pids = dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        Processes(pids.filter_map(|pid| Some((pid, Process::read(pid, tick)?))).collect())
    }

    fn own(&self, pid: u32) -> f64 {
        self.0.get(&pid).map_or(0.0, |p| p.own)
    }

    /// CPU seconds of everything but kernel threads and the family of `us`. Children that ended count with whoever
    /// waited for them, so that the sum never falls.
    fn others(&self, us: u32) -> f64 {
        const KTHREADD: u32 = 2;
        let foreign = |pid: &u32| !self.descends(*pid, KTHREADD) && !self.descends(*pid, us);
        self.0.iter().filter(|(pid, _)| foreign(pid)).map(|(_, p)| p.own + p.children).sum()
    }

    fn descends(&self, mut pid: u32, from: u32) -> bool {
        for _ in 0..64 {
            if pid == from {
                return true;
            }
            match self.0.get(&pid) {
                Some(p) => pid = p.parent,
                None => return false,
            }
        }
        false
    }
}

impl Process {
    fn read(pid: u32, tick: f64) -> Option<Process> {
        Process::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, tick)
    }

    /// proc_pid_stat(5); the name in parentheses may hold anything, so fields are counted from its end.
    fn parse(stat: &str, tick: f64) -> Option<Process> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |i: usize| Some(fields.get(i)?.parse::<f64>().ok()? * tick);
        Some(Process {
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(11)? + seconds(12)?,
            children: seconds(13)? + seconds(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_stat_whatever_the_name() {
        let p = Process::parse("42 (a) S (b)) S 7 1 1 0 -1 0 0 0 0 0 100 50 20 10 20 0", 0.01).unwrap();
        assert_eq!(p.parent, 7);
        assert!((p.own - 1.5).abs() < 1e-9, "{}", p.own);
        assert!((p.children - 0.3).abs() < 1e-9, "{}", p.children);
        assert!(Process::parse("42 (a) S 7", 0.01).is_none());
        assert!(Process::parse("", 0.01).is_none());
    }

    #[test]
    fn others_are_neither_kernel_threads_nor_family() {
        let p = |parent, own| Process { parent, own, children: 0.5 };
        let all = Processes(HashMap::from([
            (1, p(0, 1.0)),
            (2, p(0, 100.0)),
            (3, p(2, 100.0)),
            (10, p(1, 100.0)),
            (11, p(10, 100.0)),
            (20, p(1, 2.0)),
        ]));
        assert!((all.others(10) - 4.0).abs() < 1e-9);
        assert!((all.own(20) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_runs_and_has_memory() {
        let me = std::process::id();
        let before = run_time(me).unwrap();
        calibrate();
        assert!(run_time(me).unwrap() > before);
        assert!(resident_mb(me).unwrap() > 0.5);
        assert!(run_time(u32::MAX).is_err());
    }

    #[test]
    fn time_passes_for_this_very_process() {
        let me = std::process::id();
        let before = Moment::now(&[me]);
        let spent = (0..1000).any(|_| {
            calibrate();
            before.until(&Moment::now(&[me])).switches >= 0.03
        });
        assert!(spent);
    }
}
