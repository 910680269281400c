//! Reads of one partition out of several sstables: what begins behind the page is not read.

use ceto_model::read::ReadTarget;

use crate::testing::*;

/// Three sstables that have rows 0 to 49, 50 to 99 and 100 to 149 of a partition.
const ROWS_EACH: u16 = 50;
const VALUE: usize = 3000;

#[test]
fn an_sstable_whose_rows_come_later_is_not_read_for_a_short_page() {
    let (_, env) = machine(1);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for sstable in 0..3 {
            for row in 0..ROWS_EACH {
                let value: Vec<u8> = (0..VALUE)
                    .map(|at| (at * 7 + usize::from(row)) as u8 ^ (at >> 3) as u8)
                    .collect();
                database
                    .write(row_write(1, sstable * ROWS_EACH + row, 5, &value))
                    .await
                    .unwrap();
            }
            database.flush(None).await.unwrap();
        }
        assert_eq!(database.sstables(TABLE).len(), 3);
        let read = async |first: u16, limit: u64| {
            let mut command = read_of(ReadTarget::Partition(key(1)));
            command.bypass_cache = true;
            command.slices = std::iter::once(slice(first, u16::MAX)).collect();
            command.limits.rows = limit;
            let found = database.read(&command).await.unwrap();
            let rows = found
                .partitions
                .iter()
                .map(|partition| partition.partition.rows.len())
                .sum::<usize>();
            (rows, found.work.disk_bytes)
        };
        // All of it, once each.
        let (rows, all) = read(1, u64::MAX).await;
        assert_eq!(rows, 149);
        for first in [1, 20, 45] {
            let (rows, bytes) = read(first, 1).await;
            assert_eq!(rows, 1);
            // Pages of the row indexes, and the blocks of one row and the next.
            assert!(bytes < all / 10, "from {first}: {bytes} of {all} bytes");
        }
        // Over the border.
        assert_eq!(read(48, 4).await.0, 4);
    })
    .unwrap();
}
