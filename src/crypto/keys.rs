//! Keys as types: one cannot be passed for another, none can be printed, all are wiped on drop.

use zeroize::Zeroizing;

use crate::crypto::random;

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(pub(super) Zeroizing<[u8; 32]>);

        impl $name {
            /// A fresh one from the operating system's random source.
            pub fn random() -> Self {
                Self(Zeroizing::new(random()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

secret_key!(
    /// The key of a repository: wraps the keys of its volumes, encrypts nothing else.
    RepositoryKey
);
secret_key!(
    /// One key of a volume: all keys of its blocks derive from it, it encrypts nothing itself.
    VolumeKey
);
secret_key!(
    /// A key for AES. Shorter AES keys are its first bytes.
    EncryptionKey
);
secret_key!(
    /// A key for HMAC-SHA-256.
    MacKey
);
