//! The executions of the failover protocol's section 8 as directed histories: each was found in an earlier version of the
//! rules, and each is survived here. Those that concern synchronous replication, or one value only, are named where they
//! are tested.

mod etcd;
mod handover;
mod leaders;
mod leases;
mod proxies;
mod servers;
mod story;
mod synchronous;
