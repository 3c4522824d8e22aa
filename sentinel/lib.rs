//! stolon-sentinel: watches keepers and proxies, leads when elected, and changes the primary. `decide` thinks (pure),
//! `observe` remembers (pure), everything else is the shell around them.

pub mod cli;
pub mod decide;
pub mod hub;
pub mod mood;
pub mod observe;
pub mod service;
#[cfg(test)]
mod service_tests;
pub mod stamp;
