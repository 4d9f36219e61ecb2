//! The flusher: one sealed epoch becomes one commit. This file is the flow; each stage has its own file.
//!
//! ```text
//! capture   Captured, Reader    attributes and contents exactly as they stood at the seal
//! entries   Outcome             names and attributes as changes to the tree; who lives and who dies
//! cut       Piece               content-defined chunks, or page increments as they are
//! pack      frames              small pieces share one
//! encrypt   EncryptedBatch      compressed and encrypted, eight side by side
//! spool     SpooledBlock        safe on this disk
//! commit    Written             the tree over its parent's, and the commit's object
//! manifest                      CAPTURED: final, never folded, survives a restart
//! upload                        in the store, in order; then the journal may forget
//! ```
//!
//! The flow runs on a thread of its own and seals, captures and spools; the uploader is a task that never holds it up. The
//! daemon starts one [`Flusher`] per live mount and talks to it through its [`Handle`]. Nothing here is called by a file
//! system request: no writer ever waits for the flow.

mod error;

mod session;

mod policy;

mod rest;

mod capture;
mod changes;

mod consolidate;

mod entries;

mod cut;

mod window;

mod dedup;

mod pack;

mod encrypt;

mod pipeline;

mod bulk_file;

mod spool;

mod tree_blocks;

mod commit;

mod manifest;

mod ahead;

mod copied;

mod upload;

mod forget;

mod progress;

mod handle;

mod withheld;

mod flow;

mod flush;

mod end;

pub use copied::{CopiedBlock, find_copied};
pub use error::Error;
pub use flow::{Flusher, Options, Parts};
pub use handle::{Handle, Stopped};
pub use manifest::{Manifest, Resume, SpooledName, SpooledObject, heads, resume};
pub use policy::{Event, Mode, Policy};
pub use progress::{CommitMark, Phase, Status};
pub use spool::{FrameBytes, Spool};

#[cfg(test)]
mod tests;
