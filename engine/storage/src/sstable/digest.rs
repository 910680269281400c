//! The digest (checksums of whole files) and the table of contents.
//!
//! ```text
//! Digest.xxh3 ::= "version 1\n" (name " " size " " xxh3 in hex "\n")* "# " xxh3 in hex of all before it "\n"
//! TOC.txt     ::= (name "\n")*
//! ```
//!
//! The digest lists the files written before it, in the order of [`Component::ALL`]; the table of contents the same
//! ones, the digest and itself.

use std::fmt::Write;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::descriptor::Component;
use super::head::{FORMAT_VERSION, unknown_version};
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

    /// The files that it tells of.
    pub(crate) fn components(&self) -> impl Iterator<Item = Component> {
        self.files.iter().map(|(component, ..)| *component)
    }

    /// Size and checksum of a file.
    pub(crate) fn get(&self, component: Component) -> Option<(u64, u64)> {
        let file = self.files.iter().find(|(own, ..)| *own == component)?;
        Some((file.1, file.2))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("version {FORMAT_VERSION}\n");
        let mut files = self.files.clone();
        files.sort_unstable();
        for (component, size, checksum) in &files {
            writeln!(text, "{} {size} {checksum:016x}", component.name()).expect("a string takes any text");
        }
        let checksum = xxh3_64(text.as_bytes());
        writeln!(text, "# {checksum:016x}").expect("a string takes any text");
        text.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<Digest> {
        let damaged = || Error::corrupt(file, 0, "digest is not what it should be");
        let content = Digest::checked(bytes).ok_or_else(damaged)?;
        let (version, files) = content
            .strip_prefix("version ")
            .and_then(|content| content.split_once('\n'))
            .ok_or_else(damaged)?;
        if version != FORMAT_VERSION.to_string() {
            return Err(unknown_version(file, version));
        }
        Digest::parse(files).ok_or_else(damaged)
    }

    /// The text before the checksum, when that is right.
    fn checked(bytes: &[u8]) -> Option<&str> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (content, checksum) = text.strip_suffix('\n')?.rsplit_once("# ")?;
        (format!("{:016x}", xxh3_64(content.as_bytes())) == checksum).then_some(content)
    }

    fn parse(content: &str) -> Option<Digest> {
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

/// The table of contents of an sstable whose files a digest tells.
pub(crate) fn toc(digest: &Digest) -> String {
    let written = digest.components().chain([Component::Digest, Component::Toc]);
    written
        .map(|component| format!("{}\n", component.name()))
        .collect()
}

/// Whether `bytes` are the table of contents that goes with a digest.
pub(crate) fn check_toc(bytes: &[u8], digest: &Digest, file: &Path) -> Result<()> {
    if bytes == toc(digest).as_bytes() {
        return Ok(());
    }
    let what = "table of contents lists other files than the digest";
    Err(Error::corrupt(file, 0, what))
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
        let toc = toc(&digest);
        assert_eq!(toc, "Data.db\nFilter.db\nDigest.xxh3\nTOC.txt\n");
        assert!(check_toc(toc.as_bytes(), &digest, file).is_ok());
        for bit in 0..toc.len() * 8 {
            let mut damaged = toc.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(check_toc(&damaged, &digest, file).is_err());
        }
    }
}
