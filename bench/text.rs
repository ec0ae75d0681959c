//! Text for terminals that are as wide as most are.

/// Columns of a line.
const COLUMNS: usize = 100;

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
