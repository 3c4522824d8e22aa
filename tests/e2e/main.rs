//! End-to-end tests: the real programs on real etcd and PostgreSQL, seen from outside. One file per promise.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod clocks;
mod cold;
mod ctl;
mod damaged;
mod failover;
mod grpc;
mod guard;
mod hosts;
mod idle;
mod init;
mod keeper;
mod leader;
mod matrix;
mod members;
mod playground;
mod rejoin;
mod remains;
mod store;
mod switchover;
mod synchronous;
mod trace;
mod transcript;
mod twins;
mod unfit;
