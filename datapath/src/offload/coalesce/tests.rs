//! What is joined and what is not, and that what is joined comes apart again into what it was.

use proptest::prelude::*;

use super::run::MAX_PACKET;
use super::*;
use crate::offload::testing::*;
use crate::offload::{Fit, fit};
use crate::slab::SLOTS;
use crate::txq::MAX_PIECES;
use crate::vnet::GSO_TCPV4;
use crate::wire::checksum::{Sum, pseudo, update};
use crate::wire::{get16, ipv4, proto, put16, tcp, udp};

/// Frames in the order that they come from a tunnel, each in its slot, and what is queued for them.
struct Bench {
    slab: Slab,
    coalescer: Coalescer,
    out: TxQueue,
    used: usize,
    /// How many frames followed on the one before.
    followed: usize,
}

impl Bench {
    fn new() -> Bench {
        let (coalescer, out) = (Coalescer::new(), TxQueue::new());
        Bench { slab: Slab::new(), coalescer, out, used: 0, followed: 0 }
    }

    /// The same, for a frame that may follow on the one before.
    fn follow(&mut self, frame: &[u8]) {
        let piece = Piece { len: frame.len() as u32, ..Slab::slot(self.used) };
        self.slab.get_mut(piece).copy_from_slice(frame);
        if self.coalescer.follow(&mut self.slab, piece, &mut self.out) {
            self.used += 1;
            self.followed += 1;
        } else {
            self.push(frame);
        }
    }

    fn push(&mut self, frame: &[u8]) {
        let piece = Piece { len: frame.len() as u32, ..Slab::slot(self.used) };
        self.used += 1;
        self.slab.get_mut(piece).copy_from_slice(frame);
        self.coalescer.push(&mut self.slab, piece, &mut self.out);
    }

    /// What was queued, each frame gathered, after a flush.
    fn queued(mut self) -> Vec<(VnetHdr, Vec<u8>)> {
        self.coalescer.flush(&mut self.slab, &mut self.out);
        self.gather()
    }

    fn gather(&self) -> Vec<(VnetHdr, Vec<u8>)> {
        let gather =
            |pieces: &[Piece]| pieces.iter().flat_map(|piece| self.slab.get(*piece).to_vec()).collect();
        self.out.frames().iter().map(|frame| (frame.vnet, gather(self.out.pieces(frame)))).collect()
    }
}

/// What is queued for the frames, which is the same whether those that follow are looked at or not.
fn run(frames: &[Vec<u8>]) -> Vec<(VnetHdr, Vec<u8>)> {
    let (mut bench, mut other) = (Bench::new(), Bench::new());
    frames.iter().for_each(|frame| bench.push(frame));
    frames.iter().for_each(|frame| other.follow(frame));
    let queued = bench.queued();
    assert!(queued == other.queued());
    queued
}

/// From the third of a run on; what differs, is damaged or comes behind another flow has to be looked at.
#[test]
fn who_follows_without_a_look() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, usize); 9] = [
        ("nothing", |_| {}, 4),
        ("the last byte", |frame| *frame.last_mut().unwrap() ^= 1, 1),
        ("checksum of IPv4", |frame| frame[24] ^= 1, 1),
        ("a number", |frame| frame[34 + 6] ^= 1, 1),
        ("an address", |frame| frame[26] ^= 1, 1),
        ("a tag", |frame| drop(frame.splice(12..12, [0x81, 0, 0, 5])), 1),
        ("longer than its frame", |frame| frame[16] = 0xff, 1),
        ("shorter than its headers", |frame| put16(frame, 16, 40), 1),
        ("cut short", |frame| frame.truncate(60), 1),
    ];
    for spec in [data(6000), Spec::udp(6000)] {
        for (what, change, followed) in cases {
            let mut frames = segments(&spec, 1000);
            change(&mut frames[3]);
            let mut bench = Bench::new();
            frames.iter().for_each(|frame| bench.follow(frame));
            // datagrams have no numbers: there the flow goes on behind what is of another
            assert!(bench.followed == followed || !spec.tcp, "{what}: {}", bench.followed);
            run(&frames);
        }
    }
    // a frame that is not pushed, of another flow
    let mut bench = Bench::new();
    let frames = segments(&data(4000), 1000);
    frames.iter().take(3).for_each(|frame| bench.follow(frame));
    let other = Spec::udp(10).frame();
    let piece = Piece { len: other.len() as u32, ..Slab::slot(SLOTS - 1) };
    bench.slab.get_mut(piece).copy_from_slice(&other);
    bench.coalescer.give_way(&mut bench.slab, piece, &mut bench.out);
    bench.follow(&frames[3]);
    assert_eq!(bench.followed, 1);
    assert_eq!(bench.queued().len(), 1);
}

