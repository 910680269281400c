//! The load: closed loop (so many requests in flight) or open loop (so many per second), and what it saw.
//!
//! It polls and never sleeps, on a core of its own: so the server never pays for waking its client, which on a network
//! it would not either, and requests start when they are due. In the open loop latency counts from the moment a request
//! was due, sent or not.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hdrhistogram::Histogram;

use crate::conversation::{Conversation, Ticket};
use crate::process;
use crate::sockets::{Handler, Sockets};

/// Requests in flight per connection in the open loop; what is due beyond waits.
const OPEN_LOOP_IN_FLIGHT: Ticket = 128;
/// Requests due and not sent, over all connections, at which the server is taken to be too slow for the rate.
const MAXIMUM_BACKLOG: usize = 1 << 20;
/// The longest latency that is told apart, in nanoseconds.
const MAXIMUM_LATENCY_NS: u64 = 60_000_000_000;

/// When requests start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as one of so many per connection is answered.
    InFlight(u16),
    /// Evenly, so many per second over all connections.
    PerSecond(u64),
}

/// How long, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pace: Pace,
    /// Not measured.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What was seen between warm-up and end.
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    /// Processor time of the server, user and system.
    pub(crate) server_time: Duration,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// Loads the server that the sockets are connected to; `server` is its process.
pub(crate) fn run<C: Conversation>(
    sockets: &mut Sockets,
    peers: Vec<(TcpStream, C)>,
    plan: Plan,
    server: u32,
) -> Result<Measured, String> {
    let mut driver = Driver {
        started: Instant::now(),
        is_open_loop: matches!(plan.pace, Pace::PerSecond(_)),
        peers: Vec::with_capacity(peers.len()),
        backlog: 0,
        operations: 0,
        latency: Histogram::new_with_bounds(1, MAXIMUM_LATENCY_NS, 3).expect("bounds of a histogram"),
        answered: Vec::new(),
    };
    let in_flight = match plan.pace {
        Pace::InFlight(in_flight) => in_flight,
        Pace::PerSecond(_) => OPEN_LOOP_IN_FLIGHT,
    };
    for (stream, conversation) in peers {
        let number = sockets.add(stream).map_err(|error| error.to_string())?;
        assert_eq!(
            number,
            driver.peers.len(),
            "the load's connections are the only ones"
        );
        driver.peers.push(Peer::new(conversation, in_flight));
    }
    let result = driver.drive(sockets, plan, server);
    sockets.close_all()?;
    result
}

struct Peer<C> {
    conversation: C,
    /// When each ticket's request was due, in nanoseconds since the start.
    due: Vec<u64>,
    free: Vec<Ticket>,
    /// Due and not sent.
    waiting: VecDeque<u64>,
}

impl<C: Conversation> Peer<C> {
    fn new(conversation: C, in_flight: u16) -> Peer<C> {
        Peer {
            conversation,
            due: vec![0; usize::from(in_flight)],
            free: (0..in_flight).collect(),
            waiting: VecDeque::new(),
        }
    }
}

struct Driver<C> {
    started: Instant,
    is_open_loop: bool,
    /// By the number of the connection.
    peers: Vec<Peer<C>>,
    /// Requests in all `waiting`.
    backlog: usize,
    operations: u64,
    latency: Histogram<u64>,
    answered: Vec<Ticket>,
}

impl<C: Conversation> Driver<C> {
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn drive(&mut self, sockets: &mut Sockets, plan: Plan, server: u32) -> Result<Measured, String> {
        let mut schedule = Schedule::new(plan.pace);
        if let Pace::InFlight(_) = plan.pace {
            self.ask_all(sockets);
        }
        self.drive_until(sockets, &mut schedule, plan.warm_up)?;
        self.operations = 0;
        self.latency.reset();
        let (begin, server_begin) = (Instant::now(), process::cpu_time(server)?);
        self.drive_until(sockets, &mut schedule, plan.warm_up + plan.duration)?;
        let (time, server_end) = (begin.elapsed(), process::cpu_time(server)?);
        Ok(Measured {
            operations: self.operations,
            time,
            server_time: server_end.saturating_sub(server_begin),
            latency: self.latency.clone(),
        })
    }

