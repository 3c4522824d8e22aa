//! Where protobuf stops: generated types, and their conversions from and to `model`. Whatever a peer sends that the
//! model can't say is refused here, with the field's name. Knows no connection and no clock.

mod assignment;
mod common;
mod explain;
mod field;
mod report;
mod stream;
#[cfg(test)]
mod tests;
mod view;

pub use common::{Identity, Probe};
pub use explain::explain;
pub use field::millis;
pub use stream::{Down, Up};

/// Generated from `proto/stolon/v1`.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("stolon.v1");
}

/// Descriptor set of `proto/stolon/v1`, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stolon_descriptor.bin"));

/// A message that breaks the contract: one line, naming the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct BadMessage {
    pub field: &'static str,
    pub problem: String,
}

impl BadMessage {
    pub(crate) fn new(field: &'static str, problem: impl std::fmt::Display) -> BadMessage {
        BadMessage { field, problem: problem.to_string() }
    }
}

impl From<BadMessage> for tonic::Status {
    fn from(bad: BadMessage) -> tonic::Status {
        tonic::Status::invalid_argument(bad.to_string())
    }
}
