//! Listing a prefix of the store: one page at a time, or whole. Used by the other files of `repo`.

use crate::id::ObjectKey;
use crate::repo::Error;
use crate::store::{Listing, Store};

/// Keys asked for in one LIST: what S3 gives at most.
pub(super) const PAGE: usize = 1000;

/// All keys that begin with `prefix`, in byte order.
pub(super) async fn all(store: &Store, prefix: &str) -> Result<Vec<ObjectKey>, Error> {
    let mut keys: Vec<ObjectKey> = Vec::new();
    loop {
        let Listing { objects, more } = store.list(prefix, keys.last(), PAGE).await?;
        let none = objects.is_empty();
        keys.extend(objects.into_iter().map(|(key, _)| key));
        // A page that promises more and holds nothing would have us ask for ever.
        if !more || none {
            return Ok(keys);
        }
    }
}
