//! Sets of processors as the kernel writes them: lists such as `0-3,8`, and masks of hexadecimal words.

/// Greatest processor number that is accepted.
const MAX_CPU: usize = 8191;

/// Numbers of a list such as `0-3,8`, ascending. `None` if it is none. An empty text is an empty list.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// The shortest list of these ascending numbers.
pub fn format_list(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let show =
        |(first, last): (usize, usize)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    parts.into_iter().map(show).collect::<Vec<_>>().join(",")
}

/// Numbers of a mask such as `00000001,ffffffff`, ascending. `None` if it is none.
pub fn parse_mask(text: &str) -> Option<Vec<usize>> {
    let digits: String = text.trim().chars().filter(|digit| *digit != ',').collect();
    if digits.is_empty() || digits.len() * 4 > MAX_CPU {
        return None;
    }
    let mut numbers = Vec::new();
    for (place, digit) in digits.chars().rev().enumerate() {
        let bits = digit.to_digit(16)?;
        numbers.extend((0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| place * 4 + bit));
    }
    Some(numbers)
}

/// The mask of these numbers: words of 32 bits, greatest first, without leading zeros.
pub fn format_mask(numbers: &[usize]) -> String {
    let words = numbers.iter().max().map_or(1, |greatest| greatest / 32 + 1);
    let mut mask = vec![0u32; words];
    for &number in numbers {
        mask[words - 1 - number / 32] |= 1 << (number % 32);
    }
    let rest: String = mask[1..].iter().map(|word| format!(",{word:08x}")).collect();
    format!("{:x}{rest}", mask[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        // Goal: the kernel's lists survive a round trip. Method: known lists, and texts that are none.
        for (text, numbers) in [("", vec![]), ("0", vec![0]), ("0-2,5,7-8", vec![0, 1, 2, 5, 7, 8])] {
            assert_eq!(parse_list(text).as_deref(), Some(&numbers[..]));
            assert_eq!(format_list(&numbers), text);
        }
        assert_eq!(parse_list("3,1-2\n").as_deref(), Some(&[1, 2, 3][..]));
        for text in ["a", "3-1", "1-", "0-99999999"] {
            assert_eq!(parse_list(text), None, "{text}");
        }
    }

    #[test]
    fn masks() {
        // Goal: masks mean what the kernel means. Method: known masks in both directions, padding, texts that are none.
        for (text, numbers) in [("0", vec![]), ("3", vec![0, 1]), ("1,00000000", vec![32]), ("80000000", vec![31])] {
            assert_eq!(parse_mask(text).as_deref(), Some(&numbers[..]));
            assert_eq!(format_mask(&numbers), text);
        }
        assert_eq!(parse_mask("00000000,0000000f\n").as_deref(), Some(&[0, 1, 2, 3][..]));
        assert_eq!((parse_mask("x"), parse_mask("")), (None, None));
    }
}
