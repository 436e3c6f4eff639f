//! The accept loop: how it waits when descriptors run out, its limit, how it stops and drains, and that no handler harms
//! another's connection.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use common::{
    CALLERS, Caller, PATIENCE, alone, has_event, limit_descriptors, on_each_poller, on_tasks_and_threads, pollers,
    skip, until, until_waiting, watchdog,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use towpath::Runtime;
use towpath::net::{Drained, ListenOptions, Server, Shutdown, SocketAddr, Stopper, TcpListener, TcpStream};
use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task::JoinHandle;
use towpath::time::{Duration, Instant};

/// A server that serves in a task.
struct Running {
    addr: SocketAddr,
    stopper: Stopper,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(
        set: impl FnOnce(Server) -> Server,
        handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> Running {
        Running::at(TcpListener::bind("127.0.0.1:0").unwrap(), set, handler)
    }

    fn at(
        listener: TcpListener,
        set: impl FnOnce(Server) -> Server,
        handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> Running {
        let addr = listener.local_addr().unwrap();
        let server = set(Server::new(listener));
        let stopper = server.stopper();
        Running { addr, stopper, task: towpath::spawn(move || server.serve(handler)) }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).unwrap()
    }

    /// Stops, waits for the connections, and for the server.
    fn end(self) -> Drained {
        let drained = self.stopper.drain(PATIENCE);
        self.task.join().unwrap().unwrap();
        drained
    }
}

fn echo(mut stream: TcpStream, _peer: SocketAddr) {
    let mut buf = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..n]).is_err() {
            return;
        }
    }
}

fn is_echoed(stream: &mut TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut buf = [0; 5];
    stream.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"hello");
}

#[test]
fn connections_are_served_at_once_each_by_a_task() {
    on_tasks_and_threads(|| {
        let server = Running::start(|server| server, echo);
        let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(is_echoed);
        clients.iter_mut().rev().for_each(is_echoed);
        assert_eq!(server.stopper.connections(), 20);
        drop(clients);
        until(|| server.stopper.connections() == 0);
        assert_eq!(server.end(), Drained { finished: 0, cut: 0 });
    });
}

#[test]
fn its_connections_have_nodelay_on_and_their_peers_address() {
    on_tasks_and_threads(|| {
        let (tell, told) = channel::unbounded();
        let server = Running::start(
            |server| server,
            move |stream, peer| {
                tell.send((stream.nodelay().unwrap(), peer)).unwrap();
            },
        );
        let client = server.connect();
        assert_eq!(told.recv().unwrap(), (true, client.local_addr().unwrap()));
        server.end();
    });
}

