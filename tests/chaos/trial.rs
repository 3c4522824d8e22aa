//! One fault, from a calm cluster to a calm cluster: strikes under the eyes of the auditing client, compares what comes of it
//! with what is expected, undoes it, and looks at every acknowledged row.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use stolon_tests::{
    audit::{Account, Auditor},
    series::{ROWS, TABLE},
    stage::{Plan, Role, Stage},
    wait::pause_until,
    within,
};

use crate::{
    fault::{Expect, Fault, Mode},
    strike::{Scene, spared, strike_all},
};

/// Until all is as before: three copies of the data, all of etcd, both proxies. A base backup may be among it.
const CALM: Duration = Duration::from_secs(120);
/// Until clients are served again when a fault is over.
const SERVED: Duration = Duration::from_secs(60);
/// Before the first strike, and after the last word: the least that makes a series.
const ROWS_BEFORE: usize = 10;
const ROWS_AFTER: usize = 20;
/// The longest that an old primary may go on by itself: its lease (5 s) counts from the sending of its last answered
/// keepalive, and etcd may end it up to a second late. Direct clients may meet it (R12), proxies' never.
const DEADLINE: Duration = Duration::from_secs(6);

/// And when it wakes up from being frozen, or its cable is back, until it is told or finds out.
const AWAKE: Duration = Duration::from_secs(3);
/// Watched beyond the deadline.
const MORE: Duration = Duration::from_secs(2);

/// What a trial comes to.
#[derive(Debug)]
pub struct Outcome {
    /// Empty when all is as it should be.
    pub problems: Vec<String>,
    /// From the first strike to the first row of a new primary through the slowest proxy, or the longest pause.
    pub gap: Option<Duration>,
    /// Changes of the primary.
    pub epochs: u64,
    pub account: Option<Account>,
    pub scene: Option<Scene>,
}

/// Three hosts with etcd, keeper and sentinel, two with a proxy, and one for clients.
pub fn plan(mode: Mode) -> Plan {
    let database = || vec![Role::Etcd, Role::Keeper, Role::Sentinel];
    let hosts = vec![database(), database(), database(), vec![Role::Proxy], vec![Role::Proxy], vec![]];
    Plan { hosts, spec: Some(mode.spec()), disk: Some(512), ..Plan::default() }
}

pub const HOSTS: usize = 6;
const CLIENT: usize = 5;

/// Waits until everything is there and agrees.
pub async fn calm(stage: &Stage<'_>, mode: Mode) -> Result<(), String> {
    within("a calm cluster", CALM, async || {
        let (primary, _) = stage.primary().await?;
        stage.leader().await?;
        stage.etcd.whole().await?;
        for proxy in stage.hosts_of(Role::Proxy) {
            let server = stage.proxy(proxy).value("SELECT host(inet_server_addr())").await?;
            if server != stage.address(primary) {
                return Err(format!("proxy {proxy} leads to {server}, not to host {primary}"));
            }
        }
        let sql = "SELECT count(*) FILTER (WHERE state = 'streaming' AND replay_lsn = pg_current_wal_lsn()), \
                   count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), \
                   string_agg(concat_ws(' ', application_name, state, sync_state), ', ') FROM pg_stat_replication";
        let rows = stage.server(primary).query(sql).await?;
        let wanted = stage.hosts_of(Role::Keeper).len() - 1;
        let counts: Vec<usize> = rows[0][..2].iter().map(|count| count.parse().unwrap_or_default()).collect();
        let synced = mode == Mode::Asynchronous || counts[1] > 0;
        if counts[0] == wanted && synced { Ok(()) } else { Err(format!("{:?} at host {primary}", rows[0])) }
    })
    .await
}

