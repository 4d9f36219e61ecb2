//! The one place where a failed system call becomes the number that a program sees.

use std::io;

use fuser::Errno;

/// The error number for a reply. What the system said is passed on; an error of our own making, which has no number, is
/// translated by its kind, and is an I/O error if nothing fits better.
pub fn errno(error: &io::Error) -> Errno {
    if let Some(number) = error.raw_os_error() {
        return Errno::from_i32(number);
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::PermissionDenied => Errno::EACCES,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::InvalidInput => Errno::EINVAL,
        io::ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        io::ErrorKind::OutOfMemory => Errno::ENOMEM,
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        io::ErrorKind::ReadOnlyFilesystem => Errno::EROFS,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        io::ErrorKind::StaleNetworkFileHandle => Errno::ESTALE,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_number_is_passed_on() {
        for number in [libc::ENOENT, libc::ENOTEMPTY, libc::ENODATA, libc::EDQUOT] {
            assert_eq!(errno(&io::Error::from_raw_os_error(number)).code(), number);
        }
    }

    #[test]
    fn errors_without_a_number_go_by_kind_and_else_are_io_errors() {
        assert_eq!(
            errno(&io::Error::from(io::ErrorKind::NotFound)),
            Errno::ENOENT
        );
        assert_eq!(errno(&io::Error::other("damaged")), Errno::EIO);
        assert_eq!(errno(&io::Error::from_raw_os_error(0)), Errno::EIO);
    }
}