/// Takes all descriptors that this process may still have.
fn hog() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn without_descriptors_it_waits_longer_and_longer_until_it_succeeds() {
    alone("without_descriptors_it_waits_longer_and_longer_until_it_succeeds", || {
        limit_descriptors(64);
        on_each_poller(|| {
            let (tell, told) = channel::unbounded();
            let tell = move |error: &std::io::Error, wait| tell.send((error.raw_os_error(), wait)).unwrap();
            let server = Running::start(|server| server.on_error(tell), echo);
            let waits = |told: &Receiver<(Option<i32>, Duration)>| {
                let (error, wait) = told.recv().unwrap();
                assert_eq!(error, Some(libc::EMFILE));
                wait.as_millis()
            };
            let mut hogged = hog();
            hogged.pop();
            let mut client = server.connect();
            let start = Instant::now();
            let first: Vec<_> = (0..10).map(|_| waits(&told)).collect();
            assert_eq!(first, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
            assert!(start.elapsed() >= Duration::from_millis(2275), "it does wait");
            // What was queued is served once it can be.
            drop(hogged);
            is_echoed(&mut client);
            while told.try_recv().is_ok() {}

            // A success begins anew.
            let mut hogged = hog();
            hogged.pop();
            let mut other = server.connect();
            assert_eq!([waits(&told), waits(&told)], [5, 10]);
            is_echoed(&mut client);
            drop(hogged);
            is_echoed(&mut other);
            drop((client, other));
            server.end();
        });
    });
}

#[test]
fn it_stops_at_once_also_while_it_waits_for_descriptors() {
    alone("it_stops_at_once_also_while_it_waits_for_descriptors", || {
        limit_descriptors(64);
        on_each_poller(|| {
            // Any one attempt may be held up by the machine; not all of them.
            let at_once = (0..5).any(|_| {
                let (tell, told) = channel::unbounded();
                let server = Running::start(|server| server.on_error(move |_, wait| tell.send(wait).unwrap()), echo);
                let mut hogged = hog();
                hogged.pop();
                let _client = server.connect();
                while told.recv().unwrap() < Duration::from_secs(1) {}
                let start = Instant::now();
                server.stopper.stop();
                server.task.join().unwrap().unwrap();
                start.elapsed() < Duration::from_secs(1) && told.try_recv().is_err()
            });
            assert!(at_once, "it waits to the end");
        });
    });
}

/// A handler that says when it begins, and ends when it is told to.
fn gated() -> (impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static, Receiver<SocketAddr>, Sender<()>) {
    let (begin, begun) = channel::unbounded();
    let (end, gate) = channel::bounded(0);
    let handler = move |_stream, peer| {
        begin.send(peer).unwrap();
        gate.recv().unwrap();
    };
    (handler, begun, end)
}

#[test]
fn at_most_so_many_connections_are_open_and_the_rest_wait_in_the_kernel() {
    on_tasks_and_threads(|| {
        let (handler, begun, end) = gated();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let queue = listener.try_clone().unwrap();
        let server = Server::new(listener).max_connections(2);
        let stopper = server.stopper();
        let serving = towpath::spawn(move || server.serve(handler));
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let addrs: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        let mut first = [begun.recv().unwrap(), begun.recv().unwrap()];
        first.sort_unstable_by_key(|addr| addrs.iter().position(|a| a == addr));
        assert_eq!(first[..], addrs[..2]);

        // It waits for a place now, and not in accept.
        let id = serving.task().id();
        until(|| {
            let dump = towpath::task::dump();
            dump.tasks().iter().any(|task| task.id() == id && task.operation() == Some("select"))
        });
        assert!(has_event(&queue), "the others are in the kernel's queue");
        assert_eq!((stopper.connections(), begun.try_recv().is_err()), (2, true));

        end.send(()).unwrap();
        assert_eq!(begun.recv().unwrap(), addrs[2]);
        assert_eq!(stopper.connections(), 2);
        end.send(()).unwrap();
        assert_eq!(begun.recv().unwrap(), addrs[3]);
        (0..2).for_each(|_| end.send(()).unwrap());
        stopper.stop();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_place_is_free_again_however_its_connection_came_to_an_end() {
    on_tasks_and_threads(|| {
        let handler = |mut stream: TcpStream, _| {
            let mut how = [0];
            stream.read_exact(&mut how).unwrap();
            stream.write_all(&how).unwrap();
            match how[0] {
                0 => {}
                1 => panic!("as the test wants it"),
                2 => stream.close().unwrap(),
                3 => drop(stream.into_std().unwrap()),
                4 => drop(stream.into_split()),
                _ => drop(towpath::spawn(move || drop(stream))),
            }
        };
        let server = Running::start(|server| server.max_connections(1), handler);
        for how in [0, 1, 2, 3, 4, 5].repeat(3) {
            let mut client = server.connect();
            client.write_all(&[how]).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, [how], "there was a place");
        }
        until(|| server.stopper.connections() == 0);
        server.end();
    });
}

#[test]
fn a_connection_is_open_as_long_as_anybody_has_it() {
    on_tasks_and_threads(|| {
        let (gate, go_on) = channel::bounded::<()>(0);
        let (tell, told) = channel::unbounded();
        let handler = move |stream: TcpStream, _| {
            let (go_on, tell) = (go_on.clone(), tell.clone());
            // The handler returns at once; its reader goes on.
            drop(towpath::spawn(move || {
                assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 5);
                go_on.recv().unwrap();
                drop(stream);
                tell.send(()).unwrap();
            }));
        };
        let server = Running::start(|server| server.max_connections(1), handler);
        let mut first = server.connect();
        first.write_all(b"hello").unwrap();
        let mut second = server.connect();
        second.write_all(b"hello").unwrap();
        gate.send(()).unwrap();
        told.recv().unwrap();
        // Only now does the second one have its place; and it counts when the server drains.
        until(|| server.stopper.connections() == 1);
        let stopper = server.stopper.clone();
        let drain = Caller::Task.wait_at("recv", move || stopper.drain(PATIENCE));
        gate.send(()).unwrap();
        told.recv().unwrap();
        assert_eq!(drain.join().unwrap(), Drained { finished: 1, cut: 0 });
        server.task.join().unwrap().unwrap();
    });
}

#[test]
fn stopping_ends_the_loop_and_leaves_open_connections_alone() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let server = Running::start(|server| server, echo);
            let mut client = server.connect();
            is_echoed(&mut client);
            let stopper = server.stopper.clone();
            caller.run(move || stopper.stop()).join().unwrap();
            server.task.join().unwrap().unwrap();
            // A process that another test starts may hold the listener until it calls exec.
            let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
            until(|| TcpStream::connect(server.addr).is_err_and(refused));
            is_echoed(&mut client);
            server.stopper.stop();
            is_echoed(&mut client);
        }
    });
}

