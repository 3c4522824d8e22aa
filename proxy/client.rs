//! One client, from its arrival to its end: held until there is a route, connected to the primary, cut when that
//! primary's epoch ends.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    cli::KeepaliveArgs,
    copy::{self, End},
    gatehouse::{Gatehouse, Ticket},
    socket,
};

/// How long a new client is held while there is no way to a primary: a failover fits in many times, and a client's own
/// connect time-out is rarely shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between dials to a primary that refuses, such as one that restarts in place.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Serves one client to its end.
pub async fn serve(mut client: TcpStream, house: Gatehouse, keepalive: KeepaliveArgs) {
    let _ = socket::prepare(&client, keepalive);
    let Ok((mut server, ticket)) = timeout_at(Instant::now() + PATIENCE, reach(&house, keepalive)).await else {
        tracing::debug!("a client was sent away: no way to a primary within {PATIENCE:?}");
        return;
    };
    if copy::both_ways(&mut client, &mut server, ticket.pass()).await == End::Cut {
        // RST: what stands in the kernel's buffers goes nowhere, and the client notices at once.
        let _ = (server.set_zero_linger(), client.set_zero_linger());
    }
    drop((client, server));
    drop(ticket);
}

/// Dials the primary, whoever it is by then.
async fn reach(house: &Gatehouse, keepalive: KeepaliveArgs) -> (TcpStream, Ticket) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut ticket = house.admission().await;
        let Some(dialled) = dial(&ticket).await else { continue };
        match dialled {
            Ok(server) => {
                let _ = socket::prepare(&server, keepalive);
                if ticket.connected() {
                    return (server, ticket);
                }
                let _ = server.set_zero_linger();
                drop(server);
            }
            Err(error) => {
                tracing::debug!(to = ticket.pass().route.target(), %error, "the primary can't be reached");
                // Meanwhile its epoch may end; the next round then waits for the new route.
                let _ = tokio::time::timeout(pause, ticket.pass().revoked()).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
        drop(ticket);
    }
}

/// None when the epoch ended while dialling.
async fn dial(ticket: &Ticket) -> Option<io::Result<TcpStream>> {
    let pass = ticket.pass();
    tokio::select! {
        biased;
        () = pass.revoked() => None,
        dialled = TcpStream::connect((pass.route.address.as_str(), pass.route.port)) => Some(dialled),
    }
}
