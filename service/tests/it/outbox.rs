//! The push outbox: who is told what, in which order, how often, and what a crash changes: nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feedlog_core::command::{Action, RecallTarget};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::clock::Clock;
use feedlog_service::outbox::{
    Call, Carrier, CarryError, Endpoint, EndpointStatus, Events, OutboxConfig, OutboxError, OutboxLimits,
    Patience, Pause, Replay, What,
};
use feedlog_service::views::{After, AttachTo};
use feedlog_service::{Store, StoreConfig};
use feedlog_storage::OpenOptions;
use feedlog_storage::faulty::FaultyDisk;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::world::*;

type Answering = Box<dyn FnMut(&Call) -> Option<Result<(), CarryError>> + Send>;

/// Takes the place of the network: notes every try and answers as told; `None` is an endpoint that hangs.
struct Post {
    tries: Mutex<Vec<(Call, Option<bool>)>>,
    answering: Mutex<Answering>,
    bell: Notify,
}

impl Post {
    fn new() -> Arc<Self> {
        Self::answering(|_| Some(Ok(())))
    }

    fn answering(answer: impl FnMut(&Call) -> Option<Result<(), CarryError>> + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            tries: Mutex::default(),
            answering: Mutex::new(Box::new(answer)),
            bell: Notify::new(),
        })
    }

    fn answer(&self, answer: impl FnMut(&Call) -> Option<Result<(), CarryError>> + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(answer);
    }

    /// Waits until the tries so far are as wanted.
    async fn until(&self, mut wanted: impl FnMut(&[(Call, Option<bool>)]) -> bool) {
        let waiting = async {
            loop {
                let rung = self.bell.notified();
                let mut rung = std::pin::pin!(rung);
                rung.as_mut().enable();
                if wanted(&self.tries.lock().unwrap()) {
                    return;
                }
                rung.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| {
            panic!("it never came; there were {:#?}", self.lines());
        });
    }

    /// Waits until an accepted call has this text, and gives one line for each accepted call.
    async fn until_text(&self, text: &str) -> Vec<String> {
        let ends = |call: &Call| lines_of(call).iter().any(|line| line.contains(text));
        self.until(|tries| tries.iter().any(|(call, ok)| *ok == Some(true) && ends(call))).await;
        self.lines()
    }

    /// One line for each item and recipient of accepted calls, in order.
    fn lines(&self) -> Vec<String> {
        let tries = self.tries.lock().unwrap();
        tries.iter().filter(|(_, ok)| *ok == Some(true)).flat_map(|(call, _)| lines_of(call)).collect()
    }

    fn calls(&self) -> Vec<Call> {
        self.tries.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.id).collect()
    }
}

