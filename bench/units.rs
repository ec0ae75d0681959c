//! Numbers for people: durations, rates, sizes and ratios, with significant digits and their unit.

/// Three significant digits, two below 0.1 and four decimals at most, no exponent.
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else if magnitude >= 0.1 || magnitude == 0.0 {
        format!("{value:.2}")
    } else if magnitude >= 0.01 {
        format!("{value:.3}")
    } else {
        format!("{value:.4}")
    }
}

/// A duration, in the largest unit that keeps it at 1 or above.
pub fn duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        value if value < 1e3 => (value, "ns"),
        value if value < 1e6 => (value / 1e3, "µs"),
        value if value < 1e9 => (value / 1e6, "ms"),
        value => (value / 1e9, "s"),
    };
    format!("{} {unit}", if unit == "ns" { format!("{value:.0}") } else { significant(value) })
}

/// A duration of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn nanoseconds(value: u64) -> String {
    duration(value as f64)
}

/// A count or rate: whole numbers with thin groups of three digits.
pub fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < -0.5 { format!("−{text}") } else { text }
}

/// A short rate for axes: `12k`, `1.5M`.
pub fn short_count(value: f64) -> String {
    let short = |value: f64, suffix: &str| {
        let text = if value.fract().abs() < 0.05 { format!("{value:.0}") } else { format!("{value:.1}") };
        text + suffix
    };
    match value {
        value if value >= 1e6 => short(value / 1e6, "M"),
        value if value >= 1e3 => short(value / 1e3, "k"),
        value => short(value, ""),
    }
}

/// Bytes in the binary units.
pub fn bytes(value: f64) -> String {
    match value {
        value if value >= 1_073_741_824.0 => format!("{} GiB", significant(value / 1_073_741_824.0)),
        value if value >= 1_048_576.0 => format!("{} MiB", significant(value / 1_048_576.0)),
        value if value >= 1024.0 => format!("{} KiB", significant(value / 1024.0)),
        value => format!("{value:.0} B"),
    }
}

/// Bytes in the decimal units, for what is set in them: backlogs and memories.
pub fn decimal_bytes(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{} GB", significant(value / 1e9)),
        value if value >= 1e6 => format!("{} MB", significant(value / 1e6)),
        value if value >= 1e3 => format!("{} kB", significant(value / 1e3)),
        value => format!("{value:.0} B"),
    }
}

/// A ratio such as `1.27×`.
pub fn ratio(value: f64) -> String {
    significant(value) + "×"
}

/// A share of 0 to 1 in percent.
pub fn percent(share: f64) -> String {
    significant(share * 100.0) + " %"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: units change where they should and digits stay three. Method: values around the borders.
    #[test]
    fn numbers_for_people() {
        assert_eq!(nanoseconds(999), "999 ns");
        assert_eq!(nanoseconds(1_234), "1.23 µs");
        assert_eq!(nanoseconds(56_789_000), "56.8 ms");
        assert_eq!(nanoseconds(2_000_000_000), "2.00 s");
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(count(12.0), "12");
        assert_eq!(short_count(1500.0), "1.5k");
        assert_eq!(short_count(2_000_000.0), "2M");
        assert_eq!(bytes(67_108_864.0), "64.0 MiB");
        assert_eq!(ratio(1.2749), "1.27×");
        assert_eq!(significant(f64::NAN), "–");
        assert_eq!([0.0, 0.5, 0.0153, 0.00345].map(significant), ["0.00", "0.50", "0.015", "0.0034"]);
    }
}
