//! L2: hosts as network namespaces.
#![forbid(unsafe_code)]
