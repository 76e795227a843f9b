//! Our own switch as a migration sees it: started, asked how its ports are, ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::programs::{self, OpenVswitch};
use crate::pidfile;
use crate::reconcile::options::TUNNELS;
use crate::rundir::{RunDir, VSWITCHD};
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
        let same =
            |path: &Path, other: &str| std::fs::canonicalize(path).is_ok_and(|path| path == Path::new(other));
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
            return programs::systemctl("start", &[UNIT.to_owned()]);
        }
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let mut command = Command::new(program);
        command.arg("vswitchd").arg("--rundir").arg(self.rundir.path()).arg("--db").arg(&self.db);
        command
            .args(["--detach", "-vconsole:warn", &self.log_file])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let status = command.status().context("cannot start Underpass")?;
        ensure!(status.success(), "Underpass did not start ({status})");
        Ok(())
    }

    /// Ends it, if it runs.
    pub fn stop(&self) -> anyhow::Result<()> {
        if self.by_systemd {
            programs::systemctl("stop", &[UNIT.to_owned()])?;
        }
        let Some(owner) = pidfile::holder(&self.rundir.pidfile(VSWITCHD)) else { return Ok(()) };
        programs::ask(&self.rundir, VSWITCHD, "exit", Vec::new())
            .map_err(|why| anyhow!("cannot end Underpass: {why}"))?;
        let pid = owner.to_string().parse().unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(10);
        while programs::lives(pid) {
            ensure!(Instant::now() < until, "Underpass (process {pid}) does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until no port of those that shall work says that it does not, and tunnels are up.
    pub fn wait(&self, shall: impl Fn(&str) -> bool, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        loop {
            let ports = ports(&self.rundir)?;
            let bad = |port: &Port| port.error.is_some() || (port.is_tunnel && !port.up);
            let waiting: Vec<String> = ports
                .iter()
                .filter(|(name, port)| shall(name) && bad(port))
                .map(|(name, port)| format!("{name} ({})", port.error.as_deref().unwrap_or("down")))
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("after {} s these do not work: {}", patience.as_secs(), waiting.join(", "));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
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
