//! Deriving keys: HKDF-SHA-256 (RFC 5869) under named labels, and Argon2id (RFC 9106) from passwords.
//! FORMAT.md, "Keys". Only `crypto` calls it; every label is here, so that no two uses can share one.

/// What deriving a key from a password costs. Stands in the clear part of each password slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Params {
    /// The default at `init`: 64 MiB, 3 passes, 4 lanes (the second recommendation of RFC 9106): 0.13 s, and memory that a
    /// small machine has.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 << 10,
        passes: 3,
        lanes: 4,
    };
    /// The least that Argon2 accepts, for tests alone.
    #[cfg(test)]
    pub const FOR_TESTS: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
}

/// Why a key was not derived.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    /// The slot asks for more than the caps; nothing was spent.
    #[error(
        "slot asks for Argon2id with {0:?}: more than this program will spend on a slot it has not proven"
    )]
    TooCostly(Argon2Params),
    /// Parameters that Argon2 does not define.
    #[error("slot asks for Argon2id with {0:?}, which does not exist")]
    Invalid(Argon2Params),
}
