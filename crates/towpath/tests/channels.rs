//! Channels: each capacity, many senders and receivers, order, the ends of either side, time-outs, what becomes of
//! messages that nobody received, and tasks and plain threads on one channel. `select!` is in `select.rs`, calls made
//! while panicking in `panics.rs`.

mod common;
mod watching;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use towpath::sync::channel::{
    self, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError, TrySendError,
    bounded, unbounded,
};
use towpath::task::JoinHandle;
use towpath::time::{Duration, Instant};
use towpath::{Runtime, spawn};

use common::{CALLERS, Caller, PATIENCE, on_tasks_and_threads, this_thread, until, until_blocked, watchdog};
use watching::until_parked;

/// Has that kind of caller run `f`, and returns once it waits in it: a task for `operation`, a thread for anything.
fn waiting<T: Send + 'static>(
    caller: Caller,
    operation: &str,
    f: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let handle = caller.run(move || {
        tell.send(this_thread()).unwrap();
        f()
    });
    match caller {
        Caller::Task => until_parked(&handle, operation),
        // The caller may be a task: it does not wait long.
        Caller::Thread => until_blocked(told.recv().unwrap()),
    }
    handle
}

/// A short time, for what is to be late.
const SHORT: Duration = Duration::from_millis(2);

#[test]
fn a_rendezvous_holds_nothing() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (sender, receiver) = bounded(0);
            assert_eq!((sender.capacity(), sender.len(), sender.is_empty()), (Some(0), 0, true));
            assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));

            let sending = waiting(caller, "send", {
                let sender = sender.clone();
                move || sender.send(2)
            });
            assert_eq!((receiver.len(), receiver.is_empty()), (0, true));
            assert_eq!(receiver.try_recv(), Ok(2));
            assert_eq!(sending.join().unwrap(), Ok(()));

            let receiving = waiting(caller, "recv", move || receiver.recv());
            assert_eq!(sender.try_send(3), Ok(()));
            assert_eq!(receiving.join().unwrap(), Ok(3));
        }
    });
}

#[test]
fn a_bounded_channel_holds_as_many_as_its_bound() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (sender, receiver) = bounded(2);
            assert_eq!((sender.capacity(), receiver.capacity()), (Some(2), Some(2)));
            sender.send(1).unwrap();
            sender.try_send(2).unwrap();
            assert_eq!((sender.len(), receiver.len(), receiver.is_empty()), (2, 2, false));
            assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
            let sending = waiting(caller, "send", {
                let sender = sender.clone();
                move || sender.send(3)
            });
            // Who waits comes before who comes later.
            assert_eq!(receiver.recv(), Ok(1));
            assert_eq!(sending.join().unwrap(), Ok(()));
            assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
            assert_eq!((receiver.recv(), receiver.recv()), (Ok(2), Ok(3)));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

#[test]
fn an_unbounded_channel_never_has_a_sender_wait() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = unbounded();
        assert_eq!(sender.capacity(), None);
        for n in 0..10_000 {
            sender.send(n).unwrap();
        }
        assert_eq!(receiver.len(), 10_000);
        drop(sender);
        assert!(receiver.iter().eq(0..10_000));
    });
}

#[test]
fn receivers_and_senders_are_served_in_the_order_in_which_they_came() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded(0);
        let receiving: Vec<_> = [Caller::Task, Caller::Thread, Caller::Task, Caller::Thread]
            .into_iter()
            .map(|caller| {
                let receiver = receiver.clone();
                waiting(caller, "recv", move || receiver.recv().unwrap())
            })
            .collect();
        (0..4).for_each(|n| sender.send(n).unwrap());
        assert!(receiving.into_iter().map(|caller| caller.join().unwrap()).eq(0..4));

        let sending: Vec<_> = [Caller::Thread, Caller::Task, Caller::Thread, Caller::Task]
            .into_iter()
            .enumerate()
            .map(|(n, caller)| {
                let sender = sender.clone();
                waiting(caller, "send", move || sender.send(n).unwrap())
            })
            .collect();
        assert!((0..4).map(|_| receiver.recv().unwrap()).eq(0..4));
        sending.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

