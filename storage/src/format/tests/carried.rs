//! Version 2: messages with something that a front end has carried.

use super::*;

/// Messages that carry something, by name.
pub(super) fn carrying() -> Vec<(&'static str, Event)> {
    let with = |carried| Event::MessageSent(Message { carried, ..plain_message() });
    let hash = crate::digest(b"\x01gone");
    vec![
        ("carried", with(Payload::Bytes(Bytes::from_static(b"\x01props")))),
        ("carried_empty", with(Payload::Bytes(Bytes::new()))),
        ("carried_long", with(Payload::Bytes(Bytes::from(vec![7; 300])))),
        ("carried_stripped", with(Payload::Stripped { hash })),
    ]
}

/// Entries of one feed that carry something: with a payload, with an empty one, with nothing left of either.
pub(super) fn carrying_entries() -> Vec<Entry> {
    let mut first = entries();
    first.truncate(1);
    let payloads =
        [&b"\"hello\""[..], b"", b""].map(|bytes| Payload::Bytes(Bytes::from_static(bytes))).into_iter();
    let payloads = payloads.chain([Payload::Stripped { hash: crate::digest(b"gone") }]);
    let next = carrying().into_iter().zip(payloads).zip(2..).map(|(((_, event), payload), seq)| Entry {
        feed: feed("lobby"),
        seq: SeqId(seq),
        ordinal: Ordinal(seq - 1),
        time_ms: 1_700_000_000_000 + seq,
        sender: uid("alice"),
        event,
        payload,
    });
    first.into_iter().chain(next).collect()
}

/// I-3: an erased message keeps the proof of what was carried with it, and none of its bytes.
#[test]
fn stripping_destroys_what_is_carried() {
    for (entry, (key, value)) in carrying_entries().iter().zip(frames_of(&carrying_entries())).skip(1) {
        let before = Frame::parse(&key, &value).unwrap();
        let Some(tombstone) = before.stripped(&key) else {
            assert!(matches!(entry.payload, Payload::Stripped { .. }));
            continue;
        };
        let after = Frame::parse(&key, &tombstone).unwrap();
        assert_eq!((after.version, after.chain_hash), (2, before.chain_hash));
        assert_eq!(after.chain_of(&entry.feed, &[9; 32]), before.chain_of(&entry.feed, &[9; 32]));
        assert_eq!(after.payload_hash(), before.payload_hash());
        let mut expected = entry.clone();
        expected.strip(crate::digest);
        assert_eq!(back(&after, &tombstone), expected);
        assert_eq!(after.size(), 0);
        assert!(after.stripped(&key).is_none());
        for gone in [&b"hello"[..], b"props", &[7; 9]] {
            assert!(!tombstone.windows(gone.len()).any(|bytes| bytes == gone));
        }
    }
    // Without a payload beside it, too.
    let mut entry = carrying_entries().swap_remove(1);
    entry.payload = Payload::None;
    let (key, value) = frames_of(&[entry.clone()]).swap_remove(0);
    let tombstone = Frame::parse(&key, &value).unwrap().stripped(&key).unwrap();
    entry.strip(crate::digest);
    assert_eq!(back(&Frame::parse(&key, &tombstone).unwrap(), &tombstone), entry);
}

#[test]
fn only_messages_carry() {
    let mut bytes = vec![1, 0];
    event_v1::encode(&Event::HoldPlaced { hold: Arc::from("x") }, &mut bytes);
    assert_eq!(decode_event(2, &bytes), Err(DecodeError::Value("carried")));
    for start in [0, 3, 255] {
        let mut bytes = vec![start];
        event_v1::encode(&Event::MessageSent(plain_message()), &mut bytes);
        assert_eq!(decode_event(2, &bytes), Err(DecodeError::Value("carried")), "tag {start}");
    }
}

#[test]
fn the_chain_covers_what_is_carried() {
    let entry = carrying_entries().swap_remove(1);
    let key = keys::entry_array(7, entry.seq);
    let chain = |carried: Payload| {
        let mut entry = entry.clone();
        if let Event::MessageSent(message) = &mut entry.event {
            message.carried = carried;
        }
        encode_entry(&key, &entry, 1, 1, &[1; 32]).1
    };
    let bytes = |text: &'static str| Payload::Bytes(Bytes::from_static(text.as_bytes()));
    let base = chain(bytes("props"));
    for other in [Payload::None, bytes(""), bytes("Props"), bytes("props ")] {
        assert_ne!(chain(other), base);
    }
    assert_eq!(chain(Payload::Stripped { hash: crate::digest(b"props") }), base, "also when it is gone");
}

#[test]
fn what_carries_nothing_does_not_grow() {
    let plain = entries().swap_remove(1);
    let mut carrying = plain.clone();
    if let Event::MessageSent(message) = &mut carrying.event {
        message.carried = Payload::Bytes(Bytes::from_static(b"\x01props"));
    }
    let len = |entry: &Entry| frames_of(std::slice::from_ref(entry))[0].1.len();
    assert_eq!(frames_of(std::slice::from_ref(&plain))[0].1[0], 1, "version");
    assert_eq!(len(&carrying), len(&plain) + 2 + 6, "a tag, a length and the bytes");
}
