//! `status` for people: the answer to "is it all right?" first, then who is who.

use std::{fmt::Write, time::Duration};

use super::shape::{Cluster, Keeper, Primary, Proxy, Sentinel, Status, some};

pub fn text(status: &Status) -> String {
    let mut out = head(&status.cluster);
    out += &source(status);
    section(&mut out, "Problems", &problems(status));
    section(&mut out, "Keepers", &table(&KEEPERS, status.keepers.iter().map(keeper)));
    section(&mut out, "Sentinels", &table(&["UID", "LEADER", "GRPC"], status.sentinels.iter().map(sentinel)));
    section(&mut out, "Proxies", &table(&PROXIES, status.proxies.iter().map(proxy)));
    out
}

const KEEPERS: [&str; 12] = [
    "UID",
    "ROLE",
    "HEALTHY",
    "PG HEALTHY",
    "PG STATE",
    "GENERATION",
    "TIMELINE",
    "LSN",
    "LAG",
    "STREAMING",
    "SYNC",
    "ADDRESS",
];
const PROXIES: [&str; 5] = ["UID", "ROUTE EPOCH", "CONNECTIONS", "ADDRESS", "GRPC"];

/// As the sentinels judge it.
const SILENT_MS: u64 = 1000;

fn head(cluster: &Cluster) -> String {
    let state = match (&cluster.fencing, cluster.available) {
        (Some(_), _) => "changing its primary",
        (None, true) => "available",
        (None, false) => "NOT AVAILABLE",
    };
    let mut out = format!("Cluster {}: {state}\n", cluster.name);
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
    let _ = writeln!(
        out,
        "  uid {}, phase {}, epoch {}",
        known(cluster.uid.clone()),
        known(cluster.phase.clone()),
        known(cluster.epoch.map(|epoch| epoch.to_string()))
    );
    match &cluster.primary {
        Some(it) => out += &primary(it),
        None => out += "  no primary\n",
    }
    if let Some(mark) = &cluster.fencing {
        let kind = if mark.planned { "planned handover" } else { "failover" };
        let doing = if mark.stage == "recruit" { "standbys leave the old primary" } else { "proxies let go" };
        let _ = writeln!(out, "  {kind} in progress: epoch {} ends, {doing} ({})", mark.epoch, mark.reason);
    }
    out
}

fn primary(primary: &Primary) -> String {
    let mut out = format!("  primary {}", primary.keeper);
    if let Some(address) = &primary.address {
        let _ = write!(out, " at {address}");
    }
    if let (Some(lsn), Some(timeline)) = (&primary.position.lsn, primary.position.timeline) {
        let _ = write!(out, ", WAL at {lsn} on timeline {timeline}");
    }
    if let Some(held) = primary.held_for_ms {
        let _ = write!(out, ", in office for {}", span(Duration::from_millis(held)));
    }
    let _ = writeln!(out, " (db {})", primary.db);
    out
}

fn source(status: &Status) -> String {
    match &status.source.sentinel {
        Some(uid) if status.source.leader => format!("  as seen by sentinel {uid}, which leads\n"),
        Some(uid) => format!("  as seen by sentinel {uid}, which does not lead: it may not know everything\n"),
        None => "  as etcd holds it: no sentinel answered\n".to_owned(),
    }
}

/// One line each, what keepers complain of among them.
fn problems(status: &Status) -> Vec<String> {
    let failing = status.keepers.iter().filter_map(|keeper| Some((&keeper.uid, keeper.failure.as_ref()?)));
    let told = |failure: &str| status.problems.iter().any(|line| line.contains(failure));
    let failures =
        failing.filter(|(_, failure)| !told(failure)).map(|(uid, failure)| format!("  keeper {uid}: {failure}"));
    status.problems.iter().map(|line| format!("  {line}")).chain(failures).collect()
}

fn keeper(keeper: &Keeper) -> Vec<String> {
    let health = match (keeper.registered, keeper.healthy) {
        (false, _) => "NO (gone)",
        (true, false) if keeper.report_age_ms.is_none_or(|age| age > SILENT_MS) => "NO (silent)",
        (true, false) => "NO",
        (true, true) => "yes",
    };
    let generation = match (keeper.pg_wanted_generation, keeper.pg_current_generation) {
        (0, _) => dash(None),
        (wanted, current) if wanted == current => wanted.to_string(),
        (wanted, current) => format!("{current}, wanted {wanted}"),
    };
    let role = dash(keeper.role.clone());
    vec![
        keeper.uid.clone(),
        if keeper.leaving { format!("{role} (leaving)") } else { role },
        health.to_owned(),
        if keeper.db.is_none() { dash(None) } else { yes(keeper.pg_healthy).to_owned() },
        dash(keeper.state.clone()),
        generation,
        dash(keeper.position.timeline.map(|timeline| timeline.to_string())),
        dash(keeper.position.lsn.clone()),
        dash(keeper.lag.map(bytes)),
        dash(keeper.streaming.map(|streaming| yes(streaming).to_owned())),
        dash(keeper.synchronous.clone()),
        dash(some(&keeper.listen_address)),
    ]
}

fn sentinel(sentinel: &Sentinel) -> Vec<String> {
    let leads = if sentinel.leader { "yes" } else { "no" };
    vec![sentinel.uid.clone(), leads.to_owned(), dash(sentinel.grpc_address.clone())]
}

fn proxy(proxy: &Proxy) -> Vec<String> {
    let route = match (proxy.report_age_ms, proxy.route_epoch) {
        (None, _) => dash(None),
        (Some(_), None) => "NO ROUTE".to_owned(),
        (Some(_), Some(epoch)) => epoch.to_string(),
    };
    vec![
        proxy.uid.clone(),
        route,
        dash(proxy.connections.map(|count| count.to_string())),
        dash(proxy.listen_address.clone()),
        dash(proxy.grpc_address.clone()),
    ]
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = writeln!(out, "\n{title}\n{}", lines.join("\n"));
    }
}

/// Lines of aligned columns; none without rows.
fn table(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut all = vec![titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    if all.len() == 1 {
        return Vec::new();
    }
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let cells = |row: &Vec<String>| {
        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("  ")
    };
    all.iter().map(|row| format!("  {}", cells(row)).trim_end().to_owned()).collect()
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "NO" }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
