//! What moves when the ring changes: the parts of the ring that a node has to get, and from whom.
//!
//! Pure: two rings and a strategy in, a list out, so that a dry run and the change itself say the same.
//!
//! The source of a part is the replica that loses it, where there is one. Of a write that a quorum has, one answer may be
//! the loser's; had the newcomer copied from another replica, that one's absence would count twice, and a quorum of the
//! new replicas might miss the write. Without a loser (it is dead, or the number of replicas grows) it is the nearest.

use std::fmt;

use ceto_internode::TokenPart;
use ceto_model::Token;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::{Strategy, placement};
use crate::ring::{HostId, Ring};

/// Parts that a node gets from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gain {
    /// Who has them.
    pub from: HostId,
    /// In the order of the ring; neighbours are one part.
    pub parts: Vec<TokenPart>,
}

/// Nobody who may give a part of the ring is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoSource {
    /// Which part.
    pub part: TokenPart,
    /// Who has it, and is down or not allowed to be asked.
    pub down: Vec<HostId>,
}

impl fmt::Display for NoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TokenPart { after, up_to } = self.part;
        let down: Vec<String> = self.down.iter().map(HostId::to_string).collect();
        write!(
            f,
            "no node that can give tokens ({}, {}] is up; they are on {}",
            after.0,
            up_to.0,
            down.join(", ")
        )
    }
}

impl std::error::Error for NoSource {}

/// Where what a node gains comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sources {
    /// From who loses it only, where somebody does: what a quorum has acknowledged stays with a quorum.
    Losers,
    /// From who loses it when that one is up, else from another replica.
    Any,
}

/// What `host` has to get before it is what `future` says: all that it is a replica of there and not in `present`.
///
/// # Errors
/// When a part has replicas, and none of those that may be asked `is_up`.
pub fn gains(
    host: HostId,
    strategy: &Strategy,
    (present, future): (&Ring, &Ring),
    sources: Sources,
    is_up: impl Fn(HostId) -> bool,
) -> Result<Vec<Gain>, NoSource> {
    let mut gains = Gains::default();
    for part in parts(&placement::ends(present, Some(future))) {
        let now = placement::hosts(strategy, present, part.up_to);
        let then = placement::hosts(strategy, future, part.up_to);
        if now.contains(&host) || !then.contains(&host) {
            continue;
        }
        let (losers, others): (Vec<HostId>, Vec<HostId>) =
            now.into_iter().partition(|own| !then.contains(own));
        let is_strict = sources == Sources::Losers && !losers.is_empty();
        let others = others.into_iter().filter(|_| !is_strict);
        let asked = nearest_first(future, host, losers).into_iter();
        let asked: Vec<HostId> = asked.chain(nearest_first(future, host, others)).collect();
        gains.add(part, &asked, &is_up)?;
    }
    Ok(gains.list())
}

/// All that `host` is a replica of, from other replicas that `may_give`.
///
/// # Errors
/// When a part has other replicas, and none that may be asked.
pub fn copies(
    host: HostId,
    strategy: &Strategy,
    ring: &Ring,
    may_give: impl Fn(HostId) -> bool,
) -> Result<Vec<Gain>, NoSource> {
    let mut gains = Gains::default();
    for part in parts(&placement::ends(ring, None)) {
        let replicas = placement::hosts(strategy, ring, part.up_to);
        if replicas.contains(&host) {
            let others = replicas.into_iter().filter(|own| *own != host);
            gains.add(part, &nearest_first(ring, host, others), &may_give)?;
        }
    }
    Ok(gains.list())
}

/// The share of all tokens that is in `parts`, 0 to 1.
pub fn share(parts: &[TokenPart]) -> f64 {
    let width = |part: &TokenPart| part.up_to.0.wrapping_sub(part.after.0) as u64 as f64;
    parts.iter().map(width).sum::<f64>() / 2.0_f64.powi(64)
}

/// Parts by who gives them.
#[derive(Default)]
struct Gains(IndexMap<HostId, Vec<TokenPart>, FxBuildHasher>);

impl Gains {
    fn add(
        &mut self,
        part: TokenPart,
        asked: &[HostId],
        is_up: impl Fn(HostId) -> bool,
    ) -> Result<(), NoSource> {
        // What nobody has, nobody has to give.
        if asked.is_empty() {
            return Ok(());
        }
        let Some(from) = asked.iter().find(|own| is_up(**own)) else {
            let down = asked.to_vec();
            return Err(NoSource { part, down });
        };
        let parts = self.0.entry(*from).or_default();
        match parts.last_mut() {
            Some(last) if last.up_to == part.after => last.up_to = part.up_to,
            _ => parts.push(part),
        }
        Ok(())
    }

    fn list(self) -> Vec<Gain> {
        self.0
            .into_iter()
            .map(|(from, parts)| Gain { from, parts })
            .collect()
    }
}

/// The parts between neighbours of `ends`, from one end of the ring to the other; what wraps around is two of them.
fn parts(ends: &[Token]) -> Vec<TokenPart> {
    let Some(last) = ends.last() else {
        return Vec::new();
    };
    let starts = [Token::MIN].into_iter().chain(ends.iter().copied());
    let ends = ends
        .iter()
        .copied()
        .chain((*last != Token::MAX).then_some(Token::MAX));
    let parts = starts.zip(ends).map(|(after, up_to)| TokenPart { after, up_to });
    parts.filter(|part| part.after != part.up_to).collect()
}

fn nearest_first(ring: &Ring, host: HostId, others: impl IntoIterator<Item = HostId>) -> Vec<HostId> {
    let location = |host| ring.index_of(host).map(|at| ring.location(at));
    let own = location(host);
    let mut others: Vec<HostId> = others.into_iter().collect();
    others.sort_by_key(|other| match (own, location(*other)) {
        (Some(own), Some(other)) if own == other => 0,
        (Some(own), Some(other)) if own.datacenter == other.datacenter => 1,
        _ => 2,
    });
    others
}
