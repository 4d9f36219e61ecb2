//! What is agreed with the kernel when the mount begins: what the mount needs, and what makes it faster.

use std::io;

use fuser::{InitFlags, KernelConfig};

/// The largest write request: what the kernel allows by default; 128 KiB halve sequential writing.
const WRITE_LEN_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background (read-ahead, asynchronous direct I/O), enough to keep every
/// loop thread busy.
const BACKGROUND_MAX: u16 = 64;

/// What the mount cannot be right without.
///
/// Not FUSE_ATOMIC_O_TRUNC, which saves a request where a file that exists is opened to be overwritten: with it, opening a running
/// program to read with `O_TRUNC` empties it before the kernel finds that it is running (`ETXTBSY`), and what runs dies.
const NEEDED: InitFlags = InitFlags::FUSE_POSIX_ACL.union(InitFlags::FUSE_DONT_MASK);
/// Clearing set-id bits is left to us. In its second version (Linux 5.12) the kernel tells with each write whether the
/// writer's rights demand it, and asks for a file's capabilities once instead of before every write (counted with strace).
/// It tells with truncating too, but fuser 0.18 does not pass that on: there we go by the caller's id.
const CLEARS_SET_ID: InitFlags = InitFlags::FUSE_HANDLE_KILLPRIV_V2;
/// The same in its first version.
const CLEARS_SET_ID_UNTOLD: InitFlags = InitFlags::FUSE_HANDLE_KILLPRIV;
/// What makes it faster, asked for one by one.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
];

/// How set-id bits are cleared, as agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClearsSetId {
    /// The kernel tells with each write whether the writer's rights demand it.
    Told,
    /// It does not: we go by the writer's id.
    Untold,
}

/// Asks for everything. `Unsupported` where this kernel's FUSE lacks what the mount cannot be right without.
pub(super) fn agree(config: &mut KernelConfig) -> io::Result<ClearsSetId> {
    let lacking = |lacking: InitFlags| {
        let what = format!("this kernel's FUSE lacks {lacking:?}");
        io::Error::new(io::ErrorKind::Unsupported, what)
    };
    config.add_capabilities(NEEDED).map_err(lacking)?;
    let told = config.add_capabilities(CLEARS_SET_ID).is_ok();
    if !told {
        let first = config.add_capabilities(CLEARS_SET_ID_UNTOLD);
        first.map_err(lacking)?;
    }
    for wanted in WANTED {
        if config.add_capabilities(wanted).is_err() {
            tracing::info!(?wanted, "not offered by this kernel's FUSE: slower without");
        }
    }
    // Both are within what the crate allows; the nearest allowed value is as good.
    let _ = config.set_max_write(WRITE_LEN_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
    Ok(if told {
        ClearsSetId::Told
    } else {
        ClearsSetId::Untold
    })
}
