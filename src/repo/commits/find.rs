//! Which commit a person means: by time, number, name or id. All but a time are looked up in the history that the newest
//! commit authenticates; a time is found by names, in two LISTs or three, however many commits there
//! are. Where those leave open whether a commit is missing behind the one found, history is asked.

use crate::clock::Stamp;
use crate::format::entry::HistoryEntry;
use crate::id::Seq;
use crate::repo::commits::{Found, Listed, Looked, Newer, Point, snapshot_id};
use crate::repo::{Error, Volume, layout, show_time};

/// The fewest digits that are taken for the beginning of an id: fewer would now and then find a snapshot that nobody meant.
const ID_DIGITS_MIN: usize = 4;

/// History entries read at once while looking for the next that is kept.
const HISTORY_AT_ONCE: usize = 64;

impl Volume {
    /// Finds what `point` means. [`Error::NotFound`] gives the window that there is, and the candidates where more than one fits.
    /// An incomplete commit (published during a first scan) is chosen for `Latest`, `Back` and `At` only if there is no other; by number, name
    /// or id it can be asked for.
    pub async fn find(&self, point: &Point) -> Result<Found, Error> {
        if let Point::At(at) = point {
            return self.find_at(*at).await;
        }
        let head = match self.head().await {
            Err(damage) if damage.is_damage() => return self.find_behind(damage, point).await,
            head => head?.ok_or_else(|| self.nothing_yet())?,
        };
        if *point == Point::Latest && !head.commit.incomplete {
            return Ok(head);
        }
        let history = match self.history(&head).await {
            Err(damage) if damage.is_damage() => {
                return self.find_along_links(head, damage, point).await;
            }
            history => history?,
        };
        let entry = match point {
            Point::Latest | Point::At(_) => back(&history, 0),
            Point::Back(steps) => back(&history, *steps),
            Point::Seq(seq) => by_seq(&history, *seq),
            Point::Named(text) => named(&history, text),
        };
        let entry = entry.map_err(|why| not_found(why, &history))?;
        self.read_entry(entry, &head).await
    }

    /// The newest commit that can be read, an incomplete one only if there is no other: what `Latest` would mean if those that are damaged
    /// or gone had never been. For whoever has told so and wants what is left; `None` if nothing is.
    pub async fn latest_readable(&self) -> Result<Option<Found>, Error> {
        let (Some(known), _) = self.newest_readable().await? else {
            return Ok(None);
        };
        if !known.commit.incomplete {
            return Ok(Some(known));
        }
        let history = self.history(&known).await?;
        match back(&history, 0) {
            Ok(entry) => self.read_entry(entry, &known).await.map(Some),
            Err(_) => Ok(Some(known)),
        }
    }

    /// The newest commit is damaged. What is asked for by number, name or id an older one knows too; what depends on which is the newest
    /// is refused, for whoever asks must learn that it is damaged.
    async fn find_behind(&self, damage: Error, point: &Point) -> Result<Found, Error> {
        let (Some(known), _) = self.newest_readable().await? else {
            return Err(damage);
        };
        let history = self.history(&known).await?;
        let entry = match point {
            Point::Seq(seq) => by_seq(&history, *seq),
            Point::Named(text) => named(&history, text),
            _ => return Err(damage),
        };
        match entry {
            Ok(entry) => self.read_entry(entry, &known).await,
            // It may be the very one that is damaged.
            Err(_) => Err(damage),
        }
    }

    /// The history that the newest commit's tree holds is damaged. A number can be reached without it: each commit names the one before
    /// it, and its tag. What cannot be is refused as `damage`.
    async fn find_along_links(
        &self,
        head: Found,
        damage: Error,
        point: &Point,
    ) -> Result<Found, Error> {
        let Point::Seq(seq) = point else {
            return Err(damage);
        };
        let mut found = head;
        while found.commit.name.seq > *seq {
            let Some((name, tag)) = found.commit.previous else {
                return Err(damage);
            };
            found = match self.read_commit(&name).await {
                Ok(before) if before.tag == tag => before,
                Err(error) if !error.is_damage() => return Err(error),
                _ => return Err(damage),
            };
        }
        match found.commit.name.seq == *seq {
            true => Ok(found),
            false => Err(damage),
        }
    }

