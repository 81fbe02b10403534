//! What rumqttd can bear.

/// Longest topic that MQTT can carry.
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// Why a topic is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsafe {
    Empty,
    TooLong,
    /// rumqttd cuts a topic behind its first byte and panics where that is no character's end.
    NotAscii,
    /// Hidden from its wildcards; nobody should rely on finding it there.
    Dollar,
    /// A topic name has none; what looks like one came through something broken.
    Wildcard,
    Nul,
}

/// Whether rumqttd can route this topic.
pub(crate) fn topic(topic: &str) -> Result<(), Unsafe> {
    match topic.as_bytes().first() {
        None => return Err(Unsafe::Empty),
        Some(b'$') => return Err(Unsafe::Dollar),
        Some(first) if !first.is_ascii() => return Err(Unsafe::NotAscii),
        Some(_) => {}
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(Unsafe::TooLong);
    }
    if topic.contains(['+', '#']) {
        return Err(Unsafe::Wildcard);
    }
    if topic.contains('\0') {
        return Err(Unsafe::Nul);
    }
    Ok(())
}

/// Whether rumqttd can have a client of this id; it leaves others waiting for ever. An empty one gets one of its own.
pub(crate) fn client_id(id: &str) -> bool {
    !id.contains(['/', '+', '#', '$', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_would_end_rumqttd_is_found() {
        assert_eq!(topic("bus/日本/x"), Ok(()));
        assert_eq!(topic("日本/x"), Err(Unsafe::NotAscii));
        assert_eq!(topic("é"), Err(Unsafe::NotAscii));
        assert_eq!(topic(""), Err(Unsafe::Empty));
        assert_eq!(topic("$SYS/x"), Err(Unsafe::Dollar));
        assert_eq!(topic("a/+/b"), Err(Unsafe::Wildcard));
        assert_eq!(topic("a\0b"), Err(Unsafe::Nul));
        assert_eq!(topic(&"a".repeat(65_535)), Ok(()));
        assert_eq!(topic(&"a".repeat(65_536)), Err(Unsafe::TooLong));
    }

    #[test]
    fn a_client_id_that_rumqttd_cannot_have_is_found() {
        assert!(client_id("screen-1") && client_id(""));
        for id in ["a/b", "a+b", "#", "$x"] {
            assert!(!client_id(id), "{id}");
        }
    }
}
