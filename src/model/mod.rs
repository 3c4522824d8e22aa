//! Values only: no I/O, no clock, no async. Whatever two components agree on has its one definition here.

pub mod cluster;
mod db;
mod document;
pub mod epoch;
pub mod godur;
pub mod ids;
pub mod lsn;
pub mod moment;
pub mod registration;
pub mod report;
pub mod spec;
mod stored_spec;
pub mod view;

pub use cluster::ClusterData;
pub use epoch::{Epoch, Generation, LeaseId, Revision};
pub use ids::{ClusterName, ClusterUid, DbUid, KeeperUid, ProxyUid, SentinelUid};
pub use lsn::{Lsn, WalPosition};
pub use moment::Moment;