#[test]
fn messages_of_one_sender_are_received_in_the_order_in_which_they_were_sent() {
    on_tasks_and_threads(|| {
        for capacity in [Some(0), Some(1), Some(7), None] {
            let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
            let senders: Vec<_> = (0..4)
                .map(|id| {
                    let sender = sender.clone();
                    CALLERS[id % 2].run(move || (0..500).for_each(|n| sender.send((id, n)).unwrap()))
                })
                .collect();
            drop(sender);
            let mut next = [0; 4];
            for (id, n) in &receiver {
                assert_eq!(n, next[id]);
                next[id] += 1;
            }
            assert_eq!(next, [500; 4]);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
    });
}

/// Sends `each` numbers from each of several tasks and threads to several of both, and asserts that each comes once.
fn each_comes_once(capacity: Option<usize>, each: usize) {
    const SENDERS: usize = 6;
    let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
    let kind = |n: usize| if n % 3 == 2 { Caller::Thread } else { Caller::Task };
    let senders: Vec<_> = (0..SENDERS)
        .map(|id| {
            let sender: Sender<usize> = sender.clone();
            kind(id).run(move || (0..each).for_each(|n| sender.send(id * each + n).unwrap()))
        })
        .collect();
    let receivers: Vec<_> = (0..SENDERS)
        .map(|id| {
            let receiver: Receiver<usize> = receiver.clone();
            kind(id).run(move || receiver.iter().fold((0, 0), |(count, sum), n| (count + 1, sum + n)))
        })
        .collect();
    drop((sender, receiver));
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let received = receivers.into_iter().map(|receiver| receiver.join().unwrap());
    let (count, sum) = received.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let total = SENDERS * each;
    assert_eq!((count, sum), (total, total * (total - 1) / 2), "capacity {capacity:?}");
}

#[test]
fn many_tasks_and_threads_share_a_channel_and_each_message_comes_once() {
    on_tasks_and_threads(|| {
        each_comes_once(Some(0), 3_000);
        each_comes_once(Some(1), 3_000);
        each_comes_once(Some(100), 10_000);
        each_comes_once(None, 10_000);
    });
}

#[test]
fn once_the_senders_are_gone_what_is_left_comes_and_then_the_end() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded(3);
        let clone = sender.clone();
        sender.send(1).unwrap();
        drop(sender);
        clone.send(2).unwrap();
        drop(clone);
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), Ok(2)));
        assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(receiver.clone().iter().next(), None);
    });
}

#[test]
fn the_last_sender_that_goes_wakes_all_who_wait() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded::<()>(0);
        let clone = sender.clone();
        let receiving: Vec<_> = (0..6)
            .map(|n| {
                let receiver = receiver.clone();
                waiting(CALLERS[n % 2], "recv", move || receiver.recv())
            })
            .collect();
        drop(sender);
        assert!(receiving.iter().all(|caller| !caller.is_finished()));
        drop(clone);
        for caller in receiving {
            assert_eq!(caller.join().unwrap(), Err(RecvError::Disconnected));
        }
    });
}

#[test]
fn once_the_receivers_are_gone_messages_are_handed_back() {
    on_tasks_and_threads(|| {
        for capacity in [Some(0), Some(1), None] {
            let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
            let clone = receiver.clone();
            drop(receiver);
            drop(clone);
            let text = "message".to_owned();
            let at = text.as_ptr();
            let SendError::Disconnected(text) = sender.send(text).unwrap_err() else { panic!("another error") };
            let TrySendError::Disconnected(text) = sender.try_send(text).unwrap_err() else { panic!("another error") };
            let error = sender.send_timeout(text, PATIENCE).unwrap_err();
            assert_eq!(error.to_string(), "sending on a channel whose receivers are gone");
            let text = error.into_inner();
            assert_eq!(text.as_ptr(), at, "it is the very message");
        }
    });
}

#[test]
fn the_last_receiver_that_goes_wakes_all_who_wait_and_hands_them_their_messages() {
    on_tasks_and_threads(|| {
        for capacity in [0, 2] {
            let (sender, receiver) = bounded(capacity);
            (0..capacity).for_each(|_| sender.send(usize::MAX).unwrap());
            let clone = receiver.clone();
            let sending: Vec<_> = (0..6)
                .map(|n| {
                    let sender = sender.clone();
                    waiting(CALLERS[n % 2], "send", move || sender.send(n))
                })
                .collect();
            drop(receiver);
            assert!(sending.iter().all(|caller| !caller.is_finished()));
            drop(clone);
            for (n, caller) in sending.into_iter().enumerate() {
                assert_eq!(caller.join().unwrap(), Err(SendError::Disconnected(n)));
            }
        }
    });
}

