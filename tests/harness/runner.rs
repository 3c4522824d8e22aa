//! Runs one end-to-end test: waits for its share of the machine, gives it a folder and a runtime, and bounds its time.

use std::{
    future::Future,
    io::Write,
    path::Path,
    process::Command,
    sync::{Condvar, Mutex},
    time::Duration,
};

use crate::{bins, process::Process, sandbox::Sandbox};

/// How much of the machine a test takes. Two cores carry about three clusters at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A process or two.
    Light = 1,
    /// A cluster.
    Cluster = 2,
    /// A cluster whose times are asserted tightly, or more than one cluster.
    Heavy = 4,
}

const CAPACITY: usize = 6;
static USED: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();
/// Longer than any test may take.
const LIMIT: Duration = Duration::from_secs(240);

struct Share(usize);

impl Share {
    fn take(weight: Weight) -> Share {
        let wanted = weight as usize;
        let used = USED.lock().unwrap_or_else(|e| e.into_inner());
        let full = |used: &mut usize| *used + wanted > CAPACITY;
        *FREED.wait_while(used, full).unwrap_or_else(|e| e.into_inner()) += wanted;
        Share(wanted)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *USED.lock().unwrap_or_else(|e| e.into_inner()) -= self.0;
        FREED.notify_all();
    }
}

/// What a test is handed.
pub struct Test {
    pub name: String,
    sandbox: Sandbox,
}

impl Test {
    /// For programs that are no tests, and bound their waits themselves.
    pub fn standalone(name: &str) -> Test {
        Test { name: name.to_owned(), sandbox: Sandbox::new(name) }
    }

    pub fn folder(&self) -> &Path {
        &self.sandbox.folder
    }

    pub fn subfolder(&self, name: &str) -> std::path::PathBuf {
        self.sandbox.subfolder(name)
    }

    /// Starts one of the four programs. No telemetry goes anywhere unless the test says so.
    pub fn spawn(&self, name: &str, program: &str, args: &[String], env: &[(String, String)]) -> Process {
        let mut command = self.command(program);
        command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
        Process::spawn(self.folder(), name, command)
    }

    /// One of the four programs, in an environment without settings for it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(bins::bin(program));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["OTEL_", "PG", "STKEEPER_", "STSENTINEL_", "STPROXY_", "STOLONCTL_"].iter().any(|p| text.starts_with(p))
            {
                command.env_remove(&name);
            }
        }
        command
    }
}

/// Runs the test `name`, which must be unique.
pub fn run<F: Future<Output = ()>>(name: &str, weight: Weight, test: impl FnOnce(Test) -> F) {
    run_for(name, weight, LIMIT, test);
}

/// The same with a limit of its own.
pub fn run_for<F: Future<Output = ()>>(name: &str, weight: Weight, limit: Duration, test: impl FnOnce(Test) -> F) {
    bins::bin("stolon-keeper");
    let _share = Share::take(weight);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let test = test(Test { name: name.to_owned(), sandbox: Sandbox::new(name) });
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, test).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(outcome.is_ok(), "{name} took longer than {} s", limit.as_secs());
}

/// One line past libtest's capture: for measurements, `GAP kind milliseconds`.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
