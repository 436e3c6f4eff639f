//! `select!`: what each arm does, which one is chosen, what the others keep, the forms it may be written in, and two
//! selects that meet each other. Selecting while panicking is in `panics.rs`.

mod common;
mod watching;

use std::cell::Cell;
use std::io;

use towpath::sync::channel::{Receiver, RecvError, SendError, Sender, bounded, unbounded};
use towpath::task::{JoinError, JoinHandle};
use towpath::time::{Duration, Instant};
use towpath::{select, spawn};

use common::{CALLERS, Caller, PATIENCE, on_each_poller, on_tasks_and_threads, this_thread, until, until_blocked};
use watching::until_parked;

/// Has that kind of caller run `f`, and returns once it waits in its select.
fn selecting<T: Send + 'static>(caller: Caller, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let handle = caller.run(move || {
        tell.send(this_thread()).unwrap();
        f()
    });
    match caller {
        Caller::Task => until_parked(&handle, "select"),
        // The caller may be a task: it does not wait long.
        Caller::Thread => until_blocked(told.recv().unwrap()),
    }
    handle
}

/// A receiver of which nothing comes, with what keeps it so.
fn silent() -> (Sender<u32>, Receiver<u32>) {
    bounded(0)
}

#[test]
fn a_recv_arm_receives() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = unbounded();
        let (_never, nothing) = silent();
        sender.send(1).unwrap();
        let received = select! {
            recv(nothing) -> _ => Err(RecvError::Disconnected),
            recv(receiver) -> message => message,
        };
        assert_eq!(received, Ok(1));

        for caller in CALLERS {
            let (receiver, nothing) = (receiver.clone(), nothing.clone());
            let waiting = selecting(caller, move || {
                select! {
                    recv(nothing) -> _ => Err(RecvError::Disconnected),
                    recv(receiver) -> message => message,
                }
            });
            sender.send(2).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(2));
        }
    });
}

#[test]
fn a_send_arm_sends() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded(1);
        let (_never, nothing) = silent();
        let mut message = Some(1);
        let sent = select! {
            recv(nothing) -> _ => Ok(()),
            send(sender, message) -> sent => sent,
        };
        assert_eq!((sent, message), (Ok(()), None));

        // Now there is no room.
        for caller in CALLERS {
            let (sender, nothing) = (sender.clone(), nothing.clone());
            let waiting = selecting(caller, move || {
                let mut message = Some(2);
                let sent = select! {
                    recv(nothing) -> _ => Ok(()),
                    send(sender, message) -> sent => sent,
                };
                (sent, message)
            });
            receiver.recv().unwrap();
            assert_eq!(waiting.join().unwrap(), (Ok(()), None));
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2]);
    });
}

