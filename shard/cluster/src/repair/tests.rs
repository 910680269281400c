//! Replicas in memory that differ, a network that delays, doubles and loses, and what must hold at every step.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ceto_internode::{
    Digest, ExchangeId, FailureReason, HostId, Message, PartHash, RepairMessage, RequestId, TokenPart,
};
use ceto_model::{TableId, Token, UnixSeconds};
use uuid::Uuid;

use super::*;
use crate::random::Random;
use crate::ring::tests::host;

/// A version by token; the higher one wins.
type Store = BTreeMap<i64, u64>;

const FULL: TokenPart = TokenPart {
    after: Token(i64::MIN),
    up_to: Token(i64::MAX),
};

fn options() -> RepairOptions {
    RepairOptions {
        fan_out: 8,
        leaf_partitions: 4,
        ..RepairOptions::default()
    }
}

fn plan(replicas: usize, range: TokenPart) -> RepairPlan {
    RepairPlan {
        table: TableId(Uuid::from_u128(1)),
        range,
        replicas: (1..=replicas as u128).map(host).collect(),
        now: UnixSeconds(1),
    }
}

fn hash(store: &Store, part: &TokenPart) -> PartHash {
    let mut hash = PartHash::default();
    let (after, up_to) = (part.after.0, part.up_to.0);
    if after == up_to {
        return hash;
    }
    for (token, version) in store.range((std::ops::Bound::Excluded(after), std::ops::Bound::Included(up_to)))
    {
        let mut mixed = Random::new(*token as u64 ^ version.rotate_left(32));
        hash.add(Digest(u128::from(mixed.next()) << 64 | u128::from(mixed.next())));
    }
    hash
}

enum Wire {
    Message(HostId, HostId, ExchangeId, RepairMessage),
    Hashing(HostId, (HostId, ExchangeId), Vec<TokenPart>),
    Reading(RequestId, TokenPart),
}

struct Bench {
    cores: Vec<Repair>,
    stores: Vec<Store>,
    wires: Vec<Wire>,
    random: Random,
    /// Messages of a hundred that are lost, and that come twice.
    loss: u64,
    doubles: u64,
    ended: Vec<Result<RepairSummary, RepairError>>,
    moved: BTreeSet<i64>,
    most_reading: usize,
    now: Instant,
}

impl Bench {
    fn new(seed: u64, stores: Vec<Store>, options: RepairOptions) -> Bench {
        let cores = (1..=stores.len() as u128).map(|id| Repair::new(host(id), 0, options, seed));
        Bench {
            cores: cores.collect(),
            stores,
            wires: Vec::new(),
            random: Random::salted(seed, "repair bench"),
            loss: 0,
            doubles: 0,
            ended: Vec::new(),
            moved: BTreeSet::new(),
            most_reading: 0,
            #[allow(clippy::disallowed_methods)] // any fixed point will do
            now: Instant::now(),
        }
    }

    fn begin(&mut self, range: TokenPart) -> RequestId {
        let mut out = RepairActions::new();
        let plan = plan(self.stores.len(), range);
        let request = self.cores[0].begin(self.now, plan, &mut out).unwrap();
        self.perform(host(1), out);
        request
    }

    fn perform(&mut self, at: HostId, actions: RepairActions) {
        for action in actions {
            match action {
                RepairAction::Send { to, message } => {
                    let Message::Repair { exchange, body } = message else {
                        panic!("the core sends its own messages only");
                    };
                    let copies = match self.random.below(100) {
                        roll if roll < self.loss => 0,
                        roll if roll < self.loss + self.doubles => 2,
                        _ => 1,
                    };
                    for _ in 0..copies {
                        self.wires.push(Wire::Message(at, to, exchange, body.clone()));
                    }
                }
                RepairAction::HashParts { reply_to, parts, .. } => {
                    self.wires.push(Wire::Hashing(at, reply_to, parts))
                }
                RepairAction::RepairPart { request, part, .. } => {
                    self.wires.push(Wire::Reading(request, part))
                }
                RepairAction::Ended { outcome, .. } => self.ended.push(outcome),
            }
        }
    }

