//! The journal through crashes, reboots, damage of every kind, and failures while it is open.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;

use tempfile::TempDir;

use super::*;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &TempDir) -> (Journal, LastStop) {
    Journal::open(dir.path()).unwrap()
}

/// A journal with some records whose process has died.
fn crashed(records: u64) -> TempDir {
    let dir = dir();
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::New);
    for id in 0..records {
        journal.record(FileId(id), 0, EpochNo(1)).unwrap();
    }
    journal.sync().unwrap();
    dir
}

/// Whether the kernel has no record yet.
fn is_new(noted: io::Result<Durability>) -> bool {
    noted.unwrap() == Durability::Memory
}

fn edit_marker(dir: &TempDir, edit: impl FnOnce(String) -> String) {
    let path = dir.path().join("marker");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, edit(text)).unwrap();
}

fn assert_set_aside(dir: &TempDir) {
    let (journal, stop) = open(dir);
    assert!(
        matches!(&stop, LastStop::SetAside(why) if why.contains("set-aside-1")),
        "{stop:?}"
    );
    assert!(journal.records().unwrap().is_empty());
    assert!(
        is_new(journal.record(FileId(1), 0, EpochNo(1))),
        "it goes on with a new one"
    );
    journal.sync().unwrap();
}

#[test]
fn records_survive_a_crash_as_older_than_every_epoch() {
    let dir = crashed(3);
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::Crashed);
    assert!(journal.same_boot());
    let old = |id| (FileId(id), 0, EpochNo(0));
    assert_eq!(journal.records().unwrap(), vec![old(0), old(1), old(2)]);
    assert!(
        !is_new(journal.record(FileId(1), 0, EpochNo(5))),
        "already noted"
    );
    assert_eq!(journal.records().unwrap()[1].2, EpochNo(5));
    journal.forget(EpochNo(4)).unwrap();
    assert_eq!(journal.records().unwrap(), vec![(FileId(1), 0, EpochNo(5))]);
}

#[test]
fn a_clean_stop_is_told_from_a_crash_and_from_a_reboot() {
    let dir = crashed(1);
    let (journal, _) = open(&dir);
    journal.close_clean().unwrap();
    assert!(journal.record(FileId(9), 0, EpochNo(1)).is_err(), "closed");
    drop(journal);
    assert_eq!(open(&dir).1, LastStop::Clean);
    assert_eq!(open(&dir).1, LastStop::Crashed, "that was not clean");
    edit_marker(&dir, |text| {
        let boot = text
            .lines()
            .find(|line| line.starts_with("boot "))
            .unwrap()
            .to_owned();
        text.replace(&boot, "boot another")
    });
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::Rebooted);
    assert!(!journal.same_boot());
}

#[test]
fn forgetting_spares_what_was_touched_again() {
    let dir = dir();
    let (journal, _) = open(&dir);
    for id in 0..1000 {
        journal.record(FileId(id), 7, EpochNo(1)).unwrap();
    }
    journal.write_out().unwrap();
    for id in (0..1000).step_by(2) {
        assert!(!is_new(journal.record(FileId(id), 7, EpochNo(2))));
    }
    journal.forget(EpochNo(1)).unwrap();
    let left = journal.records().unwrap();
    assert_eq!(left.len(), 500);
    assert!(
        left.iter()
            .all(|(id, block, epoch)| id.0 % 2 == 0 && *block == 7 && *epoch == EpochNo(2))
    );
    assert!(
        is_new(journal.record(FileId(1), 7, EpochNo(2))),
        "forgotten, so noted anew"
    );
}

#[test]
fn only_a_new_record_owes_a_sync() {
    let dir = dir();
    let (journal, _) = open(&dir);
    assert!(!journal.owes(FileId(1)));
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    assert!(journal.owes(FileId(1)));
    journal.write_out().unwrap();
    assert!(journal.owes(FileId(1)), "the kernel has it, the disk not");
    journal.sync().unwrap();
    assert!(!journal.owes(FileId(1)));
    journal.record(FileId(1), 0, EpochNo(2)).unwrap();
    assert!(!journal.owes(FileId(1)), "a hot file pays once");
}

