//! Each fault does what it says, to the request it is meant for, as often as it is meant to.

use super::*;
use crate::store::memory::Memory;

fn key() -> ObjectKey {
    ObjectKey::new("a")
}

fn body(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

fn faulty(plan: &Arc<Plan>) -> Arc<Faulty> {
    Arc::new(Faulty::new(Arc::new(Memory::new()), Arc::clone(plan)))
}

#[tokio::test]
async fn before_and_after_differ_in_the_effect() {
    let plan = Plan::fail_nth(0, Fault::FailBefore(Kind::Retry));
    let store = faulty(&plan);
    store.put(&key(), body("x")).await.unwrap_err();
    assert_eq!(store.head(&key()).await.unwrap(), None);

    let plan = Plan::fail_nth(0, Fault::FailAfter(Kind::Retry));
    let store = faulty(&plan);
    let error = store.put(&key(), body("x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Retry);
    assert_eq!(store.head(&key()).await.unwrap(), Some(1));
    assert_eq!((plan.seen(), plan.fired()), (2, 1));
}

#[tokio::test]
async fn rules_count_their_own_requests() {
    let plan = Plan::new();
    plan.add(Rule {
        on: Some(Operation::Head),
        skip: 1,
        times: 2,
        fault: Fault::FailBefore(Kind::Denied),
    });
    let store = faulty(&plan);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        store.put(&key(), body("x")).await.unwrap();
        outcomes.push(store.head(&key()).await.is_ok());
    }
    assert_eq!(outcomes, [true, false, false, true]);
}

#[tokio::test]
async fn bodies_are_cut_and_flipped_on_the_way_out_and_in() {
    let plan = Plan::new();
    let store = faulty(&plan);
    let strike = |on, fault| {
        plan.add(Rule {
            on: Some(on),
            skip: 0,
            times: 1,
            fault,
        })
    };
    store.put(&key(), body("abcd")).await.unwrap();
    strike(Operation::GetRange, Fault::CutBody(2));
    assert_eq!(&store.get_range(&key(), 0..4).await.unwrap()[..], b"ab");
    strike(Operation::Get, Fault::FlipBit(8 + 32));
    assert_eq!(&store.get(&key(), 9).await.unwrap().0[..], b"accd");
    strike(Operation::Put, Fault::CutBody(1));
    store.put(&key(), body("abcd")).await.unwrap();
    assert_eq!(store.head(&key()).await.unwrap(), Some(1));
    strike(Operation::Put, Fault::FlipBit(0));
    store.put(&key(), body("")).await.unwrap();
    assert_eq!(store.head(&key()).await.unwrap(), Some(0));
}

#[tokio::test]
async fn pretended_writes_leave_nothing() {
    let plan = Plan::fail_nth(0, Fault::Pretend);
    let store = faulty(&plan);
    let outcome = store.put_if(&key(), body("x"), Condition::Absent).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    assert_eq!(store.head(&key()).await.unwrap(), None);
}

#[tokio::test]
async fn a_request_that_hangs_goes_on_when_released() {
    let plan = Plan::fail_nth(0, Fault::Hang);
    let store = faulty(&plan);
    let hanging = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(&key(), body("x")).await }
    });
    while plan.fired() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.head(&key()).await.unwrap(), None);
    plan.release();
    hanging.await.unwrap().unwrap();
    assert_eq!(store.head(&key()).await.unwrap(), Some(1));
}

#[tokio::test]
async fn an_ignored_condition_writes_over_what_stands_there() {
    let plan = Plan::new();
    let store = faulty(&plan);
    store.put(&key(), body("x")).await.unwrap();
    let absent = async || store.put_if(&key(), body("yy"), Condition::Absent).await;
    assert_eq!(absent().await.unwrap(), PutOutcome::Refused);
    plan.add(Rule {
        on: Some(Operation::PutIf),
        skip: 0,
        times: 1,
        fault: Fault::IgnoreCondition,
    });
    assert_eq!(absent().await.unwrap(), PutOutcome::Done);
    assert_eq!(store.head(&key()).await.unwrap(), Some(2));
}
