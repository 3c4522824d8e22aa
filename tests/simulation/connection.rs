//! What a client's connection through a proxy stands on: a pass that may end at any moment, and a ticket that is handed back
//! to the gate when the connection is closed, whoever closes it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use stolon::model::Moment;
use stolon_proxy::gate::{Leased, Route, Serial};

use crate::{proxy::Proxy, runtime::Signal, world::HostId};

/// One grant of the gate, shared by all connections that live on it.
pub struct Pass {
    pub serial: Serial,
    pub route: Route,
    pub until: Cell<Option<Moment>>,
    pub revoked: Signal,
}

/// A dial under way, or what a connection stands on; handed back to the gate when it is dropped.
pub struct Ticket {
    pub proxy: Rc<Proxy>,
    pub leased: Option<Leased>,
}

impl Ticket {
    pub fn connected(&mut self) -> bool {
        let Some(leased) = &mut self.leased else { return false };
        self.proxy.tell(|gate, now| gate.connected(leased, now))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(leased) = self.leased.take() {
            self.proxy.tell(|gate, now| gate.leave(leased, now));
        }
    }
}

/// A connection of a client to a server.
pub struct Connection {
    pub proxy: Rc<Proxy>,
    pub ticket: RefCell<Option<Ticket>>,
    pub pass: Rc<Pass>,
    /// Host and number of the server at the other end.
    pub server: (HostId, u64),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connection {
    pub fn proxy(&self) -> Rc<Proxy> {
        self.proxy.clone()
    }

    pub fn close(&self) {
        if let Some(ticket) = self.ticket.take() {
            let mut open = self.proxy.open.borrow_mut();
            if let Some(at) = open.iter().position(|pass| Rc::ptr_eq(pass, &self.pass)) {
                open.swap_remove(at);
            }
            drop(open);
            drop(ticket);
        }
    }
}

impl Pass {
    pub fn holds(&self, now: Moment) -> bool {
        self.until.get().is_some_and(|until| now < until)
    }
}
