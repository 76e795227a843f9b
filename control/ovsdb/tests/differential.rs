//! The same requests to a real ovsdb-server and to this engine must have the same answers, update notifications
//! included. `requests.jsonl` lists them; lines that begin with '#' say what the next ones are about.
//!
//! Needs ovsdb-server (Debian: openvswitch-switch); without it the test says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use ovsdb::{Database, NoJournal, Server, SessionId};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const REQUESTS: &str = include_str!("requests.jsonl");
/// The Open_vSwitch row of both.
const ROOT: &str = "00000000-0000-4000-8000-000000000001";

#[test]
fn answers_equal_those_of_ovsdb_server() {
    if Command::new("ovsdb-server").arg("--version").output().is_err() {
        eprintln!("skipped: ovsdb-server is not installed (Debian: openvswitch-switch)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut real = Real::start(directory.path());
    let (mut differences, mut count) = (Vec::new(), 0);
    let mut server = ours(&directory.path().join("ours.db"));
    let session = server.connect();
    for (number, line) in REQUESTS.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.replace("ROOT", ROOT);
        let [method, params]: [Value; 2] =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("line {}: {error}", number + 1));
        let request = json!({ "id": number, "method": method, "params": params });
        let (theirs, ours) = (real.ask(&request), ask(&mut server, session, &request));
        let (theirs, ours) = (normal(&theirs, &line), normal(&ours, &line));
        count += 1;
        if theirs != ours {
            differences.push(format!("line {}: {line}\n  theirs: {theirs}\n  ours:   {ours}", number + 1));
        }
    }
    assert!(count > 100, "only {count} requests");
    assert!(differences.is_empty(), "{} of {count} differ:\n{}", differences.len(), differences.join("\n"));
}

/// A real ovsdb-server in its own directory, on a database file that this engine wrote.
struct Real {
    process: Child,
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Real {
    fn start(directory: &Path) -> Real {
        let file = directory.join("theirs.db");
        drop(ours(&file));
        let socket = directory.join("db.sock");
        let process = Command::new("ovsdb-server")
            .arg(&file)
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", directory.join("ctl.sock").display()))
            .args(["--no-chdir", "-vconsole:off", "-vsyslog:off"])
            .env("OVS_RUNDIR", directory)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "ovsdb-server does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Real { process, stream, buffer: Vec::new() }
    }

    /// Everything that arrives up to the reply.
    fn ask(&mut self, request: &Value) -> Vec<Value> {
        self.stream.write_all(request.to_string().as_bytes()).unwrap();
        let mut messages = Vec::new();
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            if let Some(Ok(message)) = values.next() {
                let end = values.byte_offset();
                self.buffer.drain(..end);
                messages.push(message);
                if messages.last().unwrap()["id"] == request["id"] {
                    return messages;
                }
                continue;
            }
            let mut bytes = [0; 65536];
            let n = self.stream.read(&mut bytes).unwrap();
            assert!(n > 0, "ovsdb-server hung up on {request}");
            self.buffer.extend_from_slice(&bytes[..n]);
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// This engine on a new file that holds one Open_vSwitch row.
fn ours(file: &Path) -> Server {
    let (db, journal) = ovsdb::open(file, ovsdb::open_vswitch::schema()).unwrap();
    let mut server = Server::new(db, Box::new(journal));
    let row = json!([{ "op": "delete", "table": "Open_vSwitch", "where": [] },
                     { "op": "insert", "table": "Open_vSwitch", "row": {}, "uuid": ROOT }]);
    let reply = server.transact(&row, Instant::now());
    assert_eq!(reply[1], json!({ "uuid": ["uuid", ROOT] }));
    server
}

fn ask(server: &mut Server, session: SessionId, request: &Value) -> Vec<Value> {
    server.receive(session, request.to_string().as_bytes(), Instant::now()).unwrap();
    std::iter::from_fn(|| server.poll_transmit())
        .map(|message| serde_json::from_slice(&message.bytes).unwrap())
        .collect()
}

/// Without what may differ: UUIDs that the server made up, and the order of rows and of monitors.
fn normal(messages: &[Value], request: &str) -> String {
    let mut messages = messages.to_vec();
    for message in &mut messages {
        sort_rows(message);
    }
    // Notifications come before the reply, in whatever order of monitors.
    if let Some((_, notifications)) = messages.split_last_mut() {
        notifications.sort_by_key(Value::to_string);
    }
    let text = json!(messages).to_string();
    // Which of two equal rows is named first depends on their random versions.
    let text = text.split("  First row").next().unwrap().to_owned();
    let uuid_at =
        |at: usize| text.get(at..at + 36).filter(|candidate| ovsdb::parse_uuid_text(candidate).is_some());
    let (mut normal, mut at) = (String::new(), 0);
    while at < text.len() {
        match uuid_at(at) {
            Some(uuid) => {
                let known = uuid.starts_with("00000000-") || request.contains(uuid);
                normal.push_str(if known { uuid } else { "UUID" });
                at += 36;
            }
            None => {
                let c = text[at..].chars().next().unwrap();
                normal.push(c);
                at += c.len_utf8();
            }
        }
    }
    normal
}

fn sort_rows(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                sort_rows(member);
                if let (true, Some(rows)) = (name == "rows", member.as_array_mut()) {
                    rows.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(sort_rows),
        _ => {}
    }
}

#[test]
fn an_empty_database_serves() {
    let server = Server::new(Database::open_vswitch(), Box::new(NoJournal));
    assert_eq!(server.db().rows("Open_vSwitch").count(), 1);
}