#[test]
fn a_record_goes_from_memory_by_the_kernel_to_the_disk() {
    let dir = dir();
    let (journal, _) = open(&dir);
    let record = |block| journal.record(FileId(1), block, EpochNo(1)).unwrap();
    assert!(
        !journal.is_on_disk(FileId(1), 0, EpochNo(1)),
        "there is none"
    );
    assert_eq!(record(0), Durability::Memory);
    journal.write_out().unwrap();
    assert_eq!(record(0), Durability::Kernel);
    assert!(!journal.is_on_disk(FileId(1), 0, EpochNo(1)));
    journal.sync().unwrap();
    assert_eq!(record(0), Durability::Disk);
    assert!(
        journal.is_on_disk(FileId(1), 0, EpochNo(1))
            && !journal.is_on_disk(FileId(1), 1, EpochNo(1))
    );
    journal.forget(EpochNo(1)).unwrap();
    assert!(!journal.is_on_disk(FileId(1), 0, EpochNo(1)));
}

#[test]
fn a_record_is_new_to_everybody_until_the_kernel_has_it() {
    let dir = dir();
    let (journal, _) = open(&dir);
    let record = |block| is_new(journal.record(FileId(1), block, EpochNo(1)));
    assert!(record(0));
    assert!(record(0), "the first writer's flush has not ended");
    // Made while a flush is under way: that need not have it.
    let under_way = journal.noted.lock().begin_flush();
    assert!(record(1));
    journal.noted.lock().end_flush(under_way);
    assert!(!record(0));
    assert!(record(1));
    // Forgotten by memory, not by the database.
    let batch = journal.noted.lock().write_back();
    journal.database.apply_batch(batch).unwrap();
    assert!(record(1));
    journal.sync().unwrap();
    assert!(!record(1));
}

#[test]
fn concurrent_syncs_all_return_and_leave_nothing_owed() {
    let dir = dir();
    let (journal, _) = open(&dir);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for worker in 0..8u64 {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..50 {
                    let id = FileId(worker * 1000 + n);
                    journal.record(id, 0, EpochNo(1)).unwrap();
                    journal.sync().unwrap();
                    assert!(!journal.owes(id));
                }
            });
        }
    });
    assert_eq!(journal.records().unwrap().len(), 400);
}

#[test]
fn a_second_process_is_refused_and_nothing_is_set_aside() {
    let dir = crashed(1);
    let (_journal, _) = open(&dir);
    let Err(error) = Journal::open(dir.path()) else {
        panic!("opened twice")
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(!dir.path().join("db.set-aside-1").exists());
}

#[test]
fn a_damaged_database_is_set_aside() {
    let dir = crashed(20_000);
    let log = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("db/db"))
        .unwrap();
    let len = log.metadata().unwrap().len();
    for at in (0..len).step_by(512) {
        log.write_all_at(&[0xa5; 64], at).unwrap();
    }
    drop(log);
    assert_set_aside(&dir);
}

#[test]
fn a_missing_or_emptied_database_is_noticed() {
    let dir = crashed(10);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert_set_aside(&dir);
    fs::write(dir.path().join("db/db"), b"").unwrap();
    assert_set_aside(&dir);
}

#[test]
fn another_database_in_its_place_is_noticed() {
    let (dir, other) = (crashed(10), crashed(10));
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::rename(other.path().join("db"), dir.path().join("db")).unwrap();
    assert_set_aside(&dir);
}

#[test]
fn lost_records_after_a_clean_stop_are_noticed() {
    let dir = crashed(10);
    open(&dir).0.close_clean().unwrap();
    edit_marker(&dir, |text| text.replace("records 11", "records 12"));
    assert_set_aside(&dir);
}

#[test]
fn a_damaged_or_missing_marker_is_not_believed() {
    let dir = crashed(10);
    edit_marker(&dir, |text| text[..text.len() / 2].to_owned());
    assert_set_aside(&dir);
    fs::remove_file(dir.path().join("marker")).unwrap();
    assert_set_aside(&dir);
    edit_marker(&dir, |text| text.replace("journal 1", "journal 2"));
    assert_set_aside(&dir);
    assert_set_aside_count(&dir);
}

