//! Compactions that somebody asks for: major, of named files, cleanup, scrub, upgrade, garbage collection; and stopping
//! and forbidding them.

use std::rc::Rc;

use ceto_model::{DecoratedKey, TableId, Token};
use uuid::Uuid;

use super::options::Shadowing;
use super::strategy::{Candidate, Kind, Plan};
use super::{Job, Keeps, chosen};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::Sstable;
use crate::table::TableStore;

/// What a major compaction takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MajorCompaction {
    /// Size-tiered: not one sstable, but each half as large as the one before.
    pub splits_output: bool,
    /// Only sstables that have something in this range of tokens, bounds included.
    pub tokens: Option<(Token, Token)>,
}

impl Database {
    /// Compacts all sstables of a table as far as its strategy's rules allow, and waits for it.
    pub async fn compact(&self, table: TableId) -> Result<()> {
        self.compact_major(table, MajorCompaction::default()).await
    }

    /// Compacts a table, and waits for it.
    pub async fn compact_major(&self, table: TableId, what: MajorCompaction) -> Result<()> {
        let table = self.table(table)?;
        let jobs = self
            .when_idle(&table, |sstables| major_jobs(&table, sstables, what))
            .await?;
        Box::pin(self.run_all(&table, jobs)).await
    }

    /// Compacts these sstables, named by their Data files, with each other: one compaction for each table. All must be
    /// sstables of this shard that no other compaction has.
    pub async fn compact_files(&self, files: &[String]) -> Result<()> {
        let tables: Vec<Rc<TableStore>> = self.tables.borrow().values().cloned().collect();
        let mut jobs = Vec::new();
        for table in tables {
            let is_named = |sstable: &&Rc<Sstable>| files.iter().any(|file| has_name(sstable, file));
            let inputs: Vec<Rc<Sstable>> = table.view().sstables.iter().filter(is_named).cloned().collect();
            if let Some(busy) = inputs.iter().find(|sstable| !sstable.may_be_compacted()) {
                let text = format!("{} is being compacted, or damaged", busy.data_path().display());
                return Err(Error::Layout(text.into()));
            }
            if inputs.is_empty() {
                continue;
            }
            let candidates: Vec<Candidate<'_>> = inputs.iter().map(Candidate::of).collect();
            let output = table.compacting().strategy.output_for(&candidates);
            drop(candidates);
            jobs.push((table.clone(), Job::new(table, inputs, Kind::UserDefined, output)));
        }
        for (table, job) in jobs {
            Box::pin(self.run_all(&table, vec![job])).await?;
        }
        Ok(())
    }

    /// This shard has an sstable with that Data file: a path, or the last part of one.
    pub fn has_data_file(&self, file: &str) -> bool {
        let tables = self.tables.borrow();
        let mut views = tables.values().map(|table| table.view());
        views.any(|view| view.sstables.iter().any(|sstable| has_name(sstable, file)))
    }

    /// Removes partitions that `keeps` does not keep. Sstables that lie wholly in one of the ranges of tokens `owned`
    /// (bounds included) are left as they are.
    pub async fn cleanup(&self, table: TableId, owned: Vec<(Token, Token)>) -> Result<()> {
        let inside =
            |first: Token, last: Token| owned.iter().any(|(start, end)| *start <= first && last <= *end);
        let is_due = |sstable: &Sstable| !inside(sstable.first.token, sstable.last.token);
        let ranges = owned.clone();
        let keeps: Keeps = Rc::new(move |key: &DecoratedKey| {
            ranges
                .iter()
                .any(|(start, end)| *start <= key.token && key.token <= *end)
        });
        self.write_anew(table, Kind::Cleanup, is_due, |job| {
            job.keeps = Some(keeps.clone())
        })
        .await
    }

    /// Writes every sstable anew, without what cannot be read.
    pub async fn scrub(&self, table: TableId) -> Result<()> {
        self.write_anew(table, Kind::Scrub, |_| true, |_| {}).await
    }

    /// Writes sstables anew: those that are not written as the table's options ask for now, or all.
    pub async fn upgrade(&self, table: TableId, all: bool) -> Result<()> {
        let store = self.table(table)?;
        let wanted = self.writer_options(&store, 0, None);
        let is_due = |sstable: &Sstable| all || sstable.statistics.compression != wanted.compression;
        self.write_anew(table, Kind::Upgrade, is_due, |_| {}).await
    }

    /// Removes from every sstable what others shadow, cells too when `cells`.
    pub async fn garbage_collect(&self, table: TableId, cells: bool) -> Result<()> {
        let shadowing = if cells { Shadowing::Cell } else { Shadowing::Row };
        let prepare = |job: &mut Job| job.shadowing = shadowing;
        self.write_anew(table, Kind::GarbageCollect, |_| true, prepare)
            .await
    }

