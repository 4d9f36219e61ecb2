//! Two writers: politeness while a lease runs, one winner of every race, and a replaced one that finds out; with and
//! without a store that honours conditions.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::clock::ManualClock;
use crate::id::ObjectKey;
use crate::repo::fixture::{LEASE, Special, TEN, Writer, memory, metered, no_cache, reopen};
use crate::repo::layout;
use crate::store::fault::{Fault, Faulty, Plan, Rule};
use crate::store::metered::Operation;
use crate::store::{self, Body, Condition, Kind, Listing, ObjectStore, Store};

/// Gives way before every request, so that two writers on one thread take turns; and may ignore conditions, as Garage does.
#[derive(Debug)]
struct TakingTurns {
    inner: Store,
    ignores_conditions: bool,
}

#[async_trait]
impl ObjectStore for TakingTurns {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), store::Error> {
        tokio::task::yield_now().await;
        self.inner.put(key, body).await
    }
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, store::Error> {
        tokio::task::yield_now().await;
        if self.ignores_conditions {
            self.inner.put(key, body).await?;
            return Ok(PutOutcome::Done);
        }
        self.inner.put_if(key, body, condition).await
    }
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, store::Error> {
        tokio::task::yield_now().await;
        self.inner.get_range(key, range).await
    }
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), store::Error> {
        tokio::task::yield_now().await;
        self.inner.get(key, len_max).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, store::Error> {
        tokio::task::yield_now().await;
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), store::Error> {
        self.inner.delete(key).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, store::Error> {
        self.inner.head(key).await
    }
}

fn clock(seconds: u64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Stamp(TEN + seconds * 1000)))
}

async fn claim_from_nothing(
    volume: &Volume,
    owner: &str,
    clock: &ManualClock,
) -> Result<Writership, Error> {
    volume
        .claim(SessionId::random(), owner, None, &[], LEASE, clock)
        .await
}

