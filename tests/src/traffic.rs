//! Traffic between two places, and what became of it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{self, Out};
use crate::daemon::Daemon;
use crate::engine::Container;
use crate::netns;
use crate::topology::{Host, Place};

/// How long a program may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// `ping` with the words of `args`, whatever its status.
#[track_caller]
pub fn try_ping(from: &dyn Place, args: &str) -> Out {
    cli::output(from.cmd("timeout").args(["30", "ping", "-n"]).args(args.split_whitespace()))
}

/// `count` pings to `ip` must all be answered.
#[track_caller]
pub fn ping(from: &dyn Place, ip: &str, count: u32) {
    answered(from, count, &format!("-i 0.05 {ip}"));
}

/// The first `count` pings with the words of `args` must all be answered; gives what ping says. After the last it would wait no
/// longer than twice the longest round trip so far, and call what is late lost: so it may send more until it has as many answers.
#[track_caller]
pub fn answered(from: &dyn Place, count: u32, args: &str) -> String {
    let out = try_ping(from, &format!("-c {count} -w 20 {args}"));
    let answers: Vec<&str> = out.stdout.lines().filter(|line| line.contains(" bytes from ")).collect();
    let came = |n: u32| answers.iter().any(|line| line.contains(&format!("icmp_seq={n} ")));
    assert!((1..=count).all(came), "{out:?}");
    out.stdout
}

/// Pings every 20 ms until it is asked what came of it.
#[derive(Debug)]
pub struct Pings(Child);

impl Pings {
    /// Begins.
    #[track_caller]
    pub fn start(from: &dyn Place, ip: &str) -> Pings {
        let mut ping = from.bound("ping");
        ping.args(["-n", "-q", "-i", "0.02", ip]).stdin(Stdio::null()).stdout(Stdio::piped());
        Pings(ping.spawn().expect("ping"))
    }

    /// How many were sent, and how many answered.
    #[track_caller]
    pub fn end(self) -> (u32, u32) {
        cli::signal(self.0.id(), "INT");
        let out = self.0.wait_with_output().expect("ping's output");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = text.lines().find(|l| l.contains("packets transmitted")).expect("ping's count").to_owned();
        let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let counts = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        println!("{} ms without answers", (counts.0 - counts.1) * 20);
        counts
    }
}

