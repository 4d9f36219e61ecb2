//! The plan: few GETs, none too large, every frame in exactly one. (Getting them is tested with the rest of `blocks`.)

use super::*;
use crate::format::entry::{Address, Hint};
use crate::id::{BlockClass, BlockId, FrameNo, SessionId};

fn wanted(object: &str, frame: u32, offset: u64, len: u32) -> (ObjectKey, Place) {
    let block = BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId([0; 8]),
        number: 0,
    };
    let at = Address {
        block,
        frame: FrameNo(frame),
        inner: 0,
    };
    let hint = Hint {
        offset,
        len,
        commit: None,
    };
    (ObjectKey::new(object), Place { at, hint })
}

#[test]
fn neighbours_share_a_get_whatever_their_order() {
    let gets = plan(vec![
        wanted("a", 2, 3000, 1000),
        wanted("a", 0, 64, 1000),
        wanted("b", 0, 64, 1000),
        wanted("a", 1, 1064, 1000),
    ]);
    let found: Vec<_> = gets
        .iter()
        .map(|g| (g.object.as_str(), g.range.clone()))
        .collect();
    assert_eq!(found, [("a", 64..4000), ("b", 64..1064)]);
    assert_eq!(gets[0].places.len(), 3);
}

#[test]
fn far_apart_is_apart_and_no_get_is_too_large() {
    let mib = 1 << 20;
    let frames = (0..20).map(|n| wanted("a", n, u64::from(n) * mib, mib as u32));
    let gets = plan(frames.collect());
    assert_eq!(gets.len(), 5);
    assert!(
        gets.iter()
            .all(|get| get.range.end - get.range.start <= GET_LEN_MAX)
    );
    let gap = plan(vec![
        wanted("a", 0, 0, 10),
        wanted("a", 1, 11 + GAP_MAX, 10),
    ]);
    assert_eq!(gap.len(), 2);
}

#[test]
fn a_frame_asked_for_many_times_is_fetched_once() {
    let gets = plan(vec![wanted("a", 0, 64, 100); 50]);
    assert_eq!(gets.len(), 1);
    assert_eq!(gets[0].places.len(), 1);
}

#[test]
fn hints_beyond_all_numbers_are_passed_over() {
    assert_eq!(plan(vec![wanted("a", 0, u64::MAX, 100)]), vec![]);
}
