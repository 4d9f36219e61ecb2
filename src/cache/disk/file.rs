//! The file of one block: its frames at fixed places, holes between them.

use std::fs::{File, FileTimes, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::buffers::{self, PAGE_LEN};
use crate::sys;

/// No object is longer: blocks have 64 MiB and a frame or two. What is said to lie beyond is not kept.
const OBJECT_LEN_MAX: u64 = 128 << 20;
/// A frame that was cut into pieces is longer than it was, so the places of such lie further apart by one part in this many: for one of 64 KiB
/// or more that is room enough, its beginning on a page included.
const CUT_APART_PART: u64 = 8;
/// No entry is longer: a frame of 1 MiB with the heads of its pieces.
const ENTRY_LEN_MAX: u32 = 2 << 20;
/// The part of a frame that is asked for zeros: there are none at the beginning of what was encrypted.
const BEGINNING_LEN: usize = 16;
/// Bytes written at once: whoever reads another frame of the block waits for no more than these.
const WRITE_LEN: usize = 128 << 10;
/// The most that is read past the system's memory: whoever reads more is likely to read on, and the system reads ahead for him.
const DIRECT_LEN_MAX: usize = 16 << 10;
/// A block's time of use is refreshed at most this often: a read should not cost a write.
const TOUCH_AFTER: Duration = Duration::from_secs(300);
/// For so long whoever reads a little here and there believes that a file still has its name. Looking takes 2 us.
const LATELY: Duration = Duration::from_secs(1);

/// How a frame lies on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As in its object.
    Whole,
    /// Cut into pieces that can be read one by one. Only for frames of 64 KiB and more.
    Cut,
}

/// Where a frame lies in the file of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Where the frame begins in its object.
    pub offset: u64,
    /// In which form it lies here.
    pub form: Form,
    /// Bytes that it has in this form.
    pub len: u32,
}

impl Spot {
    /// Its bytes in the file; `None` if no object, or no frame, is as long as that.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        let end = self.offset.checked_add(self.len.into())?;
        if end > OBJECT_LEN_MAX || self.len > ENTRY_LEN_MAX {
            return None;
        }
        let begin = match self.form {
            Form::Whole => self.offset,
            Form::Cut => {
                let apart = self.offset + self.offset / CUT_APART_PART;
                OBJECT_LEN_MAX + apart.next_multiple_of(PAGE_LEN as u64)
            }
        };
        Some(begin..begin + u64::from(self.len))
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct BlockFile {
    file: File,
    /// Somebody else's may be only read.
    pub(super) is_writable: bool,
    /// The same without the system's page cache; `None` where the file system cannot do that.
    direct: OnceLock<Option<File>>,
    /// When it was found to have a name, most lately.
    touched: Mutex<Option<SystemTime>>,
}

impl BlockFile {
    pub(super) fn new(file: File, is_writable: bool) -> Self {
        Self {
            file,
            is_writable,
            direct: OnceLock::new(),
            touched: Mutex::new(None),
        }
    }

    /// Marks it as used at `now`, and says whether it still has a name.
    pub(super) fn touch(&self, now: SystemTime) -> bool {
        let Ok(meta) = self.file.metadata() else {
            return false;
        };
        if !is_recent(&meta, now) {
            // If that cannot be, it is merely evicted earlier.
            let _ = self.file.set_times(FileTimes::new().set_modified(now));
        }
        let has_name = meta.nlink() > 0;
        *self.touched.lock() = has_name.then_some(now);
        has_name
    }

    /// Whether it had a name when it was last touched, which was a moment before `now`.
    pub(super) fn was_touched_lately(&self, now: SystemTime) -> bool {
        let touched = *self.touched.lock();
        touched.is_some_and(|touched| is_within(touched, now, LATELY))
    }

    /// Whether something lies at `range`. Of what fills a page the file system can tell, else its beginning must.
    pub(super) fn has(&self, range: &Range<u64>) -> bool {
        let page = range.start.next_multiple_of(PAGE_LEN as u64);
        if page + PAGE_LEN as u64 <= range.end {
            return self.is_data(page);
        }
        let mut beginning = [0; BEGINNING_LEN];
        let read = self.file.read_exact_at(&mut beginning, range.start);
        read.is_ok_and(|()| !is_hole(&beginning))
    }

