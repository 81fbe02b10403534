//! Logs in, logs out: import, export, verify, backup, restore.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{ENGINE, Server, run};

const IRC: &str = "=== ann [n=ann@x] has joined #ubuntu\n\
[09:21] <ann> hi there\n\
[09:21] <bob[1] > ann: hello\n\
[09:22] <ann>\n\
[09:22]  * bob[1]  waves\n\
[09:23] <ann> ünïcödé \"quotes\" \\ and \u{2}control\n";

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn irc_is_imported_in_order_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(&dir.path().join("data"));
    let file = write(dir.path(), "2004-12-25.train-c.raw.txt", IRC);
    let first = server.json("admin", &["import", "--format", "irc", text(&file)]);
    assert_eq!((&first["messages"], &first["appended"]), (&4.into(), &4.into()), "{first}");
    assert_eq!(first["members_joined"], 2);
    assert_eq!(first["skipped"], serde_json::json!({"join": 1, "action": 1}));
    let before = server.json("admin", &["pull", "irc/2004-12-25.train-c", "--after", "0"]);
    let again = server.json("admin", &["import", "--format", "irc", text(&file)]);
    assert_eq!((&again["appended"], &again["duplicates"]), (&0.into(), &4.into()), "{again}");
    assert_eq!((&again["feeds_created"], &again["members_joined"]), (&0.into(), &0.into()));
    let after = server.json("admin", &["pull", "irc/2004-12-25.train-c", "--after", "0"]);
    assert_eq!(before, after, "importing again adds nothing");

    let entries = after["entries"].as_array().unwrap();
    let said: Vec<_> = entries.iter().filter(|entry| entry["type"] == "message").collect();
    let senders: Vec<_> = said.iter().map(|entry| entry["sender"].as_str().unwrap()).collect();
    assert_eq!(senders, ["ann", "bob[1]", "ann", "ann"]);
    assert_eq!(said[0]["client_msg_id"], "2004-12-25.train-c.raw.txt:2");
    assert_eq!(said[0]["sent_ms"], 1_103_932_800_000_u64 + (9 * 60 + 21) * 60_000);
    assert_eq!(said[2]["payload"], "");
    assert_eq!(said[3]["payload"], "ünïcödé \"quotes\" \\ and \u{2}control");
    // Each nick joined right before its first line.
    let types: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "feed_created",
            "member_joined",
            "member_joined",
            "message",
            "member_joined",
            "message",
            "message",
            "message"
        ]
    );
    let feeds = server.json("admin", &["feeds"]);
    assert_eq!(feeds["feeds"][0]["feed_id"], "irc/2004-12-25.train-c", "it is in the importer's list");
    server.run("nobody", &["import", "--format", "irc", text(&file)]).ended(3, "");
}

fn import_all(server: &Server, dir: &Path) {
    let irc = write(dir, "2004-12-25.raw.txt", IRC);
    let woz = write(
        dir,
        "val.json",
        r#"{"7": {"messages": [{"role": "usr", "content": "你好"}, {"role": "sys", "content": "您好"}]},
            "8": {"messages": [{"role": "usr", "content": "再见"}]}}"#,
    );
    let lines = write(
        dir,
        "x.jsonl",
        "{\"feed_id\":\"j/1\",\"sender\":\"ann\",\"payload\":{\"b\" : 1.50, \"a\":[]}}\n\
         {\"feed_id\":\"j/1\",\"sender\":\"eve\",\"payload_base64\":\"AP8=\",\"content_type\":\"image/png\",\"kind\":\"image\"}\n\
         oops\n",
    );
    server.json("admin", &["import", "--format", "irc", text(&irc)]);
    let sum = server.json("admin", &["import", "--format", "crosswoz", text(&woz)]);
    assert_eq!((&sum["feeds"], &sum["appended"]), (&2.into(), &3.into()), "{sum}");
    let sum = server.json("admin", &["import", "--format", "jsonl", text(&lines)]);
    assert_eq!((&sum["appended"], &sum["skipped"]["not_json"]), (&2.into(), &1.into()), "{sum}");
    server.json("ann", &["recall", "j/1", "--client-msg-id", "x.jsonl:1"]);
    server.json("ann", &["send", "--to", "bob", "hello"]);
}

