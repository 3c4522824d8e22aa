//! Bad input: one line on standard error that names the flag or the file, a non-zero exit, within seconds, and nothing
//! left behind. And etcd out of reach: daemons wait and say so, `stolonctl` gives up in time.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use stolon_tests::{
    Test, Weight,
    certs::Authority,
    etcd::{Etcd, Place},
    eventually,
    ports::free_port,
    process::{Outcome, complete, tail},
    run,
};

/// Longer than any of them may take, with several test clusters on the same two cores.
const SECONDS: Duration = Duration::from_secs(12);
const KEEPER: &str = "stolon-keeper";
const SENTINEL: &str = "stolon-sentinel";
const PROXY: &str = "stolon-proxy";
const CTL: &str = "stolonctl";
/// Stands where a password may stand, and must not be seen again.
const SECRET: &str = "s3cret";

/// A program, its command line after what makes it otherwise right, and what the one line must name.
type Case = (&'static str, String, Vec<String>);

fn case(program: &'static str, args: impl Into<String>, names: &[&str]) -> Case {
    (program, args.into(), names.iter().map(|name| (*name).to_owned()).collect())
}

/// What each program needs to start, so that only the tested flag is wrong. A flag that the case gives is left out.
fn base(test: &Test, program: &str, etcd: &str, args: &[&str]) -> Vec<String> {
    let data = test.folder().join("data/k0").display().to_string();
    let mut flags = vec![("--cluster-name", "bad".to_owned()), ("--store-endpoints", etcd.to_owned())];
    match program {
        KEEPER => flags.extend([
            ("--data-dir", data),
            ("--port", "0".to_owned()),
            ("--pg-port", free_port().to_string()),
            ("--id", "k0".to_owned()),
        ]),
        SENTINEL => flags.push(("--port", "0".to_owned())),
        PROXY => flags.push(("--port", free_port().to_string())),
        _ => {}
    }
    let given = |flag: &str| args.iter().any(|arg| *arg == flag || *arg == format!("NO{flag}"));
    flags.into_iter().filter(|(flag, _)| !given(flag)).flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn attempt(test: &Test, etcd: &str, program: &str, line: &str) -> Outcome {
    let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
    let mut command = test.command(program);
    let own = args.iter().filter(|arg| !arg.starts_with("NO--"));
    // stolonctl's flags follow its verb.
    let (verb, rest) = if program == CTL { args.split_at(1) } else { args.split_at(0) };
    if program == CTL {
        command.args(verb).args(base(test, program, etcd, &args)).args(rest.iter().filter(|a| !a.starts_with("NO--")));
    } else {
        command.args(base(test, program, etcd, &args)).args(own);
    }
    complete(test.folder(), &mut command, SECONDS)
}

/// What is wrong with how a program met bad input; empty when nothing is.
fn complaints(outcome: &Outcome, names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    match outcome.code {
        None => found.push(format!("did not end within {SECONDS:?}")),
        Some(0) => found.push("exit code 0".to_owned()),
        Some(101) => found.push("it panicked".to_owned()),
        Some(_) => {}
    }
    let naming = outcome.err.lines().filter(|line| names.iter().all(|name| line.contains(name.as_str()))).count();
    if naming == 0 {
        found.push(format!("no line on standard error names {names:?}"));
    }
    if outcome.err.contains(SECRET) || outcome.out.contains(SECRET) {
        found.push("a secret is printed".to_owned());
    }
    if outcome.err.lines().count() > 4 || outcome.err.contains("panicked") || outcome.err.contains("RUST_BACKTRACE") {
        found.push("not one clear line".to_owned());
    }
    found
}

fn check(test: &Test, etcd: &str, cases: Vec<Case>) {
    let mut wrong = String::new();
    for (program, line, names) in cases {
        let outcome = attempt(test, etcd, program, &line);
        let found = complaints(&outcome, &names);
        if !found.is_empty() {
            wrong += &format!("{program} {line}\n  {}\n  stderr: {}\n", found.join("; "), tail(&outcome.err, 5));
            if !outcome.out.is_empty() {
                wrong += &format!("  stdout: {}\n", tail(&outcome.out, 5));
            }
        }
    }
    assert!(wrong.is_empty(), "bad input that is not met as promised:\n{wrong}");
}

#[test]
fn command_lines_that_cant_work_are_refused_with_the_flags_name() {
    run("bad-flags", Weight::Light, async |test| {
        let etcd = Etcd::start(&test, 1).await.endpoints();
        let mut cases = Vec::new();
        for program in [KEEPER, SENTINEL, PROXY, CTL] {
            let verb = if program == CTL { "status " } else { "" };
            cases.push(case(program, format!("{verb}--nonsense"), &["--nonsense"]));
            cases.push(case(program, format!("{verb}NO--cluster-name"), &["--cluster-name"]));
            cases.push(case(program, format!("{verb}--cluster-name a/b"), &["--cluster-name", "a/b"]));
            cases.push(case(program, format!("{verb}--store-endpoints 127.0.0.1"), &["--store-endpoints"]));
            cases.push(case(program, format!("{verb}--store-endpoints ftp://127.0.0.1:2379"), &["--store-endpoints"]));
            cases.push(case(program, format!("{verb}--store-backend etcdv2"), &["--store-backend", "etcdv3"]));
            cases.push(case(program, format!("{verb}--store-backend consul"), &["--store-backend", "etcd"]));
            cases.push(case(program, format!("{verb}--store-timeout soon"), &["--store-timeout"]));
            cases.push(case(program, format!("{verb}--store-timeout -5s"), &["--store-timeout", "-5s"]));
            cases.push(case(program, format!("{verb}--store-timeout 1ms"), &["--store-timeout", "100ms"]));
            cases.push(case(program, format!("{verb}--store-prefix="), &["--store-prefix", "empty"]));
            let secret = format!("{verb}--store-endpoints http://user:{SECRET}@127.0.0.1:2379");
            cases.push(case(program, secret, &["--store-endpoints", "password"]));
            cases.push(case(program, format!("{verb}--store-ca-file /nowhere/ca.pem"), &["/nowhere/ca.pem"]));
        }
        for (program, flag) in
            [(KEEPER, "--port"), (KEEPER, "--pg-port"), (SENTINEL, "--port"), (PROXY, "--port"), (PROXY, "--grpc-port")]
        {
            cases.push(case(program, format!("{flag} 99999"), &[flag]));
            cases.push(case(program, format!("{flag} x"), &[flag]));
        }
        for program in [KEEPER, SENTINEL, PROXY] {
            cases.push(case(program, "--grpc-listen-address nowhere/", &["--grpc-listen-address"]));
            cases.push(case(program, "--grpc-listen-address 0.0.0.0", &["--grpc-listen-address", "--grpc-cert-file"]));
            cases.push(case(program, "--grpc-cert-file /nowhere/cert.pem", &["--grpc-"]));
            cases.push(case(program, "--log-level loud", &["--log-level"]));
            cases.push(case(program, "--otlp-endpoint bogus", &["--otlp-endpoint", "bogus", "http://"]));
            cases.push(case(
                program,
                format!("--otlp-endpoint http://{SECRET}@h:4317"),
                &["--otlp-endpoint", "password"],
            ));
        }
        cases.extend([
            case(KEEPER, "--id A-b", &["--id"]),
            case(KEEPER, "NO--data-dir", &["--data-dir"]),
            case(KEEPER, "--pg-listen-address 0.0.0.0", &["--pg-listen-address"]),
            case(KEEPER, "--pg-su-passwordfile /nowhere/secret", &["/nowhere/secret"]),
            case(KEEPER, "--pg-repl-passwordfile /nowhere/secret", &["/nowhere/secret"]),
            case(KEEPER, "--pg-bin-path /nowhere/bin", &["--pg-bin-path", "/nowhere/bin"]),
            case(KEEPER, "--pg-os-user nobody-of-that-name", &["--pg-os-user"]),
            case(PROXY, "--listen-address nowhere/", &["--listen-address"]),
            case(
                SENTINEL,
                "--initial-cluster-spec /nowhere/spec.json",
                &["--initial-cluster-spec", "/nowhere/spec.json"],
            ),
            case(CTL, "nonsense", &["nonsense"]),
            case(CTL, "switchover --to=", &["--to", "empty"]),
            case(KEEPER, "--id=", &["--id"]),
            case(KEEPER, "--pg-advertise-address=", &["--pg-advertise-address", "empty"]),
        ]);
        check(&test, &etcd, cases);
        assert!(!test.folder().join("data").exists(), "a data directory was made for a command line that can't work");
    });
}

#[test]
fn files_and_ports_that_cant_be_used_are_named() {
    run("bad-files", Weight::Light, async |test| {
        let etcd = Etcd::start(&test, 1).await.endpoints();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let file = |name: &str, text: &str| {
            let path = test.folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (broken, invalid) =
            (file("broken.json", "{"), file("invalid.json", r#"{"initMode":"new","proxyTimeout":"-1s"}"#));
        let negative = file("negative.json", r#"{"initMode":"new","maxStandbys":-1}"#);
        let (empty, plain) = (file("empty", "\n"), file("plain", "x"));
        let pem = file("garbage.pem", "no certificate");
        let other = test.subfolder("other");
        file("other/keeperstate", r#"{"UID":"somebody_else","ClusterUID":""}"#);
        let bins = test.subfolder("bins");
        for name in ["postgres", "initdb"] {
            std::os::unix::fs::symlink(Path::new("/usr/lib/postgresql/15/bin").join(name), bins.join(name)).unwrap();
        }
        let holder = Authority::new(test.folder(), "ca").issue("host", &["127.0.0.1"]);
        let swapped = format!(
            "--grpc-cert-file {0} --grpc-key-file {0} --grpc-ca-file {1}",
            holder.cert.display(),
            holder.ca.display()
        );
        let mut cases = vec![
            case(KEEPER, format!("--port {port}"), &["--port", &port]),
            case(KEEPER, format!("--pg-port {port}"), &["--pg-port", &port]),
            case(SENTINEL, format!("--port {port}"), &["--port", &port]),
            case(PROXY, format!("--port {port}"), &["--port", &port]),
            case(PROXY, format!("--grpc-port {port}"), &["--grpc-port", &port]),
            case(SENTINEL, format!("--initial-cluster-spec {broken}"), &["--initial-cluster-spec", &broken]),
            case(SENTINEL, format!("--initial-cluster-spec {invalid}"), &[&invalid, "proxyTimeout"]),
            case(SENTINEL, "--initial-cluster-spec /dev/zero", &["--initial-cluster-spec", "/dev/zero", "1 MiB"]),
            case(SENTINEL, format!("--initial-cluster-spec {negative}"), &[&negative, "maxStandbys", "0 to 65535"]),
            case(KEEPER, format!("--pg-su-passwordfile {empty} --pg-repl-passwordfile {plain}"), &[&empty]),
            case(KEEPER, format!("--data-dir {plain}"), &[&plain]),
            case(KEEPER, "--data-dir /proc/stolon", &["/proc/stolon"]),
            case(KEEPER, format!("--data-dir {}", other.display()), &["somebody_else", "k0"]),
            case(KEEPER, format!("--pg-bin-path {}", bins.display()), &["pg_basebackup"]),
        ];
        for program in [KEEPER, SENTINEL, PROXY] {
            let files = format!("--grpc-cert-file {pem} --grpc-key-file {pem} --grpc-ca-file {pem}");
            cases.push(case(program, files, &[&pem]));
            cases.push(case(program, swapped.clone(), &[&holder.cert.display().to_string()]));
        }
        if rustix::process::geteuid().is_root() {
            let closed = test.subfolder("closed");
            std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
            cases.push(case(
                KEEPER,
                format!("--data-dir {}", closed.join("k").display()),
                &[&closed.display().to_string()],
            ));
        }
        check(&test, &etcd, cases);
        let kept = std::fs::read_to_string(other.join("keeperstate")).unwrap();
        assert!(kept.contains("somebody_else"), "another keeper's state was overwritten");
    });
}

#[test]
fn daemons_wait_for_etcd_and_say_so_while_stolonctl_gives_up() {
    run("bad-etcd", Weight::Light, async |test| {
        let place = Place::loopback();
        let endpoint = format!("http://127.0.0.1:{}", place.client_port);
        let proxy_port = free_port();
        let mut running = Vec::new();
        for (program, own) in
            [(KEEPER, vec![]), (SENTINEL, vec![]), (PROXY, vec!["--port".to_owned(), proxy_port.to_string()])]
        {
            let given: Vec<&str> = own.iter().map(String::as_str).collect();
            let mut args = base(&test, program, &endpoint, &given);
            args.extend(own);
            running.push(test.spawn(program, program, &args, &[]));
        }
        for process in &mut running {
            let named = format!("127.0.0.1:{}", place.client_port);
            eventually("the daemon says what it waits for", SECONDS, async || process.logged(&named)).await;
            assert!(process.running(), "{} ended instead of waiting", process.name);
        }
        let at = Instant::now();
        let status = attempt(&test, &endpoint, CTL, "status --store-timeout 2s");
        assert!(status.code.is_some_and(|code| code != 0) && status.err.contains("etcd"), "{status:?}");
        assert!(at.elapsed() < Duration::from_secs(8), "{:?}", at.elapsed());
        // A daemon that gives up waiting when asked to end.
        let mut waiting = running.pop().unwrap();
        assert!(waiting.terminate(SECONDS).success(), "the proxy ends in good order without etcd");
        let lines: usize = running.iter().map(|process| process.log_text().lines().count()).sum();
        assert!(lines < 60, "{lines} lines of log about a missing etcd");

        let etcd = Etcd::start_at(&test, vec![place]).await;
        let empty = attempt(&test, &endpoint, CTL, "status --cluster-name no-such-cluster");
        assert!(empty.code.is_some_and(|code| code != 0) && empty.err.contains("no-such-cluster"), "{empty:?}");
        let mut args = base(&test, PROXY, &endpoint, &["--port"]);
        args.extend(["--port".to_owned(), proxy_port.to_string()]);
        running.push(test.spawn("proxy-again", PROXY, &args, &[]));
        eventually("with etcd there, the cluster forms", Duration::from_secs(40), async || {
            stolon_tests::sql::Target::loopback(proxy_port).value("SELECT 1").await
        })
        .await;
        drop(etcd);
    });
}

#[test]
fn a_guard_that_no_keeper_started_says_so() {
    run("bad-guard", Weight::Light, async |test| {
        for dir in ["/nonexistent", "/", "."] {
            let outcome = complete(test.folder(), test.command(KEEPER).args(["guard", dir]), SECONDS);
            assert!(outcome.code == Some(1) && outcome.err.lines().count() == 1, "{dir}: {outcome:?}");
            assert!(outcome.err.starts_with("error: guard: ") && outcome.err.contains(dir), "{dir}: {outcome:?}");
        }
        assert!(!test.folder().join("guard.sock").exists(), "it left a socket behind");
    });
}

#[test]
fn a_keepers_first_line_names_it_also_when_its_name_was_made_up() {
    run("first-line", Weight::Light, async |test| {
        let nowhere = format!("http://127.0.0.1:{}", free_port());
        let keeper = test.spawn(KEEPER, KEEPER, &base(&test, KEEPER, &nowhere, &["NO--id"]), &[]);
        let state = test.folder().join("data/k0/keeperstate");
        let uid = eventually("the keeper has a name", SECONDS, async || {
            let text = std::fs::read_to_string(&state).map_err(|error| error.to_string())?;
            let state: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            state["UID"].as_str().map(str::to_owned).ok_or(text)
        })
        .await;
        eventually("its first line", SECONDS, async || keeper.logged("keeper starts")).await;
        let log = keeper.log_text();
        let first = log.lines().find(|line| line.contains("keeper starts")).unwrap_or_default();
        let (name, dir) = (format!("keeper starts id={uid} "), test.folder().join("data/k0").display().to_string());
        for part in [&name, &format!("data_dir={dir}"), &format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))] {
            assert!(first.contains(part.as_str()), "no {part} in {first}");
        }
    });
}

#[test]
fn something_that_is_no_etcd_is_named_as_the_culprit() {
    run("bad-store", Weight::Light, async |test| {
        // Accepts, and says nothing that etcd would say.
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = stranger.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in stranger.incoming().flatten().take(200) {
                let mut connection = connection;
                let _ = std::io::Write::write_all(&mut connection, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let endpoint = format!("http://127.0.0.1:{port}");
        let status = attempt(&test, &endpoint, CTL, "status --store-timeout 2s");
        assert!(status.code.is_some_and(|code| code != 0) && status.err.contains(&port.to_string()), "{status:?}");
        let sentinel = test.spawn(SENTINEL, SENTINEL, &base(&test, SENTINEL, &endpoint, &[]), &[]);
        eventually("the sentinel names it", SECONDS, async || sentinel.logged(&port.to_string())).await;
    });
}

#[test]
fn help_and_version_are_answered() {
    run("help", Weight::Light, async |test| {
        for program in [KEEPER, SENTINEL, PROXY, CTL] {
            let help = complete(test.folder(), test.command(program).arg("--help"), SECONDS);
            assert!(help.code == Some(0) && help.out.contains("Usage:"), "{program}: {help:?}");
            let mut version: Command = test.command(program);
            version.arg(if program == CTL { "version" } else { "--version" });
            let version = complete(test.folder(), &mut version, SECONDS);
            assert!(
                version.code == Some(0) && version.out.contains(env!("CARGO_PKG_VERSION")),
                "{program}: {version:?}"
            );
        }
        // Every flag is an environment variable too.
        let mut command = test.command(KEEPER);
        command.env("STKEEPER_CLUSTER_NAME", "a/b");
        let outcome = complete(test.folder(), &mut command, SECONDS);
        assert!(outcome.code.is_some_and(|code| code != 0) && outcome.err.contains("a/b"), "{outcome:?}");
    });
}