fn data(len: usize) -> Spec {
    Spec { options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], ..Spec::tcp(len) }
}

fn segments(spec: &Spec, size: u16) -> Vec<Vec<u8>> {
    let (frame, vnet) = spec.offloaded(size);
    let mut sink = Frames::new();
    assert_eq!(fit(&frame, &vnet, 9000, &mut sink), Fit::Sent(sink.frames.len()));
    sink.frames
}

proptest! {
    /// What segmentation took apart is the same superframe again, to the byte.
    #[test]
    fn restores_the_superframe(spec in spec(60_000), size in 1000u16..3000, psh in any::<bool>(), padding in 0usize..10) {
        let spec = Spec { flags: tcp::ACK | if psh { tcp::PSH } else { 0 }, ..spec };
        let mut frames = segments(&spec, size);
        prop_assume!(frames.len() > 1);
        for frame in &mut frames {
            frame.resize(frame.len() + padding, 0);
        }
        let (frame, vnet) = spec.offloaded(size);
        let vnet = VnetHdr { hdr_len: ((frame.len() - spec.len) as u16).into(), ..vnet };
        let queued = run(&frames);
        prop_assert_eq!(queued.len(), 1);
        prop_assert_eq!(queued[0].0, vnet);
        prop_assert!(queued[0].1 == frame);
    }

    /// Segments of several flows in any order, some damaged: nothing is lost, added or changed, each flow keeps its
    /// order, and every superframe can be taken apart into exactly what it was made of.
    #[test]
    fn takes_nothing_and_adds_nothing(flows in proptest::collection::vec(spec(4000), 1..12),
                                      picks in proptest::collection::vec((any::<u8>(), 0u8..20), 1..60)) {
        let flows: Vec<Spec> = flows;
        let mut waiting: Vec<std::collections::VecDeque<Vec<u8>>> = flows.iter().enumerate().map(|(port, flow)| {
            let mut frames = segments(flow, 300);
            // ports tell the flows apart
            for frame in &mut frames {
                let l4 = ip_of(frame).l4;
                let at = l4 + if flow.tcp { tcp::CHECKSUM } else { crate::wire::udp::CHECKSUM };
                let (old, check) = (get16(frame, l4).unwrap(), get16(frame, at).unwrap());
                put16(frame, l4, port as u16);
                put16(frame, at, update(check, old, port as u16, false));
            }
            frames.into()
        }).collect();
        let mut sent = Vec::new();
        for (pick, damage) in picks {
            let pick = usize::from(pick) % waiting.len();
            if let Some(mut frame) = waiting[pick].pop_front() {
                if damage == 0 && let Some(last) = frame.last_mut() {
                    *last ^= 0x55;
                }
                sent.push(frame);
            }
        }
        let mut apart = Frames::new();
        for (vnet, frame) in run(&sent) {
            if vnet.is_gso() {
                prop_assert!(matches!(fit(&frame, &vnet, 9000, &mut apart), Fit::Sent(2..)));
            } else {
                prop_assert_eq!(vnet, VnetHdr::default());
                apart.frames.push(frame);
            }
        }
        // DF packets may come back with another identification, which means nothing
        let key = |frame: &Vec<u8>| get16(frame, ip_of(frame).l4);
        for port in 0..flows.len() as u16 {
            let of = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
                frames.iter().filter(|frame| key(frame) == Some(port)).cloned().collect()
            };
            prop_assert_eq!(of(&sent), of(&apart.frames));
        }
        prop_assert_eq!(sent.len(), apart.frames.len());
    }

    #[test]
    fn any_bytes(frames in proptest::collection::vec((spec(200), proptest::collection::vec(any::<(u8, u8)>(), 0..3), 0usize..300), 1..20)) {
        let frames: Vec<Vec<u8>> = frames.into_iter().map(|(spec, changes, cut)| {
            let mut frame = spec.frame();
            changes.into_iter().for_each(|(at, value)| if let Some(byte) = frame.get_mut(usize::from(at)) { *byte = value });
            frame.truncate(cut);
            frame
        }).collect();
        let queued = run(&frames);
        prop_assert!(queued.len() <= frames.len());
    }
}

