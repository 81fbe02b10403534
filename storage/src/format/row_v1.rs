//! Version 1 of the values of derived rows. Rows carry no version of their own: they can be rebuilt, so a new form is
//! a new layout (the number in `FORMAT`) and a step that rewrites them.

use std::sync::Arc;

use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, Role};
use feedlog_core::ids::{Ordinal, ReactionKey, SeqId, Uid};
use feedlog_core::rows::{
    Counts, Fate, FeedState, Member, Place, Recalled, Receipt, Request, RowKey, RowValue, UserCounts,
    UserFeed,
};

use super::DecodeError;
use super::bytes::{Reader, put_bits, put_number, put_text, put_text_option};

/// Whether a value is of the type its key asks for.
pub(crate) fn fits(key: &RowKey, value: &RowValue) -> bool {
    matches!(
        (key, value),
        (RowKey::Feed(..), RowValue::Feed(_))
            | (RowKey::Member(..), RowValue::Member(_))
            | (RowKey::Request(..), RowValue::Request(_))
            | (RowKey::Dedup(..) | RowKey::Reaction(..) | RowKey::Expiry(..), RowValue::Seq(_))
            | (RowKey::Counts(..), RowValue::Counts(_))
            | (RowKey::UserCounts(..), RowValue::UserCounts(_))
            | (RowKey::Fate(..), RowValue::Fate(_))
            | (RowKey::UserFeed(..), RowValue::UserFeed(_))
            | (RowKey::Place(..), RowValue::Place(_))
            | (RowKey::Receipt(..), RowValue::Receipt(_))
    )
}

/// The stored bytes of a value.
pub(crate) fn encode(value: &RowValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    let out_ref = &mut out;
    match value {
        RowValue::Feed(feed) => put_feed(out_ref, feed),
        RowValue::Member(member) => {
            out_ref.push(role_number(member.role));
            put_number(out_ref, member.joined_seq.0);
            put_number(out_ref, member.joined_ordinal.0);
            put_number(out_ref, member.joined_ms);
        }
        RowValue::Request(request) => {
            put_number(out_ref, request.seq.0);
            put_number(out_ref, request.time_ms);
            put_text_option(out_ref, request.reason.as_deref());
        }
        RowValue::Seq(seq) => put_number(out_ref, seq.0),
        RowValue::Counts(counts) => {
            for bits in [&counts.gone, &counts.system, &counts.quiet, &counts.ask_all, &counts.mention_all] {
                put_bits(out_ref, bits);
            }
        }
        RowValue::UserCounts(counts) => {
            for bits in [&counts.own, &counts.mention, &counts.ask] {
                put_bits(out_ref, bits);
            }
            put_number(out_ref, counts.answered_seq.0);
            put_number(out_ref, counts.first_own_seq.0);
        }
        RowValue::Fate(fate) => put_fate(out_ref, fate),
        RowValue::UserFeed(feed) => {
            out_ref.push(kind_number(feed.kind));
            put_number(out_ref, feed.since_ordinal.0);
            put_number(out_ref, feed.since_seq.0);
        }
        RowValue::Place(place) => {
            out_ref.push(u8::from(place.has_received) | u8::from(place.pinned) << 1);
            for number in [
                place.read_seq.0,
                place.read_ordinal.0,
                place.received_seq.0,
                place.resolved_seq.0,
                place.muted_until_ms,
            ] {
                put_number(out_ref, number);
            }
        }
        RowValue::Receipt(receipt) => {
            for number in [receipt.read_seq.0, receipt.read_ms, receipt.received_seq.0, receipt.received_ms] {
                put_number(out_ref, number);
            }
        }
    }
    out
}

