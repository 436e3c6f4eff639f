//! What one may type: the subcommands and options with their help, as `--help` shows them.

// The comments here are help for a terminal, where [::1] is an address and a URL needs no brackets.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls)]

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{Target, address, count, duration, positive_duration, target};
use crate::output::look::Color;

/// Serve and dial TCP, and see what happens on the way
///
/// towpath is for those who today juggle netcat and its relatives to understand one TCP service. It runs a small server
/// that shows every connection, what arrives on it and how it ended, and a client that half-closes, waits and reports
/// as TCP means it.
#[derive(Debug, Parser)]
#[command(
    name = "towpath",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "For more: towpath --help; towpath serve --help, and so for dial, watch, trace, tour and tasks",
    after_long_help = ABOUT_ALL
)]
pub(super) struct Typed {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct Common {
    /// Print JSON: one object a line
    ///
    /// Every event is one object on stdout, errors too, and stderr stays empty. Each has "v":1, "time" (RFC 3339,
    /// UTC), "ev" (what happened) and the event's own fields; units are in their names ("after_us"). Bytes are "text"
    /// where they are UTF-8, else "hex". Fields may be added; names and meanings do not change within a "v".
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Colour: auto, always or never
    ///
    /// "auto" is colour on a terminal, unless NO_COLOR is set or TERM is "dumb".
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(super) color: Color,

    /// Print nothing but ASCII
    ///
    /// "->" and "us" instead of an arrow and a Greek letter, and other characters that were received as escapes. By
    /// itself where the locale (LC_ALL, LC_CTYPE, LANG) is not UTF-8.
    #[arg(long, global = true)]
    pub(super) ascii: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Listen, and show each connection, what it sends and how it ends
    ///
    /// Listens at ADDR and serves every connection in a task of its own. Each line of output begins with the number of
    /// its connection: that it came, with the options of its SYN; what was read and sent; and who closed it, after how
    /// long, with how many bytes each way, the round-trip time and the retransmissions.
    ///
    /// Ctrl-C and SIGTERM stop it: it accepts no more, lets open conversations finish for the time of --drain, says how
    /// many it had to cut, and exits 0. A second Ctrl-C ends it at once.
    #[command(after_long_help = ABOUT_SERVE)]
    Serve(Serve),

    /// Connect, send what is typed and print what comes back
    ///
    /// Connects to ADDR, sends stdin and writes what it receives to stdout. When stdin ends (Ctrl-D) it sends FIN and
    /// goes on reading: an answer that comes late is not lost. When the server closes, it says so and exits, also while
    /// stdin is still open.
    #[command(after_long_help = ABOUT_DIAL)]
    Dial(Dial),

    /// Show TCP sockets as they live: states, queues, owners, tasks
    ///
    /// A table of the sockets that pass FILTER, refreshed every 2 seconds, with what changed highlighted, and below it
    /// the history of their states. When stdout is no terminal, one table is printed. Needs no privilege; as root it
    /// also sees what happens between two looks, and other people's processes.
    #[command(after_long_help = watch::ABOUT_WATCH)]
    Watch(watch::Watch),

    /// Show TCP connections as ladders: handshake, data, close, and what went wrong
    ///
    /// Listens on an interface, or reads a capture file, and draws each connection as arrows between its two ends. With
    /// Ctrl-C, or at the file's end, it says how the connections stand that are open, and how many packets were missed.
    #[command(after_long_help = trace::ABOUT_TRACE)]
    Trace(trace::Trace),

    /// Show what TCP is doing, step by step, on a connection of its own
    ///
    /// The life of one connection, from listen to TIME-WAIT, with what each step looks like to the tasks, on the wire and
    /// in the kernel's table. Nothing has to be prepared, and nothing else on this machine is touched.
    #[command(after_long_help = tour::ABOUT_TOUR)]
    Tour(tour::Tour),

    /// Show the tasks of a running program, and what each waits for
    ///
    /// Asks a program on the towpath library for its tasks: a line for each, with what it waits in and on (the socket's
    /// addresses, the channel, the task), for how long and until when, its stack (in use, high water, size) and where it
    /// was spawned. The program must let itself be asked: "towpath serve" does, others if they are started with
    /// TOWPATH_INSPECT=1 or call Builder::inspect. Only its own user and root may ask.
    #[command(after_long_help = ABOUT_TASKS)]
    Tasks(Tasks),

    /// Print a manual page, or write all of them into a folder
    ///
    /// The pages are made of what --help says, one for towpath itself and one for each subcommand, in the form that
    /// man(1) reads.
    #[command(after_long_help = ABOUT_MAN)]
    Man(Man),