    fn drive_until(
        &mut self,
        sockets: &mut Sockets,
        schedule: &mut Schedule,
        end: Duration,
    ) -> Result<(), String> {
        let end = end.as_nanos() as u64;
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            while let Some(due) = schedule.next(now) {
                self.start(sockets, (schedule.count as usize) % self.peers.len(), due)?;
            }
            sockets.turn(false, self)?;
        }
    }

    /// Sends the first requests of the closed loop.
    fn ask_all(&mut self, sockets: &mut Sockets) {
        let now = self.now();
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let tickets = std::mem::take(&mut peer.free);
            peer.due.fill(now);
            peer.conversation.ask(&tickets, sockets.output(number));
        }
    }

    fn start(&mut self, sockets: &mut Sockets, number: usize, due: u64) -> Result<(), String> {
        let peer = &mut self.peers[number];
        if let Some(ticket) = peer.free.pop() {
            peer.due[usize::from(ticket)] = due;
            peer.conversation.ask(&[ticket], sockets.output(number));
            return Ok(());
        }
        if self.backlog >= MAXIMUM_BACKLOG {
            return Err("the server is slower than the rate".to_owned());
        }
        self.backlog += 1;
        peer.waiting.push_back(due);
        Ok(())
    }
}

impl<C: Conversation> Handler for Driver<C> {
    fn received(&mut self, connection: usize, bytes: &[u8], output: &mut BytesMut) -> Result<(), String> {
        let now = self.now();
        let peer = &mut self.peers[connection];
        self.answered.clear();
        peer.conversation.hear(bytes, &mut self.answered)?;
        self.operations += self.answered.len() as u64;
        for ticket in &self.answered {
            let Some(due) = peer.due.get_mut(usize::from(*ticket)) else {
                return Err(format!("an answer to request {ticket}, which was not sent"));
            };
            self.latency.saturating_record(now.saturating_sub(*due).max(1));
            *due = now;
        }
        if !self.is_open_loop {
            peer.conversation.ask(&self.answered, output);
            return Ok(());
        }
        let overdue = peer.waiting.len().min(self.answered.len());
        let (again, free) = self.answered.split_at(overdue);
        for (ticket, due) in again.iter().zip(peer.waiting.drain(..overdue)) {
            peer.due[usize::from(*ticket)] = due;
        }
        if !again.is_empty() {
            peer.conversation.ask(again, output);
        }
        peer.free.extend_from_slice(free);
        self.backlog -= overdue;
        Ok(())
    }

    fn closed(&mut self, _: usize) -> Result<(), String> {
        Err("the server closed a connection under load".to_owned())
    }
}

/// When requests of the open loop are due.
struct Schedule {
    per_second: Option<u64>,
    /// Requests that have been due.
    count: u64,
}

impl Schedule {
    fn new(pace: Pace) -> Schedule {
        let per_second = match pace {
            Pace::InFlight(_) => None,
            Pace::PerSecond(rate) => Some(rate.max(1)),
        };
        Schedule { per_second, count: 0 }
    }

    /// The next request's due time, if that is not after `now`; nanoseconds since the start.
    fn next(&mut self, now: u64) -> Option<u64> {
        let due = (u128::from(self.count) * 1_000_000_000 / u128::from(self.per_second?)) as u64;
        (due <= now).then(|| {
            self.count += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_neither_drifts_nor_skips() {
        let mut schedule = Schedule::new(Pace::PerSecond(3));
        assert_eq!(schedule.next(0), Some(0));
        assert_eq!(schedule.next(333_333_332), None);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next(2_000_000_000)).collect();
        assert_eq!(
            due,
            [
                333_333_333,
                666_666_666,
                1_000_000_000,
                1_333_333_333,
                1_666_666_666,
                2_000_000_000
            ]
        );
        assert_eq!(Schedule::new(Pace::InFlight(1)).next(u64::MAX), None);
    }
}
