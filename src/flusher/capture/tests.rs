//! What is read of a file, by what has happened to it.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is what is meant"
)]

use super::*;
use crate::clock::Timespec;
use crate::epoch::Attributes;
use crate::flusher::entries::tests::{inode, stat};
use crate::source::{Handle, Node};

fn touched(size: u64, fresh: bool, dirty: &[Range<u64>]) -> Touched {
    let mut stat = stat(Kind::File, size, Timespec::default());
    stat.blocks = size.div_ceil(512);
    Touched {
        node: Node {
            id: FileId(7),
            handle: Handle(Box::new([1])),
        },
        fresh,
        dirty: dirty.to_vec(),
        attributes: Some(Box::new(Attributes {
            stat,
            xattrs: Vec::new(),
            target: Vec::new(),
        })),
        copied_front: 0,
        left_out: false,
    }
}

#[test]
fn a_new_file_is_cut_by_content_and_needs_no_holes() {
    let plan = plan(&touched(5000, true, &[0..8192]), None, 0, false).unwrap();
    assert!(plan.by_content && !plan.reset && !plan.covers && !plan.cut_off && !plan.sparse);
    assert_eq!(plan.ranges, [0..5000]);
}

#[test]
fn a_file_truncated_and_written_again_forgets_what_it_held() {
    let plan = plan(&touched(10, true, &[0..8192]), Some(&inode(8192)), 0, false).unwrap();
    assert!(plan.by_content && plan.reset && plan.cut_off);
}

#[test]
fn an_overwritten_page_is_an_increment() {
    let plan = plan(
        &touched(20_000, false, &[4096..8192]),
        Some(&inode(20_000)),
        0,
        false,
    )
    .unwrap();
    assert!(!plan.by_content && !plan.reset && plan.covers && !plan.cut_off);
    assert_eq!(plan.ranges, [4096..8192]);
}

#[test]
fn a_file_rewritten_as_a_whole_is_cut_by_content_unless_it_is_one_written_in_place() {
    let whole = touched(20_000, false, &[0..20_480]);
    assert!(
        plan(&whole, Some(&inode(20_000)), 0, false)
            .unwrap()
            .by_content
    );
    let mut in_place = inode(20_000);
    in_place.in_place = true;
    assert!(!plan(&whole, Some(&in_place), 0, false).unwrap().by_content);
}

#[test]
fn the_rest_of_a_file_that_was_copied_ahead_from_its_beginning_is_cut_by_content_too() {
    let rest = |copied_front| Touched {
        copied_front,
        ..touched(20_000, false, &[8192..20_480])
    };
    let old = inode(20_000);
    assert!(
        plan(&rest(8192), Some(&old), 8192, true)
            .unwrap()
            .by_content
    );
    assert!(
        !plan(&rest(4096), Some(&old), 8192, true)
            .unwrap()
            .by_content
    );
}

#[test]
fn a_truncated_file_is_cut_off_even_where_only_a_copy_ahead_reached() {
    let cut = touched(100, false, &[4096..8192]);
    assert!(plan(&cut, Some(&inode(8192)), 0, false).unwrap().cut_off);
    assert!(plan(&cut, Some(&inode(100)), 8192, true).unwrap().cut_off);
}

#[test]
fn untouched_contents_and_what_is_no_file_need_no_plan() {
    assert_eq!(
        plan(&touched(100, false, &[]), Some(&inode(100)), 0, false),
        None
    );
    let mut dir = touched(100, false, std::slice::from_ref(&(0..100)));
    dir.attributes.as_mut().unwrap().stat.kind = Kind::Dir;
    assert_eq!(plan(&dir, None, 0, false), None);
    dir.attributes = None;
    assert_eq!(plan(&dir, None, 0, false), None);
}

/// An encrypted file whose key had been taken away could be seen and not opened, which no list of errors foresaw: every seal failed
/// because of it, and nothing of the whole source was backed up any more. Now whatever a file meets with twice in a row counts against
/// that file, unless the machine is to blame.
#[test]
fn no_error_of_one_file_keeps_all_others_out_for_ever() {
    let left_out = |errno, again| is_to_be_left_out(&io::Error::from_raw_os_error(errno), again);
    for errno in [libc::EACCES, libc::EPERM] {
        assert!(left_out(errno, false));
    }
    for errno in [
        libc::EBADMSG,
        libc::EILSEQ,
        libc::EIO,
        libc::EKEYREJECTED,
        libc::ENODATA,
        libc::ENOKEY,
        libc::EUCLEAN,
    ] {
        assert!(!left_out(errno, false) && left_out(errno, true), "{errno}");
    }
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ESTALE] {
        assert!(!left_out(errno, true), "{errno} is not the file's fault");
    }
    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert!(!is_to_be_left_out(&cut, true), "it was cut meanwhile");
}
