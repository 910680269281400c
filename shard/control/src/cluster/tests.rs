//! Several control threads in one process, over a channel that loses messages.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ceto_model::{DecoratedKey, Mutation, PartitionKey, TableId};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::group::{
    Change, Command, GroupTimes, MutationBytes, Outcome, ProposeError, Step, TableWrites, Tables,
};
use super::members::{Member, MemberChange, MemberState};
use super::moves::{Data, Gained, Later};
use super::peers::{PeerChannel, PeerMessage};
use super::{Cluster, ClusterOptions, ClusterView, Inbox};

/// The network: who is there, and who can hear whom.
#[derive(Default)]
struct Net {
    inboxes: Mutex<BTreeMap<SocketAddr, Arc<Inbox>>>,
    cut: Mutex<Vec<SocketAddr>>,
    sent: AtomicU64,
}

struct Channel {
    net: Arc<Net>,
    host: Uuid,
    address: SocketAddr,
}

impl PeerChannel for Channel {
    fn send(&self, to: SocketAddr, body: Bytes) {
        // Every twentieth message is lost.
        let number = self.net.sent.fetch_add(1, Ordering::Relaxed);
        let is_cut = {
            let cut = self.net.cut.lock().unwrap();
            cut.contains(&to) || cut.contains(&self.address)
        };
        if number % 20 == 19 || is_cut {
            return;
        }
        let inbox = self.net.inboxes.lock().unwrap().get(&to).cloned();
        let message = PeerMessage {
            from: self.host,
            address: self.address,
            body,
        };
        tokio::spawn(async move {
            if let Some(inbox) = inbox {
                inbox.receive(message);
            }
        });
    }
}

/// Tables that are a list of the keys that were written, with the timestamp of each.
#[derive(Default)]
struct List(Mutex<BTreeMap<Vec<u8>, i64>>);

fn mutation(key: &str) -> Mutation {
    let key = PartitionKey::from_components(&[key.as_bytes()]);
    Mutation::new(TableId(Uuid::nil()), DecoratedKey::new(key))
}

impl List {
    fn take(&self, bytes: &MutationBytes, timestamp: i64) {
        let mut list = self.0.lock().unwrap();
        for mutation in bytes.decode().unwrap() {
            list.insert(mutation.key.key.0.to_vec(), timestamp);
        }
    }

    fn keys(&self) -> Vec<String> {
        let list = self.0.lock().unwrap();
        list.keys()
            .map(|key| String::from_utf8(key.clone()).unwrap())
            .collect()
    }
}

impl Tables for List {
    fn apply(&self, _: Uuid, writes: TableWrites) -> Step<'_, ()> {
        self.take(&writes.mutations, writes.timestamp);
        Box::pin(async { Ok(()) })
    }

    fn contents(&self, _: i64) -> Step<'_, MutationBytes> {
        let list: Vec<Mutation> = self.keys().iter().map(|key| mutation(key)).collect();
        Box::pin(async move { Ok(MutationBytes::encode(&list)) })
    }

    fn replace(&self, contents: MutationBytes, timestamp: i64) -> Step<'_, ()> {
        self.0.lock().unwrap().clear();
        self.take(&contents, timestamp);
        Box::pin(async { Ok(()) })
    }
}

/// Rows are what the first node says it has; copying takes three questions and fails in the first session.
struct Rows {
    are_there: bool,
    tables: Arc<List>,
    sessions: Mutex<Vec<(Uuid, u64)>>,
    withdrawn: AtomicU64,
}

impl Data for Rows {
    fn holds_any(&self) -> Later<bool> {
        let holds = self.are_there && self.tables.keys().contains(&"row".to_owned());
        Box::pin(async move { holds })
    }

    fn gain(&self, session: Uuid, _: watch::Receiver<ClusterView>) -> Later<Gained> {
        let mut sessions = self.sessions.lock().unwrap();
        if sessions.last().is_none_or(|(last, _)| *last != session) {
            sessions.push((session, 0));
        }
        let count = sessions.len();
        let (_, asked) = sessions.last_mut().unwrap();
        *asked += 1;
        let gained = Gained {
            parts: 3,
            parts_done: *asked,
            outcome: match (*asked, count) {
                (1 | 2, _) => None,
                (_, 1) => Some(Err("the first one fails".to_owned())),
                _ => Some(Ok(())),
            },
            ..Gained::default()
        };
        Box::pin(async move { gained })
    }

