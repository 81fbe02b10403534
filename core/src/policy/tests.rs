use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::command::Action;
use crate::event::{Event, HistoryMode, JoinMode, Role};
use crate::ids::{ReactionKey, TimeMs};
use crate::rows::{RowKey, RowValue};
use crate::testing::*;

const NOT_FOUND: &str = "no such feed";
const FORBIDDEN: &str = "not allowed";
const UNKNOWN_CALLER: &str = "authentication is required";

fn check(scene: &Scene, feed: &FeedId, cases: Vec<(&str, Action, &str)>) {
    for (who, action, then) in cases {
        let what = format!("{who}: {action:?}");
        assert_eq!(told(&scene.when(who, feed, action)), then, "{what}");
    }
}

fn remove(name: &str) -> Action {
    Action::RemoveMember { uid: uid(name), reason: None }
}

fn add(name: &str, role: Role) -> Action {
    Action::AddMember { uid: uid(name), role }
}

fn role(name: &str, role: Role) -> Action {
    Action::ChangeRole { uid: uid(name), role }
}

fn title() -> Action {
    Action::ChangeFeed { title: Some(Arc::from("new")), join: None, history: None, meta: None }
}

fn join() -> Action {
    Action::Join { reason: None }
}

fn marks(feed: &FeedId, read: u64) -> Action {
    Action::MoveMarks { feed: feed.clone(), read: Some(SeqId(read)), received: None, unread_from: None }
}

#[test]
fn i4_roles_of_a_group() {
    let scene = Scene::group(JoinMode::Approval, HistoryMode::All);
    let feed = feed_id("g");
    check(
        &scene,
        &feed,
        vec![
            ("carol", send("hello"), "MessageSent"),
            ("carol", title(), FORBIDDEN),
            ("bob", title(), "FeedChanged"),
            ("alice", title(), "FeedChanged"),
            // Members are added by the owner and admins, admins named by the owner alone.
            ("carol", add("erin", Role::Member), FORBIDDEN),
            ("bob", add("erin", Role::Member), "MemberJoined"),
            ("bob", add("erin", Role::Admin), FORBIDDEN),
            ("alice", add("erin", Role::Admin), "MemberJoined"),
            ("alice", add("erin", Role::Owner), "role: an owner is named by handing over"),
            ("alice", add("carol", Role::Member), "already 4"),
            ("alice", add("carol", Role::Admin), "already exists"),
            ("bob", role("carol", Role::Admin), FORBIDDEN),
            ("alice", role("carol", Role::Admin), "RoleChanged"),
            ("alice", role("carol", Role::Member), "already 0"),
            ("alice", role("erin", Role::Admin), "no such member"),
            ("alice", role("alice", Role::Member), "the owner hands the feed on by naming another owner"),
            ("bob", role("bob", Role::Owner), FORBIDDEN),
            ("alice", role("bob", Role::Owner), "RoleChanged+RoleChanged"),
            // An admin removes members, but not the owner or other admins.
            ("carol", remove("dave"), FORBIDDEN),
            ("bob", remove("dave"), "MemberRemoved"),
            ("bob", remove("alice"), FORBIDDEN),
            ("alice", remove("bob"), "MemberRemoved"),
            ("alice", remove("erin"), "no such member"),
            ("carol", remove("carol"), "MemberLeft"),
            ("bob", remove("bob"), "MemberLeft"),
            ("alice", remove("alice"), "the owner cannot leave without naming another"),
            // An administrator manages the group like its owner, but is not heard in it.
            ("root+admin", role("carol", Role::Owner), "RoleChanged+RoleChanged"),
            ("root+admin", remove("bob"), "MemberRemoved"),
            ("root+admin", remove("alice"), "the owner cannot leave without naming another"),
            ("root+admin", title(), "FeedChanged"),
            ("root+admin", send("hello"), FORBIDDEN),
            // A service that acts for carol has carol's rights, whatever else it may do.
            ("svc>carol", send("hello"), "MessageSent"),
            ("svc>carol", title(), FORBIDDEN),
            ("svc+send_as", send("hello"), FORBIDDEN),
            ("eve+audit", send("hello"), FORBIDDEN),
        ],
    );
}

