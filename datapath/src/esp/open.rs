//! Inward: from a packet on the wire to its payload.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::key::{Aad, SaKey};
use super::replay::Stale;
use super::{ALIGN, HEADER, ICV, InboundSa, PAYLOAD, TRAILER};
use crate::counters::DropReason;
use crate::wire::proto;

/// The SPI of an ESP packet.
#[inline]
pub fn spi(packet: &[u8]) -> Option<u32> {
    packet.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// What an SA vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where in the packet the payload lies.
    pub payload: Range<usize>,
    /// None that was sent later has come before it.
    pub newest: bool,
}

impl InboundSa {
    /// Opens `packet` in place at `now` (seconds):
    /// 1. it must be long enough, and end where four bytes end;
    /// 2. the SA must not be used up;
    /// 3. the high half of the sequence number follows from the low one, and it must not have come before;
    /// 4. the ICV must be right: only from here on is anything in the packet believed;
    /// 5. the sequence number is taken, which of several workers with the same packet one succeeds in (RFC 4303 section 3.4.3);
    /// 6. the padding must be the one that the RFC wants, the payload of the protocol that the SA is for.
    ///
    /// # Errors
    /// Why the packet goes no further. Its bytes are then of no use.
    #[inline]
    pub fn open(&self, packet: &mut [u8], now: u32) -> Result<Opened, DropReason> {
        let low = sequence(packet).ok_or(DropReason::EspMalformed)?;
        if self.is_used_up() {
            return Err(DropReason::EspLimit);
        }
        let number = if self.config.esn { self.window.infer(low) } else { Some(low.into()) };
        let number = number.ok_or(DropReason::EspTooOld)?;
        self.window.check(number).map_err(|stale| self.stale(stale))?;

        let aad = Aad { spi: self.config.spi, number, esn: self.config.esn };
        let plain = decrypt(&self.key, aad, packet).map_err(|_| self.wrong(number))?;
        let newest = self.window.claim(number).map_err(|stale| self.stale(stale))?;

        let unpadded = unpad(plain);
        self.count(unpadded.map_or(0, |(len, _)| len) as u64, now);
        match unpadded? {
            (len, next) if next == self.config.selector.protocol() => {
                Ok(Opened { payload: PAYLOAD..PAYLOAD + len, newest })
            }
            (_, proto::NO_NEXT_HEADER) => Err(DropReason::EspDummy),
            _ => Err(DropReason::EspNextHeader),
        }
    }

    /// Why the ICV of a packet is wrong that was taken for that number. Extended numbers say of a packet left of the window that
    /// it is one from far ahead, sealed with another high half: what is nearer to where it would be late is counted as late.
    #[cold]
    fn wrong(&self, number: u64) -> DropReason {
        if number.saturating_sub(self.window.top()) > 1 << 31 {
            return self.stale(Stale::TooOld);
        }
        self.forged.fetch_add(1, Relaxed);
        DropReason::EspIcv
    }

    #[cold]
    fn stale(&self, stale: Stale) -> DropReason {
        self.replayed.fetch_add(1, Relaxed);
        match stale {
            Stale::Seen => DropReason::EspReplayed,
            Stale::TooOld => DropReason::EspTooOld,
        }
    }
}

/// The low half of the sequence number. None: too short to be ESP, or misaligned.
#[inline]
fn sequence(packet: &[u8]) -> Option<u32> {
    let encrypted = packet.len().checked_sub(PAYLOAD + ICV)?;
    if encrypted < ALIGN || encrypted % ALIGN != 0 {
        return None;
    }
    packet.get(4..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Verifies the ICV and decrypts in place. Returns payload, padding and trailer.
///
/// # Errors
/// Too short, or the ICV is wrong.
pub fn decrypt<'a>(key: &SaKey, aad: Aad, packet: &'a mut [u8]) -> Result<&'a mut [u8], DropReason> {
    let (iv, sealed) =
        packet.get_mut(HEADER..).and_then(|p| p.split_first_chunk_mut()).ok_or(DropReason::EspMalformed)?;
    let plain = sealed.len().checked_sub(ICV).ok_or(DropReason::EspMalformed)?;
    if !key.open(*iv, aad, sealed) {
        return Err(DropReason::EspIcv);
    }
    sealed.get_mut(..plain).ok_or(DropReason::EspMalformed)
}

