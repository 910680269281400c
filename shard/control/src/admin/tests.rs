#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;

use axum::body::to_bytes;
use ceto_env::memory::{Fault, MemoryDisk, MemoryEnv, Operation};
use ceto_env::{Acceptor, Mailbox, Network, Placement};
use ceto_node::NodeParts;
use ceto_node::message::{ShardDoor, ShardMessage, Task};
use ceto_node::options::StorageSettings;
use ceto_node::system::definitions::system_schema;
use ceto_node::system::schema_rows::StoredSchema;
use uuid::Uuid;

use super::*;
use crate::boot::boot;
use crate::governor::MemoryBounds;
use crate::schema::SystemTables;
use crate::settings::SettingsService;

struct Alone;

impl Mailbox<ShardMessage> for Alone {
    fn send(&self, _: u16, message: ShardMessage) -> Result<(), ShardMessage> {
        Err(message)
    }

    fn shard_count(&self) -> u16 {
        1
    }

    fn shard(&self) -> u16 {
        0
    }

    fn depth(&self, _: u16) -> usize {
        0
    }
}

struct NoNetwork;

impl Network for NoNetwork {
    fn listen(&self, address: SocketAddr, _: Placement, _: Acceptor) -> io::Result<SocketAddr> {
        Ok(address)
    }

    fn stop_accepting(&self) {}

    fn connections(&self) -> usize {
        0
    }
}

fn options() -> NodeOptions {
    NodeOptions {
        cluster_name: "admin".to_owned(),
        datacenter: "datacenter1".to_owned(),
        rack: "rack1".to_owned(),
        host_id: Uuid::from_u128(1),
        data_directory: PathBuf::from("/data"),
        commitlog_directory: PathBuf::from("/data/commitlog"),
        rpc_address: [127, 0, 0, 1].into(),
        native_port: 9042,
        shard_aware_port: 19042,
        listen_address: [127, 0, 0, 1].into(),
        broadcast_address: [127, 0, 0, 1].into(),
        storage_port: 7000,
        internode_compression: Default::default(),
        hints: Default::default(),
        tokens: vec![0],
        settings: Default::default(),
        storage: StorageSettings::default(),
        access: Default::default(),
        functions: Default::default(),
    }
}

/// What comes to the shard's thread.
enum Order {
    Run(Task),
    Break(Fault),
}

/// A shard in memory on a thread of its own, until the sender is gone.
fn shard() -> (Shards, mpsc::Sender<Order>) {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        let disk = MemoryDisk::new(1);
        let env = MemoryEnv::new(disk.clone(), 1);
        let node = Node::new(NodeParts {
            env: env.clone(),
            network: Rc::new(NoNetwork),
            mailbox: Rc::new(Alone),
            options: Arc::new(options()),
            runtime_samples: Box::new(|_| {}),
        });
        while let Ok(order) = orders.recv() {
            match order {
                Order::Run(task) => env.block_on(task(node.clone())).unwrap(),
                Order::Break(fault) => disk.inject(fault),
            }
        }
    });
    let tasks = sender.clone();
    let door = ShardDoor {
        count: 1,
        send: Arc::new(move |_, task| tasks.send(Order::Run(task)).unwrap()),
    };
    (Shards::new(door), sender)
}

async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_shard_that_has_stopped_writes_is_not_ready() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (shards, orders) = shard();
        let is_serving = Arc::new(AtomicBool::new(false));
        let options = Arc::new(options());
        let bounds = MemoryBounds {
            limit: 1 << 30,
            storage: 1 << 29,
        };
        let memory = Arc::new(GovernorFigures::new(bounds));
        let settings = SettingsService::new(
            Box::new(|_| Err("nothing changes here".to_owned())),
            shards.clone(),
        );
        let admin = Admin::new(
            shards.clone(),
            options.clone(),
            is_serving.clone(),
            memory,
            settings,
        );
        let state = || State(admin.clone());
        let schema = boot(&shards).await.unwrap();
        assert_eq!(
            told(ready(state()).await).await,
            (503, json!({ "status": "not serving clients" }))
        );
        is_serving.store(true, Ordering::Release);
        assert_eq!(
            told(ready(state()).await).await,
            (200, json!({ "status": "ready" }))
        );
        let tables = SystemTables::new(schema, Arc::default(), shards.clone());
        orders
            .send(Order::Break(Fault {
                operation: Operation::Sync,
                path_contains: "CommitLog".to_owned(),
                kind: io::ErrorKind::Other,
                count: 1,
            }))
            .unwrap();
        let nothing = StoredSchema::default();
        let written = tables.describe_system_keyspaces(&nothing, &system_schema()).await;
        written.unwrap_err();
        let (status, document) = told(ready(state()).await).await;
        assert_eq!((status, &document["status"]), (503, &json!("writes are refused")));
        let refusal = &document["shards"][0];
        assert_eq!(refusal["shard"], 0);
        let reason = refusal["reason"].as_str().unwrap();
        assert!(reason.contains("writes are stopped"), "{reason}");
        let Json(info) = info(state()).await.ok().unwrap();
        assert_eq!(info["write_refusals"], document["shards"]);
        assert_eq!(told(health(state()).await).await.0, 200, "it lives, and reads");
        is_serving.store(false, Ordering::Release);
        let (_, document) = told(ready(state()).await).await;
        assert_eq!(document["status"], "not serving clients");
        assert_eq!(document["shards"][0], *refusal);
    });
}
