//! Tags pushed, popped and replaced in a frame that lies in the slab.

use super::forward::Passing;
use crate::slab::{Piece, Slab};
use crate::vlan::Edit;
use crate::vnet::VnetHdr;
use crate::wire::ethernet::TAG;

/// Bytes of the two addresses in front of the tags.
const ADDRESSES: usize = 12;
/// Bytes at a frame's start that an edit in its place may overwrite. A slot always has as many.
const HEAD: usize = ADDRESSES + TAG;

/// What an edit overwrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undo {
    data: Piece,
    head: [u8; HEAD],
}

/// Edits the frame where it lies, which nothing else that waits may refer to. A pushed tag takes four bytes of the headroom,
/// which every slot has for it. None: the frame is too short to bear a tag.
pub(super) fn in_place(slab: &mut Slab, frame: Passing, edit: Edit) -> Option<(Passing, Undo)> {
    frame.data.len.checked_sub(skipped(edit) as u32)?;
    let data = Piece { len: HEAD as u32, ..frame.data };
    let undo = Undo { data, head: slab.get(data).first_chunk().copied()? };
    let done = resized(frame, edit);
    let out = slab.get_mut(done.data);
    out.get_mut(..ADDRESSES)?.copy_from_slice(undo.head.get(..ADDRESSES)?);
    if let Edit::Push(tag) | Edit::Replace(tag) = edit {
        out.get_mut(ADDRESSES..HEAD)?.copy_from_slice(&tag.bytes());
    }
    Some((done, undo))
}

/// Makes the frame again what it was.
pub(super) fn undo(slab: &mut Slab, undo: &Undo) {
    if let Some(head) = slab.get_mut(undo.data).first_chunk_mut() {
        *head = undo.head;
    }
}

/// The frame as `edit` makes it, in the slab's bump area. None: there is no room, or it is too short to bear a tag.
pub(super) fn copy(slab: &mut Slab, frame: Passing, edit: Edit) -> Option<Passing> {
    let from = frame.data.skip(skipped(edit) as u32);
    frame.data.len.checked_sub(skipped(edit) as u32)?;
    let resized = resized(frame, edit);
    let data = slab.alloc(resized.data.len as usize)?;
    let tag = match edit {
        Edit::Push(tag) | Edit::Replace(tag) => Some(tag.bytes()),
        Edit::Keep | Edit::Pop => None,
    };
    let rest = data.skip((ADDRESSES + tag.map_or(0, |tag| tag.len())) as u32);
    let bytes = slab.bytes_mut();
    if bytes.len() < from.range().end.max(rest.range().end) {
        return None;
    }
    bytes.copy_within(Piece { len: ADDRESSES as u32, ..frame.data }.range(), data.off as usize);
    bytes.copy_within(from.range(), rest.off as usize);
    if let Some(tag) = tag {
        bytes.get_mut(rest.off as usize - TAG..rest.off as usize)?.copy_from_slice(&tag);
    }
    Some(Passing { data, ..resized })
}

/// Bytes at the start of the frame that came which are not also behind the edited one's addresses and tag.
fn skipped(edit: Edit) -> usize {
    match edit {
        Edit::Keep | Edit::Push(_) => ADDRESSES,
        Edit::Pop | Edit::Replace(_) => HEAD,
    }
}

