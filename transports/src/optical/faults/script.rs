//! What goes wrong and when, in TOML: written out, or drawn from a seed.
//!
//! ```toml
//! seed = 7                  # draws one to six faults,
//! within_ps = 1_000_000_000 # all of which begin before then
//!
//! [[fault]]
//! kind = "link-flap"        # what
//! rank = 3                  # whose ports; without it, all ranks'
//! at_ps = 5_000_000         # when it begins, from the world's beginning
//! for_ps = 2_000_000        # how long it lasts; without it, to the end
//! retrain_ps = 1_000_000    # further keys, by kind: see `KINDS`
//! ```

mod draw;

use super::timeline::WHOLE;
use serde::Deserialize;
use ubccl_core::topology::{Link, parse_toml};
use ubccl_core::{Error, Rank, Result};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// All ranks if none.
    pub(super) rank: Option<Rank>,
    pub(super) from_ps: u64,
    /// `u64::MAX` if it never ends.
    pub(super) until_ps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Ports pass a share of their rate, in 2⁻³² parts.
    Slow {
        share: u64,
        what: &'static str,
    },
    /// Nothing passes, and for so long after it.
    Flap {
        retrain_ps: u64,
    },
    BitErrors {
        one_in_bytes: u64,
        retrain_ps: u64,
    },
    /// The rank stands still.
    Pause,
    Death,
}

impl FaultKind {
    /// Whether links inside the machine have it too, if it is one of all ranks.
    pub(super) fn is_inside(self) -> bool {
        matches!(self, FaultKind::Slow { what: "plane-loss", .. } | FaultKind::Flap { .. })
    }

    /// The share of their rate that ports pass, and for how long after the fault's end.
    pub(super) fn share(self) -> Option<(u64, u64)> {
        match self {
            FaultKind::Slow { share, .. } => Some((share, 0)),
            FaultKind::Flap { retrain_ps } => Some((0, retrain_ps)),
            _ => None,
        }
    }
}

impl Fault {
    /// What it is, without where and when.
    pub(super) fn text(&self) -> String {
        match self.kind {
            FaultKind::Slow { share, what } => {
                format!("{what}: ports at {:.4} % of their rate", 100.0 * share as f64 / WHOLE as f64)
            }
            FaultKind::Flap { retrain_ps } => format!("link-flap: down, then {retrain_ps} ps of training"),
            FaultKind::BitErrors { one_in_bytes, .. } => format!("bit-errors: one in {one_in_bytes} bytes"),
            FaultKind::Pause => "pause: the rank stands still".to_owned(),
            FaultKind::Death => "death".to_owned(),
        }
    }

    /// With where and when.
    pub(super) fn describe(&self) -> String {
        let rank = self.rank.map_or("all ranks".to_owned(), |rank| format!("rank {rank}"));
        let until = match self.until_ps {
            u64::MAX => String::new(),
            until_ps => format!(" to {until_ps}"),
        };
        format!("{rank}, from {}{until} ps, {}", self.from_ps, self.text())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    seed: Option<u64>,
    within_ps: Option<u64>,
    #[serde(default)]
    fault: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: String,
    rank: Option<Rank>,
    at_ps: Option<u64>,
    for_ps: Option<u64>,
    lost: Option<u64>,
    of: Option<u64>,
    percent: Option<u64>,
    one_in_bytes: Option<u64>,
    retrain_ps: Option<u64>,
}

/// Kinds, and the further keys that each takes.
const KINDS: [(&str, &[&str]); 8] = [
    ("lane-loss", &["at_ps", "for_ps", "lost", "of"]),
    ("plane-loss", &["at_ps", "for_ps", "lost", "of"]),
    ("slow-port", &["at_ps", "for_ps", "percent"]),
    ("link-flap", &["at_ps", "for_ps", "retrain_ps"]),
    ("bit-errors", &["at_ps", "for_ps", "one_in_bytes", "retrain_ps"]),
    ("pause", &["at_ps", "for_ps"]),
    ("skew", &["for_ps"]),
    ("death", &["at_ps"]),
];

/// What a link needs to train anew, unless said otherwise. Nobody has published one for these links; a PCI Express link
/// recovers within tens of microseconds.
const RETRAIN_PS: u64 = 10_000_000;
/// Faults that a seed draws begin before then, unless said otherwise: 1 ms.
const WITHIN_PS: u64 = 1_000_000_000;
/// A link with more errors than one in so many bytes would never come up.
const LEAST_BYTES: u64 = 1000;

/// Reads TOML text: the faults, and the seed of what is random in them.
///
/// Errors: InvalidArgument, naming the line and the key.
pub(super) fn parse(text: &str, ranks: u32, planes: Option<u32>, seed: u64) -> Result<(Vec<Fault>, u64)> {
    let script: Script = parse_toml("the faults", text)?;
    if script.within_ps.is_some() && script.seed.is_none() {
        return Err(Error::invalid("the faults: within_ps is for faults that a seed draws; give seed too"));
    }
    let within_ps = script.within_ps.unwrap_or(WITHIN_PS);
    if within_ps == 0 || within_ps > Link::MAX_TERM_PS {
        return Err(Error::invalid(format!("the faults: within_ps is 1 to {}", Link::MAX_TERM_PS)));
    }
    let mut faults = Vec::new();
    for (index, entry) in script.fault.iter().enumerate() {
        let world = World { ranks, planes, seed: script.seed.unwrap_or(seed) };
        let read = entry.faults(&world).map_err(|problem| {
            let line =
                text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("[[fault]]"));
            let line = line.map(|(line, _)| format!(", line {}", line + 1)).nth(index).unwrap_or_default();
            Error::invalid(format!("fault {} ({}{line}): {problem}", index + 1, entry.kind))
        });
        faults.extend(read?);
    }
    if let Some(seed) = script.seed {
        faults.extend(draw::faults(seed, ranks, within_ps));
    }
    Ok((faults, script.seed.unwrap_or(seed)))
}

