//! Rights, tried: what the credentials can do that a repository does not need. And cleaning up, which shows one of them.

use super::{PLACE, Trial, is_denied};
use crate::store::url::Location;
use crate::store::{Kind, LIST_LIMIT_MAX, ObjectStore};

impl Trial {
    pub(super) async fn rights(&mut self, location: &Location) {
        self.neighbours(location).await;
        self.clean_up().await;
    }

    /// Whether the credentials show what else is in the bucket.
    async fn neighbours(&mut self, location: &Location) {
        let (Some(s3), Location::S3(place)) = (&self.s3, location) else {
            return;
        };
        if place.prefix.is_empty() {
            let found = "the repository has the bucket for itself";
            return self.good("neighbours", found);
        }
        let listed = s3.whole_bucket().list("", None, LIST_LIMIT_MAX).await;
        match listed {
            Err(error) if error.kind == Kind::Denied => {
                self.good(
                    "neighbours",
                    "what else is in the bucket is kept from these credentials",
                );
            }
            Err(_) => {}
            Ok(page) => {
                let others = page.objects.iter();
                let others = others.filter(|(name, _)| !name.as_str().starts_with(&place.prefix));
                let found = match others.count() {
                    0 => "the credentials may list the whole bucket".to_owned(),
                    count => format!(
                        "the credentials list {count} names or more in the bucket that are not below the prefix"
                    ),
                };
                let follows = "a repository needs no more than its prefix: restrict s3:ListBucket by s3:prefix, as the README shows";
                self.advise("neighbours", found, follows);
            }
        }
    }

    /// Removes what the trial has stored, where it may.
    async fn clean_up(&mut self) {
        let Ok(left) = self.store.list(PLACE, None, LIST_LIMIT_MAX).await else {
            return;
        };
        let names: Vec<_> = left.objects.into_iter().map(|(name, _)| name).collect();
        let removed = self.store.delete_together(&names).await;
        if is_denied(&removed) {
            let found = format!(
                "the credentials may not remove objects; small ones of this trial stay under {PLACE}"
            );
            return self.good("removal", found);
        }
        if let Err(error) = removed {
            let follows =
                "small objects of this trial stay there, and the next one writes over them";
            return self.advise("removal", error, follows);
        }
        if self.s3.is_some() {
            let found = "the credentials may remove objects";
            let follows = "backing up never does: leave s3:DeleteObject out, and who gets hold of these credentials cannot remove \
                           what is stored (versioning in the bucket keeps it from being written over)";
            self.advise("removal", found, follows);
        }
    }
}
