"""What programs do to files, and what they get to see of it: run in a plain directory and in a mount over another, it must say the same.

    cases.py DIR [CASE...]       in DIR, which is empty; prints `CASE: what was seen` a line

Each case works in a directory of its own below DIR and notes results: values, and the names of errors. Nothing is noted that may differ
from run to run (numbers of inodes, the time). What needs several users runs only as root. Called by tests/fuse/native.rs.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

OWNER, MEMBER, OTHER = 12345, 12346, 12347
TEAM = 23456
GROUPS = {OWNER: [], MEMBER: [TEAM], OTHER: []}
ROOT = os.geteuid() == 0
LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
AT_FDCWD = -100
PAGE = 4096
CASES = []


def case(function):
    CASES.append((function.__name__, function, False))
    return function


def users(function):
    """A case that acts for several users."""
    CASES.append((function.__name__, function, True))
    return function


def in_a_mount(function):
    """A case of what a mount cannot do: run only when it is named, and compared with nothing."""
    if function.__name__ in sys.argv:
        CASES.append((function.__name__, function, False))
    return function


def attempt(function, *arguments, **named):
    """What comes of a call: its result, or the name of its error."""
    try:
        return function(*arguments, **named)
    except OSError as error:
        # Two names for one number.
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno, error.errno)


def act(uid, function, *arguments, groups=None, umask=0o022):
    """What comes of `function` when a process of `uid` calls it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        if uid != os.geteuid():
            os.setgroups(GROUPS.get(uid, []) if groups is None else groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.umask(umask)
        with os.fdopen(write, "w") as out:
            out.write(repr(attempt(function, *arguments)))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        result = said.read()
    os.waitpid(child, 0)
    return result


def call(name, *arguments):
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def fallocate(fd, mode, start, length):
    return call("fallocate", fd, mode, ctypes.c_long(start), ctypes.c_long(length))


def rename2(old, new, flags):
    return call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def write_file(path, data=b"x", mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    os.write(fd, data)
    os.close(fd)


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def clear(*names):
    """Removes files, and directories with all that is in them, where they are there."""
    for name in names:
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        elif os.path.lexists(name):
            os.unlink(name)


def opened(path, flags, function):
    """`function` of a descriptor of `path`."""
    fd = os.open(path, flags)
    try:
        return function(fd)
    finally:
        os.close(fd)


def mode(path):
    return oct(os.lstat(path).st_mode & 0o7777)


def owner(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def kind(path):
    found = os.lstat(path)
    return stat.filemode(found.st_mode), found.st_nlink, found.st_size, os.major(found.st_rdev), os.minor(found.st_rdev)


def tell(data):
    """Contents, short: runs of one byte."""
    runs, at = [], 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        runs.append(f"{data[at:at + 1]!r}x{end - at}")
        at = end
    return " ".join(runs)


def let_stamps_move_on(since, probe):
    """Returns when a change is stamped later than `since`, which takes until the file system's clock has moved: tried on the file `probe`."""
    while True:
        opened(probe, os.O_WRONLY | os.O_CREAT, lambda fd: os.write(fd, b"x"))
        if os.stat(probe).st_ctime_ns > since:
            return


def data_map(fd):
    """Where the file has data, as lseek(2) tells."""
    found, at, end = [], 0, os.fstat(fd).st_size
    while at < end:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


# ---- Contents -----------------------------------------------------------------------------------------------------------


@case
def fallocate_modes(note):
    ranges = [(0, 5 * PAGE), (PAGE, 3 * PAGE), (100, PAGE), (9 * PAGE, 4 * PAGE), (20 * PAGE, PAGE), (0, 0), (PAGE, -1), (-1, PAGE)]
    modes = [0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE, PUNCH_HOLE, PUNCH_HOLE | ZERO | KEEP_SIZE, 1 << 20]
    for number, (flags, (start, length)) in enumerate((f, r) for f in modes for r in ranges):
        name = f"file{number}"
        write_file(name, b"a" * (10 * PAGE) + b"tail")
        with open(name, "r+b") as file:
            result = attempt(fallocate, file.fileno(), flags, start, length)
            note(flags, start, length, result, os.fstat(file.fileno()).st_size, tell(file.read()))
    read_only = opened("file0", os.O_RDONLY, lambda fd: attempt(fallocate, fd, 0, 0, PAGE))
    directory = opened(".", os.O_RDONLY, lambda fd: attempt(fallocate, fd, 0, 0, PAGE))
    note(read_only, directory)
    fd = os.open("file0", os.O_WRONLY)
    note(attempt(fallocate, fd, 0, 1 << 62, 1 << 62), attempt(os.posix_fallocate, fd, 0, 30 * PAGE), os.fstat(fd).st_size)


@case
def copy_ranges(note):
    write_file("from", b"a" * PAGE + b"b" * PAGE + b"end")
    write_file("to", b"-" * (3 * PAGE))

    def copy(source, target, length, start, at, flags=os.O_WRONLY):
        write_file("new", read_file("to"))
        result = opened(source, os.O_RDONLY, lambda s: opened(target, flags, lambda t: attempt(os.copy_file_range, s, t, length, start, at)))
        seen = tell(read_file("new"))
        os.unlink("new")
        return result, seen

    for length, start, at in [(PAGE, 0, 0), (PAGE, 1, 1), (10 * PAGE, 0, 0), (PAGE, 2 * PAGE, 5 * PAGE), (10, 2 * PAGE + 3, 0), (10, 1 << 40, 0), (0, 0, 0)]:
        note(length, start, at, *copy("from", "new", length, start, at))
    note(*copy("from", "new", 10, 0, 0, os.O_WRONLY | os.O_APPEND), *copy("from", "new", 10, 0, 0, os.O_RDONLY))
    note(attempt(copy, ".", "new", 10, 0, 0))
    os.path.exists("new") and os.unlink("new")
    with open("from", "r+b") as file:
        fd = file.fileno()
        note(attempt(os.copy_file_range, fd, fd, PAGE, 0, 100), attempt(os.copy_file_range, fd, fd, PAGE, 0, 4 * PAGE), tell(file.read()))
        note(attempt(os.copy_file_range, fd, fd, PAGE), os.lseek(fd, 0, os.SEEK_CUR))


@case
def data_and_holes(note):
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 100 * PAGE)
    for at in (3, 50, 51, 98):
        os.pwrite(fd, b"x" * PAGE, at * PAGE)
    os.fsync(fd)
    note(data_map(fd), os.fstat(fd).st_blocks)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        note([attempt(os.lseek, fd, at, whence) for at in (0, 3 * PAGE + 7, 60 * PAGE, 99 * PAGE, 100 * PAGE, 1 << 50, -1)])
    with mmap.mmap(fd, 100 * PAGE) as shared:
        shared[70 * PAGE] = 1
        shared.flush()
    note(data_map(fd), attempt(os.lseek, fd, 0, 17))
    os.ftruncate(fd, 50 * PAGE + 5)
    note(data_map(fd))


@case
def direct_io(note):
    def go(fd):
        buffer = mmap.mmap(-1, 4 * PAGE)
        buffer[:] = b"d" * (4 * PAGE)
        note(os.pwritev(fd, [buffer], 0), os.pwritev(fd, [buffer], 8 * PAGE))
        buffer[:] = b"-" * (4 * PAGE)
        note(os.preadv(fd, [buffer], 2 * PAGE), tell(buffer[:]), os.preadv(fd, [buffer], 10 * PAGE), os.preadv(fd, [buffer], 100 * PAGE))
        os.ftruncate(fd, 11 * PAGE + 17)
        note(os.preadv(fd, [buffer], 11 * PAGE), os.fstat(fd).st_size)

    opened("file", os.O_RDWR | os.O_CREAT | os.O_DIRECT, go)
    # What went past the page cache is seen by what goes through it, and the other way round.
    with open("file", "r+b") as cached:
        note(tell(cached.read(3 * PAGE)))
        cached.seek(0)
        cached.write(b"c" * PAGE)
    buffer = mmap.mmap(-1, PAGE)
    opened("file", os.O_RDONLY | os.O_DIRECT, lambda fd: os.preadv(fd, [buffer], 0))
    note(tell(buffer[:]))


@case
def mappings(note):
    write_file("file", b"-" * (2 * PAGE + 10))
    with open("file", "r+b", buffering=0) as file, open("file", "r+b", buffering=0) as second:
        one, two = mmap.mmap(file.fileno(), 0), mmap.mmap(second.fileno(), 0)
        one[0:3] = b"one"
        note(two[0:3], os.pread(file.fileno(), 3, 0), read_file("file")[:3])
        os.pwrite(second.fileno(), b"two", PAGE)
        note(one[PAGE:PAGE + 3])
        child = os.fork()
        if child == 0:
            two[5:10] = b"child"
            os._exit(0)
        os.waitpid(child, 0)
        note(one[5:10])
        private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        private[0:7] = b"private"
        note(one[0:7])
        one.flush()
        os.ftruncate(file.fileno(), 5)
        os.ftruncate(file.fileno(), 2 * PAGE)
        note(one[0:12], two[PAGE:PAGE + 3])
        child = os.fork()
        if child == 0:
            os.ftruncate(file.fileno(), PAGE)
            print(one[PAGE], file=sys.stderr)
            os._exit(0)
        note(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGBUS)
        del private
    note(attempt(mmap.mmap, os.open("file", os.O_RDONLY), PAGE), attempt(mmap.mmap, os.open(".", os.O_RDONLY), PAGE))


@case
def appends(note):
    write_file("log", b"begin")
    fd = os.open("log", os.O_WRONLY | os.O_APPEND)
    # pwrite(2) on such a descriptor appends, on Linux.
    note(os.pwrite(fd, b" one", 0), read_file("log"))
    other = os.open("log", os.O_WRONLY | os.O_APPEND)
    os.write(other, b" two")
    os.write(fd, b" three")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"BEGIN", 0)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, b" four")
    note(read_file("log"))


