//! Names of sstable files.
//!
//! `ceto-a-<shard>-<generation>-<component>`; `a` is the format version. Generations grow within a table's folder, over
//! all shards.

use std::path::{Path, PathBuf};

/// Format version in file names.
pub(crate) const VERSION: &str = "a";

/// Number of an sstable within its table's folder and shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

/// Which sstable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Descriptor {
    /// Folder of the table.
    pub dir: PathBuf,
    /// Shard that it was written for.
    pub shard: u16,
    /// Its number.
    pub generation: Generation,
}

/// Files of an sstable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Component {
    /// Partitions.
    Data,
    /// Where partitions and rows lie in Data.
    Index,
    /// Bloom filter of the partition keys; not there when the table wants none.
    Filter,
    /// What Zstandard's blocks are compressed with; only there when they are.
    Dictionary,
    /// Counts, ranges, provenance.
    Statistics,
    /// Checksums of the files above.
    Digest,
    /// The list of all files. Written last: without it the others are nothing.
    Toc,
}

impl Component {
    /// In the order in which they are written.
    pub const ALL: [Component; 7] = [
        Component::Data,
        Component::Index,
        Component::Filter,
        Component::Dictionary,
        Component::Statistics,
        Component::Digest,
        Component::Toc,
    ];

    /// End of the file's name.
    pub fn name(self) -> &'static str {
        match self {
            Component::Data => "Data.db",
            Component::Index => "Index.db",
            Component::Filter => "Filter.db",
            Component::Dictionary => "Dictionary.db",
            Component::Statistics => "Statistics.db",
            Component::Digest => "Digest.xxh3",
            Component::Toc => "TOC.txt",
        }
    }
}

impl Descriptor {
    /// Beginning of the files' names.
    pub fn prefix(&self) -> String {
        format!("ceto-{VERSION}-{}-{}", self.shard, self.generation.0)
    }

    /// Path of one file.
    pub fn path(&self, component: Component) -> PathBuf {
        self.dir.join(format!("{}-{}", self.prefix(), component.name()))
    }

    /// The version of the format that a file's name tells, when it is the name of an sstable's file of another version.
    pub(crate) fn other_version(name: &str) -> Option<&str> {
        let (version, rest) = name.strip_prefix("ceto-")?.split_once('-')?;
        let mut numbers = rest.splitn(3, '-');
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
        let is_version =
            (1..=2).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_sstable =
            is_version && is_number(numbers.next()) && is_number(numbers.next()) && numbers.next().is_some();
        (is_sstable && version != VERSION).then_some(version)
    }

    /// Parses a file's name; None when it is no sstable file of this format. The component is None for one that this
    /// version does not know (a half-written file under a temporary name).
    pub(crate) fn parse(dir: &Path, name: &str) -> Option<(Descriptor, Option<Component>)> {
        let rest = name
            .strip_prefix("ceto-")?
            .strip_prefix(VERSION)?
            .strip_prefix('-')?;
        let (shard, rest) = rest.split_once('-')?;
        let (generation, component) = rest.split_once('-')?;
        let descriptor = Descriptor {
            dir: dir.to_path_buf(),
            shard: shard.parse().ok()?,
            generation: Generation(generation.parse().ok()?),
        };
        let component = Component::ALL.into_iter().find(|known| known.name() == component);
        Some((descriptor, component))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_round_trip() {
        let descriptor = Descriptor {
            dir: "/data/ks/t-1".into(),
            shard: 3,
            generation: Generation(17),
        };
        for component in Component::ALL {
            let path = descriptor.path(component);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(
                Descriptor::parse(&descriptor.dir, name),
                Some((descriptor.clone(), Some(component)))
            );
        }
        for name in [
            "ceto-b-0-1-Data.db",
            "nb-1-big-Data.db",
            "ceto-a-x-1-Data.db",
            "ceto-a-1",
            "",
        ] {
            assert_eq!(Descriptor::parse(&descriptor.dir, name), None);
        }
        assert_eq!(Descriptor::other_version("ceto-b-0-1-Data.db"), Some("b"));
        for name in [
            "ceto-a-0-1-Data.db",
            "ceto-transaction-0-1",
            "nb-1-big-Data.db",
            "ceto-b-0-x-TOC.txt",
        ] {
            assert_eq!(Descriptor::other_version(name), None, "{name}");
        }
    }
}