#[test]
fn a_receive_that_is_late_fails_and_loses_nothing() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded(0);
        let start = Instant::now();
        assert_eq!(receiver.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= SHORT);
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_deadline(start), Err(RecvTimeoutError::Timeout));
        // It waits no more: nobody would get this.
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));

        let sending = waiting(Caller::Task, "send", move || sender.send(2));
        assert_eq!(receiver.recv_deadline(start), Ok(2), "what is there is taken, however late it is");
        sending.join().unwrap().unwrap();
        assert_eq!(receiver.recv_deadline(Instant::now() + PATIENCE), Err(RecvTimeoutError::Disconnected));
    });
}

#[test]
fn a_send_that_is_late_fails_and_hands_its_message_back() {
    on_tasks_and_threads(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = bounded(capacity);
            (0..capacity).for_each(|_| sender.send(0).unwrap());
            let start = Instant::now();
            assert_eq!(sender.send_timeout(1, SHORT), Err(SendTimeoutError::Timeout(1)));
            assert!(start.elapsed() >= SHORT);
            assert_eq!(sender.send_deadline(2, start), Err(SendTimeoutError::Timeout(2)));
            // It is not there to be received.
            assert_eq!(receiver.try_iter().count(), capacity);

            let receiving = waiting(Caller::Task, "recv", move || receiver.recv());
            assert_eq!(sender.send_deadline(3, start), Ok(()), "there is a receiver, however late it is");
            assert_eq!(receiving.join().unwrap(), Ok(3));
            assert_eq!(sender.send_timeout(4, PATIENCE), Err(SendTimeoutError::Disconnected(4)));
        }
    });
}

#[test]
fn messages_that_meet_their_receivers_deadline_are_received_or_stay() {
    on_tasks_and_threads(|| {
        // Both sides are late again and again: a message is at either end then, and never at both or at none.
        let (sender, receiver) = bounded::<usize>(0);
        let micros = |n: usize| Duration::from_micros((n * 37 % 300) as u64);
        let sending = Caller::Task.run(move || {
            let mut sent = HashSet::new();
            for n in 0..600 {
                match sender.send_timeout(n, micros(n)) {
                    Ok(()) => assert!(sent.insert(n)),
                    Err(SendTimeoutError::Timeout(back)) => assert_eq!(back, n),
                    Err(error) => panic!("{error}"),
                }
            }
            sent
        });
        let receiving = Caller::Thread.run(move || {
            let mut received = HashSet::new();
            for n in 0.. {
                match receiver.recv_timeout(micros(n)) {
                    Ok(message) => assert!(received.insert(message)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            received
        });
        let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
        assert_eq!(sent, received);
    });
}

#[test]
fn a_channel_is_iterated_over() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = bounded(1);
        let sending = spawn(move || (0..10).for_each(|n| sender.send(n).unwrap()));
        assert!(receiver.iter().take(3).eq(0..3));
        let mut by_reference = Vec::new();
        for n in &receiver {
            by_reference.push(n);
            if n == 5 {
                break;
            }
        }
        assert_eq!(by_reference, [3, 4, 5]);
        let mut owned = receiver.into_iter();
        assert!(owned.by_ref().eq(6..10));
        assert_eq!(owned.next(), None);
        sending.join().unwrap();

        let (sender, receiver) = unbounded();
        (0..3).for_each(|n| sender.send(n).unwrap());
        assert!(receiver.try_iter().eq(0..3), "it does not wait for more");
    });
}

/// Counts how many of its kind have been dropped.
#[derive(Clone, Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn messages_that_nobody_will_receive_are_dropped_with_the_last_receiver() {
    on_tasks_and_threads(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let count = || dropped.load(Ordering::SeqCst);
        let message = || Counted(dropped.clone());
        let (sender, receiver) = unbounded();
        (0..5).for_each(|_| sender.send(message()).unwrap());
        drop(receiver.recv());
        assert_eq!(count(), 1);
        drop(receiver.clone());
        assert_eq!(count(), 1);
        drop(receiver);
        assert_eq!(count(), 5);
        let handed_back = sender.send(message());
        assert_eq!(count(), 5);
        drop(handed_back);
        assert_eq!(count(), 6);

        // And with the channel, if the senders went first.
        let (sender, receiver) = bounded(3);
        sender.send(message()).unwrap();
        drop(sender);
        assert_eq!(count(), 6);
        drop(receiver);
        assert_eq!(count(), 7);
    });
}

