//! `underpass`: one binary, many names.
fn main() {}