#[test]
fn i4_strangers_learn_only_what_they_may() {
    let feed = feed_id("g");
    for (mode, answer) in
        [(JoinMode::Open, FORBIDDEN), (JoinMode::Approval, FORBIDDEN), (JoinMode::Invite, NOT_FOUND)]
    {
        let scene = Scene::group(mode, HistoryMode::All);
        let react = Action::React { target: SeqId(1), key: ReactionKey::parse("x").unwrap(), on: true };
        let cases =
            [send("x"), title(), remove("carol"), remove("erin"), recall(1), react, add("x", Role::Member)];
        check(&scene, &feed, cases.map(|action| ("erin", action, answer)).into());
        let joins = match mode {
            JoinMode::Open => "MemberJoined",
            JoinMode::Approval => "JoinRequested",
            JoinMode::Invite => NOT_FOUND,
        };
        check(&scene, &feed, vec![("erin", join(), joins), ("carol", join(), "already 4")]);
    }
    // The same answer as for a feed that is not there.
    let cases = [send("x"), title(), remove("carol"), join(), recall(1)];
    check(&Scene::new(), &feed, cases.map(|action| ("erin", action, NOT_FOUND)).into());
}

#[test]
fn requests_to_join_are_decided_by_managers() {
    let mut scene = Scene::group(JoinMode::Approval, HistoryMode::All);
    let feed = feed_id("g");
    let decide = |name: &str, agree| Action::DecideJoin { uid: uid(name), agree };
    check(&scene, &feed, vec![("bob", decide("erin", true), "no such member")]);
    let asked = scene.does("erin", &feed, join());
    let again = scene.when("erin", &feed, join());
    assert_eq!(told(&again), format!("already {asked}"));
    check(
        &scene,
        &feed,
        vec![
            ("carol", decide("erin", true), FORBIDDEN),
            ("erin", decide("erin", true), FORBIDDEN),
            ("bob", decide("erin", true), "JoinDecided+MemberJoined"),
            ("bob", decide("erin", false), "JoinDecided"),
        ],
    );
    scene.does("bob", &feed, decide("erin", false));
    check(
        &scene,
        &feed,
        vec![("erin", join(), "JoinRequested"), ("bob", decide("erin", true), "no such member")],
    );
}

#[test]
fn direct_feeds_are_for_two() {
    let scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    check(
        &scene,
        &feed,
        vec![
            ("alice", send("x"), "MessageSent"),
            ("bob", send("x"), "MessageSent"),
            ("carol", send("x"), NOT_FOUND),
            ("svc+send_as", send("x"), NOT_FOUND),
            ("svc>bob", send("x"), "MessageSent"),
            ("root+admin", send("x"), FORBIDDEN),
            ("anon:1", send("x"), UNKNOWN_CALLER),
            ("alice", title(), FORBIDDEN),
            ("alice", remove("bob"), "only groups have members that come and go"),
            ("alice", join(), "only groups have members that come and go"),
        ],
    );
}

#[test]
fn the_first_send_creates_direct_and_open_feeds_where_asked() {
    let scene = Scene::new();
    let pair = direct_id("alice", "bob");
    let to_pair = |members: &[&str]| {
        let members = create(FeedKind::Direct, members);
        send_with("x", |draft| draft.create = Some(members))
    };
    let created = "FeedCreated+MessageSent";
    check(
        &scene,
        &pair,
        vec![
            ("alice", send("x"), NOT_FOUND),
            ("alice", to_pair(&["bob"]), created),
            ("alice", to_pair(&["bob", "alice"]), created),
            ("svc+send_as", to_pair(&["bob", "alice"]), created),
            ("carol", to_pair(&["bob", "alice"]), FORBIDDEN),
            // A name that is not the pair's is answered like a feed of others.
            ("carol", to_pair(&["bob"]), NOT_FOUND),
            ("alice", to_pair(&["alice"]), "members: must name exactly two different users"),
            ("alice", to_pair(&["a", "b", "alice"]), "members: must name exactly two different users"),
        ],
    );
    let open = || send_with("x", |draft| draft.create = Some(create(FeedKind::Open, &[])));
    check(&scene, &feed_id("room"), vec![("alice", open(), created), ("alice", send("x"), NOT_FOUND)]);
    check(&scene, &feed_id("room"), vec![("anon:1", open(), UNKNOWN_CALLER)]);
    check(&scene, &feed_id("user:bob"), vec![("alice", open(), NOT_FOUND), ("bob", open(), FORBIDDEN)]);
    check(&scene, &feed_id("direct:1"), vec![("alice", open(), NOT_FOUND)]);
    // A wire for open feeds is not let into a group that has the name.
    let group = Scene::group(JoinMode::Open, HistoryMode::All);
    check(&group, &feed_id("g"), vec![("carol", open(), FORBIDDEN), ("erin", open(), FORBIDDEN)]);
}

