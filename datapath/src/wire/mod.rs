//! Header codecs: one protocol a file, pure functions over slices. No accessor panics on any input.
