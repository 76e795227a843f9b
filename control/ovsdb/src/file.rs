//! The database file: opening one that OVS or this program wrote, and adding to it so that no commit is ever lost.

use crate::database::Database;
use crate::durable::{Syncer, Wake};
use crate::error::Error;
use crate::journal::Journal;
use crate::log::{self, Contents, Damaged};
use crate::medium::OnDisk;
use crate::record;
use crate::schema::Schema;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Below this growth, in bytes, a smaller file is not worth writing it anew.
const COMPACT_MIN_GROWTH: u64 = 1 << 20;

/// Why a database file cannot be used. The file is left as it was in every case.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by {owner}: stop that process, or name another database file", path.display())]
    Locked { path: PathBuf, owner: String },
    #[error("{} is no database file: name another one, or move it away to start with an empty database", path.display())]
    NotADatabase { path: PathBuf },
    #[error("{} belongs to a database cluster; only standalone databases can be served \
             (ovsdb-tool cluster-to-standalone converts)", path.display())]
    Clustered { path: PathBuf },
    #[error("{} holds database \"{name}\", not \"{expected}\": name another file", path.display())]
    WrongDatabase { path: PathBuf, name: String, expected: String },
    #[error("{}: {damage}. Nothing was changed; restore a backup, or cut the file at that byte to give up what \
             follows", path.display())]
    Damaged { path: PathBuf, damage: Damaged },
    #[error("{}: the record at byte {offset} does not fit the schema: {error}. Nothing was changed; restore a \
             backup, or cut the file at that byte to give up what follows", path.display())]
    Unusable { path: PathBuf, offset: usize, error: Error },
}

/// The open file, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    syncer: Syncer,
    _lock: File,
}

/// Opens the database file at `path`, or makes one. A file of an older schema is converted to `schema`, after a copy
/// of it has been put beside it; tables and columns that only the file has are kept.
///
/// Locks belong to the process that took them: fork before, not after.
pub fn open(path: &Path, schema: Schema) -> Result<(Database, FileJournal), OpenError> {
    let path = resolve(path)?;
    let lock = lock(&path)?;
    match fs::read(&path) {
        Ok(bytes) if bytes.is_empty() => create(path, lock, schema),
        Ok(bytes) => load(path, lock, schema, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, lock, schema),
        Err(source) => Err(OpenError::Io { what: "read", path, source }),
    }
}

/// The file itself behind symbolic links, so that replacing it leaves them alone.
fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let error = |what| move |source| OpenError::Io { what, path: path.to_owned(), source };
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(missing).map_err(error("use"))?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            fs::create_dir_all(directory).map_err(error("make the directory of"))?;
            Ok(fs::canonicalize(directory).map_err(error("find the directory of"))?.join(name))
        }
        Err(source) => Err(error("find")(source)),
    }
}

/// The file that stands for the lock on the database file at `path`. It stays when the lock is given up.
pub fn lock_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.~lock~"))
}

/// Takes the lock that ovsdb-server and ovsdb-tool take too: on `.NAME.~lock~` beside the file.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = lock_path(path);
    let error = |source: io::Error| OpenError::Io { what: "lock", path: lock_path.clone(), source };
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let file = file.map_err(error)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(OpenError::Locked { path: path.to_owned(), owner: lock_owner(&file) });
            }
            Err(errno) => return Err(error(errno.into())),
        }
        // Its last owner may have removed the file since it was opened: then the next would lock another one.
        let locked = file.metadata().map_err(error)?;
        if fs::metadata(&lock_path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()))
        {
            return Ok(file);
        }
    }
}

fn lock_owner(file: &File) -> String {
    let holder = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok().flatten();
    match holder.and_then(|lock| lock.pid) {
        Some(pid) => format!("process {}", pid.as_raw_nonzero()),
        None => "another process".to_owned(),
    }
}

fn create(path: PathBuf, lock: File, schema: Schema) -> Result<(Database, FileJournal), OpenError> {
    let bytes = log::encode(&schema.to_json());
    let length = bytes.len() as u64;
    match OnDisk::replace(&path, &bytes) {
        Ok(file) => Ok((Database::new(schema), FileJournal::new(path, file, length, length, lock)?)),
        Err(source) => Err(OpenError::Io { what: "create", path, source }),
    }
}

/// What stands in the file at `path`, which may be in use, and is neither locked nor changed: the database, and the version
/// of the schema that the file has. What was being written to it at that moment is left out.
pub fn read(path: &Path, schema: Schema) -> Result<(Database, String), OpenError> {
    let path = path.to_owned();
    match fs::read(&path) {
        Ok(bytes) => decode(&path, schema, &bytes).map(|read| (read.db, read.theirs.version)),
        Err(source) => Err(OpenError::Io { what: "read", path, source }),
    }
}

/// A file's content.
struct Content {
    db: Database,
    /// The schema in the file.
    theirs: Schema,
    /// Length of the intact records, in bytes, and what is wrong with what follows.
    intact: usize,
    damage: Option<&'static str>,
    /// Where the records after the snapshot begin.
    base: usize,
}

