//! Slices in rows: those of one row do not overlap.

use super::proto::Value;

/// Something with a beginning and an end on a track.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) name: String,
    pub(super) from_ps: u64,
    pub(super) until_ps: u64,
    pub(super) notes: Vec<(&'static str, Value)>,
    /// An arrow that comes or goes on here.
    pub(super) flow: Option<u64>,
    /// An arrow that ends here.
    pub(super) ends_flow: Option<u64>,
}

impl Slice {
    pub(super) fn new(name: &str, from_ps: u64, until_ps: u64) -> Self {
        Slice { name: name.to_owned(), from_ps, until_ps, notes: Vec::new(), flow: None, ends_flow: None }
    }

    /// With a note.
    pub(super) fn with(mut self, key: &'static str, value: Value) -> Self {
        self.notes.push((key, value));
        self
    }
}

/// Puts slices into as few rows as they need, each in order of time.
pub(super) fn rows(mut slices: Vec<Slice>) -> Vec<Vec<Slice>> {
    slices.sort_by_key(|slice| (slice.from_ps, slice.until_ps));
    let mut rows: Vec<(u64, Vec<Slice>)> = Vec::new();
    for slice in slices {
        let free = rows.iter().position(|row| row.0 <= slice.from_ps).unwrap_or(rows.len());
        if free == rows.len() {
            rows.push((0, Vec::new()));
        }
        rows[free].0 = slice.until_ps;
        rows[free].1.push(slice);
    }
    rows.into_iter().map(|row| row.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_a_row_follow_one_another_and_none_is_lost() {
        let times = [(0, 10), (5, 7), (10, 12), (6, 9), (12, 12), (7, 20)];
        let slices = times.map(|(from_ps, until_ps)| Slice::new("x", from_ps, until_ps)).to_vec();
        let rows = rows(slices);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), times.len());
        for row in &rows {
            assert!(row.windows(2).all(|pair| pair[0].until_ps <= pair[1].from_ps), "{row:?}");
        }
    }
}
