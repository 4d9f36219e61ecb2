//! What the flow does when the open epoch has changed more than can be remembered, so that all of it is forgotten and scanned again.

use std::sync::Arc;

use super::*;

/// Everything that the store is asked to take fails, until the plan is cleared.
fn away() -> Rule {
    Rule {
        on: Some(Operation::PutIf),
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    }
}

/// A new disk image had been copied ahead when a program discarded most of it, and the store was away for so long that the
/// changes could not be kept in memory. The scan that followed marked what the image still had: no commit has anything where its
/// holes are. But the copies made before lay beneath, and an exact snapshot showed old bytes where there were zeros, for good,
/// since size and times were right. Copies now go with the changes that they were made of.
#[tokio::test(flavor = "multi_thread")]
async fn copies_made_before_the_changes_were_forgotten_are_forgotten_with_them() {
    const LEN: usize = 3 << 20;
    let mut world = World::new().await;
    world.changes_bytes = 64 << 10;
    // What is copied first fills the spool, and nothing more is copied or sealed before it is gone.
    let eager = Options {
        copy_ahead_bytes: 0,
        spool_bytes: 2 << 20,
        ..options(&world)
    };
    let writer = world.start_with(eager, Arc::new(SystemClock)).await;
    world.plan.add(away());
    writer.create("image", &noise(20, LEN));
    while world.plan.fired() == 0 {
        tokio::task::yield_now().await;
    }
    writer.truncate("image", 0);
    writer.truncate("image", LEN as u64);
    writer.write("image", 0, b"front");
    writer.crowd();
    writer.look_at_all();
    assert!(!writer.epochs.is_owing());
    world.plan.clear();
    let mark = writer.sync().await;
    assert!(world.snapshot(&mark).await == writer.now());
    writer.stop().await;
}
