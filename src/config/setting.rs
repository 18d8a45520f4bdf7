//! One entry of the table: names, type, range, and how its value is read, shown and checked.

use super::Config;
use std::time::Duration;
use ubccl_core::{Error, Result};

/// Something that can be set: an entry of [`SETTINGS`](super::settings::SETTINGS).
#[derive(Debug)]
pub struct Setting {
    /// Its key in a configuration file, and its name in listings and arguments.
    pub name: &'static str,
    /// Its environment variable: `UBCCL_` and the name in capitals.
    pub variable: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What happens while it has no value; empty if it always has one.
    pub absent: &'static str,
    /// Whether ranks may differ in it.
    pub agreement: Agreement,
    /// Where it may be given.
    pub place: Place,
    /// Whether its value may be shown.
    pub is_secret: bool,
    pub(super) domain: Domain,
}

/// Whether ranks may differ in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Each rank may have its own value.
    Own,
    /// All ranks must have the same value, or the start fails naming two of them.
    Same,
    /// The same, because plans depend on it.
    Plans,
}

/// Where a setting may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As an argument, in the environment or in a file.
    Anywhere,
    /// As an argument or in the environment, by whoever starts the ranks: it belongs to one job or one rank.
    Launcher,
}

/// The values a setting may have, and which field of the configuration it is.
#[derive(Debug)]
pub(super) enum Domain {
    /// A text of this form.
    Text { form: &'static str, get: fn(&Config) -> Option<String>, set: fn(&mut Config, &str) -> Result<()> },
    /// A whole number.
    Number { least: u64, most: u64, get: fn(&Config) -> u64, set: fn(&mut Config, u64) },
    /// Bytes; K, M and G are powers of 1024.
    Bytes { least: u64, most: u64, get: fn(&Config) -> Option<u64>, set: fn(&mut Config, u64) },
    /// Yes or no.
    Switch { get: fn(&Config) -> bool, set: fn(&mut Config, bool) },
    /// A time; a number without a unit has this one.
    Time {
        unit: TimeUnit,
        least: Duration,
        most: Duration,
        get: fn(&Config) -> Option<Duration>,
        set: fn(&mut Config, Duration),
    },
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Microseconds,
    Seconds,
}

impl TimeUnit {
    fn name(self) -> &'static str {
        match self {
            TimeUnit::Microseconds => "us",
            TimeUnit::Seconds => "s",
        }
    }

    fn nanoseconds(self) -> u32 {
        match self {
            TimeUnit::Microseconds => 1_000,
            TimeUnit::Seconds => 1_000_000_000,
        }
    }

    /// `1800`, `0.3`: as many digits as it takes.
    fn show(self, time: Duration) -> String {
        let (whole, part) = (
            time.as_nanos() / u128::from(self.nanoseconds()),
            time.as_nanos() % u128::from(self.nanoseconds()),
        );
        let digits = self.nanoseconds().ilog10() as usize;
        let fraction = format!("{part:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
    }
}

impl Setting {
    /// What kind of value it takes.
    pub fn kind(&self) -> &'static str {
        match &self.domain {
            Domain::Text { .. } => "text",
            Domain::Number { .. } => "number",
            Domain::Bytes { .. } => "bytes",
            Domain::Time { .. } => "time",
            Domain::Switch { .. } => "switch",
        }
    }