    /// Print the completions for a shell
    #[command(after_long_help = ABOUT_COMPLETIONS)]
    Completions(Completions),
}

#[derive(Debug, Args)]
pub(super) struct Tasks {
    /// Which program: a process id, or the path of its socket
    ///
    /// Without it, the only program that can be asked; if there are several, they are listed.
    #[arg(value_name = "PID|SOCKET", value_parser = target)]
    pub(super) target: Option<Target>,

    /// Show also by which calls each waiting task came there
    ///
    /// The tasks do not notice. Names are as good as the program's debug information.
    #[arg(long)]
    pub(super) backtrace: bool,

    /// How long the program may take to answer
    #[arg(short, long, value_name = "DUR", default_value = "5s", value_parser = positive_duration)]
    pub(super) wait: Duration,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The subcommand whose page to print; without it, towpath's own
    #[arg(value_name = "SUBCOMMAND")]
    pub(super) subcommand: Option<String>,

    /// Write every page into DIR, as towpath.1, towpath-serve.1 and so on
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell: bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub(super) shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen: 8330, :8330, host:8330, [::1]:8330
    ///
    /// Without a host it is every address of this machine, IPv6 and IPv4. A port may be a service name (":http"); port
    /// 0 lets the system choose, and the first line says which.
    #[arg(value_name = "ADDR", default_value = ":8330", value_parser = address)]
    pub(super) addr: String,

    #[command(flatten)]
    pub(super) mode: Mode,

    /// Serve at most N connections at once
    ///
    /// The others wait in the kernel's queue, connected as far as they can tell, until one of the N ends.
    #[arg(long, value_name = "N", value_parser = count::<NonZeroUsize>)]
    pub(super) max: Option<NonZeroUsize>,

    /// Close a connection on which nothing arrived for DUR: 200ms, 5s, 1m30s
    ///
    /// It gets a FIN, so that it still reads all that it was sent.
    #[arg(long, value_name = "DUR", value_parser = positive_duration)]
    pub(super) idle: Option<Duration>,

    /// Dump what arrives in hex
    ///
    /// As hexdump -C does; the offsets count from the connection's first byte. With --echo and --discard, which print
    /// no data otherwise, too.
    #[arg(long)]
    pub(super) hex: bool,

    /// How long open conversations may go on after Ctrl-C or SIGTERM
    ///
    /// With --time, --discard and --chargen each of them gets a FIN at once, since we have no more to say; with --echo
    /// it is served on. What is open after DUR is cut.
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = duration)]
    pub(super) drain: Duration,
}

/// What to say to those who connect.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Mode {
    /// Send the current time, then print what arrives (the default)
    #[arg(long, help_heading = "What to say")]
    pub(super) time: bool,

    /// Send back what arrives (RFC 862)
    #[arg(long, help_heading = "What to say")]
    pub(super) echo: bool,

    /// Read and send nothing (RFC 863)
    #[arg(long, help_heading = "What to say")]
    pub(super) discard: bool,

    /// Send lines of characters without end (RFC 864)
    #[arg(long, help_heading = "What to say")]
    pub(super) chargen: bool,
}

#[derive(Debug, Args)]
pub(super) struct Dial {
    /// Where to connect: 8330, :8330, host:8330, [::1]:8330
    ///
    /// Without a host it is this machine. A port may be a service name ("localhost:http"). The addresses of a name are
    /// tried as RFC 8305 says, both families soon after each other.
    #[arg(value_name = "ADDR", value_parser = address)]
    pub(super) addr: String,

    /// How long connecting may take: 200ms, 5s, 1m30s
    ///
    /// From the name's lookup to the last address that is tried.
    #[arg(short, long, value_name = "DUR", default_value = "5s", value_parser = positive_duration)]
    pub(super) wait: Duration,

    /// Give up when nothing arrived for DUR (exit code 4)
    #[arg(long, value_name = "DUR", value_parser = positive_duration)]
    pub(super) idle: Option<Duration>,

    /// Stay after the server closed
    ///
    /// The connection remains in CLOSE-WAIT, for a look at it, and what is typed is still sent, which a server that
    /// closed one direction only can read. Ends when stdin does, or with Ctrl-C; with --no-half-close only with Ctrl-C.
    #[arg(long, conflicts_with = "repeat")]
    pub(super) hold: bool,

    /// Send no FIN when stdin ends
    ///
    /// For servers that take a FIN for a farewell and do not answer after it.
    #[arg(long)]
    pub(super) no_half_close: bool,

    /// Send line ends as CR LF
    ///
    /// For protocols that want them (HTTP, SMTP). A line end that is CR LF already stays as it is.
    #[arg(long)]
    pub(super) crlf: bool,

