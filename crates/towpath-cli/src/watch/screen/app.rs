//! What the screen is at: which row is chosen, what is open, what each key does to that. It asks the watcher for what it
//! shows, and makes the scene that is drawn.

#![forbid(unsafe_code)]

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use towpath_diag::{Event, Socket, Source};

use super::super::columns::{self, Column, Style, Tone};
use super::super::events::wall_time;
use super::super::filter::Filter;
use super::super::table::Ends;
use super::super::watcher::Watcher;
use super::detail::{self, Line};
use super::draw::{Body, Header, History, Scene, Status, Table, heights, page_height};
use super::keys::Key;
use super::prompt::{Prompt, Typing};
use crate::args::KEYS;
use crate::exit::{Exit, Failure};
use crate::output::look::Look;
use crate::output::units;

const TABLE_HINTS: &str =
    "q quit  ? help  ↑↓ choose  Enter detail  / filter  s S sort  space pause  e t T show  w capture";
const TABLE_HINTS_ASCII: &str =
    "q quit  ? help  up/down choose  Enter detail  / filter  s S sort  space pause  e t T show  w capture";
const OWNERS_HINT: &str = "owners: your own only (sudo for all)";
const PAGE_HINTS: &str = "q back  ↑↓ PgUp PgDn turn  space pause  w capture";
const PAGE_HINTS_ASCII: &str = "q back  up/down PgUp PgDn turn  space pause  w capture";

/// What a key asks of those who run the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Quit(Exit),
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L: draw it all anew.
    Redraw,
    /// Look at what this filter lets pass.
    Filter,
    /// Write the segments of this connection, or without one of what passes the filter, to a file; or stop that.
    Capture(Option<Ends>),
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) watcher: Watcher,
    look: Look,
    interval: Duration,
    source: String,
    /// Why changes are not exact.
    why: Option<String>,
    /// The cookie of the chosen socket, and where its row was.
    chosen: Option<u64>,
    place: usize,
    /// The first row that is visible.
    top: usize,
    /// Width and height.
    size: (u16, u16),
    paused: bool,
    /// How many changes there were when we paused.
    paused_at: u64,
    /// The time of day when the last look began.
    clock: Timestamp,
    shows_history: bool,
    shows_tasks: bool,
    page: Option<Page>,
    prompt: Option<Prompt>,
    message: Option<(String, Tone)>,
    /// What a capture has come to, while there is one.
    recording: Option<String>,
    /// The first of the last line, where owners are not to be seen.
    owners_hint: Option<String>,
}

/// What lies over the table.
#[derive(Debug)]
struct Page {
    what: What,
    from: usize,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum What {
    Help,
    Detail(Box<Detail>),
}

/// The socket that all is told about.
#[derive(Debug, Default)]
struct Detail {
    cookie: u64,
    title: String,
    socket: Option<Socket>,
    before: Option<Socket>,
}

impl App {
    pub(super) fn new(watcher: Watcher, look: Look, interval: Duration, size: (u16, u16)) -> App {
        App {
            watcher,
            look,
            interval,
            source: String::new(),
            why: None,
            chosen: None,
            place: 0,
            top: 0,
            size,
            paused: false,
            paused_at: 0,
            clock: Timestamp::now(),
            shows_history: true,
            shows_tasks: true,
            page: None,
            prompt: None,
            message: None,
            recording: None,
            owners_hint: None,
        }
    }

    /// Says where changes come from; an error is why none come.
    pub(super) fn set_source(&mut self, source: Result<&Source, &str>) {
        (self.source, self.why) = match source {
            Ok(Source::Sampled { interval, why }) => {
                (format!("sampled {}", units::time(*interval, self.look.ascii)), Some(why.clone()))
            }
            Ok(_) => ("exact (tracepoint)".to_owned(), None),
            Err(why) => ("none".to_owned(), Some(why.to_owned())),
        };
    }

    pub(super) fn set_size(&mut self, size: (u16, u16)) {
        self.size = size;
    }

    /// Says something in the last line, until a key is pressed.
    pub(super) fn say(&mut self, text: impl Into<String>, tone: Tone) {
        self.message = Some((text.into(), tone));
    }

    /// Says how far a capture is, while there is one.
    pub(super) fn set_recording(&mut self, progress: Option<String>) {
        self.recording = progress;
    }