#[test]
fn a_server_that_was_stopped_before_it_serves_returns_at_once() {
    on_tasks_and_threads(|| {
        for limited in [false, true] {
            let mut server = Server::new(TcpListener::bind("127.0.0.1:0").unwrap());
            if limited {
                server = server.max_connections(1);
            }
            let stopper = server.stopper();
            assert_eq!(stopper.drain(Duration::ZERO), Drained { finished: 0, cut: 0 });
            server.serve(|_, _| panic!("nobody connects")).unwrap();
        }
    });
}

#[test]
fn draining_waits_for_what_is_open_and_cuts_what_does_not_end() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            // A machine that needs more time is given more.
            let times = (8..).map(|i| Duration::from_millis(1 << i));
            times.map(|time| drains(caller, time)).find(|in_time| *in_time);
        }
    });
}

/// Drains a server of five connections, two of which end in that time. False if it was too short.
fn drains(caller: Caller, time: Duration) -> bool {
    let server = Running::start(|server| server, echo);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(is_echoed);
    let stopper = server.stopper.clone();
    let start = Instant::now();
    let drain = caller.wait_or_end_at("recv", move || stopper.drain(time));
    server.task.join().unwrap().unwrap();
    // Still it serves them.
    let echoed = clients
        .iter_mut()
        .all(|client| client.write_all(b"hello").and_then(|()| client.read_exact(&mut [0; 5])).is_ok());
    let two = clients.split_off(3);
    drop(two);
    until(|| drain.is_finished() || server.stopper.connections() == 3);
    let in_time = start.elapsed() < time;
    let drained = drain.join().unwrap();
    if in_time {
        assert!(echoed);
        assert_eq!(drained, Drained { finished: 2, cut: 3 });
    }
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }
    until(|| server.stopper.connections() == 0);
    assert_eq!(server.stopper.drain(PATIENCE), Drained { finished: 0, cut: 0 });
    in_time
}

#[test]
fn draining_ends_with_the_last_connection_and_not_with_its_time() {
    on_tasks_and_threads(|| {
        let server = Running::start(|server| server, echo);
        let mut client = server.connect();
        is_echoed(&mut client);
        let stopper = server.stopper.clone();
        // Had it to wait for its time, the watchdog would not wait for it.
        let drain = Caller::Task.wait_at("recv", move || stopper.drain(PATIENCE * 10));
        server.task.join().unwrap().unwrap();
        drop(client);
        assert_eq!(drain.join().unwrap(), Drained { finished: 1, cut: 0 });
    });
}

