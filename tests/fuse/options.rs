//! Mount options, and mounting by mount(8).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Output;

use rewindfs::sys;

use crate::world::{World, can_mount, when_unused};

/// What `/proc/mounts` says of the uppermost mount at `place`.
fn options_of(place: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == place.to_str());
    let options = line.and_then(|line| line.split(' ').nth(3));
    let options = options.expect("it is mounted").split(',');
    options.map(str::to_owned).collect()
}

fn has(options: &[String], wanted: &[&str]) -> bool {
    wanted
        .iter()
        .all(|wanted| options.iter().any(|option| option == wanted))
}

#[test]
fn options_reach_the_kernel() {
    if !can_mount("options_reach_the_kernel") {
        return;
    }
    let world = World::new();
    world.init();
    fs::write(world.source().join("file"), b"before").unwrap();
    world.mount(&["-o", "ro,noexec,nodev", "-o", "nosuid"]);
    let options = options_of(&world.source());
    assert!(
        has(&options, &["ro", "noexec", "nodev", "nosuid"]),
        "{options:?}"
    );
    let refused = fs::write(world.source().join("file"), b"after").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(world.source().join("file")).unwrap(), b"before");
    world.unmount(&world.source());

    // What was there is in the repository all the same.
    let then = world.dir("then");
    let source = world.source();
    world.run([
        OsStr::new("mount"),
        source.as_os_str(),
        OsStr::new("--at"),
        OsStr::new("latest"),
        OsStr::new("-o"),
        OsStr::new("rw,noexec"),
        then.as_os_str(),
    ]);
    let options = options_of(&then);
    assert!(
        has(&options, &["ro", "noexec"]),
        "a snapshot stays read-only: {options:?}"
    );
    assert_eq!(fs::read(then.join("file")).unwrap(), b"before");
    world.unmount(&then);

    let unknown = world.try_run([
        OsStr::new("mount"),
        world.source().as_os_str(),
        OsStr::new("-o"),
        OsStr::new("ro,surprise"),
    ]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("surprise"));
}

/// Where we may not say how far, the kernel's own word stands.
#[test]
fn the_kernel_reads_ahead_further_where_it_lets_itself_be_told() {
    if !can_mount("the_kernel_reads_ahead_further_where_it_lets_itself_be_told") {
        return;
    }
    let world = World::new();
    world.init();
    world.mount(&[]);
    let device = fs::metadata(world.source()).unwrap().dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let place = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let told = fs::read_to_string(&place).unwrap();
    let may_be_told = fs::write(&place, &told).is_ok();
    let kib: u32 = told.trim().parse().unwrap();
    assert!(kib >= 1024 || !may_be_told, "{kib}");
    world.unmount(&world.source());
}

#[test]
fn a_mount_for_its_owner_alone_lets_nobody_else_in() {
    if !can_mount("a_mount_for_its_owner_alone_lets_nobody_else_in") || sys::effective_uid() != 0 {
        return;
    }
    use std::os::unix::process::CommandExt;
    let world = World::new();
    world.init();
    sys::set_mode(&fs::File::open(world.path("")).unwrap(), 0o755).unwrap();
    let readable = || {
        let mut look = std::process::Command::new("ls");
        let output = look.arg(world.source()).uid(12_345).gid(12_345).output();
        output.unwrap().status.success()
    };
    world.mount(&[]);
    assert!(readable(), "root's mounts are for all");
    world.unmount(&world.source());
    world.mount(&["-o", "allow_root"]);
    assert!(!readable());
    assert_eq!(fs::read_dir(world.source()).unwrap().count(), 0);
    world.unmount(&world.source());
}

/// As mount(8) calls us: under another name, with all options in one list.
fn by_mount(world: &World, arguments: &[&OsStr]) -> Output {
    let link = world.path("mount.rewindfs");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_rewindfs"), &link).unwrap();
    }
    let plain = world.command(arguments);
    let mut command = std::process::Command::new(link);
    command.args(arguments);
    for (name, value) in plain.get_envs() {
        if let Some(value) =
            value.filter(|_| name != "REWINDFS_REPO" && name != "REWINDFS_PASSWORD")
        {
            command.env(name, value);
        }
    }
    when_unused(&mut command)
}

#[test]
fn a_line_of_fstab_mounts() {
    if !can_mount("a_line_of_fstab_mounts") {
        return;
    }
    let world = World::new();
    world.init();
    let key = world.path("password");
    fs::write(&key, "correct horse battery staple\n").unwrap();
    fs::write(world.source().join("file"), b"x").unwrap();
    let common = format!(
        "repo={},password_file={}",
        world.path("repository").display(),
        key.display()
    );
    let (source, then) = (world.source(), world.dir("then"));
    let line = |place: &Path, more: &str| {
        let options = format!("{common},noauto,x-systemd.automount,{more}");
        by_mount(
            &world,
            &[
                source.as_os_str(),
                place.as_os_str(),
                OsStr::new("-o"),
                OsStr::new(&options),
            ],
        )
    };
    let live = line(&source, "rw,noexec,interval=1s");
    assert!(
        live.status.success(),
        "{}",
        String::from_utf8_lossy(&live.stderr)
    );
    assert!(has(&options_of(&source), &["rw", "noexec"]));
    world.snapshot("before");
    let past = line(&then, "ro,at=before");
    assert!(
        past.status.success(),
        "{}",
        String::from_utf8_lossy(&past.stderr)
    );
    assert_eq!(fs::read(then.join("file")).unwrap(), b"x");
    world.unmount(&then);

    let again = line(&source, "rw");
    assert_eq!(again.status.code(), Some(32), "mounted already");
    let unknown = line(&then, "surprise");
    assert_eq!(unknown.status.code(), Some(32));
    let usage = by_mount(&world, &[source.as_os_str()]);
    assert_eq!(usage.status.code(), Some(1));
    world.unmount(&source);
}
