//! Sends and receives streams whose every byte is known, so that loss, repetition, disorder and damage can be counted.
//!
//! ```text
//! traffic udp-recv ADDR:PORT                       until the stream's end, or 30 s of silence; prints JSON
//! traffic udp-send ADDR:PORT COUNT SIZE RATE
//! traffic tcp-recv ADDR:PORT                       one connection; prints JSON
//! traffic tcp-send ADDR:PORT BYTES
//! ```

use std::collections::HashSet;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// The number that ends a UDP stream.
const END: u64 = u64::MAX;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["udp-recv", at] => udp_recv(addr(at)?),
        ["udp-send", to, count, size, rate] => {
            udp_send(addr(to)?, num(count)?, num(size)? as usize, num(rate)?)
        }
        ["tcp-recv", at] => tcp_recv(addr(at)?),
        ["tcp-send", to, bytes] => tcp_send(addr(to)?, num(bytes)?),
        _ => Err(Error::other("usage: traffic udp-recv|udp-send|tcp-recv|tcp-send ADDR:PORT …")),
    }
}

fn addr(s: &str) -> Result<SocketAddr> {
    s.parse().map_err(|e| Error::other(format!("{s}: {e}")))
}

fn num(s: &str) -> Result<u64> {
    s.parse().map_err(|e| Error::other(format!("{s}: {e}")))
}

/// The byte at `pos` of stream `seed` (splitmix64).
fn byte(seed: u64, pos: u64) -> u8 {
    let mut z = seed.wrapping_add((pos / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> (pos % 8 * 8)) as u8
}

/// A datagram: its number, then bytes that follow from it.
fn datagram(seq: u64, size: usize) -> Vec<u8> {
    let mut d = seq.to_be_bytes().to_vec();
    d.extend((8..size as u64).map(|i| byte(seq, i)));
    d
}

fn udp_send(to: SocketAddr, count: u64, size: usize, rate: u64) -> Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let start = Instant::now();
    for seq in 0..count {
        let due = start + Duration::from_nanos(seq * 1_000_000_000 / rate.max(1));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // EMSGSIZE and its like are losses, for the receiver to count
        let _ = socket.send_to(&datagram(seq, size), to);
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
    // as much as the host allows: a receiver that waits for a processor must not lose what the switch delivered
    socket2::SockRef::from(&socket).set_recv_buffer_size(16 << 20)?;
    let mut seen = HashSet::new();
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
            break;
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
    let received = seen.len() as u64;
    let lost = highest.map_or(0, |h| h + 1 - received);
    println!(
        r#"{{"received":{received},"lost":{lost},"duplicates":{duplicates},"reordered":{reordered},"corrupt":{corrupt},"gap_ms":{}}}"#,
        gap.as_millis()
    );
    Ok(())
}

fn tcp_send(to: SocketAddr, bytes: u64) -> Result<()> {
    let mut s = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    s.set_write_timeout(Some(Duration::from_secs(30)))?;
    s.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut pos = 0;
    while pos < bytes {
        let end = bytes.min(pos + 65536);
        s.write_all(&(pos..end).map(|p| byte(0, p)).collect::<Vec<u8>>())?;
        pos = end;
    }
    s.shutdown(Shutdown::Write)?;
    // the receiver closes when it has read everything
    match s.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(Error::other("the receiver does not talk")),
    }
}

fn tcp_recv(at: SocketAddr) -> Result<()> {
    let (mut s, _) = TcpListener::bind(at)?.accept()?;
    s.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut bytes, mut corrupt_at) = (0u64, None);
    let mut buf = vec![0; 65536];
    loop {
        let n = s.read(&mut buf)?;
        if n == 0 {
            break;
        }
        for b in buf.iter().take(n) {
            if *b != byte(0, bytes) && corrupt_at.is_none() {
                corrupt_at = Some(bytes);
            }
            bytes += 1;
        }
    }
    let corrupt_at = corrupt_at.map_or("null".to_owned(), |p| p.to_string());
    println!(r#"{{"bytes":{bytes},"corrupt_at":{corrupt_at}}}"#);
    Ok(())
}
