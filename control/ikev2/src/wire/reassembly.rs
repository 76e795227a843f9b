//! Fragments put together (RFC 7383 2.6).

/// Fragments of one message.
pub const MAX_FRAGMENTS: u16 = 64;
/// Bytes of all fragments of one message, decrypted. The longest certificate chains have about 20,000.
pub const MAX_REASSEMBLED: usize = 65_535;

/// The decrypted fragments of one message so far. A fragment must have been authenticated before it comes here.
///
/// Holds at most [`MAX_REASSEMBLED`] bytes. Each byte is moved once when the message is whole.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// As many as there will be.
    pieces: Vec<Option<Vec<u8>>>,
    missing: usize,
    bytes: usize,
    /// Type of the first payload, as fragment 1 says.
    first: u8,
}

impl Reassembly {
    /// Takes in one fragment; the last one missing gives type of the first payload and content of the whole message, and
    /// leaves this empty again.
    ///
    /// Fragments that came before, that cannot be or that would be too much are ignored. A higher total means that
    /// the sender splits the message anew in smaller pieces: what came before is forgotten. A lower one is late.
    pub fn push(&mut self, number: u16, total: u16, first: u8, plain: Vec<u8>) -> Option<(u8, Vec<u8>)> {
        if number == 0 || number > total || total > MAX_FRAGMENTS || usize::from(total) < self.pieces.len() {
            return None;
        }
        if usize::from(total) > self.pieces.len() {
            *self =
                Reassembly { pieces: vec![None; total.into()], missing: total.into(), bytes: 0, first: 0 };
        }
        let piece = self.pieces.get_mut(usize::from(number) - 1)?;
        if piece.is_some() || self.bytes + plain.len() > MAX_REASSEMBLED {
            return None;
        }
        if number == 1 {
            self.first = first;
        }
        self.bytes += plain.len();
        self.missing -= 1;
        *piece = Some(plain);
        (self.missing == 0).then(|| {
            let whole = std::mem::take(self);
            (whole.first, whole.pieces.into_iter().flatten().flatten().collect())
        })
    }
}