/// The value of these bytes, of the type that `key` asks for.
pub(crate) fn decode(key: &RowKey, bytes: &[u8]) -> Result<RowValue, DecodeError> {
    let mut reader = Reader(bytes);
    let r = &mut reader;
    let value = match key {
        RowKey::Feed(_) => RowValue::Feed(Arc::new(take_feed(r)?)),
        RowKey::Member(..) => RowValue::Member(Member {
            role: role_of(r.byte()?)?,
            joined_seq: SeqId(r.number()?),
            joined_ordinal: Ordinal(r.number()?),
            joined_ms: r.number()?,
        }),
        RowKey::Request(..) => RowValue::Request(Request {
            seq: SeqId(r.number()?),
            time_ms: r.number()?,
            reason: r.text_option()?,
        }),
        RowKey::Dedup(..) | RowKey::Reaction(..) | RowKey::Expiry(..) => RowValue::Seq(SeqId(r.number()?)),
        RowKey::Counts(..) => RowValue::Counts(Box::new(Counts {
            gone: r.bits()?,
            system: r.bits()?,
            quiet: r.bits()?,
            ask_all: r.bits()?,
            mention_all: r.bits()?,
        })),
        RowKey::UserCounts(..) => RowValue::UserCounts(Box::new(UserCounts {
            own: r.bits()?,
            mention: r.bits()?,
            ask: r.bits()?,
            answered_seq: SeqId(r.number()?),
            first_own_seq: SeqId(r.number()?),
        })),
        RowKey::Fate(..) => RowValue::Fate(Box::new(take_fate(r)?)),
        RowKey::UserFeed(..) => RowValue::UserFeed(UserFeed {
            kind: kind_of(r.byte()?)?,
            since_ordinal: Ordinal(r.number()?),
            since_seq: SeqId(r.number()?),
        }),
        RowKey::Place(..) => {
            let flags = r.byte()?;
            if flags > 3 {
                return Err(DecodeError::Value("flags of a place"));
            }
            RowValue::Place(Place {
                has_received: flags & 1 != 0,
                pinned: flags & 2 != 0,
                read_seq: SeqId(r.number()?),
                read_ordinal: Ordinal(r.number()?),
                received_seq: SeqId(r.number()?),
                resolved_seq: SeqId(r.number()?),
                muted_until_ms: r.number()?,
            })
        }
        RowKey::Receipt(..) => RowValue::Receipt(Receipt {
            read_seq: SeqId(r.number()?),
            read_ms: r.number()?,
            received_seq: SeqId(r.number()?),
            received_ms: r.number()?,
        }),
    };
    reader.end()?;
    Ok(value)
}

// Domain enums are mapped by name: their own order may change, these numbers may not.

fn kind_number(kind: FeedKind) -> u8 {
    match kind {
        FeedKind::Direct => 0,
        FeedKind::Group => 1,
        FeedKind::Open => 2,
        FeedKind::Personal => 3,
    }
}

fn kind_of(number: u8) -> Result<FeedKind, DecodeError> {
    Ok(match number {
        0 => FeedKind::Direct,
        1 => FeedKind::Group,
        2 => FeedKind::Open,
        3 => FeedKind::Personal,
        _ => return Err(DecodeError::Value("kind of a feed")),
    })
}

fn role_number(role: Role) -> u8 {
    match role {
        Role::Member => 0,
        Role::Admin => 1,
        Role::Owner => 2,
    }
}

fn role_of(number: u8) -> Result<Role, DecodeError> {
    Ok(match number {
        0 => Role::Member,
        1 => Role::Admin,
        2 => Role::Owner,
        _ => return Err(DecodeError::Value("role")),
    })
}

fn put_feed(out: &mut Vec<u8>, feed: &FeedState) {
    out.push(kind_number(feed.kind));
    out.push(match feed.join {
        JoinMode::Open => 0,
        JoinMode::Approval => 1,
        JoinMode::Invite => 2,
    });
    out.push(match feed.history {
        HistoryMode::All => 0,
        HistoryMode::SinceJoin => 1,
    });
    put_text_option(out, feed.title.as_deref());
    put_text_option(out, feed.meta.as_deref());
    put_text_option(out, feed.pair.as_ref().map(|(a, _)| a.as_str()));
    put_text_option(out, feed.pair.as_ref().map(|(_, b)| b.as_str()));
    put_text(out, feed.creator.as_str());
    put_text_option(out, feed.owner.as_ref().map(Uid::as_str));
    put_number(out, feed.created_ms);
    put_number(out, feed.member_count);
    put_number(out, feed.holds.len() as u64);
    feed.holds.iter().for_each(|hold| put_text(out, hold));
}

