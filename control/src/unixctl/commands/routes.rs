//! `ovs/route/…`: by what ways tunnel packets leave. The kernel routes them; this is its main table for IPv4.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::{Args, Reply};

const TABLE: &str = "/proc/net/route";
const NEIGHBOURS: &str = "/proc/net/arp";

/// A line of the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    device: String,
    to: Ipv4Addr,
    prefix: u32,
    gateway: Option<Ipv4Addr>,
    metric: u32,
}

/// `ovs/route/show`.
pub fn show() -> Reply {
    Ok(layout(&routes(&std::fs::read_to_string(TABLE).map_err(|e| format!("{TABLE}: {e}"))?)))
}

/// `ovs/route/lookup ip_addr`.
pub fn lookup(args: Args<'_>) -> Reply {
    let to: IpAddr = args.first().and_then(|a| a.parse().ok()).ok_or("Invalid parameters")?;
    let source = source(to).ok_or("Not found")?;
    let mut out = format!("src {source}\n");
    if let IpAddr::V4(to) = to {
        let table = routes(&std::fs::read_to_string(TABLE).map_err(|e| format!("{TABLE}: {e}"))?);
        if let Some(route) = best(&table, to) {
            let gateway = route.gateway.map_or_else(|| "::".to_owned(), |g| g.to_string());
            out += &format!("gateway {gateway}\ndev {}\n", route.device);
        }
    }
    Ok(out)
}

/// The address that the kernel would send from: a datagram socket that sends nothing knows it.
fn source(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// `tnl/neigh/show`: whom this host knows the Ethernet addresses of, IPv4. The kernel asks for them.
pub fn neighbours() -> Reply {
    Ok(neighbour_layout(&std::fs::read_to_string(NEIGHBOURS).map_err(|e| format!("{NEIGHBOURS}: {e}"))?))
}

/// Columns: IP address, HW type, Flags, HW address, Mask, Device.
fn neighbour_layout(text: &str) -> String {
    const COMPLETE: u32 = 2;
    let head = format!("{:<45} {:<19} Bridge\n{}\n", "IP", "MAC", "=".repeat(74));
    let row = |line: &str| {
        let [ip, _, flags, mac, _, device] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        (flags & COMPLETE != 0).then(|| format!("{ip:<45} {mac:<19} {device}\n"))
    };
    std::iter::once(head).chain(text.lines().skip(1).filter_map(row)).collect()
}

fn best(table: &[Route], to: Ipv4Addr) -> Option<&Route> {
    let fits = |r: &&Route| mask(r.prefix) & u32::from(to) == u32::from(r.to);
    table.iter().filter(fits).max_by_key(|r| (r.prefix, std::cmp::Reverse(r.metric)))
}

fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0)
}

fn layout(table: &[Route]) -> String {
    let mut table = table.to_vec();
    table.sort_by_key(|r| (std::cmp::Reverse(r.prefix), r.to, r.metric));
    let line = |r: &Route| {
        let gateway = r.gateway.map_or_else(String::new, |g| format!(" GW {g}"));
        format!("Cached: {}/{} dev {}{gateway}\n", r.to, r.prefix, r.device)
    };
    std::iter::once("Route Table:\n".to_owned()).chain(table.iter().map(line)).collect()
}

/// Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask …; addresses are hexadecimal in the host's order of
/// bytes.
fn routes(text: &str) -> Vec<Route> {
    const UP: u32 = 1;
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [device, to, gateway, flags, _, _, metric, mask, ..] = columns[..] else { return None };
        let address = |s: &str| Some(Ipv4Addr::from(u32::from_str_radix(s, 16).ok()?.to_ne_bytes()));
        let up = u32::from_str_radix(flags, 16).ok()? & UP != 0;
        up.then_some(Route {
            device: device.into(),
            to: address(to)?,
            prefix: u32::from(address(mask)?).leading_ones(),
            gateway: address(gateway).filter(|g| !g.is_unspecified()),
            metric: metric.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    const SAMPLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
        br0\t0063000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        gone\t0063000B\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table() {
        let table = routes(SAMPLE);
        assert_eq!(
            layout(&table),
            "Route Table:\nCached: 10.0.0.0/24 dev eth0\nCached: 10.0.99.0/24 dev br0\n\
             Cached: 0.0.0.0/0 dev eth0 GW 10.0.0.1\n"
        );
        let device = |to: [u8; 4]| best(&table, to.into()).map(|r| r.device.as_str());
        assert_eq!(device([10, 0, 99, 7]), Some("br0"));
        assert_eq!(device([9, 9, 9, 9]), Some("eth0"));
        assert_eq!(best(&table[1..], [9, 9, 9, 9].into()), None);
        assert_eq!(routes("one line\nnonsense\n\n1 2 3 4 5 6 7 8\n"), []);
    }

    #[test]
    fn neighbours_of_this_host() {
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
            172.31.1.2       0x1         0x2         7a:79:26:ba:e9:20     *        brphy\n\
            172.31.1.3       0x1         0x0         00:00:00:00:00:00     *        brphy\n";
        assert_eq!(
            neighbour_layout(text),
            "IP                                            MAC                 Bridge\n\
             ==========================================================================\n\
             172.31.1.2                                    7a:79:26:ba:e9:20   brphy\n"
        );
        assert_eq!(neighbour_layout("").lines().count(), 2);
    }

    #[test]
    fn bad_addresses() {
        assert_eq!(lookup(&["zz".into()]), Err("Invalid parameters".into()));
    }
}