#[test]
fn a_join_arm_joins() {
    on_tasks_and_threads(|| {
        let (_never, nothing) = silent();
        let done = spawn(|| 1);
        until(|| done.is_finished());
        let mut place = Some(done);
        let joined = select! {
            recv(nothing) -> _ => 0,
            join(place) -> joined => joined.unwrap(),
        };
        assert!(joined == 1 && place.is_none());

        for caller in CALLERS {
            for panics in [false, true] {
                let (go, gone) = bounded::<()>(0);
                let task = spawn(move || {
                    gone.recv().unwrap();
                    if panics {
                        std::panic::resume_unwind(Box::new("over"));
                    }
                    2
                });
                let nothing = nothing.clone();
                let waiting = selecting(caller, move || {
                    let mut place = Some(task);
                    select! {
                        recv(nothing) -> _ => Ok(0),
                        join(place) -> joined => {
                            assert!(place.is_none());
                            joined
                        }
                    }
                });
                go.send(()).unwrap();
                match waiting.join().unwrap() {
                    Ok(value) => assert_eq!((value, panics), (2, false)),
                    Err(JoinError::Panicked(panic)) => {
                        assert_eq!((panic.downcast_ref(), panics), (Some(&"over"), true))
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
}

#[test]
fn the_timeout_arm_comes_when_no_other_could_go_ahead_and_never_early() {
    on_tasks_and_threads(|| {
        let (_never, nothing) = silent();
        for limit in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            let start = Instant::now();
            let late = select! {
                recv(nothing) -> _ => false,
                timeout(limit) => true,
            };
            assert!(late && start.elapsed() >= limit);
        }
        // What is ready comes before it, however short the time is.
        let (sender, receiver) = unbounded();
        for n in 0..100 {
            sender.send(n).unwrap();
            select! {
                timeout(Duration::ZERO) => panic!("there was a message"),
                recv(receiver) -> message => assert_eq!(message, Ok(n)),
            }
        }
        for caller in CALLERS {
            let receiver = receiver.clone();
            let waiting = selecting(caller, move || {
                select! {
                    recv(receiver) -> message => message,
                    timeout(PATIENCE) => Ok(0),
                }
            });
            sender.send(7).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(7));
        }
    });
}

#[test]
fn the_default_arm_comes_at_once_if_no_other_can_go_ahead() {
    on_tasks_and_threads(|| {
        let (sender, nothing) = silent();
        let mut message = Some(1);
        let mut task = Some(spawn(move || nothing.recv()));
        until_parked(task.as_ref().unwrap(), "recv");
        // The task waits to receive, so a send can go ahead; a join cannot.
        let chosen = select! {
            join(task) -> _ => "join",
            default => "default",
        };
        assert!(chosen == "default" && task.is_some());
        let chosen = select! {
            send(sender, message) -> sent => {
                sent.unwrap();
                "send"
            }
            default => "default",
        };
        assert_eq!((chosen, message), ("send", None));
        assert_eq!(task.unwrap().join().unwrap(), Ok(1));
    });
}

#[test]
fn ready_arms_are_chosen_about_equally_often() {
    on_tasks_and_threads(|| {
        let [first, second] = [0; 2].map(|_| unbounded());
        let (out, _sent) = unbounded();
        for _ in 0..3000 {
            first.0.send(()).unwrap();
            second.0.send(()).unwrap();
        }
        let chosen = [0; 4].map(Cell::new);
        let choose = |n: usize| chosen[n].set(chosen[n].get() + 1);
        let mut finished: Vec<_> = (0..3000).map(|_| spawn(|| ())).collect();
        until(|| finished.iter().all(|task| task.is_finished()));
        let mut task = None;
        for _ in 0..3000 {
            let mut message = Some(());
            task = task.or_else(|| finished.pop());
            select! {
                recv(first.1) -> _ => choose(0),
                recv(second.1) -> _ => choose(1),
                send(out, message) -> _ => choose(2),
                join(task) -> _ => choose(3),
            }
        }
        let chosen = chosen.map(Cell::into_inner);
        // 750 of each, give or take six standard deviations.
        assert!(chosen.iter().all(|n| (600..=900).contains(n)), "{chosen:?}");
    });
}

#[test]
fn arms_that_are_not_chosen_keep_what_they_have() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (full, room) = bounded(1);
            full.send("first".to_owned()).unwrap();
            let (end, ends) = bounded::<()>(0);
            let (go, gone) = bounded::<()>(0);
            let task = spawn(move || ends.recv().unwrap_err());
            let text = "second".to_owned();
            let at = text.as_ptr().addr();
            let waiting = selecting(caller, move || {
                let (mut message, mut task) = (Some(text), Some(task));
                for _ in 0..2 {
                    select! {
                        send(full, message) -> _ => panic!("sent"),
                        join(task) -> _ => panic!("joined"),
                        recv(gone) -> go => go.unwrap(),
                    }
                }
                (message, task)
            });
            go.send(()).unwrap();
            go.send(()).unwrap();
            let (message, task) = waiting.join().unwrap();
            let message = message.unwrap();
            assert_eq!((message.as_str(), message.as_ptr().addr()), ("second", at));
            assert_eq!(room.try_iter().collect::<Vec<_>>(), ["first"]);
            drop(end);
            task.unwrap().join().unwrap();
        }
    });
}

#[test]
fn an_arm_whose_place_is_empty_never_goes_ahead() {
    on_tasks_and_threads(|| {
        let (sender, _receiver) = unbounded::<u32>();
        let (mut message, mut task): (Option<u32>, Option<JoinHandle<()>>) = (None, None);
        let chosen = select! {
            send(sender, message) -> _ => "send",
            join(task) -> _ => "join",
            default => "default",
        };
        assert_eq!(chosen, "default");
        let chosen = select! {
            send(sender, message) -> _ => "send",
            join(task) -> _ => "join",
            timeout(Duration::from_millis(1)) => "timeout",
        };
        assert_eq!(chosen, "timeout");
        for caller in CALLERS {
            let (go, gone) = bounded::<()>(0);
            let sender = sender.clone();
            let waiting = selecting(caller, move || {
                let (mut message, mut task): (Option<u32>, Option<JoinHandle<()>>) = (None, None);
                select! {
                    send(sender, message) -> _ => "send",
                    join(task) -> _ => "join",
                    recv(gone) -> _ => "recv",
                }
            });
            go.send(()).unwrap();
            assert_eq!(waiting.join().unwrap(), "recv");
        }
    });
}