/// Runs one trial. An error means that the stage can't be used any more.
pub async fn run(stage: &mut Stage<'_>, fault: &Fault, mode: Mode) -> Outcome {
    let mut outcome = Outcome { problems: vec![], gap: None, epochs: 0, account: None, scene: None };
    if let Err(problem) = through(stage, fault, mode, &mut outcome).await {
        outcome.problems.push(problem);
    }
    outcome
}

async fn through(stage: &mut Stage<'_>, fault: &Fault, mode: Mode, outcome: &mut Outcome) -> Result<(), String> {
    calm(stage, mode).await?;
    let scene = Scene::look(stage).await?;
    outcome.scene = Some(scene.clone());
    let (servers, proxies) = (stage.hosts_of(Role::Keeper), stage.hosts_of(Role::Proxy));
    let door = stage.proxy(proxies[0]);
    within("the table", SERVED, async || door.query(&format!("{TABLE}; TRUNCATE e2e")).await).await?;
    let mut auditor = Auditor::start(
        &stage.network.hosts[CLIENT].namespace.name,
        proxies.iter().map(|host| stage.proxy(*host)).collect(),
        servers.iter().map(|host| stage.server(*host)).collect(),
    );
    let everyone: Vec<usize> = (0..proxies.len()).collect();
    let began = Instant::now();
    within("rows through each proxy", SERVED, async || auditor.flows(&everyone, ROWS_BEFORE, "", began)).await?;

    let mut struck = Instant::now();
    match strike_all(stage, &scene, fault.strikes).await {
        Ok(times) => {
            struck = times.1;
            let seen = expect(stage, fault, mode, &scene, &auditor, times).await;
            outcome.gap = seen.map_err(|problem| outcome.problems.push(problem)).ok();
        }
        Err(problem) => outcome.problems.push(problem),
    }

    stage.mend_all();
    let mended = Instant::now();
    let served = within("rows through each proxy after the fault", SERVED, async || {
        auditor.flows(&everyone, ROWS_AFTER, "", mended)
    });
    let served = served.await;
    // The old primary comes back under the eyes of the direct clients.
    let settled = calm_enough(stage).await;
    auditor.stop();
    served?;
    settled?;
    calm(stage, mode).await?;
    let (host, epoch) = stage.primary().await?;
    outcome.epochs = epoch.saturating_sub(scene.epoch);
    if matches!(fault.expected(mode), Expect::Stays { .. }) && (host, epoch) != (scene.primary, scene.epoch) {
        outcome.problems.push(format!("host {host} leads in epoch {epoch} afterwards, without need"));
    }
    let present = everywhere(stage, &servers).await?;
    let account = auditor.account(&present);
    judge(&account, fault, mode, (struck, mended), &mut outcome.problems);
    outcome.account = Some(account);
    Ok(())
}

/// What comes of it while it lasts; gives the gap.
async fn expect(
    stage: &Stage<'_>,
    fault: &Fault,
    mode: Mode,
    scene: &Scene,
    auditor: &Auditor,
    (first, last): (Instant, Instant),
) -> Result<Duration, String> {
    let spared = spared(fault.strikes, auditor.proxied.len());
    let old = format!("{}:5432", stage.address(scene.primary));
    match fault.expected(mode) {
        Expect::FailsOver { within: bound } => {
            let gap = within("rows by another primary", bound.saturating_sub(first.elapsed()), async || {
                auditor.flows(&spared, 1, &old, first)
            });
            let gap = gap.await?;
            // What lives on without authority has its time to be caught by direct clients.
            pause_until(first + DEADLINE + MORE).await;
            Ok(gap)
        }
        Expect::Recovers { within: bound } => {
            let after = last;
            within("rows again", bound, async || auditor.flows(&spared, ROWS_AFTER, "", after)).await?;
            Ok(auditor.gap(&spared, first))
        }
        Expect::AnyWay { watch } => {
            pause_until(last + watch).await;
            Ok(auditor.gap(&spared, first))
        }
        Expect::Stays { watch, gap } => {
            pause_until(first + watch).await;
            let seen = auditor.gap(&spared, first);
            if seen > gap { Err(format!("{seen:?} without a row, more than {gap:?}")) } else { Ok(seen) }
        }
        Expect::Blocks { after, watch } => {
            pause_until(first + after).await;
            let before = auditor.count();
            pause_until(first + after + watch).await;
            match auditor.count() - before {
                0 => Ok(auditor.gap(&spared, first)),
                rows => Err(format!("{rows} rows were acknowledged from {after:?} on")),
            }
        }
    }
}

