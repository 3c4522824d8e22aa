//! The keeper: one PostgreSQL instance, made to be what the cluster data says it should be.

pub mod pg;
