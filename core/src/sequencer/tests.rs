use bytes::Bytes;

use super::*;
use crate::entry::Payload;
use crate::event::{Event, Role};
use crate::feed::NewEvent;
use crate::ids::{Ordinal, Uid};
use crate::testing::{feed_id, message, uid};

type Machine = Sequencer<u32>;

fn new(sender: &Uid, event: Event) -> NewEvent {
    NewEvent { sender: sender.clone(), event, payload: Payload::Bytes(Bytes::from_static(b"x")) }
}

/// A plan of one membership entry and `messages` messages; the last answers.
fn plan(messages: usize) -> Plan {
    let who = uid("alice");
    let mut events = vec![new(&who, Event::MemberJoined { uid: who.clone(), role: Role::Member })];
    events.extend((0..messages).map(|_| new(&who, message(|_| {}))));
    Plan { answer: events.len() - 1, events, ..Plan::default() }
}

fn decided(token: u32, decision: Result<Decision, Refusal>) -> Input<u32> {
    Input::Decided { decision, now_ms: 100, token }
}

fn append(token: u32) -> Input<u32> {
    decided(token, Ok(Decision::Append(plan(1))))
}

fn refusal() -> Refusal {
    Rejected::MessageNotFound.into()
}

fn done(seq: u64) -> Done {
    Done {
        feed: feed_id("f"),
        seq: SeqId(seq),
        ordinal: Ordinal(1),
        time_ms: 100,
        duplicate: true,
        requested: false,
    }
}

/// What the machine says, in short.
fn step(machine: &mut Machine, input: Input<u32>) -> Vec<String> {
    let mut out = Vec::new();
    machine.step(input, &mut out);
    out.iter()
        .map(|output| match output {
            Output::Append(group) => {
                let last = group.expected.0 + group.entries.len() as u64;
                format!("append {}..={last}", group.expected.0 + 1)
            }
            Output::Reply(token, Answer::Done(done)) => format!("{token}: done {}", done.seq),
            Output::Reply(token, Answer::Refused(_)) => format!("{token}: refused"),
            Output::Reply(token, Answer::Retry) => format!("{token}: retry"),
            Output::Reply(token, Answer::Unknown) => format!("{token}: unknown"),
            Output::Reload => "reload".to_owned(),
        })
        .collect()
}

fn machine() -> Machine {
    Machine::new(feed_id("f"), Head::default())
}

#[test]
fn i1_places_are_given_one_after_the_other() {
    let mut machine = machine();
    let mut out = Vec::new();
    for (token, now_ms) in [(1, 50), (2, 40), (3, 60)] {
        machine.step(Input::Decided { decision: Ok(Decision::Append(plan(2))), now_ms, token }, &mut out);
    }
    let entries: Vec<(u64, u64, u64)> = out
        .iter()
        .flat_map(|output| match output {
            Output::Append(group) => &group.entries[..],
            _ => &[],
        })
        .map(|entry| (entry.seq.0, entry.ordinal.0, entry.time_ms))
        .collect();
    // The clock went back between the first and the second; the log did not.
    let expected = [
        (1, 0, 50),
        (2, 1, 50),
        (3, 2, 50),
        (4, 2, 50),
        (5, 3, 50),
        (6, 4, 50),
        (7, 4, 60),
        (8, 5, 60),
        (9, 6, 60),
    ];
    assert_eq!(entries, expected);
    assert_eq!(machine.head(), Head { seq: SeqId(9), ordinal: Ordinal(6), time_ms: 60 });
    assert_eq!(machine.durable(), SeqId(0));
}

#[test]
fn i2_every_reply_waits_for_what_it_rests_on() {
    let mut machine = machine();
    // With nothing in flight a refusal rests on durable entries alone.
    assert_eq!(step(&mut machine, decided(0, Err(refusal()))), ["0: refused"]);
    assert_eq!(step(&mut machine, append(1)), ["append 1..=2"]);
    assert_eq!(step(&mut machine, decided(2, Err(refusal()))), [""; 0]);
    // A retry whose original is in flight waits for it.
    assert_eq!(step(&mut machine, decided(3, Ok(Decision::Already(done(2))))), [""; 0]);
    assert_eq!(step(&mut machine, append(4)), ["append 3..=4"]);
    assert_eq!(step(&mut machine, decided(5, Err(refusal()))), [""; 0]);
    assert!(!machine.is_idle());
    assert_eq!(step(&mut machine, Input::Committed(SeqId(2))), ["1: done 2", "2: refused", "3: done 2"]);
    assert_eq!(step(&mut machine, Input::Committed(SeqId(4))), ["4: done 4", "5: refused"]);
    assert!(machine.is_idle());
}

