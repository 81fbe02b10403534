//! CONNECT and CONNACK.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::super::outbound::FlowState;
use super::super::session::Session;
use super::super::stored::StoredWill;
use super::super::wire::reason::{self, v3};
use super::super::wire::{Connect, Level, PropertyWriter, WireError, encode};
use super::{Effect, Machine, Open, Phase};

/// Longest client id.
const CLIENT_ID_BYTES_MAX: usize = 1024;

/// A CONNACK with a reason and nothing else.
const CONNACK_BYTES_MIN: u32 = 5;
/// With every property that ours can have, but for an id.
const CONNACK_BYTES_MAX: u32 = CONNACK_BYTES_MIN + 5 + 3 + 5 + 3;
/// With an id of ours besides: two numbers in hexadecimal.
const CONNACK_BYTES_MAX_ASSIGNED: u32 = CONNACK_BYTES_MAX + 3 + 48;

/// Why a CONNECT is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectRefusal {
    /// Unknown user, wrong password or token.
    BadCredential,
    /// No credential where one is needed, or not allowed.
    NotAuthorized,
    /// The client id cannot be used.
    BadClientId,
    /// The will cannot be published: its topic is nobody's to publish to.
    BadWill,
    /// The store cannot answer now.
    Unavailable,
    /// Too many attempts or sessions.
    Busy,
}

impl ConnectRefusal {
    /// The reason of MQTT 5 and the return code before it.
    fn codes(self) -> (u8, u8) {
        match self {
            Self::BadCredential => (reason::BAD_USER_NAME_OR_PASSWORD, v3::BAD_USER_NAME_OR_PASSWORD),
            Self::NotAuthorized => (reason::NOT_AUTHORIZED, v3::NOT_AUTHORIZED),
            Self::BadClientId => (reason::CLIENT_IDENTIFIER_NOT_VALID, v3::IDENTIFIER_REJECTED),
            Self::BadWill => (reason::TOPIC_NAME_INVALID, v3::NOT_AUTHORIZED),
            Self::Unavailable => (reason::SERVER_UNAVAILABLE, v3::SERVER_UNAVAILABLE),
            Self::Busy => (reason::QUOTA_EXCEEDED, v3::SERVER_UNAVAILABLE),
        }
    }
}

/// What the driver found: the session to go on with.
pub(crate) struct Accepted {
    pub(crate) session: Session,
    /// It was stored.
    pub(crate) present: bool,
    /// The client had no id and got the session's.
    pub(crate) assigned: bool,
    pub(crate) will: Option<StoredWill>,
}

