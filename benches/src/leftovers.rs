//! What bears this harness's name on the machine, and cleaning up after a run that was killed.

use std::fs;
use std::path::Path;

use crate::netns;

/// A name for a namespace or directory of this run: it tells whose it is.
pub fn name(what: &str) -> String {
    format!("{PREFIX}{}-{what}", std::process::id())
}

/// Removes what runs that are no more have left: namespaces, with the processes in them, and temporary directories.
pub fn remove() {
    for ns in orphans(Path::new(netns::DIR)) {
        eprintln!("removing {ns}, left by a run that was killed");
        netns::remove(&ns);
    }
    let tmp = std::env::temp_dir();
    for dir in orphans(&tmp) {
        let _ = fs::remove_dir_all(tmp.join(dir));
    }
}

const PREFIX: &str = "upbench";

/// Names in `dir` whose owner does not run any more.
fn orphans(dir: &Path) -> Vec<String> {
    let names =
        fs::read_dir(dir).into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter(|n| owner(n).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_names() {
        assert_eq!(owner(&name("hA")), Some(std::process::id()));
        for other in ["upbench", "upbench-hA", "upbenchx-hA", "upbench7", "docker7-hA"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn finds_only_orphans() {
        let dir = tempfile::tempdir().unwrap();
        // pid_max is at most 2^22
        let (mine, gone, other) = (name("x"), format!("{PREFIX}9999999-x"), "x9999999-x".to_owned());
        for n in [&mine, &gone, &other] {
            fs::create_dir(dir.path().join(n)).unwrap();
        }
        assert_eq!(orphans(dir.path()), [gone]);
        assert!(orphans(Path::new("/nonexistent")).is_empty());
    }
}
