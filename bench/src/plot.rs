//! Bars as SVG: one panel below the other, a bar for each server, the value beside it. Colours suit light and dark
//! pages, and the text takes the reader's own font.

use std::fmt::Write as _;

/// One chart among those of a picture.
#[derive(Debug)]
pub struct Panel {
    /// What is shown, with its unit.
    pub title: String,
    /// Each bar's name, value and colour, from the top.
    pub bars: Vec<Bar>,
}

/// One server's value.
#[derive(Debug)]
pub struct Bar {
    /// The server.
    pub name: String,
    /// How long the bar is.
    pub value: f64,
    /// What it stands for.
    pub role: Role,
}

/// What a bar stands for: gives it its colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Written by hand for one purpose.
    Limit,
    /// towpath.
    Own,
    /// Anybody else.
    Peer,
}

const WIDTH: f64 = 760.0;
const NAMES: f64 = 210.0;
const VALUES: f64 = 80.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 34.0;

/// The panels as one picture.
pub fn svg(panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|panel| HEAD + LINE * panel.bars.len() as f64).sum::<f64>() + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#888\">\n"
    );
    let mut y = 0.0;
    for panel in panels {
        let _ =
            writeln!(text, "<text x=\"4\" y=\"{}\" font-weight=\"bold\">{}</text>", y + 22.0, escaped(&panel.title));
        y += HEAD;
        let most = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &panel.bars {
            let length = (WIDTH - NAMES - VALUES) * bar.value / most;
            let colour = match bar.role {
                Role::Limit => "#9aa5b1",
                Role::Own => "#d9622b",
                Role::Peer => "#4a90c2",
            };
            let base = y + 15.0;
            let name = escaped(&bar.name);
            let _ = writeln!(text, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text>", NAMES - 8.0);
            let _ = writeln!(
                text,
                "<rect x=\"{NAMES}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                y + 2.0,
                LINE - 5.0
            );
            let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{base}\">{}</text>", NAMES + length + 6.0, short(bar.value));
            y += LINE;
        }
    }
    text.push_str("</svg>\n");
    text
}

/// Three digits that mean something, and thousands apart.
fn short(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => {
            let digits = format!("{v:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_has_the_longest_bar_and_all_are_named() {
        let bar = |name: &str, value| Bar { name: name.into(), value, role: Role::Peer };
        let text = svg(&[Panel { title: "a < b".into(), bars: vec![bar("half", 500.0), bar("whole", 1000.0)] }]);
        assert!(text.contains("width=\"235.0\""), "{text}");
        assert!(text.contains("width=\"470.0\""), "{text}");
        for part in ["a &lt; b", ">half<", ">1,000<"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["1.23", "45.7", "789", "12,346", "1,234,568"],
            [1.234, 45.67, 789.1, 12_345.6, 1_234_567.8].map(short).map(String::leak)
        );
    }
}
