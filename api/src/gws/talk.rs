//! A connection to a room: packets in, acknowledgements and what others send out.
//!
//! The connection gets the room's entries from its attachment, its own among them. Those are left out by their places, which
//! the answers tell: answers of one feed come in the order of its entries, so an entry of the same user is somebody else's
//! once the answer to a later one of ours is there, or none is outstanding. Until then nothing more is taken.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Draft};
use feedlog_core::event::{Event, FeedKind, MessageKind, Scope};
use feedlog_core::feed::Rejected;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId};
use feedlog_service::views::{After, Delivery, View};
use feedlog_service::{Attachment, Gate, ReadError, Receipt, SubmitError};
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::Gws;
use super::packet::{self, GOTAPI, Kind};
use super::rooms::Seat;
use crate::errors::ApiError;
use crate::http::app::App;
use crate::http::stream::still_good;
use crate::socket::{Frame, Line, Talk, close};

/// Where the uuids of packets are unique: they have no senders.
pub(super) fn scope() -> Scope {
    Scope::Shared(SCOPE.into())
}

const SCOPE: &str = "gws";
/// Raw frames that are text.
const TEXT: &str = "text/plain; charset=utf-8";
/// Raw frames that are not: also an empty binary one, which nothing else tells from an empty text.
const BINARY: &str = "application/octet-stream";

fn new_room() -> CreateFeed {
    CreateFeed::new(FeedKind::Open)
}

/// The message that a packet is: its bytes as they came, and the id under which it is known again, if it is to be.
pub(super) fn message(room: &FeedId, packet: Bytes, id: Option<ClientMsgId>) -> Command {
    let draft = Draft {
        client_msg_id: id,
        scope: scope(),
        create: Some(new_room()),
        ..Draft::new(MessageKind::Text, GOTAPI.into(), packet)
    };
    Command { feed: room.clone(), action: Action::SendMessage(Box::new(draft)) }
}

/// The entry that a raw frame is. What is UTF-8 is text, whatever kind of frame it came in.
pub(super) fn broadcast(room: &FeedId, frame: Frame) -> Command {
    let (content_type, payload) = match frame {
        Frame::Text(text) => (TEXT, text.into()),
        Frame::Binary(bytes) => (BINARY, bytes),
    };
    let action = Action::Broadcast { content_type: content_type.into(), payload, create: Some(new_room()) };
    Command { feed: room.clone(), action }
}

/// A frame as it is handed on [gws: broadcast frames, binary input]: text when it is UTF-8. An empty binary frame stays one.
pub(super) fn as_handed_on(frame: Frame) -> Frame {
    match frame {
        Frame::Binary(bytes) if !bytes.is_empty() => {
            Utf8Bytes::try_from(bytes.clone()).map_or(Frame::Binary(bytes), Frame::Text)
        }
        frame => frame,
    }
}

/// What clients are shown of a message: a packet as it came, a generated one for what other wires brought. None when it was
/// recalled.
pub(super) fn packet_of(view: &View) -> Option<Bytes> {
    let entry = &view.entry;
    let message = entry.message()?;
    if view.fate.as_ref().is_some_and(|fate| fate.recalled.is_some()) {
        return None;
    }
    let payload = entry.payload.bytes().cloned().unwrap_or_default();
    if is_packet(&message.scope) && &*message.content_type == GOTAPI && std::str::from_utf8(&payload).is_ok()
    {
        return Some(payload);
    }
    let generated = packet::foreign(&uuid_of(view)?, &payload, &message.content_type);
    Some(generated.into())
}

fn is_packet(scope: &Scope) -> bool {
    matches!(scope, Scope::Shared(name) if &**name == SCOPE)
}

/// The uuid by which clients know a message; none for packets that came without one that is fit.
fn uuid_of(view: &View) -> Option<String> {
    let entry = &view.entry;
    let message = entry.message()?;
    match &message.client_msg_id {
        Some(id) => Some(id.as_str().to_owned()),
        // An edited packet without an id is shown as a generated one.
        None if is_packet(&message.scope) && &*message.content_type == GOTAPI => None,
        None => Some(place_uuid(&entry.feed, entry.seq)),
    }
}

/// The uuid of what has no id.
fn place_uuid(feed: &FeedId, seq: SeqId) -> String {
    format!("{feed}:{seq}")
}

/// Whether the id of a packet was used before, by the same or by another. Without de-duplication such a packet is stored
/// all the same, without the id: a cancel means the first.
pub(super) fn is_again(outcome: &Result<Receipt, SubmitError>) -> bool {
    match outcome {
        Ok(receipt) => receipt.done().duplicate,
        Err(error) => matches!(error, SubmitError::Rejected(Rejected::IdConflict { .. })),
    }
}

