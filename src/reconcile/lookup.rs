//! Looks the names of a directory up before the walk comes to them, on several threads: of a scan that finds nothing changed these
//! system calls are most.
//!
//! By the time it is compared, what was found may be true no more. So it may however late one looks, since no lock is held: whatever a
//! program has changed since then it has said itself. Called by `scan`.

use std::io;
use std::thread;

use crate::source::{Node, Source, Stat};

/// Names of a directory looked up at once, so that memory does not grow with it: about 64 KiB.
pub(super) const NAMES_AT_ONCE: usize = 256;
/// A thread with fewer names costs more to start than it saves.
const NAMES_FOR_A_THREAD: usize = 32;
/// More threads than this wait for each other in the kernel and in the identity map, and leave nothing to the programs that go on.
const THREADS_MAX: usize = 4;

/// What a name leads to.
pub(super) type Looked = io::Result<(Node, Stat)>;

/// What each of the names leads to, in the same order.
pub(super) fn look_up(source: &Source, dir: &Node, names: &[Vec<u8>]) -> Vec<Looked> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (names.len() / NAMES_FOR_A_THREAD).clamp(1, cores.min(THREADS_MAX));
    let look = |names: &[Vec<u8>]| -> Vec<Looked> {
        let looked = names.iter();
        looked
            .map(|name| source.lookup_in_passing(dir, name))
            .collect()
    };
    let mut shares = names.chunks(names.len().div_ceil(threads).max(1));
    let ours = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let look = &look;
        let start = |share| {
            let thread = thread::Builder::new().name("look-up".to_owned());
            let thread = thread.spawn_scoped(scope, move || look(share));
            (share, thread)
        };
        let others: Vec<_> = shares.map(start).collect();
        let mut all = look(ours);
        for (share, thread) in others {
            let looked = thread.ok().and_then(|thread| thread.join().ok());
            // Where no thread was to be had we look ourselves.
            all.extend(looked.unwrap_or_else(|| look(share)));
        }
        all
    })
}
