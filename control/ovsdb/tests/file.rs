//! The database file as a crash, another version, another program or a mistake may leave it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use ovsdb::{Database, Journal, OpenError, Server, log, open, open_vswitch};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BRIDGE: &str = "00000000-0000-4000-8000-000000000010";

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conf.db");
    (directory, path)
}

fn serve(path: &Path) -> Server {
    let (db, journal) = open(path, open_vswitch::schema()).unwrap();
    Server::new(db, Box::new(journal))
}

fn commit(server: &mut Server, operations: &Value) {
    let reply = server.transact(operations, Instant::now());
    assert!(reply.iter().all(|result| result.get("error").is_none()), "{reply:?}");
}

fn add_bridge(server: &mut Server) {
    commit(
        server,
        &json!([
        { "op": "insert", "table": "Bridge", "uuid": BRIDGE,
          "row": { "name": "br0", "other_config": ["map", [["a", "1"], ["b", "2"]]], "flood_vlans": ["set", [1, 2]] } },
        { "op": "update", "table": "Open_vSwitch", "where": [], "row": { "bridges": ["uuid", BRIDGE] } },
        { "op": "comment", "comment": "one" },
        { "op": "comment", "comment": "two" }]),
    );
}

fn set_bridge(server: &mut Server, row: &Value) {
    commit(server, &json!([{ "op": "update", "table": "Bridge", "where": [], "row": row }]));
}

fn bridge(db: &Database) -> Option<Value> {
    let (_, row) = db.rows("Bridge").next()?;
    Some(json!([row.str("name"), row.get("other_config")?.to_json(), row.get("flood_vlans")?.to_json()]))
}

#[test]
fn a_file_is_made_read_again_and_only_persistent_columns_are_kept() {
    let (_directory, path) = place();
    let mut server = serve(&path);
    add_bridge(&mut server);
    set_bridge(&mut server, &json!({ "other_config": ["map", [["b", "3"], ["c", "4"]]], "flood_vlans": 2 }));
    let size = fs::metadata(&path).unwrap().len();
    set_bridge(&mut server, &json!({ "datapath_id": "x", "status": ["map", [["k", "v"]]] }));
    assert_eq!(fs::metadata(&path).unwrap().len(), size, "ephemeral columns reached the file");
    drop(server);
    let server = serve(&path);
    let kept = json!(["br0", ["map", [["b", "3"], ["c", "4"]]], 2]);
    assert_eq!(bridge(server.db()), Some(kept));
    let (_, row) = server.db().rows("Bridge").next().unwrap();
    assert_eq!(row.opt_str("datapath_id"), None);
}

#[test]
fn ephemeral_updates_of_the_daemon_write_nothing() {
    let (_directory, path) = place();
    let mut server = serve(&path);
    add_bridge(&mut server);
    let size = || fs::metadata(&path).unwrap().len();
    let (before, serial) = (size(), server.db().serial());
    let (row, _) = server.db().rows("Bridge").next().unwrap();
    let update = |column, datum| ovsdb::RowUpdate { table: "Bridge", row, columns: vec![(column, datum)] };
    let updates = [update("datapath_id", ovsdb::Datum::from("0000aa"))];
    assert_eq!(server.update_rows(&updates, Instant::now()), Ok(true));
    assert_eq!(server.update_rows(&updates, Instant::now()), Ok(false));
    assert_eq!((size(), server.db().serial()), (before, serial + 1));
    let updates = [update("stp_enable", ovsdb::Datum::from(true))];
    assert_eq!(server.update_rows(&updates, Instant::now()), Ok(true));
    assert!(size() > before);
    let wrong = [update("stp_enable", ovsdb::Datum::from("yes"))];
    assert!(server.update_rows(&wrong, Instant::now()).is_err());
}

/// Wherever the writing stopped, what was committed before is there, and the next commit goes well.
#[test]
fn a_log_torn_at_any_byte_keeps_what_was_whole() {
    let (_directory, path) = place();
    let mut server = serve(&path);
    let schema_end = log::decode(&fs::read(&path).unwrap()).unwrap().records[1].offset;
    add_bridge(&mut server);
    set_bridge(&mut server, &json!({ "flood_vlans": 7 }));
    drop(server);
    let bytes = fs::read(&path).unwrap();
    let whole = log::decode(&bytes).unwrap();
    for end in schema_end..bytes.len() {
        let torn = log::decode(&bytes[..end]).unwrap();
        let expected = whole.records.iter().take_while(|record| record.offset < end).count();
        let complete = torn.damage.is_none();
        assert_eq!(torn.records.len(), if complete { expected } else { expected - 1 }, "cut at {end}");
        assert_eq!(torn.records[..], whole.records[..torn.records.len()]);
    }
    for end in [schema_end + 1, schema_end + 60, bytes.len() - 200, bytes.len() - 1] {
        fs::write(&path, &bytes[..end]).unwrap();
        let mut server = serve(&path);
        if server.db().rows("Bridge").next().is_none() {
            add_bridge(&mut server);
        }
        drop(server);
        assert!(bridge(serve(&path).db()).is_some(), "cut at {end}");
        assert_eq!(log::decode(&fs::read(&path).unwrap()).unwrap().damage, None);
    }
}

