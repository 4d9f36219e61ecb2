//! Objects removed, one or up to a thousand with one request. Called by the store in `mod.rs`.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::S3;
use super::error::{self, Act, Asked};
use crate::id::ObjectKey;
use crate::store::{self, Error, Kind, names};

impl S3 {
    /// Removes one object; success if there was none.
    pub(super) async fn remove(&self, key: &ObjectKey) -> Result<(), Error> {
        let doing = self.doing("delete", key);
        names::check(&doing, key)?;
        let request = self.client.delete_object();
        let request = request.bucket(&self.place.bucket).key(self.full_key(key));
        let edition = self.keys.edition().await;
        let Err(failed) = request.send().await else {
            return Ok(());
        };
        match self.judge(Act::Delete, &doing, edition, failed).await {
            error if error.kind == Kind::Missing => Ok(()),
            error => Err(error),
        }
    }

    /// Removes all of `keys` with one request, or one by one where the server does not know such requests, or lets none through.
    pub(super) async fn remove_together(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        let doing = self.doing("delete", format_args!("{} objects", keys.len()));
        if keys.is_empty() {
            return Ok(());
        }
        let wanted = self.list_of(keys, &doing)?;
        let request = self.client.delete_objects();
        let request = request.bucket(&self.place.bucket).delete(wanted);
        let edition = self.keys.edition().await;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(failed) => {
                let is_strange = error::is_strange_to_it(&failed);
                let error = self.judge(Act::Delete, &doing, edition, failed).await;
                if is_strange && matches!(error.kind, Kind::Invalid | Kind::Missing | Kind::Denied)
                {
                    tracing::debug!(%error, "removing one by one");
                    return store::one_by_one(self, keys).await;
                }
                return Err(error);
            }
        };
        // The request was let in, so that no clock is to blame.
        let asked = Asked {
            skew: String::new(),
            ..self.asked(Act::Delete, &doing)
        };
        let mut failed = answer
            .errors()
            .iter()
            .map(|said| error::judge_one(&asked, said));
        match failed.find(|error| error.kind != Kind::Missing) {
            Some(error) => Err(self.with_other_keys(edition, error).await),
            None => Ok(()),
        }
    }

    /// The request's body. Only what could not be removed is worth an answer.
    fn list_of(&self, keys: &[ObjectKey], doing: &str) -> Result<Delete, Error> {
        let invalid =
            |why| Error::new(Kind::Invalid, doing, "the request cannot be made").because(why);
        let mut wanted = Delete::builder().quiet(true);
        for key in keys {
            names::check(doing, key)?;
            let object = ObjectIdentifier::builder().key(self.full_key(key));
            wanted = wanted.objects(object.build().map_err(invalid)?);
        }
        wanted.build().map_err(invalid)
    }
}
