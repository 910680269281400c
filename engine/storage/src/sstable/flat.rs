//! A reader of flatbuffers that needs no trust: each offset is checked when it is followed.
//!
//! ```text
//! buffer ::= root:u32 identifier:4 ...     root: offset of the table
//! table  ::= vtable:i32 fields             vtable lies at (table - vtable)
//! vtable ::= size:u16 table size:u16 field:u16*    field: offset in the table, 0 when absent
//! vector ::= count:u32 elements            a vector field holds the offset from itself to the vector
//! tables ::= count:u32 (offset:u32)*       a vector of tables: each offset leads from itself to its table
//! ```

/// A table inside a buffer.
pub(crate) struct FlatTable<'a> {
    buffer: &'a [u8],
    table: usize,
    vtable: &'a [u8],
}

impl<'a> FlatTable<'a> {
    /// The root table of a buffer with this identifier.
    pub(crate) fn root(buffer: &'a [u8], identifier: &str) -> Option<FlatTable<'a>> {
        let table = u32_at(buffer, 0)? as usize;
        if buffer.get(4..8)? != identifier.as_bytes() {
            return None;
        }
        FlatTable::at(buffer, table)
    }

    /// The table at an offset.
    fn at(buffer: &'a [u8], table: usize) -> Option<FlatTable<'a>> {
        let back = u32_at(buffer, table)?.cast_signed();
        let vtable = i64::try_from(table).ok()?.checked_sub(i64::from(back))?;
        let vtable = buffer.get(usize::try_from(vtable).ok()?..)?;
        let size = usize::from(u16_at(vtable, 0)?);
        Some(FlatTable {
            buffer,
            table,
            vtable: vtable.get(..size)?,
        })
    }

    /// Where a field lies; None when it is absent.
    fn field(&self, number: u16) -> Option<usize> {
        match u16_at(self.vtable, 4 + 2 * usize::from(number))? {
            0 => None,
            offset => self.table.checked_add(usize::from(offset)),
        }
    }

    /// The field is there.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.field(number).is_some()
    }

    /// A number; 0 when absent.
    pub(crate) fn u64(&self, number: u16) -> u64 {
        let bytes = self
            .field(number)
            .and_then(|at| self.buffer.get(at..at.checked_add(8)?));
        bytes.map_or(0, |bytes| {
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        })
    }

    fn vector(&self, number: u16, element_size: usize) -> Option<&'a [u8]> {
        let at = self.field(number)?;
        let vector = at.checked_add(u32_at(self.buffer, at)? as usize)?;
        let count = u32_at(self.buffer, vector)? as usize;
        let start = vector.checked_add(4)?;
        self.buffer
            .get(start..start.checked_add(count.checked_mul(element_size)?)?)
    }

    /// A vector of bytes.
    pub(crate) fn bytes(&self, number: u16) -> Option<&'a [u8]> {
        self.vector(number, 1)
    }

    /// A vector of bytes that are UTF-8.
    pub(crate) fn text(&self, number: u16) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(number)?).ok()
    }

    /// A vector of tables.
    pub(crate) fn tables(&self, number: u16) -> Option<Vec<FlatTable<'a>>> {
        let field = self.field(number)?;
        let vector = field.checked_add(u32_at(self.buffer, field)? as usize)?;
        let count = self.vector(number, 4)?.len() / 4;
        let table = |i: usize| {
            let at = vector.checked_add(4 + 4 * i)?;
            FlatTable::at(self.buffer, at.checked_add(u32_at(self.buffer, at)? as usize)?)
        };
        (0..count).map(table).collect()
    }

    /// A vector of numbers.
    pub(crate) fn u64s(&self, number: u16) -> Option<Vec<u64>> {
        let bytes = self.vector(number, 8)?.chunks_exact(8);
        Some(
            bytes
                .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
                .collect(),
        )
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().expect("two bytes")))
}
