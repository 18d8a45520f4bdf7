//! The picture of `--plot`: rows as they come, drawn anew with each.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::measure::Measured;
use crate::picture::{PictureFile, Point, SizePicture, draw_sizes};
use crate::report::Agenda;
use std::path::Path;

/// A picture that grows.
#[derive(Debug)]
pub(crate) struct Plot {
    file: PictureFile,
    picture: SizePicture,
}

impl Plot {
    /// Makes or empties the file.
    pub(crate) fn create(path: &Path, agenda: &Agenda) -> Outcome<Self> {
        let [one_dtype, one_op, one_root] = [agenda.dtypes.len(), agenda.ops.len(), agenda.roots.len()];
        let row = agenda.kind.row();
        if one_dtype > 1 || row.reduces && one_op > 1 || row.rooted && one_root > 1 {
            return Err(Failure::new("--plot draws one type, operation and root; name one of each, not all"));
        }
        let op = if row.reduces { format!(" {}", agenda.ops[0].name()) } else { String::new() };
        let title = format!("{} {}{op}, {} ranks", agenda.kind.name(), agenda.dtypes[0].name(), agenda.ranks);
        let below = match agenda.bound {
            Some(_) => agenda.remarks.first().cloned().unwrap_or_default(),
            None => format!("measured over {}", agenda.transport),
        };
        let picture = SizePicture { title, below, ..SizePicture::default() };
        Ok(Plot { file: PictureFile::create(path, "--plot")?, picture })
    }

    /// One row half more.
    pub(crate) fn add(&mut self, call: &Call, in_place: bool, measured: &Measured) -> Outcome<()> {
        let time_us = measured.times.p50_us;
        self.picture.points[usize::from(in_place)].push(Point {
            bytes: call.bytes(),
            time_us,
            bound_us: measured.simulated.map(|simulated| simulated.bound_us),
            bus_gb_per_s: call.bandwidths(time_us).1,
        });
        self.file.write(&draw_sizes(&self.picture)?, "--plot")
    }
}
