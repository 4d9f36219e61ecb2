//! Set-user-id and set-group-id bits, and what takes them away: the same changes by the same users as on a disk.
//!
//! On the source every change is made by the daemon, which as root would be allowed to leave the bits. So it is done here, by what is
//! known of the user who asked, with the rules of Linux (`setattr_should_drop_suidgid`, since 6.2 the same on every file system).

use std::io;

use super::Ops;
use crate::format::entry::Kind;
use crate::mount::inodes::Inode;
use crate::source::Stat;
use crate::sys;

/// The user whose program asks for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Its user for file systems.
    pub uid: u32,
    /// Its group for file systems.
    pub gid: u32,
    /// Its thread, to ask for its other groups; 0 where that cannot be seen from here.
    pub pid: u32,
}

impl Asker {
    /// Whether it may leave set-id bits on files that it changes. Stands for CAP_FSETID, of which we are not told.
    pub(super) fn keeps_set_id(&self) -> bool {
        self.uid == 0
    }

    /// Whether it is in `group`. Where its groups cannot be learnt it is in none but its own: that takes a right away, and gives none.
    fn is_in(&self, group: u32) -> bool {
        self.gid == group || sys::groups_of(self.pid).is_ok_and(|groups| groups.contains(&group))
    }

    /// What a change of contents or owner by it, without a privilege, leaves of the permission bits of a file.
    fn leaves(&self, before: &Stat) -> u16 {
        if before.kind != Kind::File {
            return before.mode;
        }
        let left = without_set_id(before.mode);
        match left & SET_GROUP_ID != 0 && !self.is_in(before.gid) {
            true => left & !SET_GROUP_ID,
            false => left,
        }
    }
}

const SET_USER_ID: u16 = 0o4000;
const SET_GROUP_ID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// Set-group-id without group-execute is no privilege and stays, for members of the group.
fn without_set_id(mode: u16) -> u16 {
    let executed = mode & GROUP_EXECUTE != 0;
    mode & !(SET_USER_ID | if executed { SET_GROUP_ID } else { 0 })
}

impl Ops {
    /// Before a write by somebody who may not leave the bits.
    pub(super) fn clear_set_id_before_write(&self, inode: &Inode, asker: &Asker) -> io::Result<()> {
        let touched = [inode.live()];
        let _guard = self.epochs.change(&touched)?;
        let before = self.source.stat(inode.node())?;
        self.set_left(inode, &before, asker.leaves(&before))
    }

    /// Does to the bits what a change of contents or owner by `asker` does natively. Under an exclusive guard.
    pub(super) fn clear_set_id(
        &self,
        inode: &Inode,
        before: &Stat,
        asker: &Asker,
    ) -> io::Result<()> {
        if asker.keeps_set_id() {
            return Ok(());
        }
        self.set_left(inode, before, asker.leaves(before))
    }

    /// Whoever gives a file or directory an ACL and is not in its group leaves it without set-group-id. Under an exclusive guard.
    pub(super) fn clear_set_group_id_after_acl(
        &self,
        inode: &Inode,
        asker: &Asker,
    ) -> io::Result<()> {
        let stat = self.source.stat(inode.node())?;
        inode.notice(&stat);
        let keeps = stat.mode & SET_GROUP_ID == 0 || asker.keeps_set_id() || asker.is_in(stat.gid);
        if keeps {
            return Ok(());
        }
        self.set_left(inode, &stat, stat.mode & !SET_GROUP_ID)
    }

    fn set_left(&self, inode: &Inode, before: &Stat, left: u16) -> io::Result<()> {
        if left == before.mode {
            return Ok(());
        }
        self.source.set_mode(inode.node(), left.into())?;
        inode.notice(&Stat {
            mode: left,
            ..before.clone()
        });
        // The kernel believes that contents alone have changed, and would run the program with the rights that it had.
        self.tell_stale(inode.id());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_go_as_they_do_natively() {
        assert_eq!(without_set_id(0o4755), 0o755);
        assert_eq!(without_set_id(0o6775), 0o775);
        assert_eq!(without_set_id(0o2755), 0o755);
        assert_eq!(without_set_id(0o2745), 0o2745);
        assert_eq!(without_set_id(0o1777), 0o1777);
    }

    #[test]
    fn groups_that_cannot_be_learnt_are_none() {
        let asker = |pid| Asker {
            uid: 1,
            gid: 7,
            pid,
        };
        assert!(asker(0).is_in(7) && !asker(0).is_in(8));
        let own = sys::groups_of(std::process::id()).expect("told");
        assert!(
            own.iter()
                .all(|group| asker(std::process::id()).is_in(*group))
        );
    }
}
