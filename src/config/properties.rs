//! Java's properties format: `key=value` lines, `#` and `!` comments, `:` or blanks as separators, continuation lines
//! and `\uXXXX` escapes. Source: the documentation of `java.util.Properties.load`. Pure.

/// A line that is not of the format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PropertiesError {
    /// Line number from 1: where the (possibly continued) line begins.
    pub line: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// A key with its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    /// Line number from 1: where the (possibly continued) line begins.
    pub line: usize,
    /// Unescaped.
    pub key: String,
    /// Unescaped; empty without a separator.
    pub value: String,
}

/// As [`parse_lines`], without the places.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, PropertiesError> {
    Ok(parse_lines(text)?.into_iter().map(|pair| (pair.key, pair.value)).collect())
}

/// Reads pairs in the order of the text. Repeated keys are all returned.
pub fn parse_lines(text: &str) -> Result<Vec<Pair>, PropertiesError> {
    let mut pairs = Vec::new();
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = String::from(line);
        while ends_with_open_backslash(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let line = index + 1;
        let (key, value) = split(&logical).map_err(|problem| PropertiesError { line, problem })?;
        pairs.push(Pair { line, key, value });
    }
    Ok(pairs)
}

/// Writes one pair so that [`parse`] and Java read it back, without the line end.
pub fn line(key: &str, value: &str) -> String {
    let mut text = String::with_capacity(key.len() + value.len() + 1);
    for letter in key.chars() {
        escape(letter, matches!(letter, ' ' | '=' | ':' | '#' | '!'), &mut text);
    }
    text.push('=');
    for (index, letter) in value.chars().enumerate() {
        escape(letter, index == 0 && letter == ' ', &mut text);
    }
    text
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\x0c')
}

fn ends_with_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> Result<(String, String), &'static str> {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, letter)| {
        let separates = !escaped && (is_blank(*letter) || matches!(letter, '=' | ':'));
        escaped = *letter == '\\' && !escaped;
        separates
    });
    let end = end.map_or(line.len(), |(index, _)| index);
    let rest = line[end..].trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    Ok((unescape(&line[..end])?, unescape(value)?))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut buffer = [0; 2];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            units.extend_from_slice(letter.encode_utf16(&mut buffer));
            continue;
        }
        match letters.next() {
            Some('u') => {
                let digits: String = letters.by_ref().take(4).collect();
                let valid = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let unit = if valid { u16::from_str_radix(&digits, 16).ok() } else { None };
                units.push(unit.ok_or("\\u is not followed by four hexadecimal digits")?);
            }
            Some('t') => units.push(u16::from(b'\t')),
            Some('n') => units.push(u16::from(b'\n')),
            Some('r') => units.push(u16::from(b'\r')),
            Some('f') => units.push(0x0c),
            Some(other) => units.extend_from_slice(other.encode_utf16(&mut buffer)),
            None => {}
        }
    }
    String::from_utf16(&units).map_err(|_| "\\u escapes do not form a character")
}

fn escape(letter: char, with_backslash: bool, text: &mut String) {
    match letter {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0c' => text.push_str("\\f"),
        _ if with_backslash => text.extend(['\\', letter]),
        _ if letter.is_ascii() && !letter.is_ascii_control() => text.push(letter),
        _ => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04X}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn reads_everything_that_java_reads() {
        // Goal: a broker.conf means here what it means to Java. Method: one text with every feature of the format.
        let text = "# comment\n! comment\n\n  a=1\nb : 2\r\nc 3\nd\t=\t4 \n \
                    e = x\\\n    y\\\\\nf\nke\\=y=va\\:l=ue\nu=\\u00e9\\uD83D\\uDE00\ng=\\t\\q\nh=tail\\";
        let expected = [
            pair("a", "1"),
            pair("b", "2"),
            pair("c", "3"),
            pair("d", "4 "),
            pair("e", "xy\\"),
            pair("f", ""),
            pair("ke=y", "va:l=ue"),
            pair("u", "é😀"),
            pair("g", "\tq"),
            pair("h", "tail"),
        ];
        assert_eq!(parse(text).as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn refuses_broken_escapes_with_their_line() {
        // Goal: an unreadable line is named. Method: bad digits, too few of them, half a pair of surrogates.
        for bad in ["\\u00g0", "\\u12", "\\uD83D", "\\u+123"] {
            let error = parse(&format!("a=1\n\nb={bad}")).expect_err(bad);
            assert_eq!(error.line, 3);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        // Goal: live changes survive a restart. Method: write and read awkward pairs.
        for (key, value) in [("a", " b "), ("k e:y", "C:\\x\ty"), ("ü", "é😀\n#"), ("#x", "!y"), ("empty", "")] {
            let line = line(key, value);
            assert!(line.is_ascii());
            assert_eq!(parse(&line).as_deref(), Ok(&[pair(key, value)][..]), "{line}");
        }
    }
}
