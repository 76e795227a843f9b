//! `--detach`: the work is done by a second process in the background; the first waits until that one is ready, and
//! then leaves with its status.
//!
//! The second process is this program started afresh rather than a fork: nothing of a half-built state is carried
//! over, and no `unsafe` is needed. Its stdin is the write end of a pipe; a byte on it says "ready", its end without
//! one says "failed". Until then the two share stderr, so an error is shown where the command was typed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};

/// The hidden option by which the second process knows that it is one.
pub const READY_ON_STDIN: &str = "ready-on-stdin";

/// Runs `argv` again in the background and waits until it is ready or has failed. Returns what to exit with.
pub fn spawn(argv: &[OsString]) -> io::Result<ExitCode> {
    let (mut ready, at_child) = io::pipe()?;
    let (name, rest) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg0(name)
        .arg(format!("--{READY_ON_STDIN}"))
        .args(rest)
        .stdin(Stdio::from(at_child))
        .stdout(Stdio::null())
        .spawn()?;
    if said_ready(&mut ready)? {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    if let Some(signal) = status.signal() {
        eprintln!("underpass: the daemon was killed by signal {signal} while it started");
    }
    // Also a success without "ready" is none: nothing is running.
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).filter(|c| *c != 0).unwrap_or(1)))
}

fn said_ready(pipe: &mut PipeReader) -> io::Result<bool> {
    let mut byte = [0];
    loop {
        match pipe.read(&mut byte) {
            Ok(n) => return Ok(n == 1),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The second process's end of it. Dropped without [`Background::ready`], the first process sees a failure.
#[derive(Debug)]
pub struct Background {
    pipe: File,
}

impl Background {
    /// Takes the pipe from stdin and leaves the terminal. Call it before any thread is started.
    pub fn enter() -> io::Result<Background> {
        let pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
        // Fails only for a process group leader; as one, we have no controlling terminal to lose but its signals.
        let _ = rustix::process::setsid();
        Ok(Background { pipe })
    }

    /// Tells the first process that the service is there, and lets go of its stderr.
    pub fn ready(mut self) -> io::Result<()> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stderr(&null)?;
        // The first process may have been interrupted in the meantime; that does not concern us.
        match self.pipe.write_all(b"1") {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }
}
