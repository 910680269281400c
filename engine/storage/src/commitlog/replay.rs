//! Reading the log back after a restart.
//!
//! Every valid entry is handed out, whatever lies between them: mutations merge in any order and number, so what is
//! intact is never given up for what is not. Afterwards the damage is judged: a torn end, or a hole in what had not
//! been synced, is what a power loss leaves; damage in what had been synced is corruption, and recovery fails.

use std::path::{Path, PathBuf};

use ceto_env::{Disk, Env};
use ceto_model::Mutation;
use ceto_model::codec::Decoder;

use super::ReplayPosition;
use super::format::{Entries, SEGMENT_HEADER_SIZE};
use crate::error::{Error, Result};

/// A segment found on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) id: u64,
    pub(crate) shard: u16,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

/// `CommitLog-<format>-<shard>-<id>.log`.
pub(super) fn segment_file_name(shard: u16, id: u64) -> String {
    format!("CommitLog-1-{shard}-{id}.log")
}

/// The name of a released segment: it is renamed before anything else happens to it, so that one whose content is only
/// partly erased is never taken for one that holds writes.
pub(super) fn free_file_name(shard: u16, id: u64) -> String {
    format!("CommitLog-1-{shard}-{id}.free")
}

fn parse_file_name(name: &str) -> Option<(u16, u64, bool)> {
    let (rest, end) = name.strip_prefix("CommitLog-1-")?.rsplit_once('.')?;
    let (shard, id) = rest.split_once('-')?;
    let (shard, id) = (shard.parse().ok()?, id.parse().ok()?);
    match end {
        "log" if segment_file_name(shard, id) == name => Some((shard, id, false)),
        "free" if free_file_name(shard, id) == name => Some((shard, id, true)),
        _ => None,
    }
}

/// The segment files of a folder, of all shards, each kind by id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentFiles {
    /// May hold writes.
    pub(crate) segments: Vec<SegmentFile>,
    /// Hold nothing.
    pub(crate) free: Vec<SegmentFile>,
}

impl SegmentFiles {
    /// Lists a folder; nothing when it is missing.
    pub(crate) async fn list(disk: &dyn Disk, dir: &Path) -> Result<SegmentFiles> {
        let entries = match disk.list_dir(dir).await {
            Err(error) if error.is_not_found() => return Ok(SegmentFiles::default()),
            entries => entries?,
        };
        let mut files = SegmentFiles::default();
        for entry in entries {
            let Some((shard, id, is_free)) = parse_file_name(&entry.name) else {
                continue;
            };
            let kind = if is_free {
                &mut files.free
            } else {
                &mut files.segments
            };
            kind.push(SegmentFile {
                id,
                shard,
                path: dir.join(entry.name),
                size: entry.size,
            });
        }
        files.segments.sort_by_key(|file| file.id);
        files.free.sort_by_key(|file| file.id);
        Ok(files)
    }

    /// The greatest id in use.
    pub(crate) fn last_id(&self) -> u64 {
        let all = self.segments.iter().chain(&self.free);
        all.map(|file| file.id).max().unwrap_or(0)
    }
}

/// One entry read back.
pub(crate) struct Replayed {
    pub(crate) position: ReplayPosition,
    pub(crate) mutation: Mutation,
}

/// What a replay found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ReplayReport {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

struct Damage {
    life: Option<u64>,
    position: ReplayPosition,
    path: PathBuf,
}

/// Hands every valid entry of `files`, which are of one shard, to `apply`, in order.
pub(crate) async fn replay(
    env: &dyn Env,
    files: &[SegmentFile],
    mut apply: impl AsyncFnMut(Replayed) -> Result<()>,
) -> Result<ReplayReport> {
    let disk = env.disk();
    let mut report = ReplayReport::default();
    let mut damage = Vec::new();
    let mut synced = Vec::new();
    for file in files {
        let content = disk.read_file(&file.path, file.size).await?;
        let mut entries = Entries::new(content, file.id, &file.path)?;
        let mut synced_through = 0;
        for entry in entries.by_ref() {
            let position = ReplayPosition {
                segment: file.id,
                offset: entry.offset,
            };
            synced_through = synced_through.max(entry.synced_through);
            report.entries += 1;
            report.bytes += entry.payload.len() as u64;
            let mut decoder = Decoder::new(entry.payload);
            let mutation = decoder.mutation().and_then(|mutation| {
                decoder.finish("commitlog entry")?;
                Ok(mutation)
            });
            let mutation =
                mutation.map_err(|error| Error::decode(&file.path, entry.offset.into(), &error))?;
            apply(Replayed { position, mutation }).await?;
            if let Some(turn) = env.tasks().yield_if_due() {
                turn.await;
            }
        }
        // The header itself vouches for nothing: only a sync that reached entries does.
        if synced_through > SEGMENT_HEADER_SIZE {
            let position = ReplayPosition {
                segment: file.id,
                offset: synced_through,
            };
            synced.push((entries.life, position));
        }
        damage.extend(entries.damage.iter().map(|offset| Damage {
            life: entries.life,
            position: ReplayPosition {
                segment: file.id,
                offset: *offset,
            },
            path: file.path.clone(),
        }));
    }
    for damage in damage {
        judge(&damage, &synced)?;
    }
    Ok(report)
}

fn judge(damage: &Damage, synced: &[(Option<u64>, ReplayPosition)]) -> Result<()> {
    let offset = u64::from(damage.position.offset);
    let is_vouched_for = synced.iter().any(|(life, synced)| {
        let is_same_segment = synced.segment == damage.position.segment;
        let is_same_life = life.is_some() && *life == damage.life;
        (is_same_segment || is_same_life) && damage.position < *synced
    });
    if is_vouched_for {
        let what = "damaged commitlog entry in a part that had been synced; intact entries follow it. Restore the \
                    file, or move it away and lose its writes";
        return Err(Error::corrupt(&damage.path, offset, what));
    }
    tracing::warn!(
        "commitlog segment {} is torn at offset {offset}: what was written there had not been synced",
        damage.path.display()
    );
    Ok(())
}
