//! What is repeated, how often, and what becomes of conditional writes whose answers are lost.

use std::sync::Arc;

use super::*;
use crate::store::fault::{Fault, Faulty, Plan, Rule};
use crate::store::memory::Memory;
use crate::store::metered::Operation;

const POLICY: Policy = Policy {
    attempts_max: 4,
    first_pause: Duration::ZERO,
    pause_max: Duration::ZERO,
    patience: Duration::MAX,
};

fn key() -> ObjectKey {
    ObjectKey::new("a")
}

fn body(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

fn retrying(plan: &Arc<Plan>) -> (Store, Retry) {
    let memory: Store = Arc::new(Memory::new());
    let faulty = Faulty::new(Arc::clone(&memory), Arc::clone(plan));
    (memory, Retry::new(Arc::new(faulty), POLICY))
}

fn strike(on: Operation, times: u64, fault: Fault) -> Arc<Plan> {
    let plan = Plan::new();
    plan.add(Rule {
        on: Some(on),
        skip: 0,
        times,
        fault,
    });
    plan
}

#[tokio::test]
async fn passing_trouble_is_outlasted_and_attempts_are_bounded() {
    let plan = strike(Operation::Put, 3, Fault::FailBefore(Kind::Retry));
    let (_, store) = retrying(&plan);
    store.put(&key(), body("x")).await.unwrap();
    assert_eq!(plan.seen(), 4);

    let plan = strike(Operation::Put, u64::MAX, Fault::FailBefore(Kind::Retry));
    let (_, store) = retrying(&plan);
    assert_eq!(
        store.put(&key(), body("x")).await.unwrap_err().kind,
        Kind::Retry
    );
    assert_eq!(plan.seen(), 4);
}

/// A store that hung was asked six times, each for ten seconds at least, before anybody heard that something was wrong.
#[tokio::test]
async fn when_patience_is_at_its_end_there_is_one_more_attempt_and_no_other() {
    let plan = strike(Operation::Put, u64::MAX, Fault::FailBefore(Kind::Retry));
    let faulty = Faulty::new(Arc::new(Memory::new()), Arc::clone(&plan));
    let patience = Duration::ZERO;
    let store = Retry::new(Arc::new(faulty), Policy { patience, ..POLICY });
    let failed = store.put(&key(), body("x")).await.unwrap_err();
    assert_eq!((failed.kind, plan.seen()), (Kind::Retry, 2));

    // A first attempt that took all the time there was, on a connection that was dead.
    let once = strike(Operation::Put, 1, Fault::FailBefore(Kind::Retry));
    let faulty = Faulty::new(Arc::new(Memory::new()), Arc::clone(&once));
    let store = Retry::new(Arc::new(faulty), Policy { patience, ..POLICY });
    store.put(&key(), body("x")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_help_is_not_repeated() {
    for kind in [
        Kind::Missing,
        Kind::Denied,
        Kind::Corrupt,
        Kind::Invalid,
        Kind::Full,
    ] {
        let plan = strike(Operation::GetRange, u64::MAX, Fault::FailBefore(kind));
        let (_, store) = retrying(&plan);
        assert_eq!(store.get_range(&key(), 0..1).await.unwrap_err().kind, kind);
        assert_eq!(plan.seen(), 1);
    }
}

#[tokio::test]
async fn a_conditional_write_whose_answer_was_lost_is_known_as_done() {
    let plan = strike(Operation::PutIf, 1, Fault::FailAfter(Kind::Retry));
    let (_, store) = retrying(&plan);
    let outcome = store.put_if(&key(), body("mine"), Condition::Absent).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);

    let plan = strike(Operation::PutIf, 1, Fault::FailAfter(Kind::Retry));
    let (memory, store) = retrying(&plan);
    memory.put(&key(), body("old")).await.unwrap();
    let (_, version) = memory.get(&key(), 9).await.unwrap();
    let outcome = store
        .put_if(&key(), body("new"), Condition::Is(version))
        .await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_stands_if_another_writer_was_there() {
    for other in ["else", "somebody else, and longer"] {
        let plan = strike(Operation::PutIf, 1, Fault::FailBefore(Kind::Retry));
        let (memory, store) = retrying(&plan);
        memory.put(&key(), body(other)).await.unwrap();
        let outcome = store.put_if(&key(), body("mine"), Condition::Absent).await;
        assert_eq!(outcome.unwrap(), PutOutcome::Refused);
    }
}

/// Where each second request failed, the write was sent again before each look at what lies there, and it was always the look that failed: a
/// volume could not be claimed.
#[tokio::test]
async fn what_lies_there_after_a_lost_answer_is_asked_for_again_without_another_write() {
    let plan = strike(Operation::PutIf, 1, Fault::FailAfter(Kind::Retry));
    plan.add(Rule {
        on: Some(Operation::Get),
        skip: 0,
        times: 2,
        fault: Fault::FailBefore(Kind::Retry),
    });
    let (_, store) = retrying(&plan);
    let outcome = store.put_if(&key(), body("mine"), Condition::Absent).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    // Two writes, of which the second was refused, and three looks.
    assert_eq!(plan.seen(), 5);
}

/// Bytes that equal ours are only taken for ours after an attempt of our own may have put them there.
#[tokio::test]
async fn a_plain_refusal_is_never_doubted() {
    let plan = Plan::new();
    let (memory, store) = retrying(&plan);
    memory.put(&key(), body("same")).await.unwrap();
    let outcome = store.put_if(&key(), body("same"), Condition::Absent).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Refused);
    assert_eq!(plan.seen(), 1);
}

#[test]
fn pauses_without_end_grow_up_to_twice_their_bound_and_differ() {
    let (first, max) = (Duration::from_secs(1), Duration::from_secs(30));
    let all: Vec<Duration> = pauses(first, max).take(200).collect();
    assert_eq!(all.len(), 200);
    assert!((first..=2 * first).contains(&all[0]), "{:?}", all[0]);
    let later = &all[5..];
    assert!(later.iter().all(|pause| (max..=2 * max).contains(pause)));
    assert!(
        later.iter().any(|pause| *pause != later[0]),
        "no chance in them"
    );
}
