//! Child processes: run to their end with a time limit, or in the background until dropped.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill as send_signal};
use nix::unistd::Pid;

use crate::interrupted;

const POLL: Duration = Duration::from_millis(10);

/// Runs a short command; its error text becomes the error.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    output(program, args).map(drop)
}

/// The same, returning what it printed.
pub fn output(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(if out.stderr.is_empty() { &out.stdout } else { &out.stderr });
        bail!("{program} {}: {} ({})", args.join(" "), said.trim(), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a command for at most `limit` and returns its standard output, whatever its exit status.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let mut job = Job::start_with(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let pipe = job.child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.map(|mut p| p.read_to_string(&mut text));
        text
    });
    let end = Instant::now() + limit;
    while job.child.try_wait()?.is_none() {
        if interrupted() {
            bail!("interrupted");
        }
        if Instant::now() > end {
            bail!("{} took longer than {} s", job.what, limit.as_secs());
        }
        sleep(POLL);
    }
    Ok(reader.join().unwrap_or_default())
}

/// A process in the background. Dropping it asks it to end, and after two seconds ends it.
#[derive(Debug)]
pub struct Job {
    child: Child,
    what: String,
}

impl Job {
    /// Starts it in the calling thread's network namespace; what it prints goes to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Job> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        Job::start_with(command.stderr(file.try_clone()?).stdout(file))
    }

    fn start_with(command: &mut Command) -> Result<Job> {
        let what = command.get_program().to_string_lossy().into_owned();
        // a process group of its own: Ctrl-C is for the harness, which ends its children in order
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        Ok(Job { child, what })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself, for at most five seconds.
    pub fn wait_for_end(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("{} does not end", self.what);
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits until `ready`, for at most ten seconds. Err when it ends before that.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}", self.what);
            }
            if interrupted() || Instant::now() > end {
                bail!("{}: waited in vain for {what}", self.what);
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = send_signal(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            sleep(POLL);
        }
    }
}

/// Ends a process that is not a child (one left by a run that was killed).
pub fn kill(pid: i32) {
    let _ = send_signal(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Where `program` is on PATH or in the directories of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
}
