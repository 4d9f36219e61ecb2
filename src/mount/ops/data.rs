//! Contents: opening, reading, writing, making durable, and the calls that change a file's extents.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{Asker, Event, Ops, os_error};
use crate::failpoint::{self, Point};
use crate::id::FileId;
use crate::mount::handles::OpenFile;
use crate::mount::inodes::Inode;
use crate::source::Stat;
use crate::sys;

/// Bytes of one copy_file_range(2): both inodes are locked meanwhile, and a program is used to a short answer.
const COPY_LEN_MAX: u64 = 16 << 20;
/// Flags of open(2) that concern the source's file. The rest is the kernel's business (O_NOFOLLOW, O_CLOEXEC), is done
/// here (O_CREAT, O_TRUNC, O_SYNC), or would do harm (O_APPEND, O_DIRECT; see [`OpenFile`]).
const PASSED_ON: i32 = libc::O_ACCMODE | libc::O_NOATIME;

/// The flags for the source.
pub(super) fn file_flags(flags: i32) -> i32 {
    flags & PASSED_ON
}

/// A file handle for the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The inode.
    pub id: FileId,
    /// Its number.
    pub handle: u64,
    /// What the kernel has cached of the file is still true.
    pub keep_cache: bool,
}

/// How durable a write must be when it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Durable {
    Later,
    Data,
    All,
}

impl Durable {
    fn asked_by(flags: i32) -> Self {
        if flags & libc::O_SYNC == libc::O_SYNC {
            Self::All
        } else if flags & libc::O_DSYNC != 0 {
            Self::Data
        } else {
            Self::Later
        }
    }
}

/// A write as it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The open file.
    pub handle: u64,
    /// Where.
    pub offset: u64,
    /// What.
    pub data: &'a [u8],
    /// The open file's `O_*` flags now.
    pub flags: i32,
    /// The writer, if its rights do not reach far enough to leave set-id bits on the file.
    pub clears_set_id: Option<Asker>,
}

/// A copy as it was asked for: (handle, offset) on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// Where from.
    pub from: (u64, u64),
    /// Where to.
    pub to: (u64, u64),
    /// Bytes wanted.
    pub len: u64,
    /// Who.
    pub asker: Asker,
}

impl Ops {
    /// Opens a file; with `O_TRUNC` it is emptied (the kernel asks for that with `create` alone; else it truncates after opening).
    pub fn open(&self, id: FileId, flags: i32, asker: &Asker) -> io::Result<Opened> {
        let inode = self.inode(id)?;
        let file = if flags & libc::O_TRUNC != 0 {
            self.open_emptied(&inode, flags, asker)?
        } else {
            self.source.open_node(inode.node(), file_flags(flags))?
        };
        let stat = stat(&file)?;
        inode.notice(&stat);
        Ok(self.opened(inode, file, &stat, flags))
    }

    fn open_emptied(&self, inode: &Inode, flags: i32, asker: &Asker) -> io::Result<File> {
        let touched = [inode.live()];
        let mut guard = self.epochs.change(&touched)?;
        let before = self.source.stat(inode.node())?;
        guard.resize(inode.live(), before.size, 0)?;
        let flags = file_flags(flags) | libc::O_TRUNC;
        let file = self.source.open_node(inode.node(), flags)?;
        if before.size > 0 {
            guard.emptied(inode.live());
        }
        self.clear_set_id(inode, &before, asker)?;
        inode.changed(&before, &stat(&file)?);
        Ok(file)
    }

