//! gRPC between daemons: listeners and channels (plain on loopback, mutual TLS elsewhere), the streams that keepers and
//! proxies hold to every sentinel (R13), and the knock that makes a second witness (R15). Streams inform and deliver,
//! they decide nothing; nothing here touches SQL or the data directory.

mod args;
mod channel;
mod dialer;
mod greeting;
mod listener;
mod news;
mod peers;
mod probe;
mod reports;
mod serve;
mod services;
mod session;
mod streams;
mod talk;
#[cfg(test)]
mod tests;
mod tls;
mod trace;

pub use crate::wire::explain;
pub use args::{GrpcArgs, TlsArgs};
pub use channel::Channel;
pub use dialer::Dialer;
pub use listener::Listener;
pub use peers::{Peer, Peers};
pub use probe::{dial_check, knock};
pub use reports::{Reports, Urge};
pub use services::Services;
pub use streams::{FromSentinel, Streams};
pub use talk::{KeeperTalk, ProxyTalk, Talk};
