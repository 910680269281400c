//! Is a history linearizable? The algorithm of Wing and Gong with the cache of Lowe, as porcupine has it.
//!
//! Calls and returns are one list in the order in which they happened. Any operation that was called before the first
//! return that is left may have taken effect first. Take one whose outcome the state allows, take its call and return out of
//! the list, and go on with the rest; when the first thing left is a return, the guess before was wrong. A set of
//! operations taken and the state they led to is tried once only.
//!
//! Who wants to know of an operation without an outcome says so by [`Operation::returned`] None: it may have taken effect
//! at any time after its call, or never.

use std::collections::BTreeSet;

/// Guesses after which no verdict is given.
pub const GUESSES_MAX: u64 = 3_000_000;

/// An operation of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation<O> {
    /// When it was called; no two calls or returns of a history have one time.
    pub called: u64,
    /// When it returned; None: nobody knows whether and when it took effect.
    pub returned: Option<u64>,
    /// What, and with which outcome.
    pub what: O,
}

/// The judgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// After [`GUESSES_MAX`] guesses neither is known.
    Undecided,
}

/// The list of calls and returns: entry `2 * operation` is a call, `2 * operation + 1` a return.
struct Entries {
    next: Vec<usize>,
    previous: Vec<usize>,
    head: usize,
}

impl Entries {
    fn new<O>(history: &[Operation<O>]) -> Entries {
        let mut order: Vec<(u64, usize)> = Vec::new();
        for (at, operation) in history.iter().enumerate() {
            order.push((operation.called, 2 * at));
            order.extend(operation.returned.map(|returned| (returned, 2 * at + 1)));
        }
        order.sort_unstable();
        let head = 2 * history.len();
        let mut entries = Entries {
            next: vec![head; head + 1],
            previous: vec![head; head + 1],
            head,
        };
        for (_, entry) in order {
            let last = entries.previous[head];
            entries.next[last] = entry;
            entries.previous[entry] = last;
            entries.next[entry] = head;
            entries.previous[head] = entry;
        }
        entries
    }

    fn take(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Undoes the newest `take` that has not been undone.
    fn put_back(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = entry;
        self.previous[next] = entry;
    }
}

/// Judges `history`. `step` is what an operation makes of a state; None when its outcome does not fit the state.
pub fn judge<S: Clone + Ord, O>(
    initial: S,
    history: &[Operation<O>],
    step: impl Fn(&S, &O) -> Option<S>,
) -> Verdict {
    let mut entries = Entries::new(history);
    let has_return = |operation: usize| history[operation].returned.is_some();
    let mut returns_left = (0..history.len()).filter(|at| has_return(*at)).count();
    let mut taken = vec![0u64; history.len().div_ceil(64)];
    let mut tried: BTreeSet<(Vec<u64>, S)> = BTreeSet::new();
    let mut path: Vec<(usize, S)> = Vec::new();
    let mut state = initial;
    let mut guesses = 0;
    let mut entry = entries.next[entries.head];
    while returns_left > 0 {
        if entry != entries.head && entry.is_multiple_of(2) {
            let operation = entry / 2;
            guesses += 1;
            if guesses > GUESSES_MAX {
                return Verdict::Undecided;
            }
            let after = step(&state, &history[operation].what);
            // An operation that nobody knows of and that changes nothing is as good as one that never took effect.
            let after = after.filter(|after| has_return(operation) || *after != state);
            if let Some(after) = after {
                taken[operation / 64] |= 1 << (operation % 64);
                if tried.insert((taken.clone(), after.clone())) {
                    path.push((operation, std::mem::replace(&mut state, after)));
                    entries.take(entry);
                    if has_return(operation) {
                        entries.take(entry + 1);
                        returns_left -= 1;
                    }
                    entry = entries.next[entries.head];
                    continue;
                }
                taken[operation / 64] &= !(1 << (operation % 64));
            }
            entry = entries.next[entry];
            continue;
        }
        // A return whose operation has not taken effect, or nothing that could still do so.
        let Some((operation, before)) = path.pop() else {
            return Verdict::NotLinearizable;
        };
        state = before;
        taken[operation / 64] &= !(1 << (operation % 64));
        if has_return(operation) {
            entries.put_back(2 * operation + 1);
            returns_left += 1;
        }
        entries.put_back(2 * operation);
        entry = entries.next[2 * operation];
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Register {
        Write(u8),
        Read(u8),
    }

    fn verdict(history: &[(u64, Option<u64>, Register)]) -> Verdict {
        let history: Vec<_> = history
            .iter()
            .map(|(called, returned, what)| Operation {
                called: *called,
                returned: *returned,
                what: *what,
            })
            .collect();
        judge(0u8, &history, |state, what| match what {
            Register::Write(value) => Some(*value),
            Register::Read(value) => (value == state).then_some(*state),
        })
    }

    #[test]
    fn what_overlaps_may_go_either_way() {
        use Register::{Read, Write};
        assert_eq!(verdict(&[]), Verdict::Linearizable);
        for seen in [0, 1] {
            let history = [(1, Some(4), Write(1)), (2, Some(3), Read(seen))];
            assert_eq!(verdict(&history), Verdict::Linearizable);
        }
        let history = [(1, Some(4), Write(1)), (2, Some(3), Read(2))];
        assert_eq!(verdict(&history), Verdict::NotLinearizable);
    }

    #[test]
    fn what_was_seen_stays_seen() {
        use Register::{Read, Write};
        let forth_and_back = [
            (1, Some(8), Write(1)),
            (2, Some(3), Read(1)),
            (4, Some(5), Read(0)),
        ];
        assert_eq!(verdict(&forth_and_back), Verdict::NotLinearizable);
        let late = [(1, Some(2), Write(1)), (3, Some(4), Read(0))];
        assert_eq!(verdict(&late), Verdict::NotLinearizable);
    }

    #[test]
    fn what_nobody_knows_of_may_happen_late_or_never() {
        use Register::{Read, Write};
        let never = [(1, None, Write(1)), (2, Some(3), Read(0))];
        assert_eq!(verdict(&never), Verdict::Linearizable);
        let late = [(1, None, Write(1)), (2, Some(3), Read(0)), (4, Some(5), Read(1))];
        assert_eq!(verdict(&late), Verdict::Linearizable);
        let before_its_call = [(1, Some(2), Read(1)), (3, None, Write(1))];
        assert_eq!(verdict(&before_its_call), Verdict::NotLinearizable);
        let twice = [
            (1, None, Write(1)),
            (2, Some(3), Write(2)),
            (4, Some(5), Read(1)),
            (6, Some(7), Write(2)),
            (8, Some(9), Read(1)),
        ];
        assert_eq!(verdict(&twice), Verdict::NotLinearizable);
    }
}