/// Where the frame lies once edited in its place, and its offload header then.
fn resized(frame: Passing, edit: Edit) -> Passing {
    let Piece { off, len } = frame.data;
    const BYTES: u32 = TAG as u32;
    let data = match edit {
        Edit::Keep | Edit::Replace(_) => return frame,
        Edit::Push(_) => Piece { off: off.saturating_sub(BYTES), len: len + BYTES },
        Edit::Pop => frame.data.skip(BYTES),
    };
    let shift = |at: u16| match edit {
        Edit::Pop => at.saturating_sub(TAG as u16),
        _ => at.saturating_add(TAG as u16),
    };
    let mut vnet: VnetHdr = frame.vnet;
    if vnet.needs_csum() {
        vnet.csum_start = shift(vnet.csum_start.get()).into();
    }
    if vnet.is_gso() {
        vnet.hdr_len = shift(vnet.hdr_len.get()).into();
    }
    Passing { data, vnet, ..frame }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlan::Tag;
    use crate::vnet::{F_NEEDS_CSUM, GSO_TCPV4};
    use crate::wire::ethernet::Tci;

    const TAG: Tag = Tag { tpid: 0x88a8, tci: Tci(0x6005) };

    fn superframe(slab: &mut Slab, bytes: &[u8]) -> Passing {
        let data = Piece { len: bytes.len() as u32, ..Slab::slot(0).skip(crate::sys::mmsg::HEADROOM) };
        slab.get_mut(data).copy_from_slice(bytes);
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 58.into(),
            csum_start: 38.into(),
            csum_offset: 16.into(),
            gso_size: 1000.into(),
        };
        Passing { data, vnet, tunneled: None }
    }

    /// Either way it is the same frame, and the one that came can be had back.
    #[test]
    fn bytes_and_offsets_move_together() {
        let came = b"DDDDDDSSSSSS\x81\x00\x00\x07\x08\x00payload";
        let cases: [(Edit, &[u8], u16); 3] = [
            (Edit::Push(TAG), b"DDDDDDSSSSSS\x88\xa8\x60\x05\x81\x00\x00\x07\x08\x00payload", 4),
            (Edit::Pop, b"DDDDDDSSSSSS\x08\x00payload", 4u16.wrapping_neg()),
            (Edit::Replace(TAG), b"DDDDDDSSSSSS\x88\xa8\x60\x05\x08\x00payload", 0),
        ];
        for (edit, want, by) in cases {
            let mut slab = Slab::new();
            let frame = superframe(&mut slab, came);
            let copied = copy(&mut slab, frame, edit).unwrap();
            assert_eq!(slab.get(frame.data), came);
            let (moved, before) = in_place(&mut slab, frame, edit).unwrap();
            for done in [copied, moved] {
                assert_eq!(slab.get(done.data), want, "{edit:?}");
                let vnet = done.vnet;
                assert_eq!(vnet.csum_start.get(), 38u16.wrapping_add(by));
                assert_eq!(vnet.hdr_len.get(), 58u16.wrapping_add(by));
                assert_eq!((vnet.csum_offset.get(), vnet.gso_size.get()), (16, 1000));
            }
            undo(&mut slab, &before);
            assert_eq!(slab.get(frame.data), came);
        }
    }

    #[test]
    fn what_is_shorter_than_a_header_is_left() {
        for bytes in [&b"DDDDDDSSSSS"[..], b""] {
            let mut slab = Slab::new();
            let frame = superframe(&mut slab, bytes);
            assert!(copy(&mut slab, frame, Edit::Pop).is_none());
            assert!(in_place(&mut slab, frame, Edit::Push(TAG)).is_none());
            assert_eq!(slab.get(frame.data), bytes);
        }
    }

    #[test]
    fn offsets_that_lie_stay_in_range() {
        let mut slab = Slab::new();
        let mut frame = superframe(&mut slab, b"DDDDDDSSSSSS\x81\x00\x00\x07\x08\x00payload");
        frame.vnet.hdr_len = 0.into();
        frame.vnet.csum_start = u16::MAX.into();
        let popped = copy(&mut slab, frame, Edit::Pop).unwrap().vnet;
        assert_eq!((popped.hdr_len.get(), popped.csum_start.get()), (0, u16::MAX - 4));
        let pushed = copy(&mut slab, frame, Edit::Push(TAG)).unwrap().vnet;
        assert_eq!((pushed.hdr_len.get(), pushed.csum_start.get()), (4, u16::MAX));
    }
}
