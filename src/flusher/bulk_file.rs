//! A new file that is written once, from front to back. Large ones pass by the page cache: nobody reads them soon, the pages that
//! users work with stay where they are, and a copy and its write-back are saved (a third of a large backup's time).
//! Called by the spool alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sys;

/// Bytes are gathered to writes of this many. Files that never hold as many are written through the page cache.
const WRITE_LEN: usize = 1 << 20;
/// What direct I/O asks of addresses, offsets and lengths, on every disk that there is.
const ALIGNMENT: usize = 4096;

/// The file, what of it has been written, and what is gathered for the next write.
pub(crate) struct BulkFile {
    file: File,
    way: Way,
    /// From `front` on at most [`WRITE_LEN`] bytes; never grown, so that `front` stays aligned.
    buffer: Vec<u8>,
    front: usize,
    written: u64,
}

/// How full writes reach the disk.
enum Way {
    /// Not tried yet.
    Unknown,
    /// By this descriptor, past the page cache.
    Direct(File),
    /// Through the page cache: this file system knows no other way.
    Cached,
}

impl BulkFile {
    /// Creates the file `path`; an error if it is there already.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path)?;
        let mut buffer: Vec<u8> = Vec::with_capacity(WRITE_LEN + ALIGNMENT);
        let front = buffer.as_ptr().align_offset(ALIGNMENT);
        buffer.resize(front, 0);
        Ok(Self {
            file,
            way: Way::Unknown,
            buffer,
            front,
            written: 0,
        })
    }

    /// Adds bytes at the end.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.front + WRITE_LEN - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.front + WRITE_LEN {
                self.write_full()?;
            }
        }
        Ok(())
    }

    /// Writes what is left. Returns the file, to be synced, and its length in bytes.
    pub(crate) fn finish(self) -> io::Result<(File, u64)> {
        let rest = &self.buffer[self.front..];
        self.file.write_all_at(rest, self.written)?;
        Ok((self.file, self.written + rest.len() as u64))
    }

    fn write_full(&mut self) -> io::Result<()> {
        if let Way::Unknown = self.way {
            let direct = sys::reopen(&self.file, libc::O_WRONLY | libc::O_DIRECT);
            self.way = direct.map_or(Way::Cached, |fd| Way::Direct(fd.into()));
        }
        let bytes = &self.buffer[self.front..];
        if let Way::Direct(file) = &self.way {
            match file.write_all_at(bytes, self.written) {
                // Some file systems say so only now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.way = Way::Cached,
                done => done?,
            }
        }
        if let Way::Cached = self.way {
            self.file.write_all_at(bytes, self.written)?;
        }
        self.written += bytes.len() as u64;
        self.buffer.truncate(self.front);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random_padding;

    #[test]
    fn what_was_written_stands_in_the_file_whatever_its_pieces() {
        // A disk, and memory, where there is no way past the page cache: as far as this machine has them.
        let places = [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into()];
        for dir in places.into_iter().filter(|place| place.is_dir()) {
            let dir = tempfile::tempdir_in(dir).unwrap();
            for len in [0, 1, 4096, WRITE_LEN - 1, WRITE_LEN, 3 * WRITE_LEN + 77] {
                let bytes = random_padding(len);
                let path = dir.path().join(len.to_string());
                let mut file = BulkFile::create(&path).unwrap();
                for piece in bytes.chunks(300_001) {
                    file.write_all(piece).unwrap();
                }
                let (file, written) = file.finish().unwrap();
                file.sync_data().unwrap();
                assert_eq!(written, len as u64);
                assert!(std::fs::read(&path).unwrap() == bytes, "{len} bytes");
            }
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, b"bytes").unwrap();
        let refused = BulkFile::create(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::AlreadyExists));
        assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
    }
}
