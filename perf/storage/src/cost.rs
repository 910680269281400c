//! What a process has cost so far: time, processor time of all its threads, bytes to and from the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// After which files that are no longer needed have been removed.
pub(crate) const REMOVAL: Duration = Duration::from_millis(200);

/// A moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    time: Instant,
    cpu_seconds: f64,
    read_bytes: u64,
    written_bytes: u64,
}

/// What lies between two moments.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Wall clock.
    pub(crate) seconds: f64,
    /// User and system time of all threads.
    pub(crate) cpu_seconds: f64,
    /// Bytes that were fetched from the device.
    pub(crate) read_bytes: u64,
    /// Bytes sent to the device, or to the page cache.
    pub(crate) written_bytes: u64,
}

impl Moment {
    /// This one.
    pub(crate) fn now() -> Moment {
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Moment {
            time: Instant::now(),
            cpu_seconds: cpu_seconds(),
            read_bytes: field("read_bytes:"),
            written_bytes: field("write_bytes:"),
        }
    }

    /// What has been spent since.
    pub(crate) fn cost(&self) -> Cost {
        let now = Moment::now();
        Cost {
            seconds: (now.time - self.time).as_secs_f64(),
            cpu_seconds: now.cpu_seconds - self.cpu_seconds,
            read_bytes: now.read_bytes - self.read_bytes,
            written_bytes: now.written_bytes - self.written_bytes,
        }
    }
}

/// User and system time of all threads of this process, those that have ended too.
pub(crate) fn cpu_seconds() -> f64 {
    // SAFETY: a rusage is plain numbers, for which all zeros is a value; the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Keeps this process, and the threads that it will start, on one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is a value; CPU_SET checks the core against its size.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    match outcome {
        0 => Ok(()),
        _ => Err(format!(
            "cannot use core {core}: {}",
            std::io::Error::last_os_error()
        )),
    }
}

/// Bytes of the files under a folder: those of logs, and all others.
pub(crate) fn disk_bytes(folder: &Path) -> Result<(u64, u64), String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let (mut logs, mut data) = (0, 0);
    for entry in entries.flatten() {
        // A file may be removed while the folder is walked.
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path();
        if metadata.is_dir() {
            let (more_logs, more_data) = disk_bytes(&path)?;
            logs += more_logs;
            data += more_data;
        } else if is_log(&path) {
            logs += metadata.len();
        } else {
            data += metadata.len();
        }
    }
    Ok((logs, data))
}

/// A commitlog segment, RocksDB's log, fjall's journal; also what RocksDB tells about itself.
fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_in_commitlog = path.parent().is_some_and(|parent| parent.ends_with("commitlog"));
    is_in_commitlog || name.ends_with(".log") || name.ends_with(".jnl") || name.starts_with("LOG")
}