/// The lines of an export but the first, which holds the time.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn an_export_is_proof_and_comes_back_with_the_same_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Server::dev(&at("data"));
    import_all(&server, dir.path());
    let said = server.json("admin", &["export", "--output", text(&at("online.jsonl"))]);
    assert_eq!(said["manifest"]["messages"], 4 + 3 + 2 + 1, "{said}");
    assert_eq!(server.json("admin", &["verify"])["state"], "done");
    server.json("admin", &["rebuild"]);
    server.json("admin", &["export", "j/1", "--output", text(&at("one.jsonl"))]);
    assert!(lines(&at("one.jsonl")).iter().any(|line| line.contains("{\"b\" : 1.50, \"a\":[]}")));
    server.run("ann", &["export", "--output", text(&at("no.jsonl"))]).ended(3, "");
    assert!(!at("no.jsonl").exists());
    assert_eq!(server.stop(), 0);

    // The same lines whether through the server or offline.
    let data = at("data");
    let offline = at("offline.jsonl");
    run(&["--json", "export", "--data-dir", text(&data), "--output", text(&offline)]).json();
    assert_eq!(lines(&at("online.jsonl")), lines(&offline));
    run(&["--json", "verify", text(&offline)]).json();

    let copy = at("copy");
    let import = ["--json", "import", "--format", "feedlog", "--engine", ENGINE, "--data-dir", text(&copy)];
    let said = run(&[&import[..], &[text(&offline)]].concat()).json();
    assert_eq!(said["manifest"]["feeds_digest"].as_str().map(str::len), Some(64));
    assert_eq!(run(&["--json", "verify", "--data-dir", text(&copy)]).json()["ok"], true);
    let against = run(&["--json", "verify", "--data-dir", text(&copy), "--against", text(&offline)]).json();
    assert_eq!(against["ok"], true);
    run(&["verify", "--data-dir", text(&copy), "--against", text(&at("one.jsonl"))])
        .ended(5, "is not in the export");
    let again = at("again.jsonl");
    run(&["--json", "export", "--data-dir", text(&copy), "--output", text(&again)]).json();
    assert_eq!(lines(&offline), lines(&again), "the copy exports to the same lines");
    run(&[&import[..], &[text(&offline)]].concat()).ended(3, "not empty");

    // What one participant sees is the same in the copy.
    let seen = |dir: &Path| {
        let server = Server::dev(dir);
        let unread = server.json("ann", &["unread"]);
        let pulled = server.json("ann", &["pull", "irc/2004-12-25", "--after", "0"]);
        let members = server.json("admin", &["feeds", "members", "j/1"]);
        (unread, pulled, members)
    };
    assert_eq!(seen(&data), seen(&copy));
}

#[test]
fn a_changed_export_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Server::dev(&at("data"));
    import_all(&server, dir.path());
    server.json("admin", &["export", "--output", text(&at("x.jsonl"))]);
    let whole = std::fs::read_to_string(at("x.jsonl")).unwrap();
    let changed = write(dir.path(), "changed.jsonl", &whole.replacen("hi there", "hi where", 1));
    run(&["verify", text(&changed)]).ended(5, "payload_hash");
    let copy = at("copy");
    run(&["import", "--format", "feedlog", "--engine", ENGINE, "--data-dir", text(&copy), text(&changed)])
        .ended(5, "payload_hash");
    let cut = write(dir.path(), "cut.jsonl", &whole[..whole.len() / 2]);
    run(&["verify", "--export", text(&cut)]).ended(5, "line");
}

#[test]
fn a_backup_comes_back_verified() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Server::dev(&at("data"));
    import_all(&server, dir.path());
    server.json("admin", &["backup", "first"]);
    server.run("admin", &["backup", "first"]).ended(3, "already_exists");
    server.run("admin", &["backup", "../x"]).ended(3, "rejected");
    server.json("ann", &["send", "irc/2004-12-25", "after the backup"]);
    let restored =
        run(&["--json", "restore", text(&at("data-backups/first")), "--data-dir", text(&at("restored"))])
            .json();
    assert_eq!(restored["verify"]["ok"], true, "{restored}");
    assert_eq!(restored["verify"]["messages"], 4 + 3 + 2 + 1);
    run(&["restore", text(&at("data-backups/first")), "--data-dir", text(&at("restored"))])
        .ended(3, "not empty");
    let server2 = Server::dev(&at("restored"));
    let pulled = server2.json("ann", &["pull", "irc/2004-12-25", "--after", "0"]);
    assert!(!pulled.to_string().contains("after the backup"));
    let again: Value = server2.json("admin", &["import", "--format", "irc", text(&at("2004-12-25.raw.txt"))]);
    assert_eq!(again["appended"], 0, "dedup is in the backup too");
    drop(server);
    drop(server2);
    run(&["--json", "rebuild", "--data-dir", text(&at("restored"))]).json();
    run(&["verify", "--data-dir", text(&at("nothing"))]).ended(1, "no feedlog store");
}
