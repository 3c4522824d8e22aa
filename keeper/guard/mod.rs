//! R4 when the keeper can't keep it: a small process that ends PostgreSQL at the deadline of its authority while the
//! keeper is killed, frozen or stuck. `core` thinks (pure), `process` is the process around it, without runtime or
//! threads, `obituary` what it says of a kill; `link` is the keeper's end of the line, `keep` the task that tells the guard what the state says.

mod core;
mod frame;
mod keep;
mod link;
mod obituary;
mod process;
#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;

pub use self::core::Armed;
pub use keep::{Keep, Watch, keep};
pub use link::{Found, Program};
pub use process::main;

/// The keeper's program runs as a guard when this is its first argument; the keeper's directory follows, then the OS user
/// of PostgreSQL, if it is another one. No flag of people's: it is in no help.
pub const ARGUMENT: &str = "guard";
/// In the keeper's directory: where the next keeper finds a guard that outlived its own.
const SOCKET: &str = "guard.sock";
