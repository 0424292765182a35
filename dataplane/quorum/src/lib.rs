//! L2: quorum replication as a state machine. No I/O, no clock, no randomness of its own.
#![forbid(unsafe_code)]
