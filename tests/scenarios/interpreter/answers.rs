//! What the sentinel asks for beside commits, and what comes of it: knocks, dials, leases.

use stolon::model::report::ProbeResult;

use super::{
    decide::{Action, Decision},
    keeper, ms,
    observe::Round,
    secs, text,
    world::{Life, World},
};

impl World {
    /// Does what the sentinel asks for beside commits; true when something new came of it.
    pub fn answer(&mut self, decision: &Decision) -> bool {
        let mut news = false;
        for action in &decision.actions {
            if let Some(line) = text::action(action)
                && self.acted.insert(line.clone())
            {
                self.note(line);
            }
            news |= self.carry_out(action);
        }
        news
    }

    fn carry_out(&mut self, action: &Action) -> bool {
        match action {
            Action::Commit(_) | Action::Resign => return false,
            Action::Redial { keeper, .. } => {
                let result = match self.lives.get(keeper.as_str()) {
                    Some(Life::Dead | Life::Crashed) => ProbeResult::Refused,
                    _ => ProbeResult::TimedOut,
                };
                self.town.redialled(keeper.as_str(), result);
            }
            Action::KnockPostgres { keeper, .. } => {
                let result = self.sight("s1", keeper.as_str()).unwrap_or(ProbeResult::TimedOut);
                self.town.knocked(keeper.as_str(), result);
            }
            Action::AskWitnesses { target, .. } => self.witness(target.as_str()),
            Action::MeasureLease { lease, .. } => {
                self.town.seen.ttls.insert(*lease, secs(5));
            }
            Action::RevokeLease { proxy, .. } => self.town.expire_proxy(proxy.as_str()),
        }
        true
    }

    fn witness(&mut self, target: &str) {
        let keepers = self.town.mirror.keepers.keys().map(ToString::to_string);
        let all = keepers.chain(self.town.mirror.proxies.keys().map(ToString::to_string));
        let others: Vec<String> = all.filter(|name| name != target && self.alive(name)).collect();
        let others = others.into_iter().map(|name| (name.clone(), self.sight(&name, target))).collect();
        let (asked, own) = (self.town.now, self.sight("s1", target));
        self.town.seen.round = Some(Round { target: keeper(target), asked, deadline: asked + ms(500), own, others });
    }

    /// What an observer finds that knocks at a keeper's PostgreSQL.
    fn sight(&self, observer: &str, target: &str) -> Option<ProbeResult> {
        if let Some(result) = self.sights.get(&(observer.to_owned(), target.to_owned())) {
            return *result;
        }
        Some(match self.lives.get(target) {
            Some(Life::Dead) => ProbeResult::Refused,
            Some(Life::Cut) => ProbeResult::TimedOut,
            Some(Life::Crashed | Life::Silent) | None => ProbeResult::Answered,
        })
    }
}
