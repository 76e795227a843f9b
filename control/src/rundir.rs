//! Where things are: the run directory with its well-known names, the database, the log. The same defaults and
//! environment variables as Open vSwitch has, so that its tools find us.

use std::env;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The names that `ovs-appctl -t` knows and we answer to.
pub const VSWITCHD: &str = "ovs-vswitchd";
/// `ovs-appctl -t ovsdb-server`, and what `ovs-ctl` looks for.
pub const OVSDB_SERVER: &str = "ovsdb-server";

/// `ovs-appctl -t ovs-monitor-ipsec`: Open vSwitch has IPsec in a daemon of its own.
pub const MONITOR_IPSEC: &str = "ovs-monitor-ipsec";

/// `$OVS_RUNDIR`, or `/var/run/openvswitch`.
pub fn default_rundir() -> PathBuf {
    from_env("OVS_RUNDIR").unwrap_or_else(|| "/var/run/openvswitch".into())
}

/// `$OVS_LOGDIR`, or `/var/log/openvswitch`.
pub fn default_logdir() -> PathBuf {
    from_env("OVS_LOGDIR").unwrap_or_else(|| "/var/log/openvswitch".into())
}

/// `$OVS_DBDIR/conf.db`, or `$OVS_SYSCONFDIR/openvswitch/conf.db`, or `/etc/openvswitch/conf.db`.
pub fn default_db() -> PathBuf {
    from_env("OVS_DBDIR")
        .or_else(|| from_env("OVS_SYSCONFDIR").map(|d| d.join("openvswitch")))
        .unwrap_or_else(|| "/etc/openvswitch".into())
        .join("conf.db")
}

fn from_env(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// A run directory.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// A relative path is taken from where we are now, so that a later change of directory does not matter.
    pub fn new(path: impl AsRef<Path>) -> io::Result<RunDir> {
        Ok(RunDir(std::path::absolute(path)?))
    }

    /// Makes the directory if it is not there, with its parents.
    pub fn create(&self) -> io::Result<()> {
        create_dir(&self.0)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket that `ovs-vsctl` speaks to.
    pub fn db_sock(&self) -> PathBuf {
        self.0.join("db.sock")
    }

    /// The file that says which process `target` is.
    pub fn pidfile(&self, target: &str) -> PathBuf {
        self.0.join(format!("{target}.pid"))
    }

    /// The socket that `ovs-appctl -t target` speaks to.
    pub fn ctl(&self, target: &str, pid: u32) -> PathBuf {
        self.0.join(format!("{target}.{pid}.ctl"))
    }
}

/// Makes a directory with mode 0755, and its parents, unless it is there.
pub fn create_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Gives a socket the mode that Open vSwitch gives its own: the owner and the group may use it.
pub fn restrict(socket: &Path) -> io::Result<()> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o750))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let r = RunDir::new("/run/x").unwrap();
        assert_eq!(r.db_sock(), Path::new("/run/x/db.sock"));
        assert_eq!(r.pidfile(VSWITCHD), Path::new("/run/x/ovs-vswitchd.pid"));
        assert_eq!(r.ctl(OVSDB_SERVER, 7), Path::new("/run/x/ovsdb-server.7.ctl"));
        assert!(RunDir::new("sub").unwrap().path().is_absolute());
    }
}
