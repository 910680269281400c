//! Raft's requests to other members, over [`Peers`].

use std::net::SocketAddr;
use std::sync::Arc;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::types::{Raft, TypeConfig};
use crate::cluster::peers::{CallError, PeerMessage, Peers, Verb};

/// Where a member is reached: what group 0's members and gossip say now, which may be newer than Raft's membership.
pub type Addresses = Arc<dyn Fn(Uuid) -> Option<SocketAddr> + Send + Sync>;

/// Makes links to members.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) addresses: Addresses,
}

/// The link to one member.
pub(crate) struct Link {
    network: Network,
    target: Uuid,
    address: Option<SocketAddr>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: Uuid, node: &BasicNode) -> Link {
        Link {
            network: self.clone(),
            target,
            address: node.addr.parse().ok(),
        }
    }
}

type Answer<T, E> = Result<T, RPCError<Uuid, BasicNode, RaftError<Uuid, E>>>;

impl Link {
    async fn call<Q, A, E>(&self, verb: Verb, question: &Q, option: &RPCOption) -> Answer<A, E>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let address = (self.network.addresses)(self.target).or(self.address);
        let Some(address) = address else {
            let unknown = AnyError::error("the member's address is not known");
            return Err(RPCError::Unreachable(Unreachable::new(&unknown)));
        };
        let answer: Result<Result<A, RaftError<Uuid, E>>, CallError> = self
            .network
            .peers
            .call(address, verb, question, option.hard_ttl())
            .await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.target, error))),
            Err(error @ CallError::TimedOut) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Answer<AppendEntriesResponse<Uuid>, openraft::error::Infallible> {
        self.call(Verb::Append, &request, &option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Answer<InstallSnapshotResponse<Uuid>, InstallSnapshotError> {
        self.call(Verb::Snapshot, &request, &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Uuid>,
        option: RPCOption,
    ) -> Answer<VoteResponse<Uuid>, openraft::error::Infallible> {
        self.call(Verb::Vote, &request, &option).await
    }
}

/// Answers a request of another member's Raft; None when it makes no sense.
pub(crate) async fn answer(raft: &Raft, verb: Verb, message: &PeerMessage) -> Option<Vec<u8>> {
    let body = &message.body;
    let answer = match verb {
        Verb::Append => serde_json::to_vec(&raft.append_entries(serde_json::from_slice(body).ok()?).await),
        Verb::Vote => serde_json::to_vec(&raft.vote(serde_json::from_slice(body).ok()?).await),
        Verb::Snapshot => {
            serde_json::to_vec(&raft.install_snapshot(serde_json::from_slice(body).ok()?).await)
        }
        _ => return None,
    };
    answer.ok()
}