    /// Writes each sstable of a table anew that is due, one after the other.
    async fn write_anew(
        &self,
        table: TableId,
        kind: Kind,
        is_due: impl Fn(&Sstable) -> bool,
        prepare: impl Fn(&mut Job),
    ) -> Result<()> {
        let table = self.table(table)?;
        let make = |sstables: &[Rc<Sstable>]| {
            // Damaged ones are what a scrub is for.
            let may_take = |sstable: &&Rc<Sstable>| kind == Kind::Scrub || !sstable.is_suspect.get();
            let due = sstables.iter().filter(may_take).filter(|sstable| is_due(sstable));
            let compacting = table.compacting();
            let job = |sstable: &Rc<Sstable>| {
                let mut output = compacting.strategy.output_for(&[Candidate::of(sstable)]);
                output.level = sstable.statistics.level;
                let mut job = Job::new(table.clone(), vec![sstable.clone()], kind, output);
                prepare(&mut job);
                job
            };
            due.map(job).collect()
        };
        let jobs = self.when_idle(&table, make).await?;
        Box::pin(self.run_all(&table, jobs)).await
    }

    /// Makes jobs of a table's sstables when no compaction has any of them.
    async fn when_idle(
        &self,
        table: &Rc<TableStore>,
        make: impl Fn(&[Rc<Sstable>]) -> Vec<Job>,
    ) -> Result<Vec<Job>> {
        table.major_compaction_waits.set(true);
        let jobs = loop {
            let done = self.compactions.done.listen();
            if self.compactions.is_stopped.get() {
                break Err(Error::Closed);
            }
            if let Err(error) = self.poison.check() {
                break Err(error);
            }
            let sstables = table.view().sstables.clone();
            if !sstables.iter().any(|sstable| sstable.is_compacting.get()) {
                break Ok(make(&sstables));
            }
            done.await;
        };
        table.major_compaction_waits.set(false);
        jobs
    }

    /// Runs jobs one after the other; the first failure ends it.
    async fn run_all(&self, table: &Rc<TableStore>, jobs: Vec<Job>) -> Result<()> {
        let aborted: Vec<_> = jobs.iter().map(|job| job.is_aborted.clone()).collect();
        for (at, job) in jobs.into_iter().enumerate() {
            let result = self.run_job(job).await;
            self.note_result(table, &result);
            if result.is_err() {
                aborted.iter().skip(at).for_each(|flag| flag.set(true));
            }
            result?;
        }
        table.has_changed.set(true);
        Ok(())
    }

    /// Stops compactions: one by its id, or all of a kind (in nodetool's words, `COMPACTION`, `CLEANUP`, ...), or all. What they
    /// have not finished is undone. Returns how many.
    pub fn stop_compactions(&self, id: Option<Uuid>, kind: Option<&str>) -> usize {
        let running = self.compactions.running();
        let is_meant = |progress: &&Rc<super::Progress>| {
            id.is_none_or(|id| progress.id == id) && kind.is_none_or(|kind| progress.kind.matches(kind))
        };
        let stopped = running.iter().filter(is_meant);
        let count = stopped.map(|progress| progress.is_aborted.set(true)).count();
        self.compactions.stopped.notify();
        count
    }

    /// Allows or forbids a table's compactions to start by themselves, until the next start.
    pub fn set_automatic_compaction(&self, table: TableId, is_on: bool) -> Result<()> {
        let table = self.table(table)?;
        table.is_compaction_disabled.set(!is_on);
        table.has_changed.set(true);
        Ok(())
    }

    /// A table's compactions start by themselves.
    pub fn has_automatic_compaction(&self, table: TableId) -> Result<bool> {
        Ok(self.table(table)?.compacts_by_itself())
    }
}

fn has_name(sstable: &Sstable, file: &str) -> bool {
    let path = sstable.data_path();
    path == std::path::Path::new(file) || path.file_name().is_some_and(|name| name == file)
}

fn major_jobs(table: &Rc<TableStore>, sstables: &[Rc<Sstable>], what: MajorCompaction) -> Vec<Job> {
    let is_meant = |sstable: &&Rc<Sstable>| {
        let overlaps =
            |(start, end): (Token, Token)| sstable.first.token <= end && start <= sstable.last.token;
        !sstable.is_suspect.get() && what.tokens.is_none_or(overlaps)
    };
    let sstables: Vec<Rc<Sstable>> = sstables.iter().filter(is_meant).cloned().collect();
    let candidates: Vec<Candidate<'_>> = sstables.iter().map(Candidate::of).collect();
    let plans = table.compacting().major(&candidates, what.splits_output);
    let job = |plan: Plan| Job::new(table.clone(), chosen(&sstables, &plan), plan.kind, plan.output);
    plans.into_iter().map(job).collect()
}
