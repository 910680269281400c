//! Reading the log back after a restart.
//!
//! Every valid entry is handed out, whatever lies between them: mutations merge in any order and number, so what is
//! intact is never given up for what is not. Afterwards the damage is judged: a torn end, or a hole in what had not
//! been synced, is what a power loss leaves; damage in what had been synced is corruption, and what then happens is the
//! operator's choice (`commitlog_replay_failure_policy`).
//!
//! Never: applies a part of an entry of several mutations, or of one that belongs into an index too, that a power loss could
//! still take. A process that was killed leaves such entries to the kernel; once one of their tables is flushed the others have
//! nothing but the entry. So the segment is written anew first. (Syncing it would do, but for a sync that failed before: then the next one succeeds and
//! writes nothing.)

use std::path::{Path, PathBuf};
use std::time::Duration;

use ceto_env::{Disk, Env};
use ceto_model::Mutation;
use ceto_model::codec::Decoder;
use smallvec::SmallVec;

use super::format::{Entries, Entry, SEGMENT_HEADER_SIZE};
use super::{ReplayPosition, ReplayProgress};
use crate::error::{Error, Result};
use crate::options::ReplayFailurePolicy;

/// Time between two log lines about a long replay.
const LOG_PERIOD: Duration = Duration::from_secs(5);
/// Largest segment, in bytes.
const SEGMENT_MAX: u64 = 2 << 30;
/// End of the name of a copy of a damaged segment.
const DAMAGED: &str = ".damaged";

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

/// The shard of a file that was being written beside the segments.
fn temporary_of(name: &str) -> Option<u16> {
    let name = name.strip_suffix(".tmp")?;
    let name = name.strip_suffix(DAMAGED).unwrap_or(name);
    parse_file_name(name).map(|(shard, ..)| shard)
}

/// The segment files of a folder, of all shards, each kind by id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentFiles {
    /// May hold writes.
    pub(crate) segments: Vec<SegmentFile>,
    /// Hold nothing.
    pub(crate) free: Vec<SegmentFile>,
    /// What a crash left of copies: shard and path.
    pub(crate) temporary: Vec<(u16, PathBuf)>,
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
            if let Some(shard) = temporary_of(&entry.name) {
                files.temporary.push((shard, dir.join(entry.name)));
                continue;
            }
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
#[derive(Debug, Default)]
pub(crate) struct ReplayReport {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) damage: Vec<Damage>,
}

/// A place that should hold an entry and does not.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    path: PathBuf,
    position: ReplayPosition,
    life: Option<u64>,
    /// Why an intact entry cannot be used, where it is that.
    error: Option<Error>,
    /// It had been synced: no crash leaves it so.
    is_corruption: bool,
}

/// Hands every valid entry of `files`, which are of one shard, to `apply`, in order. `has_indexes`: any of them may belong into
/// an index too.
pub(crate) async fn replay(
    env: &dyn Env,
    files: &[SegmentFile],
    progress: &ReplayProgress,
    has_indexes: bool,
    mut apply: impl AsyncFnMut(Replayed) -> Result<()>,
) -> Result<ReplayReport> {
    let disk = env.disk();
    let mut report = ReplayReport::default();
    let mut synced = Vec::new();
    let mut log_at = env.clock().now() + LOG_PERIOD;
    progress.begin(files.len() as u64, files.iter().map(|file| file.size).sum());
    let _running = Running(progress);
    for file in files {
        let content = disk.read_file(&file.path, file.size).await?;
        let mut walk = Entries::new(content.clone(), file.id, &file.path)?;
        let entries: Vec<Entry> = walk.by_ref().collect();
        let synced_through = entries
            .iter()
            .map(|entry| entry.synced_through)
            .max()
            .unwrap_or(0);
        let may_be_lost =
            |entry: &Entry| (entry.is_together || has_indexes) && entry.offset >= synced_through;
        if entries.iter().any(may_be_lost) {
            disk.write_file(&file.path, &content).await?;
        }
        for entry in entries {
            let position = ReplayPosition {
                segment: file.id,
                offset: entry.offset,
            };
            report.entries += 1;
            report.bytes += entry.payload.len() as u64;
            progress.add_entry();
            match decode(&entry, &file.path) {
                Ok(mutations) => {
                    for mutation in mutations {
                        apply(Replayed { position, mutation }).await?;
                    }
                }
                Err(error) => report.damage.push(Damage {
                    path: file.path.clone(),
                    position,
                    life: None,
                    error: Some(error),
                    is_corruption: true,
                }),
            }
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
            synced.push((walk.life, position));
        }
        report.damage.extend(walk.damage.iter().map(|offset| Damage {
            path: file.path.clone(),
            position: ReplayPosition {
                segment: file.id,
                offset: *offset,
            },
            life: walk.life,
            error: None,
            is_corruption: false,
        }));
        progress.add_segment(file.size);
        if env.clock().now() >= log_at {
            log_at = env.clock().now() + LOG_PERIOD;
            log_progress(progress);
        }
    }
    for damage in &mut report.damage {
        damage.is_corruption |= is_vouched_for(damage, &synced);
    }
    Ok(report)
}

