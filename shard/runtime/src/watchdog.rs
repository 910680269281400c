//! Ends the process when a shard is stuck: a node that is half alive is worse than one that restarts.
//!
//! A healthy shard takes a turn at least once per heartbeat, asleep or not. The watchdog counts its own naps rather
//! than time, so that a process that was stopped as a whole (a paused machine, a debugger) is not taken for a stuck one.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::handle::ShardHandle;

/// Exit status of a process that the watchdog ended.
pub const WATCHDOG_EXIT_STATUS: i32 = 86;

const NAP: Duration = Duration::from_millis(500);

/// Watches until `end` hangs up.
pub(crate) fn watch(handles: &[Arc<ShardHandle>], limit: Duration, end: &Receiver<()>) {
    let naps_allowed = limit.as_millis().div_ceil(NAP.as_millis()).max(4) as u32;
    let mut seen: Vec<(u64, u32)> = handles.iter().map(|_| (0, 0)).collect();
    while end.recv_timeout(NAP) == Err(RecvTimeoutError::Timeout) {
        for (handle, (ticks, naps)) in handles.iter().zip(&mut seen) {
            let now = handle.ticks.load(Ordering::Relaxed);
            if now != *ticks || handle.ended.load(Ordering::Relaxed) {
                (*ticks, *naps) = (now, 0);
                continue;
            }
            *naps += 1;
            if *naps >= naps_allowed {
                let text = format!(
                    "shard {} has not taken a turn for {limit:?}: ending the process\n",
                    handle.shard
                );
                let _ = std::io::stderr().write_all(text.as_bytes());
                // SAFETY: ends the process without destructors or exit handlers, which a stuck thread could hold up.
                unsafe { libc::_exit(WATCHDOG_EXIT_STATUS) };
            }
        }
    }
}