    /// The unit of a number without one; empty if it has none.
    pub fn unit(&self) -> &'static str {
        match &self.domain {
            Domain::Text { .. } | Domain::Number { .. } | Domain::Switch { .. } => "",
            Domain::Bytes { .. } => "B",
            Domain::Time { unit, .. } => unit.name(),
        }
    }

    /// The values it may have.
    pub fn range(&self) -> String {
        match &self.domain {
            Domain::Text { form, .. } => (*form).to_owned(),
            Domain::Number { least, most, .. } | Domain::Bytes { least, most, .. } => {
                format!("{least} to {most}")
            }
            Domain::Time { unit, least, most, .. } => {
                format!("{} to {}", unit.show(*least), unit.show(*most))
            }
            Domain::Switch { .. } => "0 or 1".to_owned(),
        }
    }

    /// Its default as text, or what happens without a value.
    pub fn default_text(&self) -> String {
        self.show(&Config::default())
    }

    /// A configuration's value as text, in its unit; secrets masked.
    pub fn show(&self, config: &Config) -> String {
        let value = match &self.domain {
            Domain::Text { get, .. } => get(config),
            Domain::Number { get, .. } => Some(get(config).to_string()),
            Domain::Bytes { get, .. } => get(config).map(|bytes| bytes.to_string()),
            Domain::Switch { get, .. } => Some(u8::from(get(config)).to_string()),
            Domain::Time { unit, get, .. } => get(config).map(|time| unit.show(time)),
        };
        value.unwrap_or_else(|| self.absent.to_owned())
    }

    /// Whether a file may give it.
    pub fn is_for_files(&self) -> bool {
        self.place == Place::Anywhere
    }

    /// Reads a value.
    pub(super) fn read(&self, config: &mut Config, text: &str) -> Result<()> {
        let outside = || Error::invalid(self.must_be());
        match &self.domain {
            Domain::Text { set, .. } => set(config, text)?,
            Domain::Number { least, most, set, .. } => {
                let number = text.parse().map_err(|_| Error::invalid("it must be a whole number"))?;
                set(config, within(least, most, number).ok_or_else(outside)?);
            }
            Domain::Bytes { least, most, set, .. } => {
                set(config, within(least, most, parse_bytes(text)?).ok_or_else(outside)?);
            }
            Domain::Switch { set, .. } => set(config, parse_switch(text).ok_or_else(outside)?),
            Domain::Time { unit, least, most, set, .. } => {
                set(config, within(least, most, parse_time(text, *unit)?).ok_or_else(outside)?);
            }
        }
        Ok(())
    }

    /// Whether a configuration's value is in range; if not, what would be.
    pub(super) fn check(&self, config: &Config) -> Result<(), String> {
        let is_inside = match &self.domain {
            Domain::Text { get, set, .. } => {
                // A text is what its reader takes; a secret was checked when it was read.
                return match get(config).filter(|_| !self.is_secret) {
                    Some(text) => {
                        set(&mut Config::default(), &text).map_err(|error| error.message().to_owned())
                    }
                    None => Ok(()),
                };
            }
            Domain::Number { least, most, get, .. } => within(least, most, get(config)).is_some(),
            Domain::Bytes { least, most, get, .. } => {
                get(config).is_none_or(|bytes| within(least, most, bytes).is_some())
            }
            Domain::Switch { .. } => true,
            Domain::Time { least, most, get, .. } => {
                get(config).is_none_or(|time| within(least, most, time).is_some())
            }
        };
        if is_inside { Ok(()) } else { Err(self.must_be()) }
    }

    fn must_be(&self) -> String {
        let unit = self.unit();
        format!("it must be {}{}{unit}", self.range(), if unit.is_empty() { "" } else { " " })
    }
}

fn within<T: PartialOrd>(least: &T, most: &T, value: T) -> Option<T> {
    (least..=most).contains(&&value).then_some(value)
}

/// `1`, `true`, `yes`, `on`, and their opposites.
fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// `262144`, `256K`, `256KiB`, `1.5M`.
fn parse_bytes(text: &str) -> Result<u64> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => {
            return Err(Error::invalid(
                "it must be a size such as 262144 or 256K (K, M and G are powers of 1024)",
            ));
        }
    };
    scaled(number, 1 << shift)
        .ok_or_else(|| Error::invalid("it must be a whole number of bytes such as 262144 or 256K"))
}

/// `30`, `0.5`, `300ms`, `10 min`.
fn parse_time(text: &str, unit: TimeUnit) -> Result<Duration> {
    let (number, name) = split(text);
    let nanoseconds = match name {
        "" => u64::from(unit.nanoseconds()),
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(Error::invalid("it must be a time such as 30s; units are us, ms, s, min and h")),
    };
    let told = || {
        Error::invalid(format!(
            "it must be a time: a number of {}, or with a unit, such as 300ms",
            unit.name()
        ))
    };
    scaled(number, nanoseconds).map(Duration::from_nanos).ok_or_else(told)
}

/// A number and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// A decimal number times `scale`, if that is whole and fits.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
    let rest = match fraction.trim_end_matches('0') {
        "" => 0,
        digits => {
            let power = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
            let product = digits.parse::<u64>().ok().map(u128::from)? * u128::from(scale);
            if product % power != 0 {
                return None;
            }
            u64::try_from(product / power).ok()?
        }
    };
    whole.checked_mul(scale)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [("0", 0), ("7", 7), ("256K", 256 << 10), ("1.5 MiB", 3 << 19), ("2gb", 2 << 30)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "K", "-1", "1.3", "1e3", "9T", "99999999999G", "."] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_are_words_or_digits() {
        assert_eq!(["1", "TRUE", "yes", "on"].map(parse_switch), [Some(true); 4]);
        assert_eq!(["0", "false", "No", "off"].map(parse_switch), [Some(false); 4]);
        assert_eq!(["2", "", "maybe"].map(parse_switch), [None; 3]);
    }

    #[test]
    fn times_have_the_settings_unit_or_their_own() {
        use TimeUnit::{Microseconds, Seconds};
        for (text, unit, nanoseconds) in [
            ("5", Seconds, 5_000_000_000_u64),
            ("0.3", Seconds, 300_000_000),
            (".5", Microseconds, 500),
            ("20", Microseconds, 20_000),
            ("20 ms", Microseconds, 20_000_000),
            ("10min", Seconds, 600_000_000_000),
        ] {
            assert_eq!(parse_time(text, unit).unwrap(), Duration::from_nanos(nanoseconds), "{text}");
        }
        for text in ["", "s", "-1", "1 parsec", "soon", "1e9", "99999999999999h"] {
            assert!(parse_time(text, Seconds).is_err(), "{text}");
        }
        assert_eq!(Seconds.show(Duration::from_millis(300)), "0.3");
        assert_eq!(Microseconds.show(Duration::from_secs(1)), "1000000");
    }
}
