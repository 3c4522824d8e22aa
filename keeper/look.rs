//! From files to the plan's words.

use crate::{pg::DataState, plan::Data};

/// What a directory holds; `initializing`: a creation was begun and not finished.
pub fn data(found: DataState, initializing: bool) -> Data {
    match found {
        DataState::Absent => Data::Absent,
        _ if initializing => Data::Incomplete,
        DataState::Incomplete => Data::Incomplete,
        DataState::Primary => Data::Primary,
        DataState::Standby => Data::Standby,
    }
}
