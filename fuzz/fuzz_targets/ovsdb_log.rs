//! What may stand in a database file.
//!
//! Input: pieces that end with a zero byte. A piece that is a JSON object becomes a record with a right header; any other
//! stands in the file as it is. The first record is the schema, unless the input begins with a zero byte.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ovsdb::{Schema, log, open};
use serde_json::Value;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let json = serde_json::from_str(include_str!("schema.json")).expect("JSON");
    Schema::from_json(&json).expect("a schema")
});
static SCHEMA_RECORD: LazyLock<Vec<u8>> = LazyLock::new(|| log::encode(&SCHEMA.to_json()));
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("underpass-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a temporary directory");
    dir.join("conf.db")
});

fuzz_target!(|data: &[u8]| {
    let mut file = Vec::new();
    if data.first() != Some(&0) {
        file.extend_from_slice(&SCHEMA_RECORD);
    }
    for piece in data.split(|b| *b == 0) {
        match serde_json::from_slice(piece) {
            Ok(json @ Value::Object(_)) => file.extend(log::encode(&json)),
            _ => file.extend_from_slice(piece),
        }
    }

    if let Ok(contents) = log::decode(&file) {
        assert!(contents.intact <= file.len());
        assert_eq!(contents.damage.is_some(), contents.intact < file.len());
        let again: Vec<u8> = contents.records.iter().flat_map(|r| log::encode(&r.json)).collect();
        let again = log::decode(&again).expect("records as they were written");
        let values = |c: &log::Contents| c.records.iter().map(|r| r.json.clone()).collect::<Vec<_>>();
        assert_eq!(values(&again), values(&contents));
    }

    fs::write(&*PATH, &file).expect("write");
    let rows = || {
        let (db, _journal) = open(&PATH, SCHEMA.clone()).ok()?;
        let tables = db.schema().tables.keys();
        // versions are made up afresh each time
        let rows = |table| db.rows(table).map(|(uuid, row)| (uuid, format!("{:?}", row.data()))).collect();
        Some(tables.map(|t| rows(t)).collect::<Vec<Vec<_>>>())
    };
    let first = rows();
    // what could be opened is opened again, with the same content; what could not be is left as it was
    match &first {
        Some(_) => assert_eq!(rows(), first),
        None if !file.is_empty() => assert_eq!(fs::read(&*PATH).expect("read"), file),
        None => {}
    }
    for entry in fs::read_dir(PATH.parent().expect("a directory")).expect("list").flatten() {
        let _ = fs::remove_file(entry.path());
    }
});
