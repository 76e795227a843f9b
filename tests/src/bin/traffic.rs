//! Sends and receives streams whose every byte is known, so that loss, repetition, disorder and damage can be counted.
//!
//! ```text
//! traffic udp-recv ADDR:PORT                       until the stream's end, or 30 s of silence; prints JSON
//! traffic udp-send ADDR:PORT COUNT SIZE RATE       SIZE: bytes of payload, or LEAST-MOST
//! traffic tcp-recv ADDR:PORT                       one connection; prints JSON
//! traffic tcp-send ADDR:PORT BYTES [MBPS]          or SECONDS followed by 's'; at most so many megabits a second; prints how
//!                                                  many bytes went
//! ```

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// The number that ends a UDP stream.
const END: u64 = u64::MAX;

/// How far a sender may be behind its rate and still catch up.
const LATE: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["udp-recv", at] => udp_recv(addr(at)?),
        ["udp-send", to, count, size, rate] => udp_send(addr(to)?, num(count)?, sizes(size)?, num(rate)?),
        ["tcp-recv", at] => tcp_recv(addr(at)?),
        ["tcp-send", to, much] => tcp_send(addr(to)?, much, None),
        ["tcp-send", to, much, mbps] => tcp_send(addr(to)?, much, Some(num(mbps)?)),
        _ => Err(Error::other("usage: traffic udp-recv|udp-send|tcp-recv|tcp-send ADDR:PORT …")),
    }
}

fn addr(s: &str) -> Result<SocketAddr> {
    s.parse().map_err(|e| Error::other(format!("{s}: {e}")))
}

fn num(s: &str) -> Result<u64> {
    s.parse().map_err(|e| Error::other(format!("{s}: {e}")))
}

/// Payload sizes: one, or from one to another.
fn sizes(s: &str) -> Result<(u64, u64)> {
    let (least, most) = s.split_once('-').unwrap_or((s, s));
    let (least, most) = (num(least)?, num(most)?);
    if least <= most { Ok((least, most)) } else { Err(Error::other(format!("{s}: no sizes"))) }
}

/// Bytes 8 × `index` and following of stream `seed` (splitmix64).
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)).to_le_bytes()
}

/// `len` bytes of stream `seed` from `pos` on.
fn bytes(seed: u64, pos: u64, len: usize) -> Vec<u8> {
    let skip = (pos % 8) as usize;
    let words = (skip + len).div_ceil(8) as u64;
    let mut all: Vec<u8> = (pos / 8..pos / 8 + words).flat_map(|i| word(seed, i)).collect();
    all.drain(..skip);
    all.truncate(len);
    all
}

/// A datagram: its number, then bytes that follow from it.
fn datagram(seq: u64, size: usize) -> Vec<u8> {
    let mut d = seq.to_be_bytes().to_vec();
    d.extend(bytes(seq, 8, size.saturating_sub(8)));
    d
}

/// Numbers that have been seen.
#[derive(Default)]
struct Seen {
    words: Vec<u64>,
    count: u64,
}

impl Seen {
    /// False: it had been seen before.
    fn insert(&mut self, n: u64) -> bool {
        let (word, bit) = ((n / 64) as usize, 1 << (n % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }
}

impl Seen {
    /// Runs of numbers that have not come, below the highest that has: the first, and how many.
    fn missing(&self) -> Vec<(u64, u64)> {
        let numbers = 0..self.words.len() as u64 * 64;
        let mut come = numbers.filter(|n| self.words[(n / 64) as usize] >> (n % 64) & 1 == 1);
        let mut next = 0;
        std::iter::from_fn(|| {
            come.by_ref().find_map(|n| {
                let first = std::mem::replace(&mut next, n + 1);
                (n > first).then_some((first, n - first))
            })
        })
        .collect()
    }
}

fn udp_send(to: SocketAddr, count: u64, (least, most): (u64, u64), rate: u64) -> Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let mut start = Instant::now();
    for seq in 0..count {
        let due = start + Duration::from_nanos(seq * 1_000_000_000 / rate.max(1));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // who waited for a processor does not make good for it all at once: no device's queue is that long
        start += due.elapsed().saturating_sub(LATE);
        // EMSGSIZE and its like are losses, for the receiver to count
        let size = least + seq.wrapping_mul(7919) % (most - least + 1);
        let _ = socket.send_to(&datagram(seq, size as usize), to);
    }
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        let _ = socket.send_to(&END.to_be_bytes(), to);
    }
    Ok(())
}

