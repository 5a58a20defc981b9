//! What is read of the members and written of a series: one measurement per file.

pub mod psstat;
