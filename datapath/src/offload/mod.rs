//! Making frames fit: finish checksums, segment superframes, split, fragment, clamp MSS, answer too-big; and coalesce.