#[test]
fn a_disconnected_channel_is_ready() {
    on_tasks_and_threads(|| {
        let (_never, nothing) = silent();
        let (sender, receiver) = bounded::<u32>(1);
        sender.send(1).unwrap();
        drop(sender);
        let next = || {
            select! {
                recv(nothing) -> _ => Ok(0),
                recv(receiver) -> message => message,
            }
        };
        assert_eq!(next(), Ok(1));
        assert_eq!(next(), Err(RecvError::Disconnected));
        assert_eq!(next(), Err(RecvError::Disconnected));

        let (sender, receiver) = bounded::<u32>(1);
        drop(receiver);
        let mut message = Some(2);
        let sent = select! {
            recv(nothing) -> _ => Ok(()),
            send(sender, message) -> sent => sent,
        };
        assert_eq!((sent, message), (Err(SendError::Disconnected(2)), None));
    });
}

#[test]
fn a_channel_that_is_disconnected_ends_the_wait() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (_never, nothing) = silent();
            let (sender, receiver) = bounded::<u32>(0);
            let clone = nothing.clone();
            let waiting = selecting(caller, move || {
                select! {
                    recv(clone) -> _ => Ok(0),
                    recv(receiver) -> message => message,
                }
            });
            drop(sender);
            assert_eq!(waiting.join().unwrap(), Err(RecvError::Disconnected));

            let (sender, receiver) = bounded::<u32>(0);
            let waiting = selecting(caller, move || {
                let mut message = Some(3);
                let sent = select! {
                    recv(nothing) -> _ => Ok(()),
                    send(sender, message) -> sent => sent,
                };
                (sent, message)
            });
            drop(receiver);
            assert_eq!(waiting.join().unwrap(), (Err(SendError::Disconnected(3)), None));
        }
    });
}

#[test]
fn two_selects_meet_in_a_rendezvous() {
    on_tasks_and_threads(|| {
        for callers in [[Caller::Task; 2], CALLERS, [Caller::Thread; 2]] {
            let (sender, receiver) = bounded::<u32>(0);
            let (_never, nothing) = silent();
            let others = nothing.clone();
            let sending = callers[0].run(move || {
                for n in 0..1000 {
                    let mut message = Some(n);
                    select! {
                        recv(others) -> _ => panic!("received"),
                        send(sender, message) -> sent => sent.unwrap(),
                    }
                    assert_eq!(message, None);
                }
            });
            let receiving = callers[1].run(move || {
                for n in 0..1000 {
                    select! {
                        recv(receiver) -> message => assert_eq!(message, Ok(n)),
                        recv(nothing) -> _ => panic!("received"),
                    }
                }
            });
            sending.join().unwrap();
            receiving.join().unwrap();
        }
    });
}

/// Selects over sending on the one channel and receiving on the other, `rounds` times, and returns the sums of what it
/// sent and of what it received. `turned`: the arms stand the other way round.
fn exchange(turned: bool, rounds: u64, sender: &Sender<u64>, receiver: &Receiver<u64>) -> (u64, u64) {
    let (mut sent, mut received) = (0, 0);
    for n in 1..=rounds {
        let mut message = Some(n);
        if turned {
            select! {
                recv(receiver) -> message => received += message.unwrap(),
                send(sender, message) -> result => {
                    result.unwrap();
                    sent += n;
                }
            }
        } else {
            select! {
                send(sender, message) -> result => {
                    result.unwrap();
                    sent += n;
                }
                recv(receiver) -> message => received += message.unwrap(),
            }
        }
    }
    (sent, received)
}

#[test]
fn two_selects_meet_on_two_channels_named_in_opposite_order() {
    on_tasks_and_threads(|| {
        for callers in [[Caller::Task; 2], CALLERS, [Caller::Thread; 2]] {
            for turned in [false, true] {
                let (there, here) = (bounded(0), bounded(0));
                let one = callers[0].run({
                    let (sender, receiver) = (there.0.clone(), here.1.clone());
                    move || exchange(false, 2000, &sender, &receiver)
                });
                let other = callers[1].run({
                    let (sender, receiver) = (here.0.clone(), there.1.clone());
                    move || exchange(turned, 2000, &sender, &receiver)
                });
                let (one, other) = (one.join().unwrap(), other.join().unwrap());
                assert_eq!((one.0, one.1), (other.1, other.0), "what one sent the other has received");
            }
        }
    });
}