impl Carrier for Post {
    fn carry(&self, call: Call) -> BoxFuture<'_, Result<(), CarryError>> {
        Box::pin(async move {
            let answer = (self.answering.lock().unwrap())(&call);
            self.tries.lock().unwrap().push((call, answer.as_ref().map(Result::is_ok)));
            self.bell.notify_waiters();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

/// `feed uid badge/unmuted after last_seq: what`.
fn lines_of(call: &Call) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &call.to {
        for (at, item) in call.items.iter().enumerate() {
            if one.items.as_ref().is_some_and(|items| !items.contains(&at)) {
                continue;
            }
            let what = match &item.what {
                What::Message { entry, left_out: false } => format!("{} {}", entry.seq, text(entry)),
                What::Message { entry, left_out: true } => format!("{} …", entry.seq),
                What::Notified { entry, .. } => format!("{} notice {}", entry.seq, text(entry)),
                What::Withdrawn { target, reason } => format!("-{target} {reason:?}"),
                What::Read { feed, upto } => format!("read {feed} {upto}"),
            };
            let To { uid, badge, last, .. } = To::of(one);
            lines.push(format!("{} {uid} {badge} after {last}: {what}", call.feed));
        }
    }
    lines
}

struct To {
    uid: String,
    badge: String,
    last: u64,
}

impl To {
    fn of(to: &feedlog_service::outbox::To) -> Self {
        let badge = if to.badge == to.badge_unmuted {
            to.badge.to_string()
        } else {
            format!("{}/{}", to.badge, to.badge_unmuted)
        };
        Self { uid: to.uid.to_string(), badge, last: to.last_seq.0 }
    }
}

fn refused(status: u16) -> Option<Result<(), CarryError>> {
    Some(Err(CarryError::Status { status, retry_after_ms: None }))
}

/// Waits short enough for tests.
fn endpoint(name: &str) -> Endpoint {
    let patience = Patience { retry_first_ms: 1, retry_max_ms: 5, attempts_max: 0, give_up_ms: 0 };
    Endpoint { coalesce_ms: 0, patience, ..Endpoint::new(name) }
}

fn outbox(endpoints: Vec<Endpoint>) -> OutboxConfig {
    OutboxConfig { endpoints, limits: OutboxLimits::default() }
}

async fn started(config: OutboxConfig, post: &Arc<Post>) -> Store {
    let (store, _) = open(crate::world::config());
    start(&store, config, post).await;
    store
}

/// Starts it, and waits until every worker knows its place: what is sent from now on is told.
async fn start(store: &Store, config: OutboxConfig, post: &Arc<Post>) {
    let names: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    store.start_outbox(config, post.clone()).unwrap();
    let admin = store.admin(&admin()).unwrap();
    for name in names {
        // A worker answers once it knows.
        admin.outbox_drop_replays(&name).await.unwrap();
    }
}

fn status(store: &Store) -> EndpointStatus {
    store.admin(&admin()).unwrap().outbox().remove(0)
}

async fn until_status(store: &Store, wanted: impl Fn(&EndpointStatus) -> bool) -> EndpointStatus {
    let waiting = async {
        loop {
            let status = status(store);
            if wanted(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("it never came to that: {:?}", status(store)))
}

/// Waits until all that was sent so far was told: what comes then is in windows of its own.
async fn told(store: &Store) {
    until_status(store, |status| status.lag_commits == 0).await;
}

async fn recall(store: &Store, by: &str, feed: &FeedId, seq: u64) {
    let action = Action::RecallMessage { target: RecallTarget::Seq(SeqId(seq)), reason: None };
    act(&store.gate(user(by)), feed, action).await.unwrap();
}

async fn mute(store: &Store, name: &str, feed: &FeedId, until_ms: u64) {
    let action = Action::ChangeSettings { feed: feed.clone(), pinned: None, muted_until_ms: Some(until_ms) };
    act(&store.gate(user(name)), &FeedId::personal(&uid(name)), action).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_without_a_connection_are_told_with_their_badge() {
    let post = Post::new();
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let feed = group(&store, "g", "ann", &["bob", "cat", "dan"]).await;
    let mut attached = bob.attach(AttachTo::Feeds(vec![(feed.clone(), SeqId::ZERO)])).await.unwrap();
    while next_seq(&mut attached).await < 5 {}
    mute(&store, "dan", &feed, 1 << 50).await;
    say(&ann, &feed, "one").await;
    assert_eq!(post.until_text("one").await, ["g cat 1 after 0: 6 \"one\""]);
    // From here on bob is away.
    drop(attached);
    store.gate(user("cat")).submit(mark("cat", &feed, None, Some(6))).await.unwrap();
    say(&store.gate(user("cat")), &feed, "two").await;
    say(&ann, &feed, "three").await;
    let lines = post.until_text("three").await;
    let by_user = |name: &str| -> Vec<&String> {
        lines.iter().filter(|line| line.contains(&format!(" {name} "))).collect()
    };
    assert_eq!(by_user("cat").last().unwrap().as_str(), "g cat 2 after 6: 8 \"three\"");
    assert!(by_user("cat").iter().all(|line| !line.contains("two")), "her own: {lines:?}");
    assert_eq!(by_user("bob").len(), 2, "{lines:?}");
    assert!(by_user("ann").iter().all(|line| line.contains("two")), "{lines:?}");
    assert!(by_user("dan").is_empty(), "muted: {lines:?}");
}

/// Being connected is an attachment that follows the feed: by name, as one of one's own, by a pattern, or a held read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_the_feed_in_any_way_is_not_told() {
    let post = Post::new();
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob", "cat", "eve"]).await;
    let mine = store.gate(user("bob")).attach(AttachTo::Mine(Vec::new())).await.unwrap();
    // An attachment to something else is no connection to this.
    let other = group(&store, "other", "cat", &[]).await;
    let elsewhere =
        store.gate(user("cat")).attach(AttachTo::Feeds(vec![(other, SeqId::ZERO)])).await.unwrap();
    say(&ann, &feed, "one").await;
    let lines = post.until_text("one").await;
    assert_eq!(lines, ["g cat 1 after 0: 6 \"one\"", "g eve 1 after 0: 6 \"one\""]);
    drop((mine, elsewhere));
    told(&store).await;
    // Open feeds: those for whom it counts.
    publish(&store.gate(user("eve")), "room/1", "first").await;
    told(&store).await;
    let bob = store.gate(user("bob"));
    bob.submit(mark("bob", &crate::world::feed("room/1"), None, Some(2))).await.unwrap();
    let mut watching = bob.follow(None).await.unwrap();
    watching.add_pattern(1, pattern("room/#"), After::Head);
    told(&store).await;
    publish(&ann, "room/1", "two").await;
    let lines = post.until_text("two").await;
    assert_eq!(lines[2..], ["room/1 eve 2 after 0: 3 \"two\""]);
    drop(watching);
    publish(&ann, "room/1", "three").await;
    let lines = post.until_text("three").await;
    assert_eq!(lines[3..], ["room/1 bob 4 after 2: 4 \"three\"", "room/1 eve 3 after 0: 4 \"three\""]);
}

/// In order per feed with the same id for every try, while other feeds and other endpoints go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_call_holds_up_its_feed_and_no_other_endpoint() {
    let post = Post::answering(|call| match (&*call.endpoint, call.feed.as_str()) {
        ("bad", "g") if call.attempt < 6 => refused(500),
        ("hangs", _) => None,
        _ => Some(Ok(())),
    });
    let endpoints = vec![endpoint("bad"), endpoint("hangs"), endpoint("good")];
    let store = started(outbox(endpoints), &post).await;
    let ann = store.gate(user("ann"));
    let (g, h) = (group(&store, "g", "ann", &["bob"]).await, group(&store, "h", "ann", &["bob"]).await);
    for n in 0..20 {
        say(&ann, &g, &format!("g{n}")).await;
        say(&ann, &h, &format!("h{n}")).await;
    }
    let done = |name: &'static str| {
        move |tries: &[(Call, Option<bool>)]| {
            let got = |text: &str| {
                tries.iter().any(|(call, ok)| {
                    *ok == Some(true) && &*call.endpoint == name && lines_of(call).concat().contains(text)
                })
            };
            got("g19") && got("h19")
        }
    };
    post.until(done("bad")).await;
    post.until(done("good")).await;
    for name in ["bad", "good"] {
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (call, ok) in post.tries.lock().unwrap().iter() {
            if *call.endpoint == *name && *ok == Some(true) {
                let seqs = seen.entry(call.feed.to_string()).or_default();
                seqs.extend(call.items.iter().map(|item| item.seq.0));
            }
        }
        let expected: Vec<u64> = (4..24).collect();
        assert_eq!(seen, BTreeMap::from([("g".into(), expected.clone()), ("h".into(), expected)]), "{name}");
    }
    // Each call has one id, whatever its tries.
    let mut tries: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for call in post.calls().iter().filter(|call| &*call.endpoint == "bad" && call.feed.as_str() == "g") {
        tries.entry(call.id.clone()).or_default().push(call.attempt);
    }
    assert!(tries.values().all(|tries| *tries == [1, 2, 3, 4, 5, 6]), "{tries:?}");
    assert!(store.drain(Duration::from_secs(10)).await, "one that hangs does not hold up the end");
}

/// P6: what is recalled before a try is not in it; those who may have been told are told of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_recalled_is_told() {
    let post = Post::answering(|_| refused(503));
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    say(&ann, &feed, "secret").await;
    post.until(|tries| tries.len() > 2).await;
    recall(&store, "ann", &feed, 4).await;
    let before = post.calls().len();
    post.until(|tries| tries.len() > before + 2 || tries.iter().any(|(call, _)| call.id.ends_with("5-5")))
        .await;
    say(&ann, &feed, "fine").await;
    post.answer(|_| Some(Ok(())));
    let lines = post.until_text("fine").await;
    assert_eq!(lines, ["g bob 1 after 0: -4 Recalled", "g bob 1 after 0: 6 \"fine\""]);
    // Recalled when it was told: taken back also from who is connected by now.
    let attached = store.gate(user("bob")).attach(AttachTo::Mine(Vec::new())).await.unwrap();
    recall(&store, "ann", &feed, 6).await;
    assert_eq!(post.until_text("-6").await.last().unwrap(), "g bob 0 after 0: -6 Recalled");
    drop(attached);
}

/// Reading elsewhere takes a push back, when there may have been one; nothing that was read is pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_takes_back_what_was_told_and_nothing_else() {
    let post = Post::new();
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    say(&ann, &feed, "one").await;
    post.until_text("one").await;
    bob.submit(mark("bob", &feed, Some(4), None)).await.unwrap();
    assert_eq!(post.until_text("read").await[1..], ["user:bob bob 0 after 0: read g 4"]);
    // Read live: nothing was pushed, nothing is taken back.
    let attached = bob.attach(AttachTo::Mine(Vec::new())).await.unwrap();
    say(&ann, &feed, "two").await;
    bob.submit(mark("bob", &feed, Some(5), None)).await.unwrap();
    drop(attached);
    say(&ann, &feed, "three").await;
    assert_eq!(post.until_text("three").await[2..], ["g bob 1 after 5: 6 \"three\""]);
    // Read while the call fails: it is not made again.
    post.answer(|_| refused(500));
    say(&ann, &feed, "four").await;
    post.until(|tries| tries.iter().filter(|(_, ok)| *ok == Some(false)).count() > 1).await;
    bob.submit(mark("bob", &feed, Some(7), None)).await.unwrap();
    until_status(&store, |status| status.in_flight + status.retrying == 0 || status.lag_commits > 0).await;
    post.answer(|_| Some(Ok(())));
    say(&ann, &feed, "five").await;
    let lines = post.until_text("five").await;
    assert!(lines.iter().all(|line| !line.contains("four")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_is_a_dead_letter_that_can_be_told_again() {
    let post = Post::answering(|call| if call.feed.as_str() == "g" { refused(500) } else { Some(Ok(())) });
    let patience = Patience { attempts_max: 3, ..endpoint("e").patience };
    let limits = OutboxLimits { dead_max: 2, ..OutboxLimits::default() };
    let config = OutboxConfig { endpoints: vec![Endpoint { patience, ..endpoint("e") }], limits };
    let store = started(config, &post).await;
    let admin = store.admin(&admin()).unwrap();
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    told(&store).await;
    for (n, text) in ["one", "two"].into_iter().enumerate() {
        say(&ann, &feed, text).await;
        until_status(&store, |status| status.dead == n + 1).await;
    }
    let dead = admin.outbox_dead("e", None, 10).await.unwrap();
    let ids: Vec<_> = dead.iter().map(|dead| (dead.id.as_str(), dead.tries, dead.error.as_str())).collect();
    assert_eq!(ids, [("e:g:4-4", 3, "status 500"), ("e:g:5-5", 3, "status 500")]);
    assert_eq!(admin.outbox_dead("e", Some(dead[0].number), 10).await.unwrap(), dead[1..]);
    // No room for another: it stands still, and loses nothing.
    say(&ann, &feed, "three").await;
    until_status(&store, |status| status.full).await;
    post.until(|tries| tries.iter().filter(|(call, _)| call.id == "e:g:6-6").count() > 5).await;
    assert_eq!(status(&store).dead, 2);
    // A replay that fails leaves the letters where they are.
    admin.outbox_replay("e", Replay::Dead).await.unwrap();
    assert!(matches!(admin.outbox_dead("nobody", None, 10).await, Err(OutboxError::NoSuchEndpoint)));
    post.answer(|_| Some(Ok(())));
    post.until_text("three").await;
    until_status(&store, |status| status.replays == 0).await;
    if status(&store).dead > 0 {
        admin.outbox_replay("e", Replay::Dead).await.unwrap();
    }
    until_status(&store, |status| status.dead == 0 && status.replays == 0).await;
    let told: Vec<_> = post.calls().into_iter().filter(|call| call.replay).collect();
    assert!(told.iter().any(|call| call.id.starts_with("e:g:4-4:r")), "{:?}", post.ids());
    assert!(matches!(admin.outbox_replay("e", Replay::Dead).await, Err(OutboxError::Nothing)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_or_everything_is_told_again_from_a_place() {
    let post = Post::new();
    let limits = OutboxLimits { call_entries_max: 2, window_entries_max: 3, ..OutboxLimits::default() };
    let store = started(OutboxConfig { endpoints: vec![endpoint("e")], limits }, &post).await;
    let admin = store.admin(&admin()).unwrap();
    let ann = store.gate(user("ann"));
    let (g, h) = (group(&store, "g", "ann", &["bob"]).await, group(&store, "h", "ann", &["bob"]).await);
    let from = store.commit_no();
    for n in 4..11 {
        say(&ann, &g, &format!("g{n}")).await;
    }
    say(&ann, &h, "h3").await;
    post.until_text("h3").await;
    told(&store).await;
    let items = |replay: u64| -> Vec<(String, u64)> {
        let mark = format!(":r{replay}");
        let calls = post.calls().into_iter().filter(|call| call.replay && call.id.ends_with(&mark));
        calls
            .flat_map(|call| call.items.into_iter().map(move |item| (call.feed.to_string(), item.seq.0)))
            .collect()
    };
    let number = admin.outbox_replay("e", Replay::Feed(g.clone(), SeqId(6))).await.unwrap();
    until_status(&store, |status| status.replays == 0).await;
    assert_eq!(items(number), (6..11).map(|seq| ("g".to_owned(), seq)).collect::<Vec<_>>());
    let number = admin.outbox_replay("e", Replay::AfterCommit(from)).await.unwrap();
    until_status(&store, |status| status.replays == 0).await;
    let mut all = items(number);
    all.sort();
    assert_eq!(all.len(), 8);
    assert_eq!(all.last(), Some(&("h".to_owned(), 4)));
    assert!(matches!(admin.outbox_replay("e", Replay::Feed(g, SeqId(12))).await, Err(OutboxError::Nothing)));
    let newest = store.commit_no();
    assert!(matches!(admin.outbox_replay("e", Replay::AfterCommit(newest)).await, Err(OutboxError::Nothing)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_paused_and_its_backlog_dropped() {
    let post = Post::new();
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let admin = store.admin(&admin()).unwrap();
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    admin.outbox_pause("e", true).await.unwrap();
    say(&ann, &feed, "one").await;
    let paused = status(&store);
    assert!(paused.paused == Some(Pause::Asked) && paused.lag_commits > 0, "{paused:?}");
    assert!(admin.outbox_drop_backlog("e").await.unwrap() > 0);
    say(&ann, &feed, "two").await;
    admin.outbox_pause("e", false).await.unwrap();
    assert_eq!(post.until_text("two").await, ["g bob 2 after 0: 5 \"two\""]);
    // 410 Gone pauses by itself, and nothing is lost.
    post.answer(|_| refused(410));
    say(&ann, &feed, "three").await;
    until_status(&store, |status| status.paused == Some(Pause::Gone)).await;
    post.answer(|_| Some(Ok(())));
    admin.outbox_pause("e", false).await.unwrap();
    post.until_text("three").await;
}

/// What is wanted is told, and nothing of the rest leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_told_only_what_it_wants() {
    let post = Post::new();
    let endpoints = vec![
        Endpoint { feeds: vec![pattern("shop/#")], ..endpoint("feeds") },
        Endpoint { kinds: vec![FeedKind::Direct], ..endpoint("kinds") },
        Endpoint { senders: vec![pattern("bot")], ..endpoint("senders") },
        Endpoint { payload: false, ..endpoint("private") },
        Endpoint {
            events: Events { messages: false, withdrawals: true, reads: false },
            ..endpoint("withdrawals")
        },
    ];
    let store = started(outbox(endpoints), &post).await;
    let (ann, bot) = (store.gate(user("ann")), store.gate(user("bot")));
    let shop = group(&store, "shop/1", "ann", &["bob", "bot"]).await;
    let direct = FeedId::direct(&uid("ann"), &uid("bob"), feedlog_storage::digest);
    say(&ann, &shop, "one").await;
    say(&bot, &shop, "two").await;
    let mut first = draft("three");
    first.create = Some(create(FeedKind::Direct, &["bob"]));
    ann.submit(send(&direct, first)).await.unwrap();
    recall(&store, "ann", &shop, 5).await;
    let of = |name: &'static str| {
        let lines: Vec<String> =
            post.calls().iter().filter(|call| *call.endpoint == *name).flat_map(lines_of).collect();
        lines
    };
    let heard = |tries: &[(Call, Option<bool>)], name: &str, text: &str| {
        let of = tries.iter().filter(|(call, _)| *call.endpoint == *name);
        of.flat_map(|(call, _)| lines_of(call)).any(|line| line.contains(text))
    };
    for (name, text) in
        [("feeds", "-5"), ("kinds", "three"), ("senders", "two"), ("private", "-5"), ("withdrawals", "-5")]
    {
        post.until(|tries| heard(tries, name, text)).await;
    }
    post.until(|tries| heard(tries, "private", &format!("{direct} bob"))).await;
    assert!(of("feeds").iter().all(|line| line.starts_with("shop/1 ")));
    assert!(of("kinds").iter().all(|line| line.starts_with("direct:")));
    assert!(of("senders").iter().all(|line| line.contains("two")));
    assert!(of("private").iter().all(|line| line.ends_with('…') || line.contains("Recalled")));
    assert!(of("withdrawals").iter().all(|line| line.contains("Recalled")));
}

/// P2: what is not durable is not told, and what became of an unknown outcome is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_before_it_is_durable() {
    let post = Post::new();
    let (store, engine) = open(config());
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let feed = group(&store, "g", "ann", &["bob"]).await;
    told(&store).await;
    engine.close_gate();
    let (ann, to) = (store.gate(user("ann")), feed.clone());
    let sending = tokio::spawn(async move { say(&ann, &to, "one").await });
    let waiting = engine.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_commit()).await.unwrap();
    assert!(post.calls().is_empty());
    engine.open_gate();
    sending.await.unwrap();
    post.until_text("one").await;
    engine.fail(Some(Fail::UnknownLost));
    assert!(store.gate(user("ann")).submit(send(&feed, draft("lost"))).await.is_err());
    let ann = store.gate(user("ann"));
    assert!(ann.submit(send(&feed, draft("never"))).await.is_err());
    assert_eq!(post.lines().len(), 1);
    assert!(store.drain(Duration::from_secs(10)).await);
    assert_eq!(post.lines().len(), 1);
}

/// An entry that cannot be read makes a dead letter and holds up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_data_is_given_up_and_the_rest_is_told() {
    let post = Post::new();
    let (store, engine) = open(config());
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let hurt = group(&store, "g", "ann", &["bob"]).await;
    let whole = group(&store, "h", "ann", &["bob"]).await;
    told(&store).await;
    let maintenance = store.admin(&admin()).unwrap();
    maintenance.outbox_pause("e", true).await.unwrap();
    let ann = store.gate(user("ann"));
    let first = say(&ann, &hurt, "one").await.seq;
    say(&ann, &hurt, "two").await;
    say(&ann, &whole, "three").await;
    *engine.damaged.lock().unwrap() = Some((hurt, first));
    maintenance.outbox_pause("e", false).await.unwrap();
    let status = until_status(&store, |status| status.lag_commits == 0).await;
    assert_eq!((status.dead, status.parked), (1, 0), "{status:?}");
    assert_eq!(post.lines().len(), 1, "{:?}", post.lines());
    let dead = maintenance.outbox_dead("e", None, 10).await.unwrap();
    assert_eq!(&*dead[0].error, "stored data is damaged");
}

/// A store on a disk that outlives it.
fn on(disk: &FaultyDisk, clock: &Clock) -> Store {
    let engine = disk.open(&OpenOptions::default()).unwrap().engine();
    let config = StoreConfig { expire_every_ms: 60_000, clock: clock.clone(), ..config() };
    Store::open(config, engine).unwrap()
}

/// After a crash the calls that were under way are made again with the same ids, those before them are not, and what is
/// committed meanwhile is in other calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_same_calls_have_the_same_ids() {
    let disk = FaultyDisk::new();
    let (clock, _manual) = Clock::manual(NOW_MS);
    let limits = OutboxLimits { call_entries_max: 2, ..OutboxLimits::default() };
    let config = || OutboxConfig { endpoints: vec![endpoint("e")], limits: limits.clone() };
    let post = Post::new();
    let store = on(&disk, &clock);
    start(&store, config(), &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    told(&store).await;
    say(&ann, &feed, "told").await;
    post.until_text("told").await;
    told(&store).await;
    post.answer(|call| if call.id.contains(":g:5") { Some(Ok(())) } else { None });
    store.admin(&admin()).unwrap().outbox_pause("e", true).await.unwrap();
    for n in 5..10 {
        say(&ann, &feed, &format!("m{n}")).await;
    }
    store.admin(&admin()).unwrap().outbox_pause("e", false).await.unwrap();
    post.until(|tries| tries.iter().any(|(_, ok)| ok.is_none())).await;
    // More comes while the window is open.
    say(&ann, &feed, "later").await;
    let before = post.ids();
    assert_eq!(before, ["e:g:4-4", "e:g:5-6", "e:g:7-8"]);
    drop((store, ann));

    let post = Post::new();
    let store = on(&disk, &clock);
    start(&store, config(), &post).await;
    post.until_text("later").await;
    assert_eq!(post.ids(), ["e:g:5-6", "e:g:7-8", "e:g:9-9", "e:g:10-10"]);
    assert!(store.drain(Duration::from_secs(10)).await);
}

/// A feed whose call fails again and again is told apart: others go on, its own order stays, and a crash changes no id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_stuck_holds_up_nobody_else_also_across_a_crash() {
    let disk = FaultyDisk::new();
    let (clock, _manual) = Clock::manual(NOW_MS);
    let limits = OutboxLimits { call_entries_max: 2, ..OutboxLimits::default() };
    let config = || OutboxConfig { endpoints: vec![endpoint("e")], limits: limits.clone() };
    let bad = |call: &Call| if call.feed.as_str() == "g" { refused(500) } else { Some(Ok(())) };
    let post = Post::answering(bad);
    let store = on(&disk, &clock);
    start(&store, config(), &post).await;
    let ann = store.gate(user("ann"));
    let (g, h) = (group(&store, "g", "ann", &["bob"]).await, group(&store, "h", "ann", &["bob"]).await);
    told(&store).await;
    // Begun with the first; what follows grows behind it.
    for n in 0..5 {
        say(&ann, &g, &format!("g{n}")).await;
        say(&ann, &h, &format!("h{n}")).await;
        post.until_text(&format!("h{n}")).await;
        told(&store).await;
    }
    let stuck = status(&store);
    assert!(stuck.parked == 1 && stuck.dead == 0 && stuck.lag_commits == 0, "{stuck:?}");
    let before: Vec<_> = post.calls().into_iter().filter(|call| call.feed == g).collect();
    assert!(before.iter().all(|call| call.id == "e:g:4-4"), "{:?}", post.ids());
    let attempts: Vec<u32> = before.iter().map(|call| call.attempt).collect();
    assert!(attempts.is_sorted() && attempts.len() > 3, "one call, counted on: {attempts:?}");
    drop((store, ann));

    let post = Post::answering(bad);
    let store = on(&disk, &clock);
    start(&store, config(), &post).await;
    let ann = store.gate(user("ann"));
    say(&ann, &g, "g5").await;
    say(&ann, &h, "h5").await;
    post.until_text("h5").await;
    told(&store).await;
    assert_eq!(status(&store).parked, 1);
    post.answer(|_| Some(Ok(())));
    let lines = post.until_text("g5").await;
    let of_g: Vec<_> =
        lines.iter().filter(|line| line.starts_with("g ")).map(|line| &line[line.len() - 3..]).collect();
    assert_eq!(of_g, ["g0\"", "g1\"", "g2\"", "g3\"", "g4\"", "g5\""], "{lines:?}");
    until_status(&store, |status| status.parked == 0).await;
    let mut ids: Vec<_> = post.ids().into_iter().filter(|id| id.starts_with("e:g:")).collect();
    ids.dedup();
    assert_eq!(ids, ["e:g:4-4", "e:g:5-6", "e:g:7-8", "e:g:9-9"]);
    // It is one of the others again.
    say(&ann, &g, "g6").await;
    post.until_text("g6").await;
    assert!(store.drain(Duration::from_secs(10)).await);
}

/// What was pushed before a restart is taken back when it was read after it, also when something newer was read with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_takes_back_what_was_told_before_a_restart() {
    let disk = FaultyDisk::new();
    let (clock, manual) = Clock::manual(NOW_MS);
    let post = Post::new();
    let store = on(&disk, &clock);
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let feed = group(&store, "g", "ann", &["bob"]).await;
    say(&store.gate(user("ann")), &feed, "one").await;
    post.until_text("one").await;
    told(&store).await;
    drop(store);

    manual.advance(1_000);
    let post = Post::new();
    let store = on(&disk, &clock);
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let attached = bob.attach(AttachTo::Mine(Vec::new())).await.unwrap();
    say(&ann, &feed, "two").await;
    bob.submit(mark("bob", &feed, Some(5), None)).await.unwrap();
    assert_eq!(post.until_text("read g 5").await, ["user:bob bob 0 after 0: read g 5"]);
    // From here on it is known that nothing is left.
    say(&ann, &feed, "three").await;
    bob.submit(mark("bob", &feed, Some(6), None)).await.unwrap();
    drop(attached);
    say(&ann, &feed, "four").await;
    assert_eq!(post.until_text("four").await[1..], ["g bob 1 after 6: 7 \"four\""]);
}

/// A call that died is for those it was for, however many have joined since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_later_takes_nobodys_place() {
    let post = Post::answering(|_| refused(422));
    let limits = OutboxLimits { members_max: 2, ..OutboxLimits::default() };
    let store = started(OutboxConfig { endpoints: vec![endpoint("e")], limits }, &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["x1", "x2"]).await;
    told(&store).await;
    say(&ann, &feed, "one").await;
    until_status(&store, |status| status.dead == 2).await;
    for n in 0..30 {
        add(&ann, &feed, &format!("b{n:02}")).await;
    }
    post.answer(|_| Some(Ok(())));
    store.admin(&admin()).unwrap().outbox_replay("e", Replay::Dead).await.unwrap();
    until_status(&store, |status| status.dead == 0 && status.replays == 0).await;
    assert_eq!(post.lines(), ["g x1 1 after 0: 5 \"one\"", "g x2 1 after 0: 5 \"one\""]);
}

/// While the store takes no writes, an endpoint that is gone is neither forgotten nor given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_while_the_store_is_full_is_paused_later() {
    let post = Post::answering(|_| refused(500));
    let (store, engine) = open(config());
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    say(&ann, &feed, "one").await;
    post.until(|tries| !tries.is_empty()).await;
    let admin = store.admin(&admin()).unwrap();
    engine.fail(Some(Fail::NoSpace));
    let gone = Arc::new(AtomicUsize::new(0));
    let count = gone.clone();
    post.answer(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        refused(410)
    });
    post.until(|_| gone.load(Ordering::SeqCst) > 1).await;
    assert_eq!(status(&store).paused, None);
    engine.fail(None);
    until_status(&store, |status| status.paused == Some(Pause::Gone)).await;
    post.answer(|_| Some(Ok(())));
    admin.outbox_pause("e", false).await.unwrap();
    post.until_text("one").await;
}