    /// Fills `bytes` from `range` on; `None` if nothing lies there.
    pub(super) fn read(
        &self,
        range: &Range<u64>,
        buffer: impl FnOnce(usize) -> Vec<u8>,
    ) -> Option<Vec<u8>> {
        if !self.is_data(range.start) {
            return None;
        }
        let mut bytes = buffer(len_of(range)?);
        self.file.read_exact_at(&mut bytes, range.start).ok()?;
        (!is_hole(&bytes)).then_some(bytes)
    }

    /// The same for a little of a frame, `range` beginning where a page does: from memory if the system has it there, else from the disk
    /// past that memory, since it is not likely to be read again and making room for it takes a sixth of the disk's own time.
    pub(super) fn read_pages(&self, range: &Range<u64>) -> Option<Bytes> {
        let len = len_of(range)?;
        let mut bytes = Vec::new();
        let begin = buffers::align(&mut bytes, len.checked_next_multiple_of(PAGE_LEN)?);
        let pages = bytes.get_mut(begin..)?;
        // Reading with RWF_NOWAIT would tell as well, but asks the disk for what is not there.
        let in_memory = || sys::bytes_in_memory(&self.file, range);
        let is_elsewhere =
            len <= DIRECT_LEN_MAX && in_memory().is_ok_and(|bytes| bytes < len as u64);
        let is_read = is_elsewhere && self.read_directly(pages, range.start, len).is_ok();
        if !is_read {
            let pages = pages.get_mut(..len)?;
            self.file.read_exact_at(pages, range.start).ok()?;
        }
        let bytes = Bytes::from(bytes).slice(begin..begin + len);
        // A piece begins with each page, and somebody may just be writing it.
        (!bytes.chunks(PAGE_LEN).any(is_hole)).then_some(bytes)
    }

    /// The first `len` bytes of `pages`.
    fn read_directly(&self, pages: &mut [u8], at: u64, len: usize) -> io::Result<()> {
        let open = || {
            let flags = libc::O_RDONLY | libc::O_DIRECT;
            sys::reopen(&self.file, flags).ok().map(File::from)
        };
        let direct = self.direct.get_or_init(open).as_ref();
        let direct = direct.ok_or(io::ErrorKind::Unsupported)?;
        let pages = pages.get_mut(..len.next_multiple_of(PAGE_LEN));
        match direct.read_at(pages.ok_or(io::ErrorKind::InvalidInput)?, at)? {
            read if read >= len => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes `bytes` at `at`, the beginning last: while it is not there, nothing is.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let (beginning, rest) = bytes.split_at(BEGINNING_LEN.min(bytes.len()));
        let mut to = at + beginning.len() as u64;
        for slice in rest.chunks(WRITE_LEN) {
            self.file.write_all_at(slice, to)?;
            to += slice.len() as u64;
        }
        self.file.write_all_at(beginning, at)?;
        // Whoever removed it has emptied it, perhaps before this: nobody else would ever free what came after.
        if self.file.metadata().is_ok_and(|meta| meta.nlink() == 0) {
            self.file.set_len(0)?;
        }
        Ok(())
    }

    /// Makes a hole of `range`. Where the file system cannot do that the bytes stay, until they are written over.
    pub(super) fn clear_best_effort(&self, range: &Range<u64>) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let _ = sys::allocate(&self.file, mode, range.start, range.end - range.start);
    }

