use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::*;

const LOOK: Look = Look { color: true, ascii: false };

/// What is on a screen of this size.
fn drawn(scene: &Scene<'_>, (columns, lines): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(frame, scene)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let line = |y| {
        let line: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    (0..buffer.area.height).map(line).collect()
}

/// That the screen is the one that is kept under this name. `TOWPATH_KEEP_SCREENS=1` keeps it as it is now.
#[track_caller]
fn assert_screen(name: &str, scene: &Scene<'_>, size: (u16, u16)) {
    let screen = text(&drawn(scene, size));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(name).with_extension("txt");
    if std::env::var_os("TOWPATH_KEEP_SCREENS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &screen).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(screen, kept, "{} is another:\n{screen}", file.display());
}

fn cells(texts: [&str; 10]) -> Vec<Cell> {
    texts.map(|text| Cell { text: text.to_owned(), tone: Tone::Plain }).to_vec()
}

fn header() -> Header {
    Header {
        filter: "port:8330".into(),
        paused: false,
        recording: String::new(),
        interval: "2s".into(),
        sockets: 3,
        source: "exact (tracepoint)".into(),
        order: String::new(),
        time: "12:04:11".into(),
    }
}

fn table() -> Table {
    let mut rows = vec![
        cells(["LISTEN", "1m02s", "0/128", "127.0.0.1:8330", "*", "", "", "", "demo 8808/3", "#2 accept 61s"]),
        cells(["ESTAB", "2.1s", " 0  0", "127.0.0.1:39792", "127.0.0.1:8330", "39µs", "11", "0", "demo 8852/3", ""]),
        cells([
            "CLOSE-WAIT",
            "7.3s",
            "14  0",
            "127.0.0.1:8330",
            "127.0.0.1:39792",
            "28µs",
            "11",
            "0",
            "demo 8808/4",
            "#7 read 2.0s",
        ]),
    ];
    rows[1][2].tone = Tone::Changed;
    rows[2][0].tone = Tone::Alarm;
    let history = History {
        title: "events: exact (tracepoint)".into(),
        lines: vec![
            "12:04:10.123456  127.0.0.1:8330        127.0.0.1:39792             ESTAB → CLOSE-WAIT  after 2.1 s".into(),
            "12:04:08.000000  127.0.0.1:8330        127.0.0.1:39792          SYN-RECV → ESTAB       after 5 µs".into(),
        ],
    };
    Table {
        columns: columns::ALL.to_vec(),
        rows,
        chosen: Some(1),
        empty: "no TCP socket".into(),
        history: Some(history),
    }
}

fn scene(body: Body<'static>) -> Scene<'static> {
    Scene { look: LOOK, header: header(), body, status: Status::Hints("q quit  ? help") }
}

fn page() -> Body<'static> {
    let line = |label: &str, text: &str| detail::Line { label: label.into(), text: text.into(), tone: Tone::Plain };
    let lines: &'static [detail::Line] = vec![
        line("state", "ESTABLISHED   for 2.1s"),
        line("ends", "127.0.0.1:39792 → 127.0.0.1:8330"),
        line("limit", "the program: it has nothing to send"),
        line("tcp_info", "ca_state                  open"),
        line("", "rtt                       39 µs"),
    ]
    .leak();
    Body::Page { title: "ESTABLISHED 127.0.0.1:39792".into(), lines, from: 0 }
}

#[test]
fn the_table_has_room_on_a_usual_terminal() {
    assert_screen("table-120x20", &scene(Body::Table(table())), (120, 20));
}

#[test]
fn on_a_narrow_terminal_the_least_needed_columns_are_left_out() {
    assert_screen("table-80x24", &scene(Body::Table(table())), (80, 24));
    assert_screen("table-40x10", &scene(Body::Table(table())), (40, 10));
    assert_screen("table-24x5", &scene(Body::Table(table())), (24, 5));
}

#[test]
fn in_ascii_there_is_nothing_else() {
    let mut scene = scene(Body::Table(table()));
    scene.look.ascii = true;
    let Body::Table(table) = &mut scene.body else { unreachable!() };
    for row in &mut table.rows {
        row[5].text = row[5].text.replace('µ', "u");
    }
    table.history = Some(History { title: "events: none".into(), lines: vec![] });
    for size in [(120, 20), (40, 10), (25, 6)] {
        let screen = text(&drawn(&scene, size));
        assert!(screen.is_ascii(), "{screen}");
    }
}

#[test]
fn an_empty_table_says_so_and_what_is_paused_too() {
    let mut scene = scene(Body::Table(Table {
        empty: "no socket passes port:8330".into(),
        columns: columns::ALL.to_vec(),
        ..Table::default()
    }));
    scene.header.paused = true;
    scene.header.sockets = 0;
    scene.header.order = "rtt, reversed".into();
    assert_screen("empty-100x6", &scene, (100, 6));
}

#[test]
fn a_page_can_be_turned() {
    assert_screen("page-60x8", &scene(page()), (60, 8));
    let mut turned = scene(page());
    if let Body::Page { from, .. } = &mut turned.body {
        *from = 3;
    }
    assert_screen("page-turned-60x8", &turned, (60, 8));
}

#[test]
fn what_is_wrong_with_a_filter_stands_beside_it() {
    let prompt = Status::Prompt { before: "state:cl", after: "", error: Some("state:cl: no state is called cl") };
    let scene = Scene { status: prompt, ..scene(Body::Table(table())) };
    assert_screen("prompt-80x6", &scene, (80, 6));
    assert_screen("prompt-40x10", &scene, (40, 10));
}

#[test]
fn no_terminal_is_too_small() {
    let prompt = || Status::Prompt { before: "a long filter: ", after: "日本", error: Some("why") };
    for columns in (0..12).chain([13, 20, 39, 40, 79, 200]) {
        for lines in (0..8).chain([13, 14, 50]) {
            for body in [Body::Table(table()), Body::Table(Table::default()), page()] {
                drawn(&scene(body), (columns, lines));
            }
            drawn(&Scene { status: prompt(), ..scene(Body::Table(table())) }, (columns, lines));
            let message = Status::Message { text: "a message", tone: Tone::Alarm };
            drawn(&Scene { status: message, ..scene(page()) }, (columns, lines));
        }
    }
}

#[test]
fn what_changed_and_what_is_wrong_is_seen_with_and_without_colour() {
    for (color, changed, alarm) in [
        (
            true,
            Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        ),
        (
            false,
            Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        ),
    ] {
        let mut scene = scene(Body::Table(table()));
        scene.look.color = color;
        let Body::Table(table) = &mut scene.body else { unreachable!() };
        table.chosen = None;
        let buffer = drawn(&scene, (120, 20));
        let shows = |style: Style| {
            let cells = buffer.content().iter().filter(|cell| cell.symbol() != " ");
            let styled = cells.filter(|cell| {
                cell.style().fg.unwrap_or(Color::Reset) == style.fg.unwrap_or(Color::Reset)
                    && cell.style().add_modifier == style.add_modifier
            });
            styled.map(|cell| cell.symbol()).collect::<String>()
        };
        assert_eq!(shows(changed), "00", "color {color}");
        assert_eq!(shows(alarm), "CLOSE-WAIT", "color {color}");
    }
}
