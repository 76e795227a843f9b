//! `underpass up`: the whole switch with one command, for as long as the command runs. Its configuration is a
//! transaction of our own on a database that does not outlive it.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use datapath::snapshot::{PortKind, Snapshot};
use serde_json::{Value, json};

use crate::cli;
use crate::daemon::{Daemon, Stages, transact};

/// Where it runs unless told otherwise: apart from a switch that is installed.
pub const RUNDIR: &str = "/run/underpass";

/// The database of one run. Its name is nobody else's, for what is found there is removed: a run directory may hold the
/// `conf.db` of a switch that is only stopped.
pub fn database(rundir: &Path) -> PathBuf {
    rundir.join("underpass-up.db")
}

/// What to join.
#[derive(Debug)]
pub struct Up {
    options: cli::Up,
}

impl Up {
    /// Checks what can be checked before anything is touched.
    pub fn new(mut options: cli::Up) -> anyhow::Result<Up> {
        options.psk_file = options.psk_file.map(std::path::absolute).transpose()?;
        ensure!(options.device != options.bridge, "--bridge must be another name than {}", options.device);
        for (i, remote) in options.remote.iter().enumerate() {
            ensure!(!options.remote.iter().take(i).any(|r| r == remote), "--remote names {remote} twice");
        }
        Ok(Up { options })
    }

    fn tunnels(&self) -> impl Iterator<Item = (String, IpAddr)> {
        self.options.remote.iter().enumerate().map(|(i, remote)| (format!("gre{i}"), *remote))
    }

    /// The same rows that `ovs-vsctl add-br` and `add-port` make.
    fn transaction(&self) -> Value {
        let mut ops = Vec::new();
        let mut ports = Vec::new();
        let mut add_port = |name: &str, mut interface: Value| {
            let (row, port) = (format!("if{}", ports.len()), format!("port{}", ports.len()));
            interface["name"] = json!(name);
            ops.push(json!({ "op": "insert", "table": "Interface", "uuid-name": row, "row": interface }));
            let columns = json!({ "name": name, "interfaces": ["named-uuid", row] });
            ops.push(json!({ "op": "insert", "table": "Port", "uuid-name": port, "row": columns }));
            ports.push(json!(["named-uuid", port]));
        };
        add_port(&self.options.bridge, json!({ "type": "internal" }));
        add_port(&self.options.device, json!({}));
        for (name, remote) in self.tunnels() {
            let mut options = vec![json!(["remote_ip", remote.to_string()])];
            options.extend(self.options.key.map(|k| json!(["key", k.to_string()])));
            options.extend(
                self.options.psk_file.as_ref().map(|file| json!(["psk_file", file.display().to_string()])),
            );
            add_port(&name, json!({ "type": "gre", "options": ["map", options] }));
        }
        let columns = json!({ "name": self.options.bridge, "ports": ["set", ports] });
        ops.push(json!({ "op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": columns }));
        ops.push(json!({ "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [
            ["bridges", "insert", ["set", [["named-uuid", "bridge"]]]],
            ["next_cfg", "+=", 1],
        ]}));
        ops.push(json!({ "op": "comment", "comment": format!("underpass up {}", self.options.device) }));
        Value::Array(ops)
    }

    /// What was set up, in words.
    fn summary(&self, snapshot: &Snapshot, rundir: &Path) -> String {
        let cli::Up { device, bridge, .. } = &self.options;
        let mut out = format!(
            "Underpass {}: {device} is joined to {} by bridge {bridge}.\n\n",
            cli::VERSION,
            self.remotes()
        );
        for port in snapshot.ports.iter().flatten() {
            let what = match &port.kind {
                PortKind::Tunnel(tunnel) => format!(
                    "GRE {}to {}; path MTU {}, so inner packets of up to {} bytes pass as they are",
                    if tunnel.policy.is_some() { "in ESP " } else { "" },
                    tunnel.config.remote,
                    tunnel.path_mtu.load(std::sync::atomic::Ordering::Relaxed),
                    snapshot.max_frame(tunnel).saturating_sub(ETHERNET_HEADER)
                ),
                PortKind::Patch(patch) => format!("patch to {}", patch.name),
                PortKind::Local(_) if port.name == *bridge => "the bridge's own port on this host".into(),
                PortKind::Local(local) => format!("device of this host, MTU {}", local.mtu()),
            };
            let _ = writeln!(out, "  {:<12} port {:<6} {what}", port.name, port.ofport);
        }
        let dir = rundir.display();
        let _ = write!(
            out,
            "\nTo look at it:  underpass vsctl --rundir {dir} show\n                \
             underpass appctl --rundir {dir} fdb/show {bridge}\n\
             Ctrl-C ends it and undoes all of this.\n"
        );
        out
    }

    fn remotes(&self) -> String {
        self.options.remote.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

const ETHERNET_HEADER: usize = 14;

impl Stages for Up {
    fn loaded(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        transact(&mut daemon.db.borrow_mut(), &self.transaction()).context("cannot configure the switch")
    }

    /// A port that does not work is a failure of the whole: nobody would see its `error` column.
    fn ready(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        {
            let server = daemon.db.borrow();
            let errors = server
                .db()
                .rows("Interface")
                .filter_map(|(_, row)| Some(format!("{}: {}", row.str("name"), row.opt_str("error")?)));
            let errors: Vec<String> = errors.collect();
            ensure!(errors.is_empty(), "{}", errors.join("; "));
        }
        print!("{}", self.summary(&daemon.datapath.snapshot(), daemon.rundir.path()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn up(line: &str) -> anyhow::Result<Up> {
        let argv = ["underpass", "up"].into_iter().chain(line.split(' '));
        let cli::Command::Up(options) = cli::Cli::try_parse_from(argv)?.command else { panic!("{line}") };
        Up::new(options)
    }

    #[test]
    fn nonsense_is_refused() {
        for (line, why) in [
            ("br0 --remote 10.0.0.2", "another name than br0"),
            ("docker0 --remote 10.0.0.2,10.0.0.3,10.0.0.2", "10.0.0.2 twice"),
            ("docker0 --remote 10.0.0.256", "10.0.0.256"),
        ] {
            let error = up(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn makes_the_rows_that_ovs_vsctl_makes() {
        let ops = up("docker0 --remote 10.0.0.2,fd00::2 --key 7 --bridge sw").unwrap().transaction();
        let ops = ops.as_array().unwrap();
        let named = |table: &str| -> Vec<&str> {
            let rows = ops.iter().filter(|op| op["table"] == table && op["op"] == "insert");
            rows.map(|op| op["row"]["name"].as_str().unwrap()).collect()
        };
        assert_eq!(named("Interface"), ["sw", "docker0", "gre0", "gre1"]);
        assert_eq!(named("Port"), ["sw", "docker0", "gre0", "gre1"]);
        assert_eq!(named("Bridge"), ["sw"]);
        let gre1 =
            &ops.iter().find(|op| op["table"] == "Interface" && op["row"]["name"] == "gre1").unwrap()["row"];
        assert_eq!(gre1["options"], json!(["map", [["remote_ip", "fd00::2"], ["key", "7"]]]));
        assert_eq!(
            ops.iter().find(|op| op["table"] == "Bridge").unwrap()["row"]["ports"][1]
                .as_array()
                .unwrap()
                .len(),
            4
        );
    }
}