/// However often that happens, only a few are kept.
fn assert_set_aside_count(dir: &TempDir) {
    for _ in 0..3 {
        fs::remove_file(dir.path().join("marker")).unwrap();
        assert_set_aside(dir);
    }
    let kept = fs::read_dir(dir.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("set-aside")
    });
    assert_eq!(kept.count(), 3);
}

#[test]
fn a_failed_write_is_latched() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    let failed = journal.sled("test", || -> sled::Result<()> { panic!("as sled does") });
    assert!(failed.is_err());
    assert!(journal.latched().unwrap().contains("test"));
    assert!(journal.sync().is_err());
    assert!(journal.record(FileId(2), 0, EpochNo(1)).is_err());
    assert!(!journal.owes(FileId(2)), "the next life is told instead");
    assert!(journal.close_clean().is_err());
    drop(journal);
    assert!(matches!(open(&dir).1, LastStop::SetAside(_)));
}

#[test]
fn where_the_next_life_cannot_be_told_of_a_failure_everything_is_owed() {
    let dir = dir();
    let (journal, _) = open(&dir);
    // What stands in its place cannot be unlinked.
    std::fs::remove_file(&journal.marker_path).unwrap();
    std::fs::create_dir(&journal.marker_path).unwrap();
    let failed = journal.sled("test", || -> sled::Result<()> { panic!("as sled does") });
    assert!(failed.is_err());
    assert!(journal.owes(FileId(2)) && journal.sync().is_err());
}

#[test]
fn more_records_than_memory_holds_are_still_known() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    journal.write_out().unwrap();
    assert!(!is_new(journal.record(FileId(1), 0, EpochNo(3))));
    let batch = journal.noted.lock().write_back();
    journal.database.apply_batch(batch).unwrap();
    assert!(
        !is_new(journal.record(FileId(1), 0, EpochNo(2))),
        "known from the database"
    );
    journal.forget(EpochNo(2)).unwrap();
    assert_eq!(journal.records().unwrap(), vec![(FileId(1), 0, EpochNo(3))]);
}

#[test]
fn forgetting_spares_what_was_touched_and_written_back_while_it_read() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    let read =
        |(key, value): (sled::IVec, sled::IVec)| Some((Key::parse(&key)?, Value::parse(&value)?));
    let mut old: Vec<_> = journal.database.iter().flatten().filter_map(read).collect();
    assert_eq!(old.len(), 1);
    journal.record(FileId(1), 0, EpochNo(9)).unwrap();
    let batch = journal.noted.lock().write_back();
    journal.database.apply_batch(batch).unwrap();
    journal.forget_batch(&mut old, EpochNo(5), false).unwrap();
    assert_eq!(journal.records().unwrap(), vec![(FileId(1), 0, EpochNo(9))]);
}

/// Also what has been noted again since: more of the block may be in doubt than what was written to it.
#[test]
fn what_an_earlier_life_has_left_is_spared_where_it_could_not_be_looked_at() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(4)).unwrap();
    journal.record(FileId(2), 0, EpochNo(4)).unwrap();
    journal.spare_earlier();
    journal.forget(EpochNo(9)).unwrap();
    let left = journal.records().unwrap().into_iter();
    assert_eq!(left.map(|(id, ..)| id).collect::<Vec<_>>(), [FileId(1)]);
    journal.close_clean().unwrap();
    drop(journal);
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::Clean);
    journal.forget(EpochNo(9)).unwrap();
    assert!(journal.records().unwrap().is_empty());
}

#[test]
fn a_journal_closed_while_in_use_refuses_and_was_not_clean() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    journal.close_owing().unwrap();
    assert!(journal.record(FileId(1), 0, EpochNo(1)).is_err(), "closed");
    drop(journal);
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::Crashed);
    assert_eq!(journal.records().unwrap().len(), 1);
}

