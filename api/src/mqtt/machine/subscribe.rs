//! SUBSCRIBE and UNSUBSCRIBE.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use feedlog_core::pattern::Pattern;
use feedlog_service::views::View;

use super::super::session::Subscription;
use super::super::space::{self, Wanted};
use super::super::stored;
use super::super::wire::{Level, Subscribe, SubscribeOptions, Unsubscribe, encode, reason, topic};
use super::{Effect, Machine, Retained};

/// One filter of a SUBSCRIBE, as far as it can be judged without looking.
#[derive(Debug, Clone)]
pub(crate) enum Sought {
    /// To be checked and followed.
    Wanted(Subscription, u8),
    /// Refused for this reason of MQTT 5.
    Refused(u8),
}

/// What the driver made of one filter.
#[derive(Debug)]
pub(crate) enum Granted {
    /// Followed. A search for its retained messages begins with what is in `found`.
    Followed(Subscription, bool),
    /// Refused for this reason of MQTT 5.
    Refused(u8),
}

/// What the driver made of one filter of an UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsubscribed {
    /// It was there.
    Ended,
    /// It was not.
    Unknown,
}

impl Machine {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        let Some(open) = &mut self.open else { return };
        let identifier = subscribe.properties.subscription_identifiers().next();
        let raw = subscribe.properties.user().any(|(name, value)| name == "format" && value == "raw");
        let from = subscribe
            .properties
            .user()
            .find(|(name, _)| *name == "last_seq_id")
            .map(|(_, value)| value.parse().ok().filter(|seq| *seq <= feedlog_core::ids::SeqId::MAX.0));
        let mut asked = HashSet::new();
        let mut room = self.config.subscriptions_max.saturating_sub(open.session.subscriptions.len());
        let mut sought = Vec::with_capacity(subscribe.filters.len());
        for (filter, options) in &subscribe.filters {
            let is_known = open.session.subscriptions.contains_key(filter.as_str());
            let is_new = !is_known && !asked.contains(filter.as_str());
            if is_new && room == 0 {
                sought.push(Sought::Refused(reason::QUOTA_EXCEEDED));
                continue;
            }
            let one = seek(filter, options, self.config.topic_levels_max, from);
            sought.push(match one {
                Err(reason) => Sought::Refused(reason),
                Ok(Target { wanted, pattern, group }) => {
                    room -= usize::from(is_new);
                    asked.insert(filter.as_str());
                    let subscription = Subscription {
                        filter: filter.as_str().into(),
                        number: open.session.number(),
                        qos: options.qos,
                        no_local: options.no_local,
                        retain_as_published: options.retain_as_published,
                        identifier,
                        raw,
                        since: 0,
                        wanted,
                        pattern,
                        group,
                        muted: false,
                    };
                    // MQTT5 [MQTT-3.3.1-9] to [MQTT-3.3.1-11]; shared subscriptions get none (§4.8.2).
                    let seeks = match options.retain_handling {
                        0 => true,
                        1 => is_new,
                        _ => false,
                    };
                    Sought::Wanted(subscription, u8::from(seeks))
                }
            });
        }
        self.effects.push_back(Effect::Subscribe(Box::new(subscribe), sought));
    }

    /// SUBACK: one code for each filter, in order (`[MQTT-3.8.4-5]`, MQTT5 `[MQTT-3.8.4-6]`), once what a persistent
    /// session needs is durable.
    pub(crate) fn subscribed(&mut self, subscribe: &Subscribe, granted: Vec<Granted>) {
        let Some(open) = &mut self.open else { return };
        let mut reasons = Vec::with_capacity(granted.len());
        let mut searches = VecDeque::new();
        for one in granted {
            match one {
                Granted::Followed(subscription, seeks) => {
                    reasons.push(subscription.qos as u8);
                    if open.session.is_persistent() {
                        let key = open.session.key.subscription(&subscription.filter);
                        // One that was refused in the only way that MQTT 3.1 has is not granted by coming back later.
                        let row = (!subscription.muted).then(|| stored::encode(&subscription.stored()));
                        self.rows.push((key, row));
                    }
                    if seeks && subscription.group.is_none() && !subscription.muted {
                        open.retained.retain(|search| search.number != subscription.number);
                        searches.extend(search(&subscription));
                    }
                    // [MQTT-3.8.4-3]: the same filter again replaces the subscription.
                    open.session.subscriptions.insert(subscription.filter.clone(), subscription);
                }
                Granted::Refused(reason) => reasons.push(match self.level {
                    Level::V5 => reason,
                    Level::V311 => reason::UNSPECIFIED_ERROR,
                    // MQTT 3.1 has no code for it: the driver grants and mutes instead, but for filters without a form.
                    Level::V31 => 0,
                }),
            }
        }
        open.retained.extend(searches);
        let id = subscribe.packet_id;
        let held = !self.rows.is_empty() || !self.held.is_empty();
        encode::suback(self.level, id, &[], &reasons, if held { &mut self.held } else { &mut self.out });
    }

    /// UNSUBACK (`[MQTT-3.10.4-4]`, MQTT5 `[MQTT-3.10.4-6]`).
    pub(crate) fn unsubscribed(&mut self, unsubscribe: &Unsubscribe, ended: &[Unsubscribed]) {
        let Some(open) = &mut self.open else { return };
        for filter in &unsubscribe.filters {
            if open.session.subscriptions.remove(filter.as_str()).is_some() && open.session.is_persistent() {
                self.rows.push((open.session.key.subscription(filter), None));
            }
        }
        let reasons: Vec<u8> = ended
            .iter()
            .map(|one| match one {
                Unsubscribed::Ended => reason::SUCCESS,
                Unsubscribed::Unknown => reason::NO_SUBSCRIPTION_EXISTED,
            })
            .collect();
        let id = unsubscribe.packet_id;
        let held = !self.rows.is_empty() || !self.held.is_empty();
        encode::unsuback(self.level, id, &[], &reasons, if held { &mut self.held } else { &mut self.out });
    }
}