/// One thing changed in the second of three segments: which frames come out, by number of segments in each.
#[test]
fn what_ends_a_run() {
    type Change = fn(&mut [u8]);
    const L4: usize = 34;
    let of_tcp: [(&str, Change, &[usize]); 8] = [
        ("PSH", |frame| frame[L4 + 13] |= tcp::PSH, &[2, 1]),
        ("FIN", |frame| frame[L4 + 13] |= tcp::FIN, &[1, 1, 1]),
        ("ECE", |frame| frame[L4 + 13] |= tcp::ECE, &[1, 1, 1]),
        ("no ACK", |frame| frame[L4 + 13] = 0, &[1, 1, 1]),
        ("sequence", |frame| frame[L4 + 7] ^= 1, &[1, 1, 1]),
        ("acknowledgment", |frame| frame[L4 + 11] ^= 1, &[1, 1, 1]),
        ("window", |frame| frame[L4 + 15] ^= 1, &[1, 1, 1]),
        ("timestamp", |frame| frame[L4 + 27] ^= 1, &[1, 1, 1]),
    ];
    let of_both: [(&str, Change, &[usize]); 8] = [
        ("nothing", |_| {}, &[3]),
        ("port: another flow", |frame| frame[L4 + 1] ^= 1, &[1, 1, 1]),
        ("address: another flow", |frame| frame[L4 - 1] ^= 1, &[1, 1, 1]),
        ("source MAC: another flow", |frame| frame[11] ^= 1, &[1, 1, 1]),
        ("TOS", |frame| frame[15] ^= 4, &[1, 1, 1]),
        ("TTL", |frame| frame[22] -= 1, &[1, 1, 1]),
        ("DF", |frame| frame[20] ^= 0x40, &[1, 1, 1]),
        ("reserved bit", |frame| frame[20] ^= 0x80, &[1, 1, 1]),
    ];
    let udp = Spec::udp(3000);
    let both = of_both.into_iter().flat_map(|case| [data(3000), udp.clone()].map(|spec| (spec, case)));
    let all = of_tcp.map(|case| (data(3000), case)).into_iter().chain(both);
    for (spec, (what, change, lens)) in all {
        let mut frames = segments(&spec, 1000);
        change(&mut frames[1]);
        repair(&mut frames[1]);
        // datagrams have no numbers: those of the one flow need not wait for what is of another
        let lens = if !spec.tcp && what.ends_with("another flow") { &[2, 1] } else { lens };
        assert_eq!(thousands(&run(&frames)), lens, "{what}, TCP {}", spec.tcp);
    }
}

/// Thousands of bytes of payload in each frame.
fn thousands(queued: &[(VnetHdr, Vec<u8>)]) -> Vec<usize> {
    queued.iter().map(|(_, frame)| payload_of(frame).len() / 1000).collect()
}

