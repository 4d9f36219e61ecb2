//! The value of an inode's entry: tagged fields, so that a newer version can add some and this one keeps them.

use crate::clock::Timespec;
use crate::format::entry::{Inode, Kind, Malformed};
use crate::format::wire::{each_field, put_field, whole};

// Field types, FORMAT.md "Tree entries and pages".
const STAT: u16 = 1;
const MTIME: u16 = 2;
const CTIME: u16 = 3;
const ATIME: u16 = 4;
const BTIME: u16 = 5;
const RDEV: u16 = 6;
const TARGET: u16 = 7;
const HANDLE: u16 = 8;
const FLAGS: u16 = 9;

const RACY: u8 = 1;
const IN_PLACE: u8 = 2;

impl Kind {
    /// Reads the number that stands in entries; `None` if this version knows none such.
    pub fn from_u8(value: u8) -> Option<Self> {
        [
            Self::File,
            Self::Dir,
            Self::Symlink,
            Self::Fifo,
            Self::Socket,
            Self::CharDevice,
            Self::BlockDevice,
        ]
        .into_iter()
        .find(|&kind| kind as u8 == value)
    }
}

impl Inode {
    /// Its bytes; fields that say nothing are left out, unknown ones stand where they belong.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = vec![
            (STAT, self.stat()),
            (MTIME, time(&self.mtime)),
            (CTIME, time(&self.ctime)),
            (ATIME, time(&self.atime)),
        ];
        fields.extend(self.btime.map(|btime| (BTIME, time(&btime))));
        if self.rdev != 0 {
            fields.push((RDEV, self.rdev.to_le_bytes().to_vec()));
        }
        if !self.target.is_empty() {
            fields.push((TARGET, self.target.clone()));
        }
        if !self.handle.is_empty() {
            fields.push((HANDLE, self.handle.clone()));
        }
        let flags = (u8::from(self.racy) * RACY) | (u8::from(self.in_place) * IN_PLACE);
        if flags != 0 {
            fields.push((FLAGS, vec![flags]));
        }
        fields.extend(self.unknown.iter().cloned());
        fields.sort_by_key(|(kind, _)| *kind);
        let mut out = Vec::with_capacity(96 + self.target.len() + self.handle.len());
        for (kind, bytes) in fields {
            put_field(&mut out, kind, &bytes);
        }
        out
    }

    /// Reads [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read(bytes).ok_or(Malformed("inode"))
    }

    fn stat(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(23);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.links.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut inode = Self {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            links: 0,
            size: 0,
            rdev: 0,
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            atime: Timespec::default(),
            btime: None,
            target: Vec::new(),
            handle: Vec::new(),
            racy: false,
            in_place: false,
            unknown: Vec::new(),
        };
        let mut has_stat = false;
        each_field(bytes, |kind, value| {
            has_stat |= kind == STAT;
            inode.read_field(kind, value)
        })?;
        has_stat.then_some(inode)
    }

    fn read_field(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            STAT => whole(value, |reader| {
                self.kind = Kind::from_u8(reader.u8()?)?;
                self.mode = reader.u16()?;
                self.uid = reader.u32()?;
                self.gid = reader.u32()?;
                self.links = reader.u32()?;
                self.size = reader.u64()?;
                Some(())
            })?,
            MTIME => self.mtime = read_time(value)?,
            CTIME => self.ctime = read_time(value)?,
            ATIME => self.atime = read_time(value)?,
            BTIME => self.btime = Some(read_time(value)?),
            RDEV => self.rdev = u64::from_le_bytes(value.try_into().ok()?),
            TARGET => self.target = value.to_vec(),
            HANDLE => self.handle = value.to_vec(),
            FLAGS => {
                let &[flags] = value else { return None };
                // A further flag will be a field of its own, since a bit could not be kept.
                if flags & !(RACY | IN_PLACE) != 0 {
                    return None;
                }
                self.racy = flags & RACY != 0;
                self.in_place = flags & IN_PLACE != 0;
            }
            _ => self.unknown.push((kind, value.to_vec())),
        }
        Some(())
    }
}

fn time(time: &Timespec) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    out.extend_from_slice(&time.secs.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
    out
}

fn read_time(bytes: &[u8]) -> Option<Timespec> {
    whole(bytes, |reader| {
        let time = Timespec {
            secs: reader.i64()?,
            nanos: reader.u32()?,
        };
        (time.nanos < 1_000_000_000).then_some(time)
    })
}