#[test]
fn open_feeds_are_for_everybody_and_anonymous_where_configured() {
    let mut scene = Scene::open("room", "alice");
    let feed = feed_id("room");
    scene.add(&feed, "alice", message(|_| {}));
    scene.add(&feed, "anon:1", message(|_| {}));
    let cases = || {
        vec![
            ("carol", send("x"), "MessageSent"),
            ("carol", recall(2), FORBIDDEN),
            ("alice", recall(2), "MessageRecalled"),
            ("svc+send_as", recall(2), "MessageRecalled"),
            ("root+admin", recall(2), "MessageRecalled"),
            ("carol", title(), FORBIDDEN),
            ("alice", title(), "FeedChanged"),
        ]
    };
    check(&scene, &feed, cases());
    check(&scene, &feed, vec![("anon:1", send("x"), UNKNOWN_CALLER)]);
    scene.settings.anonymous_open_feeds = true;
    check(&scene, &feed, cases());
    check(
        &scene,
        &feed,
        vec![
            ("anon:1", send("x"), "MessageSent"),
            ("anon:1", recall(3), "MessageRecalled"),
            ("anon:1", recall(2), FORBIDDEN),
            ("anon:1", title(), UNKNOWN_CALLER),
        ],
    );
    // Existing or not, everything else has one answer.
    for name in ["user:alice", "elsewhere", "direct:1"] {
        check(&scene, &feed_id(name), vec![("anon:1", send("x"), UNKNOWN_CALLER)]);
    }
}

#[test]
fn personal_feeds_are_for_their_user_and_services() {
    let group = feed_id("g");
    let own = feed_id("user:carol");
    let notify =
        || Action::Notify { content_type: Arc::from("text/plain"), payload: Bytes::from_static(b"x") };
    // Before it exists and after: the same answers to those who may not know.
    let absent = Scene::group(JoinMode::Invite, HistoryMode::All);
    let present = Scene::group(JoinMode::Invite, HistoryMode::All).personal("carol");
    for (scene, created) in [(absent, "FeedCreated+"), (present, "")] {
        let with = |event: &str| format!("{created}{event}");
        let (sent, notified, moved) = (with("MessageSent"), with("Notified"), with("MarkMoved"));
        check(
            &scene,
            &own,
            vec![
                ("carol", send("x"), &sent),
                ("svc+send_as", send("x"), &sent),
                ("svc+send_as", notify(), &notified),
                ("carol", notify(), &notified),
                ("svc>carol", marks(&group, 3), &moved),
                ("carol", marks(&group, 3), &moved),
                ("alice", marks(&group, 3), NOT_FOUND),
                ("alice", send("x"), NOT_FOUND),
                ("root+admin", send("x"), NOT_FOUND),
                // Nobody else's place, and no place where one may not read.
                ("carol", marks(&feed_id("elsewhere"), 3), NOT_FOUND),
                ("carol", marks(&direct_id("alice", "bob"), 3), NOT_FOUND),
            ],
        );
    }
    let scene = Scene::group(JoinMode::Open, HistoryMode::All).personal("erin");
    check(&scene, &feed_id("user:erin"), vec![("erin", marks(&group, 3), FORBIDDEN)]);
}

