//! The keeper: one PostgreSQL instance, made to be what the cluster data say it should be. `plan` and `authority` think
//! (pure), `state` remembers (pure), `pg` knows PostgreSQL, everything else is the shell around them.

pub mod authority;
pub mod claims;
pub mod cli;
mod converge;
mod ground;
pub mod guard;
mod inherit;
pub mod journal;
mod login;
mod look;
pub mod pg;
pub mod plan;
mod probe;
pub mod report;
mod run;
mod senses;
mod service;
mod shared;
pub mod state;
mod steps;
pub mod synchronous;

pub use run::run;
