//! The real cores of sentinel, keeper and proxy in a seeded, deterministic world. Everything around the cores is a model:
//! etcd, the network, processes, clocks, PostgreSQL, and the shells, which do here what they do in the programs. A seed is
//! one history of faults; auditors look for what must not be. See ARCHITECTURE.md, "Simulation".

pub mod audit;
mod clients;
mod connection;
pub mod coverage;
pub mod etcd;
pub mod faults;
mod guard;
pub mod invariants;
pub mod keeper;
pub mod net;
pub mod operator;
pub mod postgres;
mod probe;
pub mod proxy;
mod registration;
mod rng;
pub mod rules;
pub mod run;
pub mod runtime;
pub mod sentinel;
pub mod settings;
mod signal;
mod store;
mod streams;
pub mod town;
pub mod world;

/// Histories are made of short-lived values: a fifth of the time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