#[test]
fn it_stops_also_while_it_waits_for_a_place() {
    on_tasks_and_threads(|| {
        let (handler, begun, end) = gated();
        let server = Running::start(|server| server.max_connections(1), handler);
        let _client = server.connect();
        begun.recv().unwrap();
        server.stopper.stop();
        server.task.join().unwrap().unwrap();
        end.send(()).unwrap();
    });
}

#[test]
fn a_handler_that_panics_closes_its_own_connection_only() {
    on_tasks_and_threads(|| {
        let handler = |mut stream: TcpStream, peer| {
            let mut first = [0];
            stream.read_exact(&mut first).unwrap();
            assert_ne!(&first, b"!", "as the test wants it");
            stream.write_all(&first).unwrap();
            echo(stream, peer);
        };
        let server = Running::start(|server| server, handler);
        let (mut before, mut panics) = (server.connect(), server.connect());
        is_echoed(&mut before);
        panics.write_all(b"!").unwrap();
        assert_eq!(panics.read(&mut [0; 8]).unwrap(), 0);
        is_echoed(&mut before);
        let mut after = server.connect();
        is_echoed(&mut after);
        drop((before, after));
        server.end();
    });
}

#[test]
fn the_loop_ends_when_its_listener_is_closed() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clone = listener.try_clone().unwrap();
            let server = Server::new(listener).on_error(|error, _| panic!("it must not try again: {error}"));
            let serving = Caller::Task.wait_in("accept", &clone, move || server.serve(echo));
            caller.run(move || clone.close().unwrap()).join().unwrap();
            serving.join().unwrap().unwrap();
        }
    });
}

