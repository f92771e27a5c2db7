//! The name before each log line of the demo, so that five programs can share one screen.

use std::io::IsTerminal;

/// ANSI foreground colours, told apart on dark and on light ground.
const COLOURS: [u8; 5] = [36, 32, 33, 35, 34];

/// Puts a name before lines.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    text: String,
}

impl Prefix {
    /// The prefix of the program that was started as number `index`, wide enough for names of `width` characters.
    pub(crate) fn new(name: &str, index: usize, width: usize, coloured: bool) -> Self {
        let colour = COLOURS[index % COLOURS.len()];
        let text =
            if coloured { format!("\x1b[{colour}m{name:width$} |\x1b[0m ") } else { format!("{name:width$} | ") };
        Self { text }
    }

    pub(crate) fn line(&self, line: &str) -> String {
        format!("{}{line}", self.text)
    }
}

/// Colours belong on a terminal, unless its owner does not want them (no-color.org: set and not empty).
pub(crate) fn wants_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_up_and_colour_ends_before_the_text() {
        assert_eq!(Prefix::new("beta", 1, 6, false).line("hello"), "beta   | hello");
        assert_eq!(Prefix::new("beta", 1, 6, true).line("hello"), "\x1b[32mbeta   |\x1b[0m hello");
    }

    #[test]
    fn there_is_a_colour_for_any_number_of_programs() {
        assert_eq!(Prefix::new("x", 7, 1, true).line(""), Prefix::new("x", 2, 1, true).line(""));
    }
}
