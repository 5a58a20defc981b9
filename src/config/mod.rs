//! The configuration: files as written and flags become validated [`Settings`].

mod environment;
mod file;
mod settings;
pub mod values;

pub use settings::Settings;

/// An example of a configuration file, every key in it with its default.
pub const SAMPLE: &str = file::SAMPLE;
