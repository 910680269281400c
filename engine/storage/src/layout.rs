//! How many shards the files of a node are laid out for.
//!
//! ```text
//! DATA/layout ::= "shards " count "\n" "first_segment " id "\n" "state " ("ready" | "resharding") "\n"
//!                 "# " xxh3 in hex of all before it "\n"
//! ```

use std::path::{Path, PathBuf};

use ceto_env::Disk;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// Largest layout file, in bytes.
const SIZE_MAX: u64 = 4096;

/// The layout of a node's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// Shards.
    pub(crate) shards: u16,
    /// Files are being moved to this layout.
    pub(crate) is_resharding: bool,
    /// Commitlog segments before it belong to earlier layouts: no new one may have such an id.
    pub(crate) first_segment: u64,
}

impl Layout {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("layout")
    }

    /// None before the first start.
    pub(crate) async fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Layout>> {
        let path = Layout::path(data_dir);
        let bytes = match disk.read_file(&path, SIZE_MAX).await {
            Err(error) if error.is_not_found() => return Ok(None),
            bytes => bytes?,
        };
        let layout = std::str::from_utf8(&bytes).ok().and_then(Layout::parse);
        layout
            .map(Some)
            .ok_or_else(|| Error::corrupt(&path, 0, "layout file is not what it should be"))
    }

    fn parse(text: &str) -> Option<Layout> {
        let (text, checksum) = text.rsplit_once("# ")?;
        if checksum != checksum_line(text) {
            return None;
        }
        let (shards, rest) = text
            .strip_prefix("shards ")?
            .strip_suffix('\n')?
            .split_once("\nfirst_segment ")?;
        let (first_segment, state) = rest.split_once("\nstate ")?;
        Some(Layout {
            first_segment: first_segment.parse().ok()?,
            shards: shards.parse().ok().filter(|shards| *shards > 0)?,
            is_resharding: match state {
                "ready" => false,
                "resharding" => true,
                _ => return None,
            },
        })
    }

    /// Writes it, durably.
    pub(crate) async fn write(&self, disk: &dyn Disk, data_dir: &Path) -> Result<()> {
        let state = if self.is_resharding { "resharding" } else { "ready" };
        let mut text = format!(
            "shards {}\nfirst_segment {}\nstate {state}\n",
            self.shards, self.first_segment
        );
        let checksum = checksum_line(&text);
        text.push_str("# ");
        text.push_str(&checksum);
        Ok(disk.write_file(&Layout::path(data_dir), text.as_bytes()).await?)
    }

    /// Fails unless files are laid out for this number of shards (or there are none). Returns the least id that a new
    /// commitlog segment may have.
    pub(crate) async fn check(disk: &dyn Disk, data_dir: &Path, shards: u16) -> Result<u64> {
        match Layout::read(disk, data_dir).await? {
            Some(layout) if layout.is_resharding || layout.shards != shards => {
                let dir = data_dir.display();
                let text = format!(
                    "{dir} is laid out for {} shards, not {shards}: reshard first",
                    layout.shards
                );
                Err(Error::Layout(text.into()))
            }
            layout => Ok(layout.map_or(0, |layout| layout.first_segment)),
        }
    }
}

fn checksum_line(text: &str) -> String {
    format!("{:016x}\n", xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_checksum(text: &str) -> String {
        format!("{text}# {}", checksum_line(text))
    }

    #[test]
    fn only_a_whole_layout_is_read() {
        let layout = Layout {
            shards: 12,
            is_resharding: true,
            first_segment: 7,
        };
        let text = "shards 12\nfirst_segment 7\nstate resharding\n";
        assert_eq!(Layout::parse(&with_checksum(text)), Some(layout));
        assert_eq!(Layout::parse(text), None);
        for text in [
            "",
            "shards 12\nfirst_segment 7\nstate ready",
            "shards 4\n",
            "shards 0\nfirst_segment 7\nstate ready\n",
        ] {
            assert_eq!(Layout::parse(&with_checksum(text)), None);
        }
    }
}
