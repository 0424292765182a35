//! L3: measures, judges, reports.
#![forbid(unsafe_code)]
