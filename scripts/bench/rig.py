"""What the benchmarks share: a place to work in, rewindfs and restic measured alike, and the table that is printed.

Imported by the scripts beside it; does nothing by itself. Times are wall-clock seconds, sizes bytes unless they say otherwise.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/release/rewindfs"
S3_SERVER = ROOT / "target/release/examples/s3-server"
MIB = 1 << 20
# Background processes of live mounts, so that none is left behind by a run that fails.
STARTED = []
TICKS = os.sysconf("SC_CLK_TCK")


def options(description, runs):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help="how often each is measured; medians are shown")
    parser.add_argument("--dir", default="/var/tmp", help="where to work: on the disk that is to be measured")
    parser.add_argument("--no-build", action="store_true", help="take target/release as it is")
    return parser


def prepare(build, *packages):
    """Builds the release once, and installs what is missing; `packages` are (command, Debian package)."""
    needs = "".join(f"need_package {command} {package}\n" for command, package in packages)
    builds = "need_rust\ncargo build --release --bin rewindfs --example s3-server\n" if build else ""
    script = f"set -euo pipefail\nsource scripts/prepare\nneed_fuse\n{needs}{builds}"
    subprocess.run(["bash", "-c", script], cwd=ROOT, check=True, stdout=sys.stderr)


def crate(program, name, version):
    """The path of a program of crates.io, built once into a cache folder outside the repository; `None`, said aloud, if that fails."""
    script = f"set -euo pipefail\nsource scripts/prepare\nneed_crate {program} {name} {version}\ncommand -v {program}"
    found = subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if found.returncode == 0:
        return found.stdout.strip()
    print(f"{program} is left out: {name} {version} could not be built", file=sys.stderr, flush=True)
    return None


class Usage:
    """What commands have cost so far: wall and CPU seconds, and the highest memory of any."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.memory = 0

    def run(self, command, env, **more):
        """Runs a command, counts it, and returns its standard output; fails if it does."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.monotonic()
            child = subprocess.Popen([str(part) for part in command], env=env, stdout=out, stderr=err, **more)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.wall += time.monotonic() - start
            self.cpu += usage.ru_utime + usage.ru_stime
            self.memory = max(self.memory, usage.ru_maxrss * 1024)
            out.seek(0)
            err.seek(0)
            if child.returncode != 0:
                sys.exit(f"{' '.join(map(str, command))} exited with {child.returncode}:\n{err.read().decode()}")
            return out.read().decode()


class Rewindfs:
    """A repository of its own and one live mount."""

    def __init__(self, work, repo, *mount_flags, aws=None):
        self.work, self.repo, self.flags = work, str(repo), mount_flags
        home = {f"XDG_{name}_HOME": str(work / f"home-{name.lower()}") for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REWINDFS_", "AWS_", "XDG_"))}
        self.env = {**kept, **home, **(aws or {}), "REWINDFS_PASSWORD": "benchmark", "REWINDFS_REPO": self.repo}
        self.used = Usage()
        self.mountpoint = work / "mount"
        self.mountpoint.mkdir()
        said = Usage().run([BINARY, "init", self.repo], self.env).splitlines()
        self.recovery_key = next(line.split()[-1] for line in said if line.startswith("recovery key"))

    def command(self, *arguments):
        return self.used.run([BINARY, *arguments], self.env)

    def mount(self, source):
        self.command("mount", source, self.mountpoint, *self.flags)
        STARTED.append(self.status()["pid"])

    def sync(self):
        self.command("sync", self.mountpoint)

    def status(self):
        return json.loads(Usage().run([BINARY, "status", self.mountpoint, "--json"], self.env))

    def snapshots(self):
        return json.loads(Usage().run([BINARY, "snapshots", "--json"], self.env))

    def daemon(self):
        """CPU seconds and highest resident memory of the background process."""
        pid = self.status()["pid"]
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM"))
        return (int(fields[11]) + int(fields[12])) / TICKS, int(peak.split()[1]) * 1024

    def total(self):
        """What clients and background process have used together."""
        cpu, memory = self.daemon()
        return {"wall": self.used.wall, "cpu": self.used.cpu + cpu, "memory": memory}

    def umount(self):
        if os.path.ismount(self.mountpoint):
            Usage().run([BINARY, "umount", self.mountpoint], self.env)


class Restic:
    """restic with a local repository of its own."""

    def __init__(self, work):
        self.repo = work / "restic"
        self.env = {
            **os.environ,
            "RESTIC_REPOSITORY": str(self.repo),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }
        self.used = Usage()
        Usage().run(["restic", "init"], self.env)

    def backup(self, source):
        self.used.run(["restic", "backup", "--quiet", "."], self.env, cwd=source)

    def total(self):
        return {"wall": self.used.wall, "cpu": self.used.cpu, "memory": self.used.memory}


class S3Server:
    """The tests' S3 server in memory, as a process of its own."""

    def __enter__(self):
        self.process = subprocess.Popen([S3_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = dict(word.split("=", 1) for word in self.process.stdout.readline().split())
        self.location = f"s3://{said['S3_BUCKET']}/bench?endpoint={said['S3_ENDPOINT']}&region=us-east-1&path_style=true"
        self.aws = {name: value for name, value in said.items() if name.startswith("AWS_")}
        return self

    def ask(self, line=""):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return [int(word) for word in self.process.stdout.readline().split()]

    def requests(self):
        """How many it has had so far."""
        return self.ask()[0]

    def given(self):
        """How many bytes of objects it has given out so far."""
        return self.ask()[1]

    def late(self, milliseconds):
        """Every request takes so much longer from now on, however much it moves: as a proxy in front would have it."""
        self.ask(milliseconds)

    def put_bytes(self):
        """How many bytes of objects it has been sent so far."""
        return self.ask()[2]

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Work:
    """A directory for one run: gone afterwards, with what is mounted in it."""

    def __init__(self, where):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="rewindfs-bench-", dir=where))
        warn_of_reuse(where)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        mounts = [line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((at for at in mounts if at.startswith(str(self.path))), reverse=True):
            # Lazily: a program that failed in it may still have a file open.
            subprocess.run(["umount", "--lazy", mount], check=False)
        for pid in filter(runs_still, STARTED):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)