/// What a filter names.
pub(crate) struct Target {
    pub(crate) wanted: Wanted,
    pub(crate) pattern: Option<Arc<Pattern>>,
    pub(crate) group: Option<Arc<str>>,
}

/// What a filter names, `$share/…/` taken off.
pub(crate) fn target(filter: &str) -> Result<Target, u8> {
    let shared = topic::shared(filter).map_err(|_| reason::TOPIC_FILTER_INVALID)?;
    let (group, rest) = match &shared {
        Some(shared) => (Some(Arc::from(shared.group)), shared.filter),
        None => (None, filter),
    };
    let wanted = space::wanted(rest);
    let pattern = match &wanted {
        Wanted::Free => Some(Arc::new(Pattern::parse(rest).ok_or(reason::TOPIC_FILTER_INVALID)?)),
        Wanted::Invalid => return Err(reason::TOPIC_FILTER_INVALID),
        Wanted::Feed(..) | Wanted::Mine | Wanted::Unasked => None,
    };
    if group.is_some() && pattern.is_none() {
        // Whose feeds would they be?
        return Err(reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    Ok(Target { wanted, pattern, group })
}

fn seek(
    filter: &str,
    options: &SubscribeOptions,
    levels_max: usize,
    from: Option<Option<u64>>,
) -> Result<Target, u8> {
    if filter.split('/').count() > levels_max {
        return Err(reason::TOPIC_FILTER_INVALID);
    }
    let mut target = target(filter)?;
    debug_assert!(
        !(options.no_local && target.group.is_some()),
        "MQTT5 [MQTT-3.8.3-4]: the decoder refuses it"
    );
    if let (Wanted::Feed(_, place), Some(from)) = (&mut target.wanted, from) {
        // The user property names the place for feeds that do not name one themselves.
        let from = from.ok_or(reason::IMPLEMENTATION_SPECIFIC_ERROR)?;
        place.get_or_insert(feedlog_core::ids::SeqId(from));
    }
    Ok(target)
}

/// Where retained messages for a subscription can be.
fn search(subscription: &Subscription) -> Option<Retained> {
    let (prefix, pattern) = match (&subscription.wanted, &subscription.pattern) {
        (Wanted::Free, Some(pattern)) => {
            let fixed = subscription.filter.find(['+', '#']).and_then(|end| subscription.filter.get(..end));
            match fixed {
                // `a/#` means `a` as well.
                Some(fixed) => (fixed.strip_suffix('/').unwrap_or(fixed).to_owned(), Some(pattern.clone())),
                None => (subscription.filter.to_string(), None),
            }
        }
        (Wanted::Feed(feed, None), _) => (space::feed_topic(feed), None),
        (Wanted::Mine, _) => (space::FEEDS.to_owned(), Some(Arc::new(Pattern::parse("feeds/+")?))),
        _ => return None,
    };
    let found: VecDeque<(String, Arc<View>)> = VecDeque::new();
    Some(Retained { number: subscription.number, prefix, pattern, after: None, found, finished: false })
}
