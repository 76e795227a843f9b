//! A worker weighs more with the scheduler while it carries bulk TCP, and only then.
//!
//! A TCP stream goes at the pace of the slowest thread on its way. With the same weight as the two ends a worker, which has more
//! to do than both, is made to give up the core whenever one of them wakes, for next to nothing: with a higher one it
//! does so half as often. What does not wait for its receiver, as TCP does, must not profit: a worker that takes all the
//! core to deliver datagrams starves who would read them. So superframes of TCP earn credit, every other frame costs some,
//! and what a worker may is told by what is left.
//!
//! Counted in frames, not in time: it takes no clock, and between two changes there are hundreds of frames.

use rustix::process::{getpriority_process, setpriority_process};

use crate::vnet::VnetHdr;

/// Nice value of a worker that carries bulk.
const BULK: i32 = -10;
/// Bytes of a superframe that earn one credit.
const EARNS: u32 = 4096;
/// What a frame that is no superframe costs; a stream's acknowledgments must leave something.
const COSTS: u32 = 2;
/// The most credit there is: a megabyte of superframes.
const FULL: u32 = 256;
/// Credit that makes the worker heavy; it stays so until there is none.
const ENOUGH: u32 = FULL / 2;

/// What this worker carries, and what it is allowed for that.
#[derive(Debug)]
pub(super) struct Weight {
    credit: u32,
    heavy: bool,
    /// This process may change it, and whoever started it has left it to us.
    free: bool,
}

impl Default for Weight {
    fn default() -> Weight {
        Weight { credit: 0, heavy: false, free: true }
    }
}

impl Weight {
    /// A frame of `len` bytes leaves by a port.
    #[inline]
    pub(super) fn carry(&mut self, vnet: &VnetHdr, len: u32) {
        self.credit = if vnet.is_tcp_gso() {
            (self.credit + len / EARNS).min(FULL)
        } else {
            self.credit.saturating_sub(COSTS)
        };
    }

    /// The turn of the calling thread, which is the worker's, is over.
    #[inline]
    pub(super) fn turn(&mut self) {
        if let Some(heavy) = self.change() {
            self.settle(heavy, getpriority_process(None), |nice| setpriority_process(None, nice));
        }
    }

    /// What the worker is to become, if it is not.
    #[inline]
    fn change(&self) -> Option<bool> {
        let heavy = if self.heavy { self.credit > 0 } else { self.credit >= ENOUGH };
        (self.free && heavy != self.heavy).then_some(heavy)
    }

    /// Becomes `heavy` or not by `set`, where its nice value `now` is ours to change and we may.
    #[cold]
    fn settle<E>(&mut self, heavy: bool, now: Result<i32, E>, set: impl FnOnce(i32) -> Result<(), E>) {
        let (from, to) = if heavy { (0, BULK) } else { (BULK, 0) };
        match now {
            Ok(nice) if nice == from && set(to).is_ok() => self.heavy = heavy,
            _ => self.free = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

    const TCP: u8 = GSO_TCPV4;
    const LONE: u8 = 0;

    fn carry(weight: &mut Weight, gso_type: u8, len: u32, times: u32) {
        let vnet = VnetHdr { gso_type, ..VnetHdr::default() };
        (0..times).for_each(|_| weight.carry(&vnet, len));
    }

    /// As the scheduler has it afterwards.
    fn settle(weight: &mut Weight, nice: &mut i32) {
        if let Some(heavy) = weight.change() {
            let now = Ok::<_, ()>(*nice);
            weight.settle(heavy, now, |to| {
                *nice = to;
                Ok(())
            });
        }
    }

    #[test]
    fn superframes_of_tcp_make_it_heavy_and_nothing_else_does() {
        // kind and length of the frames, acknowledgments between each two of them, heavy after a thousand
        let cases = [
            (TCP, 65_226, 0, true),
            (GSO_TCPV6, 65_226, 0, true),
            (TCP | GSO_ECN, 65_226, 0, true),
            (TCP, 65_226, 1, true),
            (TCP, 16_400, 1, true),
            (TCP, 8_300, 1, false),
            (TCP, 65_226, 10, false),
            (TCP, 3_000, 0, false),
            (GSO_UDP_L4, 65_226, 0, false),
            (LONE, 1_514, 0, false),
        ];
        for (kind, len, between, heavy) in cases {
            let (mut weight, mut nice) = (Weight::default(), 0);
            for _ in 0..1000 {
                carry(&mut weight, kind, len, 1);
                carry(&mut weight, LONE, 66, between);
                settle(&mut weight, &mut nice);
            }
            let wanted = (heavy, if heavy { BULK } else { 0 });
            assert_eq!((weight.heavy, nice), wanted, "{kind} of {len} bytes, {between} between");
        }
    }

    #[test]
    fn it_takes_half_a_megabyte_and_ends_with_the_first_hundreds_of_frames() {
        let (mut weight, mut nice) = (Weight::default(), 0);
        carry(&mut weight, TCP, 65_536, 7);
        settle(&mut weight, &mut nice);
        assert_eq!(nice, 0);
        carry(&mut weight, TCP, 65_536, 1);
        settle(&mut weight, &mut nice);
        assert_eq!(nice, BULK);
        carry(&mut weight, TCP, 65_536, 1_000_000);
        carry(&mut weight, LONE, 106, FULL / COSTS - 1);
        settle(&mut weight, &mut nice);
        assert_eq!(nice, BULK);
        carry(&mut weight, LONE, 106, 1);
        settle(&mut weight, &mut nice);
        assert_eq!(nice, 0);
        carry(&mut weight, LONE, 106, 1);
        assert_eq!(weight.change(), None);
    }

    #[test]
    fn a_nice_value_that_somebody_gave_stays() {
        for own in [-10, -5, 5] {
            let (mut weight, mut nice) = (Weight::default(), own);
            carry(&mut weight, TCP, 65_536, 16);
            settle(&mut weight, &mut nice);
            assert_eq!((nice, weight.change()), (own, None));
        }
        let (mut weight, mut nice) = (Weight::default(), 0);
        carry(&mut weight, TCP, 65_536, 16);
        settle(&mut weight, &mut nice);
        nice = 5;
        carry(&mut weight, LONE, 106, FULL);
        settle(&mut weight, &mut nice);
        assert_eq!((nice, weight.change()), (5, None));
    }

    #[test]
    fn who_may_not_does_not_ask_again() {
        for now in [Ok(0), Err(())] {
            let mut weight = Weight::default();
            carry(&mut weight, TCP, 65_536, 16);
            weight.settle(true, now, |_| Err(()));
            assert_eq!((weight.heavy, weight.change()), (false, None));
        }
    }
}