@case
def unlinked_and_open(note):
    write_file("file", b"before")
    fd = os.open("file", os.O_RDWR)
    os.unlink("file")
    os.write(fd, b"AFTER-")
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.pwrite(again, b"again", 6)
    note(os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.pread(fd, 100, 0))
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 3)
    os.utime(fd, (1, 2))
    os.setxattr(fd, "user.gone", b"still here")
    note(oct(os.fstat(again).st_mode), os.fstat(again).st_size, os.fstat(fd).st_mtime, os.getxattr(again, "user.gone"))
    note(attempt(call, "linkat", fd, b"", AT_FDCWD, b"back", 0x1000), os.listdir("."))
    fallocate(fd, 0, 0, PAGE)
    note(os.copy_file_range(again, fd, 3, 0, 10), os.pread(fd, 13, 0))
    os.mkdir("dir")
    dir = os.open("dir", os.O_RDONLY)
    os.rmdir("dir")
    note(os.fstat(dir).st_nlink, attempt(os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=dir), attempt(os.mkdir, "new", dir_fd=dir))
    note(os.listdir(dir), attempt(os.stat, "..", dir_fd=dir) in ("ENOENT", "ESTALE") or "there")


@case
def replaced_and_open(note):
    write_file("old", b"old")
    write_file("new", b"new")
    fd = os.open("old", os.O_RDWR)
    os.rename("new", "old")
    os.pwrite(fd, b"OLD", 0)
    note(read_file("old"), os.pread(fd, 10, 0), os.fstat(fd).st_nlink, os.path.exists("new"))


