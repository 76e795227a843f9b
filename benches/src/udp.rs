//! Small packets: the highest rate that arrives with less than one per cent lost, and the round trip on an idle link.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::interrupted;
use crate::noise;
use crate::stats::quantile;
use crate::topo::Topology;

/// Bytes of UDP payload.
pub const PAYLOAD: usize = 64;
const BATCH: usize = 64;
const TRIAL: Duration = Duration::from_millis(400);
/// The receiver gives up when nothing arrives for this long.
const SILENCE: Duration = Duration::from_millis(60);
const PINGS: usize = 20_000;
const PING_TIME: Duration = Duration::from_secs(1);
/// Length of [`trickle`].
const TRICKLE: Duration = Duration::from_secs(1);
const WARM_UP_PINGS: usize = 200;

/// What one trial at one rate gave.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trial {
    sent: u64,
    received: u64,
    /// Packets sent a second, in fact.
    rate: f64,
}

impl Trial {
    /// Sent about as fast as asked, and less than one per cent lost.
    fn passed(&self, asked: f64) -> bool {
        self.rate > 0.97 * asked && self.received as f64 > 0.99 * self.sent as f64
    }
}

/// Parts of a hundred that the distribution of round-trip times is told at.
pub const PERCENTILES: [f64; 13] =
    [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9];

/// Round-trip times of an idle link, microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Half of them are not above this.
    pub median_us: f64,
    /// Of a hundred, one is above this.
    pub p99_us: f64,
    /// At each of [`PERCENTILES`].
    pub percentiles_us: Vec<f64>,
    /// Pings answered.
    pub count: usize,
    /// Pings not answered within 200 ms.
    pub lost: usize,
    /// Cores that the switches of both hosts took meanwhile.
    #[serde(default)]
    pub switch_cores: f64,
}

/// The highest rate, in packets a second, from container A to container B with less than one per cent lost.
pub fn packet_rate(hosts: &Topology) -> Result<f64> {
    highest(|rate| trial(hosts, rate))
}

/// Doubles until a rate fails, then halves the interval (in logarithm) to within four per cent. A rate fails only when
/// it fails twice, for anything else on the machine can spoil a trial.
fn highest(mut trial: impl FnMut(f64) -> Result<Trial>) -> Result<f64> {
    let mut passes = |rate: f64| -> Result<Option<f64>> {
        for _ in 0..2 {
            let t = trial(rate)?;
            if t.passed(rate) {
                return Ok(Some(t.rate));
            }
        }
        Ok(None)
    };
    let (mut low, mut best, mut high) = (1_000.0_f64, 0.0, None);
    let mut next = 32_000.0;
    while high.is_none_or(|h| h / low > 1.04) {
        match passes(next)? {
            Some(rate) => (low, best) = (next, rate),
            None => high = Some(next),
        }
        next = high.map_or(low * 2.0, |h| (low * h).sqrt());
    }
    if best == 0.0 {
        bail!("even a thousand packets a second lose more than one per cent");
    }
    Ok(best)
}

fn trial(hosts: &Topology, rate: f64) -> Result<Trial> {
    if interrupted() {
        bail!("interrupted");
    }
    let (tx, rx) = sockets(hosts)?;
    setsockopt(&rx, sockopt::RcvBufForce, &(16 << 20)).context("enlarge the receive buffer")?;
    rx.set_read_timeout(Some(SILENCE))?;
    let sending = AtomicBool::new(true);
    thread::scope(|s| {
        let receiver = s.spawn(|| receive(&rx, &sending));
        let sent = send(&tx, rate, TRIAL);
        sending.store(false, Relaxed);
        let received = receiver.join().unwrap_or(Ok(0))?;
        let (sent, seconds) = sent?;
        Ok(Trial { sent, received, rate: sent as f64 / seconds })
    })
}

/// A connected socket in container A, and the one it is connected to, in container B.
fn sockets(hosts: &Topology) -> Result<(UdpSocket, UdpSocket)> {
    let rx = hosts.b.container.enter(|| Ok(UdpSocket::bind((hosts.b.container_ip, 0))?))?;
    let to = rx.local_addr()?;
    let tx = hosts.a.container.enter(|| {
        let tx = UdpSocket::bind((hosts.a.container_ip, 0))?;
        tx.connect(to)?;
        Ok(tx)
    })?;
    Ok((tx, rx))
}