    /// The newest commit whose time is not later than `at`. Newest by era first: where the clock was set back and two eras
    /// have commits before `at`, the later era has it.
    async fn find_at(&self, at: Stamp) -> Result<Found, Error> {
        let seen = self.seen_before();
        let listed = self.list_commits().await?;
        let looked = self.newest_from(&listed, None, at).await?;
        self.compare_with_seen(&listed, seen, looked.found.as_ref(), at)
            .await?;
        let Some(found) = &looked.found else {
            return Err(self.none_at(&listed, at).await?);
        };
        if !self.is_contiguous(&listed, &looked, found).await? {
            self.prove_nothing_between(&listed, Some(found), at).await?;
        }
        if !found.commit.incomplete {
            return Ok(found.clone());
        }
        let history = self.history(found).await?;
        let complete =
            |entry: &&HistoryEntry| is_kept(entry) && !entry.incomplete && entry.name.stamp <= at;
        match history.iter().rev().find(complete) {
            Some(entry) => self.read_entry(entry, found).await,
            None => Ok(found.clone()),
        }
    }

    /// Why there is nothing at or before `at`, once it is proven that nothing has gone from there.
    async fn none_at(&self, listed: &Listed, at: Stamp) -> Result<Error, Error> {
        let looked = self.newest_from(listed, None, Stamp(u64::MAX)).await?;
        let Some(head) = looked.found else {
            return Ok(self.nothing_yet());
        };
        self.prove_nothing_between(listed, None, at).await?;
        let why = format!("there is no snapshot at or before {}", show_time(at));
        Ok(not_found(why, &self.history(&head).await?))
    }