@case
def limits_of_size(note):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, PAGE))
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        return [
            attempt(os.pwrite, fd, b"x" * (2 * PAGE), 0), attempt(os.pwrite, fd, b"x", PAGE), attempt(os.ftruncate, fd, PAGE + 1),
            attempt(os.truncate, "file", PAGE + 1), attempt(fallocate, fd, 0, 0, 2 * PAGE), os.fstat(fd).st_size,
        ]

    note(act(os.geteuid(), limited))
    fd = os.open("file", os.O_RDWR)
    note(attempt(os.ftruncate, fd, -1), attempt(os.ftruncate, fd, (1 << 63) - 1), attempt(os.pwrite, fd, b"x", (1 << 63) - 1))
    note(attempt(os.truncate, ".", 0), attempt(os.truncate, "missing", 0), os.fstat(fd).st_size)


# ---- Names --------------------------------------------------------------------------------------------------------------


@case
def renames_with_flags(note):
    def fresh():
        clear(*os.listdir("."))
        for name in ("file", "other", "full/in"):
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            write_file(name, name.encode())
        os.link("file", "link")
        os.mkdir("empty")
        os.symlink("file", "soft")

    def shape():
        return sorted((os.path.join(at, name)[2:], kind(os.path.join(at, name))[:2]) for at, dirs, files in os.walk(".") for name in dirs + files)

    pairs = [("file", "new"), ("file", "other"), ("file", "link"), ("file", "empty"), ("empty", "full"), ("full", "empty"), ("full", "file"),
             ("full", "full/in/x"), ("full", "full/deeper"), ("full/in", "full"), ("missing", "new"), ("missing", "file"), ("file", "missing/new"), ("file", "file"),
             ("soft", "file"), ("full", "."), (".", "new"), ("file/x", "new"), ("file", "new/"), ("empty", "new/"), ("full/in", "in")]
    flags = [0, NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE, 8] + ([WHITEOUT, WHITEOUT | EXCHANGE, WHITEOUT | NOREPLACE] if ROOT else [])
    for flag in flags:
        for old, new in pairs:
            fresh()
            note(flag, old, new, attempt(rename2, old, new, flag), shape())


@case
def names_of_all_bytes(note):
    names = [bytes([byte]) * 3 for byte in range(1, 256) if byte not in b"/"] + [b"\xff" * 255, b"x" * 255, b" ", b"-rf", b"...", b"\n"]
    names = [name for name in names if name != b"..."] + [b"...."]
    here = os.getcwdb()
    for name in names:
        write_file(os.path.join(here, name), name)
    note(sorted(os.listdir(here)) == sorted(names), all(read_file(os.path.join(here, name)) == name for name in names))
    long = "y" * 256
    for function in (os.mkdir, os.unlink, os.rmdir, lambda name: kind(name)[0], os.mkfifo, lambda name: os.rename("x" * 255, name), lambda name: os.link("x" * 255, name),
                     lambda name: os.symlink("x", name), lambda name: os.open(name, os.O_CREAT), lambda name: os.open(name, 0)):
        note([attempt(function, name) for name in (long, "", ".", "..", "x" * 255 + "/", "x" * 255 + "/y", "a/" * 3000)])
    for length in (1, 4095, 4096):
        note(length, attempt(os.symlink, "t" * length, f"link{length}"), attempt(os.readlink, f"link{length}") == "t" * length)


@case
def directories(note):
    os.makedirs("a/b")
    write_file("a/file")
    note(os.stat("a").st_nlink > 1, attempt(os.rmdir, "a"), attempt(os.unlink, "a") in ("EISDIR", "EPERM"), attempt(os.rmdir, "a/file"))
    note(attempt(os.rmdir, "a/b/."), attempt(os.rmdir, "a/b/.."), attempt(os.mkdir, "a"), attempt(os.mkdir, "a/file"), attempt(os.mkdir, "no/dir"))
    note(attempt(os.link, "a", "c") in ("EPERM", "EISDIR"), attempt(os.open, "a", os.O_WRONLY), attempt(os.open, "a/file", os.O_DIRECTORY))
    note(attempt(os.open, "a", os.O_CREAT | os.O_RDONLY), attempt(os.read, os.open("a", os.O_RDONLY), 1), attempt(os.open, "a/file/x", os.O_RDONLY))
    os.symlink("loop", "loop")
    os.symlink("a/file", "soft")
    note(attempt(os.open, "loop", 0), attempt(os.open, "soft", os.O_NOFOLLOW), attempt(os.open, "soft", os.O_CREAT | os.O_EXCL), attempt(os.stat, "loop"))
    before = os.stat("a").st_nlink
    os.mkdir("a/c")
    grown = os.stat("a").st_nlink
    os.rename("a/c", "c")
    note(grown - before, os.stat("a").st_nlink - before)
    os.chdir("a/b")
    os.rmdir("../b")
    note(attempt(os.getcwd), attempt(os.open, "new", os.O_CREAT), attempt(os.listdir, "."))


