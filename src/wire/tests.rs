//! Round trips of each message, and what is refused at the border.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use super::{BadMessage, Down, Identity, Probe, Up, v1};
use crate::model::{
    ClusterData, ClusterName, DbUid, Epoch, Generation, KeeperUid, LeaseId, Lsn, Revision, WalPosition,
    cluster::{Fencing, Lineage, Stage},
    registration::Recruit,
    report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState, ProbeResult, ProxyReport},
    spec::NewConfig,
    view::{Access, InitMode, KeeperView, ProxyView, Role, Upstream},
};

fn there_and_back<M, V>(value: M)
where
    M: Clone + Debug + PartialEq + TryFrom<V, Error = BadMessage>,
    V: for<'a> From<&'a M>,
{
    assert_eq!(M::try_from(V::from(&value)), Ok(value));
}

fn up<R, M>(value: Up<R>)
where
    Up<R>: Debug + PartialEq + TryFrom<M, Error = BadMessage>,
    M: for<'a> From<(&'a Up<R>, &'a str)>,
{
    assert_eq!(Up::try_from(M::from((&value, ""))), Ok(value));
}

fn down<V, M>(value: Down<V>)
where
    Down<V>: Debug + PartialEq + TryFrom<M, Error = BadMessage>,
    M: for<'a> From<(&'a Down<V>, &'a str)>,
{
    assert_eq!(Down::try_from(M::from((&value, ""))), Ok(value));
}

pub(crate) fn keeper_report() -> KeeperReport {
    let position = WalPosition { timeline: 3, lsn: Lsn(0x16_B374_D848) };
    KeeperReport {
        prepared: Epoch(3),
        view_revision: Revision(77),
        promised: Epoch(4),
        authority: Some(AuthorityReport { epoch: Epoch(5), remaining: Duration::from_millis(3210) }),
        recruit: Some(Recruit { epoch: Epoch(5), position }),
        leaving: true,
        failure: "no disk".into(),
        postgres: PostgresReport {
            state: PostgresState::Primary,
            db: Some(DbUid::parse("ab8aab47").unwrap()),
            generation: Generation(9),
            system_id: 7_711_173_073_378_985_024,
            position: Some(position),
            position_age: Duration::from_millis(12),
            position_final: true,
            probe_age: Some(Duration::ZERO),
            wal_streaming: true,
            wal_advances: 8,
            primary_epoch: Epoch(5),
            parameters: BTreeMap::from([("max_connections".into(), "100".into())]),
            in_sync: vec![DbUid::parse("50e47c12").unwrap()],
            pid: 4711,
        },
    }
}

fn proxy_report() -> ProxyReport {
    ProxyReport {
        view_revision: Revision(77),
        fenced_epoch: Epoch(4),
        route_epoch: Some(Epoch(5)),
        connections: 12,
        lease_remaining: Duration::from_millis(4000),
    }
}

fn identity() -> Identity {
    let cluster_name = ClusterName::parse("stolon-cluster").unwrap();
    Identity { cluster_name, cluster_uid: None, uid: "keeper0".into(), lease: LeaseId(0x694d_81a0) }
}

fn data() -> ClusterData {
    ClusterData::parse(include_bytes!("../model/testdata/clusterdata.json")).unwrap()
}

fn keeper_views() -> Vec<KeeperView> {
    let view = |keeper| KeeperView::derive(&data(), Revision(9), &KeeperUid::parse(keeper).unwrap()).unwrap();
    let fencing = |stage| {
        Some(Fencing {
            epoch: Epoch(2),
            stage,
            planned: true,
            to: Some(KeeperUid::parse("k2").unwrap()),
            reason: "asked".into(),
            traceparent: "00-1-2-01".into(),
        })
    };
    let (mut marked, mut new, mut homeless) = (view("keeper1"), view("keeper0"), view("keeper1"));
    marked.fencing = fencing(Stage::Fence);
    marked.handover = true;
    marked.lineage =
        vec![Lineage { epoch: Epoch(1), timeline: 1, switch_lsn: Lsn(5), db: DbUid::parse("ab8aab47").unwrap() }];
    let assignment = new.assignment.as_mut().unwrap();
    assignment.init = InitMode::New(NewConfig { locale: "C".into(), encoding: "UTF8".into(), data_checksums: true });
    assignment.settings.access = Access::Only(vec!["10.0.0.1".into()]);
    assignment.settings.hba = Some(Vec::new());
    let assignment = homeless.assignment.as_mut().unwrap();
    assignment.synchronous = !assignment.synchronous;
    assignment.init = InitMode::Resync;
    assignment.role = Role::Standby(Upstream { db: DbUid::parse("x").unwrap(), address: None });
    homeless.fencing = fencing(Stage::Recruit);
    vec![view("keeper0"), view("keeper1"), view("stranger"), marked, new, homeless]
}

