//! How much links are used: shares of their rates, from occupations and loads.

use ubccl_core::record::{LinkId, Record};

/// How much one link was used, in equal parts of a time.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkUse {
    /// Which.
    pub link: LinkId,
    /// The share of its rate that was used, 0 to 1, for each part of the time.
    pub shares: Vec<f64>,
}

/// How much the links of one class were used over a time.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassUse {
    /// Their class.
    pub class: String,
    /// How many links of the class were recorded.
    pub links: usize,
    /// How many of them were used at all.
    pub used: usize,
    /// The mean share of their rate that was used, over all of them.
    pub mean: f64,
    /// The link that was used most, and its share.
    pub busiest: Option<(LinkId, f64)>,
}

/// See `Recording::utilisation`.
pub(super) fn by_class(record: &Record, from_ps: u64, until_ps: u64) -> Vec<ClassUse> {
    let uses = over_time(record, from_ps, until_ps, 1);
    let mut classes: Vec<ClassUse> = record.classes.iter().map(|class| empty(class)).collect();
    for LinkUse { link, shares } in uses {
        let row = &mut classes[usize::from(record.links[link.0 as usize].class)];
        let share = shares[0];
        row.links += 1;
        row.used += usize::from(share > 0.0);
        row.mean += share;
        if share > row.busiest.map_or(0.0, |busiest| busiest.1) {
            row.busiest = Some((link, share));
        }
    }
    classes.iter_mut().for_each(|row| row.mean /= row.links.max(1) as f64);
    classes.retain(|row| row.links > 0);
    classes
}

fn empty(class: &str) -> ClassUse {
    ClassUse { class: class.to_owned(), links: 0, used: 0, mean: 0.0, busiest: None }
}

/// See `Recording::utilisation_over_time`.
pub(super) fn over_time(record: &Record, from_ps: u64, until_ps: u64, parts: usize) -> Vec<LinkUse> {
    let parts = parts.max(1);
    let window = Window { from_ps, until_ps: until_ps.max(from_ps + 1), parts };
    let mut uses: Vec<LinkUse> = (0..record.links.len() as u32)
        .map(|id| LinkUse { link: LinkId(id), shares: vec![0.0; parts] })
        .collect();
    for occupied in &record.occupations {
        window.add(&mut uses[occupied.link.0 as usize].shares, occupied.from_ps, occupied.until_ps, 1.0);
    }
    let mut loads: Vec<Option<(u64, u64)>> = vec![None; record.links.len()];
    for load in &record.loads {
        let id = load.link.0 as usize;
        let before = loads[id].replace((load.at_ps, load.bytes_per_s));
        if let Some((since_ps, bytes_per_s)) = before {
            let share = bytes_per_s as f64 / record.links[id].rate_bytes_per_s as f64;
            window.add(&mut uses[id].shares, since_ps, load.at_ps, share);
        }
    }
    for (id, last) in loads.into_iter().enumerate() {
        if let Some((since_ps, bytes_per_s)) = last {
            let share = bytes_per_s as f64 / record.links[id].rate_bytes_per_s as f64;
            window.add(&mut uses[id].shares, since_ps, window.until_ps, share);
        }
    }
    uses
}

/// A time in equal parts.
struct Window {
    from_ps: u64,
    until_ps: u64,
    parts: usize,
}

impl Window {
    /// Adds a share that lasted for a while.
    fn add(&self, shares: &mut [f64], from_ps: u64, until_ps: u64, share: f64) {
        let (from_ps, until_ps) = (from_ps.max(self.from_ps), until_ps.min(self.until_ps));
        if from_ps >= until_ps || share <= 0.0 {
            return;
        }
        let part_ps = (self.until_ps - self.from_ps) as f64 / self.parts as f64;
        let place = |at_ps: u64| (at_ps - self.from_ps) as f64 / part_ps;
        let (begin, end) = (place(from_ps), place(until_ps));
        let first = (begin as usize).min(self.parts - 1);
        let last = (end.ceil() as usize).clamp(first + 1, self.parts);
        for (part, sum) in shares.iter_mut().enumerate().take(last).skip(first) {
            let within = end.min((part + 1) as f64) - begin.max(part as f64);
            *sum += share * within.max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::record::{Link, Load, Occupation};

    fn record() -> Record {
        let link =
            |name: &str, class| Link { name: name.to_owned(), class, rank: None, rate_bytes_per_s: 1_000 };
        Record {
            classes: vec!["port".into(), "uplink".into(), "none".into()],
            links: vec![link("a", 0), link("b", 0), link("shared", 1)],
            occupations: vec![
                Occupation { link: LinkId(0), message: 0, from_ps: 100, until_ps: 150 },
                Occupation { link: LinkId(0), message: 1, from_ps: 150, until_ps: 200 },
            ],
            loads: vec![
                Load { link: LinkId(2), at_ps: 0, bytes_per_s: 500 },
                Load { link: LinkId(2), at_ps: 120, bytes_per_s: 250 },
                Load { link: LinkId(2), at_ps: 160, bytes_per_s: 0 },
            ],
            ..Record::default()
        }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn shares_fall_into_the_parts_of_time_in_which_they_were_used() {
        let uses = over_time(&record(), 100, 200, 4);
        assert_eq!(uses[0].shares, [1.0; 4]);
        assert_eq!(uses[1].shares, [0.0; 4]);
        // 25 ps each: half until 120, a quarter until 160, then nothing.
        let expected = [(20.0 * 0.5 + 5.0 * 0.25) / 25.0, 0.25, 0.1, 0.0];
        assert!(uses[2].shares.iter().zip(expected).all(|(&a, b)| near(a, b)), "{uses:?}");
    }

    #[test]
    fn a_class_has_a_mean_over_all_of_its_links_and_a_busiest() {
        let classes = by_class(&record(), 0, 200);
        assert_eq!(classes.len(), 2, "a class without links is left out");
        let ports = &classes[0];
        assert_eq!((ports.links, ports.used, ports.busiest), (2, 1, Some((LinkId(0), 0.5))));
        assert!(near(ports.mean, 0.25));
        assert!(near(classes[1].mean, (120.0 * 0.5 + 40.0 * 0.25) / 200.0));
    }
}
