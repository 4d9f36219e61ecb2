//! What a check found: a plain list for people, the same as JSON for scripts. Pure.

use serde::Serialize;

/// Entries of a list that are kept; more are only counted. A store that lost a whole folder gives one for each object in it.
const LISTED_MAX: usize = 10_000;
/// Examples given of snapshots and of paths.
const EXAMPLES: usize = 5;

/// What was looked at, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Snapshots whose commit was proven.
    pub snapshots: u64,
    /// Those of them whose names, inodes and link counts were compared with each other, the newest first.
    pub snapshots_compared: u64,
    /// Tree pages read, each once however many snapshots share it.
    pub pages: u64,
    /// Objects looked at.
    pub objects: u64,
    /// Frames found where they are said to be (structure) or decrypted (data).
    pub frames: u64,
    /// Bytes of objects read whole.
    pub bytes: u64,
    /// Chunks whose content id was computed anew and found right.
    pub chunks: u64,
    /// Stretches of files beyond the number that is kept in mind at once, whose lengths and content ids were not compared. The frames they
    /// lie in were proven all the same.
    pub stretches_not_compared: u64,
    /// Objects that no snapshot needs: garbage, not damage.
    pub unreferenced_objects: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// How much more is damaged than the list holds.
    pub damage_not_listed: u64,
    /// What is odd and harmless.
    pub notes: Vec<String>,
    /// How many more notes there are than the list holds.
    pub notes_not_listed: u64,
}

/// One thing that is damaged or missing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Damage {
    /// The object's name in the store.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Snapshots that need it, as `@SEQ`, newest first.
    pub snapshots: Sample,
    /// Paths that cannot be read, or not wholly, in the newest of these snapshots.
    pub paths: Sample,
}

/// The first few of something, and how many there are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sample {
    /// The first few.
    pub first: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Sample {
    /// How many examples are kept.
    pub(super) const fn room() -> usize {
        EXAMPLES
    }

    /// Counts one more, and keeps it if there is room.
    pub(super) fn add(&mut self, one: impl ToString) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(one.to_string());
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count.saturating_sub(self.first.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.what)?;
        if self.snapshots.count > 0 {
            write!(f, "; snapshots {}", self.snapshots)?;
        }
        if self.paths.count > 0 {
            write!(f, "; {}", self.paths)?;
        }
        Ok(())
    }
}

impl Report {
    /// Whether anything is damaged: exit code 4.
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty() || self.damage_not_listed > 0
    }

    /// Both as one, for `check --read-data`: what was looked at in both is counted once.
    pub fn merge(mut self, other: Self) -> Self {
        self.snapshots = self.snapshots.max(other.snapshots);
        self.snapshots_compared = self.snapshots_compared.max(other.snapshots_compared);
        self.pages = self.pages.max(other.pages);
        self.objects = self.objects.max(other.objects);
        self.frames = self.frames.max(other.frames);
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.stretches_not_compared += other.stretches_not_compared;
        self.unreferenced_objects += other.unreferenced_objects;
        self.unreferenced_bytes += other.unreferenced_bytes;
        for damage in other.damage {
            if !self.damage.contains(&damage) {
                self.add_damage(damage);
            }
        }
        self.damage_not_listed += other.damage_not_listed;
        other.notes.into_iter().for_each(|note| self.add_note(note));
        self.notes_not_listed += other.notes_not_listed;
        self
    }

    /// Lists damage, or counts it when the list is full.
    pub(super) fn add_damage(&mut self, damage: Damage) {
        match self.damage.len() < LISTED_MAX {
            true => self.damage.push(damage),
            false => self.damage_not_listed += 1,
        }
    }

    /// Lists something odd, or counts it when the list is full.
    pub(super) fn add_note(&mut self, note: String) {
        match self.notes.len() < LISTED_MAX {
            true => self.notes.push(note),
            false => self.notes_not_listed += 1,
        }
    }
}
