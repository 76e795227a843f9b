//! Sends whole IP packets, made by the test, from any source address.
//!
//! ```text
//! inject send MICROSECONDS           each line of standard input: a packet in hexadecimal, from its IP header on
//! inject flood COUNT RATE SOURCES    one such line, an IKE_SA_INIT request in UDP over IPv4: sends it COUNT times, RATE
//!                                    a second, each with another initiator's SPI and with a source out of SOURCES, an
//!                                    address and the length of its prefix
//! ```

use std::io::{Error, Result, stdin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["send", pause] => send(Duration::from_micros(num(pause)?)),
        ["flood", count, rate, sources] => flood(num(count)?, num(rate)?, sources),
        _ => Err(Error::other("usage: inject send MICROSECONDS | inject flood COUNT RATE ADDRESS/LENGTH")),
    }
}

fn num(s: &str) -> Result<u64> {
    s.parse().map_err(|e| Error::other(format!("{s}: {e}")))
}

fn unhex(line: &str) -> Result<Vec<u8>> {
    let digits = line.trim().as_bytes().chunks(2);
    let byte = |d: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(d), 16);
    digits.map(|d| byte(d).map_err(|e| Error::other(format!("{line:?}: {e}")))).collect()
}

/// A socket that sends what it is given, IP header included. The kernel fills in an IPv4 header's checksum.
fn socket(ip: IpAddr) -> Result<Socket> {
    let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
    socket.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

fn destination(packet: &[u8]) -> Result<IpAddr> {
    let v4 = || Some(Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into());
    let v6 = || Some(Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into());
    match packet.first().map(|b| b >> 4) {
        Some(4) => v4(),
        Some(6) => v6(),
        _ => None,
    }
    .ok_or_else(|| Error::other("no IP packet"))
}

fn send(pause: Duration) -> Result<()> {
    for line in stdin().lines() {
        let packet = unhex(&line?)?;
        let to = destination(&packet)?;
        socket(to)?.send_to(&packet, &SocketAddr::new(to, 0).into())?;
        std::thread::sleep(pause);
    }
    Ok(())
}

fn flood(count: u64, rate: u64, sources: &str) -> Result<()> {
    let (network, length) = sources.split_once('/').ok_or_else(|| Error::other("no prefix"))?;
    let network: Ipv4Addr = network.parse().map_err(Error::other)?;
    let hosts = u32::MAX.checked_shr(num(length)? as u32).unwrap_or(0);
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let mut packet = unhex(&line)?;
    let to = destination(&packet)?;
    let socket = socket(to)?;
    // IPv4 and UDP headers, then the initiator's SPI. No UDP checksum, as it would have to follow
    if packet.len() < 20 + 8 + 28 || packet[0] != 0x45 || packet[9] != 17 {
        return Err(Error::other("no IKE message in UDP in IPv4"));
    }
    packet[26..28].fill(0);
    let start = Instant::now();
    for n in 0..count {
        let due = start + Duration::from_nanos(n * 1_000_000_000 / rate.max(1));
        let early = due.saturating_duration_since(Instant::now());
        if early > Duration::from_micros(500) {
            std::thread::sleep(early);
        }
        let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        packet[12..16].copy_from_slice(&(u32::from(network) | (mixed as u32 & hosts)).to_be_bytes());
        packet[28..36].copy_from_slice(&mixed.to_be_bytes());
        // a full queue loses it, as a wire would
        let _ = socket.send_to(&packet, &SocketAddr::new(to, 0).into());
    }
    Ok(())
}
