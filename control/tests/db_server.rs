//! The database's socket with clients that behave, and with some that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use control::db_server::DbServer;
use ovsdb::{Database, NoJournal, Server};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

struct Fixture {
    _directory: TempDir,
    socket: PathBuf,
    db: Rc<RefCell<Server>>,
    changed: Rc<Notify>,
    server: DbServer,
}

/// Runs `test` beside a server. Time is the test's: it leaps when nothing can happen before a deadline.
fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("db.sock");
        let db = Rc::new(RefCell::new(Server::new(Database::open_vswitch(), Box::new(NoJournal))));
        let changed = Rc::new(Notify::new());
        let server = DbServer::new(db.clone(), changed.clone());
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = tokio::task::spawn_local(server.clone().serve(listener));
        test(Fixture { _directory: directory, socket, db, changed, server }).await;
        serving.abort();
    });
}

struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn new(fixture: &Fixture) -> Client {
        Client { stream: UnixStream::connect(&fixture.socket).await.unwrap(), buffer: Vec::new() }
    }

    async fn send(&mut self, method: &str, params: Value) {
        let request = json!({ "id": 1, "method": method, "params": params }).to_string();
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            if let Some(Ok(value)) = values.next() {
                let end = values.byte_offset();
                self.buffer.drain(..end);
                return value;
            }
            let mut bytes = [0; 65536];
            let n = self.stream.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the server hung up");
            self.buffer.extend_from_slice(&bytes[..n]);
        }
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params).await;
        self.receive().await
    }

    /// Reads until the server hangs up.
    async fn is_cut_off(&mut self) {
        let mut rest = Vec::new();
        // Unread input at the other end makes this a reset instead of an end of file.
        let _ = self.stream.read_to_end(&mut rest).await;
    }
}

fn update(column: &str, value: i64) -> Value {
    json!({ "op": "update", "table": "Open_vSwitch", "where": [], "row": { column: value } })
}

const MONITOR: &str = r#"["Open_vSwitch", 0, {"Open_vSwitch": {"columns": ["cur_cfg"]}}]"#;

#[test]
fn clients_hear_of_each_other_and_of_the_daemon() {
    with_server(|fixture| async move {
        let (mut a, mut b) = (Client::new(&fixture).await, Client::new(&fixture).await);
        let monitor: Value = serde_json::from_str(MONITOR).unwrap();
        assert!(b.ask("monitor", monitor).await["error"].is_null());
        let reply = a.ask("transact", json!(["Open_vSwitch", update("cur_cfg", 1)])).await;
        assert_eq!(reply["result"], json!([{ "count": 1 }]));
        assert_eq!(b.receive().await["method"], "update");
        timeout(Duration::from_secs(1), fixture.changed.notified()).await.unwrap();

        fixture.db.borrow_mut().transact(&json!([update("cur_cfg", 2)]), std::time::Instant::now());
        fixture.server.flush();
        let row = b.receive().await["params"][1]["Open_vSwitch"]
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .clone();
        assert_eq!(row["new"]["cur_cfg"], 2);
    });
}

