//! Numbers as text, by Java's rules, without allocation.

/// Longest decimal number, its sign included.
pub(crate) const DECIMAL_CHARACTERS: usize = 20;

/// The numbers from 0 to 99, two digits each.
const DIGIT_PAIRS: &[u8; 200] =
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546\
4748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// Writes a decimal number to the end of `space` and gives where it begins.
#[inline]
pub(crate) fn decimal_at_end(space: &mut [u8; DECIMAL_CHARACTERS], value: i64) -> usize {
    let mut at = space.len();
    let mut rest = value.unsigned_abs();
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        space[at..at + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        at -= 2;
        space[at..at + 2].copy_from_slice(&DIGIT_PAIRS[rest as usize * 2..][..2]);
    } else {
        at -= 1;
        space[at] = b'0' + rest as u8;
    }
    if value < 0 {
        at -= 1;
        space[at] = b'-';
    }
    at
}

/// Appends a decimal number.
pub fn write_decimal(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0; DECIMAL_CHARACTERS];
    let start = decimal_at_end(&mut digits, value);
    out.extend_from_slice(&digits[start..]);
}

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends bytes as upper-case hexadecimal digits (`UtilAll.bytes2string`).
pub fn write_hex_upper(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend_from_slice(&hex_upper(*byte));
    }
}

/// The two upper-case hexadecimal digits of a byte.
#[inline]
pub(crate) fn hex_upper(byte: u8) -> [u8; 2] {
    [UPPER_HEX[usize::from(byte >> 4)], UPPER_HEX[usize::from(byte & 15)]]
}

/// Writes a number as sixteen upper-case hexadecimal digits.
#[inline]
pub(crate) fn hex_upper_of(value: i64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(value.to_be_bytes()) {
        *pair = hex_upper(byte);
    }
    digits
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
