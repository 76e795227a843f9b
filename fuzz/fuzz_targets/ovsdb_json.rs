//! What clients may send to the database: two sessions, any bytes in any pieces, time passing in between.
//!
//! Input: pieces that end with a zero byte, for the two sessions in turn. After each, a second has passed.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ovsdb::{Database, NoJournal, Schema, Server};
use serde_json::Value;

/// Small, so that a fresh server costs little, with one of everything that a schema can ask for.
static EMPTY: LazyLock<Database> = LazyLock::new(|| {
    let json = serde_json::from_str(include_str!("schema.json")).expect("JSON");
    Database::new(Schema::from_json(&json).expect("a schema"))
});

fuzz_target!(|data: &[u8]| {
    let mut server = Server::new(EMPTY.clone(), Box::new(NoJournal));
    let mut sessions = [server.connect(), server.connect()];
    let mut now = Instant::now();
    for piece in data.split(|b| *b == 0).take(64) {
        let [session, _] = sessions;
        if server.receive(session, piece, now).is_err() {
            // whoever talks nonsense is shown the door, and comes again
            server.disconnect(session);
            sessions[0] = server.connect();
        }
        sessions.swap(0, 1);
        now += Duration::from_secs(1);
        server.handle_timeout(now);
        while let Some(transmit) = server.poll_transmit() {
            let message: Value = serde_json::from_slice(&transmit.bytes).expect("one JSON value");
            let kinds = ["result", "error", "method"];
            assert!(kinds.iter().any(|k| message.get(k).is_some_and(|v| !v.is_null())), "{message}");
        }
    }
    for session in sessions {
        server.disconnect(session);
    }
});
