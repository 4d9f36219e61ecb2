//! What a mount does about a repository that does not answer: how that is told from one that answers something bad, what is said,
//! and the copy of its keys in the state directory with which a volume can be mounted all the same.

use std::time::Duration;

use super::opening::Opening;
use crate::config::state::VolumeState;
use crate::flusher;
use crate::id::VolumeId;
use crate::repo::{self, Repository};
use crate::store::{self, Traffic, url::Location};

/// How long a volume that can be mounted without it waits for its repository to answer: twice, for opening and for claiming. A store that
/// is there answers in a fraction of it, on a busy machine too, and who starts a computer without a network (where most of the time an
/// error comes at once) should not wait longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the error says that the repository cannot be reached or used from here now, rather than what is wrong with it.
pub(super) fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(repo::Error::NoRepository(_)) = cause.downcast_ref() {
            return true;
        }
        let of_store = match cause.downcast_ref() {
            Some(repo::Error::Store(error)) => Some(&**error),
            _ => cause.downcast_ref::<store::Error>(),
        };
        let of_store = of_store.or_else(|| match cause.downcast_ref() {
            Some(flusher::Error::Repository(repo::Error::Store(error))) => Some(&**error),
            _ => None,
        });
        of_store.is_some_and(|error| error.kind != store::Kind::Corrupt)
    })
}

/// One line for `status` and the log: what is wrong and what happens now.
pub(super) fn sentence(location: &Location, error: &anyhow::Error) -> String {
    let what = match error.downcast_ref() {
        // What an empty mount point looks like. To advise making one there would be wrong.
        Some(repo::Error::NoRepository(_)) => {
            "cannot be reached: there is none at that place now; if it lies on a disk of its own, is that mounted?".to_owned()
        }
        _ if is_away(error) => format!("cannot be reached: {error}"),
        _ => format!("cannot be gone on with: {error}"),
    };
    format!(
        "the repository {location} {what}; changes are kept on this machine, and it is tried again by itself"
    )
}

/// The same where it has not answered in time.
pub(super) fn no_answer(location: &Location) -> String {
    format!(
        "the repository {location} has not answered within {} s; changes are kept on this machine, and it is tried again by itself",
        PATIENCE.as_secs()
    )
}

/// Opens what is kept of a repository on this machine, with the secret that opens the repository itself; `None` if nothing is.
pub(super) async fn kept(
    opening: &Opening,
    state: &VolumeState,
) -> Result<Option<Repository>, repo::Error> {
    let place = Location::Folder(state.keys());
    match opening.repository_in(&place, &Traffic::default()).await {
        Ok(repository) => Ok(Some(repository)),
        Err(repo::Error::NoRepository(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies what opens the repository into the state directory. Where that fails, the volume cannot be mounted without its repository, which
/// is no reason not to mount it with it.
pub(super) async fn keep_keys_best_effort(
    repository: &Repository,
    volume: VolumeId,
    state: &VolumeState,
) {
    let place = Location::Folder(state.keys());
    let keep = async {
        store::create(&place).await?;
        let to = store::open(&place, &Traffic::default()).await?;
        repository.keep_keys(volume, &to).await
    };
    if let Err(error) = keep.await {
        tracing::warn!(
            "the keys were not copied, so that this volume cannot be mounted without its repository: {error}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectKey;

    fn of_store(kind: store::Kind) -> repo::Error {
        let (doing, message) = (String::new(), String::new());
        let source = None;
        store::Error {
            kind,
            doing,
            message,
            source,
        }
        .into()
    }

    #[test]
    fn what_cannot_be_reached_is_told_from_what_is_damaged_or_refused() {
        for kind in [
            store::Kind::Retry,
            store::Kind::Denied,
            store::Kind::Missing,
        ] {
            assert!(is_away(&of_store(kind).into()), "{kind:?}");
            assert!(is_away(&flusher::Error::from(of_store(kind)).into()));
        }
        assert!(is_away(&repo::Error::NoRepository("/r".into()).into()));
        let object = ObjectKey::new("format");
        for there in [
            of_store(store::Kind::Corrupt),
            repo::Error::Missing { object },
            repo::Error::WrongPassword("/r".into()),
            repo::Error::Fenced(3),
        ] {
            assert!(!is_away(&there.into()));
        }
    }
}