#[test]
fn a_garbage_tail_is_cut_off() {
    let (_directory, path) = place();
    add_bridge(&mut serve(&path));
    let good = fs::read(&path).unwrap();
    for garbage in
        [&b"\0\0\0\0"[..], b"OVSDB JSON 5 ", b"OVSDB JSON 99999999999999999999 x\n", b"OVSDB JSON 3 00\n{}\n"]
    {
        fs::write(&path, [&good, garbage].concat()).unwrap();
        assert!(bridge(serve(&path).db()).is_some());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

#[test]
fn damage_in_the_middle_is_refused_and_nothing_is_touched() {
    let (_directory, path) = place();
    let mut server = serve(&path);
    add_bridge(&mut server);
    set_bridge(&mut server, &json!({ "flood_vlans": 7 }));
    drop(server);
    let good = fs::read(&path).unwrap();
    let records = log::decode(&good).unwrap().records;
    for victim in &records[..records.len() - 1] {
        let mut bytes = good.clone();
        bytes[victim.offset + 70] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = open(&path, open_vswitch::schema()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Damaged { damage, .. } if damage.offset == victim.offset),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("byte {}", victim.offset)));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_record_that_makes_no_sense_is_refused_with_its_place() {
    let (_directory, path) = place();
    drop(serve(&path));
    let mut bytes = fs::read(&path).unwrap();
    let offset = bytes.len();
    bytes.extend(log::encode(&json!({ "Bridge": { BRIDGE: null } })));
    fs::write(&path, &bytes).unwrap();
    let error = open(&path, open_vswitch::schema()).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { offset: at, .. } if at == offset), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let (directory, path) = place();
    for (content, complaint) in [
        (b"hello, world\n".to_vec(), "no database file"),
        (b"OVSDB JSON 17 00000\n{}\n".to_vec(), "no database file"),
        (b"OVSDB CLUSTER 5 0000000000000000000000000000000000000000\n{}\n\n".to_vec(), "cluster"),
        (log::encode(&json!({ "name": "OVN_Northbound", "tables": {} })), "OVN_Northbound"),
        (log::encode(&json!({ "name": "Open_vSwitch" })), "does not fit the schema"),
    ] {
        fs::write(&path, &content).unwrap();
        let error = open(&path, open_vswitch::schema()).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let error = open(directory.path(), open_vswitch::schema()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[test]
fn an_empty_file_and_a_symbolic_link_become_databases() {
    let (directory, path) = place();
    fs::write(&path, "").unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    add_bridge(&mut serve(&link));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(bridge(serve(&path).db()).is_some());
    let new = directory.path().join("not/yet/there.db");
    drop(serve(&new));
    assert!(new.exists());
}

/// A record as OVS before 2.16 wrote it: values, not differences.
#[test]
fn whole_values_are_read_too() {
    let (_directory, path) = place();
    add_bridge(&mut serve(&path));
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(log::encode(&json!({ "_date": 1, "Bridge": { BRIDGE: {
        "other_config": ["map", [["a", "1"]]], "flood_vlans": ["set", [2, 3]] } } })));
    fs::write(&path, bytes).unwrap();
    assert_eq!(bridge(serve(&path).db()), Some(json!(["br0", ["map", [["a", "1"]]], ["set", [2, 3]]])));
}

/// The schema with the given version, without some columns and tables, and with some that nobody else has.
fn other_schema(version: &str, without: &[&str], with: &[&str]) -> Value {
    let mut schema = open_vswitch::schema().to_json();
    schema["version"] = json!(version);
    for name in without {
        match name.split_once('.') {
            Some((table, column)) => {
                schema["tables"][table]["columns"].as_object_mut().unwrap().remove(column)
            }
            None => schema["tables"].as_object_mut().unwrap().remove(*name),
        };
    }
    for name in with {
        let (table, column) = name.split_once('.').unwrap();
        let table = &mut schema["tables"][table];
        if table.is_null() {
            *table = json!({ "columns": {}, "isRoot": true });
        }
        table["columns"][column] = json!({ "type": "string" });
    }
    schema
}

#[test]
fn an_older_schema_is_converted_and_a_copy_kept() {
    let (directory, path) = place();
    let without = ["AutoAttach", "Bridge.auto_attach", "Bridge.flood_vlans", "Interface.lldp"];
    let mut old = log::encode(&other_schema("7.6.2", &without, &["Bridge.legacy"]));
    old.extend(log::encode(&json!({
        "Open_vSwitch": { "00000000-0000-4000-8000-000000000001": { "bridges": ["uuid", BRIDGE] } },
        "Bridge": { BRIDGE: { "name": "br0", "legacy": "kept" } } })));
    fs::write(&path, &old).unwrap();
    let mut server = serve(&path);
    assert_eq!(server.db().schema().version, "8.3.1");
    set_bridge(&mut server, &json!({ "flood_vlans": 3 }));
    drop(server);
    assert_eq!(fs::read(directory.path().join("conf.db.backup7.6.2")).unwrap(), old);
    let server = serve(&path);
    assert_eq!(bridge(server.db()), Some(json!(["br0", ["map", []], 3])));
    assert_eq!(server.db().rows("Bridge").next().unwrap().1.str("legacy"), "kept");
}

#[test]
fn a_newer_schema_is_served_as_it_is() {
    let (directory, path) = place();
    let mut newer = log::encode(&other_schema("8.12.0", &[], &["Bridge.future", "Future.name"]));
    newer.extend(log::encode(&json!({
        "Open_vSwitch": { "00000000-0000-4000-8000-000000000001": { "bridges": ["uuid", BRIDGE] } },
        "Future": { BRIDGE: { "name": "kept" } },
        "Bridge": { BRIDGE: { "name": "br0", "future": "kept" } } })));
    fs::write(&path, &newer).unwrap();
    let server = serve(&path);
    assert_eq!(server.db().schema().version, "8.12.0");
    assert_eq!(server.db().rows("Bridge").next().unwrap().1.str("future"), "kept");
    assert_eq!(server.db().rows("Future").next().unwrap().1.str("name"), "kept");
    assert_eq!(fs::read(&path).unwrap(), newer, "nothing to write");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the file and its lock");
}

#[test]
fn a_grown_file_is_compacted() {
    let (_directory, path) = place();
    let mut server = serve(&path);
    add_bridge(&mut server);
    let long = "x".repeat(50_000);
    let mut largest = 0;
    for n in 0..60 {
        set_bridge(&mut server, &json!({ "other_config": ["map", [[n.to_string(), long]]] }));
        largest = largest.max(fs::metadata(&path).unwrap().len());
        // as a client does that waits for each answer
        while server.durable() < server.committed() {
            std::thread::yield_now();
        }
    }
    assert!(largest < 3_000_000, "grew to {largest} bytes");
    let content = bridge(server.db());
    drop(server);
    assert_eq!(bridge(serve(&path).db()), content);
    assert!(!path.with_file_name("conf.db.tmp").exists());
}

// Against OVS's own tools.

fn installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {tool} is not installed (Debian: openvswitch-switch)");
    }
    found
}

fn tool(arguments: &[&str]) -> String {
    let output = Command::new("ovsdb-tool").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ovsdb_tool_reads_what_we_write() {
    if !installed("ovsdb-tool") {
        return;
    }
    let (_directory, path) = place();
    let mut server = serve(&path);
    add_bridge(&mut server);
    set_bridge(&mut server, &json!({ "other_config": ["map", [["b", "3"], ["é\n\"", "\u{1F600}"]]] }));
    let in_use = Command::new("ovsdb-tool").arg("compact").arg(&path).output().unwrap();
    assert!(!in_use.status.success(), "ovsdb-tool did not see our lock");
    drop(server);
    let path = path.to_str().unwrap();
    assert_eq!(tool(&["db-version", path]).trim(), "8.3.1");
    let shown = tool(&["show-log", "-m", path]);
    assert!(
        shown.contains("record 2:") && shown.contains("one") && shown.contains("table Bridge insert row"),
        "{shown}"
    );
    let select = json!(["Open_vSwitch", { "op": "select", "table": "Bridge", "where": [], "columns": ["other_config"] }]);
    let reply: Value = serde_json::from_str(&tool(&["query", path, &select.to_string()])).unwrap();
    assert_eq!(reply[0]["rows"][0]["other_config"], json!(["map", [["b", "3"], ["é\n\"", "\u{1F600}"]]]));
    tool(&["compact", path]);
    assert!(bridge(serve(Path::new(path)).db()).is_some());
}

#[test]
fn we_read_what_ovsdb_tool_writes() {
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    if !installed("ovsdb-tool") || !Path::new(schema).exists() {
        return;
    }
    let (_directory, path) = place();
    let file = path.to_str().unwrap();
    tool(&["create", file, schema]);
    let transact = |operations: Value| {
        let mut params = vec![json!("Open_vSwitch")];
        params.extend(operations.as_array().unwrap().iter().cloned());
        tool(&["transact", file, &json!(params).to_string()])
    };
    transact(json!([
        { "op": "insert", "table": "Open_vSwitch", "row": { "bridges": ["named-uuid", "b"] } },
        { "op": "insert", "table": "Bridge", "uuid-name": "b",
          "row": { "name": "br0", "other_config": ["map", [["a", "1"], ["b", "2"]]], "flood_vlans": ["set", [1, 2]] } }]));
    transact(json!([{ "op": "mutate", "table": "Bridge", "where": [], "mutations": [
        ["flood_vlans", "insert", 3], ["flood_vlans", "delete", 1], ["other_config", "delete", "a"],
        ["other_config", "insert", ["map", [["c", "3"]]]]] }]));
    transact(json!([{ "op": "update", "table": "Bridge", "where": [],
        "row": { "other_config": ["map", [["b", "9"], ["c", "3"]]] } }]));
    let before = fs::read(&path).unwrap();
    let server = serve(&path);
    assert_eq!(bridge(server.db()), Some(json!(["br0", ["map", [["b", "9"], ["c", "3"]]], ["set", [2, 3]]])));
    assert_eq!(fs::read(&path).unwrap(), before, "the same schema needs no conversion");
}

#[test]
fn a_file_in_use_is_refused_with_its_owner() {
    if !installed("ovsdb-server") {
        return;
    }
    let (directory, path) = place();
    drop(serve(&path));
    let socket = directory.path().join("db.sock");
    let mut owner = Command::new("ovsdb-server")
        .arg(&path)
        .arg(format!("--remote=punix:{}", socket.display()))
        .arg(format!("--unixctl={}", directory.path().join("ctl").display()))
        .args(["--no-chdir", "-vconsole:off", "-vsyslog:off"])
        .env("OVS_RUNDIR", directory.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !socket.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let result = open(&path, open_vswitch::schema());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let error = result.unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", owner.id())), "{error}");
    drop(serve(&path));
}

/// A disk that is full, as far as the journal can tell.
#[derive(Debug)]
struct FullDisk;

impl Journal for FullDisk {
    fn append(&mut self, _record: &Value) -> std::io::Result<()> {
        Err(std::io::Error::other("no space"))
    }
    fn compact(&mut self, _schema: &Value, _snapshot: &Value) {}
}

#[test]
fn what_cannot_be_written_does_not_happen() {
    let (_directory, path) = place();
    add_bridge(&mut serve(&path));
    let (db, _) = open(&path, open_vswitch::schema()).unwrap();
    let mut server = Server::new(db, Box::new(FullDisk));
    let before = (bridge(server.db()), server.db().serial());
    let update = json!([{ "op": "update", "table": "Bridge", "where": [], "row": { "flood_vlans": 9 } }]);
    let reply = server.transact(&update, Instant::now());
    assert_eq!(reply, [json!({ "count": 1 }), json!({ "error": "I/O error", "details": "no space" })]);
    assert_eq!((bridge(server.db()), server.db().serial()), before);
}

/// A disk that takes what it is given and keeps nothing.
#[derive(Debug, Default)]
struct Forgetful(u64);

impl Journal for Forgetful {
    fn append(&mut self, _record: &Value) -> std::io::Result<()> {
        self.0 += 1;
        Ok(())
    }
    fn appended(&self) -> u64 {
        self.0
    }
    fn compact(&mut self, _schema: &Value, _snapshot: &Value) {}
}

#[test]
fn an_answer_knows_what_it_depends_on_and_what_to_say_otherwise() {
    let mut server = Server::new(Database::open_vswitch(), Box::new(Forgetful::default()));
    let (session, made) = (server.connect(), server.committed());
    let mut ask = |method: &str, params: Value| {
        let request = json!({ "id": 1, "method": method, "params": params }).to_string();
        server.receive(session, request.as_bytes(), Instant::now()).unwrap();
        let reply = server.poll_transmit().unwrap();
        assert!(server.poll_transmit().is_none());
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["result"].clone();
        (reply.after - made, json(&reply.bytes), reply.refused.as_deref().map(json))
    };
    let insert = json!(["Open_vSwitch", { "op": "insert", "table": "SSL", "row": {
        "private_key": "k", "certificate": "c", "ca_cert": "a" } },
        { "op": "update", "table": "Open_vSwitch", "where": [], "row": { "db_version": "1" } }]);
    let (after, reply, refused) = ask("transact", insert);
    assert_eq!((after, reply.as_array().unwrap().len()), (1, 2));
    assert_eq!(refused.unwrap()[2]["error"], "I/O error");
    let select = json!(["Open_vSwitch", { "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["db_version"] }]);
    assert_eq!(ask("transact", select), (1, json!([{ "rows": [{ "db_version": "1" }] }]), None));
    assert_eq!(ask("echo", json!([])), (1, json!([]), None));
}
