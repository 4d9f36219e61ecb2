//! One seal: a sealed epoch through all stages until it is CAPTURED.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Stamp;
use crate::epoch::{Attributes, Sealed};
use crate::failpoint::{self, Point};
use crate::flusher::capture::{Captured, ContentPlan, Refusals, SealedReader, capture, plan};
use crate::flusher::changes::{Changes, history_entry};
use crate::flusher::commit::{CommitWriter, Draft, Written};
use crate::flusher::consolidate;
use crate::flusher::copied::Copied;
use crate::flusher::cut::{Cutter, Laid, Piece, Recent};
use crate::flusher::dedup::Seen;
use crate::flusher::entries::{Outcome, Touched, outcome};
use crate::flusher::error::Error;
use crate::flusher::flow::{Flow, mark};
use crate::flusher::manifest::{Manifest, SpooledName, SpooledObject};
use crate::flusher::pack::{Packed, Packer};
use crate::flusher::pipeline::PipelineParts;
use crate::flusher::progress::{Phase, Who};
use crate::flusher::spool::{Spool, SpooledBlock};
use crate::flusher::upload::Job;
use crate::format::commit::TreeRoot;
use crate::format::entry::{Inode, Kind, Totals};
use crate::id::{EpochNo, FileId, SessionId};
use crate::journal::LOGICAL_BLOCK_LEN;
use crate::repo::blocks::Blocks;
use crate::repo::commits::Found;
use crate::repo::tree::Tree;

/// Files up to this size are captured first: each is one read, and it frees whoever would have to wait for it.
const SMALL_FILE: u64 = 64 << 10;
/// Between attempts at the last step of a capture.
const INSIST_PAUSE: Duration = Duration::from_secs(1);

impl Flow {
    /// Seals and takes the epoch all the way to CAPTURED; then those who wait are told when it is in the store.
    /// A failure on the way folds the epoch back into the open one.
    pub(super) fn seal(&mut self) -> Result<(), Error> {
        let wall = self.clock.now();
        if self.session.stepped_back(wall) || self.right.is_half_replaced() {
            self.begin_era(wall)?;
        }
        // While a scan runs, or much is still to be copied, nobody is served by what is sealed: it is not an exact moment.
        self.inexact = self.is_held() || self.copying;
        let label = if self.inexact {
            String::new()
        } else {
            self.next_label()
        };
        self.event = false;
        let since = self.progress.sealed(wall);
        let sealed = self.epochs.seal();
        if let Some(sealed) = &sealed {
            self.last_epoch = Some(sealed.epoch());
            if self.ahead.is_outlived_at(sealed.drops()) {
                self.recent.forget_placed();
            }
            if !sealed.is_exact() && !self.inexact {
                // Something has come to be owed just before the seal. Dropped, it is folded, and sealed again when that is paid.
                self.progress.unsealed(since);
                return Err(Error::Folded);
            }
            self.progress.phase(Phase::Capturing);
            failpoint::reach(Point::Seal);
        }
        if sealed.is_some() || !label.is_empty() || self.owes_moment() {
            let flushed = self.flush(sealed, wall, since, &label);
            self.recent = Recent::default();
            if flushed.is_err() {
                self.progress.unsealed(since);
            }
            flushed?;
        } else {
            self.progress.sealed_nothing();
        }
        self.last_seal = Instant::now();
        // Before anybody is answered who may look.
        self.progress.phase(Phase::Idle);
        if !self.inexact {
            self.answer_waiters(&label);
        }
        Ok(())
    }

