//! The spans of one failover as an exporter gets them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use stolon::{
    model::{
        ClusterData, Epoch, LeaseId, Revision,
        cluster::{Fencing, Stage},
        registration::PrimaryKey,
    },
    store::{Held, Mirror, Stored},
};
use tracing_subscriber::layer::SubscriberExt;

use super::story::{Story, context};
use crate::{
    decide::{Commit, Holder, PrimaryChange, Proof, Step},
    observe::Observations,
};

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    /// Runs with spans being exported; gives those that ended.
    fn during(&self, work: impl FnOnce()) -> Vec<SpanData> {
        let provider = SdkTracerProvider::builder().with_simple_exporter(self.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn attributes(span: &SpanData) -> BTreeMap<&str, String> {
    span.attributes.iter().map(|kv| (kv.key.as_str(), kv.value.to_string())).collect()
}

/// The captured cluster in epoch 4, with or without a mark.
fn data(mark: Option<&str>) -> ClusterData {
    let mut data = ClusterData::parse(include_bytes!("../../src/model/testdata/clusterdata.json")).unwrap();
    data.cluster.status.epoch = Epoch(4);
    data.cluster.status.fencing = mark.map(|traceparent| Fencing {
        epoch: Epoch(4),
        stage: Stage::Recruit,
        to: None,
        planned: false,
        reason: "PostgreSQL of keeper keeper0 ended".into(),
        traceparent: traceparent.into(),
    });
    data
}

fn mirror(data: ClusterData) -> Mirror {
    let stored = Stored { revision: Revision(9), bytes: Arc::default(), data: Ok(Arc::new(data)) };
    Mirror { cluster: Some(stored), ..Mirror::default() }
}

fn mark() -> Commit {
    Commit { step: Step::Mark, next: data(Some("")), from: Revision(9), change: None }
}

fn election() -> Commit {
    let (uid, object) = data(None).primary().map(|(uid, db)| (uid.clone(), db.clone())).unwrap();
    let keeper = object.spec.keeper_uid;
    let change = PrimaryChange {
        key: PrimaryKey { keeper: keeper.clone(), db: uid.clone(), epoch: Epoch(5), traceparent: String::new() },
        lease: LeaseId(1),
        registered: Revision(1),
        holder: Holder::Absent,
        epoch_at: Revision(2),
        proof: Proof::KeyGone,
    };
    let step = Step::Elect { db: uid, keeper, why: "highest".into() };
    Commit { step, next: data(None), from: Revision(9), change: Some(change) }
}

#[test]
fn one_failover_is_one_trace_though_its_mark_had_to_be_tried_twice() {
    let (seen, mut carried) = (Observations::default(), String::new());
    let spans = Kept::default().during(|| {
        let mut story = Story::default();
        story.follow(&mirror(data(None)), &seen);
        let first = story.commit(&mark());
        story.failed(&Step::Mark);
        story.follow(&mirror(data(None)), &seen);
        let second = story.commit(&mark());
        assert_eq!(first, second, "the same detection");
        story.stored(&Step::Mark);
        story.follow(&mirror(data(Some(&second))), &seen);
        story.present().in_scope(|| tracing::info!("waiting for keeper keeper1"));
        carried = story.commit(&election());
        story.stored(&election().step);
        story.follow(&mirror(data(None)), &seen);
    });
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names.iter().filter(|name| **name == "detected").count(), 1, "{names:?}");
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    let root = named("detected");
    for (name, epoch) in [("marked", "4"), ("fenced", "4"), ("chosen", "5"), ("committed", "5")] {
        let span = named(name);
        assert_eq!(span.parent_span_id, root.span_context.span_id(), "{name}");
        assert_eq!(span.span_context.trace_id(), root.span_context.trace_id(), "{name}");
        let number = span.attributes.iter().find(|kv| kv.key.as_str() == "epoch").map(|kv| kv.value.clone());
        assert_eq!(number, Some(opentelemetry::Value::I64(epoch.parse().unwrap())), "{name}");
    }
    assert_eq!(attributes(root)["keeper"], "keeper0");
    assert_eq!(attributes(named("chosen"))["why"], "highest");
    assert_eq!(named("chosen").events.len(), 1, "the reason why it waited");
    assert!(carried.contains(&named("committed").span_context.span_id().to_string()), "{carried}");
}

#[test]
fn a_successor_goes_on_under_the_marks_context() {
    let found = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let spans = Kept::default().during(|| {
        let mut story = Story::default();
        story.follow(&mirror(data(Some(found))), &Observations::default());
        story.commit(&election());
        story.stored(&election().step);
    });
    assert!(spans.iter().any(|span| span.name == "committed"));
    for span in spans {
        assert_eq!(span.span_context.trace_id().to_string(), &found[3..35], "{}", span.name);
        assert_eq!(span.parent_span_id.to_string(), &found[36..52], "{}", span.name);
    }
}

#[test]
fn without_an_exporter_nothing_is_carried() {
    let mut story = Story::default();
    assert_eq!(story.commit(&mark()), "");
    story.follow(&mirror(data(Some(""))), &Observations::default());
    assert_eq!(story.commit(&election()), "");
}

#[test]
fn views_carry_the_context_of_what_made_them_and_no_older_one() {
    let mut mirror = mirror(data(None));
    let value = PrimaryKey { traceparent: "of epoch 4".into(), ..election().change.unwrap().key };
    mirror.primary = Some(Held { value, lease: LeaseId(1), modified: Revision(9) });
    assert_eq!(context(&mirror), "of epoch 4");
    mirror.cluster.as_mut().unwrap().revision = Revision(12);
    assert_eq!(context(&mirror), "");
    mirror.cluster.as_mut().unwrap().data = Ok(Arc::new(data(Some("of the mark"))));
    assert_eq!(context(&mirror), "of the mark");
}

#[test]
fn why_nothing_is_done_against_a_suspect_is_an_event_of_a_span() {
    let spans = Kept::default().during(|| {
        let mut story = Story::default();
        for _ in 0..2 {
            story.watch(&mirror(data(None)), true);
        }
        story.present().in_scope(|| tracing::info!("keeper keeper0 is silent, but its WAL flows"));
        story.watch(&mirror(data(None)), false);
    });
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*span.name, span.events.len(), &*attributes(span)["keeper"]), ("watched", 1, "keeper0"));
}
