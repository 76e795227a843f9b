//! Files with keys and certificates: read once, and again when they have changed.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::devices::reason;

/// Longest file that is read. A chain of certificates takes a few kilobytes.
const MOST: u64 = 256 * 1024;

/// Tells whether a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, u64, i64, i64, i64, i64)>);

impl Stamp {
    fn of(m: &Metadata) -> Stamp {
        Stamp(Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())))
    }
}

/// What the file system says of files, asked once for each in a round.
#[derive(Debug, Default)]
pub struct Files {
    seen: HashMap<PathBuf, Stamp>,
}

impl Files {
    /// Another round begins: files may have changed.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Which file is at `path` now, if any.
    pub fn stamp(&mut self, path: &Path) -> Stamp {
        if let Some(stamp) = self.seen.get(path) {
            return *stamp;
        }
        let stamp = std::fs::metadata(path).map_or(Stamp(None), |m| Stamp::of(&m));
        self.seen.insert(path.to_owned(), stamp);
        stamp
    }
}

/// Reads a file whole. `secret`: nobody but its owner should be able to, and if others are there is a warning. The error
/// names neither the file nor its role.
pub fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    if !path.is_absolute() {
        return Err("not an absolute path".into());
    }
    let (bytes, mode) = open_and_read(path).map_err(|e| reason(&e))?;
    if secret && mode & 0o044 != 0 {
        tracing::warn!(
            "{}: others than its owner can read this secret (mode {:04o})",
            path.display(),
            mode & 0o7777
        );
    }
    Ok(bytes)
}

fn open_and_read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // A FIFO that nobody writes to must not hold us up
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MOST {
        return Err(io::Error::other("too long to be a key or a certificate"));
    }
    // Room for all of it at once: what a growing buffer leaves behind would not be wiped
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize));
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_noticed_in_the_next_round() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psk");
        let mut files = Files::default();
        let absent = files.stamp(&path);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(files.stamp(&path), absent, "one round, one answer");
        files.forget();
        let first = files.stamp(&path);
        assert_ne!(first, absent);
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        files.forget();
        assert_ne!(files.stamp(&path), first);
        assert_eq!(*read(&path, false).unwrap(), b"two");
    }

    #[test]
    fn what_cannot_be_a_key_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("long"), vec![b'x'; MOST as usize + 1]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        for (path, why) in [
            ("relative".into(), "not an absolute path"),
            (at("absent"), "No such file or directory"),
            (dir.path().to_owned(), "not a regular file"),
            (at("fifo"), "not a regular file"),
            (at("long"), "too long to be a key or a certificate"),
        ] {
            assert_eq!(read(&path, true), Err(why.to_owned()), "{}", path.display());
        }
    }
}
