//! I-8: bodies and credentials never reach logs.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use feedlog_core::command::{Action, RecallTarget};
use feedlog_core::ids::SeqId;
use feedlog_service::auth::{Credential, NewToken};
use feedlog_service::views::AttachTo;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::world::*;

/// Everything that any span or event says, at every level.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<String>>);

impl tracing::field::Visit for Recorder {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, _: &tracing::Id, _: Context<'_, S>) {
        writeln!(self.0.lock().unwrap(), "span {}", attributes.metadata().name()).unwrap();
        attributes.record(&mut self.clone());
    }

    fn on_record(&self, _: &tracing::Id, values: &tracing::span::Record<'_>, _: Context<'_, S>) {
        values.record(&mut self.clone());
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

#[test]
fn bodies_and_tokens_never_reach_logs() {
    let recorder = Recorder::default();
    // For all threads of this process, whose other tests log as well: that only makes the check stricter.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, engine) = open(config());
        let feed = group(&store, "logged-feed", "ann", &[]).await;
        let ann = store.gate(user("ann"));
        let auth = store.auth();
        let token = NewToken { uid: uid("bob"), scopes: user("bob").scopes, expires_ms: None, note: None };
        let issued = auth.create_token(&admin(), token).await.unwrap();
        let secret = issued.secret.expose().to_owned();
        assert!(!format!("{issued:?}").contains(&secret));
        auth.authenticate(Credential::Token(&secret)).unwrap();
        let forged = format!("{}0", &secret[..secret.len() - 1]);
        let _ = auth.authenticate(Credential::Token(&forged));
        let done = ann.submit(send(&feed, with_id("TOPSECRETBODY", "id"))).await.unwrap().done().clone();
        let _ = ann.submit(send(&feed, with_id("TOPSECRETBODY2", "id"))).await.unwrap_err();
        let edit = Action::EditMessage {
            target: done.seq,
            content_type: "text/plain".into(),
            payload: "TOPSECRETBODY3".into(),
        };
        act(&ann, &feed, edit).await.unwrap();
        let mut attachment = ann.attach(AttachTo::Feeds(vec![(feed.clone(), SeqId(0))])).await.unwrap();
        for _ in 0..5 {
            let delivery = next(&mut attachment).await;
            assert!(!format!("{delivery:?}").contains("TOPSECRET"), "not even by accident: {delivery:?}");
        }
        let recall = Action::RecallMessage { target: RecallTarget::Seq(done.seq), reason: None };
        act(&ann, &feed, recall).await.unwrap();
        engine.fail(Some(Fail::UnknownLost));
        let error = ann.submit(send(&feed, draft("TOPSECRETBODY4"))).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("TOPSECRET"));
        let text = recorder.0.lock().unwrap().clone();
        assert!(text.contains("logged-feed"), "the recorder records");
        assert!(!text.contains("TOPSECRET"));
        assert!(!text.contains(&secret) && !text.contains(&secret[secret.len() - 40..]));
    });
}
