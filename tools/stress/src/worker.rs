//! One thread of a run: its lanes, and the loop that keeps them busy.
//!
//! ```text
//! loop: receive on every lane -> issue what is due -> send on every lane -> publish samples -> wait
//! ```
//!
//! The loop waits until a socket is ready. Only before an operation that is due within [`SPIN_NS`] it goes round
//! without waiting, because a timer is too coarse and would add its own delay to every latency.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use ceto_model::Token;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::content;
use crate::lane::{Flight, Landing, Lane};
use crate::measure::{Measurements, Sample};
use crate::options::{Mix, Operation, Options};
use crate::pace::Pace;
use crate::population::{Distribution, Random};

/// How close to the next operation the loop stops to wait.
const SPIN_NS: u64 = 2_000_000;
/// The longest wait, so that stopping and time-outs are noticed.
const MAXIMUM_WAIT_NS: u64 = 100_000_000;
/// How long an answer may take before the run is given up.
const ANSWER_TIMEOUT_NS: u64 = 60_000_000_000;
/// Failed operations whose text is shown when errors are ignored.
const MAXIMUM_SHOWN_ERRORS: u32 = 10;

/// What the workers of a phase share.
pub(crate) struct Phase {
    /// Operations of the phase.
    pub(crate) operations: u64,
    pub(crate) duration: Option<Duration>,
    pub(crate) next: AtomicU64,
    pub(crate) stopped: AtomicBool,
    pub(crate) shown_errors: AtomicU32,
    /// One for each worker: measured since the last report.
    pub(crate) measurements: Vec<Mutex<Measurements>>,
}

impl Phase {
    pub(crate) fn new(operations: u64, duration: Option<Duration>, workers: usize) -> Phase {
        Phase {
            operations,
            duration,
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            shown_errors: AtomicU32::new(0),
            measurements: (0..workers)
                .map(|_| Mutex::new(Measurements::default()))
                .collect(),
        }
    }

    /// What was measured since the last call.
    pub(crate) fn take_measurements(&self) -> Measurements {
        let mut taken = Measurements::default();
        for measurements in &self.measurements {
            let mut measurements = measurements.lock().unwrap_or_else(PoisonError::into_inner);
            let part = measurements.take();
            drop(measurements);
            taken.add(&part);
        }
        taken
    }
}

/// Lanes of one node, by shard; each shard has `connections_per_shard` of them, one after the other.
struct Routes {
    first_lane: usize,
    shards: usize,
}

/// See the module.
pub(crate) struct Worker<'a> {
    cluster: &'a Cluster,
    phase: &'a Phase,
    index: usize,
    lanes: Vec<Lane>,
    routes: Vec<Routes>,
    lanes_per_shard: usize,
    next_lane: usize,
    mix: Mix,
    mix_weight: u64,
    population: Distribution,
    random: Random,
    pace: Pace,
    open_loop: bool,
    threads: usize,
    retries: u32,
    ignore_errors: bool,
    in_flight: usize,
    /// Taken from the population, but its lane had no room.
    held: Option<(usize, Flight)>,
    exhausted: bool,
    landings: Vec<Landing>,
    samples: Vec<Sample>,
    next_check_ns: u64,
}

