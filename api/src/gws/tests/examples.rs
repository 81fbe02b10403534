//! Every literal example of the page on gotapi-ws.

use serde_json::json;

use super::world::*;

const GOD_BLESS_U: &str = r#"{"body":{"sent":false,"data":"god bless u","hash":"eb2ef7838a7a57d755378bd25208020c"},"type":2,"uuid":"63961120969007587271"}"#;
const PING: &str = r#"{"type":1,"command":5,"uuid":"63961120969007587272","body":{"sent":false,"data":"","hash":"d41d8cd98f00b204e9800998ecf8427e"}}"#;

#[tokio::test]
async fn a_packet_is_acknowledged_and_handed_on_byte_for_byte() {
    let world = World::new().await;
    let mut ann = world.join("/room/9527/").await;
    let mut bob = world.join("/room/9527/").await;
    ann.send(PING).await;
    ann.send(GOD_BLESS_U).await;
    ann.gets(ack("63961120969007587271")).await;
    bob.gets(GOD_BLESS_U).await;
    // Not to the sender: the next that comes is bob's.
    bob.send(&packet("2", "amen")).await;
    bob.gets(ack("2")).await;
    ann.gets(packet("2", "amen")).await;
    assert_eq!(packet("63961120969007587271", "god bless u"), GOD_BLESS_U);
    assert_eq!(world.history("/room/9527/", 0, 10).await, [packet("2", "amen"), GOD_BLESS_U.to_owned()]);
}