/// Sends at `rate` packets a second for `time`; returns how many, and the seconds it took.
fn send(socket: &UdpSocket, rate: f64, time: Duration) -> Result<(u64, f64)> {
    let _ = set_timerslack(1); // sleeps end when they should
    let payload = [0u8; PAYLOAD];
    let packets = [[IoSlice::new(&payload)]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let (start, mut sent) = (Instant::now(), 0);
    loop {
        let elapsed = start.elapsed();
        let due = (elapsed.min(time).as_secs_f64() * rate) as u64;
        if elapsed > time + time / 10 || (elapsed >= time && sent >= due) {
            return Ok((sent, elapsed.as_secs_f64()));
        }
        let n = due.saturating_sub(sent).min(BATCH as u64) as usize;
        if n == 0 {
            sleep(Duration::from_micros(100));
            continue;
        }
        let to = [None; BATCH];
        match sendmmsg(socket.as_raw_fd(), &mut headers, packets.iter().take(n), to, [], MsgFlags::empty()) {
            Ok(done) => sent += done.count() as u64,
            Err(Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN) => {}
            Err(e) => return Err(e).context("send"),
        }
    }
}

/// Counts packets until the sender is done and nothing arrives any more.
fn receive(socket: &UdpSocket, sending: &AtomicBool) -> Result<u64> {
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let mut buffer = [0u8; PAYLOAD * BATCH];
    let mut received = 0;
    loop {
        let mut slots: Vec<_> = buffer.chunks_mut(PAYLOAD).map(|c| [IoSliceMut::new(c)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(socket.as_raw_fd(), &mut headers, slots.iter_mut(), flags, None) {
            Ok(done) => received += done.count() as u64,
            Err(Errno::EAGAIN) if !sending.load(Relaxed) => return Ok(received),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) => return Err(e).context("receive"),
        }
    }
}

/// Sends one packet to and fro between the containers, again and again.
pub fn round_trip(hosts: &Topology, switches: &[u32]) -> Result<RoundTrip> {
    let (client, server) = sockets(hosts)?;
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    server.set_read_timeout(Some(SILENCE))?;
    let running = AtomicBool::new(true);
    thread::scope(|s| {
        s.spawn(|| echo(&server, &running));
        let (start, before) = (Instant::now(), noise::run_times(switches)?);
        let result = ping(&client);
        running.store(false, Relaxed);
        let after = noise::run_times(switches)?;
        let used: f64 = after.iter().sum::<f64>() - before.iter().sum::<f64>();
        result.map(|result| RoundTrip { switch_cores: used / start.elapsed().as_secs_f64(), ..result })
    })
}

/// Cores that the busier of `switches` takes for a thousand packets a second.
pub fn trickle(hosts: &Topology, switches: &[u32]) -> Result<f64> {
    let (tx, _rx) = sockets(hosts)?;
    let (start, before) = (Instant::now(), noise::run_times(switches)?);
    let _ = set_timerslack(1); // sleeps end when they should
    while start.elapsed() < TRICKLE && !interrupted() {
        tx.send(&[0; PAYLOAD])?;
        sleep(Duration::from_millis(1));
    }
    let (seconds, after) = (start.elapsed().as_secs_f64(), noise::run_times(switches)?);
    Ok(after.iter().zip(before).map(|(after, before)| (after - before) / seconds).fold(0.0, f64::max))
}

fn echo(socket: &UdpSocket, running: &AtomicBool) {
    let mut buffer = [0; PAYLOAD];
    while running.load(Relaxed) {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

fn ping(socket: &UdpSocket) -> Result<RoundTrip> {
    let (mut times, mut lost) = (Vec::with_capacity(PINGS), 0);
    let start = Instant::now();
    for number in 0..PINGS + WARM_UP_PINGS {
        if start.elapsed() > PING_TIME || interrupted() {
            break;
        }
        match ping_once(socket, number as u64)? {
            Some(time) if number >= WARM_UP_PINGS => times.push(time.as_nanos() as u64),
            Some(_) => {}
            None => lost += 1,
        }
    }
    times.sort_unstable();
    let us = |q| quantile(&times, q).map(|ns| ns as f64 / 1e3).context("no ping was answered");
    let percentiles_us = PERCENTILES.iter().map(|p| us(p / 100.0)).collect::<Result<_>>()?;
    Ok(RoundTrip {
        median_us: us(0.5)?,
        p99_us: us(0.99)?,
        percentiles_us,
        count: times.len(),
        lost,
        switch_cores: 0.0,
    })
}

/// None: no answer in time.
fn ping_once(socket: &UdpSocket, number: u64) -> io::Result<Option<Duration>> {
    let mut packet = [0; PAYLOAD];
    packet[..8].copy_from_slice(&number.to_be_bytes());
    let start = Instant::now();
    socket.send(&packet)?;
    let mut answer = [0; PAYLOAD];
    loop {
        match socket.recv(&mut answer) {
            Ok(_) if answer == packet => return Ok(Some(start.elapsed())),
            Ok(_) => {} // a late answer to an earlier one
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(capacity: f64, sender: f64) -> impl FnMut(f64) -> Result<Trial> {
        move |asked| {
            let rate = asked.min(sender);
            Ok(Trial { sent: rate as u64, received: rate.min(capacity) as u64, rate })
        }
    }

    #[test]
    fn finds_the_capacity() {
        for capacity in [1_500.0, 20_000.0, 64_000.0, 95_000.0, 1_000_000.0] {
            let found = highest(link(capacity, f64::MAX)).unwrap();
            assert!(found > 0.95 * capacity && found < 1.02 * capacity, "{found} of {capacity}");
        }
    }

    #[test]
    fn a_slow_sender_is_the_limit() {
        let found = highest(link(f64::MAX, 70_000.0)).unwrap();
        assert!(found > 66_000.0 && found <= 70_000.0, "{found}");
    }

    #[test]
    fn a_dead_link_is_an_error() {
        assert!(highest(link(0.0, f64::MAX)).is_err());
    }

    #[test]
    fn one_spoilt_trial_does_not_count() {
        let (mut good, mut n) = (link(95_000.0, f64::MAX), 0);
        let found = highest(|rate| {
            n += 1;
            if n % 2 == 1 { Ok(Trial { sent: 100, received: 50, rate }) } else { good(rate) }
        });
        assert!(found.unwrap() > 0.95 * 95_000.0);
    }
}