impl Machine {
    pub(super) fn connect(&mut self, connect: Box<Connect>) {
        self.level = connect.level;
        self.phase = Phase::Opening;
        if connect.properties.authentication_method().is_some() {
            // MQTT5 [MQTT-4.12.0-1]: enhanced authentication is not supported.
            return self.refuse(
                reason::BAD_AUTHENTICATION_METHOD,
                v3::NOT_AUTHORIZED,
                "enhanced authentication",
            );
        }
        let empty = connect.client_id.is_empty();
        let may_be_empty = match connect.level {
            Level::V31 => false,
            // [MQTT-3.1.3-8].
            Level::V311 => connect.clean_start,
            // MQTT5 [MQTT-3.1.3-6].
            Level::V5 => true,
        };
        if empty && !may_be_empty || connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            return self.refused(ConnectRefusal::BadClientId);
        }
        let connack = if empty { CONNACK_BYTES_MAX_ASSIGNED } else { CONNACK_BYTES_MAX };
        if let Some(max) = connect.properties.maximum_packet_size().filter(|max| *max < connack) {
            // MQTT5 [MQTT-3.1.2-24]: a client that does not take a CONNACK can be told the shortest one at most.
            if max < CONNACK_BYTES_MIN {
                return self.end("a maximum packet size below that of every CONNACK", false);
            }
            let why = "a maximum packet size below that of a CONNACK";
            return self.refuse(reason::IMPLEMENTATION_SPECIFIC_ERROR, v3::NOT_AUTHORIZED, why);
        }
        self.effects.push_back(Effect::Open(connect));
    }

    /// The driver has opened the session.
    pub(crate) fn opened(&mut self, connect: &Connect, accepted: Accepted, now: Instant) {
        let Accepted { session, present, assigned, will } = accepted;
        let config = self.config.clone();
        let asked = &connect.properties;
        let v5 = self.level == Level::V5;
        let mut properties = PropertyWriter::new();
        if v5 {
            let asked_expiry_s = asked.session_expiry_s().unwrap_or(0);
            if session.expiry_s != asked_expiry_s {
                properties.session_expiry_s(session.expiry_s);
            }
            properties
                .receive_maximum(config.receive_maximum)
                .maximum_packet_size(u32::try_from(config.packet_bytes_max).unwrap_or(u32::MAX))
                .topic_alias_maximum(config.topic_alias_max);
            if assigned {
                // MQTT5 [MQTT-3.2.2-16].
                properties.assigned_client_identifier(&session.key.client_id);
            }
        }
        let open = Open {
            will,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_once: 0,
            pending_twice: 0,
            earlier: session.inbound.len(),
            pending_calls: 0,
            next_call: 0,
            aliases_in: HashMap::new(),
            aliases_out: HashMap::new(),
            alias_out_max: asked.topic_alias_maximum().unwrap_or(0).min(config.topic_alias_max),
            // MQTT5 [MQTT-3.3.4-9]: never more than the client's Receive Maximum.
            window: asked.receive_maximum().unwrap_or(u16::MAX).min(config.in_flight_max).max(1),
            packet_bytes_max: asked
                .maximum_packet_size()
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            problem_information: asked.request_problem_information().unwrap_or(true),
            unsent: session
                .outbound
                .flows()
                .filter(|flow| flow.state != FlowState::Done)
                .map(|flow| flow.id)
                .collect(),
            backlog: VecDeque::new(),
            retained: VecDeque::new(),
            handed: HashSet::new(),
            received: BTreeMap::new(),
            moved: false,
            was_persistent: session.is_persistent(),
            properties: PropertyWriter::new(),
            session,
        };
        // [MQTT-3.2.2-2]: session present only when there is one; MQTT 3.1 has no such flag.
        let present = present && self.level != Level::V31;
        encode::connack(self.level, present, reason::SUCCESS, properties.block(), &mut self.out);
        self.decoder.set_packet_bytes_max(config.packet_bytes_max);
        self.phase = Phase::Open;
        // [MQTT-3.1.2-24], MQTT5 [MQTT-3.1.2-22]; 0 turns it off.
        let keep_alive = Duration::from_millis(u64::from(connect.keep_alive_s) * 1500);
        self.keep_alive = (!keep_alive.is_zero()).then_some(keep_alive);
        self.heard(now);
        let unfinished = !open.unsent.is_empty();
        self.open = Some(Box::new(open));
        if unfinished {
            // [MQTT-4.4.0-1]: what was not acknowledged is sent again, first, in the same order.
            self.effects.push_back(Effect::Resend);
        }
        if self.session().is_some_and(|session| session.subscriptions.values().any(|one| one.group.is_some()))
        {
            self.effects.push_back(Effect::Rejoin);
        }
        if self.session().is_some_and(|session| session.impush || session.protobuf) {
            self.effects.push_back(Effect::FollowMine);
        }
    }

    /// The driver has not.
    pub(crate) fn refused(&mut self, refusal: ConnectRefusal) {
        let (v5, v3) = refusal.codes();
        self.refuse(v5, v3, "CONNECT was refused");
    }

    /// The first bytes were no CONNECT that can be accepted. A version that is not known is told so as each version
    /// says (`[MQTT-3.1.2-2]`); everything else closes without a word (`[MQTT-3.1.4-1]`), but for MQTT 5.
    pub(super) fn refuse_bytes(&mut self, error: WireError) {
        if let (reason::UNSUPPORTED_PROTOCOL_VERSION, Some(level)) = (error.reason, error.level) {
            self.level = level;
            return self.refuse(error.reason, v3::UNACCEPTABLE_PROTOCOL_VERSION, error.problem);
        }
        if error.level == Some(Level::V5) {
            self.level = Level::V5;
            return self.refuse(error.reason, v3::NOT_AUTHORIZED, error.problem);
        }
        self.end(error.problem, false);
    }

    fn refuse(&mut self, v5: u8, v3: u8, why: &'static str) {
        let code = if self.level == Level::V5 { v5 } else { v3 };
        // [MQTT-3.2.2-4]: with a refusal there is no session.
        encode::connack(self.level, false, code, &[], &mut self.out);
        self.end(why, false);
    }
}