    /// Whether nothing is missing between `found` and the next later commit: it is the newest of all that are listed, or the commit
    /// listed before it says itself that it follows this one. Its name alone says nothing, since anybody who can write to the
    /// store can plant one.
    async fn is_contiguous(
        &self,
        listed: &Listed,
        looked: &Looked,
        found: &Found,
    ) -> Result<bool, Error> {
        let (newer, len) = match &looked.newer {
            Newer::None => return Ok(true),
            Newer::Unknown => return Ok(false),
            Newer::Name(newer, len) => (newer, *len),
        };
        // Saves reading one that cannot follow it.
        if newer.seq.0.checked_sub(1) != Some(found.commit.name.seq.0) {
            return Ok(false);
        }
        match self.read_if_history(listed, newer, len).await {
            Ok(next) => {
                let this = Some((found.commit.name, found.tag));
                Ok(next.is_some_and(|next| next.commit.previous == this))
            }
            Err(error) if error.is_damage() || matches!(error, Error::NewerFormat { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// That history has no commit later than `found` and not later than `at`: one that has gone from the store would otherwise go
    /// unnoticed, and an older state be taken for that of `at`. [`Error::Missing`] names it. One commit more, and the
    /// few pages in which history has the commits behind `found`.
    ///
    /// Whoever can delete objects can delete all later ones too, and no store tells that from a volume that ended there; so where no
    /// later commit can be read there is nothing to prove it by. Where one is, damage to its history is the error: what it would
    /// have said is not known.
    async fn prove_nothing_between(
        &self,
        listed: &Listed,
        found: Option<&Found>,
        at: Stamp,
    ) -> Result<(), Error> {
        let (Some(head), _) = self.newest_readable_of(listed).await? else {
            return Ok(());
        };
        if found.is_some_and(|found| found.commit.name == head.commit.name) {
            return Ok(());
        }
        let tree = self.tree(&head.commit);
        let mut next = found.map_or(0, |found| found.commit.name.seq.0 + 1);
        loop {
            let entries = tree.history_from(Seq(next), HISTORY_AT_ONCE).await?;
            if let Some(entry) = entries.iter().find(|entry| is_kept(entry)) {
                return match entry.name.stamp <= at {
                    true => Err(Error::Missing {
                        object: layout::commit(self.info.id, &entry.name),
                    }),
                    false => Ok(()),
                };
            }
            match entries.last() {
                Some(last) => next = last.name.seq.0 + 1,
                None => return Ok(()),
            }
        }
    }

    /// Reads what a history names; it must be the very commit that the history means.
    async fn read_entry(&self, entry: &HistoryEntry, head: &Found) -> Result<Found, Error> {
        if entry.name == head.commit.name {
            return Ok(head.clone());
        }
        let found = self.read_commit(&entry.name).await?;
        if found.tag != entry.tag {
            let object = layout::commit(self.info.id, &entry.name);
            return Err(Error::damaged(
                &object,
                "it is not the commit that later ones remember",
            ));
        }
        Ok(found)
    }

    fn nothing_yet(&self) -> Error {
        Error::NotFound(format!("volume {} has no snapshot yet", self.info.name))
    }
}

fn is_kept(entry: &HistoryEntry) -> bool {
    entry.forgotten.is_none()
}

/// The `steps`-th before the newest of those that are kept and complete; of all that are kept if none is complete.
fn back(history: &[HistoryEntry], steps: u64) -> Result<&HistoryEntry, String> {
    let kept = || history.iter().rev().filter(|entry| is_kept(entry));
    let any_complete = kept().any(|entry| !entry.incomplete);
    let steps_usize = usize::try_from(steps).unwrap_or(usize::MAX);
    let mut eligible = kept().filter(|entry| !any_complete || !entry.incomplete);
    eligible
        .nth(steps_usize)
        .ok_or_else(|| format!("there are no {steps} snapshots before the latest"))
}

fn by_seq(history: &[HistoryEntry], seq: Seq) -> Result<&HistoryEntry, String> {
    let at = history.binary_search_by_key(&seq, |entry| entry.name.seq);
    let entry = at
        .map(|at| &history[at])
        .map_err(|_| format!("there is no snapshot @{seq}"))?;
    match entry.forgotten {
        None => Ok(entry),
        Some(_) => Err(format!("snapshot @{seq} has been removed by retention")),
    }
}

/// A name is looked for before an id: a person may have named a snapshot "beef".
fn named<'a>(history: &'a [HistoryEntry], text: &str) -> Result<&'a HistoryEntry, String> {
    let all = |wanted: &dyn Fn(&HistoryEntry) -> bool| -> Vec<&'a HistoryEntry> {
        history
            .iter()
            .filter(|entry| is_kept(entry) && wanted(entry))
            .collect()
    };
    let by_name = match text {
        "" => Vec::new(),
        _ => all(&|entry| entry.label == text),
    };
    let id = text.to_ascii_lowercase();
    let is_id = id.len() >= ID_DIGITS_MIN && id.bytes().all(|b| b.is_ascii_hexdigit());
    let found = match by_name.is_empty() && is_id {
        true => all(&|entry| entry.tag.to_string().starts_with(&id)),
        false => by_name,
    };
    match found[..] {
        [one] => Ok(one),
        [] => Err(format!("no snapshot has the name or id {text:?}")),
        _ => Err(ambiguous(text, &found)),
    }
}

fn ambiguous(text: &str, found: &[&HistoryEntry]) -> String {
    let each = found.iter().map(|entry| {
        format!(
            "{} (@{}, {})",
            snapshot_id(&entry.tag),
            entry.name.seq,
            show_time(entry.name.stamp)
        )
    });
    let each: Vec<_> = each.collect();
    format!(
        "{} snapshots fit {text:?}: {}; give one's id",
        each.len(),
        each.join(", ")
    )
}

/// Why, and the window that there is.
fn not_found(why: String, history: &[HistoryEntry]) -> Error {
    let mut kept = history.iter().filter(|entry| is_kept(entry));
    let window = match (kept.next(), kept.next_back()) {
        (Some(first), Some(last)) => format!(
            "; history begins {} (@{}) and ends {} (@{})",
            show_time(first.name.stamp),
            first.name.seq,
            show_time(last.name.stamp),
            last.name.seq
        ),
        (Some(only), None) => format!(
            "; there is one, of {} (@{})",
            show_time(only.name.stamp),
            only.name.seq
        ),
        (None, _) => String::new(),
    };
    Error::NotFound(format!("{why}{window}"))
}
