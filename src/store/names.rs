//! Which names every store takes: the common ground of S3 servers and file systems. Parts over
//! 255 bytes, keys near 1 KiB, `//` and odd characters each break one of the servers tried.

use crate::id::ObjectKey;
use crate::store::{Error, Kind};

/// The longest key in bytes: it must fit into one file name (255 bytes) in the spool. Behind a prefix of the same
/// length it is still far below the 902 bytes at which one common S3 server fails (the rule is 1024).
pub const KEY_LEN_MAX: usize = 240;

/// The longest part between two slashes: a file name's limit on every common file system, and room for the ending
/// of a temporary file.
const PART_LEN_MAX: usize = 200;

/// Checks that `key` can name an object on every store: parts of letters, digits and `-_.~=`, none empty, none
/// beginning with a dot (those are the stores' own), joined by slashes.
pub(crate) fn check(doing: &str, key: &ObjectKey) -> Result<(), Error> {
    let name = key.as_str();
    let complaint = if name.len() > KEY_LEN_MAX {
        "the name is too long"
    } else if name.split('/').any(str::is_empty) {
        "the name has an empty part"
    } else if name.split('/').any(|part| part.starts_with('.')) {
        "a part of the name begins with a dot"
    } else if name.split('/').any(|part| part.len() > PART_LEN_MAX) {
        "a part of the name is too long"
    } else if !name.bytes().all(is_plain) {
        "the name has a character that not every store takes"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Invalid, doing, complaint))
}

/// Whether `name`, found in a store, could be one of ours; anything else that lies there is not listed.
pub(crate) fn is_key(name: &str) -> bool {
    check("", &ObjectKey::new(name)).is_ok()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~=/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_names_and_refuses_what_some_store_cannot_hold() {
        for good in ["format", "v/0f/c/~ff.01.ab", "a-b/C=.x"] {
            assert!(is_key(good), "{good}");
        }
        let long_part = "x".repeat(PART_LEN_MAX + 1);
        let long_key = vec!["x".repeat(PART_LEN_MAX); 4].join("/");
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.b", "a b", "a\0b", "a+b", "ä",
            "a\\b", "a\nb", &long_part, &long_key,
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
