//! The pipeline's parts through several lives, all that happens to them drawn from one seed: what programs do, what the store does to requests, how
//! far the clock goes or jumps, when a life ends, what is done to the files while nobody looks. Real source, journal, spool, tree and
//! uploader; store, clock and chance are the test's. A failing run prints its seed; `REWINDFS_TEST_SEED` plays it alone.
//!
//! What the kernel's order of threads decides is not drawn: what it comes to must be right in any.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::world::{PATIENCE, World, Writer, noise, options};
use crate::clock::{Clock, ManualClock, Stamp, SystemClock};
use crate::flusher::{CommitMark, Options};
use crate::journal::LastStop;
use crate::reconcile::{self, Trust};
use crate::store::Kind;
use crate::store::fault::{Fault, Rule};
use crate::store::metered::Operation;
use crate::verify;

/// Seeds played when nobody asks for one.
const SEEDS: std::ops::Range<u64> = 0..6;
/// Lives of each.
const LIVES: usize = 4;
/// What happens in a life, at most.
const DEEDS: usize = 40;
/// Files at once, and the longest.
const FILES: usize = 12;
const LEN_MAX: usize = 1 << 20;
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// What has been published, and what the source held then.
type Told = Vec<(CommitMark, BTreeMap<String, Vec<u8>>)>;

struct Play {
    seed: u64,
    random: StdRng,
    world: World,
    clock: Arc<ManualClock>,
    told: Told,
    names: u32,
}

/// Names the seed when a play fails.
impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = format_args!("REWINDFS_TEST_SEED={}\n", self.seed);
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), said);
        }
    }
}

