//! stolon-sentinel: watches keepers and proxies, leads when elected, and changes the primary. `decide` thinks (pure),
//! `observe` remembers (pure), everything else is the shell around them.

pub mod admin;
pub mod cli;
pub mod decide;
pub mod election;
pub mod hub;
pub mod lead;
pub mod mood;
pub mod observe;
pub mod run;
pub mod service;
#[cfg(test)]
mod service_tests;
pub mod stamp;
