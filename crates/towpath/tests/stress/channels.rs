//! Scenarios of channels and `select!`: every message arrives once, in its sender's order, or comes back to its sender.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use towpath::select;
use towpath::sync::channel::{
    self, Receiver, RecvError, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};
use towpath::task::JoinHandle;
use towpath::time::Duration;

use crate::house::{self, Place, Scene};
use crate::ops::Me;
use crate::tally::{Did, did};

/// A message that is counted as long as it exists.
#[derive(Debug)]
struct Message {
    from: usize,
    number: usize,
    alive: Arc<AtomicUsize>,
}

impl Message {
    fn new(from: usize, number: usize, alive: &Arc<AtomicUsize>) -> Message {
        alive.fetch_add(1, Ordering::Relaxed);
        Message { from, number, alive: alive.clone() }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

fn make<T>(scene: &mut Scene) -> (Sender<T>, Receiver<T>) {
    let capacity = scene.rng.pick(&[Some(0), Some(0), Some(1), Some(2), Some(100), None]);
    scene.note("capacity", capacity);
    capacity.map_or_else(channel::unbounded, channel::bounded)
}

/// Many senders, many receivers, by every way to send and to receive.
pub(crate) fn crowd(_me: &Me, scene: &mut Scene) {
    let (senders, receivers) = (scene.rng.between(1, 4), scene.rng.between(1, 4));
    let each = scene.rng.between(1, 2_000);
    scene.note("senders", (senders, receivers, each));
    let (sender, receiver) = make(scene);
    let (report, reports) = channel::unbounded();
    let alive = Arc::new(AtomicUsize::new(0));
    for from in 0..senders {
        let (sender, alive) = (sender.clone(), alive.clone());
        scene.start("sends", move |me| {
            for number in 0..each {
                deliver(me, &sender, Message::new(from, number, &alive));
                me.dawdle();
            }
        });
    }
    for _ in 0..receivers {
        let (receiver, report) = (receiver.clone(), report.clone());
        scene.start("receives", move |me| {
            let mut got = Vec::new();
            while let Some(message) = next(me, &receiver) {
                did(Did::Message);
                got.push((message.from, message.number));
                me.dawdle();
            }
            report.send(got).expect("there is room");
        });
    }
    drop((sender, receiver, report));
    let mut counts = vec![vec![0; each]; senders];
    for got in reports {
        let mut last = vec![None; senders];
        for (from, number) in got {
            assert!(last[from] < Some(number), "messages of sender {from} in another order: {number}");
            last[from] = Some(number);
            counts[from][number] += 1;
        }
    }
    assert!(counts.iter().flatten().all(|&count| count == 1), "messages lost or doubled");
    assert_eq!(alive.load(Ordering::Relaxed), 0, "messages neither delivered nor dropped");
}

/// Sends a message by one way or another, as often as it takes.
fn deliver(me: &Me, sender: &Sender<Message>, mut message: Message) {
    loop {
        message = match me.below(8) {
            0 => {
                me.does("send_timeout");
                match sender.send_timeout(message, Duration::from_micros(me.below(300) as u64)) {
                    Err(SendTimeoutError::Timeout(message)) => {
                        did(Did::SendTimedOut);
                        message
                    }
                    result => return result.expect("there are receivers"),
                }
            }
            1 => match sender.try_send(message) {
                Err(TrySendError::Full(message)) => {
                    did(Did::Full);
                    towpath::task::yield_now();
                    message
                }
                result => return result.expect("there are receivers"),
            },
            2 => {
                me.does("select send");
                let mut place = Some(message);
                select! {
                    send(sender, place) -> sent => {
                        did(Did::SelectSend);
                        sent.expect("there are receivers")
                    },
                    timeout(Duration::from_micros(me.below(1_000) as u64)) => did(Did::SelectTimeout),
                }
                match place {
                    Some(message) => message,
                    None => return,
                }
            }
            _ => {
                me.does("send");
                return sender.send(message).expect("there are receivers");
            }
        }
    }
}

/// Receives by one way or another; `None` when there will be nothing more.
fn next(me: &Me, receiver: &Receiver<Message>) -> Option<Message> {
    loop {
        match me.below(8) {
            0 => {
                me.does("recv_timeout");
                match receiver.recv_timeout(Duration::from_micros(me.below(300) as u64)) {
                    Err(RecvTimeoutError::Timeout) => did(Did::RecvTimedOut),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    result => return Some(result.expect("nobody cancels it")),
                }
            }
            1 => match receiver.try_recv() {
                Err(TryRecvError::Empty) => {
                    did(Did::Empty);
                    towpath::task::yield_now();
                }
                Err(TryRecvError::Disconnected) => return None,
                Ok(message) => return Some(message),
            },
            2 => {
                me.does("select recv");
                select! {
                    recv(receiver) -> received => {
                        did(Did::SelectRecv);
                        return received.ok();
                    },
                    timeout(Duration::from_micros(me.below(1_000) as u64)) => did(Did::SelectTimeout),
                }
            }
            3 => {
                select! {
                    recv(receiver) -> received => return received.ok(),
                    default => did(Did::SelectDefault),
                }
            }
            _ => {
                me.does("recv");
                return receiver.recv().ok();
            }
        }
    }
}

/// Receivers leave before all is sent: what nobody received is handed back or dropped, and nothing else is.
pub(crate) fn leaving(_me: &Me, scene: &mut Scene) {
    let (senders, receivers) = (scene.rng.between(1, 4), scene.rng.between(1, 3));
    let takes = scene.rng.between(0, 300);
    scene.note("senders", (senders, receivers, takes));
    let (sender, receiver) = make(scene);
    let unbounded = sender.capacity().is_none();
    let alive = Arc::new(AtomicUsize::new(0));
    for from in 0..senders {
        let (sender, alive) = (sender.clone(), alive.clone());
        scene.start("sends until nobody listens", move |me| {
            for number in 0.. {
                me.does("send");
                if let Err(error) = sender.send(Message::new(from, number, &alive)) {
                    did(Did::Returned);
                    let message = error.into_inner();
                    return assert_eq!((message.from, message.number), (from, number), "another's message back");
                }
                if unbounded {
                    me.sleep(Duration::from_micros(20)); // or memory fills
                }
            }
        });
    }
    for _ in 0..receivers {
        let receiver = receiver.clone();
        scene.start("receives some", move |me| {
            let mut last = vec![None; senders];
            for _ in 0..takes {
                me.does("recv");
                let message = receiver.recv().expect("senders go on until we leave");
                did(Did::Message);
                assert!(last[message.from] < Some(message.number), "messages in another order");
                last[message.from] = Some(message.number);
                me.dawdle();
            }
        });
    }
    drop((sender, receiver));
    scene.wait();
    assert_eq!(alive.load(Ordering::Relaxed), 0, "messages neither delivered nor dropped");
}

/// A token goes round a ring of actors: whichever wake-up is lost stops it.
pub(crate) fn ring(_me: &Me, scene: &mut Scene) {
    let actors = scene.rng.between(2, 6);
    let rounds = scene.rng.between(10, 3_000) / actors;
    let selects = scene.rng.chance(30);
    scene.note("actors", (actors, rounds, selects));
    let (first, mut from) = make::<usize>(scene);
    for actor in 0..actors {
        let (to, receive) = match actor + 1 == actors {
            true => (first.clone(), None),
            false => {
                let (to, receive) = make(scene);
                (to, Some(receive))
            }
        };
        let receiver = match receive {
            Some(receive) => std::mem::replace(&mut from, receive),
            None => from.clone(),
        };
        let (never, quiet) = channel::bounded::<()>(0);
        scene.start("passes on", move |me| {
            if actor == 0 {
                to.send(1).expect("the next one listens");
            }
            for round in 0..rounds {
                me.does("recv the token");
                let token = match selects {
                    false => receiver.recv(),
                    true => select! {
                        recv(receiver) -> token => token,
                        recv(quiet) -> _ => unreachable!("nothing is sent there"),
                    },
                };
                let token = token.expect("the one before has it");
                assert_eq!(token, round * actors + if actor == 0 { actors } else { actor }, "the token");
                if actor == 0 && round + 1 == rounds {
                    break; // home at last
                }
                me.spin(me.below(3_000));
                me.does("send the token");
                to.send(token + 1).expect("the next one listens");
            }
            drop(never);
        });
    }
}

/// Each of two peers sends and receives by one select, with joins and timeouts among its arms.
pub(crate) fn duel(me: &Me, scene: &mut Scene) {
    let count = scene.rng.between(1, 1_000);
    scene.note("count", count);
    let (to_a, from_b) = make::<usize>(scene);
    let (to_b, from_a) = make::<usize>(scene);
    let ends = [(to_a, from_a), (to_b, from_b)];
    _ = me;
    for (sender, receiver) in ends {
        scene.start("sends and receives", move |me| duellist(me, sender, &receiver, count));
    }
}

fn duellist(me: &Me, sender: Sender<usize>, receiver: &Receiver<usize>, count: usize) {
    let (mut sent, mut got) = (0, 0);
    let mut message = Some(0);
    let mut sender = Some(sender);
    let mut helper: Option<JoinHandle<usize>> = None;
    let (_idle, nowhere) = (channel::bounded::<usize>(0), channel::bounded::<usize>(0));
    loop {
        if helper.is_none() && me.chance(10) {
            let n = me.below(300);
            helper = Some(towpath::spawn(move || {
                (0..n).for_each(|i| _ = std::hint::black_box(i));
                if n.is_multiple_of(3) {
                    towpath::task::yield_now();
                }
                n
            }));
        }
        me.does("select in a duel");
        // With all sent, the place is empty and the arm never goes ahead.
        let to = sender.as_ref().unwrap_or(&nowhere.0);
        select! {
            send(to, message) -> result => {
                did(Did::SelectSend);
                result.expect("the peer listens until we have sent all");
                sent += 1;
                if sent < count {
                    message = Some(sent);
                } else {
                    sender = None;
                }
            },
            recv(receiver) -> received => match received {
                Ok(number) => {
                    did(Did::SelectRecv);
                    assert_eq!(number, got, "messages of a duel");
                    got += 1;
                }
                Err(RecvError::Disconnected) => {
                    assert_eq!(got, count);
                    break;
                }
                Err(error) => panic!("{error:?}"),
            },
            join(helper) -> result => {
                did(Did::SelectJoin);
                result.expect("the helper does not panic");
            },
            timeout(Duration::from_millis(1 + me.below(3) as u64)) => did(Did::SelectTimeout),
        }
        me.dawdle();
    }
    // The peer has sent all; what is left of ours waits for it no longer than it listens.
    while sent < count {
        me.does("send the rest of a duel");
        let to = sender.as_ref().expect("there is a rest");
        to.send(sent).expect("the peer listens until we have sent all");
        sent += 1;
    }
}

/// A plain thread sends to the one task of a worker just as that is about to sleep, and nothing else would wake it.
pub(crate) fn knock(_me: &Me, scene: &mut Scene) {
    let rounds = scene.rng.between(200, 3_000);
    let burst = scene.rng.between(2, 4);
    let spin = scene.rng.pick(&[1_000, 5_000, 20_000]);
    scene.note("rounds", (rounds, burst, spin));
    let lonely = house::runtime(scene.house.poller, 1);
    let (sender, receiver) = channel::unbounded();
    let (answer, answers) = channel::bounded(1);
    scene.start_at(Place::Of(lonely.clone()), "listens", move |me| {
        for _ in 0..rounds {
            for number in 0..burst {
                me.does("recv a knock");
                assert_eq!(receiver.recv(), Ok(number));
            }
            answer.send(()).expect("somebody knocks");
        }
    });
    scene.start_at(Place::Thread, "knocks", move |me| {
        for _ in 0..rounds {
            for number in 0..burst {
                sender.send(number).expect("somebody listens");
                me.spin(me.below(spin));
            }
            me.does("recv an answer");
            answers.recv().expect("somebody listens");
        }
    });
    scene.wait();
    house::shut_down(lonely);
}