    /// Who has the chosen socket, and which tasks use it, in words.
    pub(super) fn owner_of_chosen(&self) -> String {
        let whole = self.chosen.and_then(|cookie| self.watcher.find(cookie)).and_then(|row| self.watcher.whole(row));
        let cells = whole
            .iter()
            .flat_map(|whole| [Column::Owner, Column::Task].map(|column| column.cell(whole, self.style()).text));
        cells.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", task ")
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether tasks are to be asked for.
    pub(super) fn wants_tasks(&self) -> bool {
        self.shows_tasks && !self.paused
    }

    /// Looks at the sockets again.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let looked = self.watcher.look()?;
        self.clock = wall_time(self.watcher.now());
        for (old, new) in looked.renamed {
            if self.chosen == Some(old) {
                self.chosen = Some(new);
            }
            if let Some(Page { what: What::Detail(detail), .. }) = &mut self.page
                && detail.cookie == old
            {
                detail.cookie = new;
            }
        }
        self.refresh_detail();
        Ok(())
    }

    /// Takes in what happened.
    pub(super) fn hear(&mut self, event: &Event) {
        if let Event::Lost(changes) = event {
            self.say(format!("{changes} changes or more were lost: they came too fast"), Tone::Alarm);
        }
        self.watcher.hear(event);
    }

    /// Does what `key` means.
    pub(super) fn key(&mut self, key: Key) -> Option<Wish> {
        self.message = None;
        match key {
            Key::Control('c') => return Some(Wish::Quit(Exit::Interrupted)),
            Key::Control('z') => return Some(Wish::Suspend),
            Key::Control('l') => return Some(Wish::Redraw),
            _ => {}
        }
        if let Some(prompt) = &mut self.prompt {
            return match prompt.key(key) {
                Typing::Goes => None,
                Typing::Left => {
                    self.prompt = None;
                    None
                }
                Typing::Done(filter) => {
                    self.prompt = None;
                    self.turn_to(filter)
                }
            };
        }
        match key {
            Key::Char(' ') => self.pause(),
            Key::Char('w') => return Some(Wish::Capture(self.chosen_ends())),
            _ if self.page.is_some() => self.key_on_page(key),
            _ => return self.key_on_table(key),
        }
        None
    }

    fn key_on_table(&mut self, key: Key) -> Option<Wish> {
        match key {
            Key::Char('q') => return Some(Wish::Quit(Exit::Done)),
            Key::Char('?') => self.open(What::Help),
            Key::Enter => {
                if let Some(cookie) = self.chosen {
                    self.open(What::Detail(Box::new(Detail { cookie, ..Detail::default() })));
                    self.refresh_detail();
                }
            }
            Key::Char('/') => self.prompt = Some(Prompt::new(&self.watcher.filter)),
            Key::Char('s') => self.order(self.watcher.order.next()),
            Key::Char('S') => self.order(self.watcher.order.reverse()),
            Key::Char('e') => self.shows_history = !self.shows_history,
            Key::Char('T') => self.shows_tasks = !self.shows_tasks,
            Key::Char('t') => {
                self.watcher.hides_time_wait = !self.watcher.hides_time_wait;
                self.watcher.rearrange();
                let what = if self.watcher.hides_time_wait { "hidden" } else { "shown" };
                self.say(format!("TIME-WAIT is {what}"), Tone::Plain);
            }
            _ => {
                if let Some(place) = moved(key, self.place, self.page_rows(), self.watcher.shown().len()) {
                    self.choose(place);
                }
            }
        }
        None
    }