/// Puts IPv4 header and transport checksum right.
fn repair(frame: &mut [u8]) {
    let ip = ip_of(frame);
    let at = ip.l4 + if ip.proto == proto::TCP { tcp::CHECKSUM } else { udp::CHECKSUM };
    ipv4::set_checksum(&mut frame[ip.l3..ip.l4]);
    put16(frame, at, 0);
    let sum = pseudo(ip.addresses(frame), ip.proto, ip.end - ip.l4) + Sum::of(&frame[ip.l4..ip.end]);
    put16(frame, at, sum.checksum());
}

/// What the kernel could not give back as it was, who reads frames one by one, and devices that take no such superframes.
#[test]
fn datagrams_that_are_not_joined() {
    let frames = segments(&Spec::udp(3000), 1000);
    let mut bare = frames.clone();
    bare.iter_mut().for_each(|frame| put16(frame, 34 + udp::CHECKSUM, 0));
    let mut group = frames.clone();
    group.iter_mut().for_each(|frame| frame[0] |= 1);
    // what stands behind a shorter datagram in its packet belongs to nobody, and would be lost
    let mut short = frames.clone();
    put16(&mut short[1], 34 + 4, 900);
    repair(&mut short[1]);
    let mut cases = vec![("no checksum".into(), bare), ("to a group".into(), group)];
    cases.push(("shorter than its packet".into(), short));
    for (at, ports) in [(34, [67, 547]), (36, [68, 546])] {
        for port in ports {
            let mut dhcp = frames.clone();
            for frame in &mut dhcp {
                put16(frame, at, port);
                repair(frame);
            }
            cases.push((format!("port {port} at {at}"), dhcp));
        }
    }
    for (what, frames) in cases {
        assert_eq!(run(&frames).len(), 3, "{what}");
    }
    let mut bench = Bench { coalescer: Coalescer::of_tcp(), ..Bench::new() };
    frames.iter().for_each(|frame| bench.push(frame));
    assert_eq!(bench.queued(), frames.into_iter().map(|f| (VnetHdr::default(), f)).collect::<Vec<_>>());
}

/// Kernels merge segments but for the last one, which a socket still owns.
#[test]
fn what_a_kernel_missed_joins_what_it_merged() {
    let merged = |spec: &Spec| {
        let (frame, vnet) = spec.offloaded(1448);
        (VnetHdr { hdr_len: 66.into(), ..vnet }, frame)
    };
    let rest = |len: usize, flags: u8| {
        Spec { seq: data(0).seq.wrapping_add(45 * 1000), flags: tcp::ACK | flags, ..data(len) }.frame()
    };
    let mut damaged = rest(1000, 0);
    damaged[100] ^= 1;
    let df = |df: bool| Spec { df, ..data(45_000) };
    type Case = (&'static str, Spec, Vec<Vec<u8>>, &'static [usize]);
    let cases: [Case; 7] = [
        ("nothing", df(true), vec![], &[45]),
        ("its last segment", df(true), vec![rest(1000, tcp::PSH)], &[46]),
        ("a longer one", df(true), vec![rest(3000, 0)], &[48]),
        ("an old one", df(true), vec![data(1000).frame()], &[45, 1]),
        ("a damaged one", df(true), vec![damaged], &[45, 1]),
        ("identifications that count", df(false), vec![rest(1000, 0)], &[45, 1]),
        ("behind PSH", Spec { flags: tcp::ACK | tcp::PSH, ..df(true) }, vec![rest(1000, 0)], &[45, 1]),
    ];
    for (what, spec, rest, lens) in cases {
        let mut bench = Bench::new();
        // two of them: one does not join the other, nor overtake it
        for seq in [spec.seq.wrapping_sub(45_000), spec.seq] {
            let (vnet, frame) = merged(&Spec { seq, ..spec.clone() });
            let piece = Piece { len: frame.len() as u32, ..Slab::slot(bench.used) };
            bench.used += 1;
            bench.slab.get_mut(piece).copy_from_slice(&frame);
            bench.coalescer.push_offloaded(&mut bench.slab, piece, &vnet, &mut bench.out);
        }
        rest.iter().for_each(|frame| bench.push(frame));
        let queued = bench.queued();
        assert_eq!(thousands(&queued), [&[45], lens].concat(), "{what}");
        assert_eq!(queued[0], merged(&Spec { seq: spec.seq.wrapping_sub(45_000), ..spec.clone() }), "{what}");
        let whole = &queued[1];
        assert_eq!((whole.0.gso_size.get(), whole.0.gso_type), (1448, GSO_TCPV4));
        // cut anew, it is right to the last byte
        let mut sink = Frames::new();
        assert!(matches!(fit(&whole.1, &whole.0, 9000, &mut sink), Fit::Sent(2..)));
        sink.frames.iter().for_each(|frame| assert_checksums(frame));
        let payload: Vec<u8> = sink.frames.iter().flat_map(|frame| payload_of(frame).to_vec()).collect();
        assert_eq!(payload[..45_000], spec.payload());
    }
}

