//! The governor: keeps the process's memory within `memory_limit`.
//!
//! Each shard keeps what it counts within its budget. What nobody counts - the allocator's gaps, buffers on their way,
//! tasks - differs from load to load, so no fixed reserve is right. The governor looks at what the kernel counts as the
//! process's resident memory (anonymous, and mapped: the program and the commitlog segments' last bytes; not the page
//! cache), and when that comes near the limit, has the shards' storage do without a part of its budget: caches shrink,
//! memtables are flushed earlier and make writes wait.
//!
//! ```text
//! resident >= limit - margin                    withhold as much more as it is above that
//! resident <  limit - 2 margins, for a second   give back a sixteenth of what is withheld
//! ```
//!
//! What is forgotten does not leave the process at once, since free space lies between what is kept. So after one step
//! the governor waits for its effect, unless memory grows all the same; and it stops at three quarters of the budget.
//!
//! Never: looks on a shard's thread, waits for anything but the shards' answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ceto_node::metrics::Samples;
use tracing::{info, warn};

use crate::process;
use crate::shards::Shards;

/// Time between looks. What a shard can allocate in it, at some hundred MiB/s, is well below the margin.
const PERIOD: Duration = Duration::from_millis(50);
/// The margin is one part in this many of the limit.
const MARGIN_PART: u64 = 8;
/// Most bytes of margin.
const MARGIN_MAX: u64 = 256 << 20;
/// How long a step may take to show an effect.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long memory has to be well below the limit before something is given back.
const QUIET: Duration = Duration::from_secs(1);
/// The part of it that is given back then.
const GIVEN_BACK_PART: u64 = 16;
/// Less than this is given back at once.
const SMALL: u64 = 1 << 20;
/// Storage keeps one part in this many of its budget.
const KEPT_PART: u64 = 4;
/// Time between log lines about a process above its limit.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// What the governor keeps to; bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryBounds {
    /// `memory_limit`: of resident memory.
    pub limit: u64,
    /// Of it: the budgets of all shards' storage.
    pub storage: u64,
}

/// Figures of the governor. Bytes, and counts since start.
#[derive(Debug)]
pub struct GovernorFigures {
    bounds: MemoryBounds,
    resident: AtomicU64,
    withheld: AtomicU64,
    steps: AtomicU64,
    above: AtomicU64,
}

impl GovernorFigures {
    /// Of a governor that has not looked yet.
    pub fn new(bounds: MemoryBounds) -> GovernorFigures {
        GovernorFigures {
            bounds,
            resident: AtomicU64::default(),
            withheld: AtomicU64::default(),
            steps: AtomicU64::default(),
            above: AtomicU64::default(),
        }
    }

    /// `memory_limit`.
    pub(crate) fn limit(&self) -> u64 {
        self.bounds.limit
    }

    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let mut gauge = |name, help, value: u64| samples.gauge(name, help, &[], value as f64);
        gauge(
            "ceto_memory_limit_bytes",
            "What the process may have resident (memory_limit).",
            self.bounds.limit,
        );
        gauge(
            "ceto_memory_resident_bytes",
            "What it had when the governor looked last.",
            self.resident.load(Ordering::Relaxed),
        );
        gauge(
            "ceto_memory_withheld_bytes",
            "What storage does without so that the process stays within memory_limit.",
            self.withheld.load(Ordering::Relaxed),
        );
        samples.counter(
            "ceto_memory_withholdings_total",
            "Times that storage was told to do without more.",
            &[],
            self.steps.load(Ordering::Relaxed),
        );
        samples.counter(
            "ceto_memory_above_limit_total",
            "Looks that found the process above memory_limit.",
            &[],
            self.above.load(Ordering::Relaxed),
        );
    }
}

/// Starts the governor; it ends with the shards.
pub(crate) fn start(bounds: MemoryBounds, shards: Shards) -> Arc<GovernorFigures> {
    let figures = Arc::new(GovernorFigures::new(bounds));
    let own = figures.clone();
    tokio::spawn(async move { govern(&own, &shards).await });
    figures
}

async fn govern(figures: &GovernorFigures, shards: &Shards) {
    let mut governor = Governor::new(figures.bounds);
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut logged: Option<Instant> = None;
    loop {
        ticks.tick().await;
        #[allow(clippy::disallowed_methods)] // the control thread is outside of the simulator
        let now = Instant::now();
        let resident = process::resident_bytes();
        figures.resident.store(resident, Ordering::Relaxed);
        if resident > figures.bounds.limit {
            figures.above.fetch_add(1, Ordering::Relaxed);
            if logged.is_none_or(|at| now.duration_since(at) >= LOG_PERIOD) {
                logged = Some(now);
                warn!(
                    resident,
                    limit = figures.bounds.limit,
                    "the process is above memory_limit; if this lasts, raise it or lower native_transport_max_request_data_in_flight"
                );
            }
        }
        let before = governor.withheld;
        if !governor.look(now, resident) {
            continue;
        }
        if governor.withheld > before {
            figures.steps.fetch_add(1, Ordering::Relaxed);
        } else if governor.withheld == 0 {
            info!("storage has its whole memory again");
        }
        figures.withheld.store(governor.withheld, Ordering::Relaxed);
        let of_shard =
            usize::try_from(governor.withheld / u64::from(shards.count().max(1))).unwrap_or(usize::MAX);
        let told = shards.on_all(move |node| Box::pin(async move { node.withhold_memory(of_shard) }));
        if told.await.is_err() {
            return;
        }
    }
}

