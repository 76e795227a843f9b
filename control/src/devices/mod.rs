//! What the host has: links, addresses and routes, and the devices that ports are made of.

pub mod firewall;
pub mod lane;
pub mod member;
pub mod netlink;
pub mod path;
#[cfg(test)]
pub mod testing;
pub mod xdp;
pub mod xfrm;

use std::io;

/// What the kernel says about an error, in the words that `strerror` has for it ("No such device").
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// FNV-1a over the parts of a name, 64 bits: spreads names over addresses, the same in every run and version.
pub fn stable_hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|p| p.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A locally administered unicast address that stands for these names.
pub fn mac_for(parts: &[&str]) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = stable_hash(parts).to_be_bytes();
    [a & 0xfc | 0x02, b, c, d, e, f]
}

/// `02:42:0a:00:0b:01`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Reads an Ethernet address written as six hexadecimal bytes with colons.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| (1..=2).contains(&part.len()) && !part.starts_with('+'))
        })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_stand_without_their_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::ENODEV)), "No such device");
        assert_eq!(reason(&io::Error::other("odd")), "odd");
    }

    #[test]
    fn an_address_made_of_names_is_local_unicast_and_always_the_same() {
        assert_eq!(mac_for(&["a", "br0"]), mac_for(&["a", "br0"]));
        assert_ne!(mac_for(&["a", "br0"]), mac_for(&["ab", "r0"]));
        for n in 0..100 {
            let [first, ..] = mac_for(&[&n.to_string()]);
            assert_eq!(first & 3, 2);
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        assert_eq!(parse_mac("02:42:0a:00:0b:01").map(mac_text).as_deref(), Some("02:42:0a:00:0b:01"));
        for bad in [
            "",
            "02:42:0a:00:0b",
            "02:42:0a:00:0b:01:02",
            "02:42:0a:00:0b:1ff",
            "02:42:0a:00:0b:",
            "+2:42:0a:00:0b:01",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