impl<'a> Worker<'a> {
    /// Opens the connections of the worker numbered `index`.
    pub(crate) async fn open(
        cluster: &'a Cluster,
        options: &Options,
        phase: &'a Phase,
        index: usize,
    ) -> Result<Worker<'a>, String> {
        let workers = phase.measurements.len();
        let mut worker = Worker {
            cluster,
            phase,
            index,
            lanes: Vec::new(),
            routes: Vec::new(),
            lanes_per_shard: options.mode.connections_per_shard,
            next_lane: 0,
            mix: options.mix.clone(),
            mix_weight: options.mix.0.iter().map(|(_, weight)| weight).sum(),
            population: options.population,
            random: Random::new(index as u64 + 1),
            pace: Pace::new(options.rate.limit, index, workers),
            open_loop: options.rate.open_loop,
            threads: share(options.rate.threads, index, workers),
            retries: options.retries,
            ignore_errors: options.ignore_errors,
            in_flight: 0,
            held: None,
            exhausted: false,
            landings: Vec::new(),
            samples: Vec::new(),
            next_check_ns: 0,
        };
        worker.connect(options).await?;
        Ok(worker)
    }

    async fn connect(&mut self, options: &Options) -> Result<(), String> {
        for node in &self.cluster.nodes {
            let first_lane = self.lanes.len();
            let shards = node.shards.map_or(1, |shards| shards.count);
            for shard in 0..shards {
                for number in 0..self.lanes_per_shard {
                    let connection = match node.shards {
                        Some(shards) => {
                            let mut address = node.address;
                            address.set_port(shards.port);
                            let attempt = (self.index * self.lanes_per_shard + number) as u32;
                            Connection::open_to_shard(address, shard, shards.count, attempt, options.mode)
                                .await?
                        }
                        None => Connection::open(node.address, options.mode).await?,
                    };
                    self.lanes.push(Lane::new(connection, options).await?);
                }
            }
            self.routes.push(Routes {
                first_lane,
                shards: shards.into(),
            });
        }
        Ok(())
    }

    /// Runs the phase to its end. `start` is when it began for all workers. Returns when the last answer came.
    pub(crate) async fn drive(mut self, start: Instant) -> Result<Instant, String> {
        loop {
            let now_ns = start.elapsed().as_nanos() as u64;
            self.receive(now_ns)?;
            self.issue(now_ns);
            for lane in &mut self.lanes {
                lane.send()?;
            }
            self.publish();
            if self.in_flight == 0 && self.exhausted {
                return Ok(Instant::now());
            }
            self.check_timeouts(now_ns)?;
            self.wait(start).await;
        }
    }

    fn receive(&mut self, now_ns: u64) -> Result<(), String> {
        let mut landings = std::mem::take(&mut self.landings);
        for lane in 0..self.lanes.len() {
            self.lanes[lane].receive(&mut landings)?;
            for landing in landings.drain(..) {
                self.land(lane, landing, now_ns)?;
            }
        }
        self.landings = landings;
        Ok(())
    }

    fn land(&mut self, lane: usize, landing: Landing, now_ns: u64) -> Result<(), String> {
        let Landing { mut flight, outcome } = landing;
        // Adding to a counter twice is not the same as once.
        let again = flight.attempts < self.retries && flight.operation != Operation::CounterWrite;
        if outcome.is_err() && again && !self.phase.stopped.load(Ordering::Relaxed) {
            flight.attempts += 1;
            flight.sent_ns = now_ns;
            self.lanes[lane].begin(flight);
            return Ok(());
        }
        self.in_flight -= 1;
        self.samples.push(Sample {
            operation: flight.operation,
            latency_ns: now_ns.saturating_sub(flight.counted_from_ns),
            failed: outcome.is_err(),
        });
        match outcome {
            Err(text) if !self.ignore_errors => {
                let name = flight.operation.name();
                Err(format!(
                    "{name} of seed {} failed {} times: {text}",
                    flight.seed,
                    flight.attempts + 1
                ))
            }
            Err(text) => {
                if self.phase.shown_errors.fetch_add(1, Ordering::Relaxed) < MAXIMUM_SHOWN_ERRORS {
                    eprintln!("stress: {text}");
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn issue(&mut self, now_ns: u64) {
        let over = self
            .phase
            .duration
            .is_some_and(|duration| u128::from(now_ns) >= duration.as_nanos());
        if over || self.phase.stopped.load(Ordering::Relaxed) {
            (self.exhausted, self.held) = (true, None);
        }
        while self.in_flight < self.threads {
            let due_ns = self.pace.due_ns();
            if self.exhausted && self.held.is_none() || due_ns.is_some_and(|due_ns| due_ns > now_ns) {
                return;
            }
            let counted_from_ns = due_ns.filter(|_| self.open_loop).unwrap_or(now_ns);
            let Some((lane, flight)) = self.held.take().or_else(|| self.draw(counted_from_ns, now_ns)) else {
                return;
            };
            if !self.lanes[lane].has_room() {
                self.held = Some((lane, flight));
                return;
            }
            self.lanes[lane].begin(Flight {
                sent_ns: now_ns,
                ..flight
            });
            self.in_flight += 1;
            self.pace.advance();
        }
    }

    /// The next operation and its lane; None when the phase has no more.
    fn draw(&mut self, counted_from_ns: u64, sent_ns: u64) -> Option<(usize, Flight)> {
        let index = self.phase.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.phase.operations {
            self.exhausted = true;
            return None;
        }
        let operation = self.choose();
        let seed = self.population.draw(index, &mut self.random);
        let flight = Flight {
            operation,
            seed,
            counted_from_ns,
            sent_ns,
            attempts: 0,
        };
        Some((self.lane_of(seed), flight))
    }

    fn choose(&mut self) -> Operation {
        let (first, _) = self.mix.0[0];
        if self.mix.0.len() == 1 {
            return first;
        }
        let mut place = self.random.below(self.mix_weight);
        for (operation, weight) in &self.mix.0 {
            if place < *weight {
                return *operation;
            }
            place -= weight;
        }
        first
    }

    fn lane_of(&mut self, seed: u64) -> usize {
        let (node, shard) = self.cluster.owner(Token::of(&content::key(seed)));
        let route = &self.routes[node];
        self.next_lane = (self.next_lane + 1) % self.lanes_per_shard;
        route.first_lane + usize::from(shard) % route.shards * self.lanes_per_shard + self.next_lane
    }

    fn publish(&mut self) {
        if !self.samples.is_empty() {
            let measurements = &self.phase.measurements[self.index];
            let mut measurements = measurements.lock().unwrap_or_else(PoisonError::into_inner);
            self.samples
                .drain(..)
                .for_each(|sample| measurements.record(&sample));
        }
    }

    fn check_timeouts(&mut self, now_ns: u64) -> Result<(), String> {
        if now_ns < self.next_check_ns {
            return Ok(());
        }
        self.next_check_ns = now_ns + 1_000_000_000;
        let oldest = self
            .lanes
            .iter()
            .filter_map(Lane::oldest_ns)
            .min()
            .unwrap_or(now_ns);
        if now_ns.saturating_sub(oldest) > ANSWER_TIMEOUT_NS {
            return Err(format!(
                "a request had no answer for {} s",
                ANSWER_TIMEOUT_NS / 1_000_000_000
            ));
        }
        Ok(())
    }

    /// Waits until a socket is ready or an operation is due.
    async fn wait(&self, start: Instant) {
        let mut wait_ns = MAXIMUM_WAIT_NS;
        let may_issue = self.in_flight < self.threads && self.held.is_none() && !self.exhausted;
        if let Some(due_ns) = self.pace.due_ns().filter(|_| may_issue) {
            let now_ns = start.elapsed().as_nanos() as u64;
            if due_ns <= now_ns + SPIN_NS {
                return tokio::task::yield_now().await;
            }
            wait_ns = wait_ns.min(due_ns - now_ns - SPIN_NS);
        }
        let mut sleep = pin!(tokio::time::sleep(Duration::from_nanos(wait_ns)));
        poll_fn(|context| {
            let mut ready = sleep.as_mut().poll(context).is_ready();
            for lane in &self.lanes {
                ready |= lane.stream().poll_read_ready(context).is_ready();
                ready |= lane.is_blocked() && lane.stream().poll_write_ready(context).is_ready();
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The part of a number that falls to one of several.
fn share(total: usize, index: usize, parts: usize) -> usize {
    total / parts + usize::from(index < total % parts)
}
