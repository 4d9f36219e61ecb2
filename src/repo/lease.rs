//! Who may write: claims, generations and the lease. FORMAT.md, "Claims and lease".
//!
//! The lease is politeness: it keeps a second machine from taking a volume over by accident, and it goes by clocks. Safety is
//! the claims alone, which go by no clock and by no condition of the store: each is an object of its own name, the latest wins,
//! and what an earlier writer publishes beyond it is not history (`lineage.rs`). Conditional writes make the race for a
//! lease clean where a store has them; where it ignores them, which is found out by trying, both writers read back and only one
//! goes on.
//! Called by the one who is going to publish. The objects themselves are put and proven in `claims.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Stamp};
use crate::failpoint::{self, Point};
use crate::format::claim::{ADOPTED_MAX, Claim, ClaimName, Lease, owner_text};
use crate::id::{Era, Generation, Seq, SessionId, Tag};
use crate::repo::claims::Claims;
use crate::repo::commits::Found;
use crate::repo::lineage::Lineage;
use crate::repo::{Error, Volume, layout, show_time};
use crate::store::{Kind, PutOutcome, Version};

/// The clock may be this far behind the last commit's stamp without beginning a new era: stamps then simply count on.
const STEP_BACK_MAX: Duration = Duration::from_secs(60);
/// A lease that claims to run longer than this from now was written by a clock that is wrong. It is not waited for: its
/// holder, if alive, is fenced by the claim, which is safe and told.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The version of no object: an entity tag as S3 writes them, which for other stores is as good as any.
const NO_VERSION: &str = "\"00000000000000000000000000000000\"";

/// The right to publish into a volume.
pub struct Writership {
    claims: Claims,
    claim: ClaimName,
    adopted: Vec<SessionId>,
    owner: String,
    since: Stamp,
    lease: Duration,
    /// Whether the store was seen to keep to the conditions of writes; `None` if that could not be tried.
    conditions: Option<bool>,
    /// Whether it has written its lease over another's, who may go on to claim all the same.
    contested: AtomicBool,
    /// Sessions under which the same process has tried to claim anew.
    again: Mutex<Vec<SessionId>>,
}

