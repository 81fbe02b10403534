use std::sync::Arc;

use feedlog_core::ids::ClientMsgId;
use proptest::prelude::*;

use super::*;

fn feed(text: &str) -> FeedId {
    FeedId::parse(text).unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn samples() -> Vec<RowKey> {
    let reaction = ReactionKey::parse("👍").unwrap();
    vec![
        RowKey::Feed(feed("a")),
        RowKey::Member(feed("a"), uid("bob")),
        RowKey::Request(feed("a"), uid("bob")),
        RowKey::Counts(feed("a"), 0),
        RowKey::Counts(feed("a"), 70_000),
        RowKey::UserCounts(feed("a"), uid("bob"), 3),
        RowKey::Fate(feed("a"), SeqId(1)),
        RowKey::Reaction(feed("a"), SeqId(9), reaction, uid("bob")),
        RowKey::UserFeed(uid("bob"), feed("a")),
        RowKey::Place(uid("bob"), feed("a")),
        RowKey::Receipt(feed("a"), uid("bob")),
        RowKey::Expiry(1_700_000_000_000, feed("a"), SeqId(300)),
    ]
}

#[test]
fn kinds_keep_their_numbers() {
    let numbers: Vec<u8> = Kind::ALL.into_iter().map(|kind| kind as u8).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 32, 33, 34, 35]);
    for kind in Kind::ALL {
        assert_eq!(Kind::of(kind as u8), Some(kind));
    }
    assert_eq!(Kind::of(0), None);
    assert_eq!(Kind::of(13), None);
}

#[test]
fn every_row_key_comes_back() {
    for key in samples() {
        let (table, bytes) = row(&key, 7);
        assert_eq!(parse_row(table, &bytes, Some(&feed("a"))), Some(key.clone()), "{key:?}");
        // A longer or shorter key is another key or none.
        let mut longer = bytes.clone();
        longer.push(0);
        assert_ne!(parse_row(table, &longer, Some(&feed("a"))), Some(key.clone()));
        assert_ne!(parse_row(table, &bytes[..bytes.len() - 1], Some(&feed("a"))), Some(key));
    }
}

#[test]
fn row_keys_are_frozen() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let all: Vec<String> = samples().iter().map(|key| hex(&row(key, 7).1)).collect();
    assert_eq!(
        all,
        [
            "000000000000000701",
            "000000000000000702626f62",
            "000000000000000703626f62",
            "00000000000000070500",
            "00000000000000070503011170",
            "000000000000000706626f62000103",
            "0000000000000007070101",
            "0000000000000007080109f09f918d00626f62",
            "09626f620061",
            "0a626f620061",
            "0b6100626f62",
            "0c0000018bcfe56800610002012c",
        ]
    );
    let dedup = RowKey::Dedup(feed("a"), DedupScope::Sender(uid("bob")), ClientMsgId::parse("1").unwrap());
    assert_eq!(hex(&row(&dedup, 7).1), "0000000000000007049d786795d10fa5743de8e4b489551dc0");
    assert_eq!(hex(&entry_array(7, SeqId(258))), "00000000000000070000000000000102");
    assert_eq!(hex(&feed_number(&feed("ab"))), "206162");
    assert_eq!(hex(&feed_name(258)), "210000000000000102");
    assert_eq!(hex(&state(StateTable::Token, b"k")), "22016b");
    assert_eq!(hex(&state(StateTable::FrontEnd, b"x\0k")), "220378006b");
    assert_eq!(hex(&change(1, 2)), "2300010000000000000002");
}

#[test]
fn dedup_tells_scopes_apart() {
    let all = [
        dedup_hash(&DedupScope::Sender(uid("gws")), "1"),
        dedup_hash(&DedupScope::Shared(Arc::from("gws")), "1"),
        dedup_hash(&DedupScope::Sender(uid("gws1")), "1"),
        dedup_hash(&DedupScope::Sender(uid("gws")), "11"),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
}

#[test]
fn ranges_hold_their_rows_and_no_others() {
    let inside = |range: &RowRange, key: &RowKey| {
        let (table, bytes) = row(key, 7);
        let range = row_range(range, 7);
        range.table == table && range.from <= bytes && bytes < range.to
    };
    let check = |range: RowRange, expected: &[usize]| {
        let found: Vec<usize> =
            samples().iter().enumerate().filter(|(_, key)| inside(&range, key)).map(|(i, _)| i).collect();
        assert_eq!(found, expected, "{range:?}");
    };
    check(RowRange::Members(feed("a")), &[1]);
    check(RowRange::Requests(feed("a")), &[2]);
    check(RowRange::Counts(feed("a"), 0, 0), &[3]);
    check(RowRange::Counts(feed("a"), 0, 70_000), &[3, 4]);
    check(RowRange::Counts(feed("a"), 1, 69_999), &[]);
    check(RowRange::UserCounts(feed("a"), uid("bob"), 3, 3), &[5]);
    check(RowRange::UserCounts(feed("a"), uid("bo"), 0, 99), &[]);
    check(RowRange::AllUserCounts(feed("a")), &[5]);
    check(RowRange::Fates(feed("a"), SeqId(1), SeqId(2)), &[6]);
    check(RowRange::Reactions(feed("a"), SeqId(9)), &[7]);
    check(RowRange::UserFeeds(uid("bob")), &[8]);
    check(RowRange::UserFeeds(uid("bo")), &[]);
    check(RowRange::Places(uid("bob")), &[9]);
    check(RowRange::Receipts(feed("a")), &[10]);
    check(RowRange::Expiries(1_700_000_000_000), &[11]);
    check(RowRange::Expiries(1_699_999_999_999), &[]);
    check(RowRange::Expiries(u64::MAX), &[11]);
}

proptest! {
    #[test]
    fn order_of_bytes_is_order_of_numbers(a: u64, b: u64, shift in 0_u32..64) {
        let (a, b) = (a >> shift, b >> shift);
        let bytes = |number| {
            let mut key = Vec::new();
            push_ordered(&mut key, number);
            key
        };
        prop_assert_eq!(bytes(a).cmp(&bytes(b)), a.cmp(&b));
        prop_assert_eq!(take_ordered(&mut &bytes(a)[..]), Some(a));
        prop_assert_eq!(entry_array(a, SeqId(b)).cmp(&entry_array(b, SeqId(a))), (a, b).cmp(&(b, a)));
        prop_assert_eq!(parse_entry(&entry_array(a, SeqId(b))), Some((a, SeqId(b))));
        prop_assert_eq!(parse_change(&change(a as u16, b)), Some((a as u16, b)));
        prop_assert_eq!(parse_feed_name(&feed_name(a)), Some(a));
    }

    #[test]
    fn any_bytes_are_a_key_or_none(bytes: Vec<u8>) {
        for table in Table::ALL {
            let _ = parse_row(table, &bytes, Some(&FeedId::parse("a").unwrap()));
        }
        let _ = (parse_entry(&bytes), parse_change(&bytes), parse_feed_name(&bytes));
    }
}