#[test]
fn reports_and_views_cross_the_wire_unchanged() {
    there_and_back::<_, v1::KeeperReport>(keeper_report());
    there_and_back::<_, v1::KeeperReport>(KeeperReport::default());
    there_and_back::<_, v1::ProxyReport>(proxy_report());
    there_and_back::<_, v1::ProxyReport>(ProxyReport::default());
    keeper_views().into_iter().for_each(there_and_back::<_, v1::KeeperView>);
    let view = ProxyView::derive(&data(), Revision(9)).unwrap();
    there_and_back::<_, v1::ProxyView>(ProxyView { open_to_all: true, primary: None, ..view.clone() });
    there_and_back::<_, v1::ProxyView>(view);
    there_and_back::<_, v1::Identity>(identity());
    let cluster_uid = Some("2f576e79".parse().unwrap());
    there_and_back::<_, v1::Identity>(Identity { cluster_uid, ..identity() });
}

#[test]
fn stream_messages_cross_the_wire_with_their_traceparent() {
    use PostgresState::*;
    for state in [Absent, Copying, Stopped, Starting, Standby, Primary] {
        let postgres = PostgresReport { state, ..PostgresReport::default() };
        up::<_, v1::KeeperStreamRequest>(Up::Report(KeeperReport { postgres, ..keeper_report() }));
    }
    for result in [ProbeResult::Answered, ProbeResult::Refused, ProbeResult::TimedOut, ProbeResult::Unreachable] {
        up::<KeeperReport, v1::KeeperStreamRequest>(Up::Probe { id: 7, result });
        up::<ProxyReport, v1::ProxyStreamRequest>(Up::Probe { id: u64::MAX, result });
    }
    up::<KeeperReport, v1::KeeperStreamRequest>(Up::Hello(identity()));
    up::<ProxyReport, v1::ProxyStreamRequest>(Up::Hello(identity()));
    up::<_, v1::ProxyStreamRequest>(Up::Report(proxy_report()));
    keeper_views().into_iter().for_each(|view| down::<_, v1::KeeperStreamResponse>(Down::View(view)));
    down::<_, v1::ProxyStreamResponse>(Down::View(ProxyView::derive(&data(), Revision(9)).unwrap()));
    let probe = Probe { id: 3, host: "::1".into(), port: 5432, deadline: Duration::from_millis(300) };
    down::<KeeperView, v1::KeeperStreamResponse>(Down::Probe(probe.clone()));
    down::<ProxyView, v1::ProxyStreamResponse>(Down::Probe(probe));
    let traced = v1::KeeperStreamRequest::from((&Up::<KeeperReport>::Hello(identity()), "00-1-2-01"));
    assert_eq!(traced.traceparent, "00-1-2-01");
}

/// The field that `spoil` makes a report be refused for.
fn refused_report(spoil: impl FnOnce(&mut v1::KeeperReport, &mut v1::PostgresReport)) -> &'static str {
    let mut report = v1::KeeperReport::from(&keeper_report());
    let mut postgres = report.postgres.take().unwrap();
    spoil(&mut report, &mut postgres);
    report.postgres = Some(postgres);
    KeeperReport::try_from(report).expect_err("the spoiled report was accepted").field
}

