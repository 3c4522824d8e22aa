//! etcd: one mirror of the cluster's keys by watch, registrations on leases, and compare-and-swap transactions.
//! Decides nothing; whoever writes shows by what it compares that it may.

mod mirror;

pub use mirror::{Candidate, Held, Mirror, Registered, Stored};
