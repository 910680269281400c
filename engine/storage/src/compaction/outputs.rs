//! The sstables that a compaction writes: where one ends and the next begins, and what becomes of them.
//!
//! Beside what is kept there may be a second stream, of what was purged. A compaction that lets its inputs go one by
//! one needs it: a tombstone that is purged because all it shadows is in the inputs still shadows that in those inputs
//! that are not let go yet. So what is purged is kept in sstables of its own until the last input has gone.

use std::rc::Rc;

use ceto_model::{DecoratedKey, Token};
use uuid::Uuid;

use super::Job;
use super::strategy::Cut;
use crate::database::Database;
use crate::error::Result;
use crate::reader::Fragment;
use crate::sstable::{Descriptor, EncodedPartition, Sstable, SstableWriter, WriterOptions};

/// Decides where outputs end.
pub(super) struct Cutter {
    cut: Cut,
    level: u32,
    /// Bytes in sealed sstables of this level, or of all.
    sealed: u64,
}

impl Cutter {
    pub(super) fn new(cut: Cut, level: u32) -> Cutter {
        Cutter {
            cut,
            level,
            sealed: 0,
        }
    }

    /// An output that has `size` bytes and whose last token is `last` must end before `next`.
    pub(super) fn is_due(&self, size: u64, last: Token, next: Token) -> bool {
        if last == next {
            return false;
        }
        match self.cut {
            Cut::Never => false,
            Cut::Size(bound) | Cut::Levels { size: bound, .. } => size >= bound,
            Cut::Halves { total, least } => {
                let half = total.saturating_sub(self.sealed) / 2;
                half >= least && size >= half
            }
            Cut::Parts(parts) => part(last, parts) != part(next, parts),
        }
    }

    /// Level of the next output.
    pub(super) fn level(&mut self) -> u32 {
        if let Cut::Levels { size, fanout } = self.cut {
            let bound = size.saturating_mul(fanout.saturating_pow(self.level));
            if self.sealed >= bound {
                self.level += 1;
                self.sealed = 0;
            }
        }
        self.level
    }

    fn note_sealed(&mut self, size: u64) {
        self.sealed += size;
    }

    /// Partitions of one output, of `partitions` in `total` bytes of inputs.
    fn expected_partitions(&self, partitions: u64, total: u64) -> u64 {
        let one = match self.cut {
            Cut::Never | Cut::Halves { .. } => return partitions,
            Cut::Size(size) | Cut::Levels { size, .. } => size as f64 / total.max(1) as f64,
            Cut::Parts(parts) => 2.0 / parts as f64,
        };
        // Partitions are not all of one size.
        ((partitions as f64 * one * 1.5) as u64 + 64).min(partitions)
    }
}

/// The number of the part of the ring that a token lies in, of so many equal ones.
fn part(token: Token, parts: u64) -> u64 {
    let place = (i128::from(token.0) - i128::from(i64::MIN)) as u128;
    ((place * u128::from(parts)) >> 64) as u64
}

/// What a compaction has written so far.
pub(super) struct Outputs<'a> {
    database: &'a Database,
    job: &'a Job,
    cutter: Cutter,
    options: WriterOptions,
    partitions: u64,
    total: u64,
    writer: Option<SstableWriter>,
    /// Of the partition pushed last.
    last: Option<Token>,
    purged: Option<SstableWriter>,
    /// Fragments for `purged` that wait for a writer.
    purged_queue: Vec<Fragment>,
    /// Complete, but not part of the table yet.
    sealed: Vec<Rc<Sstable>>,
    sealed_purged: Vec<Rc<Sstable>>,
    /// Bytes of all sealed outputs.
    written: u64,
}

impl<'a> Outputs<'a> {
    /// Nothing written. `partitions` and `total` (bytes) are those of the inputs.
    pub(super) fn new(
        database: &'a Database,
        job: &'a Job,
        options: WriterOptions,
        partitions: u64,
        total: u64,
    ) -> Self {
        // A fragment written anew stays one of its run.
        let own = match &job.inputs.borrow()[..] {
            [one] => one.statistics.run,
            _ => None,
        };
        let new = || Uuid::from_u64_pair(database.env.random(), database.env.random());
        let run = job.output.is_run.then(|| own.unwrap_or_else(new));
        Outputs {
            database,
            job,
            cutter: Cutter::new(job.output.cut, job.output.level),
            options: WriterOptions { run, ..options },
            partitions,
            total,
            writer: None,
            last: None,
            purged: None,
            purged_queue: Vec::new(),
            sealed: Vec::new(),
            sealed_purged: Vec::new(),
            written: 0,
        }
    }

    /// Makes room for the next partition: ends the output before it when that is due. True: an output was sealed.
    pub(super) async fn prepare(&mut self, next: Token) -> Result<bool> {
        let is_due = match (&self.writer, self.last) {
            (Some(writer), Some(last)) => self.cutter.is_due(writer.size(), last, next),
            _ => false,
        };
        if is_due {
            self.seal().await?;
        }
        self.last = Some(next);
        if self.writer.is_none() {
            let options = WriterOptions {
                level: self.cutter.level(),
                expected_partitions: self.cutter.expected_partitions(self.partitions, self.total),
                created_at: self.database.env.clock().unix_micros(),
                ..self.options.clone()
            };
            self.writer = Some(self.create(options).await?);
        }
        Ok(is_due)
    }

