//! The nemesis: decides what breaks, when, and for how long.

use std::time::Duration;

use ceto_cluster::Random;

use crate::network::Weather;
pub use crate::replica::ReplicaFault;
use crate::world::World;

/// Kinds of trouble. Each run has some of them, so that each is also seen alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// One node can neither send nor receive.
    Isolation,
    /// One node hears but is not heard, or the other way round.
    OneWay,
    /// The cluster falls into two halves.
    Halves,
    /// One link holds its messages for a while.
    Clog,
    /// A node crashes and comes back later.
    Crash,
    /// A wall clock jumps.
    ClockJump,
    /// A node that is well is thought dead by another.
    FalseAlarm,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Trouble; 7] = [
        Self::Isolation,
        Self::OneWay,
        Self::Halves,
        Self::Clog,
        Self::Crash,
        Self::ClockJump,
        Self::FalseAlarm,
    ];
}

/// Makes trouble.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    kinds: Vec<Trouble>,
    next: Duration,
}

impl Nemesis {
    /// Of `seed`: picks its kinds and the weather.
    pub fn new(seed: u64, world: &mut World) -> Nemesis {
        let mut random = Random::salted(seed, "nemesis");
        let kinds = Trouble::ALL.into_iter().filter(|_| random.chance(1, 2)).collect();
        let some = |random: &mut Random, most| {
            if random.chance(1, 2) {
                random.below(most)
            } else {
                0
            }
        };
        let weather = Weather {
            delay_max: Duration::from_millis(random.between(1..=20)),
            slow: some(&mut random, 100),
            loss: some(&mut random, 100),
            duplication: some(&mut random, 200),
            ..Weather::FAIR
        };
        world.network().set_weather(weather);
        let next = Duration::from_millis(random.between(50..=500));
        Nemesis { random, kinds, next }
    }

    /// When it wants to act.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Acts, and mends what it did some time later.
    pub fn act(&mut self, world: &mut World) {
        self.next = world.now() + Duration::from_millis(self.random.between(100..=1500));
        let Some(kind) = self.random.pick(&self.kinds).copied() else {
            return;
        };
        let nodes = world.nodes().len();
        let victim = self.random.below(nodes as u64) as usize;
        let other = (victim + 1 + self.random.below(nodes as u64 - 1) as usize) % nodes;
        let until = world.now() + Duration::from_millis(self.random.between(50..=3000));
        match kind {
            Trouble::Isolation => (0..nodes).filter(|node| *node != victim).for_each(|node| {
                world.cut(victim, node, until);
                world.cut(node, victim, until);
            }),
            Trouble::OneWay => {
                let is_heard = self.random.chance(1, 2);
                (0..nodes).filter(|node| *node != victim).for_each(|node| {
                    let (from, to) = if is_heard { (node, victim) } else { (victim, node) };
                    world.cut(from, to, until);
                });
            }
            Trouble::Halves => {
                let mut order: Vec<usize> = (0..nodes).collect();
                self.random.shuffle(&mut order);
                let (left, right) = order.split_at(nodes / 2);
                for a in left {
                    for b in right {
                        world.cut(*a, *b, until);
                        world.cut(*b, *a, until);
                    }
                }
            }
            Trouble::Clog => world.network().clog(victim, other, until),
            Trouble::Crash => world.crash(victim, until),
            Trouble::ClockJump => {
                let microseconds = self.random.below(4_000_000) as i64 - 2_000_000;
                world.jump_clock(victim, microseconds);
            }
            Trouble::FalseAlarm => world.suspect(other, victim, until),
        }
    }
}
