//! The only place that wires parts together: what starts when, what stops when, and who is told.

mod error;

pub mod opening;

pub mod background;

pub mod log;

pub mod signals;

pub mod lock;

pub mod status;

pub mod control;

pub use error::Error;
