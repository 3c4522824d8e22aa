//! Sockets as the proxy wants them: a listening one that can be shut without giving its port away, and options of
//! connections.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream};

use crate::{cli::KeepaliveArgs, gate::door::Reach};

/// Clients that the kernel holds while the proxy is busy; it caps this by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The clients' port: bound from the start, so that a taken one is noticed, and listening when wanted.
#[derive(Debug)]
pub struct Entrance {
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Taken without listening: clients are refused.
    Bound(OwnedFd),
    Listening(TcpListener),
    /// Somebody else took it while it was shut.
    Lost,
}

impl Entrance {
    /// Takes the port without listening; 0 is any free one. An error is one line that names the flag.
    pub fn take(host: &str, port: u16) -> Result<Entrance, String> {
        let wanted = resolve(host, port)?;
        let taken = bound(wanted).and_then(|socket| Ok((address(&socket)?, socket)));
        let (address, socket) = taken.map_err(|error| refused(&error, wanted))?;
        Ok(Entrance { address, state: State::Bound(socket) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn reach(&self) -> Reach {
        if self.address.ip().is_loopback() { Reach::Loopback } else { Reach::Network }
    }

    /// Starts to listen. An error is one line that names the flag; it may be tried again.
    pub fn open(&mut self) -> Result<(), String> {
        let socket = match std::mem::replace(&mut self.state, State::Lost) {
            State::Bound(socket) => Ok(socket),
            State::Lost => bound(self.address),
            listening @ State::Listening(_) => {
                self.state = listening;
                return Ok(());
            }
        };
        let listening = socket.and_then(|socket| {
            listen(&socket, BACKLOG)?;
            TcpListener::from_std(socket.into())
        });
        self.state = State::Listening(listening.map_err(|error| refused(&error, self.address))?);
        Ok(())
    }

    /// Stops listening and keeps the port.
    pub fn shut(&mut self) {
        if matches!(self.state, State::Listening(_)) {
            // Closed first: the port can't be bound twice while one socket listens.
            self.state = State::Lost;
            self.state = bound(self.address).map_or(State::Lost, State::Bound);
        }
    }

    pub fn listens(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// The next client; never returns while nothing listens.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        match &self.state {
            State::Listening(listener) => listener.accept().await.map(|(client, _)| client),
            _ => std::future::pending().await,
        }
    }
}

/// No delay of small packets, and keepalive always.
pub fn prepare(stream: &TcpStream, keepalive: KeepaliveArgs) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    if let Some(idle) = keepalive.idle() {
        sockopt::set_tcp_keepidle(stream, idle)?;
    }
    if let Some(interval) = keepalive.interval() {
        sockopt::set_tcp_keepintvl(stream, interval)?;
    }
    if let Some(count) = keepalive.count() {
        sockopt::set_tcp_keepcnt(stream, count)?;
    }
    Ok(())
}

fn bound(wanted: SocketAddr) -> io::Result<OwnedFd> {
    let family = if wanted.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &wanted)?;
    Ok(socket)
}

fn address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(getsockname(socket)?.try_into()?)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (host.trim_matches(['[', ']']), port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|error| format!("--listen-address {host} can't be resolved: {error}"))?.collect();
    // A name of several addresses: the one that clients find too, which is IPv4 more often than not.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("--listen-address {host} has no address"))
}

fn refused(error: &io::Error, wanted: SocketAddr) -> String {
    let port = wanted.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("--port {port}: {wanted} is in use by another process, choose another port")
        }
        io::ErrorKind::AddrNotAvailable => format!("--listen-address {}: this host has no such address", wanted.ip()),
        io::ErrorKind::PermissionDenied => format!("--port {port}: only root may listen on ports below 1024"),
        _ => format!("--port {port}: can't listen on {wanted}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_bad_address_are_named_with_their_flags() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Entrance::take("127.0.0.1", port).unwrap_err();
        assert!(error.starts_with(&format!("--port {port}: ")) && error.contains("in use"), "{error}");
        for bad in ["nowhere/", "203.0.113.77"] {
            let error = Entrance::take(bad, 0).unwrap_err();
            assert!(error.starts_with("--listen-address") && error.contains(bad), "{error}");
        }
    }

    #[tokio::test]
    async fn it_refuses_until_opened_and_again_when_shut_and_keeps_its_port() {
        let mut entrance = Entrance::take("127.0.0.1", 0).unwrap();
        let address = entrance.address();
        assert!(TcpStream::connect(address).await.is_err());
        for _ in 0..2 {
            entrance.open().unwrap();
            let client = TcpStream::connect(address).await.unwrap();
            entrance.accept().await.unwrap();
            drop(client);
            entrance.shut();
            assert!(!entrance.listens() && TcpStream::connect(address).await.is_err());
        }
    }
}
