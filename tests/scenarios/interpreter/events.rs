//! The commands of a script. Each is one thing that happens to somebody; what follows from it is the cores' business.

use stolon::{
    model::{
        Epoch, KeeperUid, SentinelUid,
        registration::DataDir,
        report::{PostgresState, ProbeResult},
    },
    store::Candidate,
};

use super::{
    args::{Command, Trouble, duration},
    decide::Wish,
    keeper, keeper_body, proxy, proxy_post, text,
    town::SYSTEM,
    world::{Life, World},
};

impl World {
    /// Runs one command.
    pub fn run(&mut self, command: &Command) -> Result<(), Trouble> {
        let done = self.time(command)?
            || self.fate(command)?
            || self.keeper_says(command)?
            || self.proxy_does(command)?
            || self.stored(command)?
            || self.closely(command)?;
        self.refresh();
        if done { Ok(()) } else { Err("there is no such command".to_owned()) }
    }

    /// Time and the sentinel.
    fn time(&mut self, command: &Command) -> Result<bool, Trouble> {
        match command.verb.as_str() {
            "pass" => self.pass(duration(command.name()?)?)?,
            "settle" => self.settle()?,
            "decide" => self.decide()?,
            "leader-dies" => self.leaderless = true,
            "leader-changes" => {
                self.leaderless = false;
                self.change_leader();
            }
            "sentinels" => {
                let (count, first) = (command.number(0)?, self.town.mirror.candidates[0].clone());
                let other = |n: usize| Candidate {
                    uid: SentinelUid::parse(format!("s{n}")).unwrap_or_else(|_| first.uid.clone()),
                    ..first.clone()
                };
                self.town.mirror.candidates = (1..=count).map(other).collect();
            }
            "wish" => self.town.wish = Some(Wish { to: command.names().first().map(|name| keeper(name)) }),
            "when" => {
                let last = self.town.last.revisit.map(|at| at.since(self.town.now).as_millis());
                self.say(
                    last.map_or("asks again when something happens".to_owned(), |ms| format!("asks again in {ms} ms")),
                );
            }
            "show" => self.show(command.name()?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn show(&mut self, what: &str) -> Result<(), Trouble> {
        let data = self.town.data().clone();
        match what {
            "cluster" => self.say(text::summary(&data)),
            "dbs" => data.dbs.iter().for_each(|(uid, db)| self.say(text::object(&data, uid, db))),
            "settings" => data.dbs.values().for_each(|db| self.say(text::settings(db))),
            "keepers" => {
                let list: Vec<String> = data.keepers.keys().map(ToString::to_string).collect();
                self.say(format!("keepers [{}]", list.join(" ")));
            }
            other => return Err(format!("{other:?} can't be shown")),
        }
        Ok(())
    }

    /// A new leader has seen nothing; those that live connect and say again what they said last.
    fn change_leader(&mut self) {
        let (now, known) = (self.town.now, std::mem::take(&mut self.town.seen));
        let lives = &self.lives;
        let seen = &mut self.town.seen;
        *seen = super::observe::Observations::leading(now);
        for (uid, peer) in known.keepers {
            if peer.connected && !lives.contains_key(uid.as_str()) {
                seen.keeper_connected(now, &uid);
                seen.keeper_report(now, &uid, peer.report.map(|(report, _)| report).unwrap_or_default());
            }
        }
        for (uid, peer) in known.proxies {
            if peer.connected && !lives.contains_key(uid.as_str()) {
                seen.proxy_connected(now, &uid);
                seen.proxy_report(now, &uid, peer.report.map(|(report, _)| report).unwrap_or_default());
            }
        }
    }

    /// Who comes, goes, and returns.
    fn fate(&mut self, command: &Command) -> Result<bool, Trouble> {
        let life = match command.verb.as_str() {
            "dies" => Some(Life::Dead),
            "crashes" => Some(Life::Crashed),
            "is-cut-off" => Some(Life::Cut),
            "falls-silent" => Some(Life::Silent),
            _ => None,
        };
        if let Some(life) = life {
            for name in command.names() {
                self.lives.insert(name.clone(), life);
                if matches!(life, Life::Dead | Life::Crashed) {
                    self.town.hang_up(name);
                }
            }
            return Ok(true);
        }
        match command.verb.as_str() {
            "registers" => command.names().iter().for_each(|name| self.town.register(name)),
            "expires" => {
                let name = command.name()?;
                match self.town.mirror.keepers.contains_key(&keeper(name)) {
                    true => self.town.expire(name),
                    false => self.town.expire_proxy(name),
                }
            }
            "returns" => self.come_back(command.name()?)?,
            "recovers" => {
                self.held.remove(command.name()?);
            }
            "sees" => {
                let result = match command.nth(2)? {
                    "answers" => Some(ProbeResult::Answered),
                    "refused" => Some(ProbeResult::Refused),
                    "timed-out" => Some(ProbeResult::TimedOut),
                    "nothing" => None,
                    other => return Err(format!("{other:?} is nothing that an observer finds")),
                };
                self.sights.insert((command.nth(0)?.to_owned(), command.nth(1)?.to_owned()), result);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The keeper's process is started again, with its data; PostgreSQL does not run.
    fn come_back(&mut self, name: &str) -> Result<(), Trouble> {
        self.lives.remove(name);
        let uid = keeper(name);
        if self.town.mirror.keepers.contains_key(&uid) {
            self.town.seen.keeper_connected(self.town.now, &uid);
        } else {
            let former = self.town.seen.keepers.get(&uid).and_then(|peer| peer.report.clone());
            self.town.register(name);
            let (cluster, db) =
                (self.town.data().cluster.uid.clone(), self.town.data().db_of(&uid).map(|(db, _)| db.clone()));
            let promised = former.as_ref().map_or(Epoch::NONE, |(report, _)| report.promised);
            self.town.info(name, |info| {
                info.cluster_uid = Some(cluster);
                info.data = Some(DataDir { system_id: SYSTEM, db });
                info.promised = promised;
            });
            self.town.report(name, |report| report.promised = promised);
        }
        self.town.report(name, |report| {
            report.authority = None;
            report.postgres.state = PostgresState::Stopped;
            report.postgres.wal_streaming = false;
        });
        Ok(())
    }

    /// A keeper or a proxy that is looked at closely.
    fn closely(&mut self, command: &Command) -> Result<bool, Trouble> {
        if !command.names().first().is_some_and(|name| self.bodies.contains_key(name) || self.posts.contains_key(name))
        {
            return self.look(command);
        }
        let (name, now) = (command.name()?.to_owned(), self.town.now);
        let flags = match command.verb.as_str() {
            "watch-lags" => Some((Some(true), None)),
            "watch-goes-on" => Some((Some(false), None)),
            "etcd-is-lost" => Some((Some(true), Some(true))),
            "etcd-is-back" => Some((Some(false), Some(false))),
            "keepalives-unanswered" => Some((None, Some(true))),
            _ => None,
        };
        if let Some(post) = self.posts.get_mut(&name) {
            if let Some((lags, unanswered)) = flags {
                post.lags = lags.unwrap_or(post.lags);
                post.unanswered = unanswered.unwrap_or(post.unanswered);
            } else if let Some(line) = post.run(command, now, &self.town.mirror)? {
                self.say(format!("{name}: {line}"));
            }
        } else if let Some(body) = self.bodies.get_mut(&name) {
            match (command.verb.as_str(), flags) {
                (_, Some((lags, unanswered))) => {
                    body.lags = lags.unwrap_or(body.lags);
                    body.unanswered = unanswered.unwrap_or(body.unanswered);
                }
                ("reads", _) => body.reads(&self.town.mirror),
                ("begins", _) => body.begin(now)?,
                ("registers-anew", _) => body.registers_anew(&self.town.mirror, now)?,
                ("has", _) => {
                    for (key, value) in command.pairs() {
                        body.set(key, value, now)?;
                    }
                }
                (other, _) => return Err(format!("{other} is nothing that a keeper does")),
            }
        }
        self.refresh();
        Ok(true)
    }

    fn look(&mut self, command: &Command) -> Result<bool, Trouble> {
        if command.verb != "look-at" {
            return Ok(false);
        }
        let name = command.name()?.to_owned();
        if KeeperUid::parse(name.as_str()).is_ok_and(|uid| self.town.mirror.keepers.contains_key(&uid)) {
            let body = keeper_body::Body::converged(keeper(&name), &self.town.mirror, self.town.now)?;
            self.bodies.insert(name, body);
        } else if self.town.mirror.proxies.contains_key(&proxy(&name)) {
            self.posts.insert(name, proxy_post::Post::default());
        } else {
            return Err(format!("{name} is not registered"));
        }
        self.refresh();
        Ok(true)
    }
}
