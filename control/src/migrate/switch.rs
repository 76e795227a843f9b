//! Our own switch as a migration sees it: started, asked how its ports are, ended.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::{Value, json};

use super::programs::{self, OpenVswitch};
use crate::pidfile;
use crate::reconcile::options::TUNNELS;
use crate::rundir::{OVSDB_SERVER, RunDir, VSWITCHD};
use crate::vsctl::connection::Connection;

/// Its unit.
pub const UNIT: &str = "underpass.service";
/// The only places that the unit knows.
const UNIT_RUNDIR: &str = "/run/openvswitch";
const UNIT_DB: &str = "/etc/openvswitch/conf.db";

/// How it is started and ended.
#[derive(Debug, Clone)]
pub struct Switch {
    rundir: RunDir,
    db: PathBuf,
    by_systemd: bool,
    log_file: String,
}

/// A port as it says itself.
#[derive(Debug)]
pub struct Port {
    is_tunnel: bool,
    up: bool,
    /// Why it does not work.
    pub error: Option<String>,
}

impl Switch {
    /// As it shall run in the place of `ovs`.
    pub fn new(rundir: &RunDir, ovs: &OpenVswitch) -> Switch {
        // Debian has a symbolic link in the place of the database
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let same =
            |path: &Path, other: &str| real(path).is_some_and(|path| Some(path) == real(Path::new(other)));
        let its_place = same(rundir.path(), UNIT_RUNDIR) && same(&ovs.db, UNIT_DB);
        Switch {
            rundir: rundir.clone(),
            db: ovs.db.clone(),
            by_systemd: !ovs.units.is_empty() && its_place && programs::has_unit(UNIT),
            log_file: ovs.switch.option("--log-file").unwrap_or("--log-file").to_owned(),
        }
    }

    /// Whether systemd runs it, and starts it when the host does.
    pub fn is_by_systemd(&self) -> bool {
        self.by_systemd
    }

    /// Starts it, and returns when its configuration is in force.
    pub fn start(&self) -> anyhow::Result<()> {
        if self.by_systemd {
            // Enabled while Open vSwitch ran, it took over the state of that, and is not started where it is held to run
            return programs::systemctl("restart", &[UNIT.to_owned()]);
        }
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let mut command = Command::new(program);
        command.arg("vswitchd").arg("--rundir").arg(self.rundir.path()).arg("--db").arg(&self.db);
        command
            .args(["--detach", "--keep-ports", "-vconsole:warn", &self.log_file])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let status = command.process_group(0).status().context("cannot start Underpass")?;
        ensure!(status.success(), "Underpass did not start ({status})");
        Ok(())
    }

    /// Ends it, if it runs, with its devices.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.exit()?;
        if self.by_systemd { programs::systemctl("stop", &[UNIT.to_owned()]) } else { Ok(()) }
    }

    fn exit(&self) -> anyhow::Result<()> {
        let holder =
            |target: &str| pidfile::holder(&self.rundir.pidfile(target)).map(|owner| owner.to_string());
        // One process is both; Open vSwitch's are two, and not ours to end here
        let Some(owner) = holder(VSWITCHD).filter(|owner| holder(OVSDB_SERVER).as_ref() == Some(owner))
        else {
            return Ok(());
        };
        programs::ask(&self.rundir, VSWITCHD, "exit", vec!["--cleanup".to_owned()])
            .map_err(|why| anyhow!("cannot end Underpass: {why}"))?;
        let pid = owner.parse().unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(10);
        while programs::lives(pid) {
            ensure!(Instant::now() < until, "Underpass (process {pid}) does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until no port of those that shall work says that it does not, and tunnels are up. Whose other end does not answer in
    /// time is returned: that may be the other end's fault.
    ///
    /// # Errors
    /// A port is refused; or all of several protected tunnels are down, which is hardly the fault of all other ends.
    pub fn wait(
        &self,
        shall: impl Fn(&str) -> Option<Promise>,
        patience: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let until = Instant::now() + patience;
        loop {
            let ports = ports(&self.rundir)?;
            let promised: Vec<(&String, &Port, Promise)> =
                ports.iter().filter_map(|(name, port)| Some((name, port, shall(name)?))).collect();
            let bad = |port: &Port| port.error.is_some() || (port.is_tunnel && !port.up);
            let words =
                |name: &str, port: &Port| format!("{name} ({})", port.error.as_deref().unwrap_or("down"));
            let waiting: Vec<String> =
                promised.iter().filter(|(_, p, _)| bad(p)).map(|(name, p, _)| words(name, p)).collect();
            if waiting.is_empty() {
                return Ok(waiting);
            }
            if Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let protected = || promised.iter().filter(|(.., promise)| *promise == Promise::WithItsPeer);
            let none_is_up = protected().count() > 1 && protected().all(|(_, port, _)| bad(port));
            let refused =
                promised.iter().any(|(_, p, promise)| *promise == Promise::Works && p.error.is_some());
            ensure!(
                !refused && !none_is_up,
                "after {} s these do not work: {}",
                patience.as_secs(),
                waiting.join(", ")
            );
            return Ok(waiting);
        }
    }
}

/// How far a port can be promised to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It depends on this host alone.
    Works,
    /// It has no more than an error to show until the other end proves who it is.
    WithItsPeer,
}

/// How many tunnels there are, and all ports by name.
pub fn ports(rundir: &RunDir) -> anyhow::Result<BTreeMap<String, Port>> {
    let mut connection =
        Connection::open("unix:db.sock", rundir.path()).context("cannot reach the database")?;
    let columns = json!(["name", "type", "error", "link_state"]);
    let results = connection
        .transact(vec![json!({"op": "select", "table": "Interface", "where": [], "columns": columns})]);
    let results = results.context("cannot read the database")?;
    let rows = results.first().and_then(|result| result.get("rows")?.as_array()).cloned().unwrap_or_default();
    // An optional column is a string, or the empty set
    let text = |row: &Value, column: &str| row.get(column).and_then(Value::as_str).map(str::to_owned);
    let port = |row: &Value| {
        let port = Port {
            is_tunnel: text(row, "type").is_some_and(|kind| TUNNELS.contains(&kind.as_str())),
            up: text(row, "link_state").as_deref() == Some("up"),
            error: text(row, "error"),
        };
        Some((text(row, "name")?, port))
    };
    Ok(rows.iter().filter_map(port).collect())
}
