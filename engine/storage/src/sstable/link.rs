//! An sstable under another name, and where its blocks begin.

use std::rc::Rc;

use ceto_model::Token;

use super::descriptor::{Component, Descriptor};
use super::digest::Digest;
use super::table::{COMPONENT_MAX, Sstable};
use crate::error::Result;

impl Sstable {
    /// Makes an sstable of another name and level with the same content, complete but for its table of contents. Data is
    /// not copied: the files get second names.
    pub(crate) async fn link_as(&self, descriptor: &Descriptor, level: u32) -> Result<()> {
        let disk = self.disk();
        let path = self.descriptor.path(Component::Digest);
        let digest = Digest::decode(&disk.read_file(&path, COMPONENT_MAX).await?, &path)?;
        let mut statistics = self.statistics.clone();
        statistics.level = level;
        let statistics = statistics.encode();
        let mut new_digest = Digest::default();
        for component in digest.components() {
            if component == Component::Statistics {
                new_digest.add_content(component, &statistics);
                continue;
            }
            let (from, to) = (self.descriptor.path(component), descriptor.path(component));
            disk.hard_link(&from, &to).await?;
            if let Some((size, checksum)) = digest.get(component) {
                new_digest.add(component, size, checksum);
            }
        }
        let small = [
            (Component::Statistics, statistics),
            (Component::Digest, new_digest.encode()),
        ];
        for (component, content) in small {
            let mut file = disk.create(&descriptor.path(component)).await?;
            file.append(&content).await?;
            file.finish().await?;
        }
        Ok(disk.sync_dir(&descriptor.dir).await?)
    }

    /// Tokens at which blocks of small partitions and large partitions begin, sorted. Damaged pages of the index are
    /// passed over.
    pub(crate) async fn block_tokens(self: &Rc<Self>) -> Result<Vec<Token>> {
        let mut tokens = vec![self.first.token];
        for location in self.index.pages() {
            match self.index_page(*location).await {
                Ok(page) => tokens.extend(
                    (0..page.len())
                        .filter_map(|slot| page.get(slot))
                        .map(|entry| entry.token),
                ),
                Err(crate::error::Error::Corrupt(corruption)) => tracing::warn!("{corruption}"),
                Err(error) => return Err(error),
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }
}