#[test]
fn a_report_that_the_model_cant_say_is_refused_with_its_field() {
    assert_eq!(refused_report(|_, postgres| postgres.state = 0), "postgres.state");
    assert_eq!(refused_report(|_, postgres| postgres.state = 99), "postgres.state");
    assert_eq!(refused_report(|_, postgres| postgres.db = "../x".into()), "postgres.db");
    assert_eq!(refused_report(|_, postgres| postgres.generation = -1), "postgres.generation");
    assert_eq!(refused_report(|_, postgres| postgres.in_sync.push(String::new())), "postgres.in_sync");
    assert_eq!(refused_report(|_, postgres| postgres.position = Some(v1::WalPosition::default())), "timeline");
    assert_eq!(refused_report(|report, _| report.view_revision = -1), "view_revision");
    assert_eq!(refused_report(|report, _| report.recruit.as_mut().unwrap().epoch = 0), "recruit.epoch");
    assert_eq!(refused_report(|report, _| report.recruit.as_mut().unwrap().position = None), "recruit.position");
    let without = v1::KeeperReport { postgres: None, ..v1::KeeperReport::from(&keeper_report()) };
    assert_eq!(KeeperReport::try_from(without).unwrap_err().field, "postgres");
}

#[test]
fn an_assignment_has_exactly_one_role() {
    let view = v1::KeeperView::from(&keeper_views()[1]);
    let refused = |spoil: fn(&mut v1::Assignment)| {
        let mut view = view.clone();
        spoil(view.assignment.as_mut().unwrap());
        KeeperView::try_from(view).expect_err("the spoiled view was accepted").field
    };
    assert_eq!(refused(|assignment| assignment.standby = None), "assignment");
    assert_eq!(refused(|assignment| assignment.primary = Some(v1::PrimaryRole::default())), "assignment");
    assert_eq!(refused(|assignment| assignment.init = 0), "assignment.init");
    assert_eq!(refused(|assignment| assignment.db = String::new()), "assignment.db");
    assert_eq!(refused(|assignment| assignment.max_standbys = 70_000), "assignment.max_standbys");
    assert_eq!(refused(|a| a.standby.as_mut().unwrap().port = 65_536), "assignment.standby.port");
    assert_eq!(refused(|a| a.standby.as_mut().unwrap().host = "a b".into()), "assignment.standby.host");
}

#[test]
fn marks_probes_and_hellos_that_break_the_contract_are_refused() {
    let mark = v1::Fencing { epoch: 2, ..v1::Fencing::default() };
    assert_eq!(Fencing::try_from(mark).unwrap_err().field, "fencing.stage");
    let probe = v1::ProbeRequest { id: 1, host: "h".into(), port: 0, deadline_ms: 1 };
    assert_eq!(Probe::try_from(probe.clone()).unwrap_err().field, "probe.port");
    assert_eq!(Probe::try_from(v1::ProbeRequest { host: "\n".into(), ..probe }).unwrap_err().field, "probe.host");
    let hello = v1::Identity::from(&identity());
    for (spoiled, field) in [
        (v1::Identity { uid: "../etc".into(), ..hello.clone() }, "uid"),
        (v1::Identity { uid: String::new(), ..hello.clone() }, "uid"),
        (v1::Identity { cluster_name: "a/b".into(), ..hello.clone() }, "cluster_name"),
        (v1::Identity { lease: -1, ..hello }, "lease"),
    ] {
        assert_eq!(Identity::try_from(spoiled).unwrap_err().field, field);
    }
    let outcome = v1::ProbeOutcome { id: 1, result: 0 };
    let message = Some(v1::proxy_stream_request::Message::Probe(outcome));
    let request = v1::ProxyStreamRequest { message, traceparent: String::new() };
    assert_eq!(Up::<ProxyReport>::try_from(request).unwrap_err().field, "probe.result");
    assert_eq!(Down::<ProxyView>::try_from(v1::ProxyStreamResponse::default()).unwrap_err().field, "message");
}

#[test]
fn a_text_for_people_is_one_line_of_bounded_length() {
    let failure = format!("a\nb\x1b{}", "x".repeat(100_000));
    let report = v1::KeeperReport { failure, ..v1::KeeperReport::from(&keeper_report()) };
    let failure = KeeperReport::try_from(report).unwrap().failure;
    assert!(failure.starts_with("a b x") && failure.len() == 4096, "{}", failure.len());
}
