//! The beginning of every binary component: which file it is, and of which version of the format.
//!
//! ```text
//! head  0       8         10  12      16
//!       | magic | version | 0 | crc32 |        crc32: of the twelve bytes before it
//! ```
//!
//! The head keeps this form in all versions, so that a file of a later one is told from a damaged one.

use std::path::Path;

use super::descriptor::{Component, VERSION};
use crate::error::{Error, Result};

/// Version of the format that is written and read.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// Bytes of a head.
pub(crate) const HEAD_SIZE: usize = 16;

fn magic(component: Component) -> [u8; 8] {
    *match component {
        Component::Data => b"CETODATA",
        Component::Index => b"CETOINDX",
        Component::Filter => b"CETOFILT",
        Component::Dictionary => b"CETODICT",
        Component::Statistics => b"CETOSTAT",
        // Text files; they have no head.
        Component::Digest | Component::Toc => b"CETOTEXT",
    }
}

/// The head of a component.
pub(crate) fn write_head(component: Component) -> [u8; HEAD_SIZE] {
    let mut head = [0; HEAD_SIZE];
    head[..8].copy_from_slice(&magic(component));
    head[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Checks the head at the front of a component; what is behind it.
pub(crate) fn check_head<'a>(component: Component, bytes: &'a [u8], file: &Path) -> Result<&'a [u8]> {
    let damaged = |what: &str| Error::corrupt(file, 0, what);
    let (head, rest) = bytes
        .split_first_chunk::<HEAD_SIZE>()
        .ok_or_else(|| damaged("file is cut short in its head"))?;
    if head[..8] != magic(component) {
        return Err(damaged("file does not begin as it should"));
    }
    if crc32fast::hash(&head[..12]).to_le_bytes() != head[12..] {
        return Err(damaged("checksum of the file's head does not match"));
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != FORMAT_VERSION {
        return Err(unknown_version(file, &version.to_string()));
    }
    if head[10..12] != [0, 0] {
        return Err(damaged("unknown flags in the file's head"));
    }
    Ok(rest)
}

/// The error about a file of another version of the format.
pub(crate) fn unknown_version(file: &Path, version: &str) -> Error {
    let text = format!(
        "{} has version {version} of the sstable format, this release reads version {FORMAT_VERSION} (\"{VERSION}\"): \
         start the release that wrote it, or a later one",
        file.display()
    );
    Error::Layout(text.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn damage_is_told_from_another_version() {
        let file = Path::new("ceto-a-0-1-Data.db");
        let mut head = write_head(Component::Data).to_vec();
        head.push(7);
        assert_eq!(check_head(Component::Data, &head, file).unwrap(), [7]);
        assert!(matches!(
            check_head(Component::Index, &head, file),
            Err(Error::Corrupt(_))
        ));
        for bit in 0..HEAD_SIZE * 8 {
            let mut damaged = head.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = check_head(Component::Data, &damaged, file).unwrap_err();
            assert!(matches!(error, Error::Corrupt(_)), "bit {bit}: {error}");
        }
        head[8] = 2;
        let crc = crc32fast::hash(&head[..12]);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        let error = check_head(Component::Data, &head, file).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        assert!(!error.contains("corrupt"), "{error}");
    }
}
