//! What both FUSE fronts share: attributes, errors, a mounted session, and the way from a request to a task.
//!
//! Nothing here knows what a file of ours is; `mount` and `snapshot` do, and are the only callers. Together with
//! their two adapters this is the home of the `fuser` crate.

pub mod attr;
pub mod errno;

pub mod bridge;
pub mod session;

pub mod mountinfo;
mod shield;
