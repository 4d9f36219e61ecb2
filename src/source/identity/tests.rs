//! The identity map over several lives, and damaged.

use super::*;

fn handle(number: u8) -> Handle {
    Handle(vec![1, 0, 0, 0, number].into())
}

#[test]
fn a_handle_keeps_its_number_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let ids: Vec<_> = (0..100)
        .map(|n| map.number(&handle(n), FileId::ROOT).expect("numbered"))
        .collect();
    drop(map);
    let map = Identity::open(dir.path(), FileId(2)).expect("opens again");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(map.known(&handle(n as u8)).expect("read"), Some(*id));
        assert!(*id < map.next_id());
    }
    assert_eq!(map.known(&handle(200)).expect("read"), None);
}

#[test]
fn one_handle_gets_one_number_from_many_threads() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let all: Vec<Vec<FileId>> = std::thread::scope(|threads| {
        let numbering = || {
            (0..=255)
                .map(|n| map.number(&handle(n), FileId::ROOT).expect("numbered"))
                .collect()
        };
        let threads: Vec<_> = (0..4).map(|_| threads.spawn(numbering)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_bound_of_earlier_lives_is_not_raised_by_this_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(100)).expect("opens");
    assert_eq!(map.first_id(), FileId(100));
    map.number(&handle(1), FileId::ROOT).expect("numbered");
    map.adopt(FileId(1 << 30), &handle(2)).expect("adopted");
    assert_eq!(map.first_id(), FileId(100));
    let all = map.next_id();
    drop(map);
    let map = Identity::open(dir.path(), FileId(2)).expect("opens again");
    assert_eq!(map.first_id(), all);
}

#[test]
fn adopting_gives_a_number_back_but_never_changes_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    map.adopt(FileId(5000), &handle(1)).expect("adopted");
    map.adopt(FileId(5000), &handle(1))
        .expect("again is the same");
    assert_eq!(
        map.number(&handle(1), FileId::ROOT).expect("read"),
        FileId(5000)
    );
    let refused = map.adopt(FileId(5001), &handle(1)).expect_err("it has one");
    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    assert!(map.number(&handle(2), FileId::ROOT).expect("new") > FileId(5001));
}

#[test]
fn a_forgotten_handle_gets_a_new_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let before = map.number(&handle(1), FileId::ROOT).expect("numbered");
    map.forget_best_effort(before, &handle(1));
    assert_ne!(
        map.number(&handle(1), FileId::ROOT).expect("numbered"),
        before
    );
}

#[test]
fn a_damaged_map_is_set_aside_and_no_number_comes_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let before: Vec<_> = (0..50)
        .map(|n| map.number(&handle(n), FileId::ROOT).expect("numbered"))
        .collect();
    drop(map);
    let database = dir.path().join("handles");
    for file in std::fs::read_dir(&database).expect("listed") {
        let file = file.expect("an entry").path();
        if file.is_file() {
            let len = std::fs::metadata(&file).expect("stat").len();
            std::fs::write(&file, vec![0xa5; len as usize]).expect("overwritten");
        }
    }
    let map = Identity::open(dir.path(), FileId(2)).expect("opens in spite of it");
    assert!(dir.path().join("handles.damaged").exists());
    for n in 0..50 {
        assert_eq!(map.known(&handle(n)).expect("read"), None);
        let id = map.number(&handle(n), FileId::ROOT).expect("numbered");
        assert!(!before.contains(&id));
    }
}

#[test]
fn a_map_in_use_is_an_error_and_not_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let _map = Identity::open(dir.path(), FileId(2)).expect("opens");
    assert!(Identity::open(dir.path(), FileId(2)).is_err());
    assert!(!dir.path().join("handles.damaged").exists());
}

/// A map that began empty is not asked for what nobody has put into it, but is for what memory has let go.
#[test]
fn what_falls_out_of_memory_is_still_known() {
    let long = |number: usize| Handle(number.to_be_bytes()[..].into());
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let number = |n| map.number(&long(n), FileId::ROOT).expect("numbered");
    let first: Vec<FileId> = (0..10).map(number).collect();
    for n in 10..RECENT_MAX + 5000 {
        number(n);
    }
    assert_eq!((0..10).map(number).collect::<Vec<_>>(), first);
    assert_eq!(map.known(&long(usize::MAX)).expect("read"), None);
}

