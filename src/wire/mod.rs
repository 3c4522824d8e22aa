//! Where protobuf stops: generated types, and their conversions from and to `model`. Whatever a peer sends that the
//! model can't say is refused here, with the field's name.

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
    #[allow(dead_code)]
    pub(crate) fn new(field: &'static str, problem: impl std::fmt::Display) -> BadMessage {
        BadMessage { field, problem: problem.to_string() }
    }
}

impl From<BadMessage> for tonic::Status {
    fn from(bad: BadMessage) -> tonic::Status {
        tonic::Status::invalid_argument(bad.to_string())
    }
}

#[allow(dead_code)]
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
