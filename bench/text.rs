//! Text for terminals that are as wide as most are, and for pipes that may be closed.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns of a line.
const COLUMNS: usize = 100;

/// Whether standard output could not be written for another reason than that nobody reads it.
static IS_OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard output. Where its reader has gone (`| head`) the rest is for nobody, which ends no command: what is
/// measured is in its files.
pub fn tell(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}")
        && error.kind() != ErrorKind::BrokenPipe
        && !IS_OUTPUT_LOST.swap(true, Ordering::Relaxed)
    {
        crate::runner::note(&format!("error: standard output: {error}"));
    }
}

/// Whether something that was told is lost although somebody waits for it.
pub fn is_output_lost() -> bool {
    IS_OUTPUT_LOST.load(Ordering::Relaxed)
}

/// `head` and then `text`, broken between words; further lines begin under the column where `text` began, or two columns in if `head` is
/// long. A word that is longer than a line stays whole.
pub fn wrapped(head: &str, text: &str) -> String {
    let head_columns = head.chars().count();
    let indent = if head_columns <= COLUMNS * 2 / 3 { head_columns } else { 2 };
    let (mut out, mut column, mut is_first) = (head.to_owned(), head_columns, true);
    for word in text.split_whitespace() {
        let columns = word.chars().count();
        if is_first {
            is_first = false;
        } else if column + 1 + columns > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += columns;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: lines end within their columns, no word is lost, and what follows stands under what it belongs to. Method: a long
    /// sentence behind a short and a long head, a word without end, nothing.
    #[test]
    fn lines_are_short() {
        let sentence = "a word and another word ".repeat(20);
        let text = wrapped("name:  ", &sentence);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(
            text.lines().skip(1).all(|line| line.starts_with("       ") && !line.starts_with("        ")),
            "{text}"
        );
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&text)[1..], words(&sentence));
        let long = wrapped(&"x".repeat(90), &sentence);
        assert!(long.lines().skip(1).all(|line| line.starts_with("  a") || line.starts_with("  w")), "{long}");
        assert_eq!(wrapped("a ", &"x".repeat(200)), format!("a {}", "x".repeat(200)));
        assert_eq!(wrapped("a", ""), "a");
    }
}
