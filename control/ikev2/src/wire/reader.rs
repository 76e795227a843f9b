//! A cursor that cannot run past the end of what it reads.

use super::ParseError;

/// Bytes not yet read, and what they are a part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { bytes, what }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(ParseError::Truncated(self.what))?;
        self.bytes = rest;
        Ok(*head)
    }

    pub fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(ParseError::Truncated(self.what))?;
        self.bytes = rest;
        Ok(head)
    }

    /// The rest of a substructure whose length field says `len`, of which `read` bytes were read already.
    pub fn sub(&mut self, len: u16, read: usize, what: &'static str) -> Result<Reader<'a>, ParseError> {
        let len = usize::from(len).checked_sub(read).ok_or(ParseError::Length(what))?;
        Ok(Reader::new(self.take(len)?, what))
    }

    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), ParseError> {
        if self.is_empty() { Ok(()) } else { Err(ParseError::Length(self.what)) }
    }
}
