//! Free TCP ports on loopback, below the range that the kernel gives to clients (32768).

use std::net::TcpListener;

use anyhow::bail;

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Ports between the starting points of two processes of neighbouring ids.
const STEP: u32 = 30;

/// Hands out each port once.
pub struct Ports {
    next: u16,
    left: u16,
}

impl Ports {
    /// Starts somewhere that depends on the process id, so that two playgrounds rarely look at the same ports.
    pub fn new() -> Ports {
        let range = LAST - FIRST;
        let offset = std::process::id().wrapping_mul(STEP) % u32::from(range);
        Ports { next: FIRST + u16::try_from(offset).unwrap_or(0), left: range }
    }

    /// A port that nothing listens on now.
    pub fn free(&mut self) -> anyhow::Result<u16> {
        while self.left > 0 {
            let port = self.next;
            self.next = if port + 1 == LAST { FIRST } else { port + 1 };
            self.left -= 1;
            if is_free(port) {
                return Ok(port);
            }
        }
        bail!("no TCP port from {FIRST} to {LAST} is free on 127.0.0.1")
    }
}

pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_and_none_comes_twice() {
        let mut ports = Ports::new();
        let taken = TcpListener::bind(("127.0.0.1", ports.free().unwrap())).unwrap();
        let mut again = Ports::new();
        let (one, two) = (again.free().unwrap(), again.free().unwrap());
        let port = taken.local_addr().unwrap().port();
        assert!(one != two && one != port && two != port);
        assert!(!is_free(port));
    }
}