/// What faults are checked against.
struct World {
    ranks: u32,
    planes: Option<u32>,
    seed: u64,
}

impl Entry {
    /// One fault; a skew of all ranks is one for each.
    fn faults(&self, world: &World) -> Result<Vec<Fault>, String> {
        let Some((_, takes)) = KINDS.iter().find(|row| row.0 == self.kind) else {
            let names: Vec<_> = KINDS.iter().map(|row| row.0).collect();
            return Err(format!("there is no such kind; there are: {}", names.join(", ")));
        };
        let given = [
            ("at_ps", self.at_ps),
            ("for_ps", self.for_ps),
            ("lost", self.lost),
            ("of", self.of),
            ("percent", self.percent),
            ("one_in_bytes", self.one_in_bytes),
            ("retrain_ps", self.retrain_ps),
        ];
        if let Some((key, _)) = given.iter().find(|(key, value)| value.is_some() && !takes.contains(key)) {
            return Err(format!("it has no key {key}; it takes kind, rank, {}", takes.join(", ")));
        }
        let is_long = |&(key, value): &(&str, Option<u64>)| {
            key.ends_with("_ps") && value.is_some_and(|ps| ps > Link::MAX_TERM_PS)
        };
        if let Some((key, _)) = given.iter().copied().find(|row| is_long(row)) {
            return Err(format!("{key} is over {} (1000 s)", Link::MAX_TERM_PS));
        }
        if let Some(rank) = self.rank.filter(|&rank| rank >= world.ranks) {
            return Err(format!("there is no rank {rank} among {}", world.ranks));
        }
        let kind = self.kind(world)?;
        let needs_end = matches!(kind, FaultKind::Pause | FaultKind::Flap { .. });
        if self.for_ps == Some(0) || needs_end && self.for_ps.is_none() {
            return Err(
                "for_ps is how long it lasts, 1 or more; a rank that never comes back is a death".into()
            );
        }
        if kind == FaultKind::Death && self.rank.is_none() {
            return Err("rank is missing: one that dies".into());
        }
        let (from_ps, for_ps) = (self.at_ps.unwrap_or(0), self.for_ps);
        let until_ps = for_ps.map_or(u64::MAX, |for_ps| from_ps + for_ps);
        let fault = Fault { kind, rank: self.rank, from_ps, until_ps };
        if self.kind == "skew" && self.rank.is_none() {
            let late_ps = |rank| mixed(world.seed ^ mixed(u64::from(rank))) % (until_ps + 1);
            let each = (0..world.ranks).map(|rank| (rank, late_ps(rank)));
            let late = each.filter(|&(_, until_ps)| until_ps > 0);
            return Ok(late.map(|(rank, until_ps)| Fault { rank: Some(rank), until_ps, ..fault }).collect());
        }
        Ok(vec![fault])
    }

    fn kind(&self, world: &World) -> Result<FaultKind, String> {
        let need = |key: &str, value: Option<u64>| value.ok_or_else(|| format!("{key} is missing"));
        let retrain_ps = self.retrain_ps.unwrap_or(RETRAIN_PS);
        Ok(match self.kind.as_str() {
            "lane-loss" => self.loss("lane-loss", need("of", self.of)?)?,
            "plane-loss" => {
                let told = self.of.or(world.planes.map(u64::from));
                let of = told.ok_or("of is missing, and the fabric does not say how many planes it has")?;
                self.loss("plane-loss", of)?
            }
            "slow-port" => {
                let percent = need("percent", self.percent)?;
                if !(1..100).contains(&percent) {
                    return Err(format!("percent is 1 to 99, not {percent}"));
                }
                FaultKind::Slow { share: share(percent, 100), what: "slow-port" }
            }
            "link-flap" => FaultKind::Flap { retrain_ps },
            "bit-errors" => {
                let one_in_bytes = need("one_in_bytes", self.one_in_bytes)?;
                if one_in_bytes < LEAST_BYTES {
                    return Err(format!(
                        "one_in_bytes is {LEAST_BYTES} or more: below, a link never comes up"
                    ));
                }
                FaultKind::BitErrors { one_in_bytes, retrain_ps }
            }
            "pause" | "skew" => FaultKind::Pause,
            _ => FaultKind::Death,
        })
    }

