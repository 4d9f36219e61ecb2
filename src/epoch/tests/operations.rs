//! What the live mount does for each request: lock, look again, tell the guard, act, tell the guard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;

use super::fake::{DIRS, Effect, World, node};
use crate::epoch::{Guard, LiveInode};
use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;

static NEXT_ID: AtomicU64 = AtomicU64::new(100);

/// A request as a program makes it.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Write {
        id: FileId,
        at: u64,
        len: u64,
        fill: u8,
    },
    Truncate {
        id: FileId,
        len: u64,
    },
    Mode {
        id: FileId,
        mode: u16,
    },
    Create {
        dir: FileId,
        name: Vec<u8>,
    },
    Link {
        id: FileId,
        dir: FileId,
        name: Vec<u8>,
    },
    Unlink {
        id: FileId,
        dir: FileId,
        name: Vec<u8>,
    },
    Rename {
        id: FileId,
        from: (FileId, Vec<u8>),
        to: (FileId, Vec<u8>),
        victim: Option<FileId>,
    },
}

/// A request under its guard.
pub(super) struct Running<'a> {
    pub(super) guard: Guard<'a>,
    effects: VecDeque<Effect>,
    names: Vec<(FileId, Vec<u8>, Option<FileId>)>,
    created: Option<FileId>,
}

fn entry(id: FileId) -> NameEntry {
    NameEntry {
        id,
        kind: Kind::File,
    }
}

impl Request {
    /// A likely request, from what the source looks like now.
    pub(super) fn random(world: &World, rng: &mut StdRng) -> Self {
        let dir = |rng: &mut StdRng| DIRS[rng.random_range(0..DIRS.len())];
        let name = |rng: &mut StdRng| vec![b'a' + rng.random_range(0..4u8)];
        let mut names: Vec<(FileId, Vec<u8>, FileId)> = world.source.look(|state| {
            let each = state.names.iter();
            each.flat_map(|(&dir, names)| names.iter().map(move |(n, &id)| (dir, n.clone(), id)))
                .collect()
        });
        // Looked at after the names, so that one just made is either hidden or done.
        names.retain(|(_, _, id)| !world.source.hidden.lock().contains(id));
        if names.is_empty() || rng.random_range(0..8) == 0 {
            return Self::Create {
                dir: dir(rng),
                name: name(rng),
            };
        }
        let (from, old, id) = names[rng.random_range(0..names.len())].clone();
        match rng.random_range(0..16) {
            0 => Self::Link {
                id,
                dir: dir(rng),
                name: name(rng),
            },
            1 | 2 => Self::Unlink {
                id,
                dir: from,
                name: old,
            },
            3 | 4 => {
                let to = (dir(rng), name(rng));
                let victim = world
                    .source
                    .look(|state| state.names[&to.0].get(&to.1).copied());
                Self::Rename {
                    id,
                    from: (from, old),
                    to,
                    victim,
                }
            }
            5 => Self::Mode {
                id,
                mode: rng.random_range(0..0o777),
            },
            6 => Self::Mode {
                id: from,
                mode: rng.random_range(0..0o777),
            },
            7..=9 => Self::Truncate {
                id,
                len: [0, 1, 4096, 5000, 20_000][rng.random_range(0..5)],
            },
            _ => Self::Write {
                id,
                at: rng.random_range(0..40_000),
                len: rng.random_range(1..9_000),
                fill: rng.random_range(0..=255),
            },
        }
    }

    /// The inodes that it locks.
    pub(super) fn inodes(&self, world: &World) -> Vec<Arc<LiveInode>> {
        let ids = match self {
            Self::Write { id, .. } | Self::Truncate { id, .. } | Self::Mode { id, .. } => vec![*id],
            Self::Create { dir, .. } => vec![*dir],
            Self::Link { id, dir, .. } | Self::Unlink { id, dir, .. } => vec![*id, *dir],
            Self::Rename {
                id,
                from,
                to,
                victim,
            } => [Some(*id), Some(from.0), Some(to.0), *victim]
                .into_iter()
                .flatten()
                .collect(),
        };
        ids.into_iter()
            .map(|id| world.epochs.inode(&node(id)))
            .collect()
    }