/// All copies stream again, rows or no rows.
async fn calm_enough(stage: &Stage<'_>) -> Result<(), String> {
    within("all standbys stream", CALM, async || {
        let (primary, _) = stage.primary().await?;
        let sql =
            "SELECT count(*) FILTER (WHERE state = 'streaming' AND replay_lsn IS NOT NULL) FROM pg_stat_replication";
        let count = stage.server(primary).value(sql).await?;
        let wanted = stage.hosts_of(Role::Keeper).len() - 1;
        if count.parse() == Ok(wanted) { Ok(()) } else { Err(format!("{count} of {wanted}")) }
    })
    .await
}

/// The rows, which must be the same on every server.
async fn everywhere(stage: &Stage<'_>, servers: &[usize]) -> Result<BTreeSet<u64>, String> {
    within("the same rows on every server", SERVED, async || {
        let mut found: Option<BTreeSet<u64>> = None;
        for host in servers {
            let rows = stage.server(*host).query(ROWS).await?;
            let rows = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
            match &found {
                None => found = Some(rows),
                Some(known) if *known == rows => {}
                Some(known) => {
                    let (ours, theirs) = (known.difference(&rows).count(), rows.difference(known).count());
                    return Err(format!("host {host} lacks {ours} rows of host {}, and has {theirs} more", servers[0]));
                }
            }
        }
        found.ok_or_else(|| "no server".to_owned())
    })
    .await
}

/// `struck` is the moment of the last strike, `mended` that of the fault's end.
fn judge(
    account: &Account,
    fault: &Fault,
    mode: Mode,
    (struck, mended): (Instant, Instant),
    problems: &mut Vec<String>,
) {
    let mut must = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    must(account.overlaps.is_empty(), format!("two primaries through proxies: {:?}", account.overlaps));
    let (lost, may) = (account.lost.len(), fault.may_lose(mode));
    must(lost <= may, format!("{lost} acknowledged rows are gone, {may} may: {:?}", account.lost.first()));
    must(account.astray == 0, format!("{} statements were led to a standby", account.astray));
    // A commit that waits for a standby has its server's reason, until there is one again.
    let waited = |sent: &&Instant| fault.commits_wait(mode) && **sent < mended;
    let hung = account.hung.iter().filter(|sent| !waited(sent)).count();
    must(hung == 0, format!("{hung} statements hung: their connections were not cut"));
    match mode {
        Mode::Asynchronous => {
            let (deadline, awake) = (struck + DEADLINE, mended + AWAKE);
            let wrong = |sent: &&Instant| **sent > deadline && (**sent < mended || **sent > awake);
            for overlap in &account.overlaps_direct {
                let count = overlap.late.iter().filter(wrong).count();
                must(count == 0, format!("{count} rows by {}, for {:?}", overlap.text, overlap.span()));
            }
        }
        Mode::Synchronous => {
            must(account.overlaps_direct.is_empty(), format!("two primaries directly: {:?}", account.overlaps_direct));
            let lost = account.lost_direct.len();
            must(lost == 0, format!("{lost} rows acknowledged directly are gone: {:?}", account.lost_direct.first()));
        }
    }
}

#[cfg(test)]
mod tests {
    use stolon_tests::acks::{Ack, Overlap};

    use super::*;
    use crate::table::named;

