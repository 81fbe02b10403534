//! Starting safely, stopping cleanly, losing nothing.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{ENGINE, Ran, Server, feedlog, run};

#[test]
fn unsafe_addresses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let serve = |args: &[&str]| run(&[&["serve", "--engine", ENGINE, "--data-dir", data], args].concat());
    serve(&["--dev", "--http", "0.0.0.0:0"]).ended(2, "loopback only");
    serve(&["--dev", "--http", "[::]:0"]).ended(2, "loopback only");
    serve(&["--http", "0.0.0.0:0"]).ended(2, "TLS");
    let mut command = feedlog();
    command.args(["serve", "--engine", ENGINE, "--data-dir", data, "--http", "0.0.0.0:0"]);
    command.env("FEEDLOG__HTTP__PLAIN_TEXT", "true");
    Ran::of(command).ended(2, "no auth");
    let mut command = feedlog();
    command.args(["serve", "--data-dir", data]).env("FEEDLOG__HTP__ADDR", "127.0.0.1:0");
    Ran::of(command).ended(2, "did you mean FEEDLOG__HTTP__ADDR?");
}

#[test]
fn the_first_token_is_made_once_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let admin = server.admin_token.clone().expect("a new store makes a token");
    server.run("nonsense", &["feeds"]).ended(3, "unauthenticated");
    let made = server.run(&admin, &["token", "create", "--uid", "ann", "--note", "her phone"]);
    assert_eq!(made.code, 0, "{made:?}");
    let ann = made.stdout.trim().to_owned();
    server.run(&ann, &["feeds", "create", "g"]).json_ok();
    server.run(&ann, &["token", "list"]).ended(3, "forbidden");
    assert_eq!(server.stop(), 0);

    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.admin_token, None, "only the first start makes one");
    let tokens = server.json(&admin, &["token", "list"]);
    let tokens = tokens["tokens"].as_array().unwrap();
    let of_ann = tokens.iter().find(|token| token["uid"] == "ann").unwrap();
    assert!(!of_ann.to_string().contains(&ann), "a list never shows secrets");
    let id = of_ann["id"].as_str().unwrap();
    server.run(&admin, &["token", "revoke", id]).json_ok();
    server.run(&ann, &["feeds"]).ended(3, "unauthenticated");
}

#[test]
fn the_admin_token_can_come_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "an admin token of thirty-two chars";
    let config = dir.path().join("feedlog.toml");
    std::fs::write(&config, format!("[auth]\nadmin_token = \"{secret}\"\n")).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    assert_eq!(server.admin_token, None);
    server.json(secret, &["token", "list"]);
}

#[test]
fn acknowledged_messages_survive_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    server.run("ann", &["feeds", "create", "g"]).json_ok();
    let first = server.json("ann", &["send", "g", "before SIGTERM"]);
    assert_eq!(server.stop(), 0);
    let server = Server::dev(dir.path());
    let second = server.json("ann", &["send", "g", "before SIGKILL"]);
    assert_eq!(second["seq_id"].as_u64(), first["seq_id"].as_u64().map(|seq| seq + 1));
    server.kill();
    let server = Server::dev(dir.path());
    let page = server.json("ann", &["pull", "g", "--after", "0"]);
    assert_eq!(page["head_seq_id"], second["seq_id"]);
    assert!(page.to_string().contains("before SIGKILL"));
    // A second server on the same data directory is refused.
    let dir = dir.path().to_str().unwrap();
    run(&["serve", "--dev", "--engine", ENGINE, "--http", "127.0.0.1:0", "--data-dir", dir])
        .ended(4, "in use");
}

#[test]
fn a_drain_ends_streams_and_long_polls() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::dev(dir.path());
    server.run("ann", &["feeds", "create", "g"]).json_ok();
    let head = server.json("ann", &["send", "g", "x"])["seq_id"].to_string();
    let mut poll = server
        .command("ann", &["pull", "g", "--after", &head, "--wait-ms", "60000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tail =
        server.command("ann", &["tail", "g", "--after", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    // The stream is open once its first line is here; the long-poll was started before it.
    let mut line = String::new();
    BufReader::new(tail.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let began = Instant::now();
    assert_eq!(server.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "the default drain_ms is 10 s");
    poll.wait().unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
}

trait JsonOk {
    fn json_ok(&self);
}

impl JsonOk for Ran {
    #[track_caller]
    fn json_ok(&self) {
        assert_eq!(self.code, 0, "{self:?}");
    }
}