    fn withdraw(&self) -> Later<()> {
        self.withdrawn.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }
}

struct Running {
    cluster: Arc<Cluster>,
    tables: Arc<List>,
    rows: Arc<Rows>,
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 7000))
}

fn member(number: u8) -> Member {
    Member {
        host: Uuid::from_u128(u128::from(number)),
        internode: address(number),
        rpc: IpAddr::from([127, 0, 0, number]),
        native_port: 9042,
        shards: 1,
        datacenter: "datacenter1".to_owned(),
        rack: "rack1".to_owned(),
        tokens: vec![i64::from(number) * 1000],
        release_version: "5.0.0".to_owned(),
        state: MemberState::Joining,
        replaces: None,
    }
}

async fn start_with(
    net: &Arc<Net>,
    folder: &Path,
    number: u8,
    change: impl FnOnce(&mut ClusterOptions),
) -> Running {
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    let mut options = ClusterOptions {
        cluster_name: "Test Cluster".to_owned(),
        member: member(number),
        seeds: vec![address(1)],
        file: folder.join(format!("group0-{number}.redb")),
        generation: GENERATION.fetch_add(1, Ordering::Relaxed),
        gossip_interval: Duration::from_millis(50),
        phi_threshold: 8.0,
        times: GroupTimes {
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(600),
        },
        auto_bootstrap: true,
        replaces: None,
        requests_end: Duration::from_millis(100),
    };
    change(&mut options);
    let channel = Arc::new(Channel {
        net: net.clone(),
        host: options.member.host,
        address: options.member.internode,
    });
    let tables = Arc::new(List::default());
    let rows = Arc::new(Rows {
        are_there: number == 1,
        tables: tables.clone(),
        sessions: Mutex::default(),
        withdrawn: AtomicU64::new(0),
    });
    let (cluster, inbox) = Cluster::start(options, channel, tables.clone(), rows.clone())
        .await
        .unwrap();
    // As a node's shards would.
    let installing = Arc::downgrade(&cluster);
    let mut view = cluster.view();
    tokio::spawn(async move {
        loop {
            let now = view.borrow_and_update().clone();
            let Some(cluster) = installing.upgrade() else {
                return;
            };
            cluster.set_installed(&now);
            drop(cluster);
            if view.changed().await.is_err() {
                return;
            }
        }
    });
    net.inboxes
        .lock()
        .unwrap()
        .insert(address(number), Arc::new(inbox));
    Running {
        cluster,
        tables,
        rows,
    }
}

async fn start(net: &Arc<Net>, folder: &Path, number: u8) -> Running {
    start_with(net, folder, number, |_| ()).await
}

/// Plans and proposes until it holds; how often it was planned anew.
async fn write(running: &Running, key: &str) -> Result<u32, ProposeError> {
    for conflicts in 0.. {
        let position = running.cluster.group.position();
        let command = Command {
            id: Uuid::new_v4(),
            planned_against: position.tables,
            change: Change::Tables(TableWrites {
                mutations: MutationBytes::encode(&[mutation(key)]),
                timestamp: position.timestamp + 1,
                event: None,
            }),
        };
        match running.cluster.group.propose(command).await? {
            Outcome::Applied => return Ok(conflicts),
            Outcome::Conflict => {}
            Outcome::Refused(text) => panic!("{text}"),
        }
    }
    unreachable!("a conflict is another one's progress")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.expect(what);
}

async fn three(net: &Arc<Net>, folder: &Path) -> Vec<Running> {
    let mut all = Vec::new();
    for number in 1..=3 {
        all.push(start(net, folder, number).await);
    }
    let entering = all.iter().map(|running| running.cluster.enter());
    for entered in futures::future::join_all(entering).await {
        entered.unwrap();
    }
    until("three voters that see each other up", async || {
        all.iter().all(|running| {
            let view = running.cluster.view().borrow().clone();
            running.cluster.group.voters().len() == 3
                && view.members.nodes.len() == 3
                && view.members.nodes.keys().all(|host| view.is_alive(*host))
        })
    })
    .await;
    all
}