/// When everything fails there is no room to park: the log waits, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everything_fails_the_log_waits() {
    let post = Post::answering(|_| refused(500));
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let ann = store.gate(user("ann"));
    let mut feeds = Vec::new();
    for n in 0..150 {
        feeds.push(group(&store, &format!("g{n:03}"), "ann", &["bob"]).await);
    }
    for _ in 0..3 {
        for feed in &feeds {
            say(&ann, feed, "word").await;
        }
    }
    // More tries than all feeds together would have before they are parked.
    let failing = until_status(&store, |status| status.retried > 1_000).await;
    assert!(failing.parked <= 64 && failing.lag_commits > 0, "{failing:?}");
    post.answer(|_| Some(Ok(())));
    until_status(&store, |status| status.lag_commits == 0 && status.parked == 0).await;
    let mut seen: BTreeMap<FeedId, Vec<u64>> = BTreeMap::new();
    for (call, ok) in post.tries.lock().unwrap().iter().filter(|(_, ok)| *ok == Some(true)) {
        assert_eq!(*ok, Some(true));
        seen.entry(call.feed.clone()).or_default().extend(call.items.iter().map(|item| item.seq.0));
    }
    assert_eq!(seen, feeds.into_iter().map(|feed| (feed, vec![4, 5, 6])).collect());
}

