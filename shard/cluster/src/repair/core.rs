//! The core itself: sessions, the parts that they have left, and what follows from an event.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use ceto_internode::repair::PARTS_MAX;
use ceto_internode::{
    ExchangeId, FailureReason, HostId, Message, PartHash, RepairMessage, RequestId, TokenPart,
};
use ceto_model::{TableId, Token, UnixSeconds};
use slab::Slab;

use crate::random::Random;

/// Bounds and pace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairOptions {
    /// Sessions begun here and not ended.
    pub sessions_max: usize,
    /// Parts that a part is cut into, and parts of one question.
    pub fan_out: usize,
    /// A part with no more partitions than this at any replica is not cut any more.
    pub leaf_partitions: u64,
    /// Parts of a session that are read at once.
    pub repairs_max: usize,
    /// A question that is not answered for so long has failed.
    pub answer_timeout: Duration,
    /// Rest between an answer and the next question.
    pub pause: Duration,
    /// Questions of others that this shard works on at once; more are refused.
    pub hashes_max: usize,
}

impl Default for RepairOptions {
    fn default() -> Self {
        RepairOptions {
            sessions_max: 16,
            fan_out: 32,
            leaf_partitions: 64,
            repairs_max: 4,
            answer_timeout: Duration::from_secs(600),
            pause: Duration::ZERO,
            hashes_max: 4,
        }
    }
}

/// What a session is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepairPlan {
    /// The table.
    pub table: TableId,
    /// Where.
    pub range: TokenPart,
    /// All replicas of the range, this node or not among them.
    pub replicas: Vec<HostId>,
    /// As of then contents are compared.
    pub now: UnixSeconds,
}

/// What a session did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepairSummary {
    /// Parts whose hashes were compared.
    pub compared: u64,
    /// Parts among them that differed.
    pub differed: u64,
    /// Parts that were read and repaired.
    pub repaired: u64,
    /// Partitions in these, at the replica that had the most of each.
    pub partitions: u64,
}

/// Why a session ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairError {
    /// A replica failed.
    Replica {
        /// Which.
        host: HostId,
        /// How.
        reason: FailureReason,
    },
    /// A part could not be read at ALL.
    Part {
        /// The first token after which nothing is known.
        after: Token,
        /// How.
        reason: FailureReason,
    },
    /// Somebody asked for it.
    Cancelled,
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica { host, reason } => write!(
                f,
                "replica {host} did not hash its part ({reason:?}); see that it is up, and repair again"
            ),
            Self::Part { after, reason } => write!(
                f,
                "the part after token {} could not be read from all replicas ({reason:?}); see that they are up, and repair \
                 again",
                after.0
            ),
            Self::Cancelled => f.write_str("the repair was cancelled"),
        }
    }
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairAction {
    /// Send to a peer; loss is allowed.
    Send {
        /// The peer.
        to: HostId,
        /// What.
        message: Message,
    },
    /// Hash what this node has, one hash for each part; then call `hashed`.
    HashParts {
        /// For `hashed`.
        reply_to: (HostId, ExchangeId),
        /// The table.
        table: TableId,
        /// See [`RepairMessage::Hash`].
        now: UnixSeconds,
        /// Where.
        parts: Vec<TokenPart>,
    },
    /// Read this part at ALL, with read repair; then call `repaired`.
    RepairPart {
        /// For `repaired`.
        request: RequestId,
        /// The table.
        table: TableId,
        /// Where.
        part: TokenPart,
    },
    /// The session has ended.
    Ended {
        /// Which.
        request: RequestId,
        /// How; with an error, see [`Repair::done_up_to`] before this.
        outcome: Result<RepairSummary, RepairError>,
    },
}

/// Actions in order of emission.
pub type RepairActions = VecDeque<RepairAction>;

/// A question under way.
#[derive(Debug)]
struct Question {
    parts: Vec<TokenPart>,
    /// Who has not answered.
    awaited: Vec<HostId>,
    deadline: Instant,
    /// Of the first who answered; the most partitions of anybody; and whether all agreed so far. One for each part.
    first: Vec<PartHash>,
    partitions: Vec<u64>,
    agreed: Vec<bool>,
}

