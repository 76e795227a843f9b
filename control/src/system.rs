//! `Open_vSwitch.statistics`: how the host fares, for those who ask for it by `other_config:enable-statistics=true`.

use std::fs;
use std::path::Path;

use ovsdb::{Database, Datum, RowUpdate};
use rustix::fs::statvfs;

/// Kinds of file systems that hold nothing of the host's own.
const ELSEWHERE: [&str; 8] = ["afs", "cifs", "nfs", "nfs4", "smb3", "squashfs", "iso9660", "autofs"];

/// The column as it is to be: empty where nobody asks for it. `started` is when this process was, in milliseconds before now.
pub fn statistics(db: &Database, started: u128) -> Option<RowUpdate> {
    let (row, root) = db.rows("Open_vSwitch").next()?;
    let asked = root.map_get("other_config", "enable-statistics") == Some("true");
    let pairs = if asked { read(Path::new("/proc"), started) } else { Vec::new() };
    Some(RowUpdate { table: "Open_vSwitch", row, columns: vec![("statistics", Datum::map(pairs))] })
}

/// What can be told; the rest is left out.
fn read(proc: &Path, started: u128) -> Vec<(&'static str, String)> {
    let file = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map(|n| n.to_string()).ok();
    let pairs = [
        ("cpu", cpus),
        ("load_average", load_average(&file("loadavg"))),
        ("memory", memory(&file("meminfo"))),
        ("process_ovs-vswitchd", process(&file("self/stat"), started)),
        ("file_systems", file_systems(&file("self/mounts"))),
    ];
    pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Of 1, 5 and 15 minutes.
fn load_average(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    (words.len() == 3).then(|| words.join(","))
}

/// In KiB: all, in use, of that cache and buffers, swap, swap in use.
fn memory(text: &str) -> Option<String> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (total, free) = (field("MemTotal")?, field("MemFree")?);
    let cached = field("Buffers")?.saturating_add(field("Cached")?);
    let (swap, swap_free) = (field("SwapTotal")?, field("SwapFree")?);
    let (used, swapped) = (total.saturating_sub(free), swap.saturating_sub(swap_free));
    Some(format!("{total},{used},{cached},{swap},{swapped}"))
}

/// Virtual and resident memory in KiB, milliseconds of processor time, crashes, milliseconds since the first and since the last start.
fn process(stat: &str, started: u128) -> Option<String> {
    // behind the name, which may hold anything: state is the third field
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let cpu = field(14)?.saturating_add(field(15)?).saturating_mul(1000) / ticks;
    let (virt, pages) = (field(23)? / 1024, field(24)?);
    let resident = pages.saturating_mul(rustix::param::page_size() as u64) / 1024;
    // the documentation does not tell of the seventh: the processor that it last ran on
    let core = field(39).unwrap_or(0);
    Some(format!("{virt},{resident},{cpu},0,{started},{started},{core}"))
}

/// Local ones that can be written to: where, size, in use; in KiB.
fn file_systems(mounts: &str) -> Option<String> {
    let mut seen = Vec::new();
    let mut told = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(at), Some(kind), Some(options)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // a device: what has none is not on a disk
        let local = device.starts_with('/') && !ELSEWHERE.contains(&kind);
        if !local || options.split(',').any(|o| o == "ro") || seen.contains(&device) {
            continue;
        }
        let Ok(fs) = statvfs(at) else { continue };
        seen.push(device);
        let kib = |blocks: u64| blocks.saturating_mul(fs.f_frsize) / 1024;
        let at = at.replace([',', ' '], "_");
        told.push(format!("{at},{},{}", kib(fs.f_blocks), kib(fs.f_blocks.saturating_sub(fs.f_bfree))));
    }
    (!told.is_empty()).then(|| told.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        assert_eq!(load_average("0.12 1.00 2.34 1/234 5678\n").as_deref(), Some("0.12,1.00,2.34"));
        assert_eq!(load_average("0.12"), None);
        let meminfo = "MemTotal: 1000 kB\nMemFree: 400 kB\nBuffers: 20 kB\nCached: 100 kB\nSwapCached: 9 kB\n\
                       SwapTotal: 50 kB\nSwapFree: 45 kB\n";
        assert_eq!(memory(meminfo).as_deref(), Some("1000,600,120,50,5"));
        assert_eq!(memory("MemTotal: many"), None);
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 200 100 0 0 20 0 9 0 5 2048000 10 0";
        let page = rustix::param::page_size() as u64 / 1024;
        let ticks = rustix::param::clock_ticks_per_second();
        let want = format!("2000,{},{},0,77,77,0", 10 * page, 300_000 / ticks);
        assert_eq!(process(stat, 77), Some(want));
        assert_eq!(process("7 (a", 77), None);
        assert_eq!(
            file_systems("proc /proc proc rw 0 0\n/dev/a /nosuch-place ext4 rw 0 0\n/dev/a / ext4 ro 0 0"),
            None
        );
        let root = file_systems("/dev/a / ext4 rw,relatime 0 0\n/dev/a /tmp ext4 rw 0 0").unwrap();
        assert_eq!((root.split(',').next(), root.split(',').count()), (Some("/"), 3), "{root}");
    }

    #[test]
    fn all_of_it_is_told_here() {
        let keys: Vec<&str> = read(Path::new("/proc"), 5).into_iter().map(|(key, _)| key).collect();
        for key in ["cpu", "load_average", "memory", "process_ovs-vswitchd"] {
            assert!(keys.contains(&key), "{keys:?}");
        }
        assert!(read(Path::new("/nosuch"), 5).iter().all(|(key, _)| *key == "cpu"));
    }
}