    /// Something that is under way happens; false when nothing is.
    fn step(&mut self) -> bool {
        let reading = self.wires.iter().filter(|wire| matches!(wire, Wire::Reading(..)));
        self.most_reading = self.most_reading.max(reading.count());
        if self.wires.is_empty() {
            return false;
        }
        let at = self.random.below(self.wires.len() as u64) as usize;
        let mut out = RepairActions::new();
        let now = self.now;
        let index = |host: HostId| host.0.as_u128() as usize - 1;
        let actor = match self.wires.swap_remove(at) {
            Wire::Message(from, to, exchange, body) => {
                self.cores[index(to)].handle(now, from, exchange, body, &mut out);
                to
            }
            Wire::Hashing(at, reply_to, parts) => {
                let store = &self.stores[index(at)];
                let hashes = parts.iter().map(|part| hash(store, part)).collect();
                self.cores[index(at)].hashed(now, reply_to, Ok(hashes), &mut out);
                at
            }
            Wire::Reading(request, part) => {
                self.read(part);
                self.cores[0].repaired(now, request, part, Ok(()), &mut out);
                host(1)
            }
        };
        self.perform(actor, out);
        true
    }

    /// What reading at ALL does.
    fn read(&mut self, part: TokenPart) {
        let mut merged = Store::new();
        for store in &self.stores {
            for (token, version) in store.range(part.after.0..=part.up_to.0) {
                let known = merged.entry(*token).or_default();
                *known = (*known).max(*version);
            }
        }
        merged.remove(&part.after.0);
        self.moved.extend(merged.keys());
        self.stores.iter_mut().for_each(|store| store.extend(&merged));
    }

    fn check_done(&self, request: RequestId) {
        if let Some(done) = self.cores[0].done_up_to(request) {
            let upper = |store: &Store| store.range(..=done.0).map(|(a, b)| (*a, *b)).collect::<Vec<_>>();
            let first = upper(&self.stores[0]);
            assert!(
                self.stores.iter().all(|store| upper(store) == first),
                "up to {done:?}"
            );
        }
    }

    fn run(&mut self, request: RequestId) {
        while self.step() {
            self.check_done(request);
        }
    }
}

/// Stores with the same partitions but for `differing`, of which one store has another version or none.
fn stores(random: &mut Random, replicas: usize, partitions: usize, differing: usize) -> Vec<Store> {
    let tokens: Vec<i64> = (0..partitions).map(|_| random.next() as i64).collect();
    let whole: Store = tokens.iter().map(|token| (*token, 1)).collect();
    let mut stores = vec![whole; replicas];
    for token in tokens.iter().take(differing) {
        let victim = random.below(replicas as u64) as usize;
        if random.chance(1, 2) {
            stores[victim].remove(token);
        } else {
            stores[victim].insert(*token, 2);
        }
    }
    stores
}

#[test]
fn replicas_are_equal_afterwards_whatever_the_order_of_things() {
    for seed in 0..200 {
        let mut random = Random::salted(seed, "stores");
        let replicas = random.between(2..=4) as usize;
        let partitions = random.below(2000) as usize;
        let differing = random.below(40) as usize;
        let stores = stores(&mut random, replicas, partitions, differing);
        let mut bench = Bench::new(seed, stores, options());
        bench.doubles = 20;
        let request = bench.begin(FULL);
        bench.run(request);
        let Some(Ok(summary)) = bench.ended.pop() else {
            panic!("seed {seed}: {:?}", bench.ended);
        };
        assert!(
            bench.stores.windows(2).all(|pair| pair[0] == pair[1]),
            "seed {seed}"
        );
        assert_eq!(bench.cores[0].sessions(), 0);
        assert!(bench.most_reading <= 4);
        // What moves grows with what differs.
        let differing = differing.min(partitions);
        assert!(bench.moved.len() <= 4 * differing, "seed {seed}: {summary:?}");
        assert!(summary.repaired <= differing as u64);
    }
}

#[test]
fn equal_replicas_cost_one_question() {
    let mut random = Random::new(1);
    let mut bench = Bench::new(1, stores(&mut random, 3, 100_000, 0), options());
    let request = bench.begin(FULL);
    bench.run(request);
    let summary = RepairSummary {
        compared: 8,
        ..RepairSummary::default()
    };
    assert_eq!(bench.ended, [Ok(summary)]);
}

#[test]
fn a_session_that_broke_off_goes_on_where_it_was() {
    let mut broken = 0;
    for seed in 0..100 {
        let mut random = Random::salted(seed, "stores");
        let stores = stores(&mut random, 3, 1000, 30);
        let mut bench = Bench::new(seed, stores, options());
        bench.loss = 3;
        let mut range = FULL;
        for _ in 0..1000 {
            let request = bench.begin(range);
            bench.run(request);
            let done = bench.cores[0].done_up_to(request);
            let Some(done) = done else {
                break;
            };
            // A message was lost: nothing moves any more.
            broken += 1;
            bench.now = bench.cores[0].next_timeout().unwrap();
            let mut out = RepairActions::new();
            let now = bench.now;
            bench.cores[0].handle_timeout(now, &mut out);
            bench.perform(host(1), out);
            let reason = FailureReason::Timeout;
            assert!(
                matches!(bench.ended.pop(), Some(Err(RepairError::Replica { reason: why, .. })) if why == reason)
            );
            assert!(done >= range.after);
            range.after = done;
        }
        assert!(
            matches!(bench.ended[..], [Ok(_)]),
            "seed {seed}: {:?}",
            bench.ended
        );
        assert!(
            bench.stores.windows(2).all(|pair| pair[0] == pair[1]),
            "seed {seed}"
        );
    }
    assert!(broken > 50, "{broken} sessions broke off");
}

