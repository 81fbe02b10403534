//! Every bound of the core in one place. Sizes are in bytes unless the name says otherwise.

/// Longest `feed_id`.
pub const FEED_ID_BYTES_MAX: usize = 255;
/// Longest pattern over names of feeds: as long as an MQTT topic filter may be.
pub const PATTERN_BYTES_MAX: usize = 65_535;
/// Longest `uid`.
pub const UID_BYTES_MAX: usize = 100;
/// Longest `client_msg_id`.
pub const CLIENT_MSG_ID_BYTES_MAX: usize = 128;
/// Longest reaction key.
pub const REACTION_KEY_BYTES_MAX: usize = 64;
/// Longest content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 127;
/// Longest feed title.
pub const TITLE_BYTES_MAX: usize = 255;
/// Largest `meta` object of a feed, as JSON text.
pub const META_BYTES_MAX: usize = 16 * 1024;
/// Longest reason of a recall, a join request or a removal.
pub const REASON_BYTES_MAX: usize = 1024;
/// Largest payload unless configured otherwise.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1 << 20;
/// Largest payload that can be configured.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Most bytes that a front end has carried with a message: every property that an MQTT message can have, and some more.
pub const CARRIED_BYTES_MAX: usize = 70_000;
/// Most mentions in one message.
pub const MENTIONS_MAX: usize = 100;
/// Most members named when a feed is created.
pub const CREATE_MEMBERS_MAX: usize = 1000;
/// Most distinct reaction keys on one message.
pub const REACTION_KEYS_MAX: usize = 32;
/// Ordinals that share one row of counted sets; the width of [`crate::rows::Bits`].
pub const COUNT_BLOCK_ORDINALS: u64 = 256;
/// Most edits of one message.
pub const EDITS_MAX: usize = 100;
/// How long a sender may recall or edit, unless configured otherwise: two minutes.
pub const RECALL_WINDOW_MS_DEFAULT: u64 = 120_000;
/// Most messages that one expiry entry names.
pub const EXPIRE_BATCH_MAX: usize = 1000;
/// Most entries of one page of history.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// Most payload bytes of one page of history; at least one entry is always returned.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

const _: () = assert!(PAYLOAD_BYTES_DEFAULT <= PAYLOAD_BYTES_MAX);
const _: () = assert!(COUNT_BLOCK_ORDINALS.is_multiple_of(64));
