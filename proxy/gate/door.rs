//! Whether the proxy listens: not while it can't be of use (`--stop-listening`), and not beyond loopback where clients
//! need no password. Values only; what the answer means for a socket is the shell's business.

use std::{fmt, time::Duration};

use stolon::model::Moment;

/// What doesn't change while the proxy runs.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `--stop-listening`: refuse clients once the registration has been gone for the proxies' time-out.
    pub absent: WhenAbsent,
    pub reach: Reach,
}

/// What to do with clients while there is no valid registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAbsent {
    StopListening,
    Listen,
}

/// Who can reach the listening address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Loopback,
    Network,
}

/// What the cluster says about its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    #[default]
    Unknown,
    NeedPasswords,
    /// Whoever reaches the primary is let in.
    OpenToAll,
}

/// Why nothing listens, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    NotYetRegistered,
    Absent,
    ClientsUnknown,
    OpenToAll,
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shut::NotYetRegistered => "not listening: this proxy is not registered in etcd yet",
            Shut::Absent => {
                "not listening: this proxy's registration in etcd has been gone for longer than proxyTimeout"
            }
            Shut::ClientsUnknown => {
                "not listening yet: --listen-address is beyond loopback, and whether this cluster's clients need a \
                 password is not known"
            }
            Shut::OpenToAll => {
                "not listening: --listen-address is beyond loopback, but clients of this cluster need no password; set \
                 --pg-su-password or --pg-su-passwordfile on the keepers, or listen on 127.0.0.1"
            }
        })
    }
}

/// The door's memory: until when the proxy has been of use.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    policy: Policy,
    clients: Clients,
    proxy_timeout: Duration,
    valid_until: Option<Moment>,
}

impl Door {
    pub fn new(policy: Policy, proxy_timeout: Duration) -> Door {
        Door { policy, clients: Clients::Unknown, proxy_timeout, valid_until: None }
    }

    /// The registration's deadline; none while there is none.
    pub fn registered(&mut self, deadline: Option<Moment>, now: Moment) {
        self.valid_until = match (deadline, self.valid_until) {
            (Some(deadline), _) => Some(deadline),
            (None, Some(until)) => Some(until.min(now)),
            (None, None) => None,
        };
    }

    /// What the newest readable cluster data say.
    pub fn cluster(&mut self, clients: Clients, proxy_timeout: Duration) {
        (self.clients, self.proxy_timeout) = (clients, proxy_timeout);
    }

    /// Listen, or why not.
    pub fn verdict(&self, now: Moment) -> Result<(), Shut> {
        if self.policy.reach == Reach::Network {
            match self.clients {
                Clients::OpenToAll => return Err(Shut::OpenToAll),
                Clients::Unknown => return Err(Shut::ClientsUnknown),
                Clients::NeedPasswords => {}
            }
        }
        match (self.policy.absent, self.valid_until) {
            (WhenAbsent::Listen, _) => Ok(()),
            (WhenAbsent::StopListening, None) => Err(Shut::NotYetRegistered),
            (WhenAbsent::StopListening, Some(until)) if now >= until + self.proxy_timeout => Err(Shut::Absent),
            (WhenAbsent::StopListening, Some(_)) => Ok(()),
        }
    }

    /// When the verdict may change by time alone.
    pub fn revisit(&self, now: Moment) -> Option<Moment> {
        let closes = self.valid_until? + self.proxy_timeout;
        (self.policy.absent == WhenAbsent::StopListening && now < closes).then_some(closes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    fn door(absent: WhenAbsent, reach: Reach) -> Door {
        Door::new(Policy { absent, reach }, TIMEOUT)
    }

    #[test]
    fn it_opens_with_the_first_registration_and_shuts_proxy_timeout_after_its_end() {
        let mut door = door(WhenAbsent::StopListening, Reach::Loopback);
        assert_eq!(door.verdict(at(1)), Err(Shut::NotYetRegistered));
        door.registered(Some(at(10)), at(5));
        assert_eq!((door.verdict(at(5)), door.revisit(at(5))), (Ok(()), Some(at(25))));
        assert_eq!(door.verdict(at(24)), Ok(()), "past the deadline, within the time-out");
        assert_eq!(door.verdict(at(25)), Err(Shut::Absent));
        door.registered(Some(at(31)), at(26));
        assert_eq!(door.verdict(at(26)), Ok(()), "back with the registration");
        door.registered(None, at(28));
        assert_eq!(door.verdict(at(42)), Ok(()), "a third of the time-out is not enough");
        assert_eq!((door.verdict(at(43)), door.revisit(at(43))), (Err(Shut::Absent), None));
    }

    #[test]
    fn without_stop_listening_it_never_shuts() {
        let mut door = door(WhenAbsent::Listen, Reach::Loopback);
        assert_eq!((door.verdict(at(1)), door.revisit(at(1))), (Ok(()), None));
        door.registered(Some(at(2)), at(1));
        assert_eq!((door.verdict(at(99)), door.revisit(at(1))), (Ok(()), None));
    }

    #[test]
    fn beyond_loopback_it_stays_shut_until_clients_are_known_to_need_passwords() {
        for absent in [WhenAbsent::Listen, WhenAbsent::StopListening] {
            let mut door = door(absent, Reach::Network);
            door.registered(Some(at(10)), at(1));
            assert_eq!(door.verdict(at(1)), Err(Shut::ClientsUnknown));
            door.cluster(Clients::NeedPasswords, TIMEOUT);
            assert_eq!(door.verdict(at(1)), Ok(()));
            door.cluster(Clients::OpenToAll, TIMEOUT);
            assert_eq!(door.verdict(at(1)), Err(Shut::OpenToAll));
        }
    }

    #[test]
    fn on_loopback_a_cluster_without_passwords_is_served() {
        let mut door = door(WhenAbsent::StopListening, Reach::Loopback);
        door.registered(Some(at(10)), at(1));
        door.cluster(Clients::OpenToAll, TIMEOUT);
        assert_eq!(door.verdict(at(1)), Ok(()));
    }
}