    async fn create(&self, options: WriterOptions) -> Result<SstableWriter> {
        let descriptor = self.job.new_descriptor(self.database)?;
        SstableWriter::create(self.database.env.disk(), descriptor, options).await
    }

    /// Takes a fragment that is kept.
    pub(super) fn push(&mut self, fragment: Fragment) -> Result<()> {
        let writer = self.writer.as_mut();
        writer.expect("a partition was prepared for").push(fragment)
    }

    /// Takes a whole partition in which nothing is to be purged, as it lies in its block. False: it must be pushed.
    pub(super) fn push_encoded(&mut self, key: &DecoratedKey, encoded: EncodedPartition<'_>) -> Result<bool> {
        let writer = self.writer.as_mut();
        writer
            .expect("a partition was prepared for")
            .push_encoded(key, encoded)
    }

    /// Takes a fragment that was purged, when such are wanted.
    pub(super) fn push_purged(&mut self, fragment: Fragment) {
        self.purged_queue.push(fragment);
    }

    /// Something waits to be written.
    pub(super) fn is_full(&self) -> bool {
        !self.purged_queue.is_empty() || self.writer.as_ref().is_some_and(SstableWriter::is_full)
    }

    /// Writes what waits. Returns the bytes written by now.
    pub(super) async fn write_out(&mut self) -> Result<u64> {
        if !self.purged_queue.is_empty() {
            if self.purged.is_none() {
                let options = WriterOptions {
                    expected_partitions: self.partitions.min(1 << 16),
                    created_at: self.database.env.clock().unix_micros(),
                    run: None,
                    level: 0,
                    ..self.options.clone()
                };
                self.purged = Some(self.create(options).await?);
            }
            let purged = self.purged.as_mut().expect("made above");
            for fragment in self.purged_queue.drain(..) {
                purged.push(fragment)?;
            }
            if purged.is_full() {
                purged.write_out().await?;
            }
        }
        if let Some(writer) = &mut self.writer {
            if writer.is_full() {
                writer.write_out().await?;
            }
            return Ok(self.written + writer.size());
        }
        Ok(self.written)
    }

    /// Ends the outputs that are being written.
    pub(super) async fn seal(&mut self) -> Result<()> {
        let writer = self.writer.take();
        if let Some(sstable) = self.finish(writer).await? {
            self.cutter.note_sealed(sstable.data_size());
            self.written += sstable.data_size();
            self.sealed.push(sstable);
        }
        let purged = self.purged.take();
        let purged = self.finish(purged).await?;
        self.sealed_purged.extend(purged);
        Ok(())
    }

    async fn finish(&self, writer: Option<SstableWriter>) -> Result<Option<Rc<Sstable>>> {
        let Some(writer) = writer else { return Ok(None) };
        let Some(descriptor) = writer.finish().await? else {
            return Ok(None);
        };
        let database = self.database;
        Sstable::open_uncommitted(database.env.clone(), descriptor, database.cache.clone())
            .await
            .map(Some)
    }

    /// Takes the sealed outputs and the sealed sstables of what was purged.
    pub(super) fn take_sealed(&mut self) -> (Vec<Rc<Sstable>>, Vec<Rc<Sstable>>) {
        (
            std::mem::take(&mut self.sealed),
            std::mem::take(&mut self.sealed_purged),
        )
    }

    /// Bytes of all sealed outputs.
    pub(super) fn written(&self) -> u64 {
        self.written
    }
}

impl Job {
    /// A name for an output, which is removed should the compaction fail.
    fn new_descriptor(&self, database: &Database) -> Result<Descriptor> {
        // Not after a truncation: what it makes void are the names given out before it.
        database.check_running(self)?;
        let descriptor = self.table.next_descriptor();
        self.uncommitted.borrow_mut().push(descriptor.clone());
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_cut_evenly() {
        assert_eq!(part(Token::MIN, 4), 0);
        assert_eq!(part(Token(-1), 4), 1);
        assert_eq!(part(Token(0), 4), 2);
        assert_eq!(part(Token::MAX, 4), 3);
        assert_eq!(part(Token::MAX, 1), 0);
        let cutter = Cutter::new(Cut::Parts(2), 0);
        assert!(cutter.is_due(0, Token(-1), Token(0)));
        assert!(!cutter.is_due(1 << 40, Token(1), Token(2)));
    }

    #[test]
    fn halves_become_smaller_until_the_least() {
        let mut cutter = Cutter::new(
            Cut::Halves {
                total: 1000,
                least: 200,
            },
            0,
        );
        assert!(!cutter.is_due(499, Token(0), Token(1)));
        assert!(cutter.is_due(500, Token(0), Token(1)));
        cutter.note_sealed(500);
        assert!(cutter.is_due(250, Token(0), Token(1)));
        cutter.note_sealed(250);
        assert!(!cutter.is_due(10_000, Token(0), Token(1)));
    }

    #[test]
    fn levels_are_filled_one_after_the_other() {
        let mut cutter = Cutter::new(Cut::Levels { size: 10, fanout: 2 }, 1);
        let mut levels = Vec::new();
        for _ in 0..8 {
            levels.push(cutter.level());
            cutter.note_sealed(10);
        }
        assert_eq!(levels, [1, 1, 2, 2, 2, 2, 3, 3]);
    }
}