#[tokio::test]
async fn a_running_lease_keeps_others_out_and_tells_who_holds_it_since_when() {
    let store = memory();
    let first = Writer::new(&store).await;
    let other = claim_from_nothing(&first.volume, "there", &clock(59)).await;
    match other {
        Err(Error::Busy { volume, holder }) => {
            assert_eq!(volume, "docs");
            assert!(
                holder.starts_with("here since 2026-11-21 10:00:00 UTC"),
                "{holder}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(first.writership.verify().await.is_ok());
}

#[tokio::test]
async fn a_lease_that_ran_out_or_was_given_back_is_free_and_a_renewed_one_is_not() {
    let store = memory();
    let first = Writer::new(&store).await;
    first.writership.renew(&*clock(50)).await.unwrap();
    let volume = &first.volume;
    assert!(matches!(
        claim_from_nothing(volume, "there", &clock(61)).await,
        Err(Error::Busy { .. })
    ));
    let second = claim_from_nothing(volume, "there", &clock(111))
        .await
        .unwrap();
    assert_eq!(second.generation(), Generation(2));
    second.release().await.unwrap();
    let third = claim_from_nothing(volume, "elsewhere", &clock(112))
        .await
        .unwrap();
    assert_eq!(third.generation(), Generation(3));
    assert!(third.verify().await.is_ok());
}

#[tokio::test]
async fn the_same_owner_takes_over_at_once_and_adopts_what_it_had_begun() {
    let store = memory();
    let first = Writer::new(&store).await;
    let volume = first.volume.clone();
    let second = claim_from_nothing(&volume, "here", &clock(1))
        .await
        .unwrap();
    let third = claim_from_nothing(&volume, "here", &clock(2))
        .await
        .unwrap();
    let claim = volume.claims.read(&third.claim).await.unwrap();
    let adopted = [second.session(), first.writership.session()];
    assert_eq!(claim.adopted, adopted);
    for fenced in [&first.writership, &second] {
        assert!(matches!(fenced.verify().await, Err(Error::Fenced(3))));
        assert!(matches!(
            fenced.renew(&*clock(3)).await,
            Err(Error::Fenced(3))
        ));
        // The lease is not theirs to give back.
        fenced.release().await.unwrap();
    }
    let (held, _) = volume.claims.read_lease().await.unwrap().unwrap();
    assert_eq!(held.session, third.session());
    assert!(held.expires > Stamp(TEN));
    // Another owner adopts nothing: those uploads may go on without it.
    third.release().await.unwrap();
    let other = claim_from_nothing(&volume, "there", &clock(4))
        .await
        .unwrap();
    let claim = volume.claims.read(&other.claim).await.unwrap();
    assert_eq!(claim.adopted, []);
}

#[tokio::test]
async fn whether_another_has_taken_the_volume_goes_by_the_last_claim_alone() {
    let store = memory();
    let first = Writer::new(&store).await;
    let volume = first.volume.clone();
    let taken = |owner, session| volume.taken_by_other(owner, session);
    assert_eq!(taken("here", None).await.unwrap(), None);
    let told = taken("there", None).await.unwrap();
    assert_eq!(told.as_deref(), Some("here"));
    // This machine under another name: a laptop's changes with the network it is in.
    let session = Some(first.writership.session());
    assert_eq!(taken("renamed", session).await.unwrap(), None);

    first.writership.release().await.unwrap();
    claim_from_nothing(&volume, "there", &clock(1))
        .await
        .unwrap();
    for session in [None, session] {
        let told = taken("here", session).await.unwrap();
        assert_eq!(told.as_deref(), Some("there"));
    }
    let empty = crate::repo::fixture::volume(&memory()).await;
    assert_eq!(empty.taken_by_other("here", None).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_claims_once() {
    let store = memory();
    let first = Writer::new(&store).await;
    let session = first.writership.session();
    let again = first
        .volume
        .claim(session, "here", None, &[], LEASE, &*clock(1))
        .await;
    assert!(matches!(again, Err(Error::Invalid(_))));
}

/// A mount gives up waiting for its claim's put, and claims anew: the first may land after the second.
#[tokio::test]
async fn a_claim_that_was_given_up_and_lands_late_fences_nobody() {
    let store = memory();
    let volume = crate::repo::fixture::volume(&store).await;
    let late = Claim {
        name: ClaimName {
            generation: Generation(1),
            era: Era(0),
            base_seq: Seq(0),
            // Of two with one generation this would be the later.
            session: SessionId([0; 8]),
        },
        base_tag: None,
        made: Stamp(TEN),
        owner: "here".to_owned(),
        adopted: Vec::new(),
    };
    let given_up = Writership {
        adopted: Vec::new(),
        claims: volume.claims.clone(),
        claim: late.name,
        owner: late.owner.clone(),
        since: late.made,
        lease: LEASE,
        conditions: Some(true),
        contested: AtomicBool::new(false),
        again: Mutex::default(),
    };
    given_up.take_lease(None).await.unwrap();
    let mut second = Writer::claim(&volume, &clock(1), "here").await.unwrap();
    assert_eq!(second.writership.generation(), Generation(2));
    let commit = second.commit(vec![], Special::default()).await;
    assert_eq!(volume.claims.put(&late).await.unwrap(), PutOutcome::Done);
    second.writership.verify().await.unwrap();
    assert_eq!(volume.head().await.unwrap().unwrap().tag, commit.tag);
}

#[tokio::test]
async fn a_claim_states_where_it_begins() {
    let store = memory();
    let mut first = Writer::new(&store).await;
    let head = first.commit(vec![], Special::default()).await;
    let second = Writer::claim(&first.volume, &clock(1), "here")
        .await
        .unwrap();
    let claim = first
        .volume
        .claims
        .read(&second.writership.claim)
        .await
        .unwrap();
    assert_eq!(claim.name.base_seq, head.commit.name.seq);
    assert_eq!(claim.base_tag, Some(head.tag));
}

/// Two writers that take turns request by request, the second so many turns behind the first. Not every possible order.
async fn race(ignores_conditions: bool) {
    for head_start in 0..12 {
        let inner = memory();
        let repository = crate::repo::fixture::volume(&inner).await;
        drop(repository);
        let store: Store = Arc::new(TakingTurns {
            inner,
            ignores_conditions,
        });
        let volume = reopen(&store, no_cache()).await;
        let (clock_a, clock_b) = (clock(0), clock(0));
        let a = claim_from_nothing(&volume, "a", &clock_a);
        let b = async {
            for _ in 0..head_start {
                tokio::task::yield_now().await;
            }
            claim_from_nothing(&volume, "b", &clock_b).await
        };
        let (a, b) = futures::join!(a, b);
        let mut still_writing = Vec::new();
        for claimed in [a, b] {
            match claimed {
                Ok(writership) => still_writing.extend(
                    writership
                        .verify()
                        .await
                        .is_ok()
                        .then(|| writership.session()),
                ),
                Err(Error::Busy { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(still_writing.len() <= 1, "head start {head_start}");
        if !ignores_conditions {
            assert_eq!(still_writing.len(), 1, "head start {head_start}");
        }
    }
}

#[tokio::test]
async fn of_two_at_one_time_one_writes() {
    race(false).await;
}

#[tokio::test]
async fn of_two_at_one_time_at_most_one_writes_where_conditions_are_ignored() {
    race(true).await;
}

/// An answer to a conditional write proves nothing, so it is tried whether one that must be refused is.
#[tokio::test]
async fn whether_a_store_keeps_to_conditions_is_found_out_by_trying() {
    let store = memory();
    let first = Writer::new(&store).await;
    assert!(first.writership.has_conditions());
    first.writership.release().await.unwrap();

    let ignoring: Store = Arc::new(TakingTurns {
        inner: store,
        ignores_conditions: true,
    });
    let volume = reopen(&ignoring, no_cache()).await;
    let second = claim_from_nothing(&volume, "there", &clock(1))
        .await
        .unwrap();
    assert!(!second.has_conditions());
    // What it tried with has left a lease that is its own.
    let (lease, _) = volume.claims.read_lease().await.unwrap().unwrap();
    assert_eq!(lease.session, second.session());
    second.verify().await.unwrap();
}

/// What is tried comes last, when the right is claimed: its failure must not take that away.
#[tokio::test]
async fn a_trial_that_fails_is_no_reason_to_have_claimed_nothing() {
    let claim = async |plan: &Arc<Plan>| {
        let faulty: Store = Arc::new(Faulty::new(memory(), Arc::clone(plan)));
        let first = Writer::new(&faulty).await;
        first.writership.release().await.unwrap();
        plan.clear();
        let volume = reopen(&faulty, no_cache()).await;
        let before = plan.seen();
        (volume, before)
    };
    let plan = Plan::new();
    let (volume, before) = claim(&plan).await;
    claim_from_nothing(&volume, "there", &clock(1))
        .await
        .unwrap();
    let requests = plan.seen() - before;

    let plan = Plan::new();
    let (volume, _) = claim(&plan).await;
    plan.add(Rule {
        on: None,
        skip: requests - 1,
        times: 1,
        fault: Fault::FailBefore(Kind::Retry),
    });
    let claimed = claim_from_nothing(&volume, "there", &clock(1))
        .await
        .unwrap();
    assert_eq!(plan.fired(), 1);
    claimed.verify().await.unwrap();
}

#[tokio::test]
async fn a_writer_whose_lease_was_written_over_by_a_loser_goes_on() {
    let store = memory();
    let first = Writer::new(&store).await;
    let claims = &first.volume.claims;
    let (lease, version) = claims.read_lease().await.unwrap().unwrap();
    let loser = Lease {
        session: SessionId([1; 8]),
        owner: "loser".into(),
        ..lease
    };
    claims.put_lease(&loser, Some(version)).await.unwrap();
    first.writership.renew(&*clock(1)).await.unwrap();
    let (lease, _) = claims.read_lease().await.unwrap().unwrap();
    assert_eq!(lease.session, first.writership.session());
}

#[tokio::test]
async fn a_lease_from_a_clock_that_is_far_ahead_is_not_waited_for() {
    let store = memory();
    let first = Writer::new(&store).await;
    first
        .writership
        .renew(&*clock(2 * 24 * 3600))
        .await
        .unwrap();
    assert!(
        claim_from_nothing(&first.volume, "there", &clock(1))
            .await
            .is_ok()
    );
    assert!(matches!(
        first.writership.verify().await,
        Err(Error::Fenced(2))
    ));
}

#[tokio::test]
async fn a_lease_put_back_in_time_gives_nobody_the_right_to_write() {
    let store = memory();
    let first = Writer::new(&store).await;
    let key = layout::lease(first.volume.info().id);
    let (old, _) = store.get(&key, 1 << 20).await.unwrap();
    first.writership.release().await.unwrap();
    let second = claim_from_nothing(&first.volume, "there", &clock(1))
        .await
        .unwrap();
    store.put(&key, Body::Bytes(old)).await.unwrap();
    assert!(matches!(
        first.writership.renew(&*clock(2)).await,
        Ok(()) | Err(Error::Fenced(2))
    ));
    assert!(matches!(
        first.writership.verify().await,
        Err(Error::Fenced(2))
    ));
    assert!(second.verify().await.is_ok());
    second.renew(&*clock(3)).await.unwrap();
}

#[tokio::test]
async fn a_claim_on_a_base_that_others_have_gone_beyond_is_refused_and_cuts_nothing_off() {
    let store = memory();
    let mut first = Writer::new(&store).await;
    let base = first.commit(vec![], Special::default()).await;
    let head = first.commit(vec![], Special::default()).await;
    first.writership.release().await.unwrap();
    let volume = &first.volume;
    for stale in [Some(&base), None] {
        let session = SessionId::random();
        let claimed = volume
            .claim(session, "there", stale, &[], LEASE, &*clock(1))
            .await;
        assert!(matches!(claimed, Err(Error::Busy { .. })));
        assert_eq!(volume.head().await.unwrap().unwrap().tag, head.tag);
    }
    // The lease was given back, so that whoever has read the head may go on at once.
    let session = SessionId::random();
    let claimed = volume
        .claim(session, "elsewhere", Some(&head), &[], LEASE, &*clock(2))
        .await;
    assert!(claimed.is_ok());
}

/// The machine that claims is suspended between its look at the newest commit and its claim; the one before it has not noticed yet.
#[tokio::test]
async fn a_claim_that_cuts_off_what_was_published_meanwhile_is_taken_away_again() {
    let store = memory();
    let mut first = Writer::new(&store).await;
    let base = first.commit(vec![], Special::default()).await;
    let plan = Plan::new();
    let slow: Store = Arc::new(Faulty::new(store.clone(), plan.clone()));
    let volume = reopen(&slow, no_cache()).await;
    plan.add(Rule {
        on: Some(Operation::PutIf),
        skip: 1,
        times: 1,
        fault: Fault::Hang,
    });
    let (session, late) = (SessionId::random(), clock(200));
    let claim = volume.claim(session, "there", Some(&base), &[], LEASE, &*late);
    let publish = async {
        while plan.fired() == 0 {
            tokio::task::yield_now().await;
        }
        let published = first.commit(vec![], Special::default()).await;
        first.writership.confirm().await.unwrap();
        plan.release();
        published
    };
    let (claimed, published) = futures::join!(claim, publish);
    assert!(matches!(claimed, Err(Error::Busy { .. })), "{claimed:?}");
    assert_eq!(volume.head().await.unwrap().unwrap().tag, published.tag);
    first.writership.verify().await.unwrap();
    let next = volume.claim(
        SessionId::random(),
        "there",
        Some(&published),
        &[],
        LEASE,
        &*late,
    );
    assert!(next.await.is_ok());
}

#[tokio::test]
async fn a_base_in_the_spool_must_go_on_from_where_the_store_stands_and_not_only_be_ahead_by_number()
 {
    let store = memory();
    let mut first = Writer::new(&store).await;
    let seen = first.commit(vec![], Special::default()).await;
    let mut spooled = seen.clone();
    spooled.commit.name.seq.0 += 2;
    spooled.tag.0[0] ^= 1;
    let head = first.commit(vec![], Special::default()).await;
    first.writership.release().await.unwrap();
    let claim = async |heads: &[Tag]| {
        let (session, clock) = (SessionId::random(), clock(1));
        let base = Some(&spooled);
        let claimed = first
            .volume
            .claim(session, "there", base, heads, LEASE, &*clock);
        claimed.await
    };
    let forks = claim(&[seen.tag, spooled.tag]).await;
    assert!(matches!(forks, Err(Error::Busy { .. })));
    assert!(claim(&[seen.tag, head.tag, spooled.tag]).await.is_ok());
}

#[tokio::test]
async fn a_claim_of_the_same_process_does_not_fence_it_and_another_does() {
    let store = memory();
    let first = Writer::new(&store).await;
    let session = SessionId::random();
    first.writership.will_claim_as(session);
    let volume = &first.volume;
    volume
        .claim(session, "here", None, &[], LEASE, &*clock(1))
        .await
        .unwrap();
    assert!(first.writership.verify().await.is_ok());
    assert!(first.writership.renew(&*clock(2)).await.is_ok());
    claim_from_nothing(volume, "here", &clock(3)).await.unwrap();
    let fenced = first.writership.verify().await;
    assert!(matches!(fenced, Err(Error::Fenced(3))));
}

/// Reads what stands under `key` with each bit of each byte's turn flipped.
async fn with_each_flipped(store: &Store, key: &ObjectKey, mut check: impl AsyncFnMut(usize)) {
    let (whole, _) = store.get(key, 1 << 20).await.unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        store.put(key, Body::Bytes(bytes.into())).await.unwrap();
        check(at).await;
    }
    store.put(key, Body::Bytes(whole)).await.unwrap();
}

#[tokio::test]
async fn no_flipped_bit_of_a_lease_or_claim_goes_unnoticed() {
    let store = memory();
    let first = Writer::new(&store).await;
    let claims = &first.volume.claims;
    let lease = layout::lease(first.volume.info().id);
    with_each_flipped(&store, &lease, async |at| {
        let read = claims.read_lease().await;
        let named = matches!(read, Err(Error::Damaged { object, .. }) if object == lease);
        assert!(named, "byte {at}");
        // Nobody starts on top of a lease that cannot be read...
        let other = claim_from_nothing(&first.volume, "there", &clock(99)).await;
        assert!(matches!(other, Err(Error::Damaged { .. })), "byte {at}");
    })
    .await;
    let claim = layout::claim(first.volume.info().id, &first.writership.claim);
    with_each_flipped(&store, &claim, async |at| {
        let read = claims.read(&first.writership.claim).await;
        let named = matches!(read, Err(Error::Damaged { object, .. }) if object == claim);
        assert!(named, "byte {at}");
    })
    .await;
    // A claim is no lease, whatever name it is put under; and the proven writer makes the lease whole again.
    let (as_lease, _) = store.get(&claim, 1 << 20).await.unwrap();
    store.put(&lease, Body::Bytes(as_lease)).await.unwrap();
    assert!(claims.read_lease().await.is_err());
    first.writership.renew(&*clock(1)).await.unwrap();
    assert!(claims.read_lease().await.unwrap().is_some());
}

/// A damaged lease kept also the machine out that had written the volume all the time.
#[tokio::test]
async fn a_damaged_lease_keeps_nobody_out_but_another_machine() {
    let store = memory();
    let first = Writer::new(&store).await;
    let (volume, claims) = (&first.volume, &first.volume.claims);
    let lease = layout::lease(volume.info().id);
    let spoil = || async {
        let spoilt = Body::Bytes("spoilt".into());
        store.put(&lease, spoilt).await.unwrap();
    };
    spoil().await;
    let other = claim_from_nothing(volume, "there", &clock(99)).await;
    let told = other.unwrap_err().to_string();
    assert!(
        told.contains("here has claimed") && told.contains("delete this"),
        "{told}"
    );
    let ours = claim_from_nothing(volume, "here", &clock(1)).await.unwrap();
    // One is left to whoever may have written the lease that is gone.
    assert_eq!(ours.generation(), Generation(3));
    let (held, _) = claims.read_lease().await.unwrap().unwrap();
    assert_eq!(held.session, ours.session());
    // As the message says.
    spoil().await;
    store.delete(&lease).await.unwrap();
    claim_from_nothing(volume, "there", &clock(99))
        .await
        .unwrap();
}

#[tokio::test]
async fn while_the_lease_is_ours_a_commit_is_confirmed_by_one_get() {
    let (store, meter) = metered(&memory());
    let mut first = Writer::new(&store).await;
    first.commit(vec![], Special::default()).await;
    first.writership.renew(&*clock(1)).await.unwrap();
    let asked = || (meter.requests(), meter.usage(Operation::Get).requests);
    let (all, gets) = asked();
    first.writership.confirm().await.unwrap();
    assert_eq!(asked(), (all + 1, gets + 1));
}

#[tokio::test]
async fn a_lease_that_another_has_taken_or_damaged_confirms_nothing_by_itself() {
    let store = memory();
    let first = Writer::new(&store).await;
    let lease = layout::lease(first.volume.info().id);
    store
        .put(&lease, Body::Bytes("spoilt".into()))
        .await
        .unwrap();
    first.writership.confirm().await.unwrap();
    store.delete(&lease).await.unwrap();
    first.writership.confirm().await.unwrap();
    claim_from_nothing(&first.volume, "there", &clock(61))
        .await
        .unwrap();
    let fenced = first.writership.confirm().await;
    assert!(matches!(fenced, Err(Error::Fenced(2))), "{fenced:?}");
}

/// He took the lease, we wrote ours over it since he had not claimed yet, and then he claimed: the lease says that it is ours.
#[tokio::test]
async fn a_lease_that_was_written_over_anothers_confirms_nothing_any_more() {
    let store = memory();
    let first = Writer::new(&store).await;
    let claims = &first.volume.claims;
    let (lease, version) = claims.read_lease().await.unwrap().unwrap();
    let his = Lease {
        generation: Generation(2),
        session: SessionId([1; 8]),
        owner: "there".into(),
        ..lease
    };
    claims.put_lease(&his, Some(version)).await.unwrap();
    first.writership.renew(&*clock(1)).await.unwrap();
    let (lease, _) = claims.read_lease().await.unwrap().unwrap();
    // The generation that he has taken is not given out again.
    let ours = (first.writership.session(), his.generation);
    assert_eq!((lease.session, lease.generation), ours);
    let claim = Claim {
        name: ClaimName {
            generation: his.generation,
            era: Era(0),
            base_seq: Seq(0),
            session: his.session,
        },
        base_tag: None,
        made: Stamp(TEN),
        owner: his.owner,
        adopted: Vec::new(),
    };
    claims.put(&claim).await.unwrap();
    let fenced = first.writership.confirm().await;
    assert!(matches!(fenced, Err(Error::Fenced(2))), "{fenced:?}");
}

/// One publishes, and perhaps renews its lease before, while another takes the volume whose clock says that the lease has run out:
/// they take turns request by request, one of them so many turns behind the other. Says how often the lease alone confirmed the commit.
async fn publishing_against_a_claim(ignores_conditions: bool) -> usize {
    let mut confirmed = 0;
    for (behind, renews) in (-16..16_i32).flat_map(|n| [(n, false), (n, true)]) {
        let inner = memory();
        drop(crate::repo::fixture::volume(&inner).await);
        let store: Store = Arc::new(TakingTurns {
            inner,
            ignores_conditions,
        });
        let volume = reopen(&store, no_cache()).await;
        let mut first = Writer::claim(&volume, &clock(0), "here").await.unwrap();
        let base = first.commit(vec![], Special::default()).await;
        let wait = async |turns: i32| {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        let publish = async {
            wait(behind).await;
            if renews && first.writership.renew(&*clock(40)).await.is_err() {
                return None;
            }
            let commit = first.commit(vec![], Special::default()).await;
            let spoke = first.writership.lease_speaks_for_us().await.unwrap();
            spoke.then_some(commit.tag)
        };
        let claim = async {
            wait(-behind).await;
            let session = SessionId::random();
            let base = Some(&base);
            let late = clock(200);
            volume
                .claim(session, "there", base, &[], LEASE, &*late)
                .await
        };
        let (published, claimed) = futures::join!(publish, claim);
        if let Some(tag) = published {
            confirmed += 1;
            let head = volume.head().await.unwrap().unwrap();
            assert_eq!(head.tag, tag, "{behind} turns, {renews}: {claimed:?}");
        }
    }
    confirmed
}

#[tokio::test]
async fn a_commit_that_the_lease_confirms_is_history_whoever_claims_meanwhile() {
    let confirmed = publishing_against_a_claim(false).await;
    assert!((1..64).contains(&confirmed), "{confirmed}");
}

#[tokio::test]
async fn where_conditions_are_ignored_the_lease_confirms_nothing() {
    assert_eq!(publishing_against_a_claim(true).await, 0);
}
