//! Underpass itself, run as an operator runs it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::{self, poll};
use crate::netns::Netns;

/// The binary under test: what UNDERPASS names, else the workspace's release build.
#[track_caller]
pub fn underpass() -> PathBuf {
    if let Some(path) = std::env::var_os("UNDERPASS") {
        return path.into();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("target");
    let path = target.join("release/underpass");
    let triple = std::fs::read_dir(&target)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("release/underpass"));
    let newest = std::iter::once(path)
        .chain(triple)
        .filter_map(|p| Some((p.metadata().ok()?.modified().ok()?, p)))
        .max_by_key(|(t, _)| *t);
    newest.expect("no underpass: run `cargo build --release` first, or name one in UNDERPASS").1
}

/// A running `underpass vswitchd`.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    rundir: PathBuf,
}

impl Daemon {
    /// The command that starts it in `ns` with everything it writes in `rundir`.
    pub fn command(ns: &Netns, rundir: &Path) -> Command {
        let mut c = ns.bound(underpass().to_str().expect("a path in UTF-8"));
        c.arg("vswitchd")
            .arg("--rundir")
            .arg(rundir)
            .arg("--db")
            .arg(rundir.join("conf.db"))
            .arg(format!("--log-file={}", rundir.join("log").display()))
            .stdin(Stdio::null());
        c
    }

    /// Starts it, with `args` added, and waits until its database answers.
    #[track_caller]
    pub fn start(ns: &Netns, rundir: &Path, args: &[&str]) -> Daemon {
        let err = std::fs::OpenOptions::new().create(true).append(true).open(rundir.join("stderr"));
        let child = Daemon::command(ns, rundir)
            .args(args)
            .stdout(Stdio::null())
            .stderr(err.expect("a file for its standard error"))
            .spawn()
            .expect("underpass starts");
        let mut daemon = Daemon { child, rundir: rundir.to_owned() };
        poll("the database socket", || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("underpass ended with {status}\n{}", daemon.log());
            }
            answers(&rundir.join("db.sock")).then_some(())
        });
        daemon
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    #[track_caller]
    pub fn kill9(mut self) {
        self.child.kill().expect("to kill it");
        self.child.wait().expect("its end");
    }

    /// SIGTERM; it must end within 10 s, with status 0.
    #[track_caller]
    pub fn stop(mut self) {
        cli::signal(self.child.id(), "TERM");
        let status = cli::wait(&mut self.child, Duration::from_secs(10));
        assert!(status.is_some_and(|s| s.success()), "SIGTERM: {status:?}\n{}", self.log());
    }

    /// The end of what it wrote.
    pub fn log(&self) -> String {
        format!("{}\n{}", tail(&self.rundir.join("log")), tail(&self.rundir.join("stderr")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- underpass in {}\n{}", self.rundir.display(), self.log());
        }
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Whether a JSON-RPC server answers an echo there.
pub fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut s = UnixStream::connect(socket)?;
        s.set_read_timeout(Some(Duration::from_secs(2)))?;
        s.write_all(br#"{"id":1,"method":"echo","params":[]}"#)?;
        let mut buf = [0; 256];
        Ok(s.read(&mut buf)? > 0)
    };
    ask().unwrap_or(false)
}