/// Follows a room from now on, also one that nobody wrote to yet: before the client hears that it is connected, so that
/// nothing falls between its history and what comes live (P4).
pub(super) async fn follow(gate: &Gate, room: &FeedId) -> Result<Box<Attachment>, ApiError> {
    let mut attachment = Box::new(gate.follow(None).await?);
    attachment.add_coming(room.clone(), After::Head).await?;
    Ok(attachment)
}

/// A connection to a room.
pub(super) struct RoomTalk {
    pub(super) gws: Gws,
    pub(super) app: Arc<App>,
    pub(super) gate: Gate,
    pub(super) token: Option<Arc<str>>,
    pub(super) room: FeedId,
    pub(super) seat: Seat,
    pub(super) attachment: Option<Box<Attachment>>,
    pub(super) own: Own,
}

/// Which entries are the connection's own.
#[derive(Default)]
pub(super) struct Own {
    /// The room sends them back.
    echoed: bool,
    /// Submitted and not answered: nothing for a raw frame.
    pending: VecDeque<Option<Sent>>,
    /// To be stored without their ids, since when.
    again: VecDeque<(Instant, Sent)>,
    /// Answered and not come round yet, ascending.
    places: VecDeque<SeqId>,
    /// The newest that was answered.
    answered: SeqId,
    held: Option<Box<Held>>,
}

/// An entry that may be ours, and the attachment that waits with it.
struct Held {
    view: Arc<View>,
    /// Answers that were outstanding when it came and still are: what was submitted later has a later place.
    left: usize,
    attachment: Option<Box<Attachment>>,
}

/// A packet on its way.
pub(super) struct Sent {
    /// Its uuid as JSON text: a part of the packet.
    uuid: Bytes,
    /// Without de-duplication: the packet, to be stored without its id when that was used before.
    again: Option<Bytes>,
}

/// Whose an entry is.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Others,
    /// The answers that are outstanding will tell.
    Unknown,
}

impl Own {
    pub(super) fn new(echoed: bool) -> Self {
        Self { echoed, ..Self::default() }
    }

    /// All up to this place has come round.
    fn passed(&mut self, seq: SeqId) {
        while self.places.front().is_some_and(|place| *place <= seq) {
            self.places.pop_front();
        }
        if self.places.is_empty() {
            // A connection that does nothing holds no buffer.
            self.places = VecDeque::new();
        }
    }

    /// Of an entry of the connection's user.
    fn whose(&self, seq: SeqId) -> Whose {
        if self.places.binary_search(&seq).is_ok() {
            Whose::Ours
        } else if self.pending.is_empty() || seq <= self.answered {
            Whose::Others
        } else {
            Whose::Unknown
        }
    }

    fn is_answered(&mut self, seq: SeqId) {
        // INVARIANT: answers of one feed come in the order of its entries.
        self.answered = seq;
        if !self.echoed {
            self.places.push_back(seq);
        }
    }
}

impl RoomTalk {
    async fn raw(&mut self, line: &mut Line<Self>, frame: Frame) {
        let frame = as_handed_on(frame);
        if self.gws.config().store_raw {
            let command = broadcast(&self.room, frame);
            return self.submit(line, command, None).await;
        }
        if !self.gws.may_write(self.gate.principal()) {
            return line.close(close::POLICY, "not allowed");
        }
        self.gws.rooms().tell(&self.room, Some(&self.seat), &frame);
        if self.own.echoed {
            write(line, &frame);
        }
    }

    /// Hands a command over. What is refused here is not acknowledged, and the client sends it again.
    async fn submit(&mut self, line: &mut Line<Self>, command: Command, sent: Option<Sent>) {
        match line.submit(&self.gate, command, Vec::new()).await {
            Ok(()) => self.own.pending.push_back(sent),
            Err(error) => tracing::debug!(front_end = "gws", %error, "a frame was not taken"),
        }
    }

    async fn entry(&mut self, line: &mut Line<Self>, view: Arc<View>) {
        let entry = &view.entry;
        if let Event::MessageRecalled { target, .. } = entry.event {
            self.own.passed(entry.seq);
            return self.recalled(line, entry.seq, target).await;
        }
        if matches!(entry.event, Event::FeedCreated { kind, .. } if kind != FeedKind::Open) {
            // It was not there when the client came, and has become none of our rooms.
            return line.close(close::POLICY, "not allowed");
        }
        let counts = matches!(entry.event, Event::MessageSent(_) | Event::Broadcast { .. });
        if counts && !self.own.echoed && entry.sender == self.gate.principal().uid {
            match self.own.whose(entry.seq) {
                Whose::Ours => return self.own.passed(entry.seq),
                Whose::Others => {}
                Whose::Unknown => {
                    let (left, attachment) = (self.own.pending.len(), line.attachment.take());
                    self.own.held = Some(Box::new(Held { view, left, attachment }));
                    return;
                }
            }
        }
        self.own.passed(entry.seq);
        show(line, &view);
    }

