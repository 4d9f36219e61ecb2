//! The only place that wires parts together: what starts when, what stops when, and who is told.

mod error;

pub mod opening;

pub mod background;

pub mod log;

pub mod signals;

pub mod lock;

pub mod status;

pub mod control;

mod finding;

mod covering;

mod ordering;

mod local;

mod connecting;

mod link;

mod away;

mod waiting;

mod writing;

mod scanning;

mod spilling;

mod desk;

pub mod live;

pub mod past;

pub use error::Error;

/// The runtime of a background process, which may open as many files as the system lets it. To be made after the fork.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Each file that a program has open in a mount is open here as well.
    // Where the limit cannot be raised the lower one does: what is kept open goes by what there is.
    let _ = crate::sys::raise_open_files_max();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start", "the runtime"))
}
