//! What the end-to-end tests stand on: real etcd, real PostgreSQL, the real programs as child processes. Every wait has a
//! bound and names what it waited for; whatever a test started is gone when it ends. Knows the programs only from
//! outside: their flags, their keys in etcd, their gRPC services.

pub mod acks;
pub mod audit;
pub mod bins;
pub mod certs;
pub mod cluster;
pub mod collector;
pub mod curl;
pub mod disk;
pub mod etcd;
pub mod keys;
pub mod netfault;
pub mod netns;
pub mod ports;
pub mod postmaster;
pub mod proc;
pub mod process;
pub mod runner;
pub mod sandbox;
pub mod series;
pub mod sql;
pub mod stage;
pub mod tools;
pub mod wait;
pub mod writer;

pub use cluster::{Cluster, ClusterOptions, Keeper};
pub use runner::{Test, Weight, run, run_for};
pub use wait::{during, eventually, within};
