//! What must be refused, with a clear word, and without harm to anything else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::cli::{self, Out};
use harness::topology::UNDERLAY;
use harness::{Daemon, Host, daemon};

/// Sends bytes to a socket and gives what comes back until the server closes or falls silent.
fn send(socket: &Path, bytes: &[u8]) -> String {
    let mut s = UnixStream::connect(socket).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    s.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = s.write_all(bytes); // the server may close before it has read everything
    let (mut all, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(n) = s.read(&mut buf) {
        if n == 0 {
            break;
        }
        all.extend_from_slice(&buf[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A start that must fail: its status and what it said.
#[track_caller]
fn refused(cmd: &mut Command) -> Out {
    let line = cli::line(cmd);
    let child = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
    });
    let out = child.wait_with_output().unwrap();
    let out = Out {
        line,
        code: out.status.code().unwrap_or(137),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    assert!(out.code != 0 && out.code != 137 && out.code != 101, "it had to refuse: {out:?}");
    out
}

#[test]
fn malformed_json_rpc() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    let sock = a.rundir().join("db.sock");
    let deep = "[".repeat(200_000);
    let cases: [&[u8]; 12] = [
        b"}}}}",
        b"{\"id\":1,\"method\":",
        b"not json at all",
        b"\xff\xfe\x00\x01",
        b"[1,2,3]",
        b"{}",
        b"{\"id\":1}",
        b"{\"id\":1,\"method\":7,\"params\":[]}",
        b"{\"id\":1,\"method\":\"transact\",\"params\":{}}",
        b"{\"id\":1,\"method\":\"transact\",\"params\":[\"Open_vSwitch\",7]}",
        b"{\"id\":1,\"method\":\"monitor\",\"params\":[\"Open_vSwitch\",null,{\"Bridge\":{\"columns\":[1]}}]}",
        deep.as_bytes(),
    ];
    for case in cases {
        send(&sock, case);
        assert_eq!(
            a.vsctl("list-br"),
            "br0",
            "after {:?}",
            String::from_utf8_lossy(&case[..case.len().min(80)])
        );
    }
    let answer = send(&sock, b"{\"id\":9,\"method\":\"no_such_method\",\"params\":[]}");
    assert!(answer.contains("unknown method"), "{answer}");
    // many who connect and say nothing, while another works
    let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(&sock).unwrap()).collect();
    a.vsctl("add-br br1");
    drop(silent);
    // the control socket
    let ctl = a.rundir().join(format!("ovs-vswitchd.{}.ctl", a.daemon.as_ref().unwrap().pid()));
    for case in cases {
        send(&ctl, case);
    }
    let out = cli::output(a.tool("ovs-appctl").arg("no/such"));
    assert_eq!(out.code, 2, "{out:?}");
    assert!(out.stderr.contains("\"no/such\" is not a valid command"), "{out:?}");
    assert_eq!(a.vsctl("list-br"), "br0\nbr1");
}

#[test]
fn transactions_that_cannot_be() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    let transact = |ops: &str| {
        let request = format!("[\"Open_vSwitch\",{ops}]");
        let out = cli::output(a.tool("ovsdb-client").args(["transact", &request]));
        format!("{}{}", out.stdout, out.stderr)
    };
    for (ops, want) in [
        (r#"{"op":"insert","table":"Bridge","row":{"nosuch":1}}"#, "unknown column"),
        (r#"{"op":"insert","table":"Nosuch","row":{}}"#, "No table named Nosuch"),
        (r#"{"op":"insert","table":"Bridge","row":{"name":5}}"#, "expected string"),
        (r#"{"op":"update","table":"Bridge","where":[],"row":{"stp_enable":"yes"}}"#, "expected boolean"),
        (r#"{"op":"update","table":"Port","where":[],"row":{"tag":5000}}"#, "constraint violation"),
        (
            r#"{"op":"update","table":"Port","where":[],"row":{"vlan_mode":"bogus"}}"#,
            "is not one of the allowed values",
        ),
        (r#"{"op":"update","table":"Interface","where":[],"row":{"name":"other"}}"#, "immutable column name"),
        (r#"{"op":"nosuch"}"#, "syntax error"),
        (r#"{"op":"insert","table":"Open_vSwitch","row":{}}"#, "greater than the schema-defined limit of 1"),
    ] {
        let answer = transact(ops);
        assert!(answer.contains(want), "{ops}: {answer}, not {want:?}");
    }
    assert_eq!(a.vsctl("list-br"), "br0");
    assert_eq!(a.vsctl("get port br0 tag"), "[]");
}

#[test]
fn remote_ip_that_is_no_address() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    harness::topology::cable(&hosts, 1500);
    let a = &mut hosts[0];
    a.start();
    a.vsctl("add-br br0");
    for options in [
        "options:remote_ip=nonsense",
        "options:remote_ip=192.0.2.300",
        "",
        "options:remote_ip=192.0.2.2 options:key=x",
    ] {
        let out = a.try_vsctl(&format!("add-port br0 gre0 -- set interface gre0 type=gre {options}"));
        assert!(out.stderr.contains("Error detected while setting up 'gre0'"), "{options}: {out:?}");
        assert_eq!(a.get("interface", "gre0", "ofport"), "-1", "{options}");
        let error = a.get("interface", "gre0", "error");
        assert!(error.contains("remote_ip") || error.contains("key"), "{options}: {error}");
        a.vsctl("del-port br0 gre0");
    }
    a.gre("gre0", UNDERLAY[1], "");
    assert_eq!(a.get("interface", "gre0", "error"), "[]");
}

#[test]
fn a_database_with_a_damaged_end() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    a.vsctl("add-br br1");
    a.stop();
    let whole = std::fs::read(a.conf_db()).unwrap();
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 10);
    let mut longer = whole.clone();
    longer.extend_from_slice(b"OVSDB JSON 100 0123456789012345678901234567890123456789\n{\"half\":");
    let mut garbage = whole.clone();
    garbage.extend_from_slice(&[0xff; 100]);
    for (name, bytes) in [("cut", cut), ("half a record", longer), ("garbage", garbage)] {
        std::fs::write(a.conf_db(), &bytes).unwrap();
        a.start();
        assert_eq!(a.vsctl("list-br"), "br0\nbr1", "{name}");
        assert!(a.log().contains("conf.db"), "{name}: a warning names the file: {}", a.log());
        a.vsctl("add-br br2");
        a.stop();
        a.start();
        assert_eq!(a.vsctl("list-br"), "br0\nbr1\nbr2", "{name}: written after the damage, and read");
        a.vsctl("del-br br2");
        a.stop();
    }
}

#[test]
fn a_database_damaged_in_the_middle() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    a.vsctl("add-br br1");
    a.vsctl("add-br br2");
    a.stop();
    let whole = std::fs::read(a.conf_db()).unwrap();
    let at = whole.windows(4).position(|w| w == b"br1\"").unwrap();
    let mut flipped = whole.clone();
    flipped[at] ^= 0x20;
    let cases = [
        ("a flipped bit", flipped, "at byte "),
        ("another file", b"hello, I am no database\n".to_vec(), "no database"),
    ];
    for (name, bytes, why) in cases {
        std::fs::write(a.conf_db(), &bytes).unwrap();
        let out = refused(&mut Daemon::command(&a.ns, a.rundir()));
        assert!(out.stderr.contains("conf.db") && out.stderr.contains(why), "{name}: {out:?}");
        assert_eq!(std::fs::read(a.conf_db()).unwrap(), bytes, "{name}: the file is not touched");
    }
    std::fs::write(a.conf_db(), &whole).unwrap();
    a.start();
    assert_eq!(a.vsctl("list-br"), "br0\nbr1\nbr2");
}

#[test]
fn privileges_that_are_missing() {
    let a = Host::new("hA", 11);
    let binary = daemon::underpass();
    for (drop, name) in [("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW")] {
        let mut c = a.ns.bound("setpriv");
        c.args(["--bounding-set", drop]).arg(&binary).arg("vswitchd");
        c.arg("--rundir").arg(a.rundir()).arg("--db").arg(a.conf_db());
        let out = refused(&mut c);
        assert!(out.stderr.contains(name), "{out:?}");
    }
}

#[test]
fn a_run_directory_in_use() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    let pid = a.daemon.as_ref().unwrap().pid().to_string();
    let out = refused(&mut Daemon::command(&a.ns, a.rundir()));
    assert!(out.stderr.contains(&pid), "it names the owner's pid {pid}: {out:?}");
    assert_eq!(a.vsctl("list-br"), "br0", "the first goes on");
}

#[test]
fn paths_and_words_that_do_not_exist() {
    let a = Host::new("hA", 11);
    let binary = daemon::underpass();
    let run = |args: &[&str]| {
        refused(a.ns.bound(binary.to_str().unwrap()).args(args).env("OVS_RUNDIR", a.rundir()))
    };
    let rundir = a.rundir().to_str().unwrap();
    let out = run(&["vswitchd", "--rundir", rundir, "--db", "/no/such/dir/conf.db"]);
    assert!(out.stderr.contains("/no/such/dir"), "{out:?}");
    assert_eq!(run(&["nosuch"]).code, 2);
    assert_eq!(run(&["up", "docker0"]).code, 2);
    let out = run(&["up", "nosuch0", "--remote", "192.0.2.2", "--rundir", rundir]);
    assert!(out.stderr.contains("nosuch0"), "{out:?}");
    let out = run(&["up", "docker0", "--remote", "nonsense", "--rundir", rundir]);
    assert!(out.stderr.contains("nonsense"), "{out:?}");
    let out = run(&["attach", "docker0", "--rundir", rundir]);
    assert!(!out.stderr.is_empty(), "no daemon to talk to: {out:?}");
}

/// Somebody's file is where a bridge's socket goes: it is left alone, the log says so, and once it is gone the socket comes.
#[test]
fn a_file_where_a_socket_goes() {
    let mut a = Host::new("hA", 11);
    a.start();
    let path = a.rundir().join("br0.mgmt");
    std::fs::write(&path, "mine").unwrap();
    a.vsctl("add-br br0");
    cli::poll("a word about it", || a.log().contains("br0: no socket for ovs-ofctl").then_some(()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    std::fs::remove_file(&path).unwrap();
    cli::poll("ovs-ofctl", || {
        let shown = cli::output(a.tool("ovs-ofctl").args(["show", "br0"]));
        shown.stdout.contains("LOCAL(br0)").then_some(())
    });
}
