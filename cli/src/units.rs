//! Numbers with units as people type them: sizes, times, rates.

use std::time::Duration;

const BINARY: [(&str, u64); 5] = [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];
const DECIMAL: [(&str, u64); 5] =
    [("", 1), ("k", 1_000), ("m", 1_000_000), ("g", 1_000_000_000), ("t", 1_000_000_000_000)];
/// Doubles count integers exactly up to here.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Splits `2.1us` into its number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some((number, unit.trim()))
}

/// `number * scale` rounded to an integer, if a double can count it.
fn scaled(number: f64, scale: f64) -> Option<u64> {
    let value = (number * scale).round();
    (value <= EXACT).then_some(value as u64)
}

/// Parses a size in bytes. `K`, `M`, `G`, `T` are binary as in nccl-tests, with or without `B` or `iB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is not a size; write bytes or K, M, G, T (powers of 1024): 8, 64K, 4MiB, 1G");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = unit.to_ascii_uppercase();
    let prefix = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let (_, scale) = BINARY.iter().find(|(name, _)| *name == prefix).ok_or_else(wrong)?;
    scaled(number, *scale as f64).ok_or_else(|| format!("'{text}' is too large a size"))
}

/// Parses a time into picoseconds: `2.1us`, `350ns`, `30s`, `10min`. A number alone is seconds.
pub(crate) fn parse_picoseconds(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is not a time; write it with ps, ns, us, ms, s or min: 350ns, 2.1us, 30s");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let scale = match unit {
        "ps" => 1.0,
        "ns" => 1e3,
        "us" | "µs" => 1e6,
        "ms" => 1e9,
        "s" | "" => 1e12,
        "min" => 60e12,
        _ => return Err(wrong()),
    };
    scaled(number, scale).ok_or_else(|| format!("'{text}' is too long a time"))
}

/// Parses a time, see [`parse_picoseconds`].
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_picoseconds(text)? {
        0 => Err("a time limit of zero would fail every operation".into()),
        picoseconds => Ok(Duration::from_nanos(picoseconds.div_ceil(1000))),
    }
}

/// Parses a rate into bytes per second: `392GB/s` (powers of 1000), `40GiB/s` (powers of 1024), `400Gbit/s`.
pub(crate) fn parse_bytes_per_second(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a rate; write it like 392GB/s, 40GiB/s or 400Gbit/s");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = unit.strip_suffix("/s").or_else(|| unit.strip_suffix("ps")).unwrap_or(unit);
    let (prefix, table, bits): (&str, _, f64) = if let Some(prefix) = unit.strip_suffix("iB") {
        (prefix, &BINARY, 1.0)
    } else if let Some(prefix) = unit.strip_suffix("bit").or_else(|| unit.strip_suffix('b')) {
        (prefix, &DECIMAL, 8.0)
    } else {
        (unit.strip_suffix('B').ok_or_else(wrong)?, &DECIMAL, 1.0)
    };
    let known = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(prefix));
    let (_, scale) = known.ok_or_else(wrong)?;
    match scaled(number, *scale as f64 / bits) {
        Some(0) => Err(format!("'{text}': a link without bandwidth never finishes")),
        Some(rate) => Ok(rate),
        None => Err(format!("'{text}' is too high a rate")),
    }
}

/// A size for people: `64 MiB`, `8 B`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let names = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    if value.fract() == 0.0 {
        format!("{value} {}", names[power])
    } else {
        format!("{value:.1} {}", names[power])
    }
}

/// A time for people: `1.296 us`.
pub(crate) fn show_picoseconds(ps: u64) -> String {
    let (per_unit, unit) = match ps {
        0..1_000 => (1.0, "ps"),
        1_000..1_000_000 => (1e3, "ns"),
        1_000_000..1_000_000_000 => (1e6, "us"),
        1_000_000_000..1_000_000_000_000 => (1e9, "ms"),
        _ => (1e12, "s"),
    };
    format!("{} {unit}", short(ps as f64 / per_unit))
}

/// A rate for people, in powers of 1000: `274 GB/s`.
pub(crate) fn show_bytes_per_second(rate: u64) -> String {
    let power = (rate.max(1).ilog10() / 3).min(4);
    let unit = ["B", "kB", "MB", "GB", "TB"][power as usize];
    format!("{} {unit}/s", short(rate as f64 / 1000_f64.powi(power as i32)))
}

/// At most three decimals, none that is not needed.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_short() {
        let times =
            [0, 999, 1_000, 1_296_262, 2_100_000, 12_345_678_901, 3_000_000_000_000].map(show_picoseconds);
        assert_eq!(times, ["0 ps", "999 ps", "1 ns", "1.296 us", "2.1 us", "12.346 ms", "3 s"]);
        let rates = [0, 7, 1_500, 274_000_000_000, 392_125_000_000].map(show_bytes_per_second);
        assert_eq!(rates, ["0 B/s", "7 B/s", "1.5 kB/s", "274 GB/s", "392.125 GB/s"]);
    }

    #[test]
    fn sizes_are_binary_with_every_spelling() {
        let cases = [
            ("8", 8),
            ("64K", 65536),
            ("64k", 65536),
            ("64KiB", 65536),
            ("64KB", 65536),
            ("1.5M", 1572864),
            ("5G", 5 << 30),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "8X", "-1", "1.2.3", "99999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_exact_to_the_picosecond() {
        let cases = [
            ("2.1us", 2_100_000),
            ("350ns", 350_000),
            ("7ps", 7),
            ("3", 3_000_000_000_000),
            ("0.2µs", 200_000),
        ];
        for (text, picoseconds) in cases {
            assert_eq!(parse_picoseconds(text), Ok(picoseconds), "{text}");
        }
        assert!(parse_picoseconds("2 lightyears").unwrap_err().contains("ns"));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert!(parse_duration("0s").is_err());
    }

    #[test]
    fn rates_tell_bytes_from_bits_and_decimal_from_binary() {
        let cases = [
            ("392GB/s", 392_000_000_000),
            ("1GiB/s", 1 << 30),
            ("400Gbit/s", 50_000_000_000),
            ("400Gb/s", 50_000_000_000),
            ("12.5MB/s", 12_500_000),
            ("100Gbps", 12_500_000_000),
        ];
        for (text, rate) in cases {
            assert_eq!(parse_bytes_per_second(text), Ok(rate), "{text}");
        }
        for text in ["392", "GB/s", "0GB/s", "3 parsecs"] {
            assert!(parse_bytes_per_second(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        assert_eq!(show_bytes(8), "8 B");
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(64 << 20), "64 MiB");
        assert_eq!(show_bytes(1536), "1.5 KiB");
    }
}
