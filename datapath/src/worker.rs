//! Worker threads: wait, receive a batch, forward it, flush every output.
