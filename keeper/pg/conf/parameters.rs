//! postgresql.conf: the user's parameters, overruled by those that the keeper manages.

use std::{collections::BTreeMap, fs, path::Path};

use super::{ConfInput, ConfRole};
use crate::pg::{Instance, PgError, conninfo};

type Parameters = BTreeMap<String, String>;

/// The 5-second trap (protocol, section 7): PostgreSQL's own 5 s makes a promotion right after the primary's death wait
/// as long.
const RETRY_MS: u64 = 100;

/// Set by the keeper, or of no meaning beside it: a user's value is ignored. stolon's list, and what would move files
/// away, bring settings in from elsewhere, or hold replay back (R8).
const MANAGED: &[&str] = &[
    "allow_alter_system",
    "archive_cleanup_command",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "max_replication_slots",
    "max_wal_senders",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "standby_mode",
    "synchronous_standby_names",
    "trigger_file",
    "unix_socket_directories",
    "wal_keep_segments",
    "wal_log_hints",
];

pub(in crate::pg) fn is_managed(name: &str) -> bool {
    MANAGED.contains(&name.to_ascii_lowercase().as_str())
}

pub(super) fn counts_from_start(name: &str) -> bool {
    const FROM_START: &[&str] = &[
        "hot_standby",
        "listen_addresses",
        "max_replication_slots",
        "max_wal_senders",
        "port",
        "unix_socket_directories",
        "wal_level",
        "wal_log_hints",
    ];
    FROM_START.contains(&name)
}

/// Everything that the file will say.
pub(super) fn all(instance: &Instance, input: &ConfInput<'_>) -> Parameters {
    let settings = input.settings;
    let user = settings.parameters.iter().filter(|(name, _)| !is_managed(name));
    let mut all: Parameters = user.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let config = instance.config();
    let slots = u32::from(settings.max_standbys);
    let wal_level = all.get("wal_level").filter(|level| level.eq_ignore_ascii_case("logical"));
    let mut set = vec![
        ("wal_level", wal_level.map_or("replica", |_| "logical").to_owned()),
        ("listen_addresses", config.listen_address.clone()),
        ("port", config.port.to_string()),
        ("unix_socket_directories", config.socket_dir.to_string_lossy().into_owned()),
        ("hot_standby", "on".into()),
        ("max_replication_slots", slots.to_string()),
        ("max_wal_senders", (2 * slots + 2 + u32::from(settings.additional_wal_senders)).to_string()),
        ("wal_log_hints", "on".into()),
        ("restart_after_crash", "off".into()),
        ("synchronous_standby_names", input.synchronous_standby_names.clone()),
        ("recovery_target_timeline", "latest".into()),
        ("wal_retrieve_retry_interval", retry_interval(all.get("wal_retrieve_retry_interval"))),
    ];
    if config.binaries.version().major >= 17 {
        set.push(("allow_alter_system", "off".into()));
    }
    if !all.contains_key("wal_keep_size") {
        set.push(("wal_keep_size", "128".into()));
    }
    if let ConfRole::Standby { upstream } = &input.role {
        set.extend(following(instance, input, upstream.as_ref()));
    }
    all.extend(set.into_iter().map(|(name, value)| (name.to_owned(), value)));
    all
}

fn following(
    instance: &Instance,
    input: &ConfInput<'_>,
    upstream: Option<&(String, u16)>,
) -> Vec<(&'static str, String)> {
    let name = input.db.slot();
    let conninfo = upstream.map_or_else(String::new, |(host, port)| {
        let login = &instance.credentials().replication;
        conninfo::to_server(instance, host, *port, login, &[("application_name", &name)])
    });
    vec![("primary_conninfo", conninfo), ("primary_slot_name", name)]
}

/// The user's value when it is lower, else ours.
fn retry_interval(user: Option<&String>) -> String {
    let lower = user.and_then(|text| milliseconds(text)).filter(|ms| (1..RETRY_MS).contains(ms));
    format!("{}ms", lower.unwrap_or(RETRY_MS))
}

/// A parameter of time whose unit, when none is written, is the millisecond.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "" | "ms" => Some(number),
        "us" => Some(number.div_ceil(1000)),
        "s" => number.checked_mul(1000),
        _ => None,
    }
}

pub(super) fn render(parameters: &Parameters) -> String {
    let mut text = String::from("# Written by stolon-keeper: change the cluster specification instead.\n");
    for (name, value) in parameters {
        text += &format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"));
    }
    text
}

/// What initdb, or whoever made this database, wrote into postgresql.conf, without what is managed.
pub(in crate::pg) fn initial(data: &Path) -> Result<Parameters, PgError> {
    let path = data.join("postgresql.conf");
    let mut found = read_file(&path).map_err(PgError::io("read", &path))?;
    found.retain(|name, _| !is_managed(name));
    Ok(found)
}

/// The parameters in postgresql.conf that are plain numbers, over PostgreSQL's own defaults of those that size a standby.
pub(in crate::pg) fn numbers(data: &Path) -> Result<BTreeMap<String, u64>, PgError> {
    const DEFAULTS: [(&str, u64); 5] = [
        ("max_connections", 100),
        ("max_worker_processes", 8),
        ("max_wal_senders", 10),
        ("max_prepared_transactions", 0),
        ("max_locks_per_transaction", 64),
    ];
    let path = data.join("postgresql.conf");
    let found = read_file(&path).map_err(PgError::io("read", &path))?;
    let written = found.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?)));
    let defaults = DEFAULTS.into_iter().map(|(name, value)| (name.to_owned(), value));
    Ok(defaults.chain(written).collect())
}

pub(super) fn read_file(path: &Path) -> std::io::Result<Parameters> {
    Ok(fs::read_to_string(path)?.lines().filter_map(parse_line).collect())
}

/// `name = 'value' # comment`, `name value`; the equals sign is optional.
fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => rest.split(['#', ' ', '\t']).next()?.to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

fn unquote(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut rest = text.chars().peekable();
    loop {
        match rest.next()? {
            '\'' if rest.peek() == Some(&'\'') => value.extend(rest.next()),
            '\'' => return Some(value),
            '\\' => value.push(match rest.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_reads_back() {
        let all: Parameters = [("a", r"x\y"), ("b", "it's"), ("c", ""), ("d.e", "1 # 2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let back: Parameters = render(&all).lines().filter_map(parse_line).collect();
        assert_eq!(back, all);
    }

    #[test]
    fn the_forms_that_initdb_writes_are_understood() {
        for (line, name, value) in [
            ("max_connections = 100\t\t\t# (change requires restart)", "max_connections", "100"),
            ("datestyle = 'iso, mdy'", "datestyle", "iso, mdy"),
            ("Shared_Buffers 128MB", "shared_buffers", "128MB"),
        ] {
            assert_eq!(parse_line(line), Some((name.to_owned(), value.to_owned())), "{line}");
        }
        assert_eq!(parse_line("#port = 5432"), None);
    }

    #[test]
    fn the_retry_interval_may_only_be_lowered() {
        for (user, result) in [("5s", "100ms"), ("20ms", "20ms"), ("50", "50ms"), ("0", "100ms"), ("1h", "100ms")] {
            assert_eq!(retry_interval(Some(&user.to_owned())), result);
        }
        assert_eq!(retry_interval(None), "100ms");
    }
}
