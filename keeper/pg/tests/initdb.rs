//! The first database.

use super::*;

fn config(data_checksums: bool) -> NewConfig {
    NewConfig { locale: "C".into(), encoding: String::new(), data_checksums }
}

const ROLES: &str = "SELECT string_agg(rolname || ' ' || rolsuper || ' ' || rolreplication || ' ' || rolcanlogin || ' ' \
    || coalesce(left(rolpassword, 13), 'none'), ', ' ORDER BY rolname DESC) FROM pg_authid WHERE rolname !~ '^pg_'";

#[tokio::test(flavor = "multi_thread")]
async fn with_passwords_both_users_exist_and_must_give_them() {
    let node = Node::empty("a");
    let made = within("initdb", node.instance.initdb(&config(true))).await.unwrap();
    assert_eq!(node.instance.data_state(), DataState::Primary);
    assert!(made.parameters.contains_key("max_connections") && !made.parameters.contains_key("port"), "{made:?}");
    let _postmaster = node.start(ConfRole::Primary).await;
    let roles = node.sql(ROLES).await;
    assert_eq!(roles, "super user true true true SCRAM-SHA-256, rep-l false true true SCRAM-SHA-256");
    assert_eq!(node.sql("SHOW data_checksums").await, "on");
    let mut nobody = sql::local(&node.instance);
    nobody.password("wrong");
    let refused = sql::session(nobody, PATIENCE, "log in", async |_| Ok(())).await.unwrap_err().to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
    let replication = sql::login(&node.instance.credentials().replication);
    let mut replication = replication;
    replication.host("127.0.0.1").port(node.port());
    sql::session(replication, PATIENCE, "log in", async |_| Ok(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_passwords_nobody_is_asked_for_one() {
    let node = Node::with("a", trust());
    within("initdb", node.instance.initdb(&config(false))).await.unwrap();
    let _postmaster = node.start(ConfRole::Primary).await;
    assert_eq!(node.sql(ROLES).await, "repl false true true none, postgres true true true none");
    // From 18 on, PostgreSQL writes them without being asked.
    let unasked = if node.instance.binaries().version().major < 18 { "off" } else { "on" };
    assert_eq!(node.sql("SHOW data_checksums").await, unasked);
    assert!(!node.instance.passfile().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_may_serve_both_purposes() {
    let login = Login { name: "both".into(), auth: Auth::Md5(Secret::new("x")) };
    let node = Node::with("a", Credentials { superuser: login.clone(), replication: login });
    within("initdb", node.instance.initdb(&config(false))).await.unwrap();
    let _postmaster = node.start(ConfRole::Primary).await;
    assert_eq!(node.sql(ROLES).await, "both true true true SCRAM-SHA-256");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_in_an_argument_an_environment_or_a_readable_file() {
    let node = Node::empty("a");
    let (shutdown, seen) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let watcher = std::thread::spawn({
        let (shutdown, seen) = (shutdown.clone(), seen.clone());
        move || {
            while !shutdown.load(std::sync::atomic::Ordering::Relaxed) {
                for pid in proc::all() {
                    for file in ["cmdline", "environ"] {
                        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                        seen.lock().unwrap().push(text);
                    }
                }
                std::thread::yield_now();
            }
        }
    });
    let made = within("initdb", node.instance.initdb(&config(false))).await;
    shutdown.store(true, std::sync::atomic::Ordering::Relaxed);
    watcher.join().unwrap();
    made.unwrap();
    let holds = |text: &[u8], secret: &str| text.windows(secret.len()).any(|part| part == secret.as_bytes());
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|text| holds(text, "initdb")), "the watcher must have seen the program");
    for secret in [PASSWORD, "re:pl'-77\\", "re:pl"] {
        assert!(!seen.iter().any(|text| holds(text, secret)));
    }
    for file in fs::read_dir(node.instance.keeper_dir()).unwrap().flatten() {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
    }
    assert!(!node.instance.keeper_dir().join("initdb-password").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_line_without_the_password_and_leaves_nothing_in_place() {
    let node = Node::empty("a");
    let bad = NewConfig { locale: "no_such_LOCALE".into(), ..config(false) };
    let error = within("initdb", node.instance.initdb(&bad)).await.unwrap_err().to_string();
    assert!(error.starts_with("initdb failed: ") && error.contains("no_such_LOCALE"), "{error}");
    assert_eq!(error.lines().count(), 1);
    assert_eq!(node.instance.data_state(), DataState::Absent);
    assert!(!node.instance.keeper_dir().join("initdb-password").exists());
    within("initdb", node.instance.initdb(&config(false))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_half_way_it_ends_its_program_and_may_be_tried_again() {
    let node = Node::empty("a");
    let config = config(false);
    let new = node.instance.keeper_dir().join("postgres.new");
    let mut making = Box::pin(node.instance.initdb(&config));
    tokio::select! {
        made = &mut making => panic!("too early: {made:?}"),
        () = until("the first file", async || new.join("PG_VERSION").exists()) => {}
    }
    drop(making);
    let programs = proc::all().filter(|pid| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&*new.to_string_lossy())
    });
    assert_eq!(programs.collect::<Vec<_>>(), [0; 0]);
    assert_eq!(node.instance.data_state(), DataState::Absent);
    within("initdb", node.instance.initdb(&config)).await.unwrap();
    assert_eq!(node.instance.data_state(), DataState::Primary);
}
