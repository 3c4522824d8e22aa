//! One PostgreSQL instance: its programs, files, processes and SQL. Knows nothing of etcd, leases, epochs or gRPC; who
//! may be primary, and when, is decided by its callers. Everything slow is a future that may be dropped at any await: a
//! helper program dies with it, and the next try clears what it left.

mod backup;
mod binaries;
mod conf;
mod conninfo;
mod control;
mod credentials;
mod error;
mod files;
pub mod history;
mod initdb;
mod instance;
mod kill;
mod pidfile;
mod postmaster;
mod probe;
mod proc;
mod program;
mod promote;
mod recruit;
mod replication;
mod rewind;
mod runas;
mod sampler;
mod slots;
mod sql;
mod staging;
#[cfg(test)]
mod tests;
mod upstream;

pub use binaries::Binaries;
pub use conf::{Admit, ConfChange, ConfInput, ConfRole, check_exposure};
pub use control::{ClusterState, Control};
pub use credentials::{Auth, Credentials, Login, Secret};
pub use error::PgError;
pub use initdb::Initialized;
pub use instance::{DataState, Instance, InstanceConfig};
pub use kill::{Killed, kill_postgres};
pub use pidfile::PmStatus;
pub use postmaster::{Exit, Postmaster};
pub use proc::ProcessId;
pub use promote::Promoted;
pub use rewind::Rewound;
pub use runas::RunAs;
pub use sampler::{Follower, Sample, Sampler};
pub use staging::Expendable;
pub use upstream::{Server, ServerState};
