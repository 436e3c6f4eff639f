//! The sockets of the tour, as `watch` shows them: the columns that a lesson needs, or objects.

#![forbid(unsafe_code)]

use std::process;

use rustix::process::geteuid;
use towpath::task::{TaskDump, WaitsOn};
use towpath::time::Duration;
use towpath_diag::{Want, monotonic};

use super::told::number;
use crate::args::{View, Watch};
use crate::exit::Failure;
use crate::output::event::Event;
use crate::output::{Form, Output};
use crate::watch::columns::{Column, Style};
use crate::watch::object::Object;
use crate::watch::plain;
use crate::watch::tasks::{Task, Tasks};
use crate::watch::watcher::Watcher;

/// What a lesson needs: owners, for one, are all the same here.
const COLUMNS: [Column; 5] = [Column::State, Column::Queues, Column::Local, Column::Peer, Column::Task];

/// The table, which remembers what it showed: what has changed stands out.
#[derive(Debug)]
pub(super) struct Table {
    watcher: Option<Watcher>,
}

impl Table {
    /// Of the sockets with `port` at either end.
    pub(super) fn new(port: u16) -> Result<Table, Failure> {
        let filter = format!("port:{port}").parse().expect("a port is a filter");
        let watcher = Watcher::new(&Watch {
            filter,
            interval: Duration::from_secs(1),
            view: View::Snapshots,
            limit: None,
            checks: Vec::new(),
            cumulative: false,
            resolve: false,
        })?;
        Ok(Table { watcher: Some(watcher) })
    }

    /// The table as it is now, on a terminal of `width` columns; or its rows as objects, at once.
    pub(super) fn draw(&mut self, out: &Output, width: usize) -> Result<String, Failure> {
        let tasks = tasks(&towpath::task::dump());
        let mut watcher = self.watcher.take().expect("it is put back below");
        // All processes are looked through for owners, which may take a while.
        let (watcher, looked) = towpath::task::unblock(move || {
            let looked = watcher.look_at_all(Want::all());
            (watcher, looked)
        });
        let watcher = self.watcher.insert(watcher);
        watcher.tasks = tasks;
        let sockets = looked?;
        let wholes = watcher.shown().iter().filter_map(|&number| watcher.whole(number));
        match out.form() {
            Form::Human { stdout, .. } => {
                let style = Style { now: watcher.now(), ascii: stdout.ascii, names: None };
                Ok(plain::excerpt(wholes, &COLUMNS, width, style, stdout))
            }
            Form::Json => {
                for whole in wholes {
                    // One that has just gone has a row and no socket.
                    let Some(socket) = sockets.get(&whole.row.cookie) else { continue };
                    let object = Object::new(socket, watcher.now(), whole.since, whole.owners, whole.tasks);
                    out.event(&Event::Socket(&object));
                }
                Ok(String::new())
            }
        }
    }
}

/// The tasks that wait on a socket, by its cookie.
fn tasks(dump: &TaskDump) -> Tasks {
    let mut tasks = Tasks::default();
    for task in dump.tasks() {
        let Some(WaitsOn::Socket(socket)) = task.waits_on() else { continue };
        let Some(cookie) = socket.cookie else { continue };
        let waited = task.waiting_for().unwrap_or_default();
        tasks.add(
            cookie,
            Task {
                pid: process::id(),
                uid: Some(geteuid().as_raw()),
                id: number(task.id()),
                name: task.name().map(str::to_owned),
                state: task.state().to_string(),
                op: task.operation().map(str::to_owned),
                since: monotonic().saturating_sub(waited),
                spawned_at: task.spawned_at().to_string(),
            },
        );
    }
    tasks
}