#[test]
fn i7_after_a_refused_group_nothing_is_appended_until_the_state_is_loaded_again() {
    let mut machine = machine();
    step(&mut machine, append(1));
    step(&mut machine, append(2));
    step(&mut machine, decided(3, Ok(Decision::Already(done(4)))));
    step(&mut machine, append(4));
    step(&mut machine, decided(5, Err(refusal())));
    assert_eq!(step(&mut machine, Input::Committed(SeqId(2))), ["1: done 2"]);
    // What rests on the refused group, or on later ones, did not happen.
    assert_eq!(step(&mut machine, Input::Refused(SeqId(4))), ["2: retry", "3: retry", "5: retry"]);
    assert!(machine.is_broken());
    assert_eq!(step(&mut machine, append(6)), ["6: retry"]);
    assert_eq!(step(&mut machine, Input::Refused(SeqId(6))), ["4: retry", "reload"]);
    assert_eq!(step(&mut machine, append(7)), ["7: retry"]);
    let head = Head { seq: SeqId(2), ordinal: Ordinal(1), time_ms: 100 };
    assert_eq!(step(&mut machine, Input::Loaded(head)), [""; 0]);
    assert_eq!(step(&mut machine, append(8)), ["append 3..=4"]);
    assert_eq!(step(&mut machine, Input::Committed(SeqId(4))), ["8: done 4"]);
}

#[test]
fn a_group_refused_before_it_was_handed_on_leaves_earlier_ones_alone() {
    let mut machine = machine();
    step(&mut machine, append(1));
    step(&mut machine, append(2));
    assert_eq!(step(&mut machine, Input::Refused(SeqId(4))), ["2: retry"]);
    // The first is still on its way, so the state is not loaded yet.
    assert_eq!(step(&mut machine, append(3)), ["3: retry"]);
    assert_eq!(step(&mut machine, Input::Committed(SeqId(2))), ["1: done 2", "reload"]);
}

#[test]
fn an_unknown_outcome_is_never_told_as_success_or_failure() {
    let mut machine = machine();
    step(&mut machine, append(1));
    step(&mut machine, decided(2, Ok(Decision::Already(done(2)))));
    step(&mut machine, decided(3, Err(refusal())));
    step(&mut machine, append(4));
    // The retry of an unknown original is as unknown; a refusal that rests on it did not happen, at least.
    assert_eq!(step(&mut machine, Input::Unknown(SeqId(2))), ["1: unknown", "2: unknown", "3: retry"]);
    assert_eq!(step(&mut machine, Input::Unknown(SeqId(4))), ["4: unknown", "reload"]);
}

/// What happens to a machine, at random.
#[derive(Debug, Clone)]
enum Move {
    Append,
    Refuse,
    Again,
    /// The oldest group in flight is durable, refused, or unknown.
    Settle(u8),
}

fn moves() -> impl proptest::strategy::Strategy<Value = Vec<Move>> {
    use proptest::prelude::*;
    let one = prop_oneof![
        4 => Just(Move::Append),
        1 => Just(Move::Refuse),
        1 => Just(Move::Again),
        4 => (0_u8..20).prop_map(Move::Settle),
    ];
    proptest::collection::vec(one, 1..120)
}

proptest::proptest! {
    /// I-1: what becomes durable is dense. I-2: a `Done` speaks of durable entries only. I-7: nothing is appended between a
    /// failure and the reload. And every command has exactly one answer.
    #[test]
    fn i1_i2_i7_hold_for_any_order_of_events(moves in moves()) {
        let mut machine = machine();
        let mut flying: VecDeque<NewGroup> = VecDeque::new();
        let mut durable = Head::default();
        let mut broken = false;
        let mut open: std::collections::BTreeSet<u32> = std::collections::BTreeSet::new();
        let settle_all = std::iter::repeat_n(Move::Settle(9), moves.len());
        for (token, next) in (0_u32..).zip(moves.iter().cloned().chain(settle_all)) {
            let mut out = Vec::new();
            match next {
                Move::Append | Move::Refuse | Move::Again => {
                    let decision = match next {
                        Move::Append => Ok(Decision::Append(plan(1))),
                        Move::Again => Ok(Decision::Already(done(machine.head().seq.0))),
                        _ => Err(refusal()),
                    };
                    open.insert(token);
                    machine.step(decided(token, decision), &mut out);
                }
                Move::Settle(how) => {
                    let Some(group) = flying.pop_front() else { continue };
                    let last = group.entries.last().map(Head::of).unwrap();
                    // As an engine does: a group is refused unless it follows the durable head.
                    if how == 0 || group.expected != durable.seq {
                        machine.step(Input::Refused(last.seq), &mut out);
                        broken = true;
                    } else if how == 1 {
                        machine.step(Input::Unknown(last.seq), &mut out);
                        broken = true;
                    } else {
                        proptest::prop_assert_eq!(group.entries[0].seq, durable.seq.next());
                        durable = last;
                        machine.step(Input::Committed(last.seq), &mut out);
                    }
                }
            }
            for output in out {
                match output {
                    Output::Append(group) => {
                        proptest::prop_assert!(!broken, "nothing is appended before the reload");
                        flying.push_back(group);
                    }
                    Output::Reply(token, answer) => {
                        proptest::prop_assert!(open.remove(&token), "one answer each");
                        if let Answer::Done(done) = answer {
                            proptest::prop_assert!(done.seq <= durable.seq, "{:?} is not durable", done);
                        }
                    }
                    Output::Reload => {
                        proptest::prop_assert!(flying.is_empty(), "reloads when all is settled");
                        let mut none = Vec::new();
                        machine.step(Input::Loaded(durable), &mut none);
                        proptest::prop_assert!(none.is_empty());
                        broken = false;
                    }
                }
            }
        }
        proptest::prop_assert!(open.is_empty(), "unanswered: {:?}", open);
        proptest::prop_assert!(machine.is_idle());
    }
}