#[test]
fn requests_come_in_pieces_and_in_heaps() {
    with_server(|fixture| async move {
        let mut client = Client::new(&fixture).await;
        let request = json!({ "id": 1, "method": "echo", "params": ["é\u{1F600}"] }).to_string();
        for byte in request.as_bytes() {
            client.stream.write_all(&[*byte]).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(client.receive().await["result"], json!(["é\u{1F600}"]));
        client.stream.write_all(request.repeat(1000).as_bytes()).await.unwrap();
        for _ in 0..1000 {
            assert_eq!(client.receive().await["result"], json!(["é\u{1F600}"]));
        }
    });
}

#[test]
fn a_wait_ends_by_its_timeout() {
    with_server(|fixture| async move {
        let mut client = Client::new(&fixture).await;
        let wait = json!({ "op": "wait", "table": "Open_vSwitch", "where": [], "columns": ["cur_cfg"], "until": "==",
            "rows": [{ "cur_cfg": 7 }], "timeout": 500 });
        let reply = client.ask("transact", json!(["Open_vSwitch", wait])).await;
        let details = reply["result"][0]["details"].as_str().unwrap();
        assert!(details.starts_with("\"wait\" timed out after 5"), "{details}");
    });
}

#[test]
fn a_lock_moves_on_when_its_owner_hangs_up() {
    with_server(|fixture| async move {
        let (mut a, mut b) = (Client::new(&fixture).await, Client::new(&fixture).await);
        assert_eq!(a.ask("lock", json!(["x"])).await["result"], json!({ "locked": true }));
        assert_eq!(b.ask("lock", json!(["x"])).await["result"], json!({ "locked": false }));
        drop(a);
        assert_eq!(b.receive().await, json!({ "id": null, "method": "locked", "params": ["x"] }));
    });
}

#[test]
fn one_who_begins_a_message_and_does_not_end_it_is_cut_off() {
    with_server(|fixture| async move {
        let (mut slow, mut other) = (Client::new(&fixture).await, Client::new(&fixture).await);
        slow.stream.write_all(b"{\"id\":1,\"method\":\"echo\",\"params\":[\"").await.unwrap();
        let mut sent = 0;
        while slow.stream.write_all(b"x").await.is_ok() {
            sent += 1;
            assert!(sent < 100, "a byte a second is taken for ever");
            sleep(Duration::from_secs(1)).await;
            assert_eq!(other.ask("echo", json!([])).await["result"], json!([]));
        }
        slow.is_cut_off().await;
    });
}

#[test]
fn one_who_never_reads_is_cut_off() {
    with_server(|fixture| async move {
        let (mut deaf, mut other) = (Client::new(&fixture).await, Client::new(&fixture).await);
        let request = json!({ "id": 1, "method": "get_schema", "params": ["Open_vSwitch"] }).to_string();
        let flood = request.repeat(1000);
        // Writing stalls as soon as the server stops reading, and fails when it hangs up.
        while let Ok(Ok(())) = timeout(Duration::from_secs(5), deaf.stream.write_all(flood.as_bytes())).await
        {
        }
        assert_eq!(other.ask("echo", json!([])).await["result"], json!([]));
        sleep(Duration::from_secs(60)).await;
        deaf.is_cut_off().await;
        assert_eq!(other.ask("echo", json!([])).await["result"], json!([]));
    });
}

#[test]
fn a_listener_that_never_reads_does_not_fill_the_memory() {
    with_server(|fixture| async move {
        let mut deaf = Client::new(&fixture).await;
        let columns = json!({ "Open_vSwitch": { "columns": ["external_ids"] } });
        assert!(deaf.ask("monitor", json!(["Open_vSwitch", 0, columns])).await["error"].is_null());
        let mut other = Client::new(&fixture).await;
        for n in 0..40 {
            let long = "x".repeat(1_000_000);
            let update = json!({ "op": "update", "table": "Open_vSwitch", "where": [],
                "row": { "external_ids": ["map", [[n.to_string(), long]]] } });
            assert!(other.ask("transact", json!(["Open_vSwitch", update])).await["error"].is_null());
        }
        deaf.is_cut_off().await;
    });
}

#[test]
fn monsters_are_cut_off() {
    with_server(|fixture| async move {
        let mut other = Client::new(&fixture).await;
        for monster in ["[".repeat(100_000), format!("{{\"a\":{}", "[".repeat(100_000)), "x".to_owned()] {
            let mut client = Client::new(&fixture).await;
            let _ = client.stream.write_all(monster.as_bytes()).await;
            client.is_cut_off().await;
        }
        let mut client = Client::new(&fixture).await;
        client.stream.write_all(b"{\"a\":\"").await.unwrap();
        let (megabyte, mut sent) = (vec![b'x'; 1 << 20], 0);
        while client.stream.write_all(&megabyte).await.is_ok() {
            sent += 1;
            assert!(sent < 1024, "a gigabyte of one message is taken");
        }
        assert_eq!(other.ask("echo", json!([])).await["result"], json!([]));
    });
}
