//! The network: each ordered pair of nodes is a link with faults of its own.
//!
//! Messages travel as bytes. Reordering needs no switch: delays are random. A clogged link holds what is sent until
//! the clog ends; a cut link drops it.

use std::time::Duration;

use ceto_cluster::Random;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest delay.
    pub delay_min: Duration,
    /// Longest ordinary delay.
    pub delay_max: Duration,
    /// Messages of a thousand that take up to twenty times as long.
    pub slow: u64,
    /// Messages of a thousand that are lost.
    pub loss: u64,
    /// Messages of a thousand that arrive twice.
    pub duplication: u64,
}

impl Weather {
    /// Only delays.
    pub const FAIR: Weather = Weather {
        delay_min: Duration::from_micros(100),
        delay_max: Duration::from_millis(2),
        slow: 0,
        loss: 0,
        duplication: 0,
    };
}

#[derive(Clone, Copy, Default, Debug)]
struct Link {
    is_cut: bool,
    clogged_until: Duration,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    random: Random,
    weather: Weather,
    nodes: usize,
    links: Vec<Link>,
}

impl Network {
    /// Fair weather between `nodes` nodes.
    pub fn new(seed: u64, nodes: usize) -> Network {
        Network {
            random: Random::salted(seed, "network"),
            weather: Weather::FAIR,
            nodes,
            links: vec![Link::default(); nodes * nodes],
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Cuts one direction, or mends it.
    pub fn set_cut(&mut self, from: usize, to: usize, is_cut: bool) {
        self.link(from, to).is_cut = is_cut;
    }

    /// One direction is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].is_cut
    }

    /// Holds what is sent in one direction until a time.
    pub fn clog(&mut self, from: usize, to: usize, until: Duration) {
        self.link(from, to).clogged_until = until;
    }

    /// Mends everything; messages on their way stay on their way.
    pub fn heal(&mut self) {
        self.links.fill(Link::default());
        self.weather = Weather::FAIR;
    }

    /// When a message sent now arrives: never, once, or more often.
    pub fn send(&mut self, now: Duration, from: usize, to: usize) -> Vec<Duration> {
        let Link {
            is_cut,
            clogged_until,
        } = *self.link(from, to);
        if is_cut || self.random.chance(self.weather.loss, 1000) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.random.chance(self.weather.duplication, 1000));
        (0..copies)
            .map(|_| now.max(clogged_until) + self.delay())
            .collect()
    }

    fn delay(&mut self) -> Duration {
        let (min, max) = (self.weather.delay_min, self.weather.delay_max);
        let ordinary = self.random.between(min.as_nanos() as u64..=max.as_nanos() as u64);
        let factor = if self.random.chance(self.weather.slow, 1000) {
            self.random.between(2..=20)
        } else {
            1
        };
        Duration::from_nanos(ordinary * factor)
    }
}
