//! Listings, tried: complete at once, in byte order, by pages.

use bytes::Bytes;

use super::{PLACE, Stop, Trial, key};
use crate::id::ObjectKey;
use crate::store::Body;

/// In byte order. A server that walks folders, or sorts as people do, gives them in another.
const NAMES: [&str; 7] = [
    "list/A", "list/a-b", "list/a.c", "list/a/1", "list/a/2", "list/a0", "list/b",
];
/// So that they take several pages, the last of them not full.
const PAGE: usize = 3;
/// More pages than there can be.
const PAGES_MAX: usize = 20;

const NEEDED: &str =
    "snapshots are found by listing: some would be missed; keep the repository on another server";

impl Trial {
    pub(super) async fn listings(&mut self) -> Result<(), Stop> {
        for name in NAMES {
            let body = Body::Bytes(Bytes::from_static(b"x"));
            let put = self.store.put(&key(name), body).await;
            self.unless("listing", put, NEEDED)?;
        }
        let found = self.list_in_pages().await?;
        let wanted: Vec<ObjectKey> = NAMES.into_iter().map(key).collect();
        if found != wanted {
            let mut sorted = found.clone();
            sorted.sort();
            let what = match sorted == wanted {
                true => "names do not come in byte order",
                false => "names that were just stored are not all listed, or others are",
            };
            self.bad("listing", what, NEEDED);
            return Err(Stop);
        }
        self.good("listing", "complete at once, in byte order, by pages");
        Ok(())
    }

    async fn list_in_pages(&mut self) -> Result<Vec<ObjectKey>, Stop> {
        let prefix = format!("{PLACE}list/");
        let (mut names, mut after) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self.store.list(&prefix, after.as_ref(), PAGE).await;
            let page = self.unless("listing", page, NEEDED)?;
            names.extend(page.objects.into_iter().map(|(name, _)| name));
            if !page.more {
                return Ok(names);
            }
            after = names.last().cloned();
        }
        self.bad("listing", "pages follow each other without end", NEEDED);
        Err(Stop)
    }
}