#[test]
fn failures_name_who_and_what() {
    let mut random = Random::new(3);
    let mut bench = Bench::new(3, stores(&mut random, 3, 1000, 500), options());
    let mut out = RepairActions::new();
    let (now, reason) = (bench.now, FailureReason::NodeDown);
    bench.begin(FULL);
    bench.cores[0].peer_lost(host(2), &mut out);
    let lost = RepairError::Replica {
        host: host(2),
        reason,
    };
    bench.perform(host(1), std::mem::take(&mut out));
    assert_eq!(bench.ended.pop(), Some(Err(lost)));
    bench.wires.clear();

    let request = bench.begin(FULL);
    let part = loop {
        assert!(bench.step());
        let reading = bench.wires.iter().find_map(|wire| match wire {
            Wire::Reading(_, part) => Some(*part),
            _ => None,
        });
        if let Some(part) = reading {
            break part;
        }
    };
    bench.cores[0].repaired(now, request, part, Err(reason), &mut out);
    bench.perform(host(1), std::mem::take(&mut out));
    let after = part.after;
    assert_eq!(bench.ended.pop(), Some(Err(RepairError::Part { after, reason })));

    let request = bench.begin(FULL);
    bench.cores[0].cancel(request, &mut out);
    bench.perform(host(1), out);
    assert_eq!(bench.ended.pop(), Some(Err(RepairError::Cancelled)));
    while bench.step() {}
    assert!(bench.ended.is_empty() && bench.cores[0].sessions() == 0);
}

#[test]
fn bounds_and_pace_hold() {
    let mut random = Random::new(4);
    let pause = Duration::from_secs(5);
    let options = RepairOptions {
        pause,
        sessions_max: 1,
        hashes_max: 1,
        ..options()
    };
    let mut bench = Bench::new(4, stores(&mut random, 2, 1000, 10), options);
    let request = bench.begin(FULL);
    let mut out = RepairActions::new();
    let refused = bench.cores[0].begin(bench.now, plan(2, FULL), &mut out);
    assert_eq!(refused, None);
    let began = bench.now;
    let mut rests = 0;
    while bench.ended.is_empty() {
        bench.run(request);
        if let Some(at) = bench.cores[0].next_timeout() {
            assert_eq!(at, bench.now + pause);
            rests += 1;
            bench.now = at;
            let now = bench.now;
            bench.cores[0].handle_timeout(now, &mut out);
            bench.perform(host(1), std::mem::take(&mut out));
        }
    }
    assert!(rests > 3 && bench.now - began == pause * rests);

    // A second question while the first is worked on is refused.
    let exchange = ExchangeId { request, round: 1 };
    let question = RepairMessage::Hash {
        table: TableId(Uuid::from_u128(1)),
        now: UnixSeconds(1),
        parts: vec![FULL],
    };
    let now = bench.now;
    for _ in 0..2 {
        bench.cores[1].handle(now, host(1), exchange, question.clone(), &mut out);
    }
    let reason = FailureReason::Overloaded;
    let is_refusal = |action: &RepairAction| {
        matches!(action, RepairAction::Send { message: Message::Repair { body, .. }, .. }
            if *body == RepairMessage::Failed { reason })
    };
    assert!(matches!(out[0], RepairAction::HashParts { .. }) && is_refusal(&out[1]));
}

#[test]
fn parts_cover_a_range_without_gaps() {
    for (after, up_to) in [
        (i64::MIN, i64::MAX),
        (-5, 5),
        (0, 1),
        (7, 7),
        (i64::MAX - 1, i64::MAX),
    ] {
        let part = TokenPart {
            after: Token(after),
            up_to: Token(up_to),
        };
        let parts = super::core::cut(part, 8);
        assert_eq!(parts.first().unwrap().after, part.after);
        assert_eq!(parts.last().unwrap().up_to, part.up_to);
        assert!(parts.windows(2).all(|pair| pair[0].up_to == pair[1].after));
        assert!(parts.len() <= 8);
    }
}
