//! A path inside a volume: components of arbitrary bytes, always relative to the volume's root.

use std::fmt;

/// A path inside a volume. The root is the empty path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RepoPath(Vec<Vec<u8>>);

impl RepoPath {
    /// The volume's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads `a/b/c` or `/a/b/c`; empty components and `.` are dropped. `None` if a component is `..`
    /// or holds a NUL byte, since neither can name anything in a snapshot.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut components = Vec::new();
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return None,
                name if name.contains(&0) => return None,
                name => components.push(name.to_vec()),
            }
        }
        Some(Self(components))
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// This path with one more component.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut components = self.0.clone();
        components.push(name.to_vec());
        Self(components)
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.0.last().map(Vec::as_slice)
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// Whether this is the volume's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.starts_with(&ancestor.0)
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0
            .iter()
            .try_for_each(|c| write!(f, "/{}", String::from_utf8_lossy(c).escape_debug()))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoPath({self})")
    }
}