#[derive(Debug)]
struct Session {
    serial: u32,
    round: u32,
    plan: RepairPlan,
    /// To be asked about, the next one last.
    left: Vec<TokenPart>,
    question: Option<Question>,
    /// No question before then.
    rests_until: Option<Instant>,
    /// To be read.
    leaves: VecDeque<TokenPart>,
    /// Being read.
    reading: Vec<TokenPart>,
    summary: RepairSummary,
}

/// One shard's repairs. See the module.
#[derive(Debug)]
pub struct Repair {
    local: HostId,
    shard: u16,
    options: RepairOptions,
    sessions: Slab<Session>,
    next_serial: u32,
    hashing: usize,
}

/// `part` in `count` parts of about one size, in order; fewer when it has fewer tokens.
pub(super) fn cut(part: TokenPart, count: usize) -> Vec<TokenPart> {
    let (start, end) = (i128::from(part.after.0), i128::from(part.up_to.0));
    let count = (count as i128).clamp(1, (end - start).max(1));
    let bound = |at: i128| Token(i64::try_from(start + (end - start) * at / count).unwrap_or(part.up_to.0));
    (0..count)
        .map(|at| TokenPart {
            after: bound(at),
            up_to: bound(at + 1),
        })
        .collect()
}

/// One token, or none, is left.
fn is_smallest(part: TokenPart) -> bool {
    i128::from(part.up_to.0) - i128::from(part.after.0) <= 1
}

impl Repair {
    /// Of a shard of the node `local`. `seed` must differ from the last life's.
    pub fn new(local: HostId, shard: u16, options: RepairOptions, seed: u64) -> Repair {
        Repair {
            local,
            shard,
            options: RepairOptions {
                fan_out: options.fan_out.clamp(2, PARTS_MAX),
                ..options
            },
            sessions: Slab::new(),
            next_serial: Random::salted(seed ^ local.0.as_u128() as u64, "repair").next() as u32,
            hashing: 0,
        }
    }

