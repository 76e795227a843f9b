//! Traffic selectors (RFC 7296 3.13).

use std::net::IpAddr;

use super::encode::{put, sized};
use super::reader::Reader;
use super::{ParseError, TrafficSelector};

const IPV4_ADDR_RANGE: u8 = 7;
const IPV6_ADDR_RANGE: u8 = 8;

/// Selectors of an unknown kind are passed over: what they would allow is not among what can be granted.
pub(super) fn parse(body: &[u8]) -> Result<Vec<TrafficSelector>, ParseError> {
    let mut reader = Reader::new(body, "traffic selector payload");
    let [count, _, _, _] = reader.array()?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let [kind, protocol, len @ ..] = reader.array::<4>()?;
        let mut sub = reader.sub(u16::from_be_bytes(len), 4, "traffic selector")?;
        if kind != IPV4_ADDR_RANGE && kind != IPV6_ADDR_RANGE {
            continue;
        }
        let (start_port, end_port) = (sub.u16()?, sub.u16()?);
        let (start, end) = (address(kind, &mut sub)?, address(kind, &mut sub)?);
        sub.end()?;
        selectors.push(TrafficSelector { protocol, start_port, end_port, start, end });
    }
    reader.end()?;
    Ok(selectors)
}

fn address(kind: u8, reader: &mut Reader<'_>) -> Result<IpAddr, ParseError> {
    Ok(match kind {
        IPV4_ADDR_RANGE => reader.array::<4>()?.into(),
        _ => reader.array::<16>()?.into(),
    })
}

pub(super) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let selectors = selectors.get(..255).unwrap_or(selectors);
    out.extend_from_slice(&[selectors.len() as u8, 0, 0, 0]);
    for s in selectors {
        let kind = if s.start.is_ipv4() && s.end.is_ipv4() { IPV4_ADDR_RANGE } else { IPV6_ADDR_RANGE };
        sized(out, &[kind, s.protocol], |out| {
            put(out, s.start_port);
            put(out, s.end_port);
            for address in [s.start, s.end] {
                match address {
                    IpAddr::V4(a) if kind == IPV4_ADDR_RANGE => out.extend_from_slice(&a.octets()),
                    IpAddr::V4(a) => out.extend_from_slice(&a.to_ipv6_mapped().octets()),
                    IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
                }
            }
        });
    }
}