    /// From a sealed epoch (or from nothing, for a mere label) to a captured one, stage by stage.
    fn flush(
        &mut self,
        sealed: Option<Sealed>,
        wall: Stamp,
        since: Stamp,
        label: &str,
    ) -> Result<(), Error> {
        let mut captured = match &sealed {
            Some(sealed) => {
                let refusals = Refusals {
                    known: &self.progress.refused(),
                    hopeless: &self.hopeless,
                    suspected: self.suspecting,
                };
                capture(sealed, &refusals, self.inexact)?
            }
            None => Captured::default(),
        };
        captured
            .refused
            .iter()
            .for_each(|&id| self.progress.refuse(id));
        if !captured.refused.is_empty() {
            self.forgetting.left_out();
        }
        if let Some(sealed) = &sealed {
            self.owe_created(&captured, sealed.epoch());
            self.owe_refused(&captured.readable, sealed.epoch());
        }
        // Beside all that follows.
        let noted = self.forgetting.make_durable();
        self.add_root(&mut captured)?;

        let parent = self.parent();
        self.add_withheld(&parent, &mut captured)?;
        for (&id, touched) in &mut captured.inodes {
            touched.copied_front = self.ahead.front(id);
        }
        let (inodes, names) = (&captured.inodes, &captured.names);
        let mut outcome = self
            .runtime
            .block_on(outcome(&parent, inodes, names, wall))?;

        if let Some(sealed) = &sealed {
            self.consolidate(&parent, sealed, &mut captured, &outcome)?;
        }
        // Let go one after another: many of them, of plans and of pages need not be in memory at once.
        let (inodes, alive) = (take(&mut captured.inodes), take(&mut outcome.alive));
        let plans = self.plans(inodes, alive);
        let (packed, laid) = self.contents(&parent, sealed.as_ref(), plans)?;
        let written = self.write_commit(&parent, outcome, &packed, &laid, wall, label)?;
        noted.wait()?;
        self.make_captured(sealed, &captured.postponed, packed, written, since)?;
        let readable = captured.readable.iter();
        readable.for_each(|&id| self.progress.forgive(id));
        self.struck = None;
        self.suspecting = false;
        self.hopeless.clear();
        self.withheld
            .committed(captured.names, &self.progress.refused());
        self.remember_chunks(&laid);
        Ok(())
    }

    /// What was refused and can be read now gets the names that no commit has.
    fn add_withheld(
        &self,
        parent: &Tree<Arc<Blocks>>,
        captured: &mut Captured,
    ) -> Result<(), Error> {
        for name in self.withheld.of(&captured.readable, &captured.names) {
            if self.runtime.block_on(parent.inode(name.0))?.is_some() {
                captured.names.push(name);
            }
        }
        captured
            .names
            .sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(())
    }

    /// While a file is being made no intent is noted, since no commit knows it. From this one on there will be something to compare.
    fn owe_created(&self, captured: &Captured, epoch: EpochNo) {
        let has_data = |touched: &&Touched| {
            let attributes = touched.attributes.as_ref();
            attributes.is_some_and(|a| a.stat.kind == Kind::File && a.stat.size > 0)
        };
        let made = captured.inodes.values().filter(|touched| touched.fresh);
        for touched in made.filter(has_data) {
            self.forgetting.owe(touched.node.id, epoch);
        }
        // What no commit could hold so far may have been made in an earlier one.
        let readable = captured.readable.iter();
        readable.for_each(|&id| self.forgetting.owe(id, epoch));
    }

    /// What is left out stays owed beyond `epoch`, also for the next life, which begins without knowing that it was: its times may be those
    /// of the commit and its bytes others, where they are what was doubted.
    /// It is owed no more once it is `readable`.
    fn owe_refused(&self, readable: &[FileId], epoch: EpochNo) {
        let next = EpochNo(epoch.0 + 1);
        let refused = self.progress.refused().into_iter();
        let left_out = refused.filter(|id| !readable.contains(id));
        left_out.for_each(|id| self.forgetting.owe(id, next));
    }

    /// The newest captured commit's tree; an empty one for a new volume.
    pub(super) fn parent(&self) -> Tree<Arc<Blocks>> {
        match &self.base {
            Some(base) => self.volume.tree(&base.commit),
            None => Tree::new(TreeRoot::default(), Arc::clone(self.volume.blocks())),
        }
    }

    /// The first commit holds the root even if nothing has touched it.
    fn add_root(&self, captured: &mut Captured) -> Result<(), Error> {
        if self.base.is_some() || captured.inodes.contains_key(&FileId::ROOT) {
            return Ok(());
        }
        let node = self.source.root();
        let failed = |source| Error::Source {
            id: FileId::ROOT,
            source,
        };
        let attributes = Attributes {
            stat: self.source.stat(&node).map_err(failed)?,
            xattrs: self.source.xattrs(&node).map_err(failed)?,
            target: Vec::new(),
        };
        let touched = Touched {
            node,
            fresh: false,
            dirty: Vec::new(),
            copied_front: 0,
            attributes: Some(Box::new(attributes)),
            left_out: false,
        };
        captured.inodes.insert(FileId::ROOT, touched);
        Ok(())
    }

