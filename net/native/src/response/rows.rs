//! RESULT with rows: written cell by cell by a server, walked over in place by a client.
//!
//! ```text
//! | kind i32 = 2 | metadata | rows count i32 | ( length i32, -1 null | bytes )* |     row by row, column by column
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::metadata::{EncodedColumns, ResultMetadata, metadata_flags, put_metadata};
use super::result_kind;
use crate::version::Dialect;
use crate::violation::Violation;
use crate::wire::{Reader, int_length, put_bytes};

/// What stands before the rows of a result.
#[derive(Clone, Copy, Debug)]
pub struct RowsHeader<'a> {
    /// The columns.
    pub columns: &'a EncodedColumns,
    /// Leave the columns out, as the client has asked for.
    pub skip_metadata: bool,
    /// The id of the metadata, if the client has another one. Takes precedence over `skip_metadata`.
    pub new_metadata_id: Option<&'a [u8]>,
}

/// Writes a RESULT with rows into a buffer. Counts and paging state are filled in at the end, so rows can be written
/// as they are found.
///
/// The row under way must be complete at [`RowsEncoder::end_row`]; that is asserted.
#[must_use = "the result is complete only after finish"]
pub struct RowsEncoder {
    out: BytesMut,
    /// Where the metadata starts.
    metadata: usize,
    /// Where the number of rows stands.
    rows_count: usize,
    columns: u32,
    cells: u32,
    rows: u32,
}

impl RowsEncoder {
    /// Appends everything before the rows to `out`.
    pub fn begin(mut out: BytesMut, header: RowsHeader<'_>) -> RowsEncoder {
        out.put_i32(result_kind::ROWS);
        let metadata = out.len();
        let skip = header.skip_metadata && header.new_metadata_id.is_none();
        let columns = (!skip).then_some(header.columns);
        put_metadata(
            &mut out,
            header.columns.count(),
            columns,
            None,
            header.new_metadata_id,
        );
        let rows_count = out.len();
        out.put_u32(0);
        RowsEncoder {
            out,
            metadata,
            rows_count,
            columns: header.columns.count(),
            cells: 0,
            rows: 0,
        }
    }

    /// Appends a cell; None is null.
    #[inline]
    pub fn cell(&mut self, value: Option<&[u8]>) {
        self.cells += 1;
        put_bytes(&mut self.out, value);
    }

    /// Appends a cell whose bytes `fill` appends to the buffer it gets (and must not shorten).
    pub fn cell_with<T>(&mut self, fill: impl FnOnce(&mut BytesMut) -> T) -> T {
        self.cells += 1;
        let start = self.out.len();
        self.out.put_i32(0);
        let result = fill(&mut self.out);
        let length = int_length(self.out.len() - start - 4);
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        result
    }

    /// Ends a row. Panics unless it has as many cells as the result has columns.
    #[inline]
    pub fn end_row(&mut self) {
        assert_eq!(self.cells, self.columns, "a row has a cell for each column");
        self.cells = 0;
        self.rows += 1;
    }

    /// Appends a row.
    pub fn row<'v>(&mut self, cells: impl IntoIterator<Item = Option<&'v [u8]>>) {
        cells.into_iter().for_each(|cell| self.cell(cell));
        self.end_row();
    }

    /// Rows ended so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of the result so far.
    pub fn length(&self) -> usize {
        self.out.len()
    }

    /// Bytes of rows so far.
    pub fn rows_length(&self) -> usize {
        self.out.len() - self.rows_count - 4
    }

    /// Fills in the number of rows and, if there are more pages, where the next one starts. The buffer comes back.
    pub fn finish(mut self, paging_state: Option<&[u8]>) -> BytesMut {
        assert_eq!(self.cells, 0, "the last row has been ended");
        self.out[self.rows_count..self.rows_count + 4].copy_from_slice(&self.rows.to_be_bytes());
        if let Some(state) = paging_state {
            self.insert_paging_state(state);
        }
        self.out
    }

    /// Moves everything behind the number of columns to make room. Costs a copy of the page, once for each page but
    /// the last.
    fn insert_paging_state(&mut self, state: &[u8]) {
        let place = self.metadata + 8;
        let end = self.out.len();
        let length = 4 + state.len();
        self.out.put_bytes(0, length);
        self.out.copy_within(place..end, place + length);
        self.out[place..place + 4].copy_from_slice(&int_length(state.len()).to_be_bytes());
        self.out[place + 4..place + length].copy_from_slice(state);
        // The flag is in the last byte of the big-endian flags.
        self.out[self.metadata + 3] |= metadata_flags::HAS_MORE_PAGES as u8;
    }
}

/// Rows as a client gets them. Their cells have been walked over once, so that reading them cannot fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    /// Of the result.
    pub metadata: ResultMetadata,
    row_count: u32,
    content: Bytes,
}

impl Rows {
    /// Number of rows.
    pub fn row_count(&self) -> u32 {
        self.row_count
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let mut reader = Reader::new(&self.content);
        (0..self.row_count).map(move |_| {
            let start = reader.position();
            walk_row(&mut reader, self.metadata.column_count)
                .expect("the rows were walked over when they were decoded");
            Row {
                content: &self.content,
                start,
                column_count: self.metadata.column_count,
            }
        })
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Rows, Violation> {
        let metadata = ResultMetadata::decode(reader)?;
        let reading = "the number of rows";
        let row_count = reader.count(reading)?;
        if metadata.column_count == 0 && row_count > 0 {
            // Such rows have no bytes, so nothing would bound how many there are.
            let length = i64::from(row_count);
            return Err(Violation::InvalidLength {
                reading,
                offset: reader.position(),
                length,
            });
        }
        let content = reader.rest();
        let mut cells = Reader::new(&content);
        for _ in 0..row_count {
            walk_row(&mut cells, metadata.column_count)?;
        }
        let content = content.slice(..cells.position());
        Ok(Rows {
            metadata,
            row_count,
            content,
        })
    }

    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        self.metadata.encode(dialect.version, out);
        out.put_u32(self.row_count);
        out.put_slice(&self.content);
    }
}

/// Steps over one row.
fn walk_row(reader: &mut Reader<'_>, columns: u32) -> Result<(), Violation> {
    for _ in 0..columns {
        let reading = "a cell";
        if let Ok(length) = usize::try_from(reader.i32(reading)?) {
            reader.take(length, reading)?;
        }
    }
    Ok(())
}

/// One row of a result.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    content: &'a Bytes,
    start: usize,
    column_count: u32,
}

impl<'a> Row<'a> {
    /// The cells in the order of the columns; None is null.
    pub fn cells(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut rest = self.content.get(self.start..).unwrap_or_default();
        (0..self.column_count).map(move |_| {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
            let (cell, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(cell)
        })
    }

    /// The cell of a column; None if it is null or there is no such column.
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        self.cells().nth(index).flatten()
    }
}
