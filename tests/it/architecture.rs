//! The architecture, checked: which module may import which, and which habits hold everywhere.
//!
//! The layers stand in [`LAYERS`], from the bottom up. A module imports what lies below it and never its neighbours on the
//! same level. When the design changes, this list changes in the same commit. Test code (`tests.rs`, what follows
//! `#[cfg(test)]`) is free to use what it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One level of the picture in `lib.rs`: the modules on it, and what they may import of their own level.
struct Layer {
    modules: &'static [&'static str],
    /// Pairs (importer, imported) within the level that the design wants.
    within: &'static [(&'static str, &'static str)],
}

/// From the bottom up.
const LAYERS: &[Layer] = &[
    Layer {
        // Vocabulary. An id is made of random bytes, which enter through crypto's one door.
        modules: &[
            "id",
            "path",
            "clock",
            "metrics",
            "sys",
            "failpoint",
            "blocking",
            "buffers",
        ],
        // The kernel's times become ours where its structures are read.
        within: &[("sys", "clock"), ("failpoint", "sys")],
    },
    Layer {
        // Pure transforms. The formats name what crypto encrypts; crypto says what a ciphertext is.
        modules: &["format", "crypto", "chunk", "compress"],
        within: &[
            ("format", "crypto"),
            ("crypto", "format"),
            ("format", "compress"),
            // Opening a frame undoes encryption and compression in one go; a slot says how a repository compresses.
            ("crypto", "compress"),
            // A chunk is as long as a frame can be.
            ("chunk", "format"),
        ],
    },
    Layer {
        // Parts that do I/O, each ignorant of the others.
        modules: &["store", "cache", "journal", "source", "fuse"],
        within: &[],
    },
    Layer {
        modules: &["repo"],
        within: &[],
    },
    Layer {
        modules: &["epoch"],
        within: &[],
    },
    Layer {
        // Features: none knows another.
        modules: &[
            "mount",
            "snapshot",
            "reconcile",
            "flusher",
            "restore",
            "verify",
        ],
        within: &[],
    },
    Layer {
        modules: &["config"],
        within: &[],
    },
    Layer {
        modules: &["daemon"],
        within: &[],
    },
    Layer {
        modules: &["cli"],
        within: &[],
    },
];

/// Narrower than the layers: a module and the only ones below it that it may import. Each is an invariant of the design.
const ONLY: &[(&str, &[&str])] = &[
    // The live mount never waits for the network, and its imports prove it.
    (
        "mount",
        &[
            "epoch",
            "source",
            "journal",
            "fuse",
            "format",
            "id",
            "path",
            "clock",
            "metrics",
            "sys",
            "failpoint",
        ],
    ),
    // Epochs order changes of the source; they know no repository.
    (
        "epoch",
        &[
            "source",
            "journal",
            "format",
            "id",
            "path",
            "clock",
            "metrics",
            "sys",
            "failpoint",
        ],
    ),
];

/// Imports against the picture that stand for now, each with its reason. Empty is the goal.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "id",
    "crypto",
    "fresh identifiers come from crypto::random, the one door for randomness",
)];

/// A crate that is big or dangerous, and the files or directories that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("sled", &["journal/", "source/identity"]),
    ("aws_", &["store/s3"]),
    ("rustls", &["store/s3"]),
    ("leaky_bucket", &["store/pace.rs", "store/s3/line.rs"]),
    ("fuser", &["fuse/", "mount/front/", "snapshot/mod.rs"]),
    ("clap", &["cli/", "config/policy.rs"]),
    ("daemonize", &["daemon/background.rs"]),
    ("indicatif", &["cli/"]),
];

/// A source file: its path below `src`, and its text without comments and without test code.
struct Source {
    path: String,
    whole: String,
    code: String,
}

impl Source {
    /// The module of the first level that it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs" || self.path.contains("/tests/")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let whole = fs::read_to_string(&file).expect("a source file is text");
            let below = file.strip_prefix(&root).expect("collected below it");
            Source {
                path: below.to_string_lossy().into_owned(),
                code: code_of(&whole),
                whole,
            }
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source directory can be read") {
        let path = entry.expect("a source directory can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines that are code: no comments, no modules under `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            skip_item(line.len() - trimmed.len(), &mut lines);
        } else if !trimmed.starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or_default());
            code.push('\n');
        }
    }
    code
}

