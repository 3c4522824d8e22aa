//! Waiting until a cluster is whole, and arranging who leads where, so that each trial begins alike.

use rustix::process::Signal;
use stolon_tests::{eventually, proc, stage::Role};

use crate::hosts::{DATABASES, Hosts, WAIT};

/// Which leaders stand on the primary's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    pub sentinel: bool,
    pub etcd: bool,
}

impl Hosts<'_> {
    /// Waits until every part works: a primary serves, the proxy leads to it, all standbys have all of it, every sentinel
    /// stands for election, every member of etcd answers. Gives the primary's host and its epoch.
    pub async fn whole(&self, synchronous: bool) -> (usize, u64) {
        eventually("every member of etcd answers", WAIT, async || self.stage.etcd.whole().await).await;
        eventually("all sentinels stand for election", WAIT, async || {
            let keys = self.stage.keys().await?;
            let standing = keys.election.iter().filter(|uid| keys.sentinels.contains_key(*uid)).count();
            let exact = standing == DATABASES && keys.sentinels.len() == DATABASES;
            if exact { Ok(()) } else { Err(format!("{standing} of {}", keys.sentinels.len())) }
        })
        .await;
        let (primary, epoch) = self.primary().await;
        eventually("the proxy leads to a primary", WAIT, async || {
            match self.proxy().value("SELECT pg_is_in_recovery()").await?.as_str() {
                "f" => Ok(()),
                _ => Err("to a standby".to_owned()),
            }
        })
        .await;
        self.streaming(primary, synchronous).await;
        assert_eq!(self.primary().await, (primary, epoch), "the primary has changed while the cluster was waited for");
        (primary, epoch)
    }

    /// Waits until every standby has all that the primary has, and in synchronous mode one that commits wait for.
    async fn streaming(&self, primary: usize, synchronous: bool) {
        let sql = "SELECT count(*) FILTER (WHERE state = 'streaming' AND replay_lsn = pg_current_wal_lsn()), \
                   count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), \
                   string_agg(application_name || ' ' || state || ' ' || sync_state, ', ') FROM pg_stat_replication";
        eventually("all standbys have all of the primary's WAL", WAIT, async || {
            let rows = self.stage.server(primary).query(sql).await?;
            let row = rows.into_iter().next().ok_or("no row")?;
            let named = row[1].parse().unwrap_or(0);
            let whole = row[0].parse() == Ok(DATABASES - 1) && (named > 0) == synchronous;
            if whole { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }

    /// Puts the leaders of the sentinels and of etcd where a trial needs them; gives the primary as before.
    pub async fn arrange(&mut self, primary: usize, together: Together) {
        self.arrange_etcd(primary, together.etcd).await;
        for _ in 0..2 * DATABASES {
            let leader = eventually("a leading sentinel", WAIT, async || self.stage.leader().await).await;
            if (leader == primary) == together.sentinel {
                return;
            }
            // The oldest candidate leads: this one becomes the youngest.
            self.stage.restart(leader, Role::Sentinel);
            eventually("another sentinel leads", WAIT, async || match self.stage.leader().await? {
                same if same == leader => Err(format!("host {same}")),
                _ => Ok(()),
            })
            .await;
            self.all_stand().await;
        }
        panic!("the leading sentinel can't be brought to, or away from, the primary's host {primary}");
    }

    /// Asks a member of etcd to end, starts it again, and waits until it answers.
    pub async fn restart_etcd(&mut self, member: usize) {
        let pid = self.stage.pid(member, Role::Etcd).unwrap_or_else(|| panic!("no etcd on host {member}"));
        proc::signal(pid, Signal::TERM);
        eventually(&format!("the end of etcd on host {member}"), WAIT, async || match proc::alive(pid) {
            true => Err(format!("process {pid} runs")),
            false => Ok(()),
        })
        .await;
        self.stage.etcd.kill_member(member);
        self.stage.etcd.start_member(member);
        let answer = async || self.stage.etcd.client_of(member).await.map(drop);
        eventually(&format!("etcd answers on host {member}"), WAIT, answer).await;
    }

    async fn all_stand(&self) {
        eventually("all sentinels stand for election", WAIT, async || {
            let keys = self.stage.keys().await?;
            match (keys.election.len(), keys.sentinels.len()) {
                (DATABASES, DATABASES) => Ok(()),
                found => Err(format!("{found:?}")),
            }
        })
        .await;
    }

    async fn arrange_etcd(&self, primary: usize, there: bool) {
        let wanted = if there { primary } else { (primary + 1) % DATABASES };
        eventually("etcd's leader is where the trial needs it", WAIT, async || {
            let leader = self.stage.etcd.leader().await?;
            if (leader == primary) == there {
                return Ok(());
            }
            self.stage.etcd.hand_over(leader, wanted).await?;
            Err(format!("moved from host {leader} to host {wanted}"))
        })
        .await;
    }
}