def entries(fd, room):
    """One getdents64(2): (name, offset of the next)."""
    buffer = ctypes.create_string_buffer(room)
    length, at, found = call("syscall", 217, fd, buffer, room), 0, []
    while at < length:
        _, offset, size, _ = struct.unpack_from("<QqHB", buffer, at)
        found.append((buffer[at + 19:at + size].split(b"\0")[0], offset))
        at += size
    return found


@case
def listing_under_change(note):
    if os.uname().machine != "x86_64":
        return
    for n in range(500):
        write_file(f"kept-{n:04}")
        write_file(f"gone-{n:04}")
    fd, seen, places, round = os.open(".", os.O_RDONLY), [], [], 0
    while found := entries(fd, 1000):
        seen += [name for name, _ in found]
        places.append((found[-1][1], len(seen)))
        for n in range(round * 10, min(round * 10 + 10, 500)):
            os.unlink(f"gone-{n:04}")
            write_file(f"new-{n:04}")
        round += 1
    kept = [name for name in seen if name.startswith(b"kept")]
    note(len(seen) == len(set(seen)), len(kept), b"." in seen, b".." in seen)
    # Back to a place in the middle: everything that came after it and is still there comes again.
    offset, count = places[len(places) // 2]
    os.lseek(fd, offset, os.SEEK_SET)
    again = set()
    while found := entries(fd, 3000):
        again |= {name for name, _ in found}
    missing = [name for name in seen[count:] if name.startswith(b"kept") and name not in again]
    repeated = [name for name in seen[:count] if name.startswith(b"kept") and name in again]
    os.lseek(fd, 0, os.SEEK_SET)
    whole = set()
    while found := entries(fd, 30000):
        whole |= {name for name, _ in found}
    note(missing, repeated, whole == set(os.listdir(b".")) | {b".", b".."})


@case
def hard_links(note):
    write_file("one")
    os.link("one", "two")
    os.symlink("one", "soft")
    os.link("soft", "soft2", follow_symlinks=False)
    note(os.stat("one").st_nlink, os.stat("two").st_nlink, os.lstat("soft2").st_nlink, os.stat("one").st_ino == os.stat("two").st_ino)
    note(attempt(os.link, "one", "two"), attempt(os.link, "missing", "three"), attempt(os.link, "one", "one/x"))
    os.chmod("one", 0o604)
    os.rename("one", "two")
    note(mode("two"), os.path.exists("one"))
    os.unlink("two")
    note(os.stat("one").st_nlink)


@case
def special_files(note):
    os.mkfifo("fifo", 0o640)
    os.mknod("node", 0o640 | stat.S_IFREG)
    note(kind("fifo"), kind("node"), attempt(os.mkfifo, "fifo"), attempt(os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK))
    child = os.fork()
    if child == 0:
        with open("fifo", "wb") as out:
            out.write(b"through")
        os._exit(0)
    note(read_file("fifo"))
    os.waitpid(child, 0)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    client.send(b"hello")
    note(server.accept()[0].recv(10), kind("socket")[0], attempt(socket.socket(socket.AF_UNIX).bind, "socket"), attempt(os.open, "socket", 0))
    os.rename("socket", "moved")
    note(attempt(socket.socket(socket.AF_UNIX).connect, "moved"), attempt(socket.socket(socket.AF_UNIX).connect, "socket"))
    for name, type_, device in (("null", stat.S_IFCHR, (1, 3)), ("block", stat.S_IFBLK, (4095, 1048575)), ("white", stat.S_IFCHR, (0, 0))):
        made = attempt(os.mknod, name, type_ | 0o666, os.makedev(*device))
        note(made, os.path.exists(name) and kind(name))
    if ROOT:
        note(opened("null", os.O_RDWR, lambda fd: (os.write(fd, b"x"), os.read(fd, 1))), attempt(os.open, "block", 0))


# ---- Attributes ---------------------------------------------------------------------------------------------------------


@case
def times(note):
    write_file("file")
    os.symlink("file", "soft")
    os.mkdir("dir")
    second = 10 ** 9
    for at in (0, 1, -1, -500_000_000, -second, -2 * second + 1, -(2 ** 31) * second, 2 ** 31 * second + 5, 2 ** 33 * second + 999_999_999, 1_795_000_000_123_456_789):
        for path in ("file", "soft", "dir"):
            result = attempt(os.utime, path, ns=(at, at - 7), follow_symlinks=False)
            found = os.lstat(path)
            note(path, at, result, found.st_atime_ns, found.st_mtime_ns)
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    spec = struct.Struct("qqqq")
    for atime, mtime in ((5, omit), (omit, 6), (omit, omit), (now, 7), (8, now), (now, now), (10 ** 9, 0)):
        os.utime("file", ns=(1000, 2000))
        result = attempt(call, "utimensat", AT_FDCWD, b"file", spec.pack(1, atime, 2, mtime), 0)
        found = os.stat("file")
        recent = [abs(when - time.time()) < 100 for when in (found.st_atime, found.st_mtime)]
        note(atime, mtime, result, [("now" if new else ns) for new, ns in zip(recent, (found.st_atime_ns, found.st_mtime_ns))])


@case
def which_times_change(note):
    with open("other", "wb") as file:
        file.write(b"o" * PAGE)

    def through(path, function, flags=os.O_RDWR):
        return lambda: opened(path, flags, function)

    def store(fd):
        with mmap.mmap(fd, PAGE) as shared:
            shared[0] = 7
            shared.flush()

    changes = {
        "nothing": lambda: None,
        "open": through("file", lambda fd: None),
        "open emptying": through("file", lambda fd: None, os.O_WRONLY | os.O_TRUNC),
        "open emptying what is empty": through("empty", lambda fd: None, os.O_WRONLY | os.O_TRUNC),
        "write": through("file", lambda fd: os.write(fd, b"y")),
        "write nothing": through("file", lambda fd: os.write(fd, b"")),
        "ftruncate": through("file", lambda fd: os.ftruncate(fd, 10)),
        "ftruncate to the same": through("file", lambda fd: os.ftruncate(fd, PAGE)),
        "truncate": lambda: os.truncate("file", 10),
        "truncate longer": lambda: os.truncate("file", 2 * PAGE),
        "truncate to the same": lambda: os.truncate("file", PAGE),
        "fallocate": through("file", lambda fd: fallocate(fd, 0, 0, 3 * PAGE)),
        "punch": through("file", lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 100)),
        "copy": through("file", lambda to: opened("other", os.O_RDONLY, lambda of: os.copy_file_range(of, to, 10, 0, 0))),
        "store": through("file", store),
        "chmod": lambda: os.chmod("file", 0o600),
        "chmod to the same": lambda: os.chmod("file", 0o644),
        "chown": lambda: os.chown("file", os.geteuid(), os.getegid()),
        "setxattr": lambda: os.setxattr("file", "user.x", b"x"),
        "link": lambda: os.link("file", "another"),
        "unlink": lambda: os.unlink("second"),
        "rename": lambda: os.rename("file", "moved"),
        "replace": lambda: os.rename("empty", "file"),
        "create": lambda: write_file("created"),
        "mkdir": lambda: os.mkdir("made"),
        "rmdir": lambda: os.rmdir("dir"),
        "symlink": lambda: os.symlink("x", "soft"),
    }
    for what, change in changes.items():
        clear("work")
        os.mkdir("work")
        os.chdir("work")
        write_file("file", b"x" * PAGE)
        write_file("empty", b"")
        write_file("other", b"o" * PAGE)
        os.link("file", "second")
        os.mkdir("dir")
        kept, dir = os.open("file", os.O_RDONLY), os.open(".", os.O_RDONLY)
        watched = {"file": kept, "empty": os.open("empty", os.O_RDONLY), "dir": dir}
        for fd in watched.values():
            os.utime(fd, ns=(1000, 1000))
        before = {name: os.fstat(fd) for name, fd in watched.items()}
        let_stamps_move_on(max(was.st_ctime_ns for was in before.values()), "../probe")
        change()
        after = {name: os.fstat(fd) for name, fd in watched.items()}
        note(what, [(name, "m" * (after[name].st_mtime_ns != was.st_mtime_ns) + "c" * (after[name].st_ctime_ns != was.st_ctime_ns))
                    for name, was in before.items()])
        os.chdir("..")


