//! Continuity check messages (IEEE 802.1ag clause 21.6), and the frames that they travel in.

use crate::config::{Config, Interval};

const ETHERTYPE: [u8; 2] = [0x89, 0x02];
/// Of a VLAN tag, and of one of a provider's.
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// Its opcode.
const CCM: u8 = 1;
/// The flag for a remote defect; the interval's number stands in the lowest three bits.
const RDI: u8 = 0x80;
const INTERVAL: u8 = 0x07;
/// Where TLVs begin, counted from behind that byte.
const TLVS: u8 = 70;
/// Maintenance domain "ovs" (format 4, a string) with maintenance association "ovs" (format 2, a string): the only one.
const MAID: [u8; 48] =
    *b"\x04\x03ovs\x02\x03ovs\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What a message says. The last three have a place that the standard leaves to Y.1731, and are Open vSwitch's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ccm {
    /// Its sender hears nobody.
    pub(crate) rdi: bool,
    /// The interval's number (table 21-16); 0: see `millis`.
    pub(crate) interval: u8,
    pub(crate) seq: u32,
    pub(crate) mpid: u16,
    /// The maintenance association is ours.
    pub(crate) ours: bool,
    /// The interval in milliseconds, if it has no number.
    pub(crate) millis: u16,
    /// Of the sender, in extended mode.
    pub(crate) long_mpid: u64,
    /// The sender wants no traffic.
    pub(crate) down: bool,
}

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Short,
    /// With another opcode.
    Other(u8),
}

impl Ccm {
    /// What the point with these settings sends.
    pub(crate) fn of(config: &Config, seq: u32, rdi: bool) -> Ccm {
        let Interval { number, millis } = config.interval;
        let extended = config.extended;
        Ccm {
            rdi,
            interval: number,
            seq,
            // nobody in extended mode looks at it: any number that the standard allows
            mpid: if extended { (config.mpid % 8191 + 1) as u16 } else { config.mpid as u16 },
            ours: true,
            millis: if number == 0 { millis as u16 } else { 0 },
            long_mpid: if extended { config.mpid } else { 0 },
            down: extended && config.down,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.interval & INTERVAL | if self.rdi { RDI } else { 0 };
        // maintenance domain level 0, version 0
        out.extend([0, CCM, flags, TLVS]);
        out.extend(self.seq.to_be_bytes());
        out.extend(self.mpid.to_be_bytes());
        out.extend(if self.ours { MAID } else { [0; 48] });
        out.extend(self.millis.to_be_bytes());
        out.extend(self.long_mpid.to_be_bytes());
        out.push(self.down.into());
        // reserved, and the TLV that ends them
        out.extend([0; 6]);
    }

    /// The message in a frame, which may have a tag. Version, level and TLVs are not looked at.
    pub(crate) fn decode(frame: &[u8]) -> Result<Ccm, Unread> {
        let mut rest = frame;
        read(&mut rest).unwrap_or(Err(Unread::Short))
    }

    /// The frame from a port with address `mac`; `tag`: priority and VLAN.
    pub(crate) fn frame(&self, to: [u8; 6], mac: [u8; 6], tag: Option<u16>) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.extend(to);
        out.extend(mac);
        if let Some(tag) = tag {
            let [tpid, _] = TAGS;
            out.extend(tpid);
            out.extend(tag.to_be_bytes());
        }
        out.extend(ETHERTYPE);
        self.encode(&mut out);
        out
    }
}

/// None: too short.
fn read(rest: &mut &[u8]) -> Option<Result<Ccm, Unread>> {
    take::<12>(rest)?;
    let mut ethertype = take(rest)?;
    if TAGS.contains(&ethertype) {
        take::<2>(rest)?;
        ethertype = take(rest)?;
    }
    if ethertype != ETHERTYPE {
        return None;
    }
    let [_, opcode, flags, _] = take(rest)?;
    let ccm = Ccm {
        rdi: flags & RDI != 0,
        interval: flags & INTERVAL,
        seq: u32::from_be_bytes(take(rest)?),
        mpid: u16::from_be_bytes(take(rest)?),
        ours: take(rest)? == MAID,
        millis: u16::from_be_bytes(take(rest)?),
        long_mpid: u64::from_be_bytes(take(rest)?),
        down: take(rest)? != [0],
    };
    take::<5>(rest)?;
    Some(if opcode == CCM { Ok(ccm) } else { Err(Unread::Other(opcode)) })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent by Open vSwitch 3.1: MPID 5, 1 s; and MPID 70000 in extended mode, 150 ms, down, hearing nobody.
    const SENT: [&str; 2] = [
        "0180c2000030 4e40277555a5 8902 0001 0446 00000002 0005 04036f7673 02036f7673",
        "012320000030 4e40277555a5 8902 0001 8046 000000c4 7636 04036f7673 02036f7673",
    ];
    const TAIL: [&str; 2] = ["00 00000000000000000000000000000000", "00960000000000011170 01 000000000000"];

    fn sent(i: usize) -> Vec<u8> {
        let hex = |text: &str| -> Vec<u8> {
            let digits: String = text.split_whitespace().collect();
            (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
        };
        [hex(SENT[i]), vec![0; 38], hex(TAIL[i])].concat()
    }

    #[test]
    fn as_open_vswitch_sends_them() {
        let common = Ccm {
            rdi: false,
            interval: 4,
            seq: 2,
            mpid: 5,
            ours: true,
            millis: 0,
            long_mpid: 0,
            down: false,
        };
        assert_eq!(Ccm::decode(&sent(0)), Ok(common));
        let extended = Ccm {
            rdi: true,
            interval: 0,
            seq: 0xc4,
            mpid: 0x7636,
            millis: 150,
            long_mpid: 70000,
            down: true,
            ..common
        };
        assert_eq!(Ccm::decode(&sent(1)), Ok(extended));
        let mac = [0x4e, 0x40, 0x27, 0x75, 0x55, 0xa5];
        for (i, ccm) in [common, extended].into_iter().enumerate() {
            let to = *sent(i).first_chunk().unwrap();
            assert_eq!(ccm.frame(to, mac, None), sent(i));
            assert_eq!(Ccm::decode(&ccm.frame(to, mac, Some(0xa007))), Ok(ccm));
        }
    }

    /// The last byte, a TLV that ends TLVs, may be missing; more may follow.
    #[test]
    fn as_much_as_is_needed() {
        let frame = sent(0);
        for len in 0..frame.len() {
            let read = Ccm::decode(&frame[..len]);
            assert_eq!(read.is_ok(), len == frame.len() - 1, "{len}");
        }
        assert!(Ccm::decode(&[frame.clone(), vec![7; 100]].concat()).is_ok());
        let mut other = frame;
        other[15] = 3;
        assert_eq!(Ccm::decode(&other), Err(Unread::Other(3)));
    }
}