    fn loss(&self, what: &'static str, of: u64) -> Result<FaultKind, String> {
        let lost = self.lost.ok_or("lost is missing")?;
        if lost == 0 || lost >= of || of > u64::from(u16::MAX) {
            return Err(format!(
                "lost is 1 or more and less than of, not {lost} of {of}; all lost is a link-flap"
            ));
        }
        Ok(FaultKind::Slow { share: share(of - lost, of), what })
    }
}

/// A share in 2⁻³² parts, to the nearest.
fn share(part: u64, of: u64) -> u64 {
    (part * WHOLE + of / 2) / of
}

/// A well-mixed number (SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Fault>> {
        Ok(parse(text, 4, None, 0)?.0)
    }

    #[test]
    fn a_script_is_read() {
        let text = "[[fault]]\nkind = 'plane-loss'\nlost = 1\nof = 7\n[[fault]]\nkind = 'link-flap'\nrank = 3\nat_ps = 5\n
            for_ps = 10\nretrain_ps = 2\n[[fault]]\nkind = 'death'\nrank = 1\nat_ps = 9\n[[fault]]\nkind = 'skew'\n
            rank = 2\nfor_ps = 4";
        let faults = read(text).unwrap();
        let kind = FaultKind::Slow { share: 3_681_400_539, what: "plane-loss" };
        assert_eq!(faults[0], Fault { kind, rank: None, from_ps: 0, until_ps: u64::MAX });
        let kind = FaultKind::Flap { retrain_ps: 2 };
        assert_eq!(faults[1], Fault { kind, rank: Some(3), from_ps: 5, until_ps: 15 });
        assert_eq!((faults[2].kind, faults[3].kind), (FaultKind::Death, FaultKind::Pause));
        assert_eq!(faults[1].describe(), "rank 3, from 5 to 15 ps, link-flap: down, then 2 ps of training");
        assert!(faults[0].describe().starts_with("all ranks, from 0 ps, plane-loss: ports at 85.7143 %"));
        // Planes of the fabric, if it tells them.
        let planes = parse("[[fault]]\nkind = 'plane-loss'\nlost = 1", 4, Some(7), 0).unwrap();
        assert_eq!(planes.0[0].kind, faults[0].kind);
        // All ranks late: each by something else.
        let late = read("[[fault]]\nkind = 'skew'\nfor_ps = 1_000_000").unwrap();
        assert!(late.len() == 4 && late[0].until_ps != late[1].until_ps, "{late:?}");
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        for (text, part) in [
            (
                "[[fault]]\nkind = 'flood'",
                "fault 1 (flood, line 1): there is no such kind; there are: lane-loss,",
            ),
            ("[[fault]]\nkind = 'pause'\nfor_ps = 1\nrang = 2", "line 4: unknown field `rang`"),
            ("[[fault]]\nkind = 'pause'\nfor_ps = 1\nrang = 2", "did you mean `rank`?"),
            ("sead = 7", "did you mean `seed`?"),
            ("within_ps = 7", "give seed too"),
            ("seed = 1\nwithin_ps = 0", "within_ps is 1 to"),
            (
                "[[fault]]\nkind = 'pause'\nfor_ps = 1\npercent = 2",
                "no key percent; it takes kind, rank, at_ps",
            ),
            (
                "\n[[fault]]\nkind = 'pause'\nfor_ps = 3\n\n[[fault]]\nkind = 'pause'",
                "2 (pause, line 6): for_ps",
            ),
            ("[[fault]]\nkind = 'link-flap'\nfor_ps = 0", "for_ps is how long it lasts"),
            ("[[fault]]\nkind = 'lane-loss'\nlost = 4\nof = 4", "less than of, not 4 of 4"),
            ("[[fault]]\nkind = 'plane-loss'\nlost = 1", "the fabric does not say"),
            ("[[fault]]\nkind = 'slow-port'\npercent = 100", "percent is 1 to 99"),
            ("[[fault]]\nkind = 'bit-errors'\none_in_bytes = 3", "1000 or more"),
            ("[[fault]]\nkind = 'death'\nrank = 4", "no rank 4 among 4"),
            ("[[fault]]\nkind = 'death'", "rank is missing"),
            ("[[fault]]\nkind = 'death'\nrank = 1\nat_ps = 9_000_000_000_000_000_000", "at_ps is over"),
            ("fault = 3", "the faults, about line 1"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(part), "{error}, expected {part}");
        }
    }
}
