//! RewindFS: a directory that backs itself up as you write to it, encrypted; and any moment of it can be mounted again.
//!
//! This page is the map. Modules stand in the order in which data meets them; a module uses what stands above it here and
//! never what stands below, and `tests/it/architecture.rs` fails where that is not so.
//!
//! | layer | modules |
//! |---|---|
//! | vocabulary | [`id`] [`path`] [`clock`] [`metrics`] [`sys`] [`failpoint`] [`blocking`] [`buffers`] |
//! | pure transforms | [`compress`] [`chunk`] [`crypto`] [`mod@format`] |
//! | parts that do I/O, each ignorant of the others | [`fuse`] [`source`] [`journal`] [`cache`] [`store`] |
//! | the repository | [`repo`]: commits → tree → blocks → layout |
//! | what the live side shares | [`epoch`] |
//! | features, none of which knows another | [`mount`] [`flusher`] [`reconcile`] [`snapshot`] [`restore`] [`verify`] |
//! | the whole | [`config`] [`daemon`] [`cli`] |
//!
//! # The two flows
//!
//! ```text
//! write   mount/ops         a request: old bytes preserved, recorded, then the write reaches the source
//!         epoch/seal        one instant closes an epoch and opens the next; nobody waits
//!         flusher/capture   contents and attributes exactly as they stood at the seal
//!         chunk, flusher/pack, crypto   chunks or page increments, in frames, encrypted eight side by side
//!         flusher/spool     safe on this disk
//!         flusher/upload    blocks, then tree pages, then the commit that names them
//!         journal           and only then is the epoch forgotten
//!
//! read    snapshot/tree_fs  a path at a time
//!         repo/commits      the commit and its root
//!         repo/tree         the extents of a file, each pointing into a frame
//!         repo/blocks       from cache, else store; verified, decrypted, decompressed
//! ```
//!
//! # Invariants
//!
//! - Nothing in [`mount`], [`epoch`], [`source`] or [`journal`] can reach the network: they import nothing that can.
//! - Everything that changes the source's recorded state goes through a guard of [`epoch`]: locks first, then the epoch number.
//! - Only [`repo`] (and the flusher's upload, through it) names objects; only [`crypto`] makes what may be stored.
//! - Blocks are stored before the tree that names them, the tree before the commit, the commit before the journal forgets.
//! - The source is never written to but by a user's own system call.
//! - `unsafe` stands in [`sys`] alone. The bytes of every object are specified in [`mod@format`].

// The writer that tests inside and outside the library share speaks of it by name.
#[cfg(test)]
extern crate self as rewindfs;

pub mod id;

pub mod path;

pub mod clock;

pub mod metrics;

pub mod sys;

pub mod failpoint;

pub mod blocking;

pub mod buffers;

pub mod compress;

pub mod chunk;

pub mod crypto;

pub mod format;

pub mod fuse;

pub mod source;

pub mod journal;

pub mod cache;

pub mod store;

pub mod repo;

pub mod epoch;

pub mod mount;

pub mod flusher;

pub mod reconcile;

pub mod snapshot;

pub mod restore;

pub mod verify;

pub mod config;

pub mod daemon;

pub mod cli;