    /// Peers learn it live; who was away does not find the packet in the history.
    async fn recalled(&mut self, line: &mut Line<Self>, seq: SeqId, target: SeqId) {
        let view = match self.gate.entry(&self.room, target).await {
            Ok(view) => view,
            // What is gone altogether needs no word.
            Err(ReadError::NotFound | ReadError::Denied(_)) => return,
            // The client comes again and pulls what is left: a recall is not passed over (P6).
            Err(_) => return line.close(close::TRY_AGAIN, "the log could not be read"),
        };
        let Some(uuid) = uuid_of(&view) else { return };
        line.text(packet::cancelled(&uuid).as_bytes());
        if self.gws.config().rollback_packets {
            line.text(packet::rollback(&uuid, &place_uuid(&self.room, seq)).as_bytes());
        }
    }

    /// An answer came: it may tell whose the held entry is.
    fn look_at_held(&mut self, line: &mut Line<Self>) {
        let Some(held) = self.own.held.as_deref_mut() else { return };
        held.left = held.left.saturating_sub(1);
        let (seq, left) = (held.view.entry.seq, held.left);
        let whose = match self.own.whose(seq) {
            Whose::Unknown if left > 0 => return,
            // Answers that tell no place, of packets that came again, are answers too.
            Whose::Unknown => Whose::Others,
            whose => whose,
        };
        if let Some(held) = self.own.held.take() {
            line.attachment = held.attachment;
            self.own.passed(seq);
            if whose == Whose::Others {
                show(line, &held.view);
            }
        }
    }
}

/// Sends what the entry is to clients, if it is anything.
fn show(line: &mut Line<RoomTalk>, view: &View) {
    match &view.entry.event {
        Event::MessageSent(_) => {
            if let Some(packet) = packet_of(view) {
                line.text(&packet);
            }
        }
        Event::Broadcast { content_type } => {
            let bytes = view.entry.payload.bytes().cloned().unwrap_or_default();
            let is_text = if bytes.is_empty() {
                &**content_type != BINARY
            } else {
                std::str::from_utf8(&bytes).is_ok()
            };
            if is_text { line.text(&bytes) } else { line.binary(&bytes) }
        }
        _ => {}
    }
}

fn write(line: &mut Line<RoomTalk>, frame: &Frame) {
    match frame {
        Frame::Text(text) => line.text(text.as_bytes()),
        Frame::Binary(bytes) => line.binary(bytes),
    }
}

impl Talk for RoomTalk {
    /// A raw frame that is not stored.
    type Told = Frame;
    type Done = ();

    async fn opened(&mut self, line: &mut Line<Self>) {
        line.attachment = self.attachment.take();
        self.seat.open(line.inbox());
    }

    async fn frame(&mut self, line: &mut Line<Self>, frame: Frame) {
        let text = match &frame {
            Frame::Text(text) => Some(text.as_str()),
            // What is no UTF-8 is no JSON, and no packet.
            Frame::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        };
        let kind = text.map_or(Kind::Raw, packet::classify);
        if matches!(kind, Kind::Swallowed | Kind::Dropped) {
            return;
        }
        let auth = self.app.services.store.auth();
        if auth.check_principal(self.gate.principal()).is_err() {
            // Too many: without an acknowledgement the client comes again.
            return;
        }
        let Kind::Data(uuid) = kind else { return self.raw(line, frame).await };
        // INVARIANT: the same memory, which `uuid` is a part of.
        let packet = match &frame {
            Frame::Text(text) => Bytes::from(text.clone()),
            Frame::Binary(bytes) => bytes.clone(),
        };
        let again = (!self.gws.config().dedup).then(|| packet.clone());
        let sent = Sent { uuid: uuid.within(&packet), again };
        let command = message(&self.room, packet, uuid.id());
        self.submit(line, command, Some(sent)).await;
    }