fn take_feed(r: &mut Reader<'_>) -> Result<FeedState, DecodeError> {
    let uid = |text: &str| Uid::parse(text).map_err(|_| DecodeError::Value("uid"));
    let kind = kind_of(r.byte()?)?;
    let join = match r.byte()? {
        0 => JoinMode::Open,
        1 => JoinMode::Approval,
        2 => JoinMode::Invite,
        _ => return Err(DecodeError::Value("join mode")),
    };
    let history = match r.byte()? {
        0 => HistoryMode::All,
        1 => HistoryMode::SinceJoin,
        _ => return Err(DecodeError::Value("history mode")),
    };
    let title = r.text_option()?;
    let meta = r.text_option()?;
    let pair = match (r.text_option()?, r.text_option()?) {
        (None, None) => None,
        (Some(a), Some(b)) => Some((uid(&a)?, uid(&b)?)),
        _ => return Err(DecodeError::Value("pair")),
    };
    let creator = uid(r.text()?)?;
    let owner = r.text_option()?.map(|text| uid(&text)).transpose()?;
    let (created_ms, member_count) = (r.number()?, r.number()?);
    let count = r.number()?;
    // No allocation by a count that the bytes do not bear out.
    let mut holds = Vec::new();
    for _ in 0..count {
        holds.push(Arc::from(r.text()?));
    }
    Ok(FeedState { kind, title, join, history, meta, pair, creator, owner, created_ms, member_count, holds })
}

fn put_fate(out: &mut Vec<u8>, fate: &Fate) {
    let has = [fate.recalled.is_some(), fate.edited.is_some(), fate.expired.is_some(), fate.erased.is_some()];
    out.push(has.iter().enumerate().fold(0, |flags, (i, has)| flags | u8::from(*has) << i));
    if let Some(recalled) = &fate.recalled {
        put_text(out, recalled.by.as_str());
        put_number(out, recalled.seq.0);
        put_number(out, recalled.time_ms);
    }
    for seq in [fate.edited, fate.expired, fate.erased].into_iter().flatten() {
        put_number(out, seq.0);
    }
    put_number(out, fate.earlier_edits.len() as u64);
    fate.earlier_edits.iter().for_each(|seq| put_number(out, seq.0));
    put_number(out, fate.reactions.len() as u64);
    for (key, count) in &fate.reactions {
        put_text(out, key.as_str());
        put_number(out, u64::from(*count));
    }
}

fn take_fate(r: &mut Reader<'_>) -> Result<Fate, DecodeError> {
    let flags = r.byte()?;
    if flags > 15 {
        return Err(DecodeError::Value("flags of a fate"));
    }
    let recalled = match flags & 1 {
        0 => None,
        _ => Some(Recalled {
            by: Uid::parse(r.text()?).map_err(|_| DecodeError::Value("uid"))?,
            seq: SeqId(r.number()?),
            time_ms: r.number()?,
        }),
    };
    let mut seq = |flag: u8| match flags & flag {
        0 => Ok(None),
        _ => r.number().map(|seq| Some(SeqId(seq))),
    };
    let (edited, expired, erased) = (seq(2)?, seq(4)?, seq(8)?);
    let count = r.number()?;
    let mut earlier_edits = Vec::new();
    for _ in 0..count {
        earlier_edits.push(SeqId(r.number()?));
    }
    let count = r.number()?;
    let mut reactions = Vec::new();
    for _ in 0..count {
        let key = ReactionKey::parse(r.text()?).map_err(|_| DecodeError::Value("reaction"))?;
        let users = u32::try_from(r.number()?).map_err(|_| DecodeError::Value("count of reactions"))?;
        reactions.push((key, users));
    }
    Ok(Fate { recalled, edited, earlier_edits, expired, erased, reactions })
}
