//! Where the bytes of a database stand, and how another file takes the place of one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Mode of a new file: it may hold tunnels' keys, which are not everybody's to read.
const MODE: u32 = 0o640;

/// A file, or its stand-in in tests.
pub(crate) trait Medium: Send + Sync {
    /// Waits for no disk, as `cut` does not.
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Leaves the first `length` bytes.
    fn cut(&self, length: u64) -> io::Result<()>;

    /// Waits until a host that crashes has all of it afterwards, under its name.
    fn sync(&self) -> io::Result<()>;

    /// Waits until the disk has `bytes` in a medium that is to take the place of this one.
    fn successor(&self, bytes: &[u8]) -> io::Result<Arc<dyn Medium>>;

    /// Ends with `bytes` at `at`, and stands where the one before stood: all of it or, on an error, not at all.
    fn take_place(&self, bytes: &[u8], at: u64) -> io::Result<()>;
}

/// A file on a disk.
#[derive(Debug)]
pub(crate) struct OnDisk {
    file: File,
    /// Its name, or what is going to be its name.
    path: PathBuf,
    /// The disk has it under that name.
    named: AtomicBool,
}

impl OnDisk {
    /// `file` is what stands at `path`.
    pub fn at(path: &Path, file: File) -> OnDisk {
        OnDisk { file, path: path.to_owned(), named: AtomicBool::new(true) }
    }

    /// Puts a file with this content in the place of `path`, there being one or none: all of it or, after a crash, none.
    pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<OnDisk> {
        let new = OnDisk::beside(path, bytes)?;
        new.take_place(&[], bytes.len() as u64)?;
        new.sync()?;
        Ok(new)
    }

    /// Has the disk keep `bytes` in a file that is to replace the one at `path`.
    fn beside(path: &Path, bytes: &[u8]) -> io::Result<OnDisk> {
        let temporary = temporary(path);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // From the beginning: who has it open by then reads on whatever its mode becomes
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(MODE).open(&temporary)?;
        let written = (|| {
            match fs::metadata(path) {
                Ok(old) => {
                    file.set_permissions(old.permissions())?;
                    std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
                }
                Err(_) => file.set_permissions(fs::Permissions::from_mode(MODE))?,
            }
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        })();
        let new = OnDisk { file, path: path.to_owned(), named: AtomicBool::new(false) };
        new.or_nothing(written)?;
        Ok(new)
    }

    /// Takes the file that has no name yet away if something went wrong.
    fn or_nothing(&self, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            // What matters is said by the first error.
            let _ = fs::remove_file(temporary(&self.path));
        }
        done
    }
}

/// What the next file at `path` is called as long as it is not complete.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

impl Medium for OnDisk {
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.named.load(Ordering::Acquire) {
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
            self.named.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn successor(&self, bytes: &[u8]) -> io::Result<Arc<dyn Medium>> {
        Ok(Arc::new(OnDisk::beside(&self.path, bytes)?))
    }

    fn take_place(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, at);
        self.or_nothing(written.and_then(|()| fs::rename(temporary(&self.path), &self.path)))
    }
}
