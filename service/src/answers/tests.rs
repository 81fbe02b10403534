use super::*;

fn refused(why: &'static str) -> Outcome {
    Err(SubmitError::Unavailable(why))
}

fn taken(answers: &Answers) -> Vec<&'static str> {
    std::iter::from_fn(|| answers.pop())
        .map(|outcome| match outcome {
            Err(SubmitError::Unavailable(why)) => why,
            Err(SubmitError::Unknown) => "unknown",
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Whether `ready` returns without waiting.
fn is_ready(answers: &Answers) -> bool {
    let ready = std::pin::pin!(answers.ready());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    ready.poll(&mut context).is_ready()
}

#[test]
fn answers_are_taken_in_the_order_of_the_tickets() {
    let answers = Answers::new();
    let [a, b, c] = [answers.ticket(), answers.ticket(), answers.ticket()];
    c.answer(refused("c"));
    assert!(!is_ready(&answers));
    assert!(answers.pop().is_none());
    a.answer(refused("a"));
    assert!(is_ready(&answers));
    assert_eq!(taken(&answers), ["a"]);
    assert!(!is_ready(&answers));
    assert_eq!(answers.pending(), 2);
    b.answer(refused("b"));
    assert_eq!(taken(&answers), ["b", "c"]);
    assert_eq!(answers.pending(), 0);
    assert!(!is_ready(&answers), "nothing is pending: it waits for ever");
}

#[test]
fn a_ticket_that_is_dropped_is_an_unknown_outcome() {
    let answers = Answers::new();
    let [a, b] = [answers.ticket(), answers.ticket()];
    drop(b);
    a.answer(refused("a"));
    assert_eq!(taken(&answers), ["a", "unknown"]);
}

#[test]
fn what_is_withdrawn_is_never_seen() {
    // Every order in which three tickets are settled, each of them withdrawn or not.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for withdrawn in 0..8_usize {
            let answers = Answers::new();
            let mut tickets = [(); 3].map(|()| Some(answers.ticket()));
            let names = ["a", "b", "c"];
            for at in order {
                let ticket = tickets[at].take().unwrap();
                if withdrawn & (1 << at) == 0 {
                    ticket.answer(refused(names[at]));
                } else {
                    ticket.withdraw();
                }
            }
            let expected: Vec<_> =
                (0..3).filter(|at| withdrawn & (1 << at) == 0).map(|at| names[at]).collect();
            assert_eq!(answers.pending(), expected.len());
            assert_eq!(is_ready(&answers), !expected.is_empty());
            assert_eq!(taken(&answers), expected, "{order:?} without {withdrawn:b}");
            answers.ticket().answer(refused("next"));
            assert_eq!(taken(&answers), ["next"]);
        }
    }
}

#[test]
fn one_wake_up_serves_all_that_came_together() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Bells(AtomicUsize);

    impl std::task::Wake for Bells {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let bells = Arc::new(Bells::default());
    let waker = bells.clone().into();
    let mut context = std::task::Context::from_waker(&waker);
    let answers = Answers::new();
    let tickets: Vec<_> = (0..100).map(|_| answers.ticket()).collect();
    let mut ready = std::pin::pin!(answers.ready());
    assert!(ready.as_mut().poll(&mut context).is_pending());
    for ticket in tickets {
        ticket.answer(refused("x"));
    }
    assert_eq!(bells.0.load(Ordering::Relaxed), 1);
    assert!(ready.as_mut().poll(&mut context).is_ready());
    assert_eq!(taken(&answers).len(), 100);
}
