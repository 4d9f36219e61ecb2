//! Reading a directory entry by entry, from any place in it.
//!
//! Offsets are the source file system's own (they survive changes of the directory), passed through unchanged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::format::entry::Kind;
use crate::sys;

/// Raw entries read by one system call: a few hundred names.
const BUFFER_LEN: usize = 32 << 10;

/// An entry of a directory, `.` and `..` included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// Its kind, where the directory says.
    pub kind: Option<Kind>,
    /// Where to go on after it.
    pub next: u64,
}

/// An open directory.
pub struct Listing {
    /// `None` for a place where something else is mounted: it shows as empty.
    dir: Option<OwnedFd>,
    buffer: Vec<u8>,
    unread: std::ops::Range<usize>,
    /// The offset of the first unread entry.
    at: u64,
    /// The entry read last: where it begins in the buffer, and its offset.
    last: Option<(usize, u64)>,
}

impl Listing {
    pub(super) fn new(dir: Option<OwnedFd>) -> Self {
        Self {
            dir,
            buffer: Vec::new(),
            unread: 0..0,
            at: 0,
            last: None,
        }
    }

    /// The directory's descriptor; `None` for a submount.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(AsFd::as_fd)
    }

    /// Goes to an offset: 0, or one that an entry's `next` has named. Going to where it is already costs nothing.
    /// Offset 0 always looks at the directory anew.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        if offset == self.at && offset != 0 {
            return Ok(());
        }
        let Some(dir) = &self.dir else { return Ok(()) };
        sys::seek(dir, offset as i64, libc::SEEK_SET)?;
        self.unread = 0..0;
        self.at = offset;
        self.last = None;
        Ok(())
    }

    /// Makes the entry read last the next one again. Once; does nothing at the beginning.
    pub fn unread(&mut self) {
        if let Some((start, offset)) = self.last.take() {
            self.unread.start = start;
            self.at = offset;
        }
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Listed>> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        if self.unread.is_empty() {
            self.buffer.resize(BUFFER_LEN, 0);
            let len = sys::read_entries(dir, &mut self.buffer)?;
            self.unread = 0..len;
        }
        if self.unread.is_empty() {
            return Ok(None);
        }
        let raw = &self.buffer[self.unread.clone()];
        let (entry, len) = parse(raw).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
        self.last = Some((self.unread.start, self.at));
        self.unread.start += len;
        self.at = entry.next;
        Ok(Some(entry))
    }
}

/// `struct linux_dirent64`: inode 8, offset 8, length 2, type 1, name ended by NUL. The entry and its length.
#[expect(
    clippy::host_endian_bytes,
    reason = "a structure of this machine's kernel, never stored"
)]
fn parse(raw: &[u8]) -> Option<(Listed, usize)> {
    let next = u64::from_ne_bytes(raw.get(8..16)?.try_into().ok()?);
    let len = usize::from(u16::from_ne_bytes(raw.get(16..18)?.try_into().ok()?));
    let name = raw.get(19..len)?;
    let name = &name[..name.iter().position(|&byte| byte == 0)?];
    let entry = Listed {
        name: name.to_vec(),
        kind: kind(*raw.get(18)?),
        next,
    };
    Some((entry, len))
}

fn kind(raw: u8) -> Option<Kind> {
    match raw {
        libc::DT_REG => Some(Kind::File),
        libc::DT_DIR => Some(Kind::Dir),
        libc::DT_LNK => Some(Kind::Symlink),
        libc::DT_FIFO => Some(Kind::Fifo),
        libc::DT_SOCK => Some(Kind::Socket),
        libc::DT_CHR => Some(Kind::CharDevice),
        libc::DT_BLK => Some(Kind::BlockDevice),
        _ => None,
    }
}
