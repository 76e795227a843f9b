//! Ancillary data: what stands beside a message on a socket (RFC 3542 section 20.1).
//!
//! ```text
//! | length of header and data: a word | level: 4 bytes | type: 4 bytes | data | to the next word |
//! ```

use libc::c_int;

/// Room beside one message: IPv6 packet info, traffic class and hop limit, and the size of segments.
const ROOM: usize = 128;
const WORD: usize = size_of::<usize>();
const HEAD: usize = WORD + 8;

/// Items to send, or room for items to receive.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; ROOM],
    len: usize,
}

impl Control {
    /// No items.
    pub const EMPTY: Control = Control { bytes: [0; ROOM], len: 0 };

    /// Adds an item. The few that one message needs fit; one more is left out.
    pub fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let len = HEAD + data.len();
        let Some(item) = self.bytes.get_mut(self.len..self.len + len) else { return };
        let (head, body) = item.split_at_mut(HEAD);
        let (size, names) = head.split_at_mut(WORD);
        size.copy_from_slice(&len.to_ne_bytes());
        names[..4].copy_from_slice(&level.to_ne_bytes());
        names[4..].copy_from_slice(&kind.to_ne_bytes());
        body.copy_from_slice(data);
        self.len = (self.len + len.next_multiple_of(WORD)).min(ROOM);
    }

    /// The items, as the kernel takes them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The room for the kernel to write to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `len` bytes, which the kernel has written.
    pub(super) fn written(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or(&[])
    }
}

/// The data of the first item of that kind. Lengths that contradict the buffer end the search.
pub fn find(mut items: &[u8], level: c_int, kind: c_int) -> Option<&[u8]> {
    loop {
        let len = usize::from_ne_bytes(items.first_chunk::<WORD>().copied()?);
        let found_level = c_int::from_ne_bytes(items.get(WORD..WORD + 4)?.try_into().ok()?);
        let found_kind = c_int::from_ne_bytes(items.get(WORD + 4..HEAD)?.try_into().ok()?);
        let data = items.get(HEAD..len)?;
        if (found_level, found_kind) == (level, kind) {
            return Some(data);
        }
        items = items.get(len.next_multiple_of(WORD)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_and_lies_end_the_search() {
        let mut control = Control::EMPTY;
        control.push(1, 2, b"abcde");
        control.push(3, 4, b"fgh");
        let mut bytes = control.as_bytes().to_vec();
        assert_eq!(find(&bytes, 1, 2), Some(&b"abcde"[..]));
        assert_eq!(find(&bytes, 3, 4), Some(&b"fgh"[..]));
        assert_eq!(find(&bytes, 5, 6), None);
        for lie in [0, 1, HEAD - 1, 1000, usize::MAX] {
            bytes[..WORD].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(find(&bytes, 3, 4), None, "length {lie}");
        }
        for cut in 0..bytes.len() {
            find(&bytes[..cut], 3, 4);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut control = Control::EMPTY;
        for kind in 0..20 {
            control.push(1, kind, &[7; 20]);
        }
        let fit = (0..20).filter(|kind| find(control.as_bytes(), 1, *kind) == Some(&[7; 20])).count();
        assert_eq!(fit, ROOM / (HEAD + 20).next_multiple_of(WORD));
        control.push(1, 99, &[0; ROOM]);
        assert_eq!(find(control.as_bytes(), 1, 99), None);
    }
}
