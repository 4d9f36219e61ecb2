//! What a reader lists before anything else: all claims, and behind them the newest commits. One LIST gives both, since the names of
//! claims come right before those of commits (`layout.rs`); what follows is listed as far as somebody looks.
//!
//! A claim that is not seen cuts nothing off, so no name that somebody else has put there may keep one from being listed.

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

impl Listed {
    fn new(lineage: Lineage, newest: Listing) -> Self {
        Self {
            lineage,
            newest,
            proven: Mutex::default(),
        }
    }

    /// The same commits, by other claims.
    pub(in crate::repo) fn with(self, lineage: Lineage) -> Self {
        Self::new(lineage, self.newest)
    }
}

impl Volume {
    /// Lists claims and the newest commits. One LIST, where its page holds both; else they are listed by themselves, two or
    /// more LISTs: there are more claims than a page holds, or none, or no commit, or others have put many names between.
    pub(in crate::repo) async fn list_commits(&self) -> Result<Listed, Error> {
        match self.list_both().await? {
            Some(listed) => Ok(listed),
            None => self.list_each().await,
        }
    }

    /// The one LIST. It begins with the claims, and in byte order no claim follows a commit: a page with a claim and behind it a name
    /// among the commits' has all claims. `None` where it does not show that; also without a claim, which every volume with
    /// commits has, because a page of commits alone would be all there is to see where folders are listed in another order.
    async fn list_both(&self) -> Result<Option<Listed>, Error> {
        let prefix = layout::lineage_prefix(self.info.id);
        let (of_claims, of_commits) = (
            layout::claims_prefix(self.info.id),
            layout::commits_prefix(self.info.id),
        );
        let first = ObjectKey::new(&*of_claims);
        let page = self
            .store
            .list(&prefix, Some(&first), NAMES_AT_ONCE)
            .await?;
        let ends_in_commits = |(last, _): &(ObjectKey, u64)| last.as_str().starts_with(&of_commits);
        let more = page.more && page.objects.last().is_some_and(ends_in_commits);
        let mut claims: Vec<ObjectKey> = Vec::new();
        let mut newest: Vec<(ObjectKey, u64)> = Vec::new();
        for (key, len) in page.objects {
            if key.as_str().starts_with(&of_commits) {
                newest.push((key, len));
            } else if key.as_str().starts_with(&of_claims) {
                claims.push(key);
            }
        }
        if claims.is_empty() || newest.is_empty() {
            return Ok(None);
        }
        let objects = newest;
        let newest = Listing { objects, more };
        let lineage = Lineage::new(self.info.id, &claims);
        Ok(Some(Listed::new(lineage, newest)))
    }

    /// The newest commits, and then all claims: so the claim is seen that cuts off what a replaced writer publishes meanwhile.
    async fn list_each(&self) -> Result<Listed, Error> {
        let prefix = layout::commits_prefix(self.info.id);
        let newest = self.store.list(&prefix, None, NAMES_AT_ONCE).await?;
        Ok(Listed::new(self.claims.lineage().await?, newest))
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
