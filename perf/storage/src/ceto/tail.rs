//! Reads at a fixed rate: alone, then beside a compaction of everything.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;
use ceto_model::ReadTarget;

use super::{Client, Ends, Outcome, TABLE, decorated};
use crate::latency::{Latencies, Schedule};
use crate::protocol::Report;
use crate::rows::Dice;

/// Measures; the compaction is repeated until it has lasted for `seconds` in all.
pub(super) async fn measure(client: &Client, rate: u64, seconds: u64, seed: u64) -> Outcome<Report> {
    let mut report = Report::default();
    let span = Duration::from_secs(seconds);
    let idle = reads(client, rate, seed, move |begin| begin.elapsed() < span).await?;
    idle.figures("idle", &mut report.figures);
    let is_compacting = Rc::new(Cell::new(true));
    let ends = Ends::default();
    let (work, done) = (client.clone(), is_compacting.clone());
    let end = ends.clone();
    let compaction = async move {
        let begin = Instant::now();
        let outcome = loop {
            match work.database.compact(TABLE).await {
                Ok(()) if begin.elapsed() < span => {}
                outcome => break outcome.map_err(|error| error.to_string()),
            }
        };
        done.set(false);
        end.push(outcome);
    };
    client
        .env
        .tasks()
        .spawn(TaskQueue::Compaction, Box::pin(compaction));
    let busy = reads(client, rate, seed + 1, move |_| is_compacting.get()).await?;
    ends.next().await?;
    busy.figures("compacting", &mut report.figures);
    Ok(report)
}

async fn reads(client: &Client, rate: u64, seed: u64, go_on: impl Fn(Instant) -> bool) -> Outcome<Latencies> {
    let latencies = Rc::new(RefCell::new(Latencies::default()));
    let ends = Ends::default();
    let (begin, mut schedule, mut dice, mut started) =
        (Instant::now(), Schedule::new(rate), Dice::new(seed), 0u64);
    while go_on(begin) {
        let due = schedule.take();
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            client.env.tasks().sleep(wait).await;
        }
        let (client, latencies, ends) = (client.clone(), latencies.clone(), ends.clone());
        let row = dice.below(client.setup.rows);
        let tasks = client.env.clone();
        let read = async move {
            let mut command = client.command();
            command.target = ReadTarget::Partition(decorated(row));
            let outcome = client.read_one(row, &command).await;
            latencies.borrow_mut().note(due);
            ends.push(outcome);
        };
        tasks.tasks().spawn(TaskQueue::Statement, Box::pin(read));
        started += 1;
    }
    for _ in 0..started {
        ends.next().await?;
    }
    Ok(latencies.take())
}
