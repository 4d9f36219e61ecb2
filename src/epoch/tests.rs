//! Epochs over a source in memory: every captured epoch must be exactly the source as it was at the seal.
//!
//! The source writes down each effect with the epoch of the guard it happened under. What a commit must hold is then no
//! question of timing: replay the effects whose epoch is not later than the sealed one.

mod fake;

mod flusher;

mod operations;

mod interleavings;

mod steps;

mod waiting;

mod owing;

mod scans;

mod threads;
