//! stolon-sentinel: watches keepers and proxies, leads when elected, and changes the primary. `decide` thinks (pure),
//! `observe` remembers (pure), everything else is the shell around them.

pub mod decide;
pub mod observe;
