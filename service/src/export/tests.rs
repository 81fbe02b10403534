use feedlog_core::event::*;
use feedlog_core::ids::{ClientMsgId, ReactionKey};

use super::*;

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn message(id: Option<&str>) -> Event {
    Event::MessageSent(Message {
        kind: MessageKind::Text,
        content_type: "application/json".into(),
        client_msg_id: id.map(|id| ClientMsgId::parse(id).unwrap()),
        scope: if id.is_some() { Scope::Sender } else { Scope::Shared("gws".into()) },
        reply_to: Some(SeqId(1)),
        mentions: vec![uid("b"), uid("@all")],
        to_reply: Some(false),
        seen_seq: SeqId(1),
        sent_ms: Some(5),
        expires_ms: Some(9_999_999_999_999),
        auto: true,
        carried: Payload::None,
    })
}

fn carrying(carried: Payload) -> Event {
    let Event::MessageSent(message) = message(Some("m2")) else { unreachable!() };
    Event::MessageSent(Message { carried, ..message })
}

fn all_events() -> Vec<(Event, Payload)> {
    let none = Payload::None;
    let json = |text: &'static str| Payload::Bytes(Bytes::from_static(text.as_bytes()));
    let place = || FeedId::parse("g").unwrap();
    vec![
        (
            Event::FeedCreated {
                kind: FeedKind::Group,
                title: Some("Schöne Gruppe\n\u{1F600}".into()),
                join: JoinMode::Approval,
                history: HistoryMode::SinceJoin,
                meta: Some("{\"a\":1}".into()),
                pair: Some((uid("a"), uid("b"))),
            },
            none.clone(),
        ),
        (
            Event::FeedChanged {
                title: None,
                join: Some(JoinMode::Open),
                history: Some(HistoryMode::All),
                meta: None,
            },
            none.clone(),
        ),
        (message(Some("m1")), json(r#"{"b" : 1.0, "a":[ ], "b":1e400}"#)),
        (message(None), json("{\n}")),
        (message(None), json(" 1")),
        (message(None), json("null")),
        (message(None), json("")),
        (message(None), json("not json")),
        (message(None), Payload::Bytes(Bytes::from_static(&[0, 159, 255]))),
        (message(None), Payload::Stripped { hash: [7; 32] }),
        (carrying(Payload::Bytes(Bytes::from_static(b"\x01props"))), json("1")),
        (carrying(Payload::Bytes(vec![1; feedlog_core::limits::CARRIED_BYTES_MAX].into())), json("2")),
        (carrying(Payload::Stripped { hash: [8; 32] }), Payload::Stripped { hash: [7; 32] }),
        (Event::MessageEdited { target: SeqId(3), content_type: "text/plain".into() }, json("\"x\"")),
        (
            Event::MessageRecalled { target: SeqId(3), target_ordinal: Ordinal(1), reason: Some("r".into()) },
            none.clone(),
        ),
        (
            Event::ReactionChanged { target: SeqId(3), key: ReactionKey::parse("👍").unwrap(), on: true },
            none.clone(),
        ),
        (Event::MemberJoined { uid: uid("c"), role: Role::Admin }, none.clone()),
        (Event::MemberLeft { uid: uid("c") }, none.clone()),
        (Event::MemberRemoved { uid: uid("c"), reason: None }, none.clone()),
        (Event::RoleChanged { uid: uid("c"), role: Role::Owner }, none.clone()),
        (Event::JoinRequested { reason: Some("please".into()) }, none.clone()),
        (Event::JoinDecided { uid: uid("d"), agreed: false }, none.clone()),
        (Event::Broadcast { content_type: "application/octet-stream".into() }, json("raw")),
        (
            Event::MessagesExpired { targets: vec![(SeqId(3), Ordinal(1)), (SeqId(4), Ordinal(2))] },
            none.clone(),
        ),
        (Event::MessagesErased { targets: vec![], reason: None }, none.clone()),
        (Event::HoldPlaced { hold: "h".into() }, none.clone()),
        (Event::HoldLifted { hold: "h".into() }, none.clone()),
        (
            Event::MarkMoved { feed: place(), read: Some((SeqId(2), Ordinal(1))), received: None },
            none.clone(),
        ),
        (Event::MarkMoved { feed: place(), read: None, received: Some(SeqId(8)) }, none.clone()),
        (Event::UnrepliedResolved { feed: place(), upto: SeqId(4) }, none.clone()),
        (Event::FeedPinned { feed: place(), pinned: true }, none.clone()),
        (Event::FeedMuted { feed: place(), until_ms: 77 }, none.clone()),
        (Event::Notified { content_type: "application/json".into() }, json("[1]")),
    ]
}

fn records(feed: &str) -> Vec<Record> {
    let mut ordinal = Ordinal::ZERO;
    let mut chain: Option<[u8; 32]> = None;
    all_events()
        .into_iter()
        .enumerate()
        .map(|(i, (event, payload))| {
            if event.is_message() {
                ordinal = ordinal.next();
            }
            let payload_hash = match &payload {
                Payload::None => feedlog_storage::digest(&[]),
                Payload::Bytes(bytes) => feedlog_storage::digest(bytes),
                Payload::Stripped { hash } => *hash,
            };
            let carries = matches!(&event, Event::MessageSent(message) if message.carried != Payload::None);
            let mut record = Record {
                entry: Entry {
                    feed: FeedId::parse(feed).unwrap(),
                    seq: SeqId(i as u64 + 1),
                    ordinal,
                    time_ms: 1_700_000_000_000 + i as u64,
                    sender: uid("a\"<&"),
                    event,
                    payload,
                },
                version: if carries { 2 } else { 1 },
                payload_hash,
                chain_hash: [0; 32],
                node: 0,
                commit_no: 0,
            };
            record.chain_hash = feedlog_storage::chain_hash(
                &record.entry,
                record.version,
                &record.payload_hash,
                &chain.unwrap_or([0; 32]),
            )
            .unwrap();
            chain = Some(record.chain_hash);
            record
        })
        .collect()
}

fn export(feeds: &[&str]) -> Vec<String> {
    let mut writer = Writer::default();
    let mut lines = vec![writer.header(1)];
    for feed in feeds {
        lines.extend(records(feed).iter().map(|record| writer.entry(record)));
        lines.extend(writer.end_feed());
    }
    lines.push(writer.manifest());
    lines
}

fn check(lines: &[String]) -> Result<Vec<Record>, BadLine> {
    let mut checker = Checker::default();
    let mut out = Vec::new();
    for line in lines {
        if let Proven::Entry(record) = checker.line(line)? {
            out.push(*record);
        }
    }
    checker.end().map(|()| out)
}

#[test]
fn every_event_and_payload_comes_back_the_same() {
    let lines = export(&["f/1", "f/2"]);
    assert!(lines.iter().all(|line| !line.contains(['\n', '\r'])));
    let expected: Vec<_> = ["f/1", "f/2"].into_iter().flat_map(records).collect();
    assert_eq!(check(&lines), Ok(expected));
}

#[test]
fn json_payloads_stay_readable_and_verbatim() {
    let lines = export(&["f"]);
    assert!(lines[3].contains(r#""payload":{"b" : 1.0, "a":[ ], "b":1e400}"#), "{}", lines[3]);
    assert!(lines[4].contains("payload_base64"));
}

#[test]
fn any_removed_repeated_or_swapped_line_is_found() {
    let lines = export(&["f/1", "f/2"]);
    for at in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(at);
        assert!(check(&removed).is_err(), "line {at} removed");
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        assert!(check(&repeated).is_err(), "line {at} repeated");
        if at > 0 {
            let mut swapped = lines.clone();
            swapped.swap(at - 1, at);
            assert!(check(&swapped).is_err(), "line {at} swapped");
        }
    }
    // A whole feed left out: only the manifest knows.
    let middle = lines.len() / 2;
    let without: Vec<_> = lines[..1].iter().chain(&lines[middle..]).cloned().collect();
    assert!(check(&without).unwrap_err().to_string().contains("totals"));
}

#[test]
fn a_changed_field_is_found_and_named() {
    let lines = export(&["f"]);
    for (at, from, to, expected) in [
        (3, "1.0", "1.1", "payload_hash"),
        (3, "\"seen_seq\":1", "\"seen_seq\":2", "chain hash"),
        (3, "\"seq_id\":3", "\"seq_id\":4", "expected entry 3"),
        (3, "\"ordinal\":1", "\"ordinal\":2", "ordinal"),
        (3, "\"sender\":\"a", "\"sender\":\"b", "chain hash"),
        (11, "AXByb3Bz", "AXByb3Cz", "chain hash"),
        (11, "\"carried_base64\":\"AXByb3Bz\"", "\"seen_seq\":1", "missing, unknown"),
        (11, "AXByb3Bz", "*", "event.carried: not base64"),
        (11, ",\"carried_base64\":\"AXByb3Bz\"", "", "format 2"),
        (13, "0808", "0809", "chain hash"),
        (13, "0808", "080", "event.carried: not a hash"),
        (3, "\"format\":1", "\"format\":2", "format 2"),
        (0, "\"version\":1", "\"version\":2", "version 2"),
    ] {
        let mut changed = lines.clone();
        changed[at] = changed[at].replacen(from, to, 1);
        assert_ne!(changed, lines, "{from}");
        let err = check(&changed).unwrap_err();
        assert!(err.to_string().contains(expected), "{err}");
        assert_eq!(err.line, at as u64 + 1);
    }
}

#[test]
fn more_is_carried_than_any_store_takes() {
    let lines = export(&["f"]);
    let max = STANDARD.encode(vec![1; feedlog_core::limits::CARRIED_BYTES_MAX]);
    let more = STANDARD.encode(vec![1; feedlog_core::limits::CARRIED_BYTES_MAX + 1]);
    assert!(parse_line(&lines[12]).is_ok());
    let changed = lines[12].replacen(&max, &more, 1);
    assert!(parse_line(&changed).unwrap_err().to_string().contains("larger than any store takes"));
}

#[test]
fn errors_do_not_repeat_payloads() {
    let line = export(&["f"])[3].replace("1e400}", "1e400}}secret-word");
    assert!(!parse_line(&line).unwrap_err().to_string().contains("secret-word"));
}
