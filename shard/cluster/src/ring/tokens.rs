//! Tokens for a node that joins: drawn at random, so that each of many small ranges falls to it from another node.

use std::collections::BTreeSet;

use ceto_model::Token;

use super::Ring;
use crate::random::Random;

/// Tokens per node unless configured: Cassandra's `num_tokens`.
pub const NUM_TOKENS_DEFAULT: usize = 16;

/// `count` tokens that nobody in `ring` owns, sorted. Never the ring's start, which no key hashes to.
pub fn random_tokens(random: &mut Random, count: usize, ring: &Ring) -> Vec<Token> {
    let taken = |token: Token| {
        ring.tokens()
            .binary_search_by_key(&token, |(own, _)| *own)
            .is_ok()
    };
    let mut tokens = BTreeSet::new();
    while tokens.len() < count {
        let token = Token(random.next() as i64);
        if token != Token::MIN && !taken(token) {
            tokens.insert(token);
        }
    }
    tokens.into_iter().collect()
}
