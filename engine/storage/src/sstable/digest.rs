//! The digest (checksums of whole files) and the table of contents.
//!
//! ```text
//! Digest.xxh3 ::= (name " " size " " xxh3 in hex "\n")* "# " xxh3 in hex of all before it "\n"
//! TOC.txt     ::= (name "\n")*
//! ```

use std::fmt::Write;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::descriptor::Component;
use crate::error::{Error, Result};

/// Sizes and checksums of an sstable's files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Digest {
    files: Vec<(Component, u64, u64)>,
}

impl Digest {
    pub(crate) fn add(&mut self, component: Component, size: u64, checksum: u64) {
        self.files.push((component, size, checksum));
    }

    pub(crate) fn add_content(&mut self, component: Component, content: &[u8]) {
        self.add(component, content.len() as u64, xxh3_64(content));
    }

    /// Size and checksum of a file.
    pub(crate) fn get(&self, component: Component) -> Option<(u64, u64)> {
        let file = self.files.iter().find(|(own, ..)| *own == component)?;
        Some((file.1, file.2))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        for (component, size, checksum) in &self.files {
            writeln!(text, "{} {size} {checksum:016x}", component.name()).expect("a string takes any text");
        }
        let checksum = xxh3_64(text.as_bytes());
        writeln!(text, "# {checksum:016x}").expect("a string takes any text");
        text.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<Digest> {
        Digest::parse(bytes).ok_or_else(|| Error::corrupt(file, 0, "digest is not what it should be"))
    }

    fn parse(bytes: &[u8]) -> Option<Digest> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (content, checksum) = text.strip_suffix('\n')?.rsplit_once("# ")?;
        if format!("{:016x}", xxh3_64(content.as_bytes())) != checksum {
            return None;
        }
        let mut digest = Digest::default();
        for line in content.lines() {
            let mut words = line.split(' ');
            let name = words.next()?;
            let component = Component::ALL
                .into_iter()
                .find(|component| component.name() == name)?;
            let size = words.next()?.parse().ok()?;
            digest.add(component, size, u64::from_str_radix(words.next()?, 16).ok()?);
        }
        Some(digest)
    }
}

/// The table of contents.
pub(crate) fn toc() -> String {
    Component::ALL
        .map(|component| format!("{}\n", component.name()))
        .concat()
}

/// Whether `bytes` are a table of contents.
pub(crate) fn check_toc(bytes: &[u8], file: &Path) -> Result<()> {
    if bytes == toc().as_bytes() {
        return Ok(());
    }
    Err(Error::corrupt(
        file,
        0,
        "table of contents is not what it should be",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_digest_round_trips_and_damage_is_noticed() {
        let mut digest = Digest::default();
        digest.add(Component::Data, 4096, 0xabcd);
        digest.add_content(Component::Filter, b"filter");
        let bytes = digest.encode();
        let file = Path::new("Digest.xxh3");
        assert_eq!(Digest::decode(&bytes, file).unwrap(), digest);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Digest::decode(&damaged, file).is_err());
            assert!(Digest::decode(&bytes[..at], file).is_err());
        }
    }
}