#[test]
fn a_select_over_both_ends_of_one_channel_meets_others_and_never_itself() {
    on_tasks_and_threads(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = bounded::<u64>(capacity);
            let either = |sender: Sender<u64>, receiver: Receiver<u64>| {
                move || {
                    let mut message = Some(1);
                    select! {
                        send(sender, message) -> sent => (sent.map(|()| 0).unwrap(), message),
                        recv(receiver) -> received => (received.unwrap(), message),
                    }
                }
            };
            (0..capacity).for_each(|_| sender.send(10).unwrap());
            if capacity == 1 {
                // Full, there is something to receive.
                assert_eq!(either(sender.clone(), receiver.clone())(), (10, Some(1)));
                continue;
            }
            for caller in CALLERS {
                // Alone, it waits: it has not the other side of itself to meet.
                let waiting = selecting(caller, either(sender.clone(), receiver.clone()));
                assert_eq!(receiver.recv(), Ok(1));
                assert_eq!(waiting.join().unwrap(), (0, None));
                let waiting = selecting(caller, either(sender.clone(), receiver.clone()));
                assert_eq!(sender.send(7), Ok(()));
                assert_eq!(waiting.join().unwrap(), (7, Some(1)));
            }
            // Any even number of them pair up.
            let all: Vec<_> = (0..200).map(|n| CALLERS[n % 2].run(either(sender.clone(), receiver.clone()))).collect();
            let (mut sent, mut received) = (0, 0);
            for (value, left) in all.into_iter().map(|one| one.join().unwrap()) {
                match left {
                    None => sent += 1,
                    Some(_) => received += value,
                }
            }
            assert_eq!((sent, received), (100, 100));
        }
    });
}

#[test]
fn one_channel_may_stand_in_several_arms() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (sender, receiver) = bounded(0);
            let (_never, nothing) = silent();
            let waiting = selecting(caller, move || {
                select! {
                    recv(receiver) -> message => message,
                    recv(nothing) -> _ => Ok(0),
                    recv(receiver) -> message => message,
                }
            });
            sender.send(5).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(5));
            // No other place in the queue is left behind.
            assert!(sender.try_send(6).is_err());
        }
    });
}

#[test]
fn many_selects_and_plain_calls_share_their_channels() {
    on_tasks_and_threads(|| {
        const EACH: u64 = 1000;
        let channels = [bounded::<u64>(0), bounded(1), unbounded()];
        let senders: Vec<_> = (0..4)
            .map(|id| {
                let [a, b, c] = channels.each_ref().map(|channel| channel.0.clone());
                CALLERS[id % 2].run(move || {
                    for n in 1..=EACH {
                        let (mut for_a, mut for_b, mut for_c) = (Some(n), Some(n), Some(n));
                        match n % 4 {
                            0 => a.send(n).unwrap(),
                            1 => select! {
                                send(a, for_a) -> sent => sent.unwrap(),
                                send(b, for_b) -> sent => sent.unwrap(),
                            },
                            _ => select! {
                                send(c, for_c) -> sent => sent.unwrap(),
                                send(b, for_b) -> sent => sent.unwrap(),
                                send(a, for_a) -> sent => sent.unwrap(),
                            },
                        }
                    }
                })
            })
            .collect();
        let receivers: Vec<_> = (0..4)
            .map(|id| {
                let [a, b, c] = channels.each_ref().map(|channel| channel.1.clone());
                CALLERS[id % 2].run(move || {
                    let mut sum = 0;
                    let mut open = [true; 3];
                    while open.contains(&true) {
                        let (from, message) = select! {
                            recv(a) -> message => (0, message),
                            recv(b) -> message => (1, message),
                            recv(c) -> message => (2, message),
                        };
                        match message {
                            Ok(n) => sum += n,
                            Err(_) => open[from] = false,
                        }
                    }
                    sum
                })
            })
            .collect();
        drop(channels);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let sum: u64 = receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum();
        assert_eq!(sum, 4 * EACH * (EACH + 1) / 2);
    });
}

#[test]
fn arms_may_leave_the_loop_and_the_function_around_them() {
    fn sum(numbers: &Receiver<i32>, stop: &Receiver<()>) -> io::Result<i32> {
        let mut sum = 0;
        let last = 'outer: loop {
            loop {
                select! {
                    recv(numbers) -> number => {
                        let number = number.map_err(io::Error::other)?;
                        match number {
                            0 => continue 'outer,
                            100.. => return Ok(-1),
                            n => sum += n,
                        }
                        if sum > 10 {
                            break 'outer sum;
                        }
                    }
                    recv(stop) -> _ => break,
                }
            }
            break 0;
        };
        Ok(last)
    }
    on_each_poller(|| {
        let (_keep, never) = bounded(0);
        let numbers = |list: &[i32]| {
            let (sender, receiver) = unbounded();
            list.iter().for_each(|&n| sender.send(n).unwrap());
            receiver
        };
        assert_eq!(sum(&numbers(&[1, 0, 5, 6]), &never).unwrap(), 12);
        assert_eq!(sum(&numbers(&[1, 200]), &never).unwrap(), -1);
        assert!(sum(&numbers(&[1]), &never).is_err());
        let (stop, stopped) = unbounded();
        let (_open, open) = bounded(0);
        stop.send(()).unwrap();
        assert_eq!(sum(&open, &stopped).unwrap(), 0);
    });
}