#[test]
fn only_administrators_expire_and_erase() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let soon: TimeMs = scene.now_ms + 2;
    scene.add(&feed, "carol", message(|m| m.expires_ms = Some(soon)));
    scene.now_ms = soon;
    let expire = || Action::ExpireMessages { targets: vec![SeqId(7), SeqId(3), SeqId(99)], early: false };
    let erase = || Action::EraseMessages { targets: vec![SeqId(7)], reason: None };
    check(
        &scene,
        &feed,
        vec![
            ("alice", expire(), FORBIDDEN),
            ("alice", erase(), FORBIDDEN),
            ("svc+send_as", erase(), FORBIDDEN),
            ("root+admin", expire(), "MessagesExpired"),
            ("root+admin", erase(), "MessagesErased"),
        ],
    );
    check(&scene, &feed_id("no"), vec![("root+admin", erase(), NOT_FOUND), ("alice", erase(), FORBIDDEN)]);
    // A hold wins over both.
    scene.add(&feed, "root", Event::HoldPlaced { hold: Arc::from("case 1") });
    let held = "the feed is under a legal hold";
    check(&scene, &feed, vec![("root+admin", expire(), held), ("root+admin", erase(), held)]);
    scene.add(&feed, "root", Event::HoldLifted { hold: Arc::from("case 1") });
    check(&scene, &feed, vec![("root+admin", expire(), "MessagesExpired")]);
}

fn reads(scene: &Scene, who: &str, feed: &FeedId) -> Result<ReadScope, Denied> {
    let principal = principal(who);
    let row = |key| scene.store.rows.get(&key).cloned();
    let state = row(RowKey::Feed(feed.clone())).and_then(RowValue::into_feed);
    let member = row(RowKey::Member(feed.clone(), principal.uid.clone())).and_then(RowValue::into_member);
    may_read(&principal, feed, state.as_deref(), member.as_ref(), &scene.settings)
}

#[test]
fn i4_who_reads_what() {
    let scope = |first, contents, manages| Ok(ReadScope { first: SeqId(first), contents, manages });
    let mut since = Scene::group(JoinMode::Approval, HistoryMode::SinceJoin);
    let group = feed_id("g");
    assert_eq!(reads(&since, "alice", &group), scope(2, true, true));
    assert_eq!(reads(&since, "bob", &group), scope(3, true, true));
    assert_eq!(reads(&since, "carol", &group), scope(4, true, false));
    assert_eq!(reads(&since, "svc>carol", &group), scope(4, true, false));
    assert_eq!(reads(&since, "erin", &group), scope(1, false, false));
    assert_eq!(reads(&since, "erin", &group).unwrap().contents(), Err(Denied::Forbidden));
    assert_eq!(reads(&since, "eve+audit", &group), scope(1, true, false));
    assert_eq!(reads(&since, "root+admin", &group), scope(1, false, true));
    assert_eq!(reads(&since, "svc+send_as", &group), scope(1, false, false));
    assert_eq!(reads(&since, "anon:1", &group), Err(Denied::Unauthenticated));
    // After leaving nothing is readable; rejoining starts anew.
    since.does("carol", &group, remove("carol"));
    assert_eq!(reads(&since, "carol", &group), scope(1, false, false));
    let joined = since.does("bob", &group, add("carol", Role::Member));
    assert_eq!(reads(&since, "carol", &group), scope(joined.0, true, false));

    let invite = Scene::group(JoinMode::Invite, HistoryMode::All);
    assert_eq!(reads(&invite, "carol", &group), scope(1, true, false));
    assert_eq!(reads(&invite, "erin", &group), Err(Denied::FeedNotFound));
    assert_eq!(reads(&invite, "erin", &feed_id("none")), Err(Denied::FeedNotFound));

    let direct = Scene::direct("alice", "bob");
    let pair = direct_id("alice", "bob");
    assert_eq!(reads(&direct, "bob", &pair), scope(1, true, false));
    assert_eq!(reads(&direct, "carol", &pair), Err(Denied::FeedNotFound));
    assert_eq!(reads(&direct, "svc+send_as", &pair), Err(Denied::FeedNotFound));
    assert_eq!(reads(&direct, "eve+audit", &pair), scope(1, true, false));

    let personal = Scene::new().personal("alice");
    assert_eq!(reads(&personal, "alice", &feed_id("user:alice")), scope(1, true, false));
    assert_eq!(reads(&personal, "svc+send_as", &feed_id("user:alice")), Err(Denied::FeedNotFound));

    let mut open = Scene::open("room", "alice");
    assert_eq!(reads(&open, "erin", &feed_id("room")), scope(1, true, false));
    assert_eq!(reads(&open, "anon:1", &feed_id("room")), Err(Denied::Unauthenticated));
    open.settings.anonymous_open_feeds = true;
    assert_eq!(reads(&open, "anon:1", &feed_id("room")), scope(1, true, false));
    assert_eq!(reads(&open, "anon:1", &feed_id("none")), Err(Denied::Unauthenticated));
}