    /// Print what arrives as a hex dump
    #[arg(long)]
    pub(super) hex: bool,

    /// Exit 0 as soon as what arrives matches RE; 9 if it never does
    ///
    /// A regular expression (https://docs.rs/regex/#syntax) over the received bytes, in which ^ and $ are the beginning
    /// and end of a line. It sees the last 64 KiB.
    #[arg(long, value_name = "RE")]
    pub(super) expect: Option<String>,

    /// Dial N times
    ///
    /// Stdin, unless it is a terminal, is read to its end first (at most 16 MiB) and sent each time. The exit code is
    /// that of the first dial that failed.
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU32>)]
    pub(super) repeat: Option<NonZeroU32>,

    /// With --repeat: the time from one dial to the next
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = duration, requires = "repeat")]
    pub(super) every: Duration,
}

macro_rules! exit_codes {
    () => {
        "\
Exit codes:
    0  done; also a drained serve, and an output whose reader left (| head)
    1  anything that has no code of its own
    2  usage: an option or an address is wrong; the message names the part
    3  refused: nothing listens there
    4  timed out
    5  unreachable: no way leads there
    6  reset: the peer broke the connection off
    7  the name was not found
    8  the address is in use
    9  a check failed (--expect, --fail-if)
   77  no permission
  130  Ctrl-C"
    };
}

/// What the keys of `watch` do. `watch` itself shows it too.
macro_rules! keys {
    () => {
        "  q          quit; on a page or in the filter line: back (also Esc)
  ?          help
  up down    choose a socket (also j k PgUp PgDn Home End)
  Enter      all about it: tcp_info, what limits it, memory, timer, history, task
  /          change the filter; Enter applies it, Esc leaves it
  s S        sort by the next column; turn the order round
  space      pause, and go on
  e          show or hide the history of states
  t          show or hide TIME-WAIT
  T          show or hide the task column
  w          write the segments of the chosen connection (or port) to a pcapng file in this
             folder, until w comes again; needs CAP_NET_RAW"
    };
}

const ABOUT_ALL: &str = concat!(
    "\
Examples:
  towpath serve 8330         in one terminal
  towpath dial 8330          in another: the time arrives; type a line, then Ctrl-D
  towpath watch 8330         in a third: both ends of it, as the kernel sees them
  towpath tour               or all that TCP does, step by step, with nothing to prepare
  towpath tasks              in a fourth: what each of the server's tasks waits for

Environment:
  NO_COLOR          no colour
  TOWPATH_WORKERS   how many threads run the tasks (default: one a processor)
  TOWPATH_POLLER    how they learn what became ready: os or uring
  TOWPATH_STACK     the address space of a task's stack, in bytes
  TOWPATH_INSPECT   0: serve does not let itself be asked by towpath tasks

",
    exit_codes!()
);

const ABOUT_TASKS: &str = concat!(
    "\
Examples:
  towpath tasks                         the only program there is to ask
  towpath tasks 8808 --backtrace        by which calls its tasks came to where they wait
  towpath tasks --json | jq 'select(.op == \"read\" and .since_us > 60000000)'

",
    exit_codes!()
);

const ABOUT_SERVE: &str = concat!(
    "\
Examples:
  towpath serve                        the time to everybody who connects to port 8330
  towpath serve 127.0.0.1:0 --echo     an echo server for this machine only, at a free port
  towpath serve --max 2 --idle 60s     two at once, and nobody for long in silence
  towpath serve --json | jq 'select(.ev == \"closed\")'

",
    exit_codes!()
);

const ABOUT_DIAL: &str = concat!(
    "\
Examples:
  towpath dial 8330                          talk to a server on this machine
  printf 'hello\\n' | towpath dial db:9000    send, half-close, print the answer however late
  printf 'GET / HTTP/1.0\\n\\n' | towpath dial --crlf example.org:http
  towpath dial --expect '^220 ' mail:smtp    is it the right service?
  towpath dial --repeat 10 --every 200ms 8330 </dev/null

",
    exit_codes!()
);

const ABOUT_MAN: &str = "\
Examples:
  towpath man serve | man -l -
  towpath man --out ~/.local/share/man/man1";

const ABOUT_COMPLETIONS: &str = "\
Examples:
  towpath completions bash >~/.local/share/bash-completion/completions/towpath
  towpath completions zsh >~/.zfunc/_towpath            with ~/.zfunc in fpath
  towpath completions fish >~/.config/fish/completions/towpath.fish";

// After the macros that it uses.
pub(super) mod tour;
pub(super) mod trace;
pub(super) mod watch;