    /// Struck now, and undone after 20 s.
    fn problems(account: &Account, fault: &str, mode: Mode, struck: Instant) -> String {
        let mut problems = Vec::new();
        judge(account, named(fault), mode, (struck, struck + Duration::from_secs(20)), &mut problems);
        problems.join("; ")
    }

    fn lost(count: usize) -> Vec<Ack> {
        let now = Instant::now();
        vec![Ack { id: 1, sent: now, acked: now, server: "a".into(), timeline: 1 }; count]
    }

    /// By one whose successor acknowledges from now on, after so many seconds.
    fn overlap(struck: Instant, seconds: &[u64]) -> Vec<Overlap> {
        let late = seconds.iter().map(|seconds| struck + Duration::from_secs(*seconds)).collect();
        vec![Overlap { text: "a after b".into(), from: struck, late }]
    }

    #[test]
    fn nothing_that_a_client_must_not_see_is_passed_over() {
        use Mode::{Asynchronous, Synchronous};
        let now = Instant::now();
        let with = |change: &dyn Fn(&mut Account)| {
            let mut account = Account::default();
            change(&mut account);
            account
        };
        for (account, mode, word) in [
            (with(&|account| account.overlaps = overlap(now, &[0])), Asynchronous, "two primaries through proxies"),
            (with(&|account| account.overlaps_direct = overlap(now, &[1, 7, 19])), Asynchronous, "2 rows by a after b"),
            (
                with(&|account| account.overlaps_direct = overlap(now, &[24])),
                Asynchronous,
                "1 rows by a after b, for 24s",
            ),
            (with(&|account| account.overlaps_direct = overlap(now, &[1])), Synchronous, "two primaries directly"),
            (with(&|account| account.lost = lost(5)), Asynchronous, "5 acknowledged rows are gone, 4 may"),
            (with(&|account| account.lost = lost(1)), Synchronous, "1 acknowledged rows are gone, 0 may"),
            (with(&|account| account.lost_direct = lost(1)), Synchronous, "1 rows acknowledged directly are gone"),
            (with(&|account| account.hung = vec![now]), Asynchronous, "1 statements hung"),
            (with(&|account| account.astray = 1), Asynchronous, "1 statements were led to a standby"),
        ] {
            let found = problems(&account, "kill-postgres", mode, now);
            assert!(found.contains(word), "{found} has no {word:?}");
        }
    }

    #[test]
    fn a_statement_may_hang_only_where_commits_wait_for_a_standby_and_as_long_as_they_do() {
        let now = Instant::now();
        let found = |fault, mode, seconds| {
            let account = Account { hung: vec![now + Duration::from_secs(seconds)], ..Account::default() };
            problems(&account, fault, mode, now)
        };
        let hung = "1 statements hung: their connections were not cut";
        for (fault, mode, seconds, expected) in [
            ("kill-both-standbys", Mode::Synchronous, 1, ""),
            ("kill-both-standbys", Mode::Synchronous, 21, hung),
            ("kill-both-standbys", Mode::Asynchronous, 1, hung),
            // Nobody is primary then, whatever is waited for.
            ("kill-all-etcd", Mode::Synchronous, 1, hung),
            ("kill-all-etcd", Mode::Asynchronous, 1, hung),
            ("winner-freezes-when-elected", Mode::Synchronous, 1, hung),
        ] {
            assert_eq!(found(fault, mode, seconds), expected, "{fault} {mode:?} {seconds}");
        }
    }

    #[test]
    fn what_may_be_is_no_problem() {
        let now = Instant::now();
        let overlaps_direct = overlap(now, &[1, 5, 21, 22]);
        let account = Account { lost: lost(4), lost_direct: lost(9), overlaps_direct, ..Account::default() };
        assert_eq!(problems(&account, "kill-postgres", Mode::Asynchronous, now), "");
        let blocked = Account { hung: vec![now, now], ..Account::default() };
        assert_eq!(problems(&blocked, "cut-standbys", Mode::Synchronous, now), "");
    }
}