@case
def file_system(note):
    found = os.statvfs(".")
    # Not how many blocks and inodes: some file systems say what they could have at the moment, which others' writes change.
    note(found.f_bsize, found.f_frsize, found.f_blocks > 0, found.f_files > 0, found.f_namemax)
    write_file("file", b"x" * 10)
    fd = os.open("file", os.O_RDWR)
    pipe = os.open(".", os.O_RDONLY)
    note(os.fstat(fd).st_blksize, attempt(os.fsync, fd), attempt(os.fdatasync, fd), attempt(os.fsync, pipe), attempt(call, "syncfs", fd))
    note(attempt(call, "sync_file_range", fd, ctypes.c_long(0), ctypes.c_long(0), 7), attempt(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED))
    note(os.access("file", os.W_OK), os.access("file", os.X_OK), os.access("missing", os.F_OK))
    with open("file", "rb") as other:
        out, into = os.pipe()
        note(os.sendfile(into, other.fileno(), 0, 10), os.read(out, 20), os.splice(fd, into, 5, offset_src=0), os.read(out, 20))


@case
def xattrs_of_all_kinds(note):
    write_file("file")
    os.mkdir("dir")
    os.mkfifo("fifo")
    os.symlink("missing", "soft")
    names = ["user.a", "user.", "user." + "n" * 250, "user." + "n" * 251, "trusted.a", "security.a", "system.a", "system.posix_acl_access", "none.a", "plain", ""]

    def all_of(path):
        seen = []
        for name in names:
            for value, flags in ((b"", 0), (b"v", os.XATTR_CREATE), (b"w", os.XATTR_REPLACE), (b"z" * 3000, 0), (b"z" * 70000, 0)):
                seen.append(attempt(os.setxattr, path, name, value, flags, follow_symlinks=False))
            seen.append(attempt(lambda: len(os.getxattr(path, name, follow_symlinks=False))))
        seen.append(sorted(attempt(os.listxattr, path, follow_symlinks=False)))
        for name in names:
            seen.append(attempt(os.removexattr, path, name, follow_symlinks=False))
            seen.append(attempt(os.removexattr, path, name, follow_symlinks=False))
            seen.append(attempt(os.getxattr, path, name, follow_symlinks=False))
        return seen

    for path in ("file", "dir", "fifo", "soft", "missing"):
        note(path, all_of(path))
        if ROOT:
            os.path.lexists(path) and os.setxattr(path, "trusted.secret", b"x", follow_symlinks=False)
            os.path.exists(path) and os.chmod(path, 0o666)
            note(path, act(OTHER, all_of, path))