/// Passes over the item after an attribute: up to a line that ends it at the attribute's own depth (rustfmt sees to the depth).
fn skip_item<'a>(depth: usize, lines: &mut impl Iterator<Item = &'a str>) {
    for line in lines {
        let trimmed = line.trim_start();
        let at_depth = line.len() - trimmed.len() == depth;
        let is_head = trimmed.starts_with("#[") || trimmed.starts_with("//");
        if at_depth && !is_head && (trimmed.ends_with(['}', ';', ','])) {
            return;
        }
    }
}

/// The modules of the first level that code names: `crate::store::...`, `crate::{config, repo}`, `use crate::id::{...}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(word(rest)),
            Some(group) => found.extend(heads(group)),
        }
    }
    found
}

/// The first words of the parts of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut expecting = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            c if expecting && (c.is_alphanumeric() || c == '_') => {
                heads.extend(word(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn level(module: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|layer| layer.modules.contains(&module))
}

fn is_exception(importer: &str, imported: &str) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(from, to, _)| (*from, *to) == (importer, imported))
}

/// What is wrong with `importer` importing `imported`, if anything.
fn verdict(importer: &str, imported: &str) -> Option<String> {
    if importer == imported || is_exception(importer, imported) {
        return None;
    }
    let (from, to) = (level(importer)?, level(imported)?);
    let wrong = || Some(format!("{importer} must not import {imported}"));
    if let Some((_, allowed)) = ONLY.iter().find(|(module, _)| *module == importer)
        && !allowed.contains(&imported)
    {
        return wrong();
    }
    let within = LAYERS[from].within.contains(&(importer, imported));
    match to < from || (to == from && within) {
        true => None,
        false => wrong(),
    }
}

#[track_caller]
fn must_be_empty(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n  {}\n", problems.join("\n  "));
}

#[test]
fn imports_go_down_the_picture_only() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for imported in imports(&source.code) {
            if let Some(problem) = verdict(source.module(), &imported) {
                problems.push(format!("{problem} (src/{})", source.path));
            }
        }
    }
    must_be_empty(problems);
}

#[test]
fn every_module_has_its_layer() {
    let known: BTreeSet<&str> = LAYERS
        .iter()
        .flat_map(|layer| layer.modules)
        .copied()
        .collect();
    let found: BTreeSet<String> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .filter(|module| module != "main" && module != "lib")
        .collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn big_crates_stay_at_home() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (name, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            if !at_home && names_crate(&source.code, name) {
                problems.push(format!(
                    "{name} is named outside its home in src/{}",
                    source.path
                ));
            }
        }
    }
    must_be_empty(problems);
}

/// Whether code names something of a crate: `sled::`, `use aws_sdk_s3`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        let rest =
            code[at + name.len()..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        let whole = name.ends_with('_') || code[at + name.len()..].len() == rest.len();
        begins && whole && rest.starts_with("::")
    })
}

/// The fuzzers compile some layers by themselves, in a workspace that no build of ours touches (`tests/fuzz`): what these layers come to
/// need must be there too, in the version that is shipped.
#[test]
fn what_is_fuzzed_is_built_of_all_that_it_needs() {
    let below = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(path).expect("a file of the repository")
    };
    let layers = below("tests/fuzz/layers.rs");
    let layers: BTreeSet<&str> = layers
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(layers.contains("format"), "{layers:?}");
    let manifest = |path| below(path).parse::<toml::Table>().expect("a manifest");
    let (shipped, fuzzed) = (manifest("Cargo.toml"), manifest("tests/fuzz/Cargo.toml"));
    let crates = shipped["dependencies"].as_table().expect("a table");

    let mut problems = Vec::new();
    for source in sources() {
        if source.is_test() || !layers.contains(source.module()) {
            continue;
        }
        let missing = imports(&source.code).into_iter();
        let missing = missing.filter(|module| !layers.contains(module.as_str()));
        problems.extend(
            missing.map(|module| {
                format!("src/{} needs {module} in tests/fuzz/layers.rs", source.path)
            }),
        );
        let named = crates.iter();
        let named = named.filter(|(name, _)| names_crate(&source.code, &name.replace('-', "_")));
        let other = named.filter(|(name, spec)| fuzzed["dependencies"].get(name) != Some(*spec));
        problems.extend(other.map(|(name, spec)| {
            format!(
                "src/{} needs {name} = {spec} in tests/fuzz/Cargo.toml",
                source.path
            )
        }));
    }
    must_be_empty(problems);
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    let is_sys = |path: &str| path == "sys.rs" || path.starts_with("sys/");
    let problems = sources()
        .iter()
        .filter(|source| !is_sys(&source.path))
        .filter(|source| {
            let words = source
                .code
                .split(|c: char| !c.is_alphanumeric() && c != '_');
            words.into_iter().any(|word| word == "unsafe")
        })
        .map(|source| format!("unsafe in src/{}", source.path))
        .collect();
    must_be_empty(problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let problems = sources()
        .iter()
        .filter(|source| !source.whole.starts_with("//!") && !source.whole.starts_with("#![doc"))
        .map(|source| format!("src/{} does not open with //!", source.path))
        .collect();
    must_be_empty(problems);
}