/// Where change rows are gone the heads of all feeds are looked at, and the same is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_far_behind_looks_at_feeds_by_name() {
    let disk = FaultyDisk::new();
    let (clock, _manual) = Clock::manual(NOW_MS);
    let engine = disk.open(&OpenOptions::default()).unwrap().engine();
    let store = Store::open(StoreConfig { clock, ..config() }, engine.clone()).unwrap();
    let post = Post::new();
    start(&store, outbox(vec![endpoint("e")]), &post).await;
    let admin = store.admin(&admin()).unwrap();
    admin.outbox_pause("e", true).await.unwrap();
    let ann = store.gate(user("ann"));
    let mut feeds = Vec::new();
    for n in 0..300 {
        feeds.push(group(&store, &format!("g{n:03}"), "ann", &["bob"]).await);
    }
    for feed in &feeds {
        say(&ann, feed, "one").await;
    }
    engine.prune_changes(store.commit_no() - 10).unwrap();
    admin.outbox_pause("e", false).await.unwrap();
    told(&store).await;
    let mut told: Vec<_> = post.calls().into_iter().map(|call| (call.feed, call.items[0].seq)).collect();
    told.sort();
    assert_eq!(told, feeds.into_iter().map(|feed| (feed, SeqId(4))).collect::<Vec<_>>());
}

