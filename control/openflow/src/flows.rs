//! The one flow, and which questions mean it.

use std::time::Duration;

use crate::ports;
use crate::view::{Flow, PortNo};
use crate::wire::{Reader, Writer};

/// Which flows a client wants to see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowQuestion {
    /// Whatever they match. One that matches all packets is not more special than a question that names any field.
    pub(crate) any_match: bool,
    /// 0xff: all.
    pub(crate) table: u8,
    pub(crate) out: Filter,
    pub(crate) cookie_is_zero: bool,
    /// In Open vSwitch's form.
    pub(crate) nxm: bool,
}

/// Where flows send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Anywhere,
    Normal,
    Nothing,
}

impl Filter {
    pub(crate) fn allows_normal(self) -> bool {
        self != Filter::Nothing
    }

    pub(crate) fn out_port(port: PortNo) -> Filter {
        match port {
            ports::NONE => Filter::Anywhere,
            ports::NORMAL => Filter::Normal,
            _ => Filter::Nothing,
        }
    }

    /// `ofp_match` of OpenFlow 1.0: whether every field is a wildcard. The addresses' are masks, from 32 bits on whole.
    pub(crate) fn of_v10(rest: &mut Reader<'_>) -> Option<bool> {
        const EVERY_FIELD: u32 = 0xff | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21;
        let wildcards = rest.u32()?;
        rest.skip(36)?;
        Some(wildcards & EVERY_FIELD == EVERY_FIELD)
    }

    /// `ofp_match` of OpenFlow 1.3: whether it names no field.
    pub(crate) fn of_oxm(rest: &mut Reader<'_>) -> Option<bool> {
        const HEADER: u16 = 4;
        rest.skip(2)?;
        let length = rest.u16()?;
        rest.skip(usize::from(length.checked_sub(HEADER)?))?;
        Some(length == HEADER)
    }

    /// Fields of NXM: whether there is none but the cookie, and whether that may be 0.
    pub(crate) fn of_nxm(fields: &[u8]) -> Option<(bool, bool)> {
        /// NXM_NX_COOKIE, with a mask: vendor, field, has-mask, length.
        const COOKIE: u32 = 1 << 16 | 30 << 9 | 1 << 8 | 16;
        const COOKIE_EXACT: u32 = 1 << 16 | 30 << 9 | 8;
        let (mut any, mut zero, mut rest) = (true, true, Reader::new(fields));
        while !rest.rest().is_empty() {
            let field = rest.u32()?;
            let mut value = Reader::new(rest.bytes((field & 0xff) as usize)?);
            match field {
                COOKIE => zero &= value.u64()? & value.u64()? == 0,
                COOKIE_EXACT => zero &= value.u64()? == 0,
                _ => any = false,
            }
        }
        Some((any, zero))
    }
}

/// `nx_flow_stats`. Ages count from 1, for 0 is "not known".
pub(crate) fn nxm(flow: &Flow) -> Writer {
    let age = |d: Duration| u16::try_from(d.as_secs().saturating_add(1)).unwrap_or(u16::MAX);
    let action = Writer::new().u16(0).u16(8).u16(ports::NORMAL).u16(0);
    entry(48, action, |w| {
        duration(w, flow.age)
            .zeros(8) // priority, time-outs, length of the match
            .u16(flow.idle.map_or(0, age))
            .u16(age(flow.age))
            .u64(0)
            .u64(flow.packets)
            .u64(flow.bytes)
    })
}

/// `ofp_flow_stats` of OpenFlow 1.0.
pub(crate) fn v10(flow: &Flow) -> Writer {
    const EVERY_FIELD: u32 = 0x3f_ffff;
    let action = Writer::new().u16(0).u16(8).u16(ports::NORMAL).u16(0);
    entry(88, action, |w| {
        let w = duration(w.u32(EVERY_FIELD).zeros(36), flow.age);
        w.zeros(12).u64(0).u64(flow.packets).u64(flow.bytes)
    })
}

/// `ofp_flow_stats` of OpenFlow 1.3: the action stands in an instruction.
pub(crate) fn v13(flow: &Flow) -> Writer {
    const APPLY_ACTIONS: u16 = 4;
    let action = Writer::new().u16(0).u16(16).u32(ports::wide(ports::NORMAL)).zeros(8);
    let instruction = Writer::new().u16(APPLY_ACTIONS).u16(24).zeros(4).bytes(&action.into_bytes());
    entry(56, instruction, |w| {
        let w = duration(w, flow.age).zeros(12).u64(0).u64(flow.packets).u64(flow.bytes);
        w.u16(1).u16(4).zeros(4) // a match that names nothing
    })
}

/// Length, table, the fixed part of `fixed` bytes in all, what is done.
fn entry(fixed: u16, done: Writer, rest: impl FnOnce(Writer) -> Writer) -> Writer {
    let length = fixed + u16::try_from(done.len()).unwrap_or(0);
    rest(Writer::new().u16(length).zeros(2)).bytes(&done.into_bytes())
}

pub(crate) fn duration(w: Writer, d: Duration) -> Writer {
    w.u32(u32::try_from(d.as_secs()).unwrap_or(u32::MAX)).u32(d.subsec_nanos())
}
