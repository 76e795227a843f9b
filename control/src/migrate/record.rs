//! What is kept of a migration beside the database: a dated copy of it, and how to go back.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
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
        let written = file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
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
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no record of a migration", path.display()))
    }

    /// Copies the database.
    pub fn back_up(&self) -> anyhow::Result<()> {
        copy(&self.ovs.db, &self.copy)
    }

    /// Puts the copy in the database's place.
    pub fn restore(&self) -> anyhow::Result<()> {
        let new = suffixed(&self.ovs.db, ".new");
        let _ = fs::remove_file(&new);
        copy(&self.copy, &new)?;
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

/// With the modes of the original, durably.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = fs::copy(from, to).and_then(|_| {
        let metadata = fs::metadata(from)?;
        let (owner, group) =
            (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata));
        std::os::unix::fs::chown(to, Some(owner), Some(group))?;
        File::open(to)?.sync_all()
    });
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