/// Large groups are told in parts, each member once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_groups_are_told_in_parts() {
    let post = Post::new();
    for (members, parts) in [(3, 1), (4, 2), (9, 3)] {
        let limits = OutboxLimits { members_max: 4, ..OutboxLimits::default() };
        let store = started(OutboxConfig { endpoints: vec![endpoint("e")], limits }, &post).await;
        post.tries.lock().unwrap().clear();
        let names: Vec<String> = (0..members).map(|n| format!("u{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let feed = group(&store, "g", "ann", &names).await;
        say(&store.gate(user("ann")), &feed, "hello").await;
        post.until(|tries| tries.len() == parts).await;
        let calls = post.calls();
        let told: Vec<_> =
            calls.iter().flat_map(|call| call.to.iter().map(|to| to.uid.to_string())).collect();
        assert_eq!(told, names, "{members}");
        let mut ids = post.ids();
        ids.dedup();
        assert_eq!(ids.len(), parts);
    }
}

/// Who may not read is not told: former members, and what lies before joining.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_who_may_read_are_told() {
    let post = Post::answering(|_| refused(500));
    let store = started(outbox(vec![endpoint("e")]), &post).await;
    let ann = store.gate(user("ann"));
    let feed = feed("g");
    let mut created = create(FeedKind::Group, &["bob", "cat"]);
    created.history = feedlog_core::event::HistoryMode::SinceJoin;
    act(&ann, &feed, Action::CreateFeed(created)).await.unwrap();
    let admin = store.admin(&admin()).unwrap();
    admin.outbox_pause("e", true).await.unwrap();
    say(&ann, &feed, "before").await;
    add(&ann, &feed, "dan").await;
    say(&ann, &feed, "after").await;
    remove(&ann, &feed, "cat").await;
    post.answer(|_| Some(Ok(())));
    admin.outbox_pause("e", false).await.unwrap();
    let lines = post.until_text("after").await;
    assert_eq!(
        lines,
        [
            "g bob 2 after 2: 5 \"before\"",
            "g bob 2 after 2: 7 \"after\"",
            // From the place of joining on.
            "g dan 1 after 5: 7 \"after\"",
        ]
    );
}

