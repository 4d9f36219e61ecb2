//! Frames by address: plain in memory, encrypted on disk. Never fetches.

use std::path::PathBuf;
use std::sync::Arc;

/// How large the caches may become.
#[derive(Clone, Debug)]
pub struct Options {
    /// Plain frames in memory, in bytes.
    pub memory_bytes: usize,
    /// Where encrypted frames lie; `None` for no disk cache.
    pub dir: Option<PathBuf>,
    /// Encrypted frames on disk, in bytes.
    pub disk_bytes: u64,
}

/// Both caches. Shared by all volumes and mounts of a process.
#[derive(Clone)]
pub struct Cache(Arc<()>);

impl Cache {
    /// Opens the disk cache and makes an empty memory cache. A disk cache that cannot be opened is an error that the caller may turn into none.
    pub fn open(_options: &Options) -> std::io::Result<Self> {
        todo!()
    }
    /// Memory only.
    pub fn in_memory(_bytes: usize) -> Self {
        todo!()
    }
}