fn decode(path: &Path, ours: Schema, bytes: &[u8]) -> Result<Content, OpenError> {
    let path = || path.to_owned();
    let Contents { records, intact, damage } = match log::decode(bytes) {
        Ok(contents) => contents,
        Err(damage) => return Err(OpenError::Damaged { path: path(), damage }),
    };
    let Some((first, transactions)) = records.split_first() else {
        let clustered = bytes.starts_with(b"OVSDB CLUSTER ");
        return Err(match clustered {
            true => OpenError::Clustered { path: path() },
            false => OpenError::NotADatabase { path: path() },
        });
    };
    let theirs = match Schema::from_json(&first.json) {
        Ok(schema) => schema,
        Err(error) => return Err(OpenError::Unusable { path: path(), offset: first.offset, error }),
    };
    if theirs.name != ours.name {
        return Err(OpenError::WrongDatabase { path: path(), name: theirs.name, expected: ours.name });
    }
    let mut db = Database::new(ours.merged_with(&theirs));
    let mut base = intact;
    for (number, record) in transactions.iter().enumerate() {
        match record::decode(&db, &record.json) {
            Ok(changes) => db.apply(&changes),
            Err(error) => return Err(OpenError::Unusable { path: path(), offset: record.offset, error }),
        }
        if number == 1 {
            // As in ovsdb-server, the first transaction counts as the snapshot.
            base = record.offset;
        }
    }
    Ok(Content { db, theirs, intact, damage, base })
}

fn load(path: PathBuf, lock: File, ours: Schema, bytes: &[u8]) -> Result<(Database, FileJournal), OpenError> {
    let Content { db, theirs, intact, damage, base } = decode(&path, ours, bytes)?;
    let io_error = |what| {
        let path = path.clone();
        move |source| OpenError::Io { what, path, source }
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error("write to"))?;
    let (length, base) = (intact as u64, base as u64);
    if let Some(what) = damage {
        let (path, lost) = (path.display(), bytes.len() - intact);
        warn!("{path}: the record at byte {intact} is damaged ({what}): cutting off the last {lost} bytes");
        file.set_len(length).and_then(|()| file.sync_all()).map_err(io_error("cut the damaged tail off"))?;
    }
    if *db.schema() == theirs {
        let journal = FileJournal::new(path.clone(), OnDisk::at(&path, file), length, base, lock)?;
        return Ok((db, journal));
    }
    back_up(&path, &theirs.version).map_err(io_error("back up"))?;
    let snapshot = record::snapshot(&db, "converted to another schema version", now());
    let bytes = compacted(&db.schema().to_json(), &snapshot);
    let file = OnDisk::replace(&path, &bytes).map_err(io_error("convert"))?;
    let length = bytes.len() as u64;
    info!("{}: converted from schema {} to {}", path.display(), theirs.version, db.schema().version);
    Ok((db, FileJournal::new(path, file, length, length, lock)?))
}

/// Copies the file as it is beside itself, unless a copy of that version is there already.
fn back_up(path: &Path, version: &str) -> io::Result<()> {
    let mut backup = path.as_os_str().to_owned();
    backup.push(format!(".backup{version}"));
    if !Path::new(&backup).exists() {
        fs::copy(path, &backup)?;
        File::open(&backup)?.sync_all()?;
    }
    Ok(())
}

/// A file's content that is a snapshot alone.
fn compacted(schema: &Value, snapshot: &Value) -> Vec<u8> {
    let mut bytes = log::encode(schema);
    bytes.extend(log::encode(snapshot));
    bytes
}

/// In milliseconds since 1970.
fn now() -> Option<i64> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_millis()).ok()
}

impl FileJournal {
    fn new(
        path: PathBuf,
        file: OnDisk,
        length: u64,
        base: u64,
        lock: File,
    ) -> Result<FileJournal, OpenError> {
        match Syncer::start(path.display().to_string(), Arc::new(file), length, base) {
            Ok(syncer) => Ok(FileJournal { path, syncer, _lock: lock }),
            Err(source) => Err(OpenError::Io { what: "start a thread for", path, source }),
        }
    }
}

impl Journal for FileJournal {
    fn append(&mut self, record: &Value) -> io::Result<()> {
        let path = self.path.display();
        if self.failing() {
            return Err(io::Error::other(format!("{path}: the disk does not keep what was changed before")));
        }
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{path}: write failed ({error})"));
        self.syncer.append(&log::encode(record)).map_err(named)
    }

    fn appended(&self) -> u64 {
        self.syncer.written()
    }

    fn durable(&self) -> u64 {
        self.syncer.durable()
    }

    fn failing(&self) -> bool {
        self.syncer.failing()
    }

    fn on_durable(&mut self, wake: Wake) {
        self.syncer.on_change(wake);
    }

    fn wants_compaction(&self) -> bool {
        let (length, base) = self.syncer.lengths();
        length > 2 * base + COMPACT_MIN_GROWTH
    }

    fn compact(&mut self, schema: &Value, snapshot: &Value) {
        self.syncer.rewrite(compacted(schema, snapshot));
    }

    fn date(&self) -> Option<i64> {
        now()
    }
}
