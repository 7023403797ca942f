//! Where the lines of a head stand, so that nobody needs to split them again.

use std::ops::Range;

use crate::message::{Field, MalformedField, syntax};

/// Fields for which room is kept between messages.
const KEPT_FIELDS: usize = 32;
/// Most bytes that are counted: positions have 32 bits.
pub(super) const MAX_BYTES: usize = u32::MAX as usize / 2;

/// Where one field stands in the bytes that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldAt {
    name: (u32, u32),
    value: (u32, u32),
}

impl FieldAt {
    /// The name as it was sent, in any case.
    pub fn name(&self) -> Range<usize> {
        self.name.0 as usize..self.name.1 as usize
    }

    /// The value without the surrounding white space.
    pub fn value(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }
}

/// The lines of a head, or of a trailer section, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    start_line: Range<usize>,
    fields: Vec<FieldAt>,
    /// A line was no field. None behind it is split.
    malformed: bool,
}

impl Lines {
    pub(super) fn clear(&mut self) {
        self.start_line = 0..0;
        self.fields.clear();
        self.fields.shrink_to(KEPT_FIELDS);
        self.malformed = false;
    }

    pub(super) fn set_start_line(&mut self, at: usize, line: &[u8]) {
        self.start_line = at..at + line.len();
    }

    /// Adds the line, without its CRLF, that begins `at` this byte of at most [`MAX_BYTES`].
    pub(super) fn add_field(&mut self, at: usize, line: &[u8]) {
        if self.malformed {
            return;
        }
        match syntax::split_field(line) {
            Ok((colon, value)) => {
                let position = |offset: usize| (at + offset) as u32;
                self.fields.push(FieldAt {
                    name: (position(0), position(colon)),
                    value: (position(value.start), position(value.end)),
                });
            }
            Err(MalformedField) => self.malformed = true,
        }
    }

    /// The start line without its CRLF, in the bytes that it was read from.
    pub(super) fn start_line<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.start_line.clone()).unwrap_or_default()
    }

    pub(super) fn fields_at(&self) -> &[FieldAt] {
        &self.fields
    }

    /// The fields in the bytes that they were read from; the last one may be none.
    pub(super) fn fields<'b>(
        &'b self,
        bytes: &'b [u8],
    ) -> impl Iterator<Item = Result<Field<'b>, MalformedField>> {
        let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
        let good = self
            .fields
            .iter()
            .map(move |field| Ok((part(field.name()), part(field.value()))));
        good.chain(self.malformed.then_some(Err(MalformedField)))
    }
}
