//! What this host and this program are, for the one row of table Open_vSwitch: what `ovs-ctl` writes there on other
//! hosts.

use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::OVS_VERSION;

/// The host as its files describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    system_type: String,
    system_version: String,
    hostname: String,
    rundir: String,
    /// Used if the row has none yet.
    system_id: String,
}

impl Identity {
    /// `system_id` is what stands in `system-id.conf` next to the database, where `ovs-ctl` keeps it, or a new one.
    pub fn of_host(rundir: &Path, db: &Path) -> Identity {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name| os_release(&release, name).unwrap_or_else(|| "unknown".into());
        let kept = std::fs::read_to_string(db.with_file_name("system-id.conf")).ok();
        let system_id = kept.map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
        Identity {
            system_type: field("ID"),
            system_version: field("VERSION_ID"),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| "localhost".into(), |s| s.trim().to_owned()),
            rundir: rundir.display().to_string(),
            system_id: system_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
        }
    }

    /// The transaction that puts this into `row`, or into a new row. A system-id that is there stays: others may
    /// know the host by it.
    pub fn transaction(&self, row: Option<Uuid>, has_system_id: bool, schema_version: &str) -> Value {
        let columns = json!({
            "ovs_version": OVS_VERSION,
            "db_version": schema_version,
            "system_type": self.system_type,
            "system_version": self.system_version,
        });
        let mut ids = vec![["hostname", &self.hostname], ["rundir", &self.rundir]];
        if !has_system_id {
            ids.push(["system-id", &self.system_id]);
        }
        match row {
            None => {
                let mut row = columns;
                row["external_ids"] = json!(["map", ids]);
                json!([{ "op": "insert", "table": "Open_vSwitch", "row": row }])
            }
            Some(uuid) => {
                let here = json!([["_uuid", "==", ["uuid", uuid.to_string()]]]);
                let keys: Vec<&str> = ids.iter().map(|[key, _]| *key).collect();
                json!([
                    { "op": "update", "table": "Open_vSwitch", "where": here, "row": columns },
                    { "op": "mutate", "table": "Open_vSwitch", "where": here, "mutations": [
                        ["external_ids", "delete", ["set", keys]],
                        ["external_ids", "insert", ["map", ids]],
                    ]},
                ])
            }
        }
    }
}

/// A field of os-release(5), which may be quoted.
fn os_release(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='))?;
    let bare = value.trim().trim_matches(['"', '\'']);
    (!bare.is_empty()).then(|| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_fields() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\nEMPTY=\"\"\n";
        assert_eq!(os_release(text, "ID").as_deref(), Some("debian"));
        assert_eq!(os_release(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_release(text, "EMPTY"), None);
        assert_eq!(os_release(text, "VERSION"), None);
    }

    #[test]
    fn system_id_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("system-id.conf"), "abc\n").unwrap();
        let host = Identity::of_host(Path::new("/run/x"), &dir.path().join("conf.db"));
        assert_eq!(host.system_id, "abc");
        let ops = host.transaction(None, false, "8.3.1");
        assert!(ops[0]["row"]["external_ids"].to_string().contains(r#"["system-id","abc"]"#), "{ops}");
        let ops = host.transaction(Some(Uuid::nil()), true, "8.3.1");
        assert!(!ops.to_string().contains("system-id"), "{ops}");
        assert_eq!(
            ops[1]["mutations"][0],
            json!(["external_ids", "delete", ["set", ["hostname", "rundir"]]])
        );
    }
}