fn udp_recv(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    // whatever the host allows others: a receiver that waits for a processor must not lose what the switch delivered
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))?;
    let mut seen = Seen::default();
    let (mut duplicates, mut reordered, mut corrupt) = (0u64, 0u64, 0u64);
    let (mut highest, mut gap, mut last) = (None, Duration::ZERO, None::<Instant>);
    let mut buf = vec![0; 65536];
    loop {
        let n = match socket.recv(&mut buf) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => return Err(e),
        };
        let got = buf.get(..n).unwrap_or(&[]);
        let Some(seq) = got.first_chunk().map(|b| u64::from_be_bytes(*b)) else {
            corrupt += 1;
            continue;
        };
        if seq == END {
            match highest {
                Some(_) => break,
                // the end of the stream before, held up on its way: it is said more than once
                None => continue,
            }
        }
        let now = Instant::now();
        gap = gap.max(last.map_or(Duration::ZERO, |l| now - l));
        last = Some(now);
        if got != datagram(seq, n) {
            corrupt += 1;
            continue;
        }
        if !seen.insert(seq) {
            duplicates += 1;
        } else if highest.is_some_and(|h| seq < h) {
            reordered += 1;
        }
        highest = highest.max(Some(seq));
    }
    let received = seen.count;
    let lost = highest.map_or(0, |h| h + 1 - received);
    for (first, count) in seen.missing().into_iter().take(20) {
        eprintln!("udp-recv {at}: {count} missing from number {first} on");
    }
    println!(
        r#"{{"received":{received},"lost":{lost},"duplicates":{duplicates},"reordered":{reordered},"corrupt":{corrupt},"gap_ms":{}}}"#,
        gap.as_millis()
    );
    Ok(())
}

fn tcp_send(to: SocketAddr, much: &str, mbps: Option<u64>) -> Result<()> {
    let (most, time) = match much.strip_suffix('s') {
        Some(seconds) => (u64::MAX, Duration::from_secs(num(seconds)?)),
        None => (num(much)?, Duration::MAX),
    };
    let mut s = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    s.set_write_timeout(Some(Duration::from_secs(30)))?;
    s.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut pos, began) = (0, Instant::now());
    let mut start = began;
    while pos < most && began.elapsed() < time {
        let len = (most - pos).min(65536);
        s.write_all(&bytes(0, pos, len as usize))?;
        pos += len;
        if let Some(mbps) = mbps {
            let due = start + Duration::from_nanos(pos * 8000 / mbps.max(1));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // no more than a datagram's sender makes good for it
            start += due.elapsed().saturating_sub(LATE);
        }
    }
    s.shutdown(Shutdown::Write)?;
    // the receiver closes when it has read everything
    match s.read(&mut [0; 1])? {
        0 => {
            println!(r#"{{"bytes":{pos}}}"#);
            Ok(())
        }
        _ => Err(Error::other("the receiver does not talk")),
    }
}

fn tcp_recv(at: SocketAddr) -> Result<()> {
    let (mut s, _) = TcpListener::bind(at)?.accept()?;
    s.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut pos, mut corrupt_at) = (0u64, None);
    let mut buf = vec![0; 65536];
    loop {
        let n = s.read(&mut buf)?;
        if n == 0 {
            break;
        }
        let (got, want) = (buf.get(..n).unwrap_or(&[]), bytes(0, pos, n));
        if let (None, Some(at)) = (corrupt_at, got.iter().zip(&want).position(|(got, want)| got != want)) {
            corrupt_at = Some(pos + at as u64);
        }
        pos += n as u64;
    }
    let corrupt_at = corrupt_at.map_or("null".to_owned(), |p| p.to_string());
    println!(r#"{{"bytes":{pos},"corrupt_at":{corrupt_at}}}"#);
    Ok(())
}
