//! What a reader lists before anything else: all claims, and behind them the newest commits. One LIST gives both, since the names of
//! claims come right before those of commits (`layout.rs`); what follows is listed as far as somebody looks.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::format::claim::ClaimName;
use crate::id::ObjectKey;
use crate::repo::lineage::Lineage;
use crate::repo::{Error, Volume, layout};
use crate::store::Listing;

/// Names asked for in one LIST. The newest commit is nearly always the one looked for; the others are there for the claims before
/// it, for commits of a writer that was replaced, and so that a time of the last minutes takes no second LIST.
const NAMES_AT_ONCE: usize = 250;

/// All claims, and the newest commits by name.
pub(in crate::repo) struct Listed {
    pub(in crate::repo) lineage: Lineage,
    newest: Listing,
    /// Claims that have been read since, and are what their names say.
    proven: Mutex<HashSet<ClaimName>>,
}

impl Volume {
    /// Lists claims and the newest commits.
    pub(in crate::repo) async fn list_commits(&self) -> Result<Listed, Error> {
        let prefix = layout::lineage_prefix(self.info.id);
        let is_claim = layout::claims_prefix(self.info.id);
        let mut claims: Vec<ObjectKey> = Vec::new();
        loop {
            let page = self
                .store
                .list(&prefix, claims.last(), NAMES_AT_ONCE)
                .await?;
            let mut newest = Listing {
                more: page.more,
                ..Listing::default()
            };
            let known = claims.len();
            for (key, len) in page.objects {
                match key.as_str().starts_with(&is_claim) {
                    true => claims.push(key),
                    false => newest.objects.push((key, len)),
                }
            }
            // A page that promises more and holds nothing would have us ask for ever.
            if !page.more || !newest.objects.is_empty() || claims.len() == known {
                return Ok(Listed {
                    lineage: Lineage::new(self.info.id, &claims),
                    newest,
                    proven: Mutex::default(),
                });
            }
        }
    }

    /// Proves a claim, once: those of one replaced writer cut off any number of commits.
    pub(in crate::repo) async fn prove(
        &self,
        listed: &Listed,
        claim: &ClaimName,
    ) -> Result<(), Error> {
        if !listed.proven.lock().contains(claim) {
            self.claims.read(claim).await?;
            listed.proven.lock().insert(*claim);
        }
        Ok(())
    }

    /// The names of commits behind `after`, or of the newest: from what is listed already if it reaches there, else by a LIST.
    pub(super) async fn commits_after(
        &self,
        listed: &Listed,
        after: Option<&ObjectKey>,
    ) -> Result<Listing, Error> {
        let prefix = layout::commits_prefix(self.info.id);
        let newest = &listed.newest;
        let Some(after) = after else {
            return Ok(newest.clone());
        };
        let is_listed = newest.objects.last().is_some_and(|(last, _)| after < last);
        if is_listed || !newest.more {
            let behind = newest.objects.iter().filter(|(key, _)| key > after);
            return Ok(Listing {
                objects: behind.cloned().collect(),
                more: newest.more,
            });
        }
        Ok(self.store.list(&prefix, Some(after), NAMES_AT_ONCE).await?)
    }
}