# ---- Locks --------------------------------------------------------------------------------------------------------------


@case
def locks(note):
    write_file("file", b"x" * 100)

    def flock(kind):
        return attempt(opened, "file", os.O_RDWR, lambda fd: fcntl.flock(fd, kind | fcntl.LOCK_NB))

    def range_lock(kind, start, length):
        return attempt(opened, "file", os.O_RDWR, lambda fd: fcntl.lockf(fd, kind | fcntl.LOCK_NB, length, start))

    me = os.geteuid()
    fd = os.open("file", os.O_RDWR)
    for mine in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
        fcntl.flock(fd, mine)
        note(mine, [act(me, flock, theirs) for theirs in (fcntl.LOCK_SH, fcntl.LOCK_EX)], flock(fcntl.LOCK_EX))
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
    note([act(me, range_lock, fcntl.LOCK_EX, start, length) for start, length in ((0, 20), (0, 21), (29, 1), (30, 0))])
    asked = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 20, 5, 0))
    note(struct.unpack("hhqqi4x", asked)[0] == fcntl.F_UNLCK)
    blocked = act(me, lambda: struct.unpack("hhqqi4x", fcntl.fcntl(os.open("file", os.O_RDWR), fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))[:4])
    note(blocked)
    # Closing any descriptor of the file lets go of all of the process's locks.
    os.close(os.open("file", os.O_RDONLY))
    note(act(me, range_lock, fcntl.LOCK_EX, 0, 0))
    # Waiting until another process lets go.
    fcntl.flock(fd, fcntl.LOCK_EX)
    child = os.fork()
    if child == 0:
        os.close(fd)
        fcntl.flock(os.open("file", os.O_RDWR), fcntl.LOCK_EX)
        os._exit(7)
    os.write(fd, b"meanwhile")
    fcntl.flock(fd, fcntl.LOCK_UN)
    note(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    note(attempt(fcntl.lockf, os.open("file", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))


# ---- Several users ------------------------------------------------------------------------------------------------------


def ways_to_change(path):
    """What takes set-id bits away, or may."""
    def store():
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
            shared[0] = 65
            shared.flush()

    def copy():
        with open(path, "r+b") as file:
            os.copy_file_range(file.fileno(), file.fileno(), 1, 0, 1)

    me = os.geteuid()
    return {
        "write": lambda: opened(path, os.O_WRONLY, lambda fd: os.write(fd, b"y")),
        "write nothing": lambda: opened(path, os.O_WRONLY, lambda fd: os.write(fd, b"")),
        "append": lambda: opened(path, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"y")),
        "direct": lambda: opened(path, os.O_WRONLY | os.O_DIRECT, lambda fd: os.pwritev(fd, [mmap.mmap(-1, PAGE)], 0)),
        "truncate": lambda: os.truncate(path, 1),
        "truncate to the same": lambda: os.truncate(path, 10),
        "ftruncate": lambda: opened(path, os.O_WRONLY, lambda fd: os.ftruncate(fd, 1)),
        "open emptying": lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        "fallocate": lambda: opened(path, os.O_WRONLY, lambda fd: fallocate(fd, 0, 0, PAGE)),
        "punch": lambda: opened(path, os.O_WRONLY, lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 5)),
        "copy": copy,
        "store": store,
        "chown to the same": lambda: os.chown(path, me, -1),
        "chown of nothing": lambda: os.chown(path, -1, -1),
        "chgrp": lambda: os.chown(path, -1, TEAM),
        "chmod": lambda: os.chmod(path, 0o2755),
        "acl": lambda: os.setxattr(path, "system.posix_acl_access", acl((1, 7, 0), (2, 7, OTHER), (4, 7, 0), (16, 7, 0), (32, 7, 0))),
        "setxattr": lambda: os.setxattr(path, "user.x", b"x"),
        "utime": lambda: os.utime(path),
    }


