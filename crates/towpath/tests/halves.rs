//! The owned halves of a connection: each in a task of its own, dropped apart, put together again.

mod common;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use common::{CALLERS, on_tasks_and_threads, pair, pattern};
use towpath::net::{ReuniteError, is_closed};

#[test]
fn the_halves_read_and_write_at_once() {
    on_tasks_and_threads(|| {
        const LEN: usize = 4 << 20;
        for caller in CALLERS {
            let (client, server) = pair();
            let (mut from_client, mut to_client) = server.into_split();
            let echo = caller.run(move || std::io::copy(&mut from_client, &mut to_client).unwrap());
            let (mut from_server, mut to_server) = client.into_split();
            let writer = caller.run(move || to_server.write_all(&pattern(LEN, 3)).unwrap());
            let mut found = Vec::new();
            from_server.read_to_end(&mut found).unwrap();
            assert!(found == pattern(LEN, 3));
            writer.join().unwrap();
            assert_eq!(echo.join().unwrap(), LEN as u64);
        }
    });
}

#[test]
fn dropping_the_half_that_writes_ends_that_direction_alone() {
    on_tasks_and_threads(|| {
        let (client, mut server) = pair();
        let (mut read, mut write) = client.into_split();
        write.write_all(b"ping").unwrap();
        write.flush().unwrap();
        drop(write);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ping");
        server.write_all(b"pong").unwrap();
        drop(server);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "pong");
    });
}

#[test]
fn dropping_the_half_that_reads_ends_nothing() {
    on_tasks_and_threads(|| {
        let (client, mut server) = pair();
        let (read, mut write) = client.into_split();
        drop(read);
        assert_eq!(write.write_vectored(&[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap(), 5);
        write!(write, " {}", String::from("world")).unwrap();
        drop(write);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
    });
}

#[test]
fn a_half_that_is_forgotten_ends_nothing() {
    on_tasks_and_threads(|| {
        let (client, mut server) = pair();
        let (read, write) = client.into_split();
        write.forget();
        read.stream().try_clone().unwrap().write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        server.read_exact(&mut buf).unwrap();
        drop(read);
        assert_eq!(server.read(&mut buf).unwrap(), 0);
    });
}

#[test]
fn halves_of_one_connection_become_one_again() {
    on_tasks_and_threads(|| {
        let (client, mut server) = pair();
        let addr = client.local_addr().unwrap();
        let (read, write) = client.into_split();
        let (read, write) = read.reunite(write).unwrap().into_split();
        let mut client = write.reunite(read).unwrap();
        assert_eq!(client.local_addr().unwrap(), addr);
        client.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        server.read_exact(&mut buf).unwrap();
        // No clone is left behind.
        client.into_std().unwrap();
    });
}

#[test]
fn halves_of_two_connections_come_back_as_they_were() {
    on_tasks_and_threads(|| {
        let (client, server) = pair();
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let ReuniteError(mut client_read, server_write) = client_read.reunite(server_write).unwrap_err();
        let ReuniteError(server_read, client_write) = client_write.reunite(server_read).unwrap_err();
        let mut server = server_read.reunite(server_write).unwrap();
        server.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        let n = client_read.read_vectored(&mut [IoSliceMut::new(&mut buf)]).unwrap();
        assert_eq!(&buf[..n], b"hello");
        client_read.reunite(client_write).unwrap();
    });
}

#[test]
fn a_half_has_the_connections_options_and_its_end() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (client, server) = pair();
            let (mut read, mut write) = client.into_split();
            assert_eq!(read.stream().peer_addr().unwrap(), server.local_addr().unwrap());
            write.stream().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert!(read.read(&mut [0; 8]).is_err());
            write.stream().set_read_timeout(None).unwrap();
            let clone = write.stream().try_clone().unwrap();
            let reader = caller.wait_in("read", &clone, move || read.read(&mut [0; 8]).unwrap_err());
            write.stream().close().unwrap();
            assert!(is_closed(&reader.join().unwrap()));
            assert!(is_closed(&write.write(b"x").unwrap_err()));
        }
    });
}
