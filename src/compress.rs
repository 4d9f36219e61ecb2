//! Compression of one frame's payload. Each direction is a pure function.

/// How a repository compresses; chosen at `init`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    Off,
    /// Zstandard at this level (default 1).
    Zstd(i8),
}
