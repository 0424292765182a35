//! L2: congestion-controlled flows as state machines without I/O, clock or randomness of their own.
#![forbid(unsafe_code)]
