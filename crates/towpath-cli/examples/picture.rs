//! What a terminal shows as a picture: text with escapes on stdin, SVG on stdout. `docs/pictures/make` makes the README's
//! pictures with it.
//!
//! The picture has a background of its own, and so is legible on a light page and on a dark one.

#![forbid(unsafe_code)]

use std::io::{self, Read as _};

use anstyle::RgbColor;
use anstyle_svg::{Term, WIN10_CONSOLE};

fn main() -> io::Result<()> {
    let mut screen = String::new();
    io::stdin().read_to_string(&mut screen)?;
    let term = Term::new()
        .palette(WIN10_CONSOLE)
        .fg_color(RgbColor(0xd8, 0xd8, 0xd8).into())
        .bg_color(RgbColor(0x1c, 0x1e, 0x22).into())
        .min_width_px(0);
    let picture = term.render_svg(screen.trim_end());
    // Opacity as such is for whole texts, and some programs ignore it in parts of one.
    print!("{}", picture.replace(".dimmed { opacity: 0.4; }", ".dimmed { fill-opacity: 0.6; }"));
    Ok(())
}