/// The last segment has PSH and comes first.
#[test]
fn what_overtook_what_was_merged_steps_back() {
    let psh = tcp::ACK | tcp::PSH;
    let last = |seq: u32| Spec { seq: data(0).seq.wrapping_add(seq), flags: psh, ..data(1000) }.frame();
    let cases: [(&str, Vec<u8>, Spec, &[usize]); 4] = [
        ("the last", last(45_000), data(45_000), &[46]),
        ("one behind a gap", last(46_000), data(45_000), &[1, 45]),
        ("one with PSH already", last(45_000), Spec { flags: psh, ..data(45_000) }, &[1, 45]),
        ("another header", last(45_000), Spec { tos: 4, ..data(45_000) }, &[1, 45]),
    ];
    for ((what, early, spec, lens), partial) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut bench = Bench::new();
        // as a veth hands it over, whose checksums nobody finishes
        let mut early = early.clone();
        let ip = ip_of(&early);
        let mut vnet = VnetHdr::default();
        if partial {
            let sum = pseudo(ip.addresses(&early), proto::TCP, ip.end - ip.l4).fold();
            put16(&mut early, 34 + tcp::CHECKSUM, sum);
            vnet = crate::offload::recognize(&early, &ip);
            assert!(vnet.needs_csum());
        }
        let piece = Piece { len: early.len() as u32, ..Slab::slot(bench.used) };
        bench.used += 1;
        bench.slab.get_mut(piece).copy_from_slice(&early);
        bench.coalescer.push_offloaded(&mut bench.slab, piece, &vnet, &mut bench.out);
        let (frame, vnet) = spec.offloaded(1448);
        let piece = Piece { len: frame.len() as u32, ..Slab::slot(bench.used) };
        bench.slab.get_mut(piece).copy_from_slice(&frame);
        bench.coalescer.push_offloaded(&mut bench.slab, piece, &vnet, &mut bench.out);
        let queued = bench.queued();
        assert_eq!(thousands(&queued), *lens, "{what}");
        if let [(_, whole)] = &queued[..] {
            assert_eq!(payload_of(whole), [&spec.payload()[..], payload_of(&early)].concat());
            assert!(tcp_of(whole).psh);
        }
    }
}

/// With and without memory for a header.
#[test]
fn unfinished_checksums_stay_unfinished() {
    for (spec, full) in
        [Spec::udp(3000), data(3000)].into_iter().flat_map(|s| [(s.clone(), false), (s, true)])
    {
        let mut bench = Bench::new();
        while full && bench.slab.alloc(16).is_some() {}
        let mut given = Vec::new();
        for mut frame in segments(&spec, 1000) {
            let ip = ip_of(&frame);
            let at = ip.l4 + if spec.tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
            let sum = pseudo(ip.addresses(&frame), ip.proto, ip.end - ip.l4).fold();
            put16(&mut frame, at, sum);
            let vnet = crate::offload::recognize(&frame, &ip);
            let piece = Piece { len: frame.len() as u32, ..Slab::slot(bench.used) };
            bench.used += 1;
            bench.slab.get_mut(piece).copy_from_slice(&frame);
            bench.coalescer.push_offloaded(&mut bench.slab, piece, &vnet, &mut bench.out);
            given.push((vnet, frame));
        }
        let queued = bench.queued();
        let mut finished = Frames::new();
        for (vnet, frame) in &queued {
            assert!(matches!(fit(frame, vnet, 9000, &mut finished), Fit::Sent(_)));
        }
        assert_eq!(finished.frames, segments(&spec, 1000));
        if full {
            let essence = |list: &[(VnetHdr, Vec<u8>)]| -> Vec<_> {
                list.iter()
                    .map(|(vnet, frame)| (vnet.flags, vnet.gso_type, vnet.csum_start, frame.clone()))
                    .collect()
            };
            assert_eq!(essence(&queued), essence(&given));
        } else {
            assert_eq!(queued.len(), 1);
        }
    }
}

