//! Every command against a server in development mode.

use std::io::Read;
use std::process::Stdio;

use crate::harness::{Server, run};

#[test]
fn a_talk_of_two() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    // Ann asks Bob; Bob owes an answer until he gives it.
    let sent = server.json("ann", &["send", "--to", "bob", "are you there?", "--client-msg-id", "q1"]);
    let feed = sent["feed_id"].as_str().unwrap().to_owned();
    assert!(feed.starts_with("direct:"));
    assert_eq!(sent["duplicate"], false);
    let again = server.json("ann", &["send", &feed, "are you there?", "--client-msg-id", "q1"]);
    assert_eq!((&again["seq_id"], &again["duplicate"]), (&sent["seq_id"], &true.into()));
    let conflict = server.run("ann", &["send", &feed, "something else", "--client-msg-id", "q1"]);
    conflict.ended(3, "id_conflict");

    assert_eq!(server.json("bob", &["unread"])["total"], 1);
    let owed = server.run("bob", &["unreplied"]);
    assert!(owed.code == 0 && owed.stdout.contains("ann") && owed.stdout.contains(&feed), "{owed:?}");
    let seq = sent["seq_id"].to_string();
    server.json("bob", &["send", &feed, "yes", "--seen", &seq]);
    let owed = server.run("bob", &["unreplied"]);
    assert!(owed.stdout.contains("(none)"), "{owed:?}");

    let pulled = server.run("bob", &["pull", &feed]);
    assert!(pulled.stdout.contains("are you there?") && pulled.stdout.contains("yes"), "{pulled:?}");
    server.json("ann", &["recall", &feed, "--client-msg-id", "q1"]);
    let pulled = server.run("bob", &["pull", &feed, "--after", "0", "--all"]);
    assert!(!pulled.stdout.contains("are you there?"), "{pulled:?}");
    assert!(pulled.stdout.contains("recalled by ann"), "{pulled:?}");
    assert_eq!(server.json("bob", &["unread"])["total"], 0);

    let feeds = server.json("bob", &["feeds"]);
    assert_eq!(feeds["feeds"][0]["feed_id"], feed.as_str());
    let table = server.run("bob", &["feeds"]);
    assert!(table.stdout.contains(&feed), "{table:?}");
    server.run("eve", &["pull", &feed]).ended(3, "feed_not_found");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_group_and_its_members() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    let created = server.run("ann", &["feeds", "create", "team/x y", "--title", "Team", "--member", "bob"]);
    assert_eq!((created.code, created.stdout.trim()), (0, "team/x y"), "{created:?}");
    server.json("ann", &["feeds", "add", "team/x y", "eve", "--role", "admin"]);
    server.json("bob", &["send", "team/x y", "@eve?", "--mention", "eve", "--to-reply"]);
    let members = server.json("ann", &["feeds", "members", "team/x y"]);
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    assert_eq!(server.json("eve", &["unread", "team/x y", "--explain"])["mentions"], 1);
    server.json("ann", &["feeds", "remove", "team/x y", "eve"]);
    server.run("eve", &["pull", "team/x y"]).ended(3, "feed_not_found");
    let shown = server.json("bob", &["feeds", "show", "team/x y"]);
    assert_eq!(shown["title"], "Team");
}

#[test]
fn tail_shows_what_was_there_and_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    server.run("ann", &["feeds", "create", "g", "--member", "bob"]);
    for n in 0..3 {
        server.json("ann", &["send", "g", &format!("message {n}")]);
    }
    let tail = server.run("bob", &["tail", "g", "--after", "0", "--until-caught-up"]);
    assert_eq!(tail.code, 0, "{tail:?}");
    for n in 0..3 {
        assert!(tail.stdout.contains(&format!("message {n}")), "{tail:?}");
    }
    // Live: the process is there before the message, and ends when its reader has seen it.
    let mut child = server.command("bob", &["tail", "g"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut n = 0;
    // tail asks for the head first and connects then; messages are sent until one shows.
    while !seen.contains("live") {
        server.json("ann", &["send", "g", &format!("live {n}")]);
        n += 1;
        assert!(n < 100, "nothing came");
        let mut buffer = [0; 4096];
        if n > 1 {
            let read = stdout.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    run(&["--help"]).json_free_ok();
    run(&["pull"]).ended(2, "FEED");
    run(&["no-such-command"]).ended(2, "no-such-command");
    server.run("ann", &["pull", "nowhere"]).ended(3, "feed_not_found");
    server.run("ann", &["token", "list"]).ended(3, "forbidden");
    run(&["pull", "x", "--server", "http://127.0.0.1:1", "--token", "a"]).ended(4, "cannot be reached");
    run(&["pull", "x", "--server", "ftp://x"]).ended(2, "--server");
    let export = dir.path().join("x.jsonl");
    std::fs::write(&export, "{\"type\":\"feedlog_export\",\"version\":1,\"created_ms\":1}\n").unwrap();
    run(&["verify", export.to_str().unwrap()]).ended(5, "cut off");
    run(&["verify", "--export", "/no/such/file"]).ended(1, "/no/such/file");
    // Errors are JSON where JSON was asked for.
    let failed = server.run("ann", &["--json", "pull", "nowhere"]);
    let error: serde_json::Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((&error["error"]["code"], &error["exit"]), (&"feed_not_found".into(), &3.into()));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    server.run("ann", &["feeds", "create", "g"]);
    for _ in 0..20 {
        server.json("ann", &["send", "g", &"x".repeat(10_000)]);
    }
    let mut command =
        server.command("ann", &["--json", "pull", "g", "--after", "0", "--all", "--limit", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn completions_and_configuration_need_no_server() {
    let script = run(&["completions", "bash"]);
    assert!(script.code == 0 && script.stdout.contains("feedlog"), "{script:?}");
    let shown = run(&["--json", "config", "show"]).json();
    assert_eq!(shown["http"]["addr"], "127.0.0.1:7171");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("feedlog.toml");
    std::fs::write(&file, "[http]\nadr = \"127.0.0.1:1\"\n").unwrap();
    run(&["config", "check", "--config", file.to_str().unwrap()]).ended(2, "did you mean addr?");
    for (text, expected) in [
        ("[gws]\necho_rooms = [\"room\"]", "gws.echo_rooms"),
        ("[connmix]\naccess = [\"shop\"]", "access"),
        ("[mqtt]\nacl_file = \"/nowhere/acl\"", "access control file"),
    ] {
        std::fs::write(&file, text).unwrap();
        run(&["config", "check", "--config", file.to_str().unwrap()]).ended(2, expected);
    }
    let example = run(&["config", "example"]);
    std::fs::write(&file, &example.stdout).unwrap();
    assert_eq!(run(&["config", "check", "--config", file.to_str().unwrap()]).code, 0);
}

trait Ok0 {
    fn json_free_ok(&self);
}

impl Ok0 for crate::harness::Ran {
    fn json_free_ok(&self) {
        assert!(self.code == 0 && self.stdout.contains("Usage"), "{self:?}");
    }
}