    fn key_on_page(&mut self, key: Key) {
        let height = usize::from(page_height(self.size.1));
        let Some(page) = &mut self.page else { return };
        match key {
            Key::Char('q' | '?') | Key::Escape | Key::Enter | Key::Backspace => self.page = None,
            _ => {
                // The last line may come up to the bottom, no further.
                let turns = (page.lines.len() + 1).saturating_sub(height).max(1);
                if let Some(from) = moved(key, page.from, height, turns) {
                    page.from = from;
                }
            }
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        self.paused_at = self.watcher.lives.count();
    }

    fn order(&mut self, order: super::super::order::Order) {
        let news = order.needs_paths() && !self.watcher.order.needs_paths();
        self.watcher.order = order;
        // By what is not known of every row it can be sorted after the next look.
        if news && !self.paused {
            let _ = self.look();
        }
        self.watcher.rearrange();
    }

    fn turn_to(&mut self, filter: Filter) -> Option<Wish> {
        self.watcher.turn_to(filter);
        (self.chosen, self.place, self.top, self.paused) = (None, 0, 0, false);
        Some(Wish::Filter)
    }

    fn open(&mut self, what: What) {
        let lines = if matches!(what, What::Help) { help(self.why.as_deref(), &self.source) } else { vec![] };
        self.page = Some(Page { what, from: 0, lines });
    }

    /// Asks again about the socket whose detail is open.
    fn refresh_detail(&mut self) {
        let Some(Page { what: What::Detail(detail), .. }) = &mut self.page else { return };
        let Some(number) = self.watcher.find(detail.cookie) else { return };
        if let Some(socket) = self.watcher.ask(number) {
            detail.before = detail.socket.replace(socket);
        }
        self.watcher.look_closer(&[number]);
        let Some(whole) = self.watcher.whole(number) else { return };
        detail.title = format!("{} {}", whole.row.state, whole.row.local);
    }

    fn choose(&mut self, place: usize) {
        self.place = place;
        let number = self.watcher.shown().get(place);
        self.chosen = number.and_then(|&number| Some(self.watcher.whole(number)?.row.cookie));
    }

    /// The addresses of the chosen socket, if it is a connection.
    fn chosen_ends(&self) -> Option<Ends> {
        let cookie = match &self.page {
            Some(Page { what: What::Detail(detail), .. }) => detail.cookie,
            _ => self.chosen?,
        };
        let row = self.watcher.whole(self.watcher.find(cookie)?)?.row;
        Some(row.ends())
    }

    fn page_rows(&self) -> usize {
        usize::from(heights(self.size.1, self.shows_history).rows).max(1)
    }

    /// Brings everything up to date that is visible, and says what is to be drawn.
    pub(super) fn scene(&mut self) -> Scene<'_> {
        self.settle();
        let rows = self.page_rows();
        let visible: Vec<u32> = self.watcher.shown().iter().copied().skip(self.top).take(rows).collect();
        if !self.paused {
            self.watcher.look_closer(&visible);
        }
        let hidden = !rustix::process::geteuid().is_root() && visible.iter().any(|&number| self.hides_owner(number));
        self.owners_hint = hidden.then(|| format!("{OWNERS_HINT}  {}", self.table_hints()));
        if let Some(Page { what: What::Detail(_), .. }) = &self.page {
            let lines = self.detail_lines();
            if let (Some(lines), Some(page)) = (lines, &mut self.page) {
                page.lines = lines;
            }
        }
        let body = match &self.page {
            None => Body::Table(self.table(&visible)),
            Some(page) => {
                let title = match &page.what {
                    What::Help => "towpath watch: keys and columns".to_owned(),
                    What::Detail(detail) => detail.title.clone(),
                };
                let title = if self.paused { format!("{title}   PAUSED") } else { title };
                Body::Page { title, lines: &page.lines, from: page.from }
            }
        };
        Scene { look: self.look, header: self.header(), body, status: self.status() }
    }

    /// Whether a process has this socket that we may not see.
    fn hides_owner(&self, number: u32) -> bool {
        let whole = self.watcher.whole(number);
        whole.is_some_and(|whole| whole.row.inode.is_some() && whole.row.gone.is_none() && whole.owners.is_empty())
    }

