//! A public gRPC client (`buf curl`), which learns the services by reflection only: what an operator does at night.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    certs::Holder,
    process::{Outcome, complete},
    tools,
};

/// Version of the reflection protocol.
pub const REFLECTION: [&str; 2] = ["grpc-v1", "grpc-v1alpha"];

/// One server as the client sees it.
pub struct Curl<'a> {
    pub folder: &'a Path,
    /// `host:port`.
    pub address: String,
    /// The client's own certificate and the authority that it trusts; `None` for plain text.
    pub tls: Option<Holder>,
}

const BOUND: Duration = Duration::from_secs(20);

impl Curl<'_> {
    fn run(&self, path: &str, args: &[&str]) -> Outcome {
        let mut command = Command::new(tools::buf());
        command.args(["curl", "--protocol", "grpc", "--connect-timeout", "5", "--timeout", "15s"]).args(args);
        let scheme = match &self.tls {
            None => {
                command.arg("--http2-prior-knowledge");
                "http"
            }
            Some(holder) => {
                command.arg("--cacert").arg(&holder.ca).arg("--cert").arg(&holder.cert).arg("--key").arg(&holder.key);
                "https"
            }
        };
        command.arg(format!("{scheme}://{}{path}", self.address)).env("BUF_CACHE_DIR", self.folder.join("buf"));
        complete(self.folder, &mut command, BOUND)
    }

    /// All methods that reflection tells, as `package.Service/Method`.
    pub fn methods(&self, reflection: &str) -> Result<Vec<String>, String> {
        let outcome = self.run("", &["--list-methods", "--reflect-protocol", reflection]);
        match outcome.code {
            Some(0) => Ok(outcome.out.lines().map(|line| line.trim().to_owned()).collect()),
            _ => Err(format!("{} {}", outcome.out, outcome.err)),
        }
    }

    /// Calls a method with an empty request, its types learned by reflection.
    pub fn call(&self, method: &str) -> Result<Value, String> {
        self.call_with(method, "{}")
    }

    pub fn call_with(&self, method: &str, data: &str) -> Result<Value, String> {
        let outcome = self.run(&format!("/{method}"), &["--emit-defaults", "--data", data]);
        match outcome.code {
            Some(0) => serde_json::from_str(&outcome.out).map_err(|e| format!("{e}: {}", outcome.out)),
            _ => Err(format!("{} {}", outcome.out, outcome.err)),
        }
    }
}