/// Ends the progress also when the replay fails.
struct Running<'a>(&'a ReplayProgress);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn log_progress(progress: &ReplayProgress) {
    let ((segments, of_segments), (bytes, of_bytes)) = (progress.segments(), progress.bytes());
    let percent = bytes * 100 / of_bytes.max(1);
    let entries = progress.entries();
    tracing::info!(
        "replaying the commitlog: {segments} of {of_segments} segments, {bytes} of {of_bytes} bytes ({percent} %), {entries} entries"
    );
}

/// All mutations of an entry, or none.
fn decode(entry: &Entry, path: &Path) -> Result<SmallVec<[Mutation; 1]>> {
    let offset = u64::from(entry.offset);
    let encoded = entry
        .mutations()
        .ok_or_else(|| Error::corrupt(path, offset, "commitlog entry cannot be decompressed"))?;
    let mut decoder = Decoder::new(encoded);
    let mut mutations = SmallVec::new();
    loop {
        let mutation = decoder.mutation();
        mutations.push(mutation.map_err(|error| Error::decode(path, offset, &error))?);
        if decoder.remaining() == 0 {
            return Ok(mutations);
        }
    }
}

fn is_vouched_for(damage: &Damage, synced: &[(Option<u64>, ReplayPosition)]) -> bool {
    synced.iter().any(|(life, synced)| {
        let is_same_segment = synced.segment == damage.position.segment;
        let is_same_life = life.is_some() && *life == damage.life;
        (is_same_segment || is_same_life) && damage.position < *synced
    })
}

/// Says what a replay could not use, and fails when that is corruption and the policy is to stop.
pub(crate) async fn report_damage(
    disk: &dyn Disk,
    damage: &[Damage],
    policy: ReplayFailurePolicy,
) -> Result<()> {
    let mut kept: Vec<&Path> = Vec::new();
    for damage in damage {
        let (file, offset) = (damage.path.display(), u64::from(damage.position.offset));
        if !damage.is_corruption {
            tracing::warn!(
                "commitlog segment {file} is torn at offset {offset}: what was written there had not been synced"
            );
            continue;
        }
        let what = match &damage.error {
            Some(error) => error.to_string(),
            None => {
                "damaged commitlog entry in a part that had been synced; intact entries follow it".to_owned()
            }
        };
        match policy {
            ReplayFailurePolicy::Stop => {
                let cure = "Restore the file, or start with commitlog_replay_failure_policy best_effort (which keeps \
                            a copy of it) or ignore, and lose its damaged writes";
                return Err(Error::corrupt(&damage.path, offset, format!("{what}. {cure}")));
            }
            ReplayFailurePolicy::Ignore => {
                tracing::warn!("commitlog segment {file}, offset {offset}: {what}; passed over");
            }
            ReplayFailurePolicy::BestEffort => {
                tracing::error!("commitlog segment {file}, offset {offset}: {what}; passed over");
                if !kept.contains(&damage.path.as_path()) {
                    kept.push(&damage.path);
                    keep_copy(disk, &damage.path).await;
                }
            }
        }
    }
    Ok(())
}

/// The segment itself will be recycled.
async fn keep_copy(disk: &dyn Disk, path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED);
    let copy = PathBuf::from(name);
    let written = match disk.read_file(path, SEGMENT_MAX).await {
        Ok(content) => disk.write_file(&copy, &content).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => tracing::error!("the damaged segment is kept as {}", copy.display()),
        Err(error) => tracing::error!("the damaged segment could not be kept: {error}"),
    }
}
