//! CPU, memory and delays of process trees on Linux, as line protocol: the modules behind the `telegraf-taskstats` binary.
//!
//! This is no published API: it is for the binary, the tests and the benchmark. ARCHITECTURE.md says how the modules work
//! together; [`agent`] is the loop.

pub mod accounting;
pub mod agent;
pub mod cache;
pub mod check;
pub mod cli;
pub mod collect;
pub mod config;
pub mod encode;
pub mod events;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod log;
pub mod output;
pub mod points;
pub mod processes;
pub mod select;
pub mod self_stats;
pub mod series;
pub mod trigger;
pub mod write;
