//! `underpass keys`: the keys of live SAs in files that Wireshark reads, for an operator who asks for them.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use zeroize::Zeroizing;

use crate::appctl;
use crate::ipsec::keys::{ESP_TABLE, IKE_TABLE, Tables};
use crate::rundir::VSWITCHD;
use crate::unixctl::commands::ipsec::EXPORT_KEYS;

/// Asks the daemon in `rundir` for its keys and writes them to `dir`, which is made if need be. Files that are there are
/// replaced only by `force`.
pub fn export(rundir: &Path, dir: &Path, force: bool) -> anyhow::Result<()> {
    // Before the daemon hands out anything
    let there = [ESP_TABLE, IKE_TABLE].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
    if let Some(path) = there.filter(|_| !force) {
        bail!("{} is there already: name another directory, or replace it with --force", path.display());
    }
    let answer = appctl::call(VSWITCHD, EXPORT_KEYS, &[], rundir).map_err(anyhow::Error::msg)?;
    let answer = Zeroizing::new(answer);
    let tables: Tables = serde_json::from_str(&answer).context("the daemon's answer makes no sense")?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    for (name, table) in [(ESP_TABLE, &tables.esp_sa), (IKE_TABLE, &tables.ikev2_decryption_table)] {
        let path = dir.join(name);
        write(&path, table, force).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// For its owner alone from the first byte on, and never into a file or through a link that somebody else has put there.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    if force {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_are_their_owners_alone_and_new() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join(ESP_TABLE), dir.path().join("elsewhere"));
        write(&path, "one", false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&path, "two", false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        write(&path, "two", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        std::fs::write(&elsewhere, "left alone").unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(write(&path, "three", false).is_err());
        write(&path, "three", true).unwrap();
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"left alone");
        let refused = export(dir.path(), dir.path(), false).unwrap_err();
        assert!(refused.to_string().ends_with("replace it with --force"), "{refused}");
    }
}