#[test]
fn datagrams_of_another_size_keep_their_place() {
    let frames: Vec<_> = [1000, 1000, 400, 1000, 2000].map(|len| Spec::udp(len).frame()).into();
    let lens =
        |queued: &[(VnetHdr, Vec<u8>)]| queued.iter().map(|(_, f)| payload_of(f).len()).collect::<Vec<_>>();
    assert_eq!(lens(&run(&frames)), [2400, 1000, 2000]);
}

#[test]
fn damaged_segments_go_alone_and_unchanged() {
    for at in [14 + 10, 34 + 16, 200] {
        for place in 0..4 {
            let mut frames = segments(&data(4000), 1000);
            frames[place][at] ^= 0x10;
            let queued = run(&frames);
            let alone = queued.iter().find(|(_, frame)| *frame == frames[place]).unwrap();
            assert_eq!(alone.0, VnetHdr::default());
            let lens: Vec<_> = queued.iter().map(|(_, frame)| payload_of(frame).len() / 1000).collect();
            let expected = [&[1, 3][..], &[1, 1, 2], &[2, 1, 1], &[3, 1]][place];
            assert_eq!(lens, expected, "byte {at} of frame {place}");
        }
    }
}

/// A header that claims to be longer than the packet, behind an open run of its flow.
#[test]
fn a_header_longer_than_its_packet() {
    let mut frames = segments(&data(2000), 1000);
    let mut broken = Spec { seq: data(0).seq.wrapping_add(2000), ..data(1) }.frame();
    broken[34 + 12] = 0xf0;
    frames.push(broken.clone());
    let queued = run(&frames);
    assert_eq!(queued.len(), 2);
    assert_eq!(queued[1], (VnetHdr::default(), broken));
}

#[test]
fn identification_counts_unless_df() {
    for (df, lens) in [(true, vec![3]), (false, vec![1, 1, 1])] {
        let mut frames = segments(&Spec { df, ..data(3000) }, 1000);
        put16(&mut frames[1], 18, 7777);
        repair(&mut frames[1]);
        let queued = run(&frames);
        assert_eq!(
            queued.iter().map(|(_, frame)| payload_of(frame).len() / 1000).collect::<Vec<_>>(),
            lens,
            "{df}"
        );
    }
}

#[test]
fn a_short_segment_is_the_last() {
    let mut frames = segments(&data(2500), 1000);
    let next = Spec { seq: data(0).seq.wrapping_add(2500), ..data(1000) };
    frames.push(next.frame());
    let queued = run(&frames);
    assert_eq!(queued.iter().map(|(_, frame)| payload_of(frame).len()).collect::<Vec<_>>(), [2500, 1000]);
}

#[test]
fn a_longer_segment_starts_anew() {
    let first = data(500);
    let next = Spec { seq: first.seq.wrapping_add(500), ..data(1000) };
    assert_eq!(run(&[first.frame(), next.frame()]).len(), 2);
}

#[test]
fn an_ack_does_not_overtake_data() {
    let mut frames = segments(&data(2000), 1000);
    let ack = Spec { seq: data(0).seq.wrapping_add(2000), ..data(0) };
    frames.push(ack.frame());
    let queued = run(&frames);
    assert_eq!(queued.iter().map(|(_, frame)| payload_of(frame).len()).collect::<Vec<_>>(), [2000, 0]);
    assert_eq!(queued[1].1, ack.frame());
}

