//! Keys that `underpass keys` gives out, and captures opened with them: by tshark, and by our own reckoning, as tshark
//! cannot check the integrity of ESP with extended sequence numbers.

use std::collections::HashMap;
use std::path::Path;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::pcap::Packet;
use crate::topology::Host;

/// A profile of Wireshark with the keys of all live SAs.
#[derive(Debug)]
pub struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    /// What `host` has now.
    #[track_caller]
    pub fn export(host: &Host) -> Keys {
        let dir = tempfile::Builder::new().prefix("up-keys-").tempdir().expect("a temporary directory");
        host.underpass(&format!("keys --wireshark --output {}", dir.path().display())).ok();
        Keys { dir }
    }

    /// The profile's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The lines of its ESP table.
    #[track_caller]
    pub fn esp(&self) -> Vec<String> {
        self.lines("esp_sa")
    }

    /// The lines of its IKE table.
    #[track_caller]
    pub fn ike(&self) -> Vec<String> {
        self.lines("ikev2_decryption_table")
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).expect("the profile's file");
        text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned).collect()
    }

    /// By SPI.
    #[track_caller]
    pub fn sas(&self) -> HashMap<u32, Sa> {
        self.esp().iter().map(|line| sa(line).unwrap_or_else(|| panic!("not an SA: {line}"))).collect()
    }
}

/// A key of AES-GCM with its salt.
pub struct Sa {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl std::fmt::Debug for Sa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sa")
    }
}

/// `"IPv4","*","*","0x1001","AES-GCM …","0x…","NULL",""`
fn sa(line: &str) -> Option<(u32, Sa)> {
    let fields: Vec<&str> = line.split(',').map(|f| f.trim_matches('"')).collect();
    let spi = u32::from_str_radix(fields.get(3)?.strip_prefix("0x")?, 16).ok()?;
    let hex = fields.get(5)?.strip_prefix("0x")?;
    let bytes: Option<Vec<u8>> =
        (0..hex.len() / 2).map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()).collect();
    let bytes = bytes?;
    let (key, salt) = bytes.split_last_chunk::<4>()?;
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    Some((spi, Sa { key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?), salt: *salt }))
}

/// What is in an ESP packet (RFC 4303, 4106), its padding and trailer checked and gone. Sequence numbers beyond 2^32 are
/// not expected. None: no such key, or not authentic.
pub fn open(packet: &Packet, sas: &HashMap<u32, Sa>) -> Option<Opened> {
    let (spi, sequence) = packet.esp()?;
    let esp = packet.bytes.get(packet.esp_at()?..)?;
    let Sa { key, salt } = sas.get(&spi)?;
    let (iv, sealed) = esp.get(8..)?.split_first_chunk::<8>()?;
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(iv);
    let extended = [spi.to_be_bytes(), [0; 4], sequence.to_be_bytes()].concat();
    let plain = [&extended[..4], &extended[8..]].concat();
    for aad in [extended, plain] {
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        if let Ok(opened) = key.open_in_place(nonce, Aad::from(aad), &mut bytes) {
            let (rest, [length, next_header]) = opened.split_last_chunk::<2>()?;
            let (payload, padding) = rest.split_at(rest.len().checked_sub(usize::from(*length))?);
            let right = padding.iter().zip(1..).all(|(p, n): (&u8, u8)| *p == n);
            return right.then(|| Opened { next_header: *next_header, payload: payload.to_vec() });
        }
    }
    None
}

/// An authentic packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Protocol of what it carries.
    pub next_header: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet that Linux sealed.
    #[test]
    fn authentic_packets_are_opened() {
        let line = r#""IPv4","*","*","0x1001","AES-GCM with 16 octet ICV [RFC4106]","0x000102030405060708090a0b0c0d0e0fa0a1a2a3","NULL","""#;
        let sas = HashMap::from([sa(line).unwrap()]);
        assert!(sa(r#""IPv4","*""#).is_none());
        let esp = "0000100100000002 4e114f8fd317463e afc5bbefe3265d4aba58bd5e50c353c3d0fc86051cb8236ed0efdef900a7fc7a\
                   69969d0508d1f36a5e3db990d535d46caf4b10ca0f2e8fd439b06de0959b922d"
            .replace(' ', "");
        let byte = |i| u8::from_str_radix(&esp[2 * i..2 * i + 2], 16).unwrap();
        let mut packet = crate::inject::esp("10.9.0.1", "10.9.0.2", 0x1001, 2, 0);
        packet.bytes.truncate(20);
        packet.bytes.extend((0..esp.len() / 2).map(byte));
        let opened = open(&packet, &sas).unwrap();
        assert_eq!((opened.next_header, opened.payload.len()), (47, 46));
        assert_eq!(opened.payload[..4], [0, 0, 0x65, 0x58]);
        for at in [4, 8, 16, 79] {
            assert_eq!(open(&crate::inject::flipped(&packet, at), &sas), None, "byte {at}");
        }
        assert_eq!(open(&crate::inject::with_spi(&packet, 0x1002), &sas), None);
    }
}
