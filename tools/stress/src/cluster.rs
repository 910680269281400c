//! The nodes of a cluster: who they are, which tokens they own, how many shards they have.
//!
//! Learned once, before the load: every node that was named and every peer of the first is asked for its tokens. A
//! request goes to the node that owns the next token on the ring (its first replica) and there to the token's shard.

use std::net::{IpAddr, SocketAddr};

use ceto_model::Token;

use crate::connection::{Connection, Sharding, elements, inet};
use crate::options::{Options, Truncate};
use crate::schema;

/// Nodes that are asked at most.
const MAXIMUM_NODES: usize = 1024;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where any shard answers.
    pub(crate) address: SocketAddr,
    /// Present if requests can be brought to their shard.
    pub(crate) shards: Option<Shards>,
}

/// How to reach the shards of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shards {
    pub(crate) count: u16,
    /// Where the source port chooses the shard.
    pub(crate) port: u16,
}

/// The nodes and the ring.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    /// Token and index of its node, ascending.
    ring: Vec<(Token, usize)>,
}

impl Cluster {
    /// Connects, creates the schema, and learns the ring.
    pub(crate) async fn open(options: &Options) -> Result<Cluster, String> {
        let contacts = resolve(options).await?;
        let mut first = first_of(&contacts, options).await?;
        let mut statements = schema::definitions(options);
        if options.truncate == Truncate::Once {
            statements.extend(schema::truncations(options));
        }
        for statement in statements {
            first.query(&statement).await?;
        }
        let name = cluster_name(&mut first).await?;
        let mut addresses = contacts;
        for peer in peers(&mut first).await? {
            let address = SocketAddr::new(peer, options.port);
            if !addresses.contains(&address) && addresses.len() < MAXIMUM_NODES {
                addresses.push(address);
            }
        }
        let mut cluster = Cluster {
            name,
            nodes: Vec::new(),
            ring: Vec::new(),
        };
        for address in addresses {
            let mut connection = match Connection::open(address, options.mode).await {
                Ok(connection) => connection,
                // Its part of the load goes to the next of the ring.
                Err(error) => {
                    eprintln!("without {address}: {error}");
                    continue;
                }
            };
            let index = cluster.nodes.len();
            cluster.ring.extend(
                tokens(&mut connection)
                    .await?
                    .into_iter()
                    .map(|token| (token, index)),
            );
            cluster.nodes.push(Node {
                address,
                shards: connection.sharding.and_then(shards),
            });
        }
        cluster.ring.sort_unstable();
        Ok(cluster)
    }

    /// Index of the node that owns a token, and the shard there.
    pub(crate) fn owner(&self, token: Token) -> (usize, u16) {
        let place = self.ring.partition_point(|(end, _)| *end < token);
        let node = self
            .ring
            .get(place)
            .or(self.ring.first())
            .map_or(0, |(_, node)| *node);
        let shards = self.nodes.get(node).and_then(|node| node.shards);
        (node, shards.map_or(0, |shards| token.shard(shards.count)))
    }
}

/// A connection to the first contact that can be reached.
async fn first_of(contacts: &[SocketAddr], options: &Options) -> Result<Connection, String> {
    let mut problems = Vec::new();
    for contact in contacts {
        match Connection::open(*contact, options.mode).await {
            Ok(connection) => return Ok(connection),
            Err(error) => problems.push(error),
        }
    }
    Err(problems.join("; "))
}

fn shards(sharding: Sharding) -> Option<Shards> {
    sharding.shard_aware_port.map(|port| Shards {
        count: sharding.shard_count,
        port,
    })
}

async fn resolve(options: &Options) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for node in &options.nodes {
        let target = if node.parse::<SocketAddr>().is_ok() || has_port(node) {
            node.clone()
        } else if node.parse::<std::net::Ipv6Addr>().is_ok() {
            format!("[{node}]:{}", options.port)
        } else {
            format!("{node}:{}", options.port)
        };
        let mut found = tokio::net::lookup_host(&target)
            .await
            .map_err(|error| format!("{node}: {error}"))?;
        addresses.push(found.next().ok_or_else(|| format!("{node}: no address"))?);
    }
    Ok(addresses)
}

/// `host:port`, but not an IPv6 address.
fn has_port(node: &str) -> bool {
    node.split_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

async fn cluster_name(connection: &mut Connection) -> Result<String, String> {
    let rows = connection.rows("SELECT cluster_name FROM system.local").await?;
    let name = rows
        .iter()
        .next()
        .and_then(|row| row.cell(0))
        .unwrap_or_default()
        .to_vec();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

async fn peers(connection: &mut Connection) -> Result<Vec<IpAddr>, String> {
    let rows = connection.rows("SELECT rpc_address FROM system.peers").await?;
    Ok(rows.iter().filter_map(|row| row.cell(0).and_then(inet)).collect())
}

async fn tokens(connection: &mut Connection) -> Result<Vec<Token>, String> {
    let rows = connection.rows("SELECT tokens FROM system.local").await?;
    let cell = rows.iter().next().and_then(|row| row.cell(0));
    let elements = elements(cell.unwrap_or(&[0; 4])).ok_or("system.local: tokens is not a set of text")?;
    elements
        .iter()
        .map(|text| {
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Token)
        })
        .collect::<Option<Vec<Token>>>()
        .ok_or_else(|| "system.local: a token is not a number".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_belongs_to_the_next_on_the_ring() {
        let node = |port, shards| Node {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            shards,
        };
        let shards = Some(Shards {
            count: 4,
            port: 19042,
        });
        let mut cluster = Cluster {
            name: String::new(),
            nodes: vec![node(1, shards), node(2, None)],
            ring: vec![],
        };
        assert_eq!(cluster.owner(Token(5)).0, 0);
        cluster.ring = vec![(Token(-10), 1), (Token(0), 0), (Token(10), 1)];
        for (token, owner) in [(i64::MIN, 1), (-10, 1), (-9, 0), (0, 0), (1, 1), (10, 1), (11, 1)] {
            assert_eq!(cluster.owner(Token(token)).0, owner, "{token}");
        }
        assert_eq!(cluster.owner(Token(-9)), (0, Token(-9).shard(4)));
    }

    #[test]
    fn ports_are_told_from_addresses() {
        assert!(has_port("host:9042") && has_port("10.0.0.1:9042"));
        assert!(!has_port("host") && !has_port("::1") && !has_port("fe80::1:2"));
    }
}