#[test]
fn never_longer_than_an_ip_packet_nor_than_its_pieces() {
    // 64 full segments of 1448 are more than 65535 bytes; 64 of 100 more than the pieces there are
    for (len, most) in [(1448, 45), (100, MAX_PIECES - 1)] {
        let mut frames = Vec::new();
        for index in 0..64u32 {
            frames.push(Spec { seq: index * len as u32, id: 100 + index as u16, ..data(len) }.frame());
        }
        let queued = run(&frames);
        let lens: Vec<_> = queued.iter().map(|(_, frame)| payload_of(frame).len() / len).collect();
        assert_eq!(lens, [most, 64 - most]);
        assert!(queued.iter().all(|(_, frame)| ip_of(frame).end - 14 <= MAX_PACKET));
    }
}

#[test]
fn up_to_the_last_byte_of_an_ip_packet() {
    // 20 bytes of IPv4 and 32 of TCP header leave 65483
    for (last, lens) in [(11, vec![65483]), (12, vec![65472, 12])] {
        let mut frames = segments(&data(44 * 1488), 1488);
        frames.push(Spec { seq: data(0).seq.wrapping_add(44 * 1488), ..data(last) }.frame());
        let queued = run(&frames);
        assert_eq!(queued.iter().map(|(_, frame)| payload_of(frame).len()).collect::<Vec<_>>(), lens);
    }
}

#[test]
fn another_flow_label_ends_a_run() {
    let spec = Spec { v6: true, ..data(3000) };
    let mut frames = segments(&spec, 1000);
    assert_eq!(run(&frames).len(), 1);
    frames[1][17] ^= 1;
    assert_eq!(run(&frames).len(), 3);
}

#[test]
fn more_flows_than_runs() {
    let flows = RUNS as u16 + 3;
    let spec = |flow, seq| Spec { tags: 0, v6: true, id: flow, seq, ..data(500) };
    let frame = |flow: u16, seq| {
        let mut frame = spec(flow, seq).frame();
        frame[53] = flow as u8;
        let ip = ip_of(&frame);
        put16(&mut frame, ip.l4 + tcp::CHECKSUM, 0);
        let sum = pseudo(ip.addresses(&frame), proto::TCP, ip.end - ip.l4) + Sum::of(&frame[ip.l4..]);
        put16(&mut frame, ip.l4 + tcp::CHECKSUM, sum.checksum());
        frame
    };
    let frames: Vec<_> =
        [0, 500].into_iter().flat_map(|seq| (0..flows).map(move |flow| (flow, seq))).collect();
    let queued = run(&frames.iter().map(|(flow, seq)| frame(*flow, *seq)).collect::<Vec<_>>());
    assert_eq!(
        queued.iter().map(|(_, frame)| payload_of(frame).len()).sum::<usize>(),
        1000 * usize::from(flows)
    );
    // the oldest made way first, in order
    assert_eq!(queued.iter().take(3).map(|(_, frame)| frame[53]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn without_memory_for_headers_the_segments_go_as_they_came() {
    let frames = segments(&data(3000), 1000);
    let mut bench = Bench::new();
    while bench.slab.alloc(16).is_some() {}
    frames.iter().for_each(|frame| bench.push(frame));
    let expected: Vec<_> = frames.into_iter().map(|frame| (VnetHdr::default(), frame)).collect();
    assert_eq!(bench.queued(), expected);
}

#[test]
fn a_lone_segment_waits_for_the_flush_and_psh_does_not() {
    let mut bench = Bench::new();
    bench.push(&data(100).frame());
    assert!(bench.out.is_empty());
    let seq = data(0).seq.wrapping_add(100);
    bench.push(&Spec { flags: tcp::ACK | tcp::PSH, seq, ..data(100) }.frame());
    assert_eq!(bench.out.frames().len(), 1);
    assert_eq!(bench.queued().len(), 1);
}