    /// Reads into `buffer`; fewer bytes than it holds only at the end of the file.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let open = self.file(handle)?;
        let mut done = 0;
        while done < buffer.len() {
            match open.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes; how many bytes got there, fewer than asked only if an error came in between.
    pub fn write(&self, write: Write<'_>) -> io::Result<usize> {
        let open = self.file(write.handle)?;
        let len = write.data.len() as u64;
        let end = write.offset.checked_add(len).ok_or(os_error(libc::EFBIG))?;
        if let Some(asker) = &write.clears_set_id
            && open.inode.may_have_set_id()
        {
            self.clear_set_id_before_write(&open.inode, asker)?;
        }
        let live = open.inode.live();
        let guard = self.epochs.write(live, write.offset..end)?;
        let written = write_all_possible(&open.file, write.offset, write.data);
        failpoint::reach(Point::Write);
        drop(guard);
        let written = written?;
        let reached = write.offset..write.offset + written as u64;
        open.run.lock().advance(reached);
        self.make_durable(&open, Durable::asked_by(write.flags))?;
        Ok(written)
    }

    /// To be called when a write to this handle has been answered: some of what has been written may be due to set out for the disk, and
    /// the program need not wait for that. What is lost on that way is said by the next fsync.
    pub fn begin_write_back(&self, handle: u64) {
        // It may be closed already.
        if let Ok(open) = self.files.get(handle) {
            self.write_back.begin(&open);
        }
    }

    /// Closes a handle.
    pub fn release(&self, handle: u64) {
        let Some(open) = self.files.remove(handle) else {
            return;
        };
        if open.writable {
            open.inode.closed_writer(stat(&open.file).ok().as_ref());
            let id = open.inode.id();
            // Its descriptor is closed before anybody acts on the event, unless its last bytes are just setting out for the disk.
            drop(open);
            self.tell(Event::Closed(id));
        }
    }

    /// Returns when the file's contents (and attributes, unless `data_only`) and what the journal owes for it are durable,
    /// and in hot mode when the hook says so.
    pub fn sync(&self, handle: u64, data_only: bool) -> io::Result<()> {
        let open = self.file(handle)?;
        let durable = if data_only {
            Durable::Data
        } else {
            Durable::All
        };
        self.make_durable(&open, durable)?;
        let id = open.inode.id();
        self.tell(Event::Fsync(id));
        match &self.options.on_fsync {
            Some(hook) => hook(id),
            None => Ok(()),
        }
    }

    fn make_durable(&self, open: &OpenFile, durable: Durable) -> io::Result<()> {
        if durable == Durable::Later {
            return Ok(());
        }
        // First: bytes may be on the disk without their times, and then nothing but the journal tells.
        let noted = match self.journal.owes(open.inode.id()) {
            true => self.journal.sync(),
            false => Ok(()),
        };
        match durable {
            Durable::Later => {}
            Durable::Data => open.file.sync_data()?,
            Durable::All => open.file.sync_all()?,
        }
        open.run.lock().take_lost()?;
        noted
    }

    /// fallocate(2) with its `FALLOC_FL_*` flags.
    pub fn allocate(
        &self,
        handle: u64,
        mode: i32,
        start: u64,
        len: u64,
        asker: &Asker,
    ) -> io::Result<()> {
        let open = self.file(handle)?;
        let end = start.checked_add(len).ok_or(os_error(libc::EFBIG))?;
        let live = open.inode.live();
        let writes = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        if writes {
            self.epochs.forewarn(live.node(), &(start..end));
        }
        let touched = [live];
        let mut guard = self.epochs.change(&touched)?;
        let before = stat(&open.file)?;
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > before.size {
            guard.resize(live, before.size, end)?;
        }
        if writes {
            guard.dirty(live, start..end)?;
        }
        sys::allocate(&open.file, mode, start, len)?;
        self.clear_set_id(&open.inode, &before, asker)
    }

    /// lseek(2) for `SEEK_DATA` and `SEEK_HOLE`; the kernel does the others itself.
    pub fn seek(&self, handle: u64, offset: i64, whence: i32) -> io::Result<u64> {
        if whence != libc::SEEK_DATA && whence != libc::SEEK_HOLE {
            return Err(os_error(libc::EINVAL));
        }
        sys::seek(&self.file(handle)?.file, offset, whence)
    }

    /// copy_file_range(2); how many bytes were copied, at most 16 MiB.
    pub fn copy_range(&self, copy: Copy) -> io::Result<usize> {
        let (from, to) = (self.file(copy.from.0)?, self.file(copy.to.0)?);
        if let Some(end) = copy.to.1.checked_add(copy.len.min(COPY_LEN_MAX)) {
            self.epochs.forewarn(to.inode.node(), &(copy.to.1..end));
        }
        let touched = [from.inode.live(), to.inode.live()];
        let mut guard = self.epochs.change(&touched)?;
        let there = stat(&from.file)?.size.saturating_sub(copy.from.1);
        let len = copy.len.min(COPY_LEN_MAX).min(there);
        let end = copy.to.1.checked_add(len).ok_or(os_error(libc::EFBIG))?;
        let before = stat(&to.file)?;
        if len == 0 {
            return Ok(0);
        }
        let live = to.inode.live();
        if end > before.size {
            guard.resize(live, before.size, end)?;
        }
        guard.dirty(live, copy.to.1..end)?;
        let copied = sys::copy_range(&from.file, copy.from.1, &to.file, copy.to.1, len as usize)?;
        self.clear_set_id(&to.inode, &before, &copy.asker)?;
        Ok(copied)
    }
}

fn stat(file: &File) -> io::Result<Stat> {
    sys::stat(file).map(Stat::from)
}

/// Writes until all is there or an error comes; the error only if nothing got there.
fn write_all_possible(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_follows_the_flags() {
        assert_eq!(Durable::asked_by(libc::O_RDWR), Durable::Later);
        assert_eq!(Durable::asked_by(libc::O_DSYNC), Durable::Data);
        assert_eq!(Durable::asked_by(libc::O_SYNC), Durable::All);
    }
}
