//! The world of one script: the town with its sentinel, who lives in it, and the keepers and proxies that are looked at
//! closely. Lets time pass, lets the sentinel decide to the end, answers its questions, and notes what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stolon::{
    model::{Moment, registration::PrimaryKey, report::ProbeResult},
    store::Held,
};

use super::{
    args::{Command, Trouble, number},
    decide::{Commit, Decision, check},
    keeper_body::Body,
    ms, proxy,
    proxy_post::Post,
    secs, text,
    town::{Town, refused},
};

/// More decisions at one moment than any situation needs.
const MANY: usize = 32;

/// How a keeper, with its PostgreSQL, is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Keeper and server are gone; their host refuses connections.
    Dead,
    /// The keeper is gone, its server runs.
    Crashed,
    /// Nothing gets through to either.
    Cut,
    /// The keeper says nothing, its server answers.
    Silent,
}

pub struct World {
    pub town: Town,
    /// Those that are not simply alive: keepers and proxies.
    pub lives: BTreeMap<String, Life>,
    /// Keepers that go on saying what a script made them say, though they are asked for something else.
    pub held: BTreeSet<String>,
    /// (observer, keeper): what differs from what everybody else would find; none: no answer comes.
    pub sights: BTreeMap<(String, String), Option<ProbeResult>>,
    pub bodies: BTreeMap<String, Body>,
    pub posts: BTreeMap<String, Post>,
    /// The key `primary`, taken away for a while.
    pub lost: Option<Held<PrimaryKey>>,
    /// The store, as it was once.
    pub snapshot: Option<stolon::store::Mirror>,
    /// No sentinel leads.
    pub leaderless: bool,
    /// The sentinel works, and nobody asks what it does.
    pub quiet: bool,
    lines: Vec<String>,
    /// Questions and reasons that this block has shown already.
    pub acted: BTreeSet<String>,
    shown: BTreeMap<String, String>,
    passing: Option<Moment>,
}

impl World {
    /// The world that a first command begins; none when it is another command.
    pub fn begin(command: &Command) -> Result<Option<World>, Trouble> {
        let town = match command.verb.as_str() {
            "empty" => Town::empty(),
            "running" => {
                let count = |key: &str, default: u32| command.get(key).map_or(Ok(default), number);
                Town::running(count("keepers", 2)?, count("proxies", 0)?)
            }
            _ => return Ok(None),
        };
        let mut world = World {
            town,
            lives: BTreeMap::new(),
            held: BTreeSet::new(),
            sights: BTreeMap::new(),
            bodies: BTreeMap::new(),
            posts: BTreeMap::new(),
            lost: None,
            snapshot: None,
            leaderless: false,
            quiet: true,
            lines: Vec::new(),
            acted: BTreeSet::new(),
            shown: BTreeMap::new(),
            passing: None,
        };
        if let Some(bounds) = command.get("sync") {
            let (min, max) = bounds.split_once("..").ok_or("sync=MIN..MAX")?;
            world.synchronous(number(min)?, number(max)?);
            world.settle()?;
        }
        if world.town.mirror.data().is_some() {
            // The leader is no longer new.
            world.pass(secs(5))?;
        }
        world.quiet = command.get("sentinel") == Some("quiet");
        if !world.quiet && world.town.mirror.data().is_some() {
            world.say(text::summary(world.town.data()));
        }
        Ok(Some(world))
    }

    pub fn synchronous(&mut self, min: u16, max: u16) {
        self.town.edit(|data| {
            let spec = &mut data.cluster.spec;
            spec.synchronous_replication = Some(true);
            (spec.min_synchronous_standbys, spec.max_synchronous_standbys) = (Some(min), Some(max));
        });
    }

    pub fn alive(&self, name: &str) -> bool {
        !self.lives.contains_key(name)
    }

    /// A line of output, with the time when time passes.
    pub fn say(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        match self.passing {
            Some(begin) => {
                let time = self.town.now.since(begin).as_secs_f64();
                self.lines.push(format!("after {time:.1} s: {line}"));
            }
            None => self.lines.push(line.to_owned()),
        }
    }

    /// Says it of the sentinel, unless nobody asks.
    pub fn note(&mut self, line: impl AsRef<str>) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// The end of a block: what follows from its commands, and what the sentinel has to say at the end.
    pub fn finish(&mut self) -> Result<Vec<String>, Trouble> {
        self.decide()?;
        if !self.quiet && !self.leaderless {
            for reason in self.town.last.reasons.clone() {
                self.say(format!("because: {reason}"));
            }
        }
        self.acted.clear();
        Ok(std::mem::take(&mut self.lines))
    }

    /// Heartbeats for so long; everybody who lives repeats what was said last, and the sentinel decides at each.
    pub fn pass(&mut self, time: Duration) -> Result<(), Trouble> {
        let (begin, end) = (self.town.now, self.town.now + time);
        self.passing = Some(begin);
        while self.town.now < end {
            // Fine at first, then as coarse as silence allows; over hours, a look per minute.
            let step = match self.town.now.since(begin) {
                _ if time > secs(3600) => secs(60),
                passed if passed < secs(3) => ms(100),
                _ => ms(500),
            };
            self.town.pass(step.min(end.since(self.town.now)));
            self.beat();
            self.decide()?;
        }
        self.passing = None;
        Ok(())
    }

