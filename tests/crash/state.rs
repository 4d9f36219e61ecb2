//! What the mount keeps in databases on this machine, damaged while nothing was mounted: cut short, bits flipped, removed, left by
//! another version. It is set aside, the log says so, and the comparison with the newest snapshot makes up for it.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::kill::seed;
use crate::life::Life;
use crate::load::Load;
use crate::proof::Proof;
use crate::wait;
use crate::world::{World, can_mount};

/// For so long something else may hold a dead mount.
const UMOUNT_MAX: Duration = Duration::from_secs(60);
/// Seals often, so that there is much to remember.
const OFTEN: &[&str] = &["--interval", "100ms"];
/// Between two flipped bits; less than any database would leave unused.
const FLIP_EVERY: u64 = 512;

/// How a database is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Its largest file loses its second half.
    Truncated,
    /// Its largest file has bits flipped all over.
    Flipped,
    /// It is gone.
    Deleted,
    /// It says that it is of another version.
    OtherVersion,
}

impl Damage {
    const ALL: [Self; 4] = [
        Self::Truncated,
        Self::Flipped,
        Self::Deleted,
        Self::OtherVersion,
    ];

    fn strike(self, database: &Path, random: &mut StdRng) -> io::Result<()> {
        let largest = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            let file = files.max_by_key(|entry| entry.metadata().unwrap().len());
            fs::File::options()
                .read(true)
                .write(true)
                .open(file.unwrap().path())
        };
        match self {
            Self::Truncated => {
                let file = largest(database)?;
                file.set_len(file.metadata()?.len() / 2)
            }
            Self::Flipped => {
                let file = largest(database)?;
                for start in (0..file.metadata()?.len()).step_by(FLIP_EVERY as usize) {
                    let at = start + random.random_range(0..FLIP_EVERY);
                    let mut byte = [0];
                    if file.read_at(&mut byte, at)? == 1 {
                        file.write_at(&[byte[0] ^ 1 << random.random_range(0..8)], at)?;
                    }
                }
                Ok(())
            }
            Self::Deleted => fs::remove_dir_all(database),
            Self::OtherVersion => {
                let conf = database.join("conf");
                let text = fs::read(&conf)?;
                let text = String::from_utf8_lossy(&text).replace("version: 0.34", "version: 0.31");
                assert!(text.contains("0.31"), "{text}");
                fs::write(conf, text)
            }
        }
    }
}

#[test]
fn a_damaged_journal_is_set_aside_and_made_up_for() {
    if can_mount("a_damaged_journal_is_set_aside_and_made_up_for") {
        damage_and_recover("journal/db", "SetAside");
    }
}

#[test]
fn a_damaged_identity_map_is_set_aside_and_made_up_for() {
    if can_mount("a_damaged_identity_map_is_set_aside_and_made_up_for") {
        damage_and_recover("identity/handles", "set aside");
    }
}

/// Kills the mount under load, damages `database` of its volume in each way, changes a file beside it, and proves that nothing of
/// that is in the next snapshot wrongly or missing.
fn damage_and_recover(database: &str, said: &str) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new();
    world.init();
    let mut proof = Proof::new();
    for damage in Damage::ALL {
        let what = format!("seed {seed}, {database} {damage:?}");
        let mut life = Life::begin(&world, OFTEN, None);
        let load = Load::begin(&world.source(), random.random());
        world.run(["sync".as_ref(), world.source().as_os_str()]);
        life.kill();
        load.end();
        // A process that another test is just starting may hold what the load had open, for a moment.
        let off = wait::within(UMOUNT_MAX, || {
            let mut umount = world.command(["umount".as_ref(), world.source().as_os_str()]);
            umount.output().unwrap().status.success().then_some(())
        });
        off.expect("the dead mount can be taken off");
        damage
            .strike(&volume(&world).join(database), &mut random)
            .unwrap();
        // The load may not have come to it when it was killed.
        let beside = world.source().join("beside");
        let mut options = fs::File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(beside).unwrap();
        file.write_all_at(&random.random::<[u8; 32]>(), 4096)
            .unwrap();
        let log = volume(&world).join("log");
        let before = fs::read_to_string(&log).unwrap().len();

        let mut life = Life::begin(&world, OFTEN, None);
        proof.after_death(&world, &what);
        let told = fs::read_to_string(&log).unwrap();
        let told = &told[before..];
        // Half of a file may be all that was used of it, and what was flipped may hold nothing any more. A map that is not there begins
        // as every map does.
        let may_pass = match damage {
            Damage::Truncated | Damage::Flipped => true,
            Damage::Deleted => database.starts_with("identity"),
            Damage::OtherVersion => false,
        };
        assert!(may_pass || told.contains(said), "{what}: {told}");
        life.kill();
    }
    proof.check(&world, "in the end");
}

/// The state of the only volume.
fn volume(world: &World) -> PathBuf {
    let volumes = fs::read_dir(world.state().join("volumes")).unwrap();
    let paths = volumes.map(|entry| entry.unwrap().path());
    paths.last().expect("it was mounted")
}
