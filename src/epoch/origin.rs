//! The few questions that epochs ask of the source, as a trait, so that tests can stand in for a file system.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::source::{Node, Source, Stat};

/// Where old bytes and attributes are read from.
pub(crate) trait Origin: Send + Sync {
    /// As [`Source::stat`].
    fn stat(&self, node: &Node) -> io::Result<Stat>;
    /// As [`Source::xattrs`].
    fn xattrs(&self, node: &Node) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// As [`Source::read_link`].
    fn read_link(&self, node: &Node) -> io::Result<Vec<u8>>;
    /// Opens a regular file for reading, without moving its access time where that is allowed.
    fn open(&self, node: &Node) -> io::Result<Arc<dyn Contents>>;
    /// As [`Source::free_bytes`].
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file of the source.
pub(crate) trait Contents: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`Source::stat`], now.
    fn stat(&self) -> io::Result<Stat>;
    /// As [`Source::xattrs`], now.
    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// The stretches of `range` that are not holes, in order.
    fn data_ranges(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>>;
}

impl Origin for Arc<Source> {
    fn stat(&self, node: &Node) -> io::Result<Stat> {
        Source::stat(self, node).map_err(|error| not_gone(self, node, error))
    }

    fn xattrs(&self, node: &Node) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Source::xattrs(self, node).map_err(|error| not_gone(self, node, error))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Source::free_bytes(self)
    }

    fn read_link(&self, node: &Node) -> io::Result<Vec<u8>> {
        Source::read_link(self, node).map_err(|error| not_gone(self, node, error))
    }

    fn open(&self, node: &Node) -> io::Result<Arc<dyn Contents>> {
        let quiet = self.open_node(node, libc::O_RDONLY | libc::O_NOATIME);
        let file = match quiet {
            // Only the owner (or root) may ask not to move the access time.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_node(node, libc::O_RDONLY)
            }
            other => other,
        };
        let file = file.map_err(|error| not_gone(self, node, error))?;
        Ok(Arc::new(SourceFile {
            file,
            source: Arc::clone(self),
        }))
    }
}

/// Where inodes are found by name, one that is not where it was seen last is not gone: it stays in snapshots as it was, like
/// one that may not be read, until it is seen again.
fn not_gone(source: &Source, node: &Node, error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ESTALE) && source.may_be_elsewhere(node) {
        let why = "not found under any name that it had; the next scan finds it";
        return io::Error::new(io::ErrorKind::PermissionDenied, why);
    }
    error
}

struct SourceFile {
    file: File,
    source: Arc<Source>,
}

impl Contents for SourceFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn stat(&self) -> io::Result<Stat> {
        Stat::of(&self.file)
    }

    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Source::xattrs_of(&self.file)
    }

    fn data_ranges(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.source.data_ranges(&self.file, range)
    }
}
