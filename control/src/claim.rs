//! What a running daemon holds in the file system, so that there is one of it and so that tools find it: pid files and
//! sockets. All of it is removed when the daemon ends in an orderly way; after a crash the next
//! one takes it over.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::pidfile::{self, PidFile};
use crate::rundir::{self, MONITOR_IPSEC, OVSDB_SERVER, RunDir, VSWITCHD};

/// Why a place cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory cannot be made.
    #[error("cannot make the run directory {}: {source}", path.display())]
    RunDir {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(transparent)]
    PidFile(#[from] pidfile::Error),
    /// Somebody answers on our socket.
    #[error("another process listens on {}: stop it, or choose another directory with --rundir", .0.display())]
    SocketBusy(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How long a process that was killed may take to vanish.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Tries until it succeeds or fails for another reason than that somebody holds the thing. A killed process gives up
/// locks and sockets one after the other, and its successor may come sooner than that: only who still holds one after
/// a moment is alive.
pub fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>, held: impl Fn(&E) -> bool) -> Result<T, E> {
    let until = Instant::now() + LAST_BREATH;
    loop {
        match attempt() {
            Err(e) if held(&e) && Instant::now() < until => std::thread::sleep(LAST_BREATH / 50),
            outcome => return outcome,
        }
    }
}

/// The pid files of a daemon.
#[derive(Debug)]
pub struct Pids {
    _vswitchd: PidFile,
    _ovsdb_server: PidFile,
    _monitor_ipsec: Option<PidFile>,
    _extra: Option<PidFile>,
}

impl Pids {
    /// Makes the run directory ours. `extra` is a pid file that the operator wants besides.
    pub fn claim(rundir: &RunDir, extra: Option<&Path>) -> Result<Pids, Error> {
        rundir.create().map_err(|source| Error::RunDir { path: rundir.path().into(), source })?;
        let create = |path: PathBuf| {
            patiently(|| PidFile::create(path.clone()), |e| matches!(e, pidfile::Error::Busy { .. }))
        };
        let vswitchd = create(rundir.pidfile(VSWITCHD))?;
        let ovsdb_server = create(rundir.pidfile(OVSDB_SERVER))?;
        let monitor_ipsec = match create(rundir.pidfile(MONITOR_IPSEC)) {
            Ok(pid) => Some(pid),
            // The switch can do without, and what IPsec lacks then its tunnels say
            Err(e @ pidfile::Error::Busy { .. }) => {
                tracing::warn!("{e}; until then `ovs-appctl -t {MONITOR_IPSEC}` asks that process");
                None
            }
            Err(e) => return Err(e.into()),
        };
        remove_dead_sockets(rundir.path());
        // The same file under two names would lose its lock with the second descriptor.
        let ours = [Some(&vswitchd), Some(&ovsdb_server), monitor_ipsec.as_ref()];
        let known: Vec<&Path> = ours.into_iter().flatten().map(PidFile::path).collect();
        let extra = match extra {
            Some(path) if !known.iter().any(|k| same_file(k, path)) => Some(create(path.into())?),
            _ => None,
        };
        Ok(Pids {
            _vswitchd: vswitchd,
            _ovsdb_server: ovsdb_server,
            _monitor_ipsec: monitor_ipsec,
            _extra: extra,
        })
    }
}

/// Removes the command and OpenFlow sockets of killed daemons. We hold the pid files, so none of them belongs to a living one.
fn remove_dead_sockets(rundir: &Path) {
    let entries = std::fs::read_dir(rundir).into_iter().flatten().flatten();
    let dead = |name: &str| is_command_socket(name) || name.ends_with(".mgmt") || name.ends_with(".snoop");
    for entry in entries.filter(|e| e.file_name().to_str().is_some_and(dead) && is_socket(&e.path())) {
        let _ = std::fs::remove_file(entry.path());
    }
}

fn is_command_socket(name: &str) -> bool {
    let pid = [VSWITCHD, OVSDB_SERVER, MONITOR_IPSEC]
        .iter()
        .find_map(|target| name.strip_prefix(target)?.strip_prefix('.')?.strip_suffix(".ctl"));
    pid.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A listening socket's name. Dropping it removes the socket from the file system.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Listens on `path`. What a dead process left there is replaced; a socket that is answered is not.
    pub fn listen(path: PathBuf) -> Result<(tokio::net::UnixListener, SocketFile), Error> {
        let why = patiently(|| unanswered(&path), |_| true)?;
        SocketFile::replace(path, &why)
    }

    /// The same, without waiting for a process that may be about to end.
    pub fn listen_at_once(path: PathBuf) -> Result<(tokio::net::UnixListener, SocketFile), Error> {
        let why = unanswered(&path)?;
        SocketFile::replace(path, &why)
    }

    fn replace(path: PathBuf, why: &std::io::Error) -> Result<(tokio::net::UnixListener, SocketFile), Error> {
        if why.kind() == ErrorKind::ConnectionRefused && is_socket(&path) {
            let _ = std::fs::remove_file(&path);
        }
        let listener = UnixListener::bind(&path).and_then(|listener| {
            rundir::restrict(&path)?;
            listener.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(listener)
        });
        match listener {
            Ok(listener) => Ok((listener, SocketFile(path))),
            Err(source) => Err(Error::Socket { path, source }),
        }
    }
}

/// How a connection to the socket fails, if it does.
fn unanswered(path: &Path) -> Result<std::io::Error, Error> {
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::SocketBusy(path.to_owned())),
        Err(why) => Ok(why),
    }
}

/// A connection to a file of another kind is refused, too.
fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn sockets() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sock");

        let (listener, file) = SocketFile::listen(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(matches!(SocketFile::listen(path.clone()), Err(Error::SocketBusy(_))));
        drop(listener);
        std::mem::forget(file); // as if killed
        assert!(path.exists());
        let (_listener, file) = SocketFile::listen(path.clone()).unwrap();
        drop(file);
        assert!(!path.exists());

        std::fs::write(&path, "no socket").unwrap();
        assert!(SocketFile::listen(path.clone()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"no socket", "not ours to remove");
    }

    #[test]
    fn command_sockets_by_name() {
        for name in ["ovs-vswitchd.1.ctl", "ovsdb-server.4194304.ctl", "ovs-monitor-ipsec.7.ctl"] {
            assert!(is_command_socket(name), "{name}");
        }
        for name in
            ["ovs-vswitchd.ctl", "ovs-vswitchd..ctl", "ovs-vswitchd.x.ctl", "ovs-ofctl.1.ctl", "db.sock"]
        {
            assert!(!is_command_socket(name), "{name}");
        }
    }

    #[test]
    fn a_pid_file_of_the_same_name_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = RunDir::new(dir.path().join("run")).unwrap();
        let same = dir.path().join("run/../run/ovs-vswitchd.pid");
        let pids = Pids::claim(&rundir, Some(&same)).unwrap();
        assert!(pids._extra.is_none());
        drop(pids);
        let pids = Pids::claim(&rundir, Some(&dir.path().join("other.pid"))).unwrap();
        assert!(dir.path().join("other.pid").exists());
        drop(pids);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the run directory is left");
        assert_eq!(std::fs::read_dir(rundir.path()).unwrap().count(), 0);
    }
}