@functools.cache
def warn_of_reuse(where):
    """Says so where making files takes the longer the more of them were removed in the last minutes, whoever removed them."""
    found = subprocess.run(["findmnt", "-no", "FSTYPE,SOURCE", "-T", where], stdout=subprocess.PIPE, text=True, check=False)
    kind, _, device = found.stdout.strip().partition(" ")
    name = pathlib.Path(device.strip()).name
    if kind == "ext4" and name and not list(pathlib.Path("/proc/fs/jbd2").glob(f"{name}-*")):
        print(
            f"{where} lies on an ext4 without a journal, which passes over the inodes of files removed within five minutes one by one: rows"
            " that make many files are slower there after others. Better another --dir.",
            file=sys.stderr,
            flush=True,
        )


def runs_still(pid):
    try:
        return os.path.samefile(f"/proc/{pid}/exe", BINARY)
    except OSError:
        return False


def stored(repo):
    """Objects of a local repository: path to size. What a store keeps for itself begins with a dot."""
    found = {}
    for folder, folders, names in os.walk(repo):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith("."):
                info = os.stat(path)
                found[path] = (info.st_size, info.st_mtime_ns)
    return found


def put(before, after):
    """Number and bytes of the objects that were put between two looks."""
    new = [size for path, (size, changed) in after.items() if before.get(path) != (size, changed)]
    return len(new), sum(new)


def write_random(path, length):
    with open(path, "wb") as file:
        for _ in range(length // MIB):
            file.write(os.urandom(MIB))


def small_file(number):
    """The path of one of them."""
    return f"{number // 1000:02}/{number // 40 % 25:02}/file{number}.txt"


def write_small_files(root, count, seed=1):
    """A mix like that of a source tree: mostly a few KB of text, some larger, some that do not compress; 12 KB on average."""
    dice = random.Random(seed)
    words = [bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz_", k=dice.randint(2, 12))) for _ in range(4000)]
    text = b" ".join(dice.choices(words, k=400_000))
    for number in range(count):
        path = root / small_file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        length = min(int(dice.lognormvariate(8.3, 1.45)), MIB)
        if number % 10 == 0:
            data = dice.randbytes(length)
        else:
            at = dice.randrange(len(text) - MIB)
            data = text[at : at + length]
        path.write_bytes(data)


def write_tiny_files(root, count, of_folder=100):
    """A few bytes each, no two alike, `of_folder` to a directory: what counts is how many there are."""
    for number in range(count):
        folder = root / f"{number // of_folder // 100:03}" / f"{number // of_folder % 100:02}"
        if number % of_folder == 0:
            folder.mkdir(parents=True)
        file = os.open(folder / f"{number:07}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(file, b"file %d\n" % number)
        os.close(file)


def median(rows):
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


class Table:
    """Prints what was found, and remembers whether a target was missed."""

    def __init__(self):
        self.missed = False

    def title(self, text):
        print(f"\n{text}", flush=True)

    def line(self, what, ours, peer=None, target=None, unit="s"):
        """Ours beside the peer's; `target` is (what it limits: "ratio" or "value", the most that is allowed)."""
        text = f"  {what:<34} rewindfs {show(ours, unit):>10}"
        if peer is not None:
            text += f"   restic {show(peer, unit):>10}   ratio {ours / peer if peer else 0:6.3f}"
        if target:
            kind, most = target
            value = ours / peer if kind == "ratio" else ours
            met = value <= most
            self.missed |= not met
            limit = f"{most:g}" if kind == "ratio" else show(most, unit)
            text += f"   target {kind} <= {limit}: {'met' if met else 'MISSED'}"
        print(text, flush=True)

    def exit(self):
        sys.exit(1 if self.missed else 0)


def show(value, unit):
    if unit == "s":
        return f"{value:.2f} s"
    if unit == "ms":
        return f"{value * 1000:.3g} ms"
    if unit == "bytes":
        return f"{value / MIB:.1f} MiB" if value >= MIB else f"{value / 1024:.1f} KiB"
    return f"{value:g}"