    /// Takes clean pages along where a logical block would fall into too many pieces. Skipped for an inode that has been
    /// changed again already, and where copies made ahead lie over the parent's extents.
    fn consolidate(
        &self,
        parent: &Tree<Arc<Blocks>>,
        sealed: &Sealed,
        captured: &mut Captured,
        outcome: &Outcome,
    ) -> Result<(), Error> {
        for (&id, old) in &outcome.alive {
            let Some(touched) = captured.inodes.get_mut(&id) else {
                continue;
            };
            let in_place = old
                .as_ref()
                .is_some_and(|old| old.kind == Kind::File && !touched.fresh);
            let size = touched.attributes.as_ref().map_or(0, |a| a.stat.size);
            if !in_place || touched.dirty.is_empty() || self.ahead.has(id) {
                continue;
            }
            let mut extra = Vec::new();
            for block in logical_blocks(&touched.dirty, size) {
                let extents = self.runtime.block_on(parent.extents(id, block.clone()))?;
                extra.extend(consolidate::plan(block, size, &extents, &touched.dirty));
            }
            if !extra.is_empty() && sealed.also_needs(id, &extra) {
                extra.append(&mut touched.dirty);
                touched.dirty = consolidate::union(extra);
            }
        }
        Ok(())
    }

    /// What is to be read of everything that lives, small files first.
    fn plans(
        &self,
        inodes: BTreeMap<FileId, Touched>,
        alive: BTreeMap<FileId, Option<Arc<Inode>>>,
    ) -> Vec<ContentPlan> {
        let plan = |(id, touched)| {
            let old = alive.get(&id)?.as_deref();
            plan(&touched, old, self.ahead.end(id), self.ahead.has(id))
        };
        let mut plans: Vec<ContentPlan> = inodes.into_iter().filter_map(plan).collect();
        plans.sort_by_key(|plan| plan.size > SMALL_FILE);
        plans
    }

    /// Reads, cuts and packs contents.
    fn contents(
        &mut self,
        parent: &Tree<Arc<Blocks>>,
        sealed: Option<&Sealed>,
        plans: Vec<ContentPlan>,
    ) -> Result<(Packed, Vec<Laid>), Error> {
        let runtime = &self.runtime;
        let mut laid = Vec::new();
        let block_len = self.volume.config().block_len;
        let parts = PipelineParts {
            // An exact moment may be waited for.
            gives_way: self.inexact && !self.epochs.activity().is_hurried(),
            ..self.pipeline.clone()
        };
        let mut packer = Packer::for_epoch(&self.session, parts, block_len);
        for plan in plans {
            let Some(sealed) = sealed else { break };
            let reader = SealedReader {
                sealed,
                id: plan.id,
            };
            let mut cutter = Cutter {
                keys: &self.pipeline.keys,
                gear: &self.gear,
                index: &self.index,
                prove: &|id, end, content| {
                    Ok(runtime.block_on(parent.holds_chunk(id, end, content))?)
                },
                window: &mut self.window,
                recent: &mut self.recent,
                copied: &mut self.copied,
                packer: &mut packer,
                laid: &mut laid,
            };
            cutter.file(&plan, self.ahead.of(plan.id), &reader)?;
        }
        Ok((packer.finish()?, laid))
    }

    fn write_commit(
        &mut self,
        parent: &Tree<Arc<Blocks>>,
        outcome: Outcome,
        packed: &Packed,
        laid: &[Laid],
        wall: Stamp,
        label: &str,
    ) -> Result<Written, Error> {
        let before = self
            .base
            .as_ref()
            .map(|base| base.commit.totals)
            .unwrap_or_default();
        let draft = Draft {
            name: self.session.next_name(wall),
            wall,
            previous: self.base.as_ref(),
            generation: self.right.writership().generation(),
            host: &self.options.host,
            source: &self.options.source_path,
            label,
            incomplete: self.inexact,
            next_file_id: self.source.next_id().0,
            totals: Totals {
                files: before.files.saturating_add_signed(outcome.files),
                bytes: before.bytes.saturating_add_signed(outcome.bytes),
                ..Totals::default()
            },
            ahead: self.ahead.bytes(),
            ahead_stored: self.copied_ahead().map(|object| object.len).sum(),
        };
        let mut writer = CommitWriter {
            session: &self.session,
            parts: &self.pipeline,
            block_len: self.volume.config().block_len,
            reserve: &mut self.reserve,
        };
        let changes = Changes {
            entries: Some(outcome.changes),
            history: self.base.as_ref().map(history_entry),
            laid,
            packed,
        };
        let writing = writer.write(&draft, parent, changes);
        self.runtime.block_on(writing)
    }

