//! The interpreter of the scenario scripts: a small cluster of values in which people's words (`dies k1`) become events, and
//! what the pure cores answer becomes lines of text. It knows the cores' public faces only, and no process, socket or clock.

mod answers;
mod args;
mod events;
mod keeper_body;
mod proxy_post;
mod reports;
mod script;
mod store;
mod text;
#[path = "../../../sentinel/decide/tests/town.rs"]
pub mod town;
#[path = "../../../sentinel/decide/tests/voices.rs"]
mod voices;
mod world;

use std::time::Duration;

use stolon::model::{KeeperUid, ProxyUid};
// The sentinel's own tests and these scripts share one town, which finds these two below `crate`.
pub use stolon_sentinel::{decide, observe};

pub use script::{Script, Verdict};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn keeper(uid: &str) -> KeeperUid {
    KeeperUid::parse(uid).unwrap()
}

fn proxy(uid: &str) -> ProxyUid {
    ProxyUid::parse(uid).unwrap()
}