/// However many strangers have sent to an open feed, those for whom it counts are told, in parts of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_open_feeds_hide_nobody() {
    let post = Post::new();
    let limits = OutboxLimits { members_max: 2, ..OutboxLimits::default() };
    let store = started(OutboxConfig { endpoints: vec![endpoint("e")], limits }, &post).await;
    for name in ["abe", "zoe", "bob"] {
        publish(&store.gate(user(name)), "room", name).await;
    }
    for n in 0..20 {
        let mut stranger = user(&format!("anon:{n}"));
        (stranger.anonymous, stranger.scopes) = (true, Default::default());
        publish(&store.gate(stranger), "room", "hello").await;
    }
    told(&store).await;
    post.tries.lock().unwrap().clear();
    publish(&store.gate(user("bob")), "room", "news").await;
    post.until(|tries| tries.len() == 2).await;
    let lines = post.lines();
    let whom: Vec<_> = lines.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(whom, ["abe", "zoe"], "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_personal_feed_tells_its_user() {
    let post = Post::new();
    let endpoints = vec![Endpoint { feeds: vec![pattern("user:bob")], ..endpoint("e") }];
    let store = started(outbox(endpoints), &post).await;
    let service = store.gate(admin());
    let personal = FeedId::personal(&uid("bob"));
    say(&service, &personal, "a parcel").await;
    let notify = Action::Notify { content_type: "text/plain".into(), payload: "at the door".into() };
    act(&service, &personal, notify).await.unwrap();
    let lines = post.until_text("at the door").await;
    assert_eq!(
        lines,
        [
            "user:bob bob 1 after 0: 2 \"a parcel\"".to_owned(),
            "user:bob bob 1 after 0: 3 notice at the door".to_owned(),
        ]
    );
}