/// Bytes of payload in `plain`, and its next header.
///
/// # Errors
/// The padding is longer than what is there, or not 1, 2, 3 and so on (RFC 4303 section 2.4).
pub fn unpad(plain: &[u8]) -> Result<(usize, u8), DropReason> {
    let (rest, [pad_len, next_header]) = plain.split_last_chunk::<TRAILER>().ok_or(DropReason::EspPadding)?;
    let len = rest.len().checked_sub(usize::from(*pad_len)).ok_or(DropReason::EspPadding)?;
    let padding = rest.get(len..).unwrap_or(&[]);
    if padding.iter().zip(1..=u8::MAX).any(|(byte, want)| *byte != want) {
        return Err(DropReason::EspPadding);
    }
    Ok((len, *next_header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::super::{OutboundSa, SaConfig, sealed_len};
    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens(payload in prop::collection::vec(any::<u8>(), 0..200), esn in any::<bool>()) {
            let config = SaConfig { esn, ..config() };
            let (out, back) = (outbound(config.clone()), inbound(config));
            for number in 1..4 {
                let mut packet = sealed(&out, &payload);
                prop_assert_eq!(packet.len(), sealed_len(payload.len()));
                prop_assert_eq!(spi(&packet), Some(SPI));
                let opened = back.open(&mut packet, 7).unwrap();
                prop_assert_eq!(&packet[opened.payload], &payload[..]);
                prop_assert!(opened.newest);
                let usage = back.usage();
                prop_assert_eq!((usage.packets, usage.sequence, usage.last), (number, number, Some(7)));
                prop_assert_eq!(usage.bytes, number * payload.len() as u64);
            }
        }

        #[test]
        fn one_changed_bit_is_one_too_many(payload in prop::collection::vec(any::<u8>(), 0..100),
                                           esn in any::<bool>(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let config = SaConfig { esn, ..config() };
            let (out, back) = (outbound(config.clone()), inbound(config));
            let good = sealed(&out, &payload);
            let mut bad = good.clone();
            // behind the SPI, which is looked at before
            let at = 4 + at.index(bad.len() - 4);
            bad[at] ^= 1u8 << bit;
            let why = back.open(&mut bad, 0).unwrap_err();
            prop_assert!(why == DropReason::EspIcv || at < 8);
            // it leaves no trace but in one count
            let usage = back.usage();
            prop_assert_eq!((usage.packets, usage.sequence, usage.forged + usage.replayed), (0, 0, 1));
            prop_assert!(back.open(&mut good.clone(), 0).is_ok());
        }
    }

    fn open(sa: &InboundSa, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut packet = packet.to_vec();
        sa.open(&mut packet, 0).map(|opened| packet[opened.payload].to_vec())
    }

    /// A packet of number 1 around that plaintext, whatever it is.
    fn around(plain: &[u8]) -> Vec<u8> {
        let (mut plain, aad) = (plain.to_vec(), Aad { spi: SPI, number: 1, esn: true });
        let icv = key().seal([9; 8], aad, &mut plain).unwrap();
        [&aad.header()[..], &[9; 8], &plain, &icv].concat()
    }

    #[test]
    fn every_length_is_looked_at_before_it_is_believed() {
        for len in 0..=64 {
            let sa = inbound(config());
            let (zeros, want) = (vec![0; len], if len >= 36 && len % 4 == 0 { 0 } else { 1 });
            let mut number = zeros;
            if let Some(last) = number.get_mut(7) {
                *last = 1;
            }
            let why = open(&sa, &number).unwrap_err();
            assert_eq!(why, [DropReason::EspIcv, DropReason::EspMalformed][want], "{len}");
        }
    }

    #[test]
    fn padding_and_next_header_are_verified() {
        use DropReason::*;
        type Case<'a> = (&'a [u8], Result<&'a [u8], DropReason>);
        let long: Vec<u8> = (1..=255).chain([255, 47]).collect();
        let cases: [Case<'_>; 14] = [
            (&[7, 7, 0, 47], Ok(&[7, 7])),
            (&[7, 1, 1, 47], Ok(&[7])),
            (&[1, 2, 2, 47], Ok(&[])),
            (&[7, 7, 7, 7, 7, 7, 1, 2, 3, 4, 4, 47], Ok(&[7; 6])),
            (&[[0; 3].as_slice(), &long].concat(), Ok(&[0; 3])),
            (&[1, 2, 3, 47], Err(EspPadding)),
            (&[1, 2, 255, 47], Err(EspPadding)),
            (&[0, 0, 2, 47], Err(EspPadding)),
            (&[2, 1, 2, 47], Err(EspPadding)),
            (&[1, 3, 2, 47], Err(EspPadding)),
            (&[7, 7, 0, 59], Err(EspDummy)),
            (&[7, 7, 0, 4], Err(EspNextHeader)),
            (&[7, 7, 0, 0], Err(EspNextHeader)),
            (&[7, 7, 9, 59], Err(EspPadding)),
        ];
        for (plain, want) in cases {
            let sa = inbound(config());
            assert_eq!(open(&sa, &around(plain)), want.map(<[u8]>::to_vec), "{plain:?}");
            // its ICV was right: the number is taken
            assert_eq!((sa.usage().packets, sa.usage().sequence), (1, 1));
            assert_eq!(open(&sa, &around(plain)), Err(EspReplayed));
        }
    }

    #[test]
    fn replayed_and_too_old() {
        let (out, back) = (outbound(config()), inbound(config()));
        let packets: Vec<_> = (0..5000).map(|_| sealed(&out, b"x")).collect();
        for late in [1, 4999, 4999 - 4095] {
            assert!(open(&back, &packets[late]).is_ok(), "{late}");
        }
        assert_eq!(open(&back, &packets[4999]), Err(DropReason::EspReplayed));
        assert_eq!(open(&back, &packets[4999 - 4095]), Err(DropReason::EspReplayed));
        assert_eq!(open(&back, &packets[4999 - 4096]), Err(DropReason::EspTooOld));
        assert!(open(&back, &packets[4998]).is_ok());
        assert_eq!((back.usage().packets, back.usage().replayed), (4, 3));
    }

    #[test]
    fn a_late_forgery_with_a_number_far_ahead_moves_no_window() {
        let (out, back) = (outbound(config()), inbound(config()));
        let first = sealed(&out, b"x");
        let mut forged = numbered(&out, 1 << 31, b"x");
        forged[20] ^= 1;
        assert_eq!(open(&back, &forged), Err(DropReason::EspIcv));
        assert!(open(&back, &first).is_ok());
    }

    /// The high half, which is not sent, follows from where the window stands.
    #[test]
    fn extended_numbers_across_their_wraps() {
        let (out, back) = (outbound(config()), inbound(config()));
        let packet = |number: u64| numbered(&out, number, b"x");
        // each next one is less than 2^32 ahead of the window
        let jumps = [
            1,
            0xffff_fffd,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 5,
            0x1_8000_0000,
            0x1_ffff_fff0,
            0x2_0000_0010,
        ];
        for number in jumps {
            assert!(open(&back, &packet(number)).is_ok(), "{number:#x}");
            assert_eq!(back.usage().sequence, number);
            assert_eq!(open(&back, &packet(number)), Err(DropReason::EspReplayed));
        }
        // late ones from before the wrap
        assert!(open(&back, &packet(0x1_ffff_fff1)).is_ok());
        assert_eq!(open(&back, &packet(0x1_ffff_fff0)), Err(DropReason::EspReplayed));
        // a number of another round is not the one inferred
        assert_eq!(open(&back, &packet(0x2_0000_0011 + (1 << 32))), Err(DropReason::EspIcv));
    }

    #[test]
    fn short_numbers_do_not_go_round() {
        let config = SaConfig { esn: false, ..config() };
        let (out, back) = (outbound(config.clone()), inbound(config));
        assert!(open(&back, &numbered(&out, u32::MAX.into(), b"x")).is_ok());
        assert_eq!(open(&back, &numbered(&out, (1 << 32) + 1, b"x")), Err(DropReason::EspTooOld));
        assert_eq!(open(&back, &numbered(&out, 0, b"x")), Err(DropReason::EspTooOld));
    }

    #[test]
    fn esn_and_no_esn_do_not_understand_each_other() {
        for esn in [false, true] {
            let out: OutboundSa = outbound(SaConfig { esn, ..config() });
            let back = inbound(SaConfig { esn: !esn, ..config() });
            assert_eq!(open(&back, &sealed(&out, b"x")), Err(DropReason::EspIcv));
        }
    }

    /// Workers that have the same packet at the same time: each finds it fresh, one delivers it.
    #[test]
    fn of_many_copies_one_is_opened() {
        const WORKERS: usize = 2;
        let (out, back) = (outbound(config()), inbound(config()));
        // long ones, so that they are all at it at once
        let packets: Vec<_> = (0..300).map(|_| sealed(&out, &[7; 60_000])).collect();
        let ready = std::sync::atomic::AtomicUsize::new(0);
        let worker = || {
            let mut opened = 0;
            for (round, packet) in packets.iter().enumerate() {
                let mut packet = packet.clone();
                ready.fetch_add(1, Relaxed);
                while ready.load(Relaxed) < WORKERS * (round + 1) {
                    std::thread::yield_now();
                }
                opened += usize::from(back.open(&mut packet, 0).is_ok());
            }
            opened
        };
        let opened: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((opened, back.usage().packets), (packets.len(), packets.len() as u64));
    }

    #[test]
    fn an_sa_ends() {
        let limits = [(2, u64::MAX), (u64::MAX, 20)];
        for (hard_packets, hard_bytes) in limits {
            let back = inbound(SaConfig { hard_packets, hard_bytes, ..config() });
            let out = outbound(config());
            let results: Vec<_> = (0..4).map(|_| open(&back, &sealed(&out, &[7; 10])).is_ok()).collect();
            assert_eq!(results, [true, true, false, false]);
            assert_eq!(open(&back, &sealed(&out, b"x")), Err(DropReason::EspLimit));
        }
    }
}