#[tokio::test]
async fn three_nodes_order_their_changes_and_do_without_one() {
    let (net, folder) = (Arc::new(Net::default()), tempfile::tempdir().unwrap());
    let mut all = three(&net, folder.path()).await;
    // All at once, each several times: every change happens, in one order.
    let writers = all.iter().enumerate().flat_map(|(number, running)| {
        (0..4).map(move |count| async move { write(running, &format!("k{number}.{count}")).await.unwrap() })
    });
    let conflicts: u32 = futures::future::join_all(writers).await.iter().sum();
    assert!(conflicts > 0, "nobody was in nobody's way");
    until("the same tables everywhere", async || {
        all.iter().all(|running| running.tables.keys().len() == 12)
    })
    .await;
    let lists: Vec<_> = all
        .iter()
        .map(|running| running.tables.0.lock().unwrap().clone())
        .collect();
    assert!(lists.iter().all(|list| *list == lists[0]));
    let timestamps: std::collections::BTreeSet<_> = lists[0].values().collect();
    assert_eq!(timestamps.len(), 12, "two changes with one timestamp");

    // The leader is cut off: the others go on, it cannot.
    let leader = all[0].cluster.group.leader().await.unwrap();
    let at = all
        .iter()
        .position(|running| running.cluster.own().host == leader)
        .unwrap();
    let cut_off = all.remove(at);
    *net.cut.lock().unwrap() = vec![cut_off.cluster.own().internode];
    write(&all[0], "without it").await.unwrap();
    until("the others see it down", async || {
        !all[0].cluster.view().borrow().is_alive(leader)
    })
    .await;
    until("it sees the others down", async || {
        let view = cut_off.cluster.view().borrow().clone();
        view.gossip.values().filter(|node| node.is_alive).count() == 1
            && cut_off.cluster.shared.is_down(all[0].cluster.own().host)
            && cut_off.cluster.shared.is_down(all[1].cluster.own().host)
    })
    .await;
    let refused = timeout(Duration::from_secs(1), write(&cut_off, "alone"))
        .await
        .expect("at once");
    assert_eq!(refused, Err(ProposeError::NoMajority { up: 1, voters: 3 }));
    // It comes back and has what it missed, and nothing of what it was refused.
    net.cut.lock().unwrap().clear();
    until("it has what it missed", async || {
        cut_off.tables.keys().len() == 13
    })
    .await;
    assert_eq!(cut_off.tables.keys(), all[0].tables.keys());
    assert!(!cut_off.tables.keys().contains(&"alone".to_owned()));
}

#[tokio::test]
async fn nobody_founds_a_cluster_by_mistake_and_strangers_are_refused() {
    let (net, folder) = (Arc::new(Net::default()), tempfile::tempdir().unwrap());
    // Its seed is not there: it waits.
    let second = start(&net, folder.path(), 2).await;
    timeout(Duration::from_secs(2), second.cluster.enter())
        .await
        .unwrap_err();
    assert!(second.cluster.group.id().is_none());
    assert_eq!(write(&second, "too early").await, Err(ProposeError::NoGroup));
    let first = start(&net, folder.path(), 1).await;
    first.cluster.enter().await.unwrap();
    write(&first, "a").await.unwrap();
    timeout(Duration::from_secs(20), second.cluster.enter())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.tables.keys(), ["a"]);
    // Tokens, addresses and names of others.
    let other = |number: u8| {
        start_with(&net, folder.path(), number, move |options| match number {
            3 => options.member.tokens = vec![1000],
            _ => options.cluster_name = "Another".to_owned(),
        })
    };
    let refused = other(3).await.cluster.enter().await.unwrap_err();
    assert!(refused.contains("token 1000 is another node's"), "{refused}");
    let refused = other(4).await.cluster.enter().await.unwrap_err();
    assert!(refused.contains("cluster_name is Another"), "{refused}");
    write(&first, "row").await.unwrap();
    let without = start_with(&net, folder.path(), 6, |options| options.auto_bootstrap = false).await;
    without.cluster.enter().await.unwrap();
    // A member that is removed is told so.
    let host = second.cluster.own().host;
    first
        .cluster
        .group
        .change_members(&MemberChange::Remove(host))
        .await
        .unwrap();
    let reason = timeout(Duration::from_secs(10), second.cluster.refused())
        .await
        .unwrap();
    assert!(reason.contains("was removed from the cluster"), "{reason}");
}