#[test]
fn a_message_may_use_the_channel_while_it_is_dropped() {
    /// Has both ends of the channel that it is in, or one, and uses them.
    struct Message(Option<Sender<Message>>, Option<Receiver<Message>>, Arc<AtomicUsize>);
    impl Drop for Message {
        fn drop(&mut self) {
            if let Some(sender) = &self.0 {
                let sent = sender.try_send(Message(None, None, self.2.clone()));
                assert!(matches!(sent, Err(TrySendError::Disconnected(_))));
                assert_eq!(sender.len(), 0);
            }
            if let Some(receiver) = &self.1 {
                drop(receiver.try_recv());
            }
            self.2.fetch_add(1, Ordering::SeqCst);
        }
    }
    on_tasks_and_threads(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = unbounded();
        for _ in 0..3 {
            sender.send(Message(Some(sender.clone()), None, dropped.clone())).unwrap();
        }
        drop(receiver);
        assert_eq!(dropped.swap(0, Ordering::SeqCst), 6, "three that were left, and three that could not be sent");

        // Its own receiver keeps a message alive until somebody else takes it: nobody hangs over that.
        let (sender, receiver) = bounded(2);
        sender.send(Message(None, Some(receiver.clone()), dropped.clone())).unwrap();
        sender.send(Message(None, None, dropped.clone())).unwrap();
        drop(receiver.recv());
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert_eq!(receiver.try_recv().err(), Some(TryRecvError::Empty));
    });
}

#[test]
fn halves_go_where_their_messages_may_go() {
    /// `T: NotSend<_>` is clear only for what is not `Send`, and not compiled for what is.
    trait NotSend<A> {
        fn check() {}
    }
    struct Both;
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<Both> for T {}
    fn anywhere<T: Send + Sync>() {}

    anywhere::<Sender<String>>();
    anywhere::<Receiver<std::cell::Cell<u32>>>();
    <Sender<std::rc::Rc<u32>> as NotSend<_>>::check();
    <Receiver<std::rc::Rc<u32>> as NotSend<_>>::check();

    // On one thread, they carry what may not leave it.
    let (sender, receiver) = bounded(1);
    sender.send(std::rc::Rc::new(1)).unwrap();
    assert_eq!(*receiver.recv().unwrap(), 1);
}

#[test]
fn halves_tell_whether_they_are_of_one_channel() {
    let (first, second) = (unbounded::<()>(), unbounded::<()>());
    assert!(first.0.same_channel(&first.0.clone()) && first.1.same_channel(&first.1.clone()));
    assert!(!first.0.same_channel(&second.0) && !first.1.same_channel(&second.1));
    first.0.send(()).unwrap();
    assert_eq!(format!("{:?} {:?}", first.0, first.1), "Sender { len: 1, .. } Receiver { len: 1, .. }");
}

#[test]
fn errors_say_what_happened_and_not_the_message() {
    struct NotDebug;
    let text = |error: &dyn std::error::Error| format!("{error} | {error:?}");
    let gone = "sending on a channel whose receivers are gone | Disconnected(..)";
    assert_eq!(text(&SendError::Disconnected(NotDebug)), gone);
    assert_eq!(text(&TrySendError::Disconnected(NotDebug)), gone);
    assert_eq!(text(&TrySendError::Full(NotDebug)), "sending on a full channel | Full(..)");
    assert_eq!(text(&SendTimeoutError::Timeout(NotDebug)), "sending on a channel that stayed full | Timeout(..)");
    let gone = "receiving on a channel that is empty and whose senders are gone | Disconnected";
    assert_eq!(text(&RecvError::Disconnected), gone);
    assert_eq!(text(&TryRecvError::Disconnected), gone);
    assert_eq!(text(&TryRecvError::Empty), "receiving on an empty channel | Empty");
    assert_eq!(text(&RecvTimeoutError::Timeout), "receiving on a channel that stayed empty | Timeout");
}

#[test]
fn tasks_of_several_runtimes_and_threads_meet_in_one_rendezvous() {
    let _watchdog = watchdog();
    let (sender, receiver) = channel::bounded(0);
    let runtimes = [0; 2].map(|_| Runtime::builder().workers(1).build().unwrap());
    let sending: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            let sender = sender.clone();
            runtime.spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()))
        })
        .collect();
    let thread = thread::spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
    let receiving = {
        let receiver = receiver.clone();
        spawn(move || receiver.iter().sum::<u64>())
    };
    let here: u64 = receiver.iter().sum();
    assert_eq!(here + receiving.join().unwrap(), 3 * 999 * 1000 / 2);
    sending.into_iter().for_each(|task| task.join().unwrap());
    thread.join().unwrap();
    until(|| receiver.is_empty());
}