@users
def set_id_bits(note):
    # What is set-group-id without being executable by the group has had its present rules since Linux 6.2.
    recent = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 2)
    for bits in (0o6777, 0o2767, 0o6666)[: 3 if recent else 1]:
        for uid, gid in ((0, 0), (OWNER, TEAM)):
            for who in (0, OWNER, MEMBER, OTHER):
                for what in ways_to_change("file"):
                    if what == "chown of nothing" and who not in (0, uid):
                        # Refused natively; FUSE does not tell it from other requests, and nothing happens.
                        continue
                    write_file("file", b"x" * 10)
                    os.chown("file", uid, gid)
                    os.chmod("file", bits)
                    os.stat("file")
                    result = act(who, lambda: ways_to_change("file")[what]() and None)
                    note(oct(bits), uid, gid, who, what, result, mode("file"), owner("file"))
                    os.unlink("file")


@users
def a_changed_program_has_no_rights(note):
    """Run at once after it has been written to, before anybody has looked at its attributes."""
    program = "/usr/bin/id"
    for what in ("write", "append", "fallocate", "copy", "store", "ftruncate to the same"):
        subprocess.run(["cp", program, "program"], check=True)
        os.chmod("program", 0o4777)

        def change_and_run(what=what):
            before = subprocess.run(["./program", "-u"], stdout=subprocess.PIPE, check=True).stdout
            size = os.stat("program").st_size
            if what == "write":
                opened("program", os.O_WRONLY, lambda fd: os.pwrite(fd, b"\x7f", 0))
            elif what == "append":
                opened("program", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"y"))
            elif what == "fallocate":
                opened("program", os.O_WRONLY, lambda fd: fallocate(fd, 0, size, PAGE))
            elif what == "copy":
                opened("program", os.O_RDWR, lambda fd: os.copy_file_range(fd, fd, 1, 0, size))
            elif what == "store":
                with open("program", "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
                    shared[0] = 0x7F
                    shared.flush()
            else:
                opened("program", os.O_WRONLY, lambda fd: os.ftruncate(fd, size))
            after = subprocess.run(["./program", "-u"], stdout=subprocess.PIPE, check=True).stdout
            return before, after

        note(what, act(OTHER, change_and_run), mode("program"))
        os.unlink("program")


def acl(*listed):
    """The bytes of an ACL: version 2, then (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who if tag in (2, 8) else 0xFFFFFFFF) for tag, bits, who in listed)


@users
def acls(note):
    access, default = "system.posix_acl_access", "system.posix_acl_default"
    lists = [
        acl((1, 7, 0), (4, 5, 0), (32, 0, 0)),
        acl((1, 6, 0), (2, 0, OTHER), (4, 4, 0), (16, 4, 0), (32, 4, 0)),
        acl((1, 7, 0), (2, 7, OTHER), (4, 5, 0), (8, 7, TEAM), (16, 5, 0), (32, 5, 0)),
        acl((1, 0, 0), (4, 0, 0), (8, 4, TEAM), (16, 4, 0), (32, 7, 0)),
        acl((1, 7, 0), (2, 7, OTHER), (4, 5, 0), (32, 5, 0)),
        b"", b"junk", acl((64, 7, 0)),
    ]
    who = (0, OWNER, MEMBER, OTHER)
    for number, listed in enumerate(lists):
        for bits in (0o644, 0o2770):
            write_file("file", b"x")
            os.mkdir("dir")
            os.chown("file", OWNER, OWNER)
            os.chown("dir", OWNER, OWNER)
            os.chmod("file", bits)
            os.chmod("dir", bits | 0o111)
            note(number, [act(one, os.setxattr, "file", access, listed) for one in reversed(who)], mode("file"), attempt(os.getxattr, "file", access))
            note([act(one, os.open, "file", flags) in ("3", "4", "5", "6") for one in who for flags in (os.O_RDONLY, os.O_WRONLY)])
            note([act(one, os.setxattr, "dir", default, listed) for one in reversed(who)], attempt(os.getxattr, "dir", default), act(OWNER, os.setxattr, "file", default, listed))
            os.chmod("dir", 0o3777)
            for one in who:
                def create(one=one):
                    for umask in (0, 0o077):
                        os.umask(umask)
                        name = f"dir/{one}-{umask}"
                        write_file(name + "f", mode=0o666)
                        os.mkdir(name + "d", 0o777)
                        os.mkfifo(name + "p", 0o666)
                        os.mknod(name + "n", 0o640 | stat.S_IFREG)
                act(one, create)
            for name in sorted(os.listdir("dir")):
                path = f"dir/{name}"
                note(name, mode(path), owner(path), attempt(os.getxattr, path, access), attempt(os.getxattr, path, default))
            os.chmod("file", 0o600)
            note(attempt(os.getxattr, "file", access), act(OTHER, os.removexattr, "file", access), act(OWNER, os.removexattr, "file", access), mode("file"))
            clear("file", "dir")


@users
def sticky_and_set_group_directories(note):
    for bits in (0o777, 0o1777, 0o2777, 0o3777, 0o2770, 0o1775):
        for dir_owner, group in ((0, 0), (OWNER, TEAM)):
            os.mkdir("dir")
            os.chown("dir", dir_owner, group)
            os.chmod("dir", bits)
            for who in (OWNER, MEMBER, OTHER):
                def make(who=who):
                    seen = [attempt(write_file, f"dir/{who}", mode=0o2775), attempt(os.mkdir, f"dir/{who}.d"), attempt(os.symlink, "x", f"dir/{who}.l")]
                    seen.append(attempt(os.mknod, f"dir/{who}.n", stat.S_IFREG | 0o6755))
                    return seen
                note(oct(bits), group, who, act(who, make, umask=0))
            for name in sorted(os.listdir("dir")):
                note(name, mode(f"dir/{name}"), owner(f"dir/{name}"))
            for who in (OTHER, MEMBER, OWNER):
                note(who, [act(who, function, *names) for function, names in (
                    (os.unlink, (f"dir/{OWNER}",)), (os.rename, (f"dir/{OWNER}", f"dir/{OTHER}")), (os.rmdir, (f"dir/{OWNER}.d",)),
                    (os.rename, (f"dir/{MEMBER}.d", "dir/moved")), (rename2, (f"dir/{MEMBER}", f"dir/{OTHER}.l", EXCHANGE)),
                    (os.chmod, (f"dir/{OTHER}", 0o700)), (os.link, (f"dir/{OTHER}.n", f"dir/linked-{who}")))])
            clear("dir")


@users
def who_may_what(note):
    for bits in (0o000, 0o400, 0o040, 0o004, 0o600, 0o660, 0o222, 0o111, 0o755):
        write_file("file", b"#!/bin/sh\nexit 3\n")
        os.mkdir("dir")
        write_file("dir/in", b"x")
        for name in ("file", "dir"):
            os.chown(name, OWNER, TEAM)
            os.chmod(name, bits)
        for who in (OWNER, MEMBER, OTHER):
            calls = [
                lambda: opened("file", os.O_RDONLY, lambda fd: os.read(fd, 2)), lambda: opened("file", os.O_WRONLY, lambda fd: None),
                lambda: opened("file", os.O_RDWR | os.O_APPEND, lambda fd: None), lambda: opened("file", os.O_RDONLY | os.O_NOATIME, lambda fd: None),
                lambda: os.access("file", os.X_OK), lambda: os.access("file", os.R_OK | os.W_OK), lambda: os.execv("./file", ["file"]) if bits & 0o111 == 0 else None,
                lambda: os.listdir("dir"), lambda: os.stat("dir/in").st_size, lambda: write_file("dir/new"), lambda: os.unlink("dir/new"), lambda: os.rename("dir/in", "dir/out"),
                lambda: os.rename("dir/out", "dir/in"), lambda: os.chmod("file", bits), lambda: os.chown("file", who, -1), lambda: os.chown("file", -1, TEAM), lambda: os.chown("file", -1, who),
                lambda: os.utime("file"), lambda: os.utime("file", (1, 1)), lambda: os.truncate("file", 3), lambda: os.setxattr("file", "user.x", b""), lambda: os.getxattr("file", "user.x"),
                lambda: os.mknod("dir/dev", stat.S_IFCHR | 0o600, 5), lambda: os.link("file", "dir/link"), lambda: os.chroot("dir"),
            ]
            note(oct(bits), who, [act(who, one) for one in calls], mode("file"), owner("file"))
        clear("file", "dir")


@users
def running_programs(note):
    subprocess.run(["cp", "/bin/sleep", "program"], check=True)
    with subprocess.Popen(["./program", "100"]) as running:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY):
            note(flags, attempt(lambda: os.close(os.open("program", flags))), os.stat("program").st_size == os.stat("/bin/sleep").st_size)
        note(attempt(os.truncate, "program", 0), running.poll())
        running.kill()
    with open("program", "r+b"):
        note(attempt(subprocess.run, ["./program", "0"], check=True))


# ---- What cannot be done ------------------------------------------------------------------------------------------------


@in_a_mount
def what_a_mount_cannot(note):
    write_file("file", b"x" * (4 * PAGE))
    fd, other = os.open("file", os.O_RDWR), os.open("clone", os.O_RDWR | os.O_CREAT)
    note("O_TMPFILE", attempt(os.open, ".", os.O_TMPFILE | os.O_RDWR))
    note("FICLONE", attempt(fcntl.ioctl, other, 0x40049409, fd))
    note("FIDEDUPERANGE", attempt(fcntl.ioctl, fd, 0xC0189436, struct.pack("QQHHIqQQiI", 0, PAGE, 1, 0, 0, other, 0, 0, 0, 0)))
    note("FS_IOC_GETFLAGS", attempt(fcntl.ioctl, fd, 0x80086601, bytes(8)))
    note("FS_IOC_SETFLAGS", attempt(fcntl.ioctl, fd, 0x40086602, bytes(8)))
    for name, flags in (("COLLAPSE", COLLAPSE), ("INSERT", INSERT), ("UNSHARE", UNSHARE)):
        note(name, attempt(fallocate, fd, flags, 0, PAGE))
    note(tell(read_file("file")), sorted(os.listdir(".")))


def run(directory, wanted):
    for name, function, several in CASES:
        if (wanted and name not in wanted) or (several and not ROOT):
            continue
        place = os.path.join(directory, name)
        os.mkdir(place)
        os.chmod(place, 0o777)
        os.chdir(place)
        os.umask(0o022)

        def note(*seen):
            print(f"{name}: {' '.join(map(repr, seen))}", flush=True)

        child = os.fork()
        if child == 0:
            try:
                function(note)
            except Exception as error:  # What a case did not expect is something that was seen, too.
                note("ended by", repr(error))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    run(os.path.abspath(sys.argv[1]), sys.argv[2:])
