//! A memtable holds what the model's merge says, in copies of its own, and knows its size.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use ceto_model::{Collection, ColumnData, ColumnId, Partition, Row};

use super::*;
use crate::testing::*;

fn content(memtable: &Memtable, key: &DecoratedKey) -> Partition {
    let partition = memtable.partition(key).unwrap();
    Partition {
        deletion: partition.deletion,
        static_row: partition.static_row.as_deref().cloned().unwrap_or_default(),
        rows: partition
            .rows
            .within(&ceto_model::Slice::full())
            .map(|(k, r)| (k.clone(), r.clone()))
            .collect(),
        range_tombstones: partition.range_tombstones.clone(),
    }
}

#[test]
fn writes_merge_as_the_model_says() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let shape = Shape {
            partitions: 1,
            // Often one row only, as partitions that are packed have.
            rows: if seed % 3 == 0 {
                1
            } else {
                10 + dice.below(100) as u16
            },
            value_size: 20,
            timestamps: 20,
            deletions: seed % 2 == 0,
        };
        let (memtable, mut model) = (Memtable::new(), Partition::default());
        for _ in 0..200 {
            let write = random_write(&mut dice, shape);
            model.merge(write.partition.clone());
            memtable.apply(write, None);
        }
        assert_eq!(content(&memtable, &key(0)), model, "seed {seed}");
    }
}

#[test]
fn its_size_follows_its_content() {
    let memtable = Memtable::new();
    assert_eq!(memtable.memory(), 0);
    memtable.apply(row_write(1, 1, 1, &[0; 1000]), None);
    let one = memtable.memory();
    assert!((1000..2000).contains(&one), "{one}");
    // Overwriting does not grow it, a shorter value shrinks it.
    memtable.apply(row_write(1, 1, 2, &[0; 1000]), None);
    assert_eq!(memtable.memory(), one);
    memtable.apply(row_write(1, 1, 3, &[0; 10]), None);
    // Beside the value itself the lengths around it may become shorter.
    assert!(
        (one - 1000..=one - 990).contains(&memtable.memory()),
        "{}",
        memtable.memory()
    );
    for number in 2..100 {
        memtable.apply(row_write(1, number, 1, &[0; 1000]), None);
    }
    let many = memtable.memory();
    assert!(many > 98 * 1000 && many < 98 * 1500, "{many}");
    let mut deletion_of_all = Mutation::new(TABLE, key(1));
    deletion_of_all.partition.deletion = Some(deletion(10));
    memtable.apply(deletion_of_all, None);
    assert!(memtable.memory() < 2000, "{}", memtable.memory());
}

#[test]
fn it_keeps_no_buffer_of_the_caller() {
    let memtable = Memtable::new();
    let buffer = Bytes::from(vec![7u8; 1 << 16]);
    let mut write = Mutation::new(
        TABLE,
        DecoratedKey::new(ceto_model::PartitionKey(buffer.slice(..8))),
    );
    let mut collection = Collection::default();
    let cell = |at: usize| ceto_model::Cell::live(Timestamp(1), buffer.slice(at..at + 5));
    collection.merge_cell(buffer.slice(20..24), cell(30));
    let mut row = Row::default();
    row.merge_column(ColumnId(3), ColumnData::Cell(cell(40)));
    row.merge_column(ColumnId(5), ColumnData::Collection(collection));
    write
        .partition
        .rows
        .push((ceto_model::ClusteringKey(buffer.slice(50..54)), row.clone()));
    write.partition.static_row = row;
    memtable.apply(write.clone(), None);
    memtable.apply(write, None);
    assert!(buffer.is_unique());
}
