//! What every daemon's shell stands on: the clock, and tasks with names and an ordered end.

pub mod clock;
pub mod signals;
mod supervisor;
pub mod timer;

pub use supervisor::{Ended, Shutdown, Tasks};
