//! Free TCP ports below the range that the kernel gives to clients (32768). Test processes that run at the same time
//! take blocks of their own, by a file lock that the kernel frees with the process.

use std::{
    fs::File,
    net::TcpListener,
    sync::{Mutex, OnceLock},
};

use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 12_000;
const BLOCK: u16 = 1000;
const BLOCKS: u16 = 20;

struct Ports {
    _lock: File,
    next: u16,
    end: u16,
}

/// A port that nothing listens on now and that no other test of this harness gets.
pub fn free_port() -> u16 {
    static PORTS: OnceLock<Mutex<Ports>> = OnceLock::new();
    let mut ports = PORTS.get_or_init(|| Mutex::new(take_block())).lock().unwrap_or_else(|e| e.into_inner());
    loop {
        assert!(ports.next < ports.end, "all {BLOCK} ports of this test process are used up");
        let port = ports.next;
        ports.next += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn take_block() -> Ports {
    let folder = std::env::temp_dir().join("stolon-e2e-ports");
    std::fs::create_dir_all(&folder).expect("folder for port locks");
    for block in 0..BLOCKS {
        let lock = File::create(folder.join(block.to_string())).expect("file for a port lock");
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let first = FIRST + block * BLOCK;
            return Ports { _lock: lock, next: first, end: first + BLOCK };
        }
    }
    panic!("no block of ports is free: {BLOCKS} test processes run");
}
