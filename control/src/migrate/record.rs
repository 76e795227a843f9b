//! What is kept of a migration beside the database: a dated copy of it, and how to go back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::addresses::Kept;
use super::programs::OpenVswitch;
use crate::logging::pattern::strftime;

/// What the names of copies made of Open vSwitch's database go on with.
const OF_OVS: &str = "openvswitch";
/// And of ours, before one of Open vSwitch's takes its place.
const OF_OURS: &str = "underpass";
/// What the record's name adds to that of its copy.
const RECORD: &str = ".json";

/// How it was before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The copy of the database.
    pub copy: PathBuf,
    /// Who ran, and how.
    pub ovs: OpenVswitch,
    /// What the internal ports had.
    pub kept: Vec<Kept>,
}

impl Record {
    /// Writes down how it is. The copy is made later, when nobody writes to the database any more.
    pub fn write(ovs: OpenVswitch, kept: Vec<Kept>) -> anyhow::Result<Record> {
        let record = Record { copy: dated(&ovs.db, OF_OVS), ovs, kept };
        let path = suffixed(&record.copy, RECORD);
        let text = serde_json::to_vec_pretty(&record)?;
        // The programs' arguments are nobody else's business
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            let written = file.write_all(&text).and_then(|()| file.sync_all());
            written.inspect_err(|_| drop(fs::remove_file(&path)))
        });
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(record)
    }

    /// The newest one beside the database.
    pub fn newest(db: &Path) -> anyhow::Result<Record> {
        let directory = db.parent().unwrap_or(Path::new("/"));
        let start = format!("{}.{OF_OVS}-", db.file_name().unwrap_or_default().to_string_lossy());
        let entries =
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let newest = names.filter(|name| name.starts_with(&start) && name.ends_with(RECORD)).max();
        let newest = newest.with_context(|| {
            format!(
                "there is no {}*{RECORD}, which says what to go back to: end Underpass and start Open vSwitch, which \
                 can read the database as it is",
                directory.join(start).display()
            )
        })?;
        let path = directory.join(newest);
        let unread = || format!("cannot read {}", path.display());
        // What it names is started, by root
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).with_context(unread)?;
        let metadata = file.metadata().with_context(unread)?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        ensure!(
            is_ours,
            "{} is not trusted: it must belong to root, and nobody else may write it",
            path.display()
        );
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(unread)?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no record of a migration", path.display()))
    }

    /// Copies the database.
    pub fn back_up(&self) -> anyhow::Result<()> {
        copy(&self.ovs.db, &self.copy)
    }

    /// Where things are when all fails, in words.
    pub fn rests(&self) -> String {
        let schema = ovsdb::open_vswitch::schema;
        let whole = [&self.ovs.db, &self.copy].into_iter().find(|path| ovsdb::read(path, schema()).is_ok());
        let record = suffixed(&self.copy, RECORD);
        match whole {
            Some(db) => format!(
                "Nothing is lost: the configuration is in {}, and the addresses of its ports are in {}; start Open vSwitch \
                 and put them back",
                db.display(),
                record.display()
            ),
            None => format!("The addresses of the ports are in {}", record.display()),
        }
    }

    /// Puts a copy in the database's place, which stays as it is if that fails.
    pub fn restore(&self, from: &Path) -> anyhow::Result<()> {
        let new = suffixed(&self.ovs.db, ".new");
        let _ = fs::remove_file(&new);
        copy(from, &new)?;
        fs::rename(&new, &self.ovs.db).with_context(|| format!("cannot replace {}", self.ovs.db.display()))
    }
}

/// Copies what is ours by now, before Open vSwitch goes on with it or with its own. Gives the copy.
pub fn back_up_ours(db: &Path) -> anyhow::Result<PathBuf> {
    let to = dated(db, OF_OURS);
    copy(db, &to).map(|()| to)
}

fn dated(db: &Path, whose: &str) -> PathBuf {
    let base = suffixed(db, &format!(".{whose}-{}", strftime("%Y%m%dT%H%M%SZ", SystemTime::now())));
    // Never over another
    let taken = |path: &Path| path.exists() || suffixed(path, RECORD).exists();
    let mut path = base.clone();
    let mut next = 'a'..='z';
    while taken(&path)
        && let Some(letter) = next.next()
    {
        path = suffixed(&base, &letter.to_string());
    }
    path
}

/// With the mode and owner of the original, durably. A copy that is there is whole.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let half = suffixed(to, ".half");
    let _ = fs::remove_file(&half);
    let copied = File::open(from).and_then(|mut original| {
        let metadata = original.metadata()?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(metadata.mode() & 0o7777).open(&half)?;
        io::copy(&mut original, &mut file)?;
        fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        file.sync_all()?;
        fs::rename(&half, to)
    });
    let _ = fs::remove_file(&half);
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
