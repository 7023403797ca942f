//! What a request leaves behind: one decision record, from which its spans, counts and log line are made.

mod record;
mod spans;

pub(crate) use record::{AttemptRecord, Labels, Record, Recorder};