impl Play {
    async fn new(seed: u64) -> Self {
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            world: World::new().await,
            clock: Arc::new(ManualClock::new(SystemClock.now())),
            told: Told::new(),
            names: 0,
        }
    }

    /// A process begins as the daemon does: with a comparison, during which programs are at work already.
    async fn begin(&mut self) -> Writer {
        let held = Options {
            held: true,
            incomplete_interval: Duration::from_millis(self.random.random_range(0..50)),
            copy_ahead_bytes: self.random.random_range(1..4) << 20,
            round_bytes: 1 << 20,
            ..options(&self.world)
        };
        let head = self.world.volume(false).await.head().await.unwrap();
        let base = match head {
            Some(head) if head.commit.incomplete => Trust::Nothing,
            _ => Trust::after(&LastStop::Crashed),
        };
        let writer = self.world.start_with(held, self.clock.clone()).await;
        for _ in 0..self.random.random_range(0..4) {
            self.program(&writer);
        }
        let newest = writer.handle.newest().await.unwrap();
        let parts = reconcile::Parts {
            source: Arc::clone(&writer.source),
            epochs: Arc::clone(&writer.epochs),
            tree: newest.map(|found| writer.volume.tree(&found.commit)),
            intents: writer.journal.records().unwrap().into_iter().collect(),
            trust: base,
            runtime: tokio::runtime::Handle::current(),
        };
        let scanning = tokio::task::spawn_blocking(move || {
            let progress = reconcile::Progress::default();
            let stop = AtomicBool::new(false);
            reconcile::run(&parts, &progress, &stop).unwrap()
        });
        for _ in 0..self.random.random_range(0..4) {
            self.program(&writer);
        }
        let scanned = scanning.await.unwrap();
        assert!(scanned.unreadable.is_empty());
        writer.handle.hold(false).await.unwrap();
        writer
    }

    fn some_name(&mut self, writer: &Writer) -> Option<String> {
        let names: Vec<String> = writer.now().into_keys().collect();
        (!names.is_empty()).then(|| names[self.random.random_range(0..names.len())].clone())
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("file-{}", self.names)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.random_range(0..4) {
            0 => self.random.random_range(0..100),
            1 | 2 => self.random.random_range(0..LEN_MAX / 20),
            _ => self.random.random_range(0..LEN_MAX),
        };
        noise(self.random.random_range(0..6), len)
    }

    /// One thing that a program does through the mount.
    fn program(&mut self, writer: &Writer) {
        let count = writer.now().len();
        let Some(name) = self.some_name(writer).filter(|_| count > 3) else {
            let (name, bytes) = (self.new_name(), self.bytes());
            writer.create(&name, &bytes);
            return;
        };
        match self.random.random_range(0..9) {
            0 | 1 if count < FILES => {
                let (name, bytes) = (self.new_name(), self.bytes());
                writer.create(&name, &bytes);
            }
            0..=3 => {
                let (at, bytes) = (self.random.random_range(0..LEN_MAX as u64), self.bytes());
                writer.write(&name, at, &bytes[..bytes.len().min(70_000)]);
            }
            4 => writer.truncate(&name, self.random.random_range(0..LEN_MAX as u64)),
            5 => writer.rename(&name, &self.new_name()),
            6 => {
                let (new, bytes) = (self.new_name(), self.bytes());
                writer.create(&new, &bytes);
                writer.replace(&new, &name);
            }
            7 if count < FILES => writer.link(&name, &self.new_name()),
            _ => writer.remove(&name),
        }
    }

    /// One thing that somebody does to the files while nothing is mounted.
    fn stranger(&mut self) {
        let source = self.world.path("source");
        let names = fs::read_dir(&source).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let bytes = self.bytes();
        let Some(path) =
            (!names.is_empty()).then(|| &names[self.random.random_range(0..names.len())])
        else {
            return;
        };
        let (at, new) = (self.random.random_range(0..LEN_MAX as u64), self.new_name());
        match self.random.random_range(0..4) {
            0 => fs::write(source.join(new), bytes).unwrap(),
            1 => fs::remove_file(path).unwrap(),
            2 => fs::rename(path, source.join(new)).unwrap(),
            _ => {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.write_all_at(&bytes, at).unwrap();
            }
        }
    }

    /// The store does something to requests to come, which it gets over.
    fn trouble(&mut self) {
        let faults = [
            Fault::FailBefore(Kind::Retry),
            Fault::FailAfter(Kind::Retry),
            Fault::FailBefore(Kind::Denied),
            Fault::Pretend,
            Fault::CutBody(100),
            Fault::FlipBit(12_345),
        ];
        let fault = faults[self.random.random_range(0..faults.len())];
        // Nobody who does not read them back notices other bytes of the same length, and what was read wrong is read again.
        let on = match fault {
            Fault::FlipBit(_) | Fault::CutBody(_) => Some(Operation::GetRange),
            _ => None,
        };
        self.world.plan.add(Rule {
            on,
            skip: self.random.random_range(0..12),
            times: self.random.random_range(1..4),
            fault,
        });
    }

    fn time(&mut self) {
        let clock = &self.clock;
        match self.random.random_range(0..6) {
            0 => clock.set(Stamp(clock.now().0 - self.random.random_range(0..YEAR_MS))),
            1 => clock.set(Stamp(clock.now().0 + self.random.random_range(0..YEAR_MS))),
            2 => clock.pass(Duration::from_secs(self.random.random_range(0..100_000))),
            _ => clock.pass(Duration::from_millis(self.random.random_range(0..3000))),
        }
    }

    /// Everything is published at last, whatever the store has in mind.
    async fn publish(&mut self, writer: &Writer) {
        let asked = loop {
            // Each time somebody asks, what failed is tried again at once.
            let asked = tokio::time::timeout(Duration::from_millis(300), writer.handle.sync());
            if let Ok(done) = asked.await {
                break done;
            }
        };
        if let Some(mark) = asked.unwrap() {
            self.told.push((mark, writer.now()));
        }
    }

    async fn life(&mut self) {
        let writer = self.begin().await;
        for _ in 0..self.random.random_range(0..DEEDS) {
            match self.random.random_range(0..12) {
                0 | 1 => self.publish(&writer).await,
                2 => self.trouble(),
                3 => self.time(),
                _ => self.program(&writer),
            }
        }
        // At the end the store may be well, away, or still as it was.
        match self.random.random_range(0..3) {
            0 => self.world.plan.clear(),
            1 => self.world.plan.add(Rule {
                on: None,
                skip: 0,
                times: u64::MAX,
                fault: Fault::FailBefore(Kind::Retry),
            }),
            _ => {}
        }
        let patience = match self.random.random_bool(0.3) {
            true => Duration::from_millis(200),
            false => Duration::ZERO,
        };
        writer.handle.stop(patience).await.unwrap();
        drop(writer);
        self.world.plan.clear();
        for _ in 0..self.random.random_range(0..4) {
            self.stranger();
        }
    }

    /// What was told is so, and all of it is whole.
    async fn prove(&mut self) {
        let writer = self.begin().await;
        self.publish(&writer).await;
        let stopped = writer.handle.stop(PATIENCE).await.unwrap();
        assert!(stopped.published, "{:?}", stopped.status);
        for (mark, then) in &self.told {
            let found = self.world.snapshot(mark).await;
            assert!(found == *then, "{mark:?}: {}", difference(&found, then));
        }
        let ordered = |pair: &[(CommitMark, _)]| pair[0].0.name.seq <= pair[1].0.name.seq;
        assert!(self.told.windows(2).all(ordered));
        let volume = self.world.volume(false).await;
        let (progress, stop) = (verify::Progress::default(), AtomicBool::new(false));
        let structure = verify::structure(&volume, &progress, &stop).await.unwrap();
        let data = verify::data(&volume, &progress, &stop).await.unwrap();
        let report = structure.merge(data);
        assert!(!report.is_damaged(), "{report:?}");
    }
}

/// The first name under which two states differ, and where and how its bytes do.
fn difference(found: &BTreeMap<String, Vec<u8>>, then: &BTreeMap<String, Vec<u8>>) -> String {
    let names = found.keys().chain(then.keys());
    let Some(name) = names
        .into_iter()
        .find(|name| found.get(*name) != then.get(*name))
    else {
        return "none".to_owned();
    };
    let (Some(is), Some(was)) = (found.get(name), then.get(name)) else {
        let found = found.contains_key(name);
        return format!("{name} is there: {found}, was there: {}", !found);
    };
    let wrong: Vec<usize> = (0..is.len().min(was.len()))
        .filter(|&at| is[at] != was[at])
        .collect();
    let zeros = wrong.iter().filter(|&&at| is[at] == 0).count();
    format!(
        "{name} has {} bytes and had {}; {} of them differ, from {:?} to {:?}, {zeros} are zeros",
        is.len(),
        was.len(),
        wrong.len(),
        wrong.first(),
        wrong.last(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_in_several_lives_each_snapshot_is_what_was_there() {
    let asked = std::env::var("REWINDFS_TEST_SEED").ok();
    let asked = asked.and_then(|seed| seed.parse().ok());
    let seeds = asked.map_or(SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut play = Play::new(seed).await;
        for _ in 0..LIVES {
            play.life().await;
        }
        play.prove().await;
    }
}