/// A disk that is full of something else: what a user has created is there and must be known, whatever becomes of the map.
#[test]
fn a_map_that_cannot_be_written_knows_what_was_created_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    let before = map.number(&handle(1), FileId::ROOT).expect("numbered");
    map.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(map.number(&handle(2), FileId::ROOT).is_err());
    let reserved = map.reserve(FileId::ROOT).expect("numbers are at hand");
    let id = map.settle(&handle(3), reserved);
    assert!(
        map.trouble()
            .is_some_and(|why| why.contains("file numbers"))
    );
    map.recent.iter().for_each(|shard| {
        let mut recent = shard.lock();
        recent.numbers.clear();
        recent.complete = false;
    });
    assert_eq!(map.known(&handle(3)).expect("read"), Some(id));
    assert_eq!(map.number(&handle(3), FileId::ROOT).expect("known"), id);
    let again = map.reserve(FileId::ROOT).expect("numbers are at hand");
    assert_eq!(map.settle(&handle(1), again), before, "it has a number");
}

#[test]
fn without_room_for_numbers_nothing_is_promised() {
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(u64::MAX - 5)).expect("opens");
    assert!(map.reserve(FileId::ROOT).is_err());
}

/// Bits that flip where nothing has to be read for opening it: whoever looks a file up later must not be told of them.
#[test]
fn a_page_that_rotted_is_noticed_when_it_is_opened() {
    const HANDLES: u16 = 5000;
    let long = |number: u16| Handle([&[7; 60][..], &number.to_be_bytes()].concat().into());
    let dir = tempfile::tempdir().expect("a directory");
    let map = Identity::open(dir.path(), FileId(2)).expect("opens");
    for number in 0..HANDLES {
        map.number(&long(number), FileId::ROOT).expect("numbered");
    }
    drop(map);
    let file = dir.path().join("handles/db");
    let sound = std::fs::read(&file).expect("read");
    // Within handles, each in a page or in what has become of it since.
    let handles = sound
        .windows(40)
        .enumerate()
        .filter(|(_, bytes)| bytes.iter().all(|b| *b == 7));
    let handles: Vec<usize> = handles.map(|(at, _)| at).collect();
    let single = handles.iter().step_by(handles.len() / 16);
    let single = single.map(std::slice::from_ref);
    for flipped in single.chain([&handles[..]]) {
        let mut rotten = sound.clone();
        flipped.iter().for_each(|at| rotten[*at] ^= 1);
        std::fs::write(&file, &rotten).expect("written");
        let map = Identity::open(dir.path(), FileId(2)).expect("opens");
        for number in 0..HANDLES {
            map.known(&long(number)).expect("no trace of the damage");
        }
        drop(map);
        // A single one may have lain in what is no longer in use.
        let aside = dir.path().join("handles.damaged");
        assert!(aside.exists() || flipped.len() == 1);
        if aside.exists() {
            std::fs::remove_dir_all(dir.path().join("handles")).expect("removed");
            std::fs::rename(aside, dir.path().join("handles")).expect("put back");
        }
    }
}

/// Versions that kept a record for each handle have left a map.
#[test]
fn what_an_earlier_version_knew_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = |number: [u8; 4]| [&[1, 0, 0, 0][..], &number, &[9; 4]].concat();
    let old = |number: u32| Handle(handle(number.to_le_bytes()).into());
    drop(Identity::open(dir.path(), FileId(500)).expect("opens"));
    let database = storage::open(dir.path()).expect("opens");
    let write = |name, number: [u8; 4], id: u64| {
        let tree = database.open_tree(name).expect("a tree");
        tree.insert(handle(number), &id.to_be_bytes())
            .expect("written");
    };
    for number in 0..150u32 {
        write(
            HANDLES_BEFORE,
            number.to_le_bytes(),
            u64::from(number) + 100,
        );
    }
    for number in 150..300u32 {
        write(
            HANDLES_BY_PLACE,
            number.to_be_bytes(),
            u64::from(number) + 100,
        );
    }
    drop(database);
    for _ in 0..2 {
        let map = Identity::open(dir.path(), FileId(500)).expect("opens");
        for number in 0..300 {
            let id = map.number(&old(number), FileId::ROOT).expect("numbered");
            assert_eq!(id, FileId(u64::from(number) + 100));
        }
        assert!(map.number(&old(300), FileId::ROOT).expect("numbered") >= FileId(500));
    }
}