    /// Sessions begun here and not ended.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Begins a session; None when there are too many. [`RepairAction::Ended`] follows.
    pub fn begin(&mut self, now: Instant, plan: RepairPlan, out: &mut RepairActions) -> Option<RequestId> {
        if self.sessions.len() >= self.options.sessions_max {
            return None;
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let mut left = cut(plan.range, self.options.fan_out);
        left.reverse();
        if plan.replicas.len() < 2 {
            left.clear();
        }
        let slot = self.sessions.insert(Session {
            serial,
            round: 0,
            plan,
            left,
            question: None,
            rests_until: None,
            leaves: VecDeque::new(),
            reading: Vec::new(),
            summary: RepairSummary::default(),
        }) as u32;
        let shard = self.shard;
        let request = RequestId { shard, slot, serial };
        self.advance(now, request, out);
        Some(request)
    }

    fn session(&mut self, request: RequestId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(request.slot as usize)?;
        (session.serial == request.serial).then_some(session)
    }

    fn requests(&self) -> Vec<RequestId> {
        let of = |(slot, session): (usize, &Session)| RequestId {
            shard: self.shard,
            slot: slot as u32,
            serial: session.serial,
        };
        self.sessions.iter().map(of).collect()
    }

    /// Up to this token all is done; None when the session has ended.
    pub fn done_up_to(&self, request: RequestId) -> Option<Token> {
        let session = self.sessions.get(request.slot as usize)?;
        if session.serial != request.serial {
            return None;
        }
        let asked = session.question.iter().flat_map(|question| &question.parts);
        let open = session
            .left
            .iter()
            .chain(&session.leaves)
            .chain(&session.reading)
            .chain(asked);
        let first = open.map(|part| part.after).min();
        Some(first.unwrap_or(session.plan.range.up_to))
    }

    /// What the session has done so far.
    pub fn progress(&self, request: RequestId) -> Option<RepairSummary> {
        let session = self.sessions.get(request.slot as usize)?;
        (session.serial == request.serial).then_some(session.summary)
    }

    /// Ends a session.
    pub fn cancel(&mut self, request: RequestId, out: &mut RepairActions) {
        self.fail(request, RepairError::Cancelled, out);
    }

    fn fail(&mut self, request: RequestId, error: RepairError, out: &mut RepairActions) {
        if self.session(request).is_some() {
            self.sessions.remove(request.slot as usize);
            let outcome = Err(error);
            out.push_back(RepairAction::Ended { request, outcome });
        }
    }

    /// Takes a message from a peer.
    pub fn handle(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        body: RepairMessage,
        out: &mut RepairActions,
    ) {
        match body {
            RepairMessage::Hash {
                table,
                now: as_of,
                parts,
            } => {
                if self.hashing >= self.options.hashes_max {
                    let reason = FailureReason::Overloaded;
                    let body = RepairMessage::Failed { reason };
                    let message = Message::Repair { exchange, body };
                    out.push_back(RepairAction::Send { to: from, message });
                    return;
                }
                self.hashing += 1;
                out.push_back(RepairAction::HashParts {
                    reply_to: (from, exchange),
                    table,
                    now: as_of,
                    parts,
                });
            }
            RepairMessage::Hashes { hashes } => self.answered(now, from, exchange, Ok(hashes), out),
            RepairMessage::Failed { reason } => self.answered(now, from, exchange, Err(reason), out),
        }
    }

    /// Takes the outcome of a [`RepairAction::HashParts`].
    pub fn hashed(
        &mut self,
        now: Instant,
        reply_to: (HostId, ExchangeId),
        outcome: Result<Vec<PartHash>, FailureReason>,
        out: &mut RepairActions,
    ) {
        let (to, exchange) = reply_to;
        if to == self.local {
            return self.answered(now, to, exchange, outcome, out);
        }
        self.hashing = self.hashing.saturating_sub(1);
        let body = match outcome {
            Ok(hashes) => RepairMessage::Hashes { hashes },
            Err(reason) => RepairMessage::Failed { reason },
        };
        let message = Message::Repair { exchange, body };
        out.push_back(RepairAction::Send { to, message });
    }

    fn answered(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        outcome: Result<Vec<PartHash>, FailureReason>,
        out: &mut RepairActions,
    ) {
        let request = exchange.request;
        let Some(session) = self
            .session(request)
            .filter(|session| session.round == exchange.round)
        else {
            return;
        };
        let Some(question) = &mut session.question else {
            return;
        };
        let Some(at) = question.awaited.iter().position(|host| *host == from) else {
            return;
        };
        let outcome = outcome.and_then(|hashes| {
            let is_whole = hashes.len() == question.parts.len();
            is_whole.then_some(hashes).ok_or(FailureReason::Unknown)
        });
        let hashes = match outcome {
            Ok(hashes) => hashes,
            Err(reason) => return self.fail(request, RepairError::Replica { host: from, reason }, out),
        };
        question.awaited.swap_remove(at);
        question.take(hashes);
        if question.awaited.is_empty() {
            self.judge(now, request);
            self.advance(now, request, out);
        }
    }

    /// All replicas have answered: what differs is cut, or read when it is small.
    fn judge(&mut self, now: Instant, request: RequestId) {
        let (pause, options) = (self.options.pause, self.options);
        let Some(session) = self.session(request) else {
            return;
        };
        let Some(question) = session.question.take() else {
            return;
        };
        session.rests_until = (pause > Duration::ZERO).then(|| now + pause);
        session.summary.compared += question.parts.len() as u64;
        let mut cuts = Vec::new();
        for ((part, partitions), agreed) in question
            .parts
            .iter()
            .zip(question.partitions)
            .zip(question.agreed)
        {
            if agreed {
                continue;
            }
            session.summary.differed += 1;
            if partitions <= options.leaf_partitions || is_smallest(*part) {
                session.summary.partitions += partitions;
                session.leaves.push_back(*part);
            } else {
                cuts.extend(cut(*part, options.fan_out));
            }
        }
        session.left.extend(cuts.into_iter().rev());
    }

    /// Takes the outcome of a [`RepairAction::RepairPart`].
    pub fn repaired(
        &mut self,
        now: Instant,
        request: RequestId,
        part: TokenPart,
        outcome: Result<(), FailureReason>,
        out: &mut RepairActions,
    ) {
        let Some(session) = self.session(request) else {
            return;
        };
        let Some(at) = session.reading.iter().position(|reading| *reading == part) else {
            return;
        };
        if let Err(reason) = outcome {
            let after = part.after;
            return self.fail(request, RepairError::Part { after, reason }, out);
        }
        session.reading.swap_remove(at);
        session.summary.repaired += 1;
        self.advance(now, request, out);
    }

    /// Learns that what was sent to a peer and is not answered will not be: the connection is gone.
    pub fn peer_lost(&mut self, peer: HostId, out: &mut RepairActions) {
        for request in self.requests() {
            let awaits = self.session(request).is_some_and(|session| {
                let question = session.question.as_ref();
                question.is_some_and(|question| question.awaited.contains(&peer))
            });
            if awaits && peer != self.local {
                let reason = FailureReason::NodeDown;
                self.fail(request, RepairError::Replica { host: peer, reason }, out);
            }
        }
    }

    /// Handles what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut RepairActions) {
        for request in self.requests() {
            let late = self.session(request).and_then(|session| {
                let question = session.question.as_ref()?;
                (question.deadline <= now).then(|| question.awaited.first().copied())?
            });
            match late {
                Some(host) => {
                    let reason = FailureReason::Timeout;
                    self.fail(request, RepairError::Replica { host, reason }, out);
                }
                None => self.advance(now, request, out),
            }
        }
    }