#[test]
fn the_loop_ends_with_an_error_that_would_only_come_again() {
    on_tasks_and_threads(|| {
        let serve = |listener: TcpListener| {
            let server = Server::new(listener).on_error(|error, _| panic!("it must not try again: {error}"));
            server.serve(echo).unwrap_err()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(serve(listener).kind(), ErrorKind::TimedOut);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(serve(listener).kind(), ErrorKind::WouldBlock);

        let none: OwnedFd =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(serve(TcpListener::from(none)).raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn a_stopper_outlives_a_server_that_was_never_started() {
    on_tasks_and_threads(|| {
        let server = Server::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let stopper = server.stopper();
        drop(server);
        assert_eq!(stopper.connections(), 0);
        assert_eq!(stopper.drain(PATIENCE * 10), Drained { finished: 0, cut: 0 });
    });
}

/// A listener whose port others may share.
fn shared() -> TcpListener {
    ListenOptions::new().reuse_port(true).bind("127.0.0.1:0").unwrap()
}

/// How many connections wait at each of the sockets that listen at the port (proc(5), `net/tcp`: state LISTEN, whose
/// receive queue is the accept queue).
fn queues(port: u16) -> Vec<usize> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let here = format!(":{port:04X}");
    let queue = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let (_, received) = columns[4].split_once(':')?;
        (columns[1].ends_with(&here) && columns[3] == "0A").then(|| usize::from_str_radix(received, 16).unwrap())
    };
    table.lines().filter_map(queue).collect()
}

#[test]
fn each_worker_accepts_what_is_queued_for_it_and_no_other_does() {
    let _watchdog = watchdog();
    for poller in pollers() {
        let runtime = Runtime::builder().workers(2).poller(poller).build().unwrap();
        if runtime.poller() != poller {
            skip(&format!("this system has no poller \"{poller}\""));
            continue;
        }
        // One of the workers is held up, from before its loop can start.
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        drop(runtime.spawn(move || {
            held.send(()).unwrap();
            _ = released.recv();
        }));
        is_held.recv().unwrap();
        let listener = shared();
        let addr = listener.local_addr().unwrap();
        let server = Server::new(listener).accept_on_every_worker(true);
        let stopper = server.stopper();
        let serving = runtime.spawn(move || server.serve(echo));
        until(|| queues(addr.port()).len() == 2);

        let mut clients: Vec<_> = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect();
        until(|| stopper.connections() > 0);
        // The worker that is free takes what it may of the other's tasks. This one comes last, and with it would the loop.
        runtime.spawn(|| ()).join().unwrap();
        until(|| stopper.connections() + queues(addr.port()).iter().sum::<usize>() == 200);
        let open = stopper.connections();
        assert!((1..200).contains(&open), "{open} of 200 came to the worker that is free");
        assert!(queues(addr.port()).contains(&(200 - open)), "the others wait at one socket");

        drop(release);
        clients.iter_mut().for_each(is_echoed);
        assert_eq!(stopper.connections(), 200);
        drop(clients);
        assert_eq!(stopper.drain(PATIENCE).cut, 0);
        serving.join().unwrap().unwrap();
        runtime.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn the_limit_is_that_of_all_workers_together() {
    on_tasks_and_threads(|| {
        let (open, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let seen = most.clone();
        let handler = move |stream: TcpStream, peer| {
            seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let still_open = stream.try_clone().unwrap();
            echo(stream, peer);
            open.fetch_sub(1, Ordering::SeqCst);
            drop(still_open);
        };
        let server = Running::at(shared(), |server| server.accept_on_every_worker(true).max_connections(1), handler);
        // While nobody is connected no worker keeps the one place, so that each comes to it in turn.
        (0..20).for_each(|_| is_echoed(&mut server.connect()));
        let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write_all(b"hello").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        for client in &mut clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        assert_eq!(most.load(Ordering::SeqCst), 1);
        server.end();
    });
}

#[test]
fn draining_is_that_of_all_workers_together() {
    on_tasks_and_threads(|| {
        let server = Running::at(shared(), |server| server.accept_on_every_worker(true), echo);
        let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(is_echoed);
        let queued_nowhere = || queues(server.addr.port()).iter().all(|queued| *queued == 0);
        until(queued_nowhere);
        assert_eq!(server.stopper.drain(Duration::ZERO), Drained { finished: 0, cut: 20 });
        server.task.join().unwrap().unwrap();
        clients.iter_mut().for_each(|client| assert_eq!(client.read(&mut [0; 8]).unwrap(), 0));
        // A process that another test starts may hold a listener until it calls exec.
        until(|| queues(server.addr.port()).is_empty());
    });
}

#[test]
fn every_workers_loop_ends_with_the_first_that_does() {
    on_tasks_and_threads(|| {
        let listener = shared();
        let clone = listener.try_clone().unwrap();
        let server = Running::at(listener, |server| server.accept_on_every_worker(true), echo);
        until_waiting("accept", &clone);
        clone.close().unwrap();
        server.task.join().unwrap().unwrap();
        until(|| queues(server.addr.port()).is_empty());

        let listener = shared();
        listener.set_deadline(Some(Instant::now())).unwrap();
        let error = Server::new(listener).accept_on_every_worker(true).serve(echo).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn to_accept_on_every_worker_takes_a_listener_that_reuses_its_port() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Server::new(listener).accept_on_every_worker(true).serve(echo).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = "to accept on every worker, a server's listener is made with ListenOptions::reuse_port";
        assert_eq!(error.to_string(), text);

        let server = Server::new(shared()).accept_on_every_worker(true);
        server.stopper().stop();
        server.serve(|_, _| panic!("nobody connects")).unwrap();
    });
}

#[test]
fn a_runtime_that_shuts_down_serves_on_none_of_its_workers() {
    let _watchdog = watchdog();
    for poller in pollers() {
        let runtime = Runtime::builder().workers(2).poller(poller).build().unwrap();
        let (stop, stopped) = channel::bounded::<()>(0);
        let serving = runtime.spawn(move || {
            _ = stopped.recv();
            Server::new(shared()).accept_on_every_worker(true).serve(echo)
        });
        runtime.shutdown(Duration::ZERO).unwrap_err();
        drop(stop);
        let error = serving.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a runtime that shuts down serves on none of its workers");
    }
}
