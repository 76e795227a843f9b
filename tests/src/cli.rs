//! Running programs: a command line in, status and text out; and waiting by polling.

use std::fmt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Clone)]
pub struct Out {
    /// The command, to be read in a failure.
    pub line: String,
    /// Exit status; 128 + signal when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Out {
    fn new(line: String, out: Output) -> Out {
        use std::os::unix::process::ExitStatusExt;
        let code = out.status.code().unwrap_or_else(|| 128 + out.status.signal().unwrap_or(0));
        Out {
            line,
            code,
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output of a program that must succeed, without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success(), "{self:?}");
        self.stdout.trim_end().to_owned()
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {}\nstdout: {}\nstderr: {}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// The command as one line.
pub fn line(cmd: &Command) -> String {
    std::iter::once(cmd.get_program())
        .chain(cmd.get_args())
        .map(|s| s.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end, whatever its status.
#[track_caller]
pub fn output(cmd: &mut Command) -> Out {
    let text = line(cmd);
    match cmd.stdin(Stdio::null()).output() {
        Ok(o) => Out::new(text, o),
        Err(e) => panic!("cannot run `{text}`: {e}"),
    }
}

/// Runs a command that must succeed; gives its standard output.
#[track_caller]
pub fn run(cmd: &mut Command) -> String {
    output(cmd).ok()
}

/// `program`, to be killed when the test's thread ends, however it ends. The pid stays the program's own.
pub fn bound(program: &str) -> Command {
    let mut c = Command::new("setpriv");
    c.args(["--pdeathsig", "KILL", program]);
    c
}

/// How long anything may take that happens by itself: many times what it does, for a machine that has much else to do.
pub const LATEST: Duration = Duration::from_secs(40);

/// Waits for `done` to give Some, at most [`LATEST`]; panics with `what` after that.
#[track_caller]
pub fn poll<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    poll_within(LATEST, what, done)
}

/// Waits for `done` to give Some, at most `limit`; panics with `what` after that.
#[track_caller]
pub fn poll_within<T>(limit: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(t) = done() {
            return t;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of this package, which cargo builds beside the tests.
pub fn helper(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("our own path");
    me.parent().and_then(|deps| deps.parent()).expect("a target directory").join(name)
}

/// Sends a signal ("TERM", "KILL", …) to one process.
pub fn signal(pid: u32, name: &str) {
    run(Command::new("kill").args(["-s", name, &pid.to_string()]));
}

/// Waits for a child's end, at most `limit`. None: it still runs.
pub fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            _ => return None,
        }
    }
}
