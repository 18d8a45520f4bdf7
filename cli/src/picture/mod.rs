//! Pictures, as SVG: time against size with the bound (`sizes`), and how much links are used over time (`links`).

mod links;
mod sizes;

use crate::failure::{Failure, Outcome};
pub(crate) use links::{ClassRows, LinkPicture, PARTS as LINK_PARTS, draw as draw_links};
use plotters::backend::SVGBackend;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::*;
pub(crate) use sizes::{Point, SizePicture, draw as draw_sizes};
use std::path::{Path, PathBuf};

/// Where pictures are drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
/// What can go wrong in drawing: a string takes everything, so nothing of ours.
type Drawn = Result<(), Box<dyn std::error::Error>>;

const FONT: &str = "sans-serif";
const BLACK_TEXT: RGBColor = RGBColor(33, 37, 41);
const GREY: RGBColor = RGBColor(134, 142, 150);
const FAINT: RGBColor = RGBColor(233, 236, 239);
/// Told apart by people who see colours in other ways too (Okabe and Ito's palette).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws into a string.
fn svg((width, height): (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Outcome<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
        drawn
            .and_then(|()| Ok(area.present()?))
            .map_err(|error| Failure::new(format!("a picture: {error}")))?;
    }
    Ok(text)
}

/// A picture's file, made or emptied at once, so that a long sweep does not end with a wrong path.
#[derive(Debug)]
pub(crate) struct PictureFile(PathBuf);

impl PictureFile {
    /// Makes it.
    pub(crate) fn create(path: &Path, flag: &str) -> Outcome<Self> {
        let made = std::fs::File::create(path);
        made.map_err(|error| failure(path, flag, &error))?;
        Ok(PictureFile(path.to_owned()))
    }

    /// Writes the picture.
    pub(crate) fn write(&self, svg: &str, flag: &str) -> Outcome<()> {
        std::fs::write(&self.0, svg).map_err(|error| failure(&self.0, flag, &error))
    }
}

fn failure(path: &Path, flag: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}; name another file with {flag}", path.display()))
}

/// Title and a smaller line below it; what is left of the area.
fn titled<'a>(area: &Area<'a>, title: &str, below: &str) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    let text = |size: u32| (FONT, size).into_font().color(&BLACK_TEXT);
    area.draw_text(title, &text(20).into_text_style(area), (16, 14))?;
    area.draw_text(below, &(FONT, 13).into_font().color(&GREY).into_text_style(area), (16, 42))?;
    let (_, height) = area.dim_in_pixel();
    Ok(area.clone().shrink((0, 64), (area.dim_in_pixel().0, height - 64)))
}
