//! The four topic spaces: free topics, feed topics, mqant's URIs, protobuf topics.

use feedlog_core::ids::FeedId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use feedlog_core::ids::SeqId;

/// What a PUBLISH is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An open feed of this name.
    Free(FeedId),
    /// `feeds/<feed_id>`.
    Feed(FeedId),
    /// A URI, or mqant's default form `Module/HD_Method/n`.
    Im,
    /// `pb/…`.
    Protobuf,
    /// Nobody may publish here.
    Reserved,
    /// No feed can have this name: too long, or with control characters.
    Invalid,
}

/// What a filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Open feeds by pattern.
    Free,
    /// One feed, from a place on when one is named.
    Feed(FeedId, Option<SeqId>),
    /// All feeds of the user.
    Mine,
    /// Comes without a subscription.
    Unasked,
    /// No feed can have this name, or the form is not known.
    Invalid,
}

/// What feed topics begin with.
pub(crate) const FEEDS: &str = "feeds/";
const FROM: &str = "$from/";

/// Everything but what RFC 3986 §2.3 never needs encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// The feed topic of a feed.
pub(crate) fn feed_topic(feed: &FeedId) -> String {
    format!("{FEEDS}{}", utf8_percent_encode(feed.as_str(), SEGMENT))
}

fn feed_of(segment: &str) -> Option<FeedId> {
    if segment.contains('/') {
        return None;
    }
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    FeedId::parse(&name).ok()
}

/// Whether mqant's router would take it: `scheme://…`, or `Module[@node]/HD_Method[/n]`.
pub(crate) fn is_im(topic: &str) -> bool {
    if let Some((scheme, _)) = topic.split_once("://") {
        return !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    }
    let mut levels = topic.split('/');
    let (module, method, number, more) = (levels.next(), levels.next(), levels.next(), levels.next());
    module.is_some_and(|module| !module.is_empty())
        && method.is_some_and(|method| method.starts_with("HD_"))
        && number.is_none_or(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        && more.is_none()
}

/// What a topic name is addressed to.
pub(crate) fn target(topic: &str) -> Target {
    if is_im(topic) {
        return Target::Im;
    }
    if let Some(segment) = topic.strip_prefix(FEEDS) {
        return feed_of(segment).map_or(Target::Invalid, Target::Feed);
    }
    if topic.starts_with("pb/") {
        return Target::Protobuf;
    }
    if topic == "$SYS" || ["$SYS/", "$share/", FROM].iter().any(|prefix| topic.starts_with(prefix)) {
        return Target::Reserved;
    }
    FeedId::parse(topic).map_or(Target::Invalid, Target::Free)
}

/// What a filter, whose form was checked, asks for. Of a shared subscription, this is the filter after the group.
pub(crate) fn wanted(filter: &str) -> Wanted {
    if let Some(rest) = filter.strip_prefix(FROM) {
        let Some((seq, topic)) = rest.split_once('/') else { return Wanted::Invalid };
        let seq = seq.parse().ok().filter(|seq| *seq <= SeqId::MAX.0).map(SeqId);
        let feed = topic.strip_prefix(FEEDS).and_then(feed_of);
        return match (seq, feed) {
            (Some(seq), Some(feed)) => Wanted::Feed(feed, Some(seq)),
            _ => Wanted::Invalid,
        };
    }
    if filter == "feeds/+" || filter == "feeds/#" {
        return Wanted::Mine;
    }
    if let Some(segment) = filter.strip_prefix(FEEDS) {
        return feed_of(segment).map_or(Wanted::Invalid, |feed| Wanted::Feed(feed, None));
    }
    if filter.starts_with("pb/") || is_im(filter) {
        return Wanted::Unasked;
    }
    Wanted::Free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(name: &str) -> FeedId {
        FeedId::parse(name).unwrap()
    }

    #[test]
    fn names_go_to_their_space() {
        for (topic, expected) in [
            ("a/b/c", Target::Free(feed("a/b/c"))),
            ("/", Target::Free(feed("/"))),
            ("$other/x", Target::Free(feed("$other/x"))),
            ("é", Target::Free(feed("é"))),
            ("feeds/g", Target::Feed(feed("g"))),
            ("feeds/direct%3Aab", Target::Feed(feed("direct:ab"))),
            ("feeds/a%2Fb", Target::Feed(feed("a/b"))),
            ("feeds/a/b", Target::Invalid),
            ("feeds/", Target::Invalid),
            ("feeds/%ff", Target::Invalid),
            ("feeds", Target::Free(feed("feeds"))),
            ("im://modulus/send?msg_id=1", Target::Im),
            ("http://example.org/a", Target::Im),
            ("://x", Target::Free(feed("://x"))),
            ("Login/HD_Login/1", Target::Im),
            ("Login@node/HD_Login", Target::Im),
            ("Login/HD_Login/x", Target::Free(feed("Login/HD_Login/x"))),
            ("Login/HD_Login/1/2", Target::Free(feed("Login/HD_Login/1/2"))),
            ("pb/message", Target::Protobuf),
            ("$SYS/x", Target::Reserved),
            ("$share/g/a", Target::Reserved),
            ("$from/1/feeds/g", Target::Reserved),
        ] {
            assert_eq!(target(topic), expected, "{topic}");
        }
        assert_eq!(target(&"a".repeat(255)), Target::Free(feed(&"a".repeat(255))));
        assert_eq!(target(&"a".repeat(256)), Target::Invalid, "one byte more than a feed_id may have");
        assert_eq!(target("a\u{7}"), Target::Invalid);
    }

    #[test]
    fn filters_ask_for_their_space() {
        for (filter, expected) in [
            ("#", Wanted::Free),
            ("a/+/c", Wanted::Free),
            ("feeds/+", Wanted::Mine),
            ("feeds/#", Wanted::Mine),
            ("feeds/g", Wanted::Feed(feed("g"), None)),
            ("$from/0/feeds/g", Wanted::Feed(feed("g"), Some(SeqId(0)))),
            ("$from/41/feeds/a%2Fb", Wanted::Feed(feed("a/b"), Some(SeqId(41)))),
            ("$from/x/feeds/g", Wanted::Invalid),
            ("$from/1/a/b", Wanted::Invalid),
            ("$from/9007199254740992/feeds/g", Wanted::Invalid),
            ("pb/unread", Wanted::Unasked),
            ("impush://modulus/news", Wanted::Unasked),
        ] {
            assert_eq!(wanted(filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_feed_topic_leads_back_to_its_feed() {
        for name in ["g", "a/b", "direct:00ff", "user:é", "50%", "+#", "x y"] {
            assert_eq!(target(&feed_topic(&feed(name))), Target::Feed(feed(name)), "{name}");
        }
    }
}