    /// Locks, looks again, and tells the guard; `None` if the world has changed meanwhile.
    pub(super) fn begin<'a>(
        &self,
        world: &'a World,
        inodes: &'a [&'a Arc<LiveInode>],
    ) -> Option<Running<'a>> {
        if let &Self::Write { id, at, len, fill } = self {
            let guard = world.epochs.write(inodes[0], at..at + len).unwrap();
            // In two halves, so that others may come in between.
            let half = |at, len| Effect::Write {
                id,
                at,
                bytes: vec![fill; len as usize],
            };
            let effects = VecDeque::from([half(at, len / 2), half(at + len / 2, len - len / 2)]);
            let alive = world.source.look(|state| state.inodes.contains_key(&id));
            return alive.then(|| Running {
                guard,
                effects,
                names: vec![],
                created: None,
            });
        }
        let mut guard = world.epochs.change(inodes).unwrap();
        let find = |dir: &FileId, name: &Vec<u8>| {
            world
                .source
                .look(|state| state.names[dir].get(name).copied())
        };
        let (alive, size, links) = world.source.look(|state| {
            let inode = state.inodes.get(&inodes[0].id());
            (
                inode.is_some(),
                inode.map_or(0, |i| i.data.len() as u64),
                inode.map_or(0, |i| i.links),
            )
        });
        if !alive {
            return None;
        }
        let mut names = Vec::new();
        let mut created = None;
        let effect = match self.clone() {
            Self::Write { .. } => unreachable!("handled above"),
            Self::Truncate { id, len } => {
                guard.resize(inodes[0], size, len).unwrap();
                if len == 0 && size > 0 {
                    guard.emptied(inodes[0]);
                }
                Effect::Truncate { id, len }
            }
            Self::Mode { id, mode } => Effect::Mode { id, mode },
            Self::Create { dir, name } => {
                if find(&dir, &name).is_some() {
                    return None;
                }
                let id = FileId(NEXT_ID.fetch_add(1, Ordering::SeqCst));
                world.source.hidden.lock().insert(id);
                created = Some(id);
                names.push((dir, name.clone(), Some(id)));
                Effect::Create { dir, name, id }
            }
            Self::Link { id, dir, name } => {
                if find(&dir, &name).is_some() {
                    return None;
                }
                names.push((dir, name.clone(), Some(id)));
                Effect::Link { dir, name, id }
            }
            Self::Unlink { id, dir, name } => {
                if find(&dir, &name) != Some(id) {
                    return None;
                }
                if links == 1 {
                    guard.unlinking(inodes[0]).unwrap();
                }
                names.push((dir, name.clone(), None));
                Effect::Unlink { dir, name }
            }
            Self::Rename {
                id,
                from,
                to,
                victim,
            } => {
                let now = find(&to.0, &to.1);
                if from == to
                    || find(&from.0, &from.1) != Some(id)
                    || now != victim
                    || now == Some(id)
                {
                    return None;
                }
                if let Some(victim) = victim {
                    let links = world.source.look(|state| state.inodes[&victim].links);
                    if links == 1 {
                        guard.unlinking(inodes[3]).unwrap();
                    }
                }
                names.push((from.0, from.1.clone(), None));
                names.push((to.0, to.1.clone(), Some(id)));
                Effect::Rename { from, to }
            }
        };
        Some(Running {
            guard,
            effects: VecDeque::from([effect]),
            names,
            created,
        })
    }
}

impl Running<'_> {
    /// Lets the next effect happen; false when all have and the guard knows of them.
    pub(super) fn step(&mut self, world: &World) -> bool {
        if let Some(effect) = self.effects.pop_front() {
            world.source.apply(self.guard.epoch(), effect);
            return true;
        }
        if let Some(id) = self.created.take() {
            self.guard.created(&world.epochs.inode(&node(id)));
            world.source.hidden.lock().remove(&id);
        }
        for (dir, name, id) in std::mem::take(&mut self.names) {
            let dir = world.epochs.inode(&node(dir));
            self.guard.name(&dir, &name, id.map(entry));
        }
        false
    }
}

/// Runs a request from beginning to end.
pub(super) fn run(world: &World, request: &Request) {
    let inodes = request.inodes(world);
    let inodes: Vec<&Arc<LiveInode>> = inodes.iter().collect();
    if let Some(mut running) = request.begin(world, &inodes) {
        while running.step(world) {}
    }
}