    fn table_hints(&self) -> &'static str {
        if self.look.ascii { TABLE_HINTS_ASCII } else { TABLE_HINTS }
    }

    /// The chosen row keeps its mark wherever it goes, and stays in sight.
    fn settle(&mut self) {
        let shown = self.watcher.shown();
        let followed = self.chosen.and_then(|cookie| self.watcher.find(cookie));
        let place = followed.and_then(|number| shown.iter().position(|&other| other == number));
        let place = place.unwrap_or_else(|| self.place.min(shown.len().saturating_sub(1)));
        let (rows, count) = (self.page_rows(), shown.len());
        self.choose(place);
        self.top = self.top.clamp((place + 1).saturating_sub(rows), place).min(count.saturating_sub(rows));
    }

    fn table(&self, visible: &[u32]) -> Table {
        let style = self.style();
        let columns: Vec<Column> =
            columns::ALL.into_iter().filter(|&column| self.shows_tasks || column != Column::Task).collect();
        let wholes = visible.iter().filter_map(|&number| self.watcher.whole(number));
        let rows = wholes.map(|whole| columns.iter().map(|column| column.cell(&whole, style)).collect()).collect();
        let history = self.shows_history.then(|| self.history());
        let chosen = Some(self.place - self.top.min(self.place));
        Table { columns, rows, chosen, empty: self.watcher.nothing(), history }
    }

    fn history(&self) -> History {
        let why = self.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        // While paused, what came later is left out.
        let later = if self.paused { self.watcher.lives.count().saturating_sub(self.paused_at) } else { 0 };
        let recent = self.watcher.lives.recent().skip(usize::try_from(later).unwrap_or(usize::MAX));
        let height = usize::from(heights(self.size.1, true).history);
        let lines = recent.take(height).map(|step| {
            let (local, peer) = step.ends;
            let peer = peer.map_or_else(|| "*".to_owned(), |peer| peer.to_string());
            let (time, change) = detail::step_text(step, self.watcher.now(), self.clock, self.look.ascii);
            format!("{time}  {local:<21} {peer:<21}  {change}")
        });
        History { title: format!("events: {}{why}", self.source), lines: lines.collect() }
    }

    fn detail_lines(&self) -> Option<Vec<Line>> {
        let Some(Page { what: What::Detail(detail), .. }) = &self.page else { return None };
        let whole = self.watcher.whole(self.watcher.find(detail.cookie)?)?;
        Some(detail::lines(&detail::Subject {
            whole,
            socket: detail.socket.as_ref(),
            before: detail.before.as_ref(),
            steps: self.watcher.lives.of(&whole.row.ends()),
            style: self.style(),
            clock: self.clock,
        }))
    }

    fn header(&self) -> Header {
        let order = self.watcher.order;
        let turned = if order.reversed { ", reversed" } else { "" };
        Header {
            filter: self.watcher.filter.to_string(),
            paused: self.paused,
            recording: self.recording.clone().unwrap_or_default(),
            interval: units::option(self.interval),
            sockets: self.watcher.present(),
            source: self.source.clone(),
            order: if order == Default::default() { String::new() } else { format!("{}{turned}", order.by.name()) },
            time: self.clock.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string(),
        }
    }

    fn status(&self) -> Status<'_> {
        if let Some(prompt) = &self.prompt {
            let (before, after) = prompt.parts();
            return Status::Prompt { before, after, error: prompt.error() };
        }
        match (&self.message, &self.page, self.look.ascii) {
            (Some((text, tone)), _, _) => Status::Message { text, tone: *tone },
            (None, Some(_), false) => Status::Hints(PAGE_HINTS),
            (None, Some(_), true) => Status::Hints(PAGE_HINTS_ASCII),
            (None, None, _) => Status::Hints(self.owners_hint.as_deref().unwrap_or_else(|| self.table_hints())),
        }
    }

    fn style(&self) -> Style<'_> {
        Style { now: self.watcher.now(), ascii: self.look.ascii, names: self.watcher.names.as_ref() }
    }
}

/// Where a key leads from `place` in a list of `count`, of which `page` are visible at once.
fn moved(key: Key, place: usize, page: usize, count: usize) -> Option<usize> {
    let last = count.saturating_sub(1);
    let place = match key {
        Key::Up | Key::Char('k') => place.saturating_sub(1),
        Key::Down | Key::Char('j') => place + 1,
        Key::PageUp => place.saturating_sub(page),
        Key::PageDown => place + page,
        Key::Home => 0,
        Key::End => last,
        _ => return None,
    };
    Some(place.min(last))
}

fn help(why: Option<&str>, source: &str) -> Vec<Line> {
    let plain = |label: &str, text: &str| Line { label: label.to_owned(), text: text.to_owned(), tone: Tone::Plain };
    let keys = KEYS.lines().map(|line| {
        let (key, text) = line.split_at_checked(13).unwrap_or((line, ""));
        plain(key.trim(), text)
    });
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let columns = [
        ("", ""),
        ("FOR", "how long in this state; \">\": it had begun before we looked"),
        ("RQ SQ", "bytes not read, bytes not acknowledged; of a listener: waiting/most (FULL: more are dropped)"),
        ("RTT CWND", "smoothed round-trip time; congestion window in segments"),
        ("RETR", "segments sent again"),
        ("OWNER", "command, process/descriptor"),
        ("TASK", "the task that uses it, what it waits in, since when; of programs that let themselves be inspected"),
        ("red", "CLOSE-WAIT for over 5 s: the peer has closed and the program has not"),
    ];
    keys.chain(columns.map(|(label, text)| plain(label, text)))
        .chain([plain("events", &format!("{source}{why}"))])
        .collect()
}