    fn is_data(&self, at: u64) -> bool {
        let Ok(offset) = i64::try_from(at) else {
            return false;
        };
        match sys::seek(&self.file, offset, libc::SEEK_DATA) {
            Ok(found) => found == at,
            // Beyond the end, or nothing from here on.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => false,
            // It cannot tell: what it gives will.
            Err(_) => true,
        }
    }
}

fn is_recent(meta: &Metadata, now: SystemTime) -> bool {
    let used = meta.modified().ok();
    used.is_some_and(|used| is_within(used, now, TOUCH_AFTER))
}

fn is_within(then: SystemTime, now: SystemTime, span: Duration) -> bool {
    now.duration_since(then).is_ok_and(|age| age < span)
}

fn is_hole(bytes: &[u8]) -> bool {
    bytes.iter().take(BEGINNING_LEN).all(|byte| *byte == 0)
}

fn len_of(range: &Range<u64>) -> Option<usize> {
    usize::try_from(range.end.checked_sub(range.start)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::pieces;

    #[test]
    fn a_page_that_is_not_in_memory_is_read_past_it() {
        let named = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        let file = named.reopen().expect("opened");
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8 + 1).collect();
        let block = BlockFile::new(file, true);
        block.write(&bytes, 0).expect("written");
        let read = |range: Range<u64>| {
            let expected = &bytes[range.start as usize..range.end as usize];
            assert_eq!(block.read_pages(&range).as_deref(), Some(expected));
        };
        read(0..8192);
        assert!(block.direct.get().is_none(), "it is in memory");
        block.file.sync_all().expect("synced");
        sys::forget_pages(&block.file);
        let in_memory = sys::bytes_in_memory(&block.file, &(4096..20_000));
        let is_told = in_memory.is_ok_and(|bytes| bytes == 0);
        read(4096..12_288);
        // Not where the file system keeps all in memory, or the kernel is too old to say.
        assert_eq!(block.direct.get().is_some_and(Option::is_some), is_told);
        for at in [8192, 16_384] {
            let mut buffer = Vec::new();
            let begin = buffers::align(&mut buffer, 8192);
            let wanted = &bytes[at..(at + 8192).min(bytes.len())];
            let pages = &mut buffer[begin..];
            if is_told {
                let direct = block.read_directly(pages, at as u64, wanted.len());
                direct.expect("it can do that, at the end too");
                assert_eq!(&pages[..wanted.len()], wanted);
            }
        }
    }

    /// Nothing is dropped for being read too early.
    #[test]
    fn what_is_half_written_is_not_there() {
        let block = BlockFile::new(tempfile::tempfile().expect("a file"), true);
        let bytes = [7; 8192];
        block.file.write_all_at(&bytes[16..], 16).expect("written");
        assert_eq!(block.read(&(0..8192), |len| vec![0; len]), None);
        assert_eq!(block.read_pages(&(0..8192)), None);
        block.file.write_all_at(&bytes[..16], 0).expect("written");
        assert!(block.read_pages(&(0..8192)).is_some());
        block.file.set_len(4096).expect("cut");
        block.file.set_len(8192).expect("with a hole");
        assert_eq!(block.read_pages(&(0..8192)), None);
        assert!(block.read_pages(&(0..4096)).is_some());
    }

    /// Frames side by side in their object, of every length that is cut and of lengths that fit badly.
    #[test]
    fn no_two_frames_share_a_place() {
        let mut offset = 0;
        let mut ends = [0, 0];
        for n in 0..1000_u32 {
            let frame_len = (64 << 10) + 16 * (n * 7 % 300) + n % 2 * (1 << 20);
            let len = pieces::cut_len(frame_len);
            let whole = Spot {
                offset,
                form: Form::Whole,
                len: frame_len,
            };
            let cut = Spot {
                offset,
                form: Form::Cut,
                len,
            };
            offset += u64::from(frame_len);
            for (end, spot) in ends.iter_mut().zip([whole, cut]) {
                let Some(range) = spot.range() else {
                    assert!(offset > OBJECT_LEN_MAX - (2 << 20));
                    continue;
                };
                assert!(range.start >= *end, "frame {n}");
                assert!(spot.form == Form::Whole || range.start % PAGE_LEN as u64 == 0);
                *end = range.end;
            }
        }
        assert!(offset > OBJECT_LEN_MAX);
        assert!(ends[0] <= OBJECT_LEN_MAX);
        for offset in [u64::MAX, u64::MAX / 9 * 8 + 2, OBJECT_LEN_MAX] {
            for form in [Form::Whole, Form::Cut] {
                let far = Spot {
                    offset,
                    form,
                    len: 1,
                };
                assert_eq!(far.range(), None);
            }
        }
    }
}
