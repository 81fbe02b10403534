//! What is a topic name, a topic filter, a shared subscription. Matching is in `feedlog_core::pattern`.

/// What a shared subscription begins with: MQTT5 §4.8.2.
pub const SHARED_PREFIX: &str = "$share/";

/// Whether one may publish to this: at least one character (MQTT5 [MQTT-4.7.3-1]), no wildcard (MQTT5 [MQTT-3.3.2-2],
/// 3.1.1 [MQTT-3.3.2-2]), no U+0000 ([MQTT-4.7.3-2]), at most 65,535 bytes ([MQTT-4.7.3-3]).
pub fn is_name(topic: &str) -> bool {
    fits(topic) && !topic.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#'))
}

/// Whether one may subscribe to this: `#` only as the whole last level (MQTT5 [MQTT-4.7.1-1], 3.1.1 [MQTT-4.7.1-2]), `+`
/// only as a whole level (MQTT5 [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-3]). A shared subscription's form is not looked at.
pub fn is_filter(filter: &str) -> bool {
    if !fits(filter) || filter.bytes().any(|byte| byte == 0) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let alone = level.len() == 1;
        let last = levels.peek().is_none();
        if (level.contains('#') && !(alone && last)) || (level.contains('+') && !alone) {
            return false;
        }
    }
    true
}

fn fits(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= super::FIELD_BYTES_MAX
}

/// A filter whose messages go to one member of a group each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared<'a> {
    /// The name of the group.
    pub group: &'a str,
    /// What the group follows.
    pub filter: &'a str,
}

/// A filter that begins like a shared subscription and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadShare;

/// Takes a shared subscription apart; `None` for every other filter. The name of the group has at least one character
/// (MQTT5 [MQTT-4.8.2-1]), none of `/`, `+`, `#`, and is followed by `/` and a filter ([MQTT-4.8.2-2]).
pub fn shared(filter: &str) -> Result<Option<Shared<'_>>, BadShare> {
    let Some(rest) = filter.strip_prefix(SHARED_PREFIX) else { return Ok(None) };
    let (group, filter) = rest.split_once('/').ok_or(BadShare)?;
    if group.is_empty() || group.contains(['+', '#']) || !is_filter(filter) {
        return Err(BadShare);
    }
    Ok(Some(Shared { group, filter }))
}
