//! The stock tools against Underpass and against the real Open vSwitch: same words, same status. What still differs is
//! listed, with its reason, in docs/compatibility.md; this test reads that list, and fails on a difference that is not
//! in it and on an entry that no longer differs.
//! ```text
//!   stock ovs-vsctl, ovs-appctl, ovsdb-client ──> [ Underpass                    p0 p1 p2 ]
//!                                       └───────> [ ovsdb-server, ovs-vswitchd   p0 p1 p2 ]
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::cli::{self, Out};
use harness::ovs::{Ovs, normalise, same};
use harness::{Host, Netns};

/// One after the other on each side. `⏎` stands for a newline, `␠` for a blank within a word.
const COMMANDS: &str = include_str!("vsctl_table.txt");

/// A host with three devices that look the same on both sides.
fn host(tag: &str) -> (Host, Netns) {
    let (host, far) = (Host::new(tag, 11), Netns::new("far"));
    for i in 0..3 {
        host.ns.veth(&format!("p{i}"), &far, &format!("q{i}"), 1500);
        host.ns.sh(&format!("ip link set p{i} address 02:00:00:00:00:0{i}"));
    }
    // no chatter: counters and tables stay as the commands leave them
    host.ns.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    far.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    (host, far)
}

fn run(host: &Host, line: &str) -> Out {
    let words: Vec<String> =
        line.split_whitespace().map(|w| w.replace('␠', " ").replace('⏎', "\n")).collect();
    let mut c = host.tool(&words[0]);
    let mut out = cli::output(c.args(&words[1..]));
    out.stdout = normalise(&out.stdout, host);
    out.stderr = normalise(&out.stderr, host);
    out
}

/// How long either switch may take to write what it has come to into its rows.
const LATE: Duration = Duration::from_secs(20);

/// Whether a command can be asked again and changes nothing.
fn only_asks(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let shows =
        |word: &str| ["get", "list", "show", "dump-", "queue-"].iter().any(|start| word.starts_with(start));
    match words[..] {
        ["ovs-vsctl", what, ..] => ["get", "list", "show"].contains(&what),
        ["ovs-ofctl", ..] => words.iter().any(|word| shows(word)),
        ["ovs-appctl", what, ..] => what.split_once('/').is_some_and(|(_, what)| shows(what)),
        _ => false,
    }
}

/// The commands that docs/compatibility.md lists: the first cell of each row of its tables, when it is code.
fn listed() -> BTreeSet<String> {
    let doc = include_str!("../../docs/compatibility.md");
    doc.lines()
        .filter_map(|l| {
            l.strip_prefix("| `")?.split_once("` |").map(|(command, _)| command.replace("\\|", "|"))
        })
        .collect()
}

#[test]
fn stock_tools_see_no_difference() {
    let ((mut ours, _far1), (real, _far2)) = (host("ours"), host("real"));
    let _ovs = Ovs::start(&real);
    ours.start();
    // what ovs-ctl, not ovs-vswitchd, writes there
    real.vsctl(&format!("--no-wait set open . ovs_version={}", ours.get("open", ".", "ovs_version")));
    let listed = listed();
    let mut differ = BTreeSet::new();
    let mut report = String::new();
    let mut count = 0;
    for line in COMMANDS.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        count += 1;
        let both = || (run(&ours, line), run(&real, line));
        let (mut got, mut want) = both();
        let until = Instant::now() + LATE;
        while !same(&got, &want) && only_asks(line) && !listed.contains(line) && Instant::now() < until {
            (got, want) = both();
        }
        if !same(&got, &want) {
            differ.insert(line.to_owned());
            if !listed.contains(line) {
                report +=
                    &format!("\n### {line}\nOpen vSwitch: {}\nUnderpass:    {}\n", show(&want), show(&got));
            }
        }
    }
    assert!(report.is_empty(), "{report}\n{}", ours.log());
    let commands: BTreeSet<&str> = COMMANDS.lines().map(str::trim).collect();
    let stale: Vec<&String> =
        listed.iter().filter(|l| commands.contains(l.as_str()) && !differ.contains(*l)).collect();
    assert!(stale.is_empty(), "docs/compatibility.md lists what no longer differs: {stale:#?}");
    println!("{count} commands, {} listed differences", differ.len());
}

fn show(o: &Out) -> String {
    format!("status {}\n{}{}", o.code, o.stdout, o.stderr)
}
