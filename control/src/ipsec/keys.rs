//! The keys of live SAs as Wireshark reads them: the tables `esp_sa` and `ikev2_decryption_table` of its profile directory.

use std::fmt::Write;
use std::net::IpAddr;

use ikev2::proposal::Encr;
use ikev2::{Child, Direction, IkeSecrets};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use super::Ipsec;

/// The file that has the keys of ESP.
pub const ESP_TABLE: &str = "esp_sa";
/// The file that has the keys of IKE.
pub const IKE_TABLE: &str = "ikev2_decryption_table";

/// Both tables.
#[derive(Default, Serialize, Deserialize, ZeroizeOnDrop)]
pub struct Tables {
    /// Lines of [`ESP_TABLE`].
    pub esp_sa: String,
    /// Lines of [`IKE_TABLE`].
    pub ikev2_decryption_table: String,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables(..)")
    }
}

impl Ipsec {
    /// The keys of all SAs that are there now. For an operator who asks for them, and for nobody else.
    pub fn keys(&self) -> Tables {
        let (state, peers) = (self.state.borrow(), self.peers.borrow());
        let mut tables = Tables::default();
        state.sas.children().for_each(|(_, installed)| esp_lines(&installed.child, &mut tables.esp_sa));
        let table = &mut tables.ikev2_decryption_table;
        peers.engine.secrets().iter().for_each(|secrets| ike_line(secrets, table));
        tables
    }
}

/// One line each way. Any addresses: behind a NAT a capture may show others than we know. With extended sequence numbers
/// Wireshark decrypts, and calls every ICV bad, as the high half of the number is nowhere in the capture.
fn esp_lines(child: &Child, out: &mut String) {
    let family = match child.remote {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    for Direction { spi, keymat } in [&child.inbound, &child.outbound] {
        let _ = write!(
            out,
            "\"{family}\",\"*\",\"*\",\"0x{spi:08x}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x"
        );
        hex(keymat.as_bytes(), out);
        *out += "\",\"NULL\",\"\"\n";
    }
}

fn ike_line(keys: &IkeSecrets, out: &mut String) {
    let encryption = match keys.suite.encr {
        Encr::AesGcm16_128 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        Encr::AesGcm16_256 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        Encr::AesCbc128 => "AES-CBC-128 [RFC3602]",
        Encr::AesCbc256 => "AES-CBC-256 [RFC3602]",
    };
    let integrity = match keys.suite.integ {
        None => "NONE [RFC4306]",
        Some(ikev2::proposal::Integ::HmacSha256_128) => "HMAC_SHA2_256_128 [RFC4868]",
    };
    for field in [keys.spi_i.as_slice(), &keys.spi_r, keys.sk_ei.as_bytes(), keys.sk_er.as_bytes()] {
        hex(field, out);
        out.push(',');
    }
    let _ = write!(out, "\"{encryption}\",");
    for field in [keys.sk_ai.as_bytes(), keys.sk_ar.as_bytes()] {
        hex(field, out);
        out.push(',');
    }
    let _ = writeln!(out, "\"{integrity}\"");
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ikev2::crypto::Secret;
    use ikev2::proposal::{EspSuite, Group, IkeSuite, Integ, Prf};
    use ikev2::{ChildId, PeerId, Selector};

    #[test]
    fn tables_as_wireshark_writes_them() {
        let direction = |spi, byte| Direction { spi, keymat: Secret::new(vec![byte; 20]) };
        let child = Child {
            id: ChildId(1),
            selector: Selector::Gre,
            inbound: direction(0xc000_0001, 0x11),
            outbound: direction(0x1001, 0x22),
            suite: EspSuite { encr: Encr::AesGcm16_128, esn: false, group: None },
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            udp: None,
            hard_packets: 0,
            hard_bytes: 0,
            use_outbound: true,
        };
        let mut out = String::new();
        esp_lines(&child, &mut out);
        let line = |spi: &str, key: &str| {
            let key = key.repeat(20);
            format!(
                "\"IPv4\",\"*\",\"*\",\"0x{spi}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{key}\",\"NULL\",\"\"\n"
            )
        };
        assert_eq!(out, line("c0000001", "11") + &line("00001001", "22"));

        let mut keys = IkeSecrets {
            peer: PeerId(1),
            spi_i: [1; 8],
            spi_r: [2; 8],
            suite: IkeSuite {
                encr: Encr::AesGcm16_256,
                integ: None,
                prf: Prf::HmacSha256,
                group: Group::Curve25519,
            },
            sk_ei: Secret::new(vec![0xa1; 2]),
            sk_er: Secret::new(vec![0xa2; 2]),
            sk_ai: Secret::default(),
            sk_ar: Secret::default(),
        };
        let mut out = String::new();
        ike_line(&keys, &mut out);
        keys.suite = IkeSuite { encr: Encr::AesCbc128, integ: Some(Integ::HmacSha256_128), ..keys.suite };
        (keys.sk_ai, keys.sk_ar) = (Secret::new(vec![0xb1; 2]), Secret::new(vec![0xb2; 2]));
        ike_line(&keys, &mut out);
        assert_eq!(
            out,
            "0101010101010101,0202020202020202,a1a1,a2a2,\"AES-GCM-256 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n\
             0101010101010101,0202020202020202,a1a1,a2a2,\"AES-CBC-128 [RFC3602]\",b1b1,b2b2,\"HMAC_SHA2_256_128 [RFC4868]\"\n"
        );
    }
}