    fn beat(&mut self) {
        let lives = self.lives.clone();
        self.town.beat(&lives.keys().map(String::as_str).collect::<Vec<_>>());
    }

    /// Everybody who lives does all that the cluster data ask, until there is nothing left to do.
    pub fn settle(&mut self) -> Result<(), Trouble> {
        for _ in 0..MANY {
            let before = self.town.mirror.data().map(|(data, _)| data.clone());
            self.town.pass(ms(100));
            self.beat();
            self.follow();
            self.decide()?;
            if before == self.town.mirror.data().map(|(data, _)| data.clone()) {
                return Ok(());
            }
        }
        Err("the cluster never comes to rest".to_owned())
    }

    fn follow(&mut self) {
        let data = self.town.data().clone();
        if data.fencing().is_some() {
            return;
        }
        let connected = |uid| self.town.seen.keepers.get(uid).is_some_and(|peer| peer.connected);
        let all: Vec<_> = self.town.mirror.keepers.keys().filter(|uid| connected(*uid)).cloned().collect();
        let willing = |uid: &stolon::model::KeeperUid| self.alive(uid.as_str()) && !self.held.contains(uid.as_str());
        for uid in all.into_iter().filter(willing).collect::<Vec<_>>() {
            let lease = self.town.mirror.keepers[&uid].lease;
            let holds = self.town.mirror.primary.as_ref().is_some_and(|held| held.lease == lease);
            let ready = self.town.mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == data.epoch());
            if holds && !ready {
                self.serve();
            } else if holds || data.primary().is_none_or(|(_, db)| db.spec.keeper_uid != uid) {
                self.town.speak(uid.as_str());
            }
        }
    }

    /// The primary comes up and says so, for good (`served`).
    pub fn serve(&mut self) {
        self.town.serve();
        self.town.mirror.served = self.town.mirror.ready.as_ref().map(|ready| ready.value.clone());
    }

    /// Decides until nothing is left to commit or to ask. Deciding again must change nothing.
    pub fn decide(&mut self) -> Result<(), Trouble> {
        for _ in 0..MANY {
            if self.leaderless {
                break;
            }
            let decision = self.town.decide();
            if refused(&decision) {
                return Err(format!("the core's own check refuses what it decided: {:?}", decision.reasons));
            }
            self.wish(&decision);
            if let Some(commit) = decision.committed() {
                self.commit(commit, &decision.reasons)?;
            } else if !self.answer(&decision) {
                let again = self.town.decide();
                if (&again.actions, &again.reasons) != (&decision.actions, &decision.reasons) {
                    return Err(format!("deciding again gives something else: {again:?} after {decision:?}"));
                }
                self.refresh();
                return Ok(());
            }
            self.refresh();
        }
        self.refresh();
        if self.leaderless { Ok(()) } else { Err("the sentinel never comes to rest".to_owned()) }
    }

    fn wish(&mut self, decision: &Decision) {
        match &decision.wish {
            Some(Ok(())) => self.note("wish granted"),
            Some(Err(refusal)) => self.note(format!("wish refused: {refusal}")),
            None => return,
        }
        self.town.wish = None;
    }

    /// Checked once more, then written.
    fn commit(&mut self, commit: &Commit, reasons: &[String]) -> Result<(), Trouble> {
        let before = self.town.mirror.data().map(|(data, _)| data.clone());
        let verdict = match &before {
            Some(before) => check::allowed(commit, before, &self.town.mirror, &self.town.seen),
            None => check::first(commit, &self.town.mirror),
        };
        verdict.map_err(|problem| format!("the checker refuses a commit: {problem}"))?;
        let changes = text::changes(before.as_deref(), &commit.next);
        let only = if changes.is_empty() { ": what is known of keepers and servers" } else { "" };
        self.note(format!("{}{only}", text::commit(commit)));
        for line in &changes {
            self.note(format!("  {line}"));
        }
        for reason in reasons {
            if self.acted.insert(reason.clone()) {
                self.note(format!("  because: {reason}"));
            }
        }
        self.town.apply(commit);
        Ok(())
    }

    /// Lets those that are looked at closely see what happened, and says what they make of it when that has changed.
    pub fn refresh(&mut self) {
        let now = self.town.now;
        let mut seen = Vec::new();
        for (name, body) in &mut self.bodies {
            body.refresh(now, &self.town.mirror);
            seen.push((name.clone(), body.tell(now)));
        }
        for (name, post) in &mut self.posts {
            post.refresh(now, &self.town.mirror, &proxy(name));
            seen.push((name.clone(), post.tell()));
        }
        for (name, line) in seen {
            // While time passes, a countdown is no news.
            let gist = |line: &str| line.split(", again in ").next().unwrap_or_default().to_owned();
            let known = self.shown.insert(name.clone(), line.clone());
            let passing = self.passing.is_some();
            let same = known.is_some_and(|known| known == line || passing && gist(&known) == gist(&line));
            if !same {
                self.say(format!("{name}: {line}"));
            }
        }
    }
}
