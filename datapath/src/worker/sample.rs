//! Samples of frames: how each began, and what became of it.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::Worker;
use super::forward::Passing;
use crate::bridge::Verdict;
use crate::sflow::{Fate, Sample, Sampler, Taken};
use crate::snapshot::{Port, PortId, PortKind};
use crate::vnet::VnetHdr;
use crate::wire::parse::{Ip, Link, Version, parse};
use crate::wire::tcp::{self, Tcp};
use crate::wire::{ipv4, ipv6};
use crate::wire::{proto, put16, udp};

/// The frame that is sampled just now, if it is.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    sampler: Option<Arc<Sampler>>,
    from: Option<PortId>,
    header: Vec<u8>,
    cut: Cut,
    taken: Vec<Taken>,
    fate: Fate,
}

impl Worker {
    /// Counts a frame that is in the middle of its first bridge, and begins a sample if it is its turn. What goes on to control
    /// is no traffic.
    #[inline(never)]
    pub(super) fn sample(&mut self, sampler: &Arc<Sampler>, port: &Port, frame: Passing, verdict: Verdict) {
        if self.crossings.under_way() || matches!(verdict, Verdict::Punt(_)) {
            return;
        }
        let packets = frame.vnet.packets(frame.data.len);
        if sampler.passes(self.index, packets) {
            let bytes = self.slab.get(frame.data);
            self.sampling.begin(sampler, self.index, port.id, bytes, &frame.vnet);
        }
    }

    /// Notes that a copy of the frame leaves by `port`.
    #[inline]
    pub(super) fn note_copy(&mut self, port: &Port, frame: Passing) {
        if self.sampling.under_way() && !matches!(port.kind, PortKind::Patch(_)) {
            self.sampling.note(port.id, self.slab.get(frame.data));
        }
    }
}

impl Sampling {
    #[inline]
    pub(super) fn under_way(&self) -> bool {
        self.sampler.is_some()
    }

    #[cold]
    fn begin(&mut self, sampler: &Arc<Sampler>, worker: usize, from: PortId, frame: &[u8], vnet: &VnetHdr) {
        self.taken.clear();
        sampler.take_of(worker, vnet.packets(frame.len() as u32), &mut self.taken);
        self.header.clear();
        self.header.extend(frame.iter().take(sampler.header()));
        self.cut = Cut::of(frame, vnet);
        let came = tag(frame);
        self.fate = Fate { came, left: came, ..Fate::default() };
        (self.from, self.sampler) = (Some(from), Some(Arc::clone(sampler)));
    }

    #[cold]
    fn note(&mut self, to: PortId, frame: &[u8]) {
        let tag = tag(frame);
        if self.fate.copies == 0 || tag != 0 {
            self.fate.left = tag;
        }
        self.fate.copies += 1;
        self.fate.last = Some(to);
    }

    /// The frame has gone all its ways.
    #[cold]
    pub(super) fn pass_up(&mut self) {
        let (Some(sampler), Some(from)) = (self.sampler.take(), self.from) else { return };
        let sample = |taken: &Taken| {
            let len = self.cut.len(taken.index);
            let mut header = self.header.clone();
            header.truncate(len);
            self.cut.correct(&mut header, len);
            Sample { from, header, len: len as u32, fate: self.fate, pool: 0, drops: 0 }
        };
        sampler.push(&self.taken, sample);
    }
}

/// The first tag of a frame; 0 when it has none.
fn tag(frame: &[u8]) -> u16 {
    Link::parse(frame).and_then(|link| link.vlan).map_or(0, |tci| tci.0)
}

/// How a frame is cut into packets.
#[derive(Debug, Clone, Copy, Default)]
struct Cut {
    /// Bytes of the frame.
    whole: usize,
    /// Bytes of headers that each packet has. None: it is a packet already.
    head: Option<usize>,
    /// Bytes of payload that each has, but for the last.
    size: usize,
    ip: Option<Ip>,
}

impl Cut {
    fn of(frame: &[u8], vnet: &VnetHdr) -> Cut {
        let whole = Cut { whole: frame.len(), ..Cut::default() };
        let size = usize::from(vnet.gso_size.get());
        if !vnet.is_gso() || size == 0 {
            return whole;
        }
        let ip = parse(frame).and_then(|parsed| parsed.ip);
        let head = ip.as_ref().and_then(|ip| {
            let header = match ip.proto {
                proto::TCP => Tcp::ref_from_prefix(frame.get(ip.l4..)?).ok()?.0.header_len().max(tcp::HEADER),
                _ => udp::HEADER,
            };
            Some(ip.l4 + header)
        });
        Cut { head, size, ip, ..whole }
    }

    /// Bytes of packet `index`.
    fn len(&self, index: u64) -> usize {
        let Some(head) = self.head else { return self.whole };
        let before = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(self.size);
        let payload = self.whole.saturating_sub(head).saturating_sub(before);
        (head + payload.min(self.size)).min(self.whole)
    }

    /// Has the headers say the length of their packet. Numbers and checksums of TCP and UDP stay the superframe's.
    fn correct(&self, header: &mut [u8], len: usize) {
        let (Some(_), Some(ip)) = (self.head, &self.ip) else { return };
        let payload = len.saturating_sub(ip.l4);
        match ip.version {
            Version::V4 => {
                put16(header, ip.l3 + 2, len.saturating_sub(ip.l3) as u16);
                ipv4::set_checksum(header.get_mut(ip.l3..ip.l4).unwrap_or(&mut []));
            }
            Version::V6 => {
                put16(header, ip.l3 + 4, (payload + ip.l4 - ip.l3).saturating_sub(ipv6::HEADER) as u16)
            }
        }
        if ip.proto == proto::UDP {
            put16(header, ip.l4 + 4, payload as u16);
        }
    }
}
