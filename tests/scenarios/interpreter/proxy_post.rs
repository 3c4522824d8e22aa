//! One proxy that a script looks at closely: its gate, its registration, and the clients that it lets in.

use std::collections::BTreeMap;

use stolon::{
    model::{Epoch, Moment, ProxyUid, Revision, view::ProxyView},
    store::Mirror,
};
use stolon_proxy::gate::{Facts, Gate, Heard, Lease, Leased};

use super::{
    args::{Command, Trouble, number},
    secs,
};

/// Of a lease of 5 s: the proxy's own deadline comes a margin before etcd's.
const LIFE: u64 = 4;

#[derive(Default)]
pub struct Post {
    gate: Gate,
    lease: Option<Lease>,
    clients: BTreeMap<String, Leased>,
    /// Its watch shows nothing new.
    pub lags: bool,
    /// Its keepalives are not answered.
    pub unanswered: bool,
    told: Option<Moment>,
}

impl Post {
    /// A heartbeat: keepalive answered, watch read.
    pub fn refresh(&mut self, now: Moment, mirror: &Mirror, me: &ProxyUid) {
        self.told = Some(now);
        if !self.unanswered {
            let own = mirror.proxies.get(me).filter(|_| !self.lags);
            let id =
                own.map(|own| (own.lease, own.created)).or(self.lease.map(|lease| (lease.id, lease.registered_at)));
            self.lease = id.map(|(id, registered_at)| Lease { id, deadline: now + secs(LIFE), registered_at });
            self.gate.registered(self.lease, now);
        }
        if !self.lags {
            self.gate.read(Facts::of(mirror, me), now);
        }
        self.gate.tick(now);
    }

    pub fn run(&mut self, command: &Command, now: Moment, mirror: &Mirror) -> Result<Option<String>, Trouble> {
        match command.verb.as_str() {
            "dials" => {
                let client = command.nth(1)?;
                let Some(leased) = self.gate.enter(now) else {
                    let why = self.gate.closed().map_or("the gate is shut".to_owned(), ToString::to_string);
                    return Ok(Some(format!("{client} is refused: {why}")));
                };
                let line = format!("{client} dials the primary of epoch {}", leased.epoch());
                self.clients.insert(client.to_owned(), leased);
                Ok(Some(line))
            }
            "connects" => {
                let client = command.nth(1)?;
                let leased = self.clients.get_mut(client).ok_or_else(|| format!("{client} does not dial"))?;
                let let_in = self.gate.connected(leased, now);
                let line = if let_in { "is connected" } else { "comes too late: its connection is closed at once" };
                Ok(Some(format!("{client} {line}")))
            }
            "goes" => {
                let client = command.nth(1)?;
                let leased = self.clients.remove(client).ok_or_else(|| format!("{client} is not inside"))?;
                self.gate.leave(leased, now);
                Ok(None)
            }
            "hears" => {
                let (data, revision) = mirror.data().ok_or("there are no cluster data")?;
                let revision = command.get("revision").map_or(Ok(revision.0), number)?;
                let view = ProxyView::derive(data, Revision(revision)).map_err(|bad| bad.to_string())?;
                self.gate.heard(Heard::from(&view), now);
                Ok(None)
            }
            "loses-registration" => {
                self.lease = None;
                self.unanswered = true;
                self.gate.registered(None, now);
                Ok(None)
            }
            "registers-anew" => {
                let me = ProxyUid::parse(command.name()?).map_err(|bad| bad.to_string())?;
                let own = mirror.proxies.get(&me).ok_or("it is not registered")?;
                self.unanswered = false;
                self.lease = Some(Lease { id: own.lease, deadline: now + secs(LIFE), registered_at: own.created });
                self.gate.registered(self.lease, now);
                Ok(None)
            }
            other => Err(format!("{other} is nothing that a proxy does")),
        }
    }

    /// Highest epoch that it has acknowledged.
    pub fn acknowledged(&self) -> Epoch {
        self.gate.acknowledged()
    }

    /// One line: route, connections, acknowledgement.
    pub fn tell(&self) -> String {
        let route = match (self.gate.closed(), self.gate.grant()) {
            (None, Some(grant)) => {
                format!("routes to {} of epoch {}", grant.route.keeper, grant.route.epoch)
            }
            (Some(why), Some(_)) => format!("lets nobody new in, cuts nobody: {why}"),
            (why, _) => format!("closed: {}", why.map_or(String::new(), ToString::to_string)),
        };
        let inside = match (self.clients.len(), self.gate.connections()) {
            (0, _) => String::new(),
            (all, connected) if all as u64 == connected => format!("; {connected} connected"),
            (all, connected) => format!("; {connected} connected, {} dialling", all as u64 - connected),
        };
        format!("{route}{inside}; acknowledged epoch {}", self.acknowledged())
    }
}
