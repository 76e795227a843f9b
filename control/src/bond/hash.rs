//! `bond/hash`: by which of a bond's 256 buckets Open vSwitch's balance-slb would send what comes from a station.

/// The bucket of what `mac` sends in `vlan`, with `bond-hash-basis` as `basis`: MurmurHash3 of the two, as 64 bits.
pub fn bucket(mac: [u8; 6], vlan: u16, basis: u32) -> u8 {
    let [a, b, c, d, e, f] = mac;
    let low = u32::from_be_bytes([c, d, e, f]);
    let high = u32::from(vlan) << 16 | u32::from(u16::from_be_bytes([a, b]));
    let [.., least] = finish(add(add(basis, low), high) ^ 8).to_be_bytes();
    least
}

fn add(hash: u32, data: u32) -> u32 {
    let data = data.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ data).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

fn finish(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_open_vswitch_says() {
        let mac = [0, 0x11, 0x22, 0x33, 0x44, 0x55];
        let other = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
        for (mac, vlan, basis, want) in [
            (mac, 0, 0, 226),
            (mac, 5, 0, 245),
            (mac, 5, 77, 99),
            (other, 4095, u32::MAX, 100),
            ([0xff; 6], 0, 0, 43),
        ] {
            assert_eq!(bucket(mac, vlan, basis), want, "{mac:x?} {vlan} {basis}");
        }
    }
}
