//! Settings: what was typed, set in the environment and written in the configuration file becomes values that can be
//! used without further questions.
//!
//! This module knows every other module's options; no other module knows this one, but for `daemon` and `cli`.
//! It reads small local files and never talks to a repository.

pub mod size;

pub mod dirs;

pub mod file;

pub mod policy;

pub mod secret;

pub mod state;

pub mod shown;

pub mod seen;

pub mod select;

pub mod layout;

mod error;

pub use error::Error;
