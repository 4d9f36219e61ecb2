//! Commits of writers that were replaced: which of them are history, and what a forged, a lost or a second claim of one generation
//! can do about it (FORMAT.md, "Which commits are history").

use super::*;
use crate::store::fault::{Fault, Faulty, Plan, Rule};
use crate::store::metered::Operation;

/// Two writers publish from one base; the later claim has one answer, for every way to ask.
#[tokio::test]
async fn what_a_replaced_writer_published_beyond_the_later_claim_is_not_history() {
    let store = memory();
    let mut old = a_commit_a_minute(&store, 2).await;
    let volume = reopen(&store, no_cache()).await;
    // The lease has run out; another machine takes over from commit 2 on.
    let later = Stamp(TEN + MINUTE + LEASE.as_millis() as u64 + 1);
    let clock = Arc::new(ManualClock::new(later));
    let mut new = Writer::claim(&volume, &clock, "there").await.unwrap();
    // The old one wakes up and publishes with the later time and the higher number.
    old.clock.set(Stamp(TEN + 60 * MINUTE));
    let lost = old.commit(vec![], label("lost")).await;
    old.commit(vec![], label("lost too")).await;
    assert_eq!(seq_of(&volume, Point::Latest).await, 2);
    let kept = new.commit(vec![], label("kept")).await;

    let head = volume.head().await.unwrap().unwrap();
    assert_eq!(head.tag, kept.tag);
    let at = volume
        .find(&Point::At(Stamp(TEN + 90 * MINUTE)))
        .await
        .unwrap();
    assert_eq!(at.tag, kept.tag);
    assert_eq!(seq_of(&volume, Point::Named("kept".into())).await, 3);
    refusal(&volume, Point::Named("lost".into())).await;
    refusal(&volume, Point::Named(snapshot_id(&lost.tag))).await;
    assert!(matches!(
        old.writership.verify().await,
        Err(Error::Fenced(2))
    ));
}

#[tokio::test]
async fn a_claim_that_anybody_could_have_named_cuts_nothing_off() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 3).await;
    let forged = ClaimName {
        generation: Generation(9),
        era: Era(0),
        base_seq: Seq(1),
        session: SessionId([9; 8]),
    };
    let key = layout::claim(writer.volume.info().id, &forged);
    store
        .put(&key, Body::Bytes("anything".into()))
        .await
        .unwrap();
    let head = writer.volume.head().await;
    assert!(matches!(head, Err(Error::Damaged { object, .. }) if object == key));
    let verified = writer.writership.verify().await;
    assert!(matches!(verified, Err(Error::Damaged { object, .. }) if object == key));
    // What it does not touch stays readable.
    assert_eq!(seq_of(&writer.volume, Point::At(Stamp(TEN))).await, 1);

    // An honest claim under another name is no claim either.
    let honest = writer.volume.claims.lineage().await.unwrap();
    let mine = honest.judge(&writer.head.as_ref().unwrap().commit.name);
    assert!(matches!(mine, Verdict::CutOff { by, .. } if by == forged));
    let true_name = ClaimName {
        generation: Generation(1),
        base_seq: Seq(0),
        session: writer.writership.session(),
        ..forged
    };
    let true_key = layout::claim(writer.volume.info().id, &true_name);
    let (bytes, _) = store.get(&true_key, 1 << 20).await.unwrap();
    store.put(&key, Body::Bytes(bytes)).await.unwrap();
    assert!(matches!(
        writer.volume.head().await,
        Err(Error::Damaged { .. })
    ));
}

#[tokio::test]
async fn a_claim_forged_for_a_replaced_session_does_not_bring_its_commits_back() {
    let store = memory();
    let mut old = a_commit_a_minute(&store, 1).await;
    let volume = reopen(&store, no_cache()).await;
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 10 * MINUTE)));
    Writer::claim(&volume, &clock, "there").await.unwrap();
    old.clock.set(Stamp(TEN + 60 * MINUTE));
    old.commit(vec![], label("lost")).await;
    let forged = ClaimName {
        generation: Generation(9),
        era: Era(0),
        base_seq: Seq(100),
        session: old.writership.session(),
    };
    let key = layout::claim(volume.info().id, &forged);
    store
        .put(&key, Body::Bytes("anything".into()))
        .await
        .unwrap();
    assert!(matches!(volume.head().await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn a_lost_claim_does_not_take_its_commits_away() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 3).await;
    let prefix = layout::claims_prefix(writer.volume.info().id);
    for key in crate::repo::listing::all(&store, &prefix).await.unwrap() {
        store.delete(&key).await.unwrap();
    }
    assert_eq!(seq_of(&writer.volume, Point::Latest).await, 3);
    assert_eq!(
        seq_of(&writer.volume, Point::At(Stamp(TEN + MINUTE))).await,
        2
    );
}

/// Two writers that claimed the same generation at the same time, in a store that knows no conditions.
struct Twins {
    store: Store,
    volume: Arc<Volume>,
    /// Has claimed first and published two commits after the other's claim. Its claim is earlier or later than the other's by the order of their names.
    quick: Writer,
    slow: Result<Writer, Error>,
}

