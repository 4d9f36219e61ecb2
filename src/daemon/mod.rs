//! The only place that wires parts together: what starts when, what stops when, and who is told.

mod error;

pub mod opening;

pub mod background;

pub mod log;

pub mod signals;

pub mod lock;

pub mod status;

pub mod control;

mod writing;

mod scanning;

mod spilling;

mod desk;

pub mod live;

pub mod past;

pub use error::Error;

/// The runtime of a background process. To be made after the fork.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start", "the runtime"))
}