#[tokio::test]
async fn a_node_comes_back_with_what_it_had() {
    let (net, folder) = (Arc::new(Net::default()), tempfile::tempdir().unwrap());
    let group = {
        let first = start(&net, folder.path(), 1).await;
        first.cluster.enter().await.unwrap();
        for key in ["a", "b"] {
            write(&first, key).await.unwrap();
        }
        first.cluster.shut_down().await;
        net.inboxes.lock().unwrap().clear();
        let group = first.cluster.group.id();
        drop(first);
        // The file is let go of by tasks that end now.
        tokio::time::sleep(Duration::from_millis(300)).await;
        group
    };
    let first = start_with(&net, folder.path(), 1, |options| {
        options.member.native_port = 9999
    })
    .await;
    first.cluster.enter().await.unwrap();
    assert_eq!(first.cluster.group.id(), group);
    first.cluster.announce_surroundings().await;
    assert_eq!(
        first.cluster.group.members().nodes[&member(1).host].native_port,
        9999
    );
    let position = first.cluster.group.position();
    assert_eq!(position.timestamp, 2, "{position:?}");
    let started = std::time::Instant::now();
    write(&first, "c").await.unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "a node alone waits for nobody"
    );
    assert!(first.tables.keys().contains(&"c".to_owned()));
}

#[tokio::test]
async fn who_comes_late_gets_a_snapshot() {
    let (net, folder) = (Arc::new(Net::default()), tempfile::tempdir().unwrap());
    let first = start(&net, folder.path(), 1).await;
    first.cluster.enter().await.unwrap();
    for number in 0..1300 {
        write(&first, &format!("k{number}")).await.unwrap();
    }
    let second = start(&net, folder.path(), 2).await;
    timeout(Duration::from_secs(30), second.cluster.enter())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.tables.keys().len(), 1300);
    assert_eq!(second.cluster.group.id(), first.cluster.group.id());
    write(&second, "after").await.unwrap();
    until("both have it", async || first.tables.keys().len() == 1301).await;
}

#[tokio::test]
async fn members_come_and_go_when_others_have_what_they_own() {
    let (net, folder) = (Arc::new(Net::default()), tempfile::tempdir().unwrap());
    let all = three(&net, folder.path()).await;
    write(&all[0], "row").await.unwrap();
    let fourth = start(&net, folder.path(), 4).await;
    fourth.cluster.enter().await.unwrap();
    let state = |of: &Running, number: u8| {
        let members = of.cluster.group.members();
        members.nodes.get(&member(number).host).map(|member| member.state)
    };
    assert_eq!(state(&fourth, 4), Some(MemberState::Joining));
    // One at a time.
    let fifth = start(&net, folder.path(), 5).await;
    timeout(Duration::from_secs(2), fifth.cluster.enter())
        .await
        .unwrap_err();
    assert!(
        all[1]
            .cluster
            .decommission()
            .await
            .unwrap_err()
            .contains("is joining")
    );
    fourth.cluster.arrive().await.unwrap();
    assert_eq!(state(&fourth, 4), Some(MemberState::Arriving));
    assert_eq!(fourth.rows.sessions.lock().unwrap().len(), 2, "it tries again");
    assert_eq!(fourth.cluster.operation().unwrap().outcome, Some(Ok(())));
    fourth.cluster.settle_in().await;
    assert_eq!(state(&fourth, 4), Some(MemberState::Normal));

    // It leaves again: the others copy, each having failed once.
    let leaver = fourth.cluster.clone();
    let leaving = tokio::spawn(async move { leaver.decommission().await });
    until("it leaves", async || {
        state(&all[0], 4) == Some(MemberState::Leaving)
    })
    .await;
    all[0].cluster.stay(member(4).host).await.unwrap();
    leaving.await.unwrap().unwrap_err();
    fourth.cluster.decommission().await.unwrap();
    assert!(fourth.cluster.has_left());
    assert_eq!(fourth.rows.withdrawn.load(Ordering::Relaxed), 1);
    until("the others know", async || state(&all[0], 4).is_none()).await;
    assert!(
        all.iter()
            .all(|running| !running.rows.sessions.lock().unwrap().is_empty())
    );

    // The third dies, and is removed by another.
    let dead = member(3).host;
    *net.cut.lock().unwrap() = vec![member(3).internode];
    until("it is seen down", async || {
        all[0].cluster.shared.is_down(dead) && all[1].cluster.shared.is_down(dead)
    })
    .await;
    all[1].cluster.remove_node(dead).await.unwrap();
    assert_eq!(state(&all[1], 3), None);
    assert!(
        all[1]
            .cluster
            .remove_node(dead)
            .await
            .unwrap_err()
            .contains("Host ID not found")
    );
}