/// A week without the store: the journal grew with every file that was touched, until it filled the disk.
#[test]
fn too_many_records_become_one_that_says_any_file() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.noted.lock().count_max = 100;
    for id in 0..300 {
        journal.record(FileId(id), 0, EpochNo(2)).unwrap();
    }
    let any = (ANY_FILE, WHOLE_FILE, EpochNo(2));
    assert!(journal.records().unwrap().contains(&any));
    assert!(journal.owes(FileId(299)), "not durable yet");
    journal.sync().unwrap();
    assert!(!journal.owes(FileId(299)));
    assert_eq!(
        journal.records().unwrap(),
        vec![any],
        "the others are needless"
    );
    // What comes in a later epoch is noted by itself, since the commit of this one will not hold it.
    assert!(is_new(journal.record(FileId(7), 3, EpochNo(3))));
    journal.sync().unwrap();
    let later = (FileId(7), 3, EpochNo(3));
    assert_eq!(journal.records().unwrap(), vec![later, any]);
    journal.forget(EpochNo(1)).unwrap();
    assert_eq!(journal.records().unwrap(), vec![later, any]);
    journal.forget(EpochNo(2)).unwrap();
    assert_eq!(journal.records().unwrap(), vec![later]);
    assert!(is_new(journal.record(FileId(8), 0, EpochNo(3))));
    journal.sync().unwrap();
    drop(journal);
    let (journal, stop) = open(&dir);
    assert_eq!(stop, LastStop::Crashed);
    assert_eq!(journal.records().unwrap().len(), 2);
}

#[test]
fn what_any_file_says_survives_a_crash() {
    let dir = dir();
    let (journal, _) = open(&dir);
    journal.noted.lock().count_max = 5;
    for id in 0..20 {
        journal.record(FileId(id), 0, EpochNo(1)).unwrap();
    }
    drop(journal);
    let (journal, _) = open(&dir);
    let records = journal.records().unwrap();
    assert!(records.contains(&(ANY_FILE, WHOLE_FILE, EpochNo(0))));
    assert!(
        is_new(journal.record(FileId(3), 1, EpochNo(1))),
        "an earlier life covers nothing of this one"
    );
}

/// A comparison of everything that was broken off was forgotten: the next life had seen neither the power cut nor the lost journal.
#[test]
fn what_is_doubtful_stays_so_until_all_has_been_compared() {
    let dir = dir();
    let doubting = || Journal::open_doubting(dir.path(), |stop| *stop == LastStop::New).unwrap();
    let any = (ANY_FILE, WHOLE_FILE, EpochNo(0));
    let (journal, stop) = doubting();
    assert_eq!(stop, LastStop::New);
    assert_eq!(journal.records().unwrap(), vec![any]);
    drop(journal);
    let (journal, stop) = doubting();
    assert_eq!(stop, LastStop::Crashed);
    let own = (FileId(1), 0, EpochNo(1));
    assert!(is_new(journal.record(own.0, own.1, own.2)));
    assert_eq!(journal.records().unwrap(), vec![own, any]);
    journal.forget(EpochNo(0)).unwrap();
    assert_eq!(journal.records().unwrap(), vec![own]);
}

#[test]
fn where_nothing_can_differ_nothing_is_doubted() {
    let dir = dir();
    let (journal, _) = Journal::open_doubting(dir.path(), |_| true).unwrap();
    journal.record(FileId(1), 0, EpochNo(1)).unwrap();
    journal.forget_doubt().unwrap();
    let own = (FileId(1), 0, EpochNo(1));
    assert_eq!(journal.records().unwrap(), vec![own]);
}

/// The record that said so came back with every kill, and everything was compared each time.
#[test]
fn a_doubt_that_was_forgotten_does_not_come_back() {
    let dir = dir();
    let doubting = || Journal::open_doubting(dir.path(), |stop| *stop == LastStop::New).unwrap();
    let (journal, _) = doubting();
    journal.forget(EpochNo(1)).unwrap();
    let killed = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([dir.path(), killed.path()])
        .status();
    assert!(copied.unwrap().success());
    let left = killed.path().join(dir.path().file_name().unwrap());
    let (left, stop) = Journal::open(&left).unwrap();
    assert_eq!(stop, LastStop::Crashed);
    assert_eq!(left.records().unwrap(), []);
}
