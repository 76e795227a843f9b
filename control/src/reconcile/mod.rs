//! From rows to devices and back: compares what the database wants with what is there, and closes the gap.

pub mod actual;
mod options;
pub mod wanted;
