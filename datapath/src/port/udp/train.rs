//! Which packets may go as one message.

use crate::port::TxPacket;
use crate::sys::udp::{TRAIN, TRAIN_BYTES};

/// How many of the first packets the kernel can cut out of one message: they lie one behind the other, go the same way, and
/// are as long as the first; only the last may be shorter. 0 without packets.
pub(super) fn len(packets: &[TxPacket]) -> usize {
    let [first, rest @ ..] = packets else { return 0 };
    let (mut bytes, mut last) = (first.len as usize, first);
    let mut count = 1;
    for packet in rest {
        bytes += packet.len as usize;
        if last.len < first.len || !follows(packet, last) || count == TRAIN || bytes > TRAIN_BYTES {
            break;
        }
        (count, last) = (count + 1, packet);
    }
    count
}

/// `packet` lies behind `last`, goes the same way and is no longer.
fn follows(packet: &TxPacket, last: &TxPacket) -> bool {
    let way = |p: &TxPacket| (p.dst, p.dst_port, p.src, p.tos, p.ttl, (p.df, p.checksum), p.entropy);
    last.start.checked_add(last.len) == Some(packet.start)
        && (1..=last.len).contains(&packet.len)
        && way(packet) == way(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::PortId;

    /// What differs between packets of one outbox, few values each so that they are often the same.
    fn packets() -> impl Strategy<Value = Vec<TxPacket>> {
        let len = prop_oneof![4 => Just(1400u32), 1 => Just(1000u32), 1 => 0u32..70_000];
        let way = prop_oneof![20 => Just(0u8), 1 => 0u8..8];
        let one = (len, way, 0u8..40);
        proptest::collection::vec(one, 0..200).prop_map(|list| {
            let mut start = 0;
            list.into_iter()
                .map(|(len, way, gap)| {
                    start += u32::from(gap == 0);
                    let mut p = TxPacket::raw(start, len, [10, 0, 0, 1].into(), PortId(0));
                    match way {
                        1 => p.dst = [10, 0, 0, 2].into(),
                        2 => p.dst_port = 1,
                        3 => p.src = Some([10, 0, 0, 3].into()),
                        4 => p.tos = 3,
                        5 => p.ttl = 1,
                        6 => p.df = false,
                        7 => p.entropy = 1,
                        _ => {}
                    }
                    start += len;
                    p
                })
                .collect()
        })
    }

    /// What the kernel demands of a message that it shall cut (udp(7), UDP_SEGMENT), and that it is cut as it was.
    fn is_train(train: &[TxPacket]) -> bool {
        let [first, .., last] = train else { return train.len() == 1 };
        if first.len == 0 {
            return false;
        }
        let total = (last.start + last.len - first.start) as usize;
        let same = |p: &TxPacket| {
            (p.dst, p.dst_port, p.src, p.tos, p.ttl, p.df, p.entropy)
                == (first.dst, first.dst_port, first.src, first.tos, first.ttl, first.df, first.entropy)
        };
        let cut = |i: usize| {
            let at = i * first.len as usize;
            (first.start as usize + at, (first.len as usize).min(total - at))
        };
        train.len() <= 64
            && total <= 65507
            && train.len() == total.div_ceil(first.len as usize)
            && train.iter().all(same)
            && train.iter().enumerate().all(|(i, p)| (p.start as usize, p.len as usize) == cut(i))
    }

    proptest! {
        #[test]
        fn trains_are_whole_in_order_and_as_long_as_they_may_be(packets in packets()) {
            let mut rest = &packets[..];
            while !rest.is_empty() {
                let count = len(rest);
                prop_assert!((1..=rest.len()).contains(&count));
                prop_assert!(is_train(&rest[..count]));
                prop_assert!(count == rest.len() || !is_train(&rest[..=count]));
                rest = &rest[count..];
            }
        }
    }

    #[test]
    fn a_batch_of_segments_is_cut_where_a_message_ends() {
        let packet = |i: u32| TxPacket::raw(i * 1400, 1400, [10, 0, 0, 1].into(), PortId(0));
        let mut list: Vec<TxPacket> = (0..100).map(packet).collect();
        assert_eq!(len(&list), 65507 / 1400);
        list[3].len = 7;
        assert_eq!(len(&list), 4);
        assert_eq!(len(&[]), 0);
    }
}