    /// When [`handle_timeout`](Repair::handle_timeout) wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let of = |session: &Session| match &session.question {
            Some(question) => Some(question.deadline),
            None => session.rests_until,
        };
        self.sessions.iter().filter_map(|(_, session)| of(session)).min()
    }

    /// Asks the next question, reads the next parts, or ends.
    fn advance(&mut self, now: Instant, request: RequestId, out: &mut RepairActions) {
        let (local, options) = (self.local, self.options);
        let Some(session) = self.session(request) else {
            return;
        };
        while session.reading.len() < options.repairs_max
            && let Some(part) = session.leaves.pop_front()
        {
            session.reading.push(part);
            let table = session.plan.table;
            out.push_back(RepairAction::RepairPart { request, table, part });
        }
        session.rests_until.take_if(|at| *at <= now);
        // Reading keeps the pace: what is found is read before more is looked for.
        let may_ask =
            session.question.is_none() && session.rests_until.is_none() && session.leaves.is_empty();
        if may_ask && !session.left.is_empty() {
            session.ask(now, local, request, &options, out);
        } else if may_ask && session.reading.is_empty() {
            let outcome = Ok(session.summary);
            self.sessions.remove(request.slot as usize);
            out.push_back(RepairAction::Ended { request, outcome });
        }
    }
}

impl Question {
    /// Takes one replica's hashes, one for each part.
    fn take(&mut self, hashes: Vec<PartHash>) {
        if self.first.is_empty() {
            self.partitions = hashes.iter().map(|hash| hash.partitions).collect();
            self.agreed = vec![true; hashes.len()];
            self.first = hashes;
            return;
        }
        let known = self.first.iter().zip(&mut self.partitions).zip(&mut self.agreed);
        for (hash, ((first, partitions), agreed)) in hashes.iter().zip(known) {
            *partitions = hash.partitions.max(*partitions);
            *agreed &= hash == first;
        }
    }
}

impl Session {
    fn ask(
        &mut self,
        now: Instant,
        local: HostId,
        request: RequestId,
        options: &RepairOptions,
        out: &mut RepairActions,
    ) {
        self.round += 1;
        let round = self.round;
        let exchange = ExchangeId { request, round };
        let count = options.fan_out.min(self.left.len());
        let mut parts = self.left.split_off(self.left.len() - count);
        parts.reverse();
        let (table, as_of) = (self.plan.table, self.plan.now);
        for host in &self.plan.replicas {
            let parts = parts.clone();
            out.push_back(if *host == local {
                RepairAction::HashParts {
                    reply_to: (local, exchange),
                    table,
                    now: as_of,
                    parts,
                }
            } else {
                let body = RepairMessage::Hash {
                    table,
                    now: as_of,
                    parts,
                };
                let message = Message::Repair { exchange, body };
                RepairAction::Send { to: *host, message }
            });
        }
        self.question = Some(Question {
            awaited: self.plan.replicas.clone(),
            deadline: now + options.answer_timeout,
            first: Vec::new(),
            partitions: Vec::new(),
            agreed: Vec::new(),
            parts,
        });
    }
}
