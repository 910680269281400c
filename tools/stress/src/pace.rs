//! When the next operation is due: at once, or on the schedule of a rate.

/// The schedule of one worker. Times are nanoseconds since the start of the run.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Nanoseconds between two operations of this worker; None without a rate.
    gap_ns: Option<f64>,
    /// Where this worker's operations lie between those of the others.
    offset_ns: f64,
    issued: u64,
}

impl Pace {
    /// The part of `worker` (of `workers`) in a rate per second.
    pub(crate) fn new(per_second: Option<f64>, worker: usize, workers: usize) -> Pace {
        let gap_ns = per_second.map(|rate| 1e9 / rate * workers as f64);
        let offset_ns = gap_ns.unwrap_or(0.0) * worker as f64 / workers as f64;
        Pace {
            gap_ns,
            offset_ns,
            issued: 0,
        }
    }

    /// When the next operation is due; None: whenever there is room for it.
    ///
    /// The schedule never moves: an operation that was issued late leaves the next one where it was.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.gap_ns
            .map(|gap| (self.offset_ns + gap * self.issued as f64) as u64)
    }

    /// The next operation has been issued.
    pub(crate) fn advance(&mut self) {
        self.issued += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_rate_evenly() {
        let mut due: Vec<u64> = (0..4)
            .flat_map(|worker| {
                let mut pace = Pace::new(Some(1000.0), worker, 4);
                (0..250).map(move |_| {
                    let due = pace.due_ns();
                    pace.advance();
                    due.unwrap_or_default()
                })
            })
            .collect();
        due.sort_unstable();
        let expected: Vec<u64> = (0..1000).map(|index| index * 1_000_000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn without_a_rate_nothing_is_due() {
        assert_eq!(Pace::new(None, 0, 1).due_ns(), None);
    }
}
