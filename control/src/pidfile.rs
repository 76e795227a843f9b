//! A pid file that is also a lock. `ovs-appctl` trusts a pid file only while the process that it names holds a POSIX
//! record lock on it, so the lock lasts as long as the [`PidFile`], and a file without one is a dead process's.
//!
//! POSIX locks belong to the process and fall with *any* of its descriptors for the file: nothing else in this
//! process may open it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody alive has it.
    #[error("{} is held by process {owner}, which is running: stop it, or choose another directory with --rundir", path.display())]
    Busy {
        /// The pid file.
        path: PathBuf,
        /// Its pid.
        owner: Owner,
    },
    /// The file system refuses.
    #[error("cannot write the pid file {}: {source}", path.display())]
    Io {
        /// The pid file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The process that holds a lock, as far as we can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(Option<i32>);

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "{pid}"),
            None => f.write_str("(of another pid namespace)"),
        }
    }
}

/// A locked pid file. Dropping it removes the file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Locks `path` and writes this process's pid to it. A file that a dead process left is taken over.
    pub fn create(path: PathBuf) -> Result<PidFile, Error> {
        match lock(&path) {
            Ok(Ok(file)) => {
                let written = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
                let pidfile = PidFile { path, _locked: file };
                written.map_err(|source| Error::Io { path: pidfile.path.clone(), source })?;
                Ok(pidfile)
            }
            Ok(Err(owner)) => Err(Error::Busy { path, owner }),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While the lock is still held, so that this is surely our file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who holds the lock on `path`, if anybody does. Must not be asked of a file that this process holds.
pub fn holder(path: &Path) -> Option<Owner> {
    File::open(path).ok().and_then(|f| conflicting(&f))
}

/// Opens and locks a file, making it if need be. The inner error names who holds it.
pub fn lock(path: &Path) -> io::Result<Result<File, Owner>> {
    // An owner that is just leaving unlinks the file between our open and our lock: then we hold a lock on nothing
    // and must open again. Each turn means that another process came and went, so a few are plenty.
    for _ in 0..8 {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, path)? => return Ok(Ok(file)),
            Ok(()) => continue,
            Err(Errno::AGAIN | Errno::ACCESS) => match conflicting(&file) {
                Some(owner) => return Ok(Err(owner)),
                None => continue,
            },
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other("it keeps changing hands"))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn conflicting(file: &File) -> Option<Owner> {
    let held = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok()??;
    Some(Owner(held.pid.map(|p| p.as_raw_nonzero().get()).filter(|p| *p > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};

    /// A second process that takes the lock and holds it until its stdin closes: this test binary once more, at the
    /// ignored test below.
    fn other_process(path: &Path) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pidfile::tests::hold", "--ignored", "--nocapture"])
            .env("HOLD_PIDFILE", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.as_mut().unwrap());
        assert!(out.lines().any(|l| l.unwrap().contains("holding")));
        child
    }

    #[test]
    #[ignore = "the second process of the tests below"]
    fn hold() {
        let Some(path) = std::env::var_os("HOLD_PIDFILE") else { return };
        let held = PidFile::create(path.into()).unwrap();
        println!("holding");
        let _ = io::stdin().read(&mut [0]);
        drop(held);
    }

    #[test]
    fn written_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        std::fs::write(&path, "99999999 and what a dead process left").unwrap();
        let held = PidFile::create(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), format!("{}\n", std::process::id()).len() as u64);
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_running_owner_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let mut other = other_process(&path);
        let refused = PidFile::create(path.clone()).unwrap_err();
        assert!(refused.to_string().contains(&format!("process {},", other.id())), "{refused}");
        assert!(holder(&path).is_some());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", other.id()), "left alone");
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
        assert!(!path.exists());
        assert!(PidFile::create(path).is_ok());
    }

    #[test]
    fn a_killed_owner_is_succeeded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let mut other = other_process(&path);
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(path.exists());
        assert!(holder(&path).is_none());
        assert!(PidFile::create(path).is_ok());
    }

    #[test]
    fn no_directory() {
        let e = PidFile::create("/nonexistent/x.pid".into()).unwrap_err();
        assert!(
            e.to_string().starts_with("cannot write the pid file /nonexistent/x.pid: No such file"),
            "{e}"
        );
    }
}