/// What somebody might write. It compiles, and does what it says.
#[test]
#[rustfmt::skip]
fn it_may_be_written_in_many_ways() {
    struct Peer { inbox: (Sender<u32>, Receiver<u32>), pending: Vec<Option<u32>>, task: Option<JoinHandle<u32>> }
    on_tasks_and_threads(|| {
        // Names of the user's that the macro uses as well.
        let (send, recv) = unbounded::<u32>();
        let (case, outcome, join) = (1, 2, 3);
        send.send(case).unwrap();
        let got = select! { recv(recv) -> message => message.unwrap() + outcome + join };
        assert_eq!(got, 6);

        // One line, no comma at the end, a comma behind a block, a temporary, a reference, a pattern.
        send.send(4).unwrap();
        select! { recv(recv.clone()) -> mut message => { message = message.map(|n| n + 1); assert_eq!(message, Ok(5)) }, default => () }
        let by_reference = &recv;
        assert!(select! { recv(by_reference) -> _ => false, default => true });
        assert!(select! { default => true, recv(&recv) -> _ => false, });

        // Blocks without commas, the limit in the middle, and an arm behind it.
        let (_keep, nothing) = silent();
        let mut nobody: Option<JoinHandle<()>> = None;
        let chosen = select! {
            recv(nothing) -> _ => { 1 }
            timeout(Duration::from_millis(1)) => { 2 }
            join(nobody) -> _ => { 3 }
        };
        assert_eq!(chosen, 2);

        // A limit alone.
        assert_eq!(select! { default => 1 }, 1);
        assert_eq!(select! { timeout(Duration::from_micros(10)) => 2, }, 2);

        // Places inside of other things, each looked up once; arms of several kinds; a select within a select.
        let mut peer = Peer { inbox: unbounded(), pending: vec![None, Some(9)], task: Some(spawn(|| 7)) };
        let looked = Cell::new(0);
        let once = |n| { looked.set(looked.get() + 1); n };
        select! {
            send(peer.inbox.0, peer.pending[once(1)]) -> sent => {
                sent.unwrap();
                let inner = select! {
                    recv(peer.inbox.1) -> message => message.unwrap(),
                    timeout(PATIENCE) => 0,
                };
                assert_eq!(inner, 9);
            }
            recv(nothing) -> _ => unreachable!(),
        }
        assert_eq!((looked.get(), peer.pending[1]), (1, None));
        let joined = select! {
            join(peer.task) -> result => result.unwrap(),
        };
        assert!(joined == 7 && peer.task.is_none());

        // Many arms.
        let many: [_; 16] = std::array::from_fn(|_| unbounded::<usize>());
        let m = |n: usize| &many[n].1;
        for (n, (sender, _)) in many.iter().enumerate() {
            sender.send(n).unwrap();
            let message = select! {
                recv(m(0)) -> x => x, recv(m(1)) -> x => x, recv(m(2)) -> x => x, recv(m(3)) -> x => x,
                recv(m(4)) -> x => x, recv(m(5)) -> x => x, recv(m(6)) -> x => x, recv(m(7)) -> x => x,
                recv(m(8)) -> x => x, recv(m(9)) -> x => x, recv(m(10)) -> x => x, recv(m(11)) -> x => x,
                recv(m(12)) -> x => x, recv(m(13)) -> x => x, recv(m(14)) -> x => x, recv(m(15)) -> x => x,
            };
            assert_eq!(message, Ok(n));
        }
    });
}

#[test]
fn messages_that_are_neither_copy_nor_static_pass_through_a_select() {
    on_each_poller(|| {
        let text = "borrowed".to_owned();
        let (sender, receiver) = bounded::<Box<&str>>(1);
        let mut message = Some(Box::new(text.as_str()));
        select! {
            send(sender, message) -> sent => sent.unwrap(),
        }
        select! {
            recv(receiver) -> message => assert_eq!(*message.unwrap(), "borrowed"),
        }
    });
}