    /// The point of no return. Everything that can fail for want of space has been done when the epoch is asked whether a writer
    /// has given it up meanwhile; if not, the manifest makes it CAPTURED: never folded, its commit final.
    fn make_captured(
        &mut self,
        sealed: Option<Sealed>,
        postponed: &BTreeSet<FileId>,
        mut packed: Packed,
        mut written: Written,
        since: Stamp,
    ) -> Result<(), Error> {
        let mut own: Vec<&mut SpooledBlock> = packed.blocks.iter_mut().collect();
        own.extend(&mut written.tree);
        own.push(&mut written.object);
        let mut objects: Vec<SpooledObject> = self.copied_ahead().cloned().collect();
        objects.extend(own.iter().map(|block| block.object.clone()));
        let found = written.found;
        let named = |found: &Found| SpooledName::new(&found.commit.name, &found.tag);
        let manifest = Manifest {
            name: named(&found),
            previous: self.base.as_ref().map(named),
            objects,
            wall: found.commit.wall.0,
            // What an earlier life owed is in no commit that was made while it was still being looked for. What an
            // incomplete commit holds is owed until the next complete one, even if nothing has changed between the two.
            epoch: self
                .last_epoch
                .filter(|_| !self.inexact)
                .map(|epoch| epoch.0),
        };
        let prepared = manifest.prepare(&self.spool)?;
        failpoint::reach(Point::ManifestPrepared);
        if let Some(sealed) = sealed {
            sealed
                .finish_without(postponed)
                .map_err(|_| Error::Folded)?;
        }
        for block in own {
            block.keep();
        }
        self.insist(|spool| prepared.publish(spool));
        failpoint::reach(Point::Captured);

        self.session.confirm(&found.commit.name, found.commit.wall);
        self.progress.captured(mark(&found), since, written.bytes);
        tracing::info!(seq = %found.commit.name.seq, objects = manifest.objects.len(), "captured");
        self.queue.push(Job::Commit(Box::new(manifest)));
        self.base = Some(found);
        self.ahead.keep_only(postponed);
        self.copied.captured();
        if !self.inexact {
            // Nothing is looked for any more.
            self.copied = Copied::default();
        }
        if self.ahead.blocks().is_empty() {
            self.spool.keep_copied_best_effort(&self.copied.rest());
        }
        Ok(())
    }

    /// The blocks that were made ahead of this commit, in this life and an earlier one.
    fn copied_ahead(&self) -> impl Iterator<Item = &SpooledObject> {
        self.ahead.blocks().iter().chain(self.copied.used())
    }

    /// Two renames and an fsync of a directory, which must succeed, since the epoch cannot be folded any more: they are tried
    /// until they do. Should the process end before, the journal still owes all of it.
    fn insist(&self, publish: impl Fn(&Spool) -> Result<(), Error>) {
        while let Err(error) = publish(&self.spool) {
            self.progress
                .failed(Who::Flow, error.to_string(), self.clock.now());
            std::thread::sleep(INSIST_PAUSE);
        }
    }

    /// Chunks are looked for where they were seen last: the file that held them before may be gone with this commit.
    fn remember_chunks(&mut self, laid: &[Laid]) {
        let seen = |(id, range, piece): &Laid| match piece {
            Piece::New { content, .. } | Piece::Held { content, .. } => Some(Seen {
                content: (*content)?,
                id: *id,
                end: range.end,
            }),
            _ => None,
        };
        let chunks = laid.iter().filter_map(seen).collect();
        self.index.remember_best_effort(chunks);
    }

    /// A clock that stepped back far begins an era under a new session, which the repository must know of first: without
    /// the store nothing is sealed until it is back.
    fn begin_era(&mut self, wall: Stamp) -> Result<(), Error> {
        let session = SessionId::random();
        let (base, lease) = (self.base.as_ref(), self.options.lease);
        // What waits is read before what is published, so that a commit on its way is in one of them.
        let mut heads = self.queue.heads();
        heads.extend(self.progress.watch().borrow().newest.map(|mark| mark.tag));
        // The store itself: with the spool laid over it another machine's commit might not show.
        let volume = self.volume.through(Arc::clone(&self.store));
        let owner = &self.options.owner;
        let claim = volume.claim(session, owner, base, &heads, lease, &*self.clock);
        let era = self.runtime.block_on(self.right.replace(session, claim))?;
        self.session.begin_era(session, era, wall);
        tracing::warn!("the clock stepped back; a new era begins");
        Ok(())
    }
}

/// The logical blocks that `dirty` touches within a file of this size.
fn logical_blocks(
    dirty: &[std::ops::Range<u64>],
    size: u64,
) -> impl Iterator<Item = std::ops::Range<u64>> {
    let mut blocks: Vec<u64> = consolidate::clip(dirty, 0..size)
        .iter()
        .flat_map(|range| range.start / LOGICAL_BLOCK_LEN..=(range.end - 1) / LOGICAL_BLOCK_LEN)
        .collect();
    blocks.dedup();
    blocks.into_iter().map(move |block| {
        let start = block * LOGICAL_BLOCK_LEN;
        start..(start + LOGICAL_BLOCK_LEN).min(size)
    })
}
