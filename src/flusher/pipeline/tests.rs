//! The stages side by side.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::*;
use crate::id::{BlockClass, SessionId};

/// Long enough for a worker to hand on what it should keep.
const A_WHILE: Duration = Duration::from_millis(200);

fn empty(order: u64) -> Batch {
    let block = BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId([1; 8]),
        number: 0,
    };
    Batch {
        order,
        block,
        first: FrameNo(0),
        frames: Vec::new(),
        last: false,
    }
}

/// One batch took long to compress, and while its worker was at it the others handed all that followed to the writer, which can only
/// write in order: it kept hundreds of MiB, and the more the slower the compression was. They now wait for their turn.
#[test]
fn workers_do_not_run_far_ahead_of_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let parts = PipelineParts {
        keys: VolumeKeys::for_tests(),
        compression: Compression::Off,
        spool: Spool::open(dir.path()).unwrap().0,
        gives_way: false,
    };
    let (batches, queued) = sync_channel(10);
    let (encrypted, arriving) = sync_channel(10);
    let (queued, turns) = (Mutex::new(queued), Turns::default());
    // Another worker has the first one.
    for order in 1..10 {
        batches.send(empty(order)).unwrap();
    }
    drop(batches);
    std::thread::scope(|scope| {
        let _however_it_ends = EndOfTurns(&turns);
        scope.spawn(|| work(&parts, &queued, &encrypted, &turns));
        let next = || arriving.recv_timeout(A_WHILE).map(|batch| batch.order);
        let handed_on = |orders: std::ops::RangeInclusive<u64>| {
            for order in orders {
                assert_eq!(arriving.recv().unwrap().order, order);
            }
        };
        handed_on(1..=EARLY_BATCHES);
        let ahead = next();
        turns.come_to(1);
        assert_eq!(ahead, Err(RecvTimeoutError::Timeout));
        handed_on(EARLY_BATCHES + 1..=EARLY_BATCHES + 1);
        // A stage that ends lets everybody go, so that nobody waits for a batch that was lost.
        drop(EndOfTurns(&turns));
        handed_on(EARLY_BATCHES + 2..=9);
    });
}
