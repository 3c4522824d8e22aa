//! The shared library of stolon: values (`model`), their protobuf border (`wire`), etcd (`store`), gRPC plumbing
//! (`rpc`), tracing and export (`telemetry`), supervised tasks and clocks (`task`). Dependencies run one way:
//! `model <- wire <- {store, rpc, telemetry, task}`; the daemons stand on top and never depend on one another.

pub mod cli;
pub mod launch;
pub mod model;
pub mod rpc;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod wire;