#[tokio::test]
async fn a_post_is_a_frame() {
    let world = World::new().await;
    let mut ann = world.join("/room/9527/").await;
    let got = world.ask("POST /room/9527/", "content-type: text/nonsense\r\n", b"hello").await;
    assert_eq!((got.status, got.json()), (200, json!({"code": 200, "group": "/room/9527/"})));
    ann.gets("hello").await;
    // As curl sends it, a packet of a widget that omits `sent`.
    let widget =
        r#"{"type":2,"uuid":"0cc175b9c0f1b6a831c399e269772661","body":{"data":{"text":"hi"},"hash":"x"}}"#;
    let got = world.form("/room/9527/", widget).await;
    assert_eq!(got.body, r#"{"code":200,"group":"/room/9527/"}"#);
    ann.gets(widget).await;
    assert_eq!(world.post("/room/9527/", "").await.body, r#"{"code":406,"msg":"data missing"}"#);
    assert_eq!(world.post("/room/9527/", "").await.status, 406);
    assert_eq!(world.history("/room/9527/", 0, 10).await, [widget]);
}

#[tokio::test]
async fn a_get_on_a_room_that_does_not_upgrade_is_400() {
    let world = World::new().await;
    for path in ["/room/9527/", "/", "/timer"] {
        let got = world.ask(&format!("GET {path}"), "", b"").await;
        assert_eq!((got.status, got.json()["code"].as_u64()), (400, Some(400)), "{path}");
    }
    let got = world.ask("DELETE /room", "", b"").await;
    assert_eq!(got.status, 405);
    assert!(got.head.contains("allow: GET, HEAD"), "{got:?}");
}

#[tokio::test]
async fn a_history_is_asked_for_by_query_by_form_and_by_both() {
    let world = World::new().await;
    for uuid in ["u1", "u2", "u3"] {
        world.post("/room/a", &packet(uuid, uuid)).await;
    }
    let expected = json!({
        "code": 200, "position": 0, "msg": "",
        "data": [packet("u3", "u3"), packet("u2", "u2"), packet("u1", "u1")],
    });
    let (query, form) =
        ("groupName=%2Froom%2Fa&size=100&position=0", "groupName=/room/a&size=100&position=0");
    for slash in ["", "/"] {
        let path = format!("/__/history{slash}");
        for got in [
            world.post(&format!("{path}?{query}"), "").await,
            world.form(&path, form).await,
            world.form(&format!("{path}?size=100"), "groupName=%2Froom%2Fa").await,
            world.post(&format!("{path}?groupName=%2Froom%2Fa&size=many&position=x"), "").await,
        ] {
            assert_eq!((got.status, got.json()), (200, expected.clone()));
        }
    }
    let got = world.form("/__/history/", "groupName=%2Froom%2Fa&size=1&position=1").await;
    let one = serde_json::to_string(&packet("u2", "u2")).unwrap();
    assert_eq!(got.body, format!(r#"{{"code":200,"position":1,"msg":"","data":[{one}]}}"#));
    // Never null, also of a room that nobody wrote to; and the group must be named.
    let got = world.post("/__/history/?groupName=%2Fnobody", "").await;
    assert_eq!(got.body, r#"{"code":200,"position":0,"msg":"","data":[]}"#);
    let got = world.post("/__/history/", "").await;
    assert_eq!(got.said(), (200, 403, "groupName missing".into()));
    assert_eq!(got.json()["data"], json!([]));
    assert_eq!(world.ask("GET /__/history/", "", b"").await.status, 405);
}

/// The table of positions, through the server: m10 is the newest.
#[tokio::test]
async fn every_row_of_the_table_of_positions_from_the_ordinal_index() {
    let world = World::new().await;
    for n in 1..=10 {
        // Raw frames between have no place in it.
        world.post("/room/a", "raw").await;
        world.post("/room/a", &packet(&format!("m{n}"), "x")).await;
    }
    let all: Vec<u64> = (1..=10).rev().collect();
    let rows: [(i64, i64, &[u64]); 14] = [
        (0, 3, &[10, 9, 8]),
        (3, 3, &[7, 6, 5]),
        (8, 5, &[2, 1]),
        (20, 5, &[]),
        (-3, 3, &[3, 2, 1]),
        (-5, 2, &[5, 4]),
        (-3, 5, &[3, 2, 1]),
        (-50, 50, &all),
        (-50, 45, &[10, 9, 8, 7, 6]),
        (-50, 20, &[]),
        (-12, 5, &[]),
        (0, 0, &all),
        (0, -1, &all[..9]),
        (i64::MIN, i64::MAX, &all[..9]),
    ];
    for (position, size, expected) in rows {
        let expected: Vec<String> = expected.iter().map(|n| packet(&format!("m{n}"), "x")).collect();
        assert_eq!(world.history("/room/a", position, size).await, expected, "{position}, {size}");
    }
    // Cancelled ones leave after the range was taken: the page is shorter, the positions still count them.
    world.form("/__/cancel", "groupName=/room/a&uuid=m9").await;
    let kept = [packet("m10", "x"), packet("m8", "x")];
    assert_eq!(world.history("/room/a", 0, 3).await, kept);
    assert_eq!(world.history("/room/a", 3, 1).await, [packet("m7", "x")]);
    assert_eq!(world.history("/room/a", 1, 1).await, [""; 0]);
}

#[tokio::test]
async fn a_cancel_says_what_the_original_says_in_valid_json() {
    let world = World::new().await;
    world.post("/room/a", GOD_BLESS_U).await;
    let md5 = crate::gws::packet::hash(GOD_BLESS_U.as_bytes());
    let got = world.form("/__/cancel", "groupName=%2Froom%2Fa&uuid=63961120969007587271").await;
    assert_eq!(got.body, format!(r#"{{"code":200,"msg":"uuid found and saved in blacklist:{md5}"}}"#));
    // Again, with the slash and in the query: it stays so, and its hash is not told any more.
    let got = world.post("/__/cancel/?groupName=%2Froom%2Fa&uuid=63961120969007587271", "").await;
    assert_eq!(got.said(), (200, 200, "uuid found and saved in blacklist:".into()));
    assert_eq!(world.history("/room/a", 0, 0).await, [""; 0]);
    for (form, code, msg) in [
        ("groupName=/room/a&uuid=nobody", 404, "uuid not found"),
        ("groupName=/nowhere&uuid=1", 404, "uuid not found"),
        ("groupName=/room/a&uuid=/room/a:99", 404, "uuid not found"),
        ("uuid=1", 403, "groupName missing"),
        ("groupName=&uuid=1", 403, "groupName missing"),
        ("groupName=/room/a", 403, "uuid missing"),
    ] {
        assert_eq!(world.form("/__/cancel", form).await.said(), (200, code, msg.into()), "{form}");
    }
}

#[tokio::test]
async fn the_status_is_ok_and_other_reserved_paths_are_nothing() {
    let world = World::new().await;
    let got = world.ask("GET /__status", "", b"").await;
    assert_eq!((got.status, got.body.as_str()), (200, "status ok!"));
    assert_eq!(world.ask("GET /__/", "", b"").await.said().1, 404);
    assert_eq!(world.ask("POST /__/nothing", "", b"x").await.said().1, 404);
    assert_eq!(world.refused("/__/history").await, 405);
    assert_eq!(world.refused("/__status").await, 200);
}

#[tokio::test]
async fn live_rooms_are_listed_for_administrators() {
    let world = World::configured(
        crate::gws::GwsConfig::default(),
        crate::http::HttpConfig::default(),
        closed_auth(),
    )
    .await;
    let _b = world.join(&format!("/b?token={ADMIN}")).await;
    let _a = world.join(&format!("/a%20b/?token={ADMIN}")).await;
    let groups = format!("GET /__/groups?secret={ADMIN}");
    // A connection is in its room before it hears so.
    assert_eq!(world.ask(&groups, "", b"").await.body, "/a b/\n/b");
    assert_eq!(world.ask(&format!("GET /__/groups/?token={ADMIN}"), "", b"").await.body, "/a b/\n/b");
    let bearer = format!("authorization: Bearer {ADMIN}\r\n");
    assert_eq!(world.ask("GET /__/groups", &bearer, b"").await.body, "/a b/\n/b");
    assert_eq!(world.ask("GET /__/groups", "", b"").await.said().1, 401);
    assert_eq!(world.ask("GET /__/groups?secret=wrong", "", b"").await.status, 401);
    let open = World::new().await;
    assert_eq!(open.ask("GET /__/groups?token=ann", "", b"").await.said(), (403, 403, "not allowed".into()));
    assert_eq!(open.ask("GET /__/groups", "", b"").await.status, 401, "anonymous callers administer nothing");
}

#[tokio::test]
async fn the_timer_sends_the_time_and_takes_nothing() {
    let world = World::new().await;
    let mut ann = world.join("/timer").await;
    ann.send("ignored").await;
    ann.send(&packet("1", "ignored")).await;
    ann.gets("1700000000").await;
    world.clock.advance(61_000);
    loop {
        match ann.text().await.as_str() {
            "1700000000" => {}
            other => break assert_eq!(other, "1700000061"),
        }
    }
    assert_eq!(world.post("/timer", "ignored").await.json(), json!({"code": 200, "group": "/timer"}));
    // The trailing slash makes another path of it, and that is a room.
    let mut room = world.join("/timer/").await;
    room.is_quiet("2").await;
}
