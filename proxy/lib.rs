//! stolon-proxy: the clients' way to the primary. It routes to one primary at a time, cuts what leads to an ended epoch,
//! and acknowledges that (R7). It knows no SQL and nothing of PostgreSQL but an address.

pub mod cli;
pub mod client;
pub mod control;
pub mod copy;
#[cfg(test)]
mod etcd_tests;
pub mod gate;
pub mod gatehouse;
pub mod listener;
#[cfg(test)]
mod load;
pub mod pass;
pub mod record;
pub mod run;
pub mod service;
pub mod socket;
pub mod story;
#[cfg(test)]
mod tests;