#[test]
fn printing_happens_in_one_file() {
    let macros = ["println!", "eprintln!", "print!(", "eprint!(", "dbg!("];
    let problems = sources()
        .iter()
        .filter(|source| source.path != "cli/output.rs" && !source.is_test())
        .filter(|source| macros.iter().any(|print| source.code.contains(print)))
        .map(|source| format!("src/{} prints; cli/output.rs does that", source.path))
        .collect();
    must_be_empty(problems);
}

#[test]
fn nothing_is_left_to_do() {
    let marks = ["todo!(", "unimplemented!(", "dbg!("];
    let problems = sources()
        .iter()
        .flat_map(|source| {
            marks
                .iter()
                .filter(|mark| source.code.contains(**mark))
                .map(|mark| format!("{mark} in src/{}", source.path))
        })
        .collect();
    must_be_empty(problems);
}

/// The only file that may let time pass: a kill at a random instant has nothing else to wait for.
const LETS_TIME_PASS: &str = "tests/crash/wait.rs";

#[test]
fn tests_neither_sleep_nor_are_left_out() {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"),
        &mut files,
    );
    let outside = files.into_iter().filter_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        Some((file.display().to_string(), text))
    });
    let inside = sources().into_iter().filter(Source::is_test);
    let problems = inside
        .map(|source| (format!("src/{}", source.path), source.whole))
        .chain(outside)
        .filter(|(path, _)| !path.ends_with("architecture.rs") && !path.ends_with(LETS_TIME_PASS))
        .flat_map(|(path, text)| {
            let found = ["thread::sleep", "#[ignore"].into_iter();
            let found: Vec<_> = found.filter(|mark| text.contains(mark)).collect();
            found
                .into_iter()
                .map(move |mark| format!("{mark} in {path}"))
        })
        .collect();
    must_be_empty(problems);
}

#[test]
fn the_checks_see_what_they_must() {
    let text = "\
//! crate::store is a comment
use crate::{config, repo::{Error, tree}, id};
use crate::store::Store; // crate::fuse is not meant
fn f() { crate::cli::run() }
#[cfg(test)]
mod tests {
    use crate::verify::Report;
}
use crate::journal::Journal;
";
    let found = imports(&code_of(text));
    let want = ["cli", "config", "id", "journal", "repo", "store"];
    assert_eq!(found, want.map(str::to_owned).into());

    assert_eq!(verdict("store", "id"), None);
    assert_eq!(verdict("daemon", "flusher"), None);
    assert_eq!(
        verdict("store", "repo").as_deref(),
        Some("store must not import repo")
    );
    assert_eq!(
        verdict("store", "cache").as_deref(),
        Some("store must not import cache")
    );
    assert_eq!(
        verdict("mount", "repo").as_deref(),
        Some("mount must not import repo")
    );
    assert_eq!(
        verdict("flusher", "mount").as_deref(),
        Some("flusher must not import mount")
    );

    assert!(names_crate("use sled::Db;", "sled"));
    assert!(names_crate("let x = aws_sdk_s3::Client", "aws_"));
    assert!(!names_crate("self.unsled::x", "sled"));
    assert!(!names_crate("let fuser = 1;", "fuser"));
}