    /// In the order of submits: on `Ok` it is durable, so this is where a packet is acknowledged.
    fn answered(&mut self, line: &mut Line<Self>, outcome: Result<Receipt, SubmitError>) {
        let sent = self.own.pending.pop_front().flatten();
        if self.own.pending.is_empty() {
            self.own.pending = VecDeque::new();
        }
        if is_again(&outcome)
            && let Some(sent @ Sent { again: Some(_), .. }) = sent
        {
            self.own.again.push_back((Instant::now(), sent));
            return self.look_at_held(line);
        }
        match outcome {
            Ok(receipt) => {
                let done = receipt.done();
                if !done.duplicate {
                    self.own.is_answered(done.seq);
                }
                if let Some(uuid) = sent.as_ref().and_then(|sent| std::str::from_utf8(&sent.uuid).ok()) {
                    line.text(packet::ack(uuid).as_bytes());
                }
            }
            Err(SubmitError::Denied(_)) => line.close(close::POLICY, "not allowed"),
            // The same uuid with other bytes, or something that passes: no acknowledgement.
            Err(error) => tracing::debug!(front_end = "gws", %error, "a frame was refused"),
        }
        self.look_at_held(line);
    }

    async fn delivered(&mut self, line: &mut Line<Self>, delivery: Delivery) {
        match delivery {
            Delivery::Entry(view) => self.entry(line, view).await,
            Delivery::Gone(_, gone) => self.own.passed(gone.to),
            Delivery::CaughtUp(_) => {}
            Delivery::Ended(_) => line.close(close::POLICY, "not allowed"),
        }
    }

    async fn told(&mut self, line: &mut Line<Self>, frame: Frame) {
        write(line, &frame);
    }

    async fn done(&mut self, _: &mut Line<Self>, (): ()) {}

    /// Waits for what was sent to come round when a good deal has not, and for what is to be stored again: so that is
    /// bounded by what may be outstanding, and comes before what follows.
    fn wants_frames(&self) -> bool {
        self.own.again.is_empty() && self.own.places.len() < self.gws.config().unseen_max.max(1)
    }

    fn due(&self) -> Option<Instant> {
        self.own.again.front().map(|(at, _)| *at)
    }

    async fn tick(&mut self, line: &mut Line<Self>) {
        for (_, Sent { uuid, again }) in std::mem::take(&mut self.own.again) {
            let Some(packet) = again else { continue };
            self.submit(line, message(&self.room, packet, None), Some(Sent { uuid, again: None })).await;
        }
    }

    fn recheck(&mut self, line: &mut Line<Self>) {
        if !still_good(&self.app, self.token.as_deref()) {
            line.close(close::POLICY, "unauthenticated");
        }
    }
}

/// Whether this room may be read; `Ok(None)` when there is none of that name. Rooms are open feeds: a feed of another kind is
/// none, also to its members.
pub(super) async fn room_exists(gate: &Gate, room: &FeedId) -> Result<bool, ApiError> {
    use feedlog_core::policy::Denied;

    match gate.feed(room).await {
        Ok(info) if info.kind == FeedKind::Open => Ok(true),
        Ok(_) => Err(Denied::Forbidden.into()),
        Err(ReadError::Denied(Denied::FeedNotFound)) => Ok(false),
        // Who is not authenticated gets one answer for all that is no open feed, also for what is not there.
        Err(ReadError::Denied(Denied::Unauthenticated)) if gate.principal().anonymous => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_ours_others_or_unknown_until_the_answer_tells() {
        let mut own = Own::default();
        assert_eq!(own.whose(SeqId(5)), Whose::Others, "nothing was submitted");
        own.pending.push_back(None);
        own.pending.push_back(None);
        assert_eq!(own.whose(SeqId(5)), Whose::Unknown);
        own.pending.pop_front();
        own.is_answered(SeqId(6));
        assert_eq!(own.whose(SeqId(5)), Whose::Others, "ours come after one another");
        assert_eq!(own.whose(SeqId(6)), Whose::Ours);
        assert_eq!(own.whose(SeqId(7)), Whose::Unknown, "one is outstanding");
        own.pending.pop_front();
        assert_eq!(own.whose(SeqId(7)), Whose::Others, "it came to nothing");
        own.is_answered(SeqId(8));
        own.passed(SeqId(6));
        assert_eq!(own.places, [SeqId(8)]);
        own.passed(SeqId(9));
        assert!(own.places.is_empty());
    }

    #[test]
    fn frames_are_handed_on_as_text_when_they_are() {
        let binary = |bytes: &'static [u8]| Frame::Binary(Bytes::from_static(bytes));
        assert_eq!(as_handed_on(binary(b"a\xc3\xa9")), Frame::Text("aé".into()));
        assert_eq!(as_handed_on(binary(b"a\xc3")), binary(b"a\xc3"));
        assert_eq!(as_handed_on(binary(b"")), binary(b""));
        assert_eq!(as_handed_on(Frame::Text("".into())), Frame::Text("".into()));
    }
}