impl std::fmt::Debug for Writership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writership")
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl Writership {
    /// The generation that commits of this writer carry.
    pub fn generation(&self) -> Generation {
        self.claim.generation
    }

    /// The session it writes under.
    pub fn session(&self) -> SessionId {
        self.claim.session
    }

    /// The era that all its commits are named with. If the clock steps back by more than a minute, a new session with a new claim
    /// is needed.
    pub fn era(&self) -> Era {
        self.claim.era
    }

    /// Sessions of the same owner with whose unfinished uploads it goes on.
    pub fn adopted(&self) -> &[SessionId] {
        &self.adopted
    }

    /// Says that the same process is going to claim the volume anew, as `session`. Whether that claim succeeds, fails or is
    /// never heard of again, it does not fence this one.
    pub fn will_claim_as(&self, session: SessionId) {
        self.again.lock().push(session);
    }

    /// Whether it has said so.
    pub fn has_claimed_again(&self) -> bool {
        !self.again.lock().is_empty()
    }

    /// Whether the store keeps to the conditions of writes, as was tried when this right was claimed. If not, two machines that mount the
    /// volume at one moment may both begin to write; the claims tell them apart, and one stops at its first commit.
    pub fn has_conditions(&self) -> bool {
        self.conditions != Some(false)
    }

    /// Makes the lease longer. [`Error::Fenced`] if somebody has taken it: publishing must stop for good.
    pub async fn renew(&self, clock: &dyn Clock) -> Result<(), Error> {
        self.write_lease(end(clock.now(), self.lease)).await
    }

    /// Whether nobody has claimed a higher generation, asked of the store (one LIST): called before each commit is put
    /// when the lease may have run out.
    pub async fn verify(&self) -> Result<(), Error> {
        let lineage = self.claims.lineage().await?;
        let later = {
            let again = self.again.lock();
            lineage
                .all_later_than(self.claims.volume(), &self.claim)
                .find(|claim| !again.contains(&claim.session))
                .copied()
        };
        match later {
            None => Ok(()),
            Some(later) => {
                // A name alone must not be able to stop a writer for good.
                self.claims.read(&later).await?;
                Err(Error::Fenced(later.generation.0))
            }
        }
    }

    /// That a commit is history, asked once it lies in the store: [`Error::Fenced`] if somebody had claimed a higher generation by
    /// then. One GET where the lease says so, else one LIST.
    ///
    /// Whoever claims writes the lease first, then looks for the newest commit, and goes on from that. So while the lease is ours,
    /// whoever takes it later finds this commit; and whoever took it before would be seen in it, since nothing of ours was written over
    /// his: the store keeps to the condition under which the lease is written, or this is not asked. No clock is needed for that. But a
    /// lease can be put back by whoever can write to the store: every now and then [`Self::verify`] has to be asked too.
    pub async fn confirm(&self) -> Result<(), Error> {
        match self.lease_speaks_for_us().await? {
            true => Ok(()),
            false => self.verify().await,
        }
    }

    async fn lease_speaks_for_us(&self) -> Result<bool, Error> {
        if self.conditions != Some(true) || self.contested.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match self.claims.read_lease().await {
            Ok(held) => Ok(held.is_some_and(|(lease, _)| lease.session == self.claim.session)),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, if it is still ours. The claim stays: it is part of the volume's history.
    pub async fn release(&self) -> Result<(), Error> {
        match self.claims.read_lease().await? {
            Some((lease, version)) if lease.session == self.claim.session => {
                let given_back = Lease {
                    expires: Stamp(0),
                    ..lease
                };
                // Refused, another has written it between our two requests.
                self.claims.put_lease(&given_back, Some(version)).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes the lease over if it is still ours, or of one who has lost against our claim.
    async fn write_lease(&self, expires: Stamp) -> Result<(), Error> {
        let held = match self.claims.read_lease().await {
            // It holds nothing that our claim does not prove better: written anew, it is whole again.
            Err(Error::Damaged { .. }) => {
                self.verify().await?;
                self.contested.store(true, Ordering::Relaxed);
                return self.claims.replace_lease(&self.lease_until(expires)).await;
            }
            held => held?,
        };
        if held
            .as_ref()
            .is_none_or(|(lease, _)| lease.session != self.claim.session)
        {
            self.verify().await?;
            self.contested.store(true, Ordering::Relaxed);
        }
        let mut lease = self.lease_until(expires);
        let (held, over) = held.unzip();
        // Whoever comes next takes one more than all that were ever given out.
        lease.generation = lease
            .generation
            .max(held.map_or(lease.generation, |held| held.generation));
        match self.claims.put_lease(&lease, over).await? {
            PutOutcome::Done => Ok(()),
            // Somebody wrote it between our two requests. Either he has claimed the volume by now, or the next renewal tells.
            PutOutcome::Refused => self.verify().await,
        }
    }

    fn lease_until(&self, expires: Stamp) -> Lease {
        Lease {
            generation: self.claim.generation,
            session: self.claim.session,
            owner: self.owner.clone(),
            since: self.since,
            expires,
        }
    }

    /// Whether the store refuses what it was told to write only where nothing is, and what only over something that is not there: the
    /// lease, which is there and ours. A store that writes it all the same has the same lease as before. Two PUTs.
    async fn try_conditions(&self) -> Result<bool, Error> {
        let lease = self.lease_until(end(self.since, self.lease));
        let other = Some(Version(NO_VERSION.to_owned()));
        let (absent, exchange) = futures::try_join!(
            self.claims.put_lease(&lease, None),
            self.claims.put_lease(&lease, other)
        )?;
        Ok([absent, exchange] == [PutOutcome::Refused; 2])
    }

    async fn take_lease(&self, held: Option<Version>) -> Result<(), Error> {
        let lease = self.lease_until(end(self.since, self.lease));
        match self.claims.put_lease(&lease, held).await? {
            PutOutcome::Done => Ok(()),
            PutOutcome::Refused => Err(self.claims.busy("another writer that has just started")),
        }
    }
}

impl Volume {
    /// Takes the lease and claims the volume from `base` on (its head, or none). [`Error::Busy`] names the holder if
    /// another's lease is still running or the volume has moved on from `base`; a lease of the same `owner` (machine and state
    /// directory) is taken over at once, also a damaged one: [`Error::Damaged`] if that may be another's.
    /// `base` may be a commit that lies only in the spool yet. Then the store's head must be one of `heads`: the head from which
    /// the spooled ones go on, and those of them that have been uploaded since that was looked up. A session claims once: [`Error::Invalid`] for a second time.
    pub async fn claim(
        &self,
        session: SessionId,
        owner: &str,
        base: Option<&Found>,
        heads: &[Tag],
        lease: Duration,
        clock: &dyn Clock,
    ) -> Result<Writership, Error> {
        let claims = self.claims.clone();
        let (owner, now) = (owner_text(owner), clock.now());
        let (lineage, held) = futures::join!(claims.lineage(), claims.read_lease());
        let lineage = lineage?;
        let is_damaged = held.as_ref().is_err_and(Error::is_damage);
        let held = match is_damaged {
            true => self.mend_lease(&lineage, session, owner).await?,
            false => held?,
        };
        if lineage.knows(session) {
            return Err(Error::Invalid(format!(
                "session {session} has claimed this volume before"
            )));
        }
        let (held, version) = held.unzip();
        if let Some(held) = held
            .as_ref()
            .filter(|held| keeps_out(held, owner, now, &lineage))
        {
            return Err(claims.busy(&holder(held)));
        }
        let claim = Claim {
            name: ClaimName {
                generation: next_generation(&lineage, held.as_ref())?,
                era: era(base, now),
                base_seq: base.map_or(Seq(0), |base| base.commit.name.seq),
                session,
            },
            base_tag: base.map(|base| base.tag),
            made: now,
            owner: owner.to_owned(),
            adopted: adopted(&claims, &lineage, owner).await?,
        };
        let mut writership = Writership {
            claims,
            claim: claim.name,
            adopted: claim.adopted.clone(),
            owner: claim.owner.clone(),
            since: now,
            lease,
            conditions: None,
            contested: AtomicBool::new(is_damaged),
            again: Mutex::default(),
        };
        writership.take_lease(version).await?;
        let head = self.head().await;
        let taken = match head.and_then(|head| self.check_head(head, base, heads)) {
            Ok(()) => self.take(&claim, lineage, base, heads).await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            // Whoever comes next need not wait for it, then; why this one failed says more than that he must.
            if let Err(kept) = writership.release().await {
                tracing::info!(%kept, "the lease runs out by itself");
            }
            return Err(error);
        }
        // The right is claimed: an error of the trial is none of the claim.
        match writership.try_conditions().await {
            Ok(kept) => writership.conditions = Some(kept),
            Err(error) => {
                tracing::info!(%error, "whether the store keeps to conditions could not be tried");
            }
        }
        failpoint::reach(Point::Claim);
        Ok(writership)
    }

    /// Makes a damaged lease whole, given back, where the volume was `owner`'s before or nobody's. Else it is for its holder to mend, who
    /// writes it anew when it is to be renewed. Another may have written it and not put its claim yet: the generation is left to it.
    async fn mend_lease(
        &self,
        lineage: &Lineage,
        session: SessionId,
        owner: &str,
    ) -> Result<Option<(Lease, Version)>, Error> {
        let claims = &self.claims;
        let latest = match lineage.latest() {
            None => None,
            Some(latest) => Some(claims.read(latest).await?),
        };
        if let Some(other) = latest.as_ref().filter(|latest| latest.owner != owner) {
            return Err(Error::damaged(
                &layout::lease(self.info.id),
                format!(
                    "who writes the volume cannot be seen from it. {} has claimed the volume last, and writes this object anew within \
                     minutes if it is still mounted there. If it is not, delete this object",
                    other.owner
                ),
            ));
        }
        let given_back = Lease {
            generation: next_generation(lineage, None)?,
            session,
            owner: owner.to_owned(),
            since: Stamp(0),
            expires: Stamp(0),
        };
        claims.replace_lease(&given_back).await?;
        claims.read_lease().await
    }

    /// Who other than `owner` (or a writer of `session`) has claimed the volume last, as it gave its name; `None` if nobody has. One LIST,
    /// and the claim.
    pub async fn taken_by_other(
        &self,
        owner: &str,
        session: Option<SessionId>,
    ) -> Result<Option<String>, Error> {
        let lineage = self.claims.lineage().await?;
        let Some(latest) = lineage.latest() else {
            return Ok(None);
        };
        if session == Some(latest.session) {
            return Ok(None);
        }
        let latest = self.claims.read(latest).await?;
        Ok((latest.owner != owner_text(owner)).then_some(latest.owner))
    }

    /// Puts the claim, and looks whether it is the latest, and whether nothing was published meanwhile that it cuts off, by the claims that there
    /// were `before`: no answer to a put is believed alone. Who publishes looks for claims afterwards, and who claims looks for commits:
    /// one of the two sees the other. If not, the claim is taken away again.
    async fn take(
        &self,
        claim: &Claim,
        before: Lineage,
        base: Option<&Found>,
        heads: &[Tag],
    ) -> Result<(), Error> {
        let claims = &self.claims;
        let judged = match claims.put(claim).await {
            Ok(PutOutcome::Refused) => {
                return Err(claims.busy("a writer of the same session"));
            }
            Ok(PutOutcome::Done) => self.judge(claim, before, base, heads).await,
            // It may be there all the same.
            Err(Error::Store(error)) if error.kind == Kind::Retry => Err(Error::Store(error)),
            Err(error) => return Err(error),
        };
        if judged.is_err() {
            self.withdraw_best_effort(claim).await;
        }
        judged
    }

    /// Whether a claim that has been put may stand.
    async fn judge(
        &self,
        claim: &Claim,
        before: Lineage,
        base: Option<&Found>,
        heads: &[Tag],
    ) -> Result<(), Error> {
        let claims = &self.claims;
        let (listed, held) = futures::join!(self.list_commits(), claims.read_lease());
        let listed = listed?;
        // The other put its claim first, or wins by its name.
        if listed
            .lineage
            .later_than(claims.volume(), &claim.name)
            .is_some()
        {
            return Err(match held {
                Ok(Some((lease, _))) if lease.session != claim.name.session => {
                    claims.busy(&holder(&lease))
                }
                _ => claims.busy("another writer that has just started"),
            });
        }
        let unclaimed = listed.with(before);
        let newest = self.newest_from(&unclaimed, None, Stamp(u64::MAX)).await?;
        self.check_head(newest.found, base, heads)
    }

    /// Takes away a claim that must not stand: what was published before it was put may be forgotten where it came from. Where that is
    /// not allowed, why it must not stand is still what the caller has to hear.
    async fn withdraw_best_effort(&self, claim: &Claim) {
        if let Err(error) = self.claims.withdraw(&claim.name).await {
            let object = layout::claim(self.info.id, &claim.name);
            tracing::error!(
                %object, %error,
                "a claim could not be taken back: if it is there, it hides what others have published after @{} meanwhile; delete this object then",
                claim.name.base_seq
            );
        }
    }

    /// Whether `base` is still where the volume stands, asked while the lease is ours. A claim that began before the newest commit
    /// would cut off what another has published since the base was read.
    fn check_head(
        &self,
        head: Option<Found>,
        base: Option<&Found>,
        heads: &[Tag],
    ) -> Result<(), Error> {
        let Some(head) = head else {
            return Ok(());
        };
        let seq = head.commit.name.seq;
        // By tag: a number says nothing, since another machine may have gone on from the same commit.
        let stands = base.is_some_and(|base| base.tag == head.tag || heads.contains(&head.tag));
        match stands {
            true => Ok(()),
            false => Err(self.claims.busy(&format!(
                "{}, which has just published @{seq}",
                head.commit.host
            ))),
        }
    }
}

/// Whether a lease of another's must be waited for.
fn keeps_out(held: &Lease, owner: &str, now: Stamp, lineage: &Lineage) -> bool {
    // With the same generation it was written over the lease of the one who has claimed since.
    let superseded = lineage.latest().is_some_and(|latest| {
        latest.generation > held.generation
            || (latest.generation == held.generation && latest.session != held.session)
    });
    held.owner != owner && !superseded && held.expires > now && held.expires <= end(now, LEASE_MAX)
}

/// One more than anybody has had. A lease may be of a writer who died before it put its claim.
fn next_generation(lineage: &Lineage, held: Option<&Lease>) -> Result<Generation, Error> {
    let claimed = lineage.latest().map(|latest| latest.generation);
    let leased = held.map(|held| held.generation);
    let highest = claimed.max(leased).map_or(0, |highest| highest.0);
    let next = highest.checked_add(1).map(Generation);
    next.ok_or_else(|| Error::Invalid("all generations of this volume are used up".into()))
}

/// The era in which commits go on: the base's, or the next if the clock has stepped back since.
fn era(base: Option<&Found>, now: Stamp) -> Era {
    match base.map(|base| base.commit.name) {
        None => Era(0),
        Some(base) if end(now, STEP_BACK_MAX) < base.stamp => Era(base.era.0.saturating_add(1)),
        Some(base) => base.era,
    }
}

/// The sessions whose unfinished uploads the same owner goes on with: that of the latest claim, and those which it had adopted.
async fn adopted(claims: &Claims, lineage: &Lineage, owner: &str) -> Result<Vec<SessionId>, Error> {
    let Some(latest) = lineage.latest() else {
        return Ok(Vec::new());
    };
    let before = claims.read(latest).await?;
    if before.owner != owner {
        return Ok(Vec::new());
    }
    let mut sessions = vec![before.name.session];
    sessions.extend(before.adopted);
    sessions.truncate(ADOPTED_MAX);
    Ok(sessions)
}

fn end(from: Stamp, after: Duration) -> Stamp {
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    Stamp(from.0.saturating_add(millis))
}

/// Who holds a lease, for people.
fn holder(lease: &Lease) -> String {
    format!(
        "{} since {} (its lease runs until {})",
        lease.owner,
        show_time(lease.since),
        show_time(lease.expires)
    )
}

#[cfg(test)]
mod tests;
