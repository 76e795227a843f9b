//! XDR (RFC 4506), as much of it as sFlow needs: words in network order, and bytes with their length, padded to words.

/// Bytes being written.
#[derive(Debug, Default)]
pub struct Xdr(pub Vec<u8>);

impl Xdr {
    /// An unsigned integer.
    pub fn u32(&mut self, value: u32) -> &mut Xdr {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// An unsigned hyper integer.
    pub fn u64(&mut self, value: u64) -> &mut Xdr {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Bytes of a fixed length, a multiple of 4.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Xdr {
        self.0.extend(bytes);
        self
    }

    /// Opaque data or a string: their length, they, and zeros up to the next word.
    pub fn opaque(&mut self, bytes: &[u8]) -> &mut Xdr {
        self.u32(bytes.len() as u32).fixed(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A structure of that format (sFlow's `data_format`), behind its length.
    pub fn record(&mut self, format: u32, write: impl FnOnce(&mut Xdr)) -> &mut Xdr {
        let mut body = Xdr::default();
        write(&mut body);
        self.u32(format).opaque(&body.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding() {
        let mut xdr = Xdr::default();
        xdr.u32(1).u64(2).opaque(b"abcde").record(9, |body| _ = body.u32(7));
        let want = [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0],
            &[0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 7],
        ];
        assert_eq!(xdr.0, want.concat());
    }
}