/// What decides, without a clock of its own.
#[derive(Debug)]
struct Governor {
    /// At or above this, more is withheld.
    high: u64,
    /// Below this, something is given back.
    low: u64,
    withheld_max: u64,
    withheld: u64,
    /// When the last step up was made, and what was resident.
    raised: Option<(Instant, u64)>,
    quiet_since: Option<Instant>,
}

impl Governor {
    fn new(bounds: MemoryBounds) -> Governor {
        let margin = (bounds.limit / MARGIN_PART).min(MARGIN_MAX);
        Governor {
            high: bounds.limit - margin,
            low: bounds.limit - 2 * margin,
            withheld_max: bounds.storage - bounds.storage / KEPT_PART,
            withheld: 0,
            raised: None,
            quiet_since: None,
        }
    }

    /// Looks at what is resident; true when another amount is to be withheld from now on.
    fn look(&mut self, now: Instant, resident: u64) -> bool {
        let before = self.withheld;
        if resident >= self.high {
            self.quiet_since = None;
            let is_due = self
                .raised
                .is_none_or(|(at, then)| resident > then || now.duration_since(at) >= PATIENCE);
            if is_due {
                // Above what it was after the last step, only what it grew by: the step has not shown its effect yet.
                let excess = match self.raised {
                    Some((at, then)) if now.duration_since(at) < PATIENCE => resident - then,
                    _ => resident - self.high,
                };
                self.withheld = (self.withheld + excess.max(1)).min(self.withheld_max);
                self.raised = Some((now, resident));
            }
        } else if resident >= self.low {
            self.quiet_since = None;
        } else if self.withheld > 0 {
            let since = *self.quiet_since.get_or_insert(now);
            if now.duration_since(since) >= QUIET {
                self.quiet_since = Some(now);
                self.withheld -= (self.withheld / GIVEN_BACK_PART).max(SMALL.min(self.withheld));
            }
        }
        self.withheld != before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // any instant does

    use super::*;

    const MIB: u64 = 1 << 20;

    fn governor() -> (Governor, Instant) {
        let bounds = MemoryBounds {
            limit: 800 * MIB,
            storage: 800 * MIB,
        };
        (Governor::new(bounds), Instant::now())
    }

    #[test]
    fn nothing_is_withheld_below_the_margin() {
        let (mut governor, now) = governor();
        for second in 0..100 {
            assert!(!governor.look(now + Duration::from_secs(second), 699 * MIB));
        }
        assert_eq!(governor.withheld, 0);
    }

    #[test]
    fn growth_is_met_step_by_step_and_a_step_has_time_for_its_effect() {
        let (mut governor, now) = governor();
        assert!(governor.look(now, 710 * MIB));
        assert_eq!(governor.withheld, 10 * MIB);
        // No change: it waits.
        assert!(!governor.look(now + PERIOD, 710 * MIB));
        assert!(!governor.look(now + PERIOD * 2, 705 * MIB));
        // It grows nevertheless: by so much more.
        assert!(governor.look(now + PERIOD * 3, 714 * MIB));
        assert_eq!(governor.withheld, 14 * MIB);
        // Had no effect in time: another step.
        assert!(governor.look(now + PERIOD * 3 + PATIENCE, 712 * MIB));
        assert_eq!(governor.withheld, 26 * MIB);
    }

    #[test]
    fn storage_keeps_a_quarter_whatever_happens() {
        let (mut governor, now) = governor();
        for step in 0..1000 {
            governor.look(now + PATIENCE * step, 5000 * MIB);
        }
        assert_eq!(governor.withheld, 600 * MIB);
    }

    #[test]
    fn what_was_withheld_comes_back_when_there_is_room_for_long() {
        let (mut governor, mut now) = governor();
        governor.look(now, 764 * MIB);
        assert_eq!(governor.withheld, 64 * MIB);
        // Between the two marks everything stays as it is.
        for _ in 0..100 {
            now += QUIET;
            assert!(!governor.look(now, 650 * MIB));
        }
        assert!(!governor.look(now, 590 * MIB));
        now += QUIET;
        assert!(governor.look(now, 590 * MIB));
        assert_eq!(governor.withheld, 60 * MIB);
        let mut looks = 0;
        while governor.withheld > 0 {
            now += QUIET;
            governor.look(now, 590 * MIB);
            looks += 1;
            assert!(looks < 100, "{governor:?}");
        }
    }
}
