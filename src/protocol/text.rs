//! Numbers as text, by Java's rules, without allocation.

/// Appends a decimal number.
pub fn write_decimal(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends bytes as upper-case hexadecimal digits (`UtilAll.bytes2string`).
pub fn write_hex_upper(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(UPPER_HEX[usize::from(byte >> 4)]);
        out.push(UPPER_HEX[usize::from(byte & 15)]);
    }
}

/// Value of one hexadecimal digit of either case.
pub const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Parses as `Long.parseLong` does: an optional sign, then decimal digits only; overflow is a failure.
pub fn parse_i64(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    if digits.len() <= 18 {
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + i64::from(digit);
        }
        return Some(if negative { -value } else { value });
    }
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Counts downwards, because i64::MIN has no positive counterpart.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Parses as `Integer.parseInt` does.
pub fn parse_i32(text: &str) -> Option<i32> {
    i32::try_from(parse_i64(text)?).ok()
}

/// Parses as `Boolean.parseBoolean` does: `true` in any case is true, everything else is false.
pub fn parse_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers survive the round trip and strictness is Java's. Method: extremes, signs, overflow and junk.
    #[test]
    fn numbers_follow_java() {
        for value in [0, 1, -1, 10, 479, i64::MAX, i64::MIN, 1_700_000_000_000, -999_999_999_999_999_999] {
            let mut out = Vec::new();
            write_decimal(&mut out, value);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, value.to_string());
            assert_eq!(parse_i64(&text), Some(value));
        }
        assert_eq!(parse_i64("+7"), Some(7));
        assert_eq!(parse_i64("000000000000000000000000012"), Some(12));
        for bad in ["", "-", "+", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "--1"] {
            assert_eq!(parse_i64(bad), None, "{bad:?}");
        }
        assert_eq!(parse_i32("2147483647"), Some(i32::MAX));
        assert_eq!(parse_i32("2147483648"), None);
        assert!(parse_bool("TrUe") && !parse_bool("1") && !parse_bool("") && !parse_bool("yes"));
    }
}