/// Both go on from the third commit, as these sessions; the slow one is held up before it puts its claim.
async fn twins(quick: SessionId, slow: SessionId) -> Twins {
    let store = memory();
    let before = a_commit_a_minute(&store, 3).await;
    before.writership.release().await.unwrap();
    let head = before.head.clone();
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 3 * MINUTE)));
    // The first conditional write is that of the lease, the second that of the claim.
    let (quick_store, quick_plan) = held_up(&store, 0);
    let (slow_store, slow_plan) = held_up(&store, 1);
    // Opened beforehand, so that what follows comes in one order.
    let quick_volume = reopen(&quick_store, no_cache()).await;
    let slow_volume = reopen(&slow_store, no_cache()).await;
    let claim = |session: SessionId, volume| {
        Writer::claim_as(session, volume, &clock, "here", head.clone())
    };
    let act = async {
        hung(&quick_plan).await;
        hung(&slow_plan).await;
        quick_plan.release();
    };
    let quick = async {
        let quick = claim(quick, &quick_volume).await.unwrap();
        slow_plan.release();
        quick
    };
    let (mut quick, slow, ()) = futures::join!(quick, claim(slow, &slow_volume), act);
    quick.commit(vec![], label("quick")).await;
    quick.commit(vec![], label("quick too")).await;
    assert_eq!(quick.writership.generation(), Generation(2));
    let volume = reopen(&store, no_cache()).await;
    Twins {
        store,
        volume,
        quick,
        slow,
    }
}

/// A store that ignores conditions, and holds up the conditional write that comes after `skip` others.
fn held_up(store: &Store, skip: u64) -> (Store, Arc<Plan>) {
    let rule = |skip, times, fault| Rule {
        on: Some(Operation::PutIf),
        skip,
        times,
        fault,
    };
    let (ignoring, hanging) = (Plan::new(), Plan::new());
    ignoring.add(rule(0, u64::MAX, Fault::IgnoreCondition));
    hanging.add(rule(skip, 1, Fault::Hang));
    let store = Arc::new(Faulty::new(store.clone(), ignoring));
    (Arc::new(Faulty::new(store, hanging.clone())), hanging)
}

async fn hung(plan: &Plan) {
    while plan.fired() == 0 {
        tokio::task::yield_now().await;
    }
}

const LOW: SessionId = SessionId([1; 8]);
const HIGH: SessionId = SessionId([9; 8]);

#[tokio::test]
async fn of_two_claims_of_one_generation_the_one_whose_name_sorts_first_has_the_history() {
    // The later one by name took the volume, and the other finds out when it looks.
    let twins = twins(HIGH, LOW).await;
    let mut slow = twins.slow.unwrap();
    assert_eq!(slow.writership.generation(), Generation(2));
    assert_eq!(seq_of(&twins.volume, Point::Latest).await, 3);
    slow.commit(vec![], label("slow")).await;
    assert_eq!(seq_of(&twins.volume, Point::Latest).await, 4);
    assert_eq!(seq_of(&twins.volume, Point::Named("slow".into())).await, 4);
    refusal(&twins.volume, Point::Named("quick".into())).await;
    let verified = twins.quick.writership.verify().await;
    assert!(matches!(verified, Err(Error::Fenced(2))));
    slow.writership.verify().await.unwrap();
}

#[tokio::test]
async fn of_two_claims_of_one_generation_the_earlier_by_name_gives_way_and_cuts_nothing_off() {
    let twins = twins(LOW, HIGH).await;
    assert!(matches!(twins.slow, Err(Error::Busy { .. })));
    assert_eq!(seq_of(&twins.volume, Point::Latest).await, 5);
    twins.quick.writership.verify().await.unwrap();
}

/// The name of a claim that shares its generation decides its place, so that a made one would bring back what was cut off.
#[tokio::test]
async fn a_claim_forged_among_those_of_one_generation_is_found_out() {
    let twins = twins(HIGH, LOW).await;
    let forged = ClaimName {
        generation: Generation(2),
        era: Era(0),
        base_seq: Seq(0),
        session: HIGH,
    };
    let key = layout::claim(twins.volume.info().id, &forged);
    overwrite(&twins.store, &key, b"anything".to_vec()).await;
    let head = twins.volume.head().await;
    assert!(matches!(head, Err(Error::Damaged { object, .. }) if object == key));
}

#[tokio::test]
async fn where_one_of_two_claims_of_one_generation_has_gone_neither_answer_is_given() {
    let twins = twins(HIGH, LOW).await;
    let lost = twins.quick.head.as_ref().unwrap().commit.name;
    for key in
        crate::repo::listing::all(&twins.store, &layout::claims_prefix(twins.volume.info().id))
            .await
            .unwrap()
    {
        if key.as_str().ends_with(&HIGH.to_string()) {
            twins.store.delete(&key).await.unwrap();
        }
    }
    let head = twins.volume.head().await;
    let object = layout::commit(twins.volume.info().id, &lost);
    assert!(matches!(head, Err(Error::Damaged { object: named, .. }) if named == object));
}

/// Deleting the claim of the newest writer and making an earlier one for it must not pass its commits off as cut off.
#[tokio::test]
async fn a_claim_forged_to_be_earlier_hides_nothing_quietly() {
    let store = memory();
    let first = a_commit_a_minute(&store, 1).await;
    first.writership.release().await.unwrap();
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 2 * MINUTE)));
    let mut second = Writer::claim(&first.volume, &clock, "there").await.unwrap();
    second.commit(vec![], label("newest")).await;
    let volume = second.volume.info().id;
    let honest = ClaimName {
        generation: Generation(2),
        era: Era(0),
        base_seq: Seq(1),
        session: second.writership.session(),
    };
    store.delete(&layout::claim(volume, &honest)).await.unwrap();
    let forged = ClaimName {
        generation: Generation(0),
        ..honest
    };
    let key = layout::claim(volume, &forged);
    overwrite(&store, &key, b"anything".to_vec()).await;
    let head = reopen(&store, no_cache()).await.head().await;
    assert!(matches!(head, Err(Error::Damaged { object, .. }) if object == key));
}
