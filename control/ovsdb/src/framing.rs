//! Cuts a stream of bytes into JSON objects. OVSDB has no framing but the objects' own braces.

/// The longest message taken from a client, in bytes.
pub const MAX_MESSAGE: usize = 8 << 20;
/// The deepest nesting taken; messages of OVSDB need a dozen levels.
pub const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("a message exceeds {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("a message is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("a message does not begin with '{{'")]
    NoObject,
}

/// Remembers how far the unfinished message has been looked at, so that each byte is looked at once.
#[derive(Debug, Default)]
pub struct Framer {
    message: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// Takes bytes up to the end of the next object. Gives the object's text, if it is complete now, and the bytes
    /// left over.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<(Option<Vec<u8>>, &'a [u8]), FramingError> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.message.len() >= MAX_MESSAGE {
                return Err(FramingError::TooLong);
            }
            if self.depth == 0 {
                match byte {
                    b'{' => {}
                    b' ' | b'\t' | b'\r' | b'\n' => continue,
                    _ => return Err(FramingError::NoObject),
                }
            }
            self.message.push(*byte);
            self.look_at(*byte)?;
            if self.depth == 0 {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                return Ok((Some(std::mem::take(&mut self.message)), rest));
            }
        }
        Ok((None, &[]))
    }

    /// Whether an object has begun and not ended.
    pub fn is_mid_message(&self) -> bool {
        self.depth > 0
    }

    fn look_at(&mut self, byte: u8) -> Result<(), FramingError> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth > MAX_DEPTH { Err(FramingError::TooDeep) } else { Ok(()) }
    }
}