/// That something was read is told to those who are told of the feed that was read, whoever's feed says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_belong_to_the_feed_that_was_read() {
    let post = Post::new();
    let endpoints = vec![
        Endpoint { feeds: vec![pattern("g")], kinds: vec![FeedKind::Group], ..endpoint("g") },
        Endpoint { feeds: vec![pattern("h")], ..endpoint("h") },
    ];
    let store = started(outbox(endpoints), &post).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for name in ["g", "h"] {
        let feed = group(&store, name, "ann", &["bob"]).await;
        say(&ann, &feed, name).await;
        post.until_text(&format!("\"{name}\"")).await;
        bob.submit(mark("bob", &feed, Some(4), None)).await.unwrap();
        post.until_text(&format!("read {name} 4")).await;
    }
    let told = post.calls();
    assert!(
        told.iter().all(|call| lines_of(call).iter().all(|line| line.contains(&*call.endpoint))),
        "{told:?}"
    );
    assert_eq!(told.len(), 4);
}

/// A call holds a bounded number of payload bytes; what does not fit is left out and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_beyond_the_bound_are_left_out() {
    let post = Post::new();
    let limits = OutboxLimits { call_bytes_max: 10, ..OutboxLimits::default() };
    let store = started(OutboxConfig { endpoints: vec![endpoint("e")], limits }, &post).await;
    let ann = store.gate(user("ann"));
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let admin = store.admin(&admin()).unwrap();
    admin.outbox_pause("e", true).await.unwrap();
    // With its quotes a text is two bytes longer.
    for text in ["1234", "56789", "abcd", "", "12345678"] {
        say(&ann, &feed, text).await;
    }
    say(&ann, &feed, "123456789").await;
    admin.outbox_pause("e", false).await.unwrap();
    post.until(|tries| tries.len() == 1).await;
    let shown: Vec<_> = post.lines().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(shown, ["\"1234\"", "…", "…", "\"\"", "…", "…"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_endpoints_are_checked() {
    let (store, _) = open(config());
    let post = Post::new();
    for names in [&["a", "a"][..], &["A"], &[""], &["a.b"]] {
        let config = outbox(names.iter().map(|name| endpoint(name)).collect());
        assert!(store.start_outbox(config, post.clone()).is_err(), "{names:?}");
    }
    store.start_outbox(outbox(vec![endpoint("a-1_b")]), post.clone()).unwrap();
    assert!(store.start_outbox(outbox(Vec::new()), post).is_err());
}