/// Waits until something listens on `port` (`proto`: "tcp" or "udp").
#[track_caller]
pub fn listening(at: &dyn Place, proto: &str, port: u16) {
    let flag = if proto == "tcp" { "-Htln" } else { "-Huln" };
    let start = Instant::now();
    loop {
        let out = cli::run(at.cmd("ss").args([flag, &format!("sport = :{port}")]));
        if !out.trim().is_empty() {
            return;
        }
        if start.elapsed() > LISTENS_WITHIN {
            let sockets = cli::output(at.cmd("ss").args(["-Hanup"]));
            let processes =
                cli::output(Command::new("ps").args(["-eo", "pid,ppid,stat,etime,wchan:20,args"]));
            panic!(
                "nobody listens on {proto} port {port} after {LISTENS_WITHIN:?}\n{sockets:?}\n{}",
                processes.stdout
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says 'Hello' from one container to another by the image's nc; gives what arrived.
#[track_caller]
pub fn hello(from: &Container, to: &Container) -> String {
    // its standard input stays open (-i): at the end of it nc would say goodbye before the other side has spoken
    let mut server = to.docker_exec(&["-i"], &["/bin/nc", "-l", "-p", "5000"]);
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("docker exec");
    listening(to, "tcp", 5000);
    let stdin = server.stdin.take();
    let out = from.exec(&["/bin/sh", "-c", &format!("echo Hello | nc -w 5 {} 5000", to.ip)]);
    assert!(out.success(), "{out:?}");
    let got = server.wait_with_output().expect("nc's output");
    drop(stdin);
    String::from_utf8_lossy(&got.stdout).trim().to_owned()
}

/// iperf3 from `client` to `server` at `ip` with the words of `args`; gives the client's report.
#[track_caller]
pub fn iperf3(client: &dyn Place, server: &dyn Place, ip: &str, args: &str) -> Value {
    let mut s = server
        .bound("iperf3")
        .args(["-s", "-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("iperf3");
    listening(server, "tcp", 5201);
    let mut c = client.cmd("timeout");
    c.args(["60", "iperf3", "-J", "-c", ip, "--connect-timeout", "5000"]).args(args.split_whitespace());
    let out = cli::output(&mut c);
    let _ = s.kill();
    let _ = s.wait();
    let report: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert!(out.success(), "iperf3: {} ({})", report["error"], out.line);
    report
}

/// Megabits per second that arrived, of a TCP report.
pub fn mbit(report: &Value) -> f64 {
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
}

/// What became of a numbered UDP stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stream {
    /// Datagrams that arrived, duplicates aside.
    pub received: u64,
    /// Numbers that never came, up to the highest that did.
    pub lost: u64,
    /// Came more than once.
    pub duplicates: u64,
    /// Came after a higher number.
    pub reordered: u64,
    /// Content was not what was sent.
    pub corrupt: u64,
    /// Longest silence within the stream, in milliseconds.
    pub gap_ms: u64,
}

/// A numbered UDP stream to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// To this port.
    pub port: u16,
    /// Datagrams in all.
    pub count: u64,
    /// Bytes of payload in each: from the one to the other, by turns.
    pub sizes: (usize, usize),
    /// Datagrams a second.
    pub rate: u64,
}

/// The two ends of a numbered UDP stream under way.
#[derive(Debug)]
pub struct Sequence {
    takes: Duration,
    sender: Child,
    receiver: Child,
}

impl Sequence {
    /// Sends `count` datagrams of `size` payload bytes, `rate` a second.
    #[track_caller]
    pub fn start(from: &dyn Place, to: &dyn Place, ip: &str, count: u64, size: usize, rate: u64) -> Sequence {
        Sequence::flow(from, to, ip, Flow { port: 17001, count, sizes: (size, size), rate })
    }

    /// Sends a stream.
    #[track_caller]
    pub fn flow(from: &dyn Place, to: &dyn Place, ip: &str, flow: Flow) -> Sequence {
        let Flow { port, count, sizes: (least, most), rate } = flow;
        let (any, dest) = addresses(ip, port);
        let receiver = spawn(to, &["udp-recv", &any]);
        listening(to, "udp", port);
        let sizes = format!("{least}-{most}");
        let sender = spawn(from, &["udp-send", &dest, &count.to_string(), &sizes, &rate.to_string()]);
        let takes = Duration::from_secs(count / rate.max(1));
        Sequence { takes, sender, receiver }
    }

    /// Waits for the end of the stream.
    #[track_caller]
    pub fn finish(mut self) -> Stream {
        let limit = self.takes + Duration::from_secs(60);
        let status = cli::wait(&mut self.sender, limit).expect("the sender ends");
        assert!(status.success(), "the sender: {status}");
        let report = report(self.receiver);
        let n = |k: &str| report[k].as_u64().unwrap_or_else(|| panic!("no {k} in {report}"));
        Stream {
            received: n("received"),
            lost: n("lost"),
            duplicates: n("duplicates"),
            reordered: n("reordered"),
            corrupt: n("corrupt"),
            gap_ms: n("gap_ms"),
        }
    }
}

/// `count` datagrams of `size` payload bytes, `rate` a second; gives what became of them.
#[track_caller]
pub fn udp(from: &dyn Place, to: &dyn Place, ip: &str, count: u64, size: usize, rate: u64) -> Stream {
    Sequence::start(from, to, ip, count, size, rate).finish()
}

/// A TCP transfer of `bytes`, each byte checked on arrival.
#[track_caller]
pub fn tcp(from: &dyn Place, to: &dyn Place, ip: &str, bytes: u64) {
    let transfer = Transfer::start(from, to, ip, 17002, &[bytes.to_string()], Duration::from_secs(120));
    assert_eq!(transfer.finish(), bytes);
}

/// The two ends of a TCP transfer under way.
#[derive(Debug)]
pub struct Transfer {
    limit: Duration,
    sender: Child,
    receiver: Child,
}

impl Transfer {
    /// Sends for so many seconds to that port, as fast as it goes or at most so many megabits a second.
    #[track_caller]
    pub fn lasting(
        from: &dyn Place,
        to: &dyn Place,
        ip: &str,
        port: u16,
        seconds: u64,
        mbps: Option<u64>,
    ) -> Transfer {
        let limit = Duration::from_secs(seconds + 60);
        let much: Vec<String> =
            [Some(format!("{seconds}s")), mbps.map(|n| n.to_string())].into_iter().flatten().collect();
        Transfer::start(from, to, ip, port, &much, limit)
    }

    fn start(
        from: &dyn Place,
        to: &dyn Place,
        ip: &str,
        port: u16,
        much: &[String],
        limit: Duration,
    ) -> Transfer {
        let (any, dest) = addresses(ip, port);
        let receiver = spawn(to, &["tcp-recv", &any]);
        listening(to, "tcp", port);
        let mut words = vec!["tcp-send", &dest];
        words.extend(much.iter().map(String::as_str));
        let sender = spawn(from, &words);
        Transfer { limit, sender, receiver }
    }

    /// Waits for its end; every byte must have arrived as it was sent. Gives how many there were.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        let status = cli::wait(&mut self.sender, self.limit)
            .unwrap_or_else(|| panic!("a TCP transfer takes longer than {:?}", self.limit));
        assert!(status.success(), "the TCP sender: {status}");
        let [sent, report] = [self.sender, self.receiver].map(report);
        assert_eq!(report["bytes"], sent["bytes"], "{report}");
        assert!(report["corrupt_at"].is_null(), "{report}");
        sent["bytes"].as_u64().expect("how many bytes were sent")
    }
}

/// Where to listen, and where to send to, for what goes to `ip`.
fn addresses(ip: &str, port: u16) -> (String, String) {
    match ip.contains(':') {
        true => (format!("[::]:{port}"), format!("[{ip}]:{port}")),
        false => (format!("0.0.0.0:{port}"), format!("{ip}:{port}")),
    }
}

/// What the kernel says it has dropped, for want of room, in each queue of a place: in sockets' buffers and on devices.
pub type Drops = BTreeMap<String, u64>;

/// The drops of a place so far.
#[track_caller]
pub fn drops(at: &dyn Place) -> Drops {
    drops_by(at.cmd("sh"))
}

/// The drops of a host so far, and of the namespace that its daemon keeps docker0's port in.
#[track_caller]
pub fn drops_of_host(host: &Host) -> Drops {
    let mut all = drops(host);
    let pid = host.daemon.as_ref().map_or(0, Daemon::pid);
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let spaces: BTreeMap<_, _> = fds
        .filter_map(|fd| Some((std::fs::read_link(fd.path()).ok()?, fd.path())))
        .filter(|(to, _)| to.to_str().is_some_and(|to| to.starts_with("net:")))
        .collect();
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    for (_, path) in spaces.into_iter().filter(|(to, _)| Some(to) != own.as_ref()) {
        let within = drops_by(netns::enter(path.to_str().expect("a path in UTF-8"), "sh"));
        all.extend(within.into_iter().map(|(queue, n)| (format!("daemon's {queue}"), n)));
    }
    all
}

/// What was dropped between two looks: the queues that dropped anything.
pub fn dropped_since(before: &Drops, now: &Drops) -> Drops {
    let more = now.iter().map(|(queue, n)| (queue.clone(), n - before.get(queue).unwrap_or(&0).min(n)));
    more.filter(|(_, n)| *n > 0).collect()
}

#[track_caller]
fn drops_by(mut shell: Command) -> Drops {
    let script = r#"
        ss -0 -Hanm | sed -nE 's/^p_[a-z]+ +[^ ]+ +[^ ]+ +[^ ]+ +([^ ]+) .*,d([0-9]+)\).*/packet socket \1 = \2/p'
        awk 'FNR > 1 { print "raw socket", $2, "=", $NF }' /proc/net/raw /proc/net/raw6
        awk '$1 == "Udp:" && $2 ~ /[0-9]/ { print "udp receive =", $6; print "udp send =", $7 }' /proc/net/snmp
        awk '$1 ~ /^Udp6(Rcvbuf|Sndbuf)Errors$/ { print $1, "=", $2 }' /proc/net/snmp6
        sed 's/:/ /' /proc/net/dev | awk 'NR > 2 { print $1, "rx =", $5; print $1, "tx =", $13 }'"#;
    let mut all = Drops::new();
    for line in cli::run(shell.args(["-c", script])).lines() {
        let (queue, n) = line.rsplit_once(" = ").unwrap_or_else(|| panic!("no number in {line:?}"));
        let n: u64 = n.trim().parse().unwrap_or_else(|e| panic!("{e}: {line:?}"));
        *all.entry(queue.to_owned()).or_default() += n;
    }
    all
}

fn spawn(at: &dyn Place, args: &[&str]) -> Child {
    let program = cli::helper("traffic");
    at.bound(program.to_str().expect("a path in UTF-8"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the traffic program")
}

#[track_caller]
fn report(child: Child) -> Value {
    let out = child.wait_with_output().expect("its report");
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}
