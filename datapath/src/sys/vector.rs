//! The loops that touch every byte, compiled once more for processors with AVX2, which have half as many turns to make. Safe
//! Rust either way: what is unsafe is to call the one on a processor that does not know its instructions.

use crate::wire::checksum::{Block, copy_blocks, sum_blocks};

/// [`sum_blocks`], for as many as make it worth asking what the processor knows.
#[inline]
pub fn sum(blocks: &[Block]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if blocks.len() >= MANY && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it knows AVX2.
        return unsafe { sum_avx2(blocks) };
    }
    sum_blocks(blocks)
}

/// [`copy_blocks`], likewise.
#[inline]
pub fn copy(from: &[Block], to: &mut [Block]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if from.len() >= MANY && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it knows AVX2.
        return unsafe { copy_avx2(from, to) };
    }
    copy_blocks(from, to)
}

/// Fewer are summed before the question is answered.
#[cfg(target_arch = "x86_64")]
const MANY: usize = 4;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(blocks: &[Block]) -> u64 {
    sum_blocks(blocks)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_avx2(from: &[Block], to: &mut [Block]) -> u64 {
    copy_blocks(from, to)
}
