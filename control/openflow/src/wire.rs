//! Bytes: the header that every message has, and numbers in network order.

/// Length of the header: version, type, length of the whole, transaction.
pub const HEADER_LEN: usize = 8;
/// The longest message, as its length has 16 bits.
const MAX_LEN: usize = u16::MAX as usize;

/// A version that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// OpenFlow 1.0.
    V10 = 1,
    /// OpenFlow 1.3.
    V13 = 4,
}

impl Version {
    /// All of them, the best last.
    pub const ALL: [Version; 2] = [Version::V10, Version::V13];

    /// As column `protocols` of a Bridge has it.
    pub fn name(self) -> &'static str {
        match self {
            Version::V10 => "OpenFlow10",
            Version::V13 => "OpenFlow13",
        }
    }

    /// As the header has it.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// The beginning of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) length: u16,
    pub(crate) xid: u32,
}

impl Header {
    /// None: not all of it is there yet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        let mut r = Reader::new(bytes);
        Some(Header { version: r.u8()?, kind: r.u8()?, length: r.u16()?, xid: r.u32()? })
    }
}

/// Takes numbers off the front of bytes. None: there are not enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn skip(&mut self, n: usize) -> Option<()> {
        self.bytes(n).map(|_| ())
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Bytes of a message or of a part of one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer::default()
    }

    pub(crate) fn u8(mut self, n: u8) -> Writer {
        self.0.push(n);
        self
    }

    pub(crate) fn u16(self, n: u16) -> Writer {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn u32(self, n: u32) -> Writer {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn u64(self, n: u64) -> Writer {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn zeros(mut self, n: usize) -> Writer {
        self.0.resize(self.0.len() + n, 0);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text in a field of `n` bytes, whose last is zero.
    pub(crate) fn text(self, text: &str, n: usize) -> Writer {
        let fits = text.as_bytes().get(..n.saturating_sub(1)).unwrap_or(text.as_bytes());
        self.bytes(fits).zeros(n - fits.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The message of that type with this body; what a message has no room for is cut off.
    pub(crate) fn message(self, version: u8, kind: u8, xid: u32) -> Vec<u8> {
        let mut body = self.0;
        body.truncate(MAX_LEN - HEADER_LEN);
        let length = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
        let header = Writer::new().u8(version).u8(kind).u16(length).u32(xid);
        header.bytes(&body).0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A reply that may take several messages: each begins with `head`, and items are not torn apart.
#[derive(Debug)]
pub(crate) struct Parts {
    version: Version,
    kind: u8,
    xid: u32,
    /// Type of the statistics.
    stat: u16,
    /// What follows type and flags in each message.
    head: Vec<u8>,
    sent: Vec<u8>,
    items: Writer,
}

/// More messages of this reply follow.
const REPLY_MORE: u16 = 1;

impl Parts {
    pub(crate) fn new(version: Version, kind: u8, xid: u32, stat: u16, head: Vec<u8>) -> Parts {
        Parts { version, kind, xid, stat, head, sent: Vec::new(), items: Writer::new() }
    }

    pub(crate) fn push(&mut self, item: Writer) {
        let fixed = HEADER_LEN + 4 + self.head.len();
        if fixed + self.items.len() + item.len() > MAX_LEN {
            self.flush(REPLY_MORE);
        }
        self.items = std::mem::take(&mut self.items).bytes(&item.0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.flush(0);
        self.sent
    }

    fn flush(&mut self, flags: u16) {
        let body = Writer::new().u16(self.stat).u16(flags).bytes(&self.head);
        let items = std::mem::take(&mut self.items);
        self.sent.extend(body.bytes(&items.0).message(self.version.number(), self.kind, self.xid));
    }
}
