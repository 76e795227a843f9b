//! The system calls behind ports and workers: the only `unsafe` of the project.
#![allow(unsafe_code)]
