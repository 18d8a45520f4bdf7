//! How much links are used over time: the mean of each class as a line, every link as a row of colours below.

use super::{Area, BLACK_TEXT, COLOURS, Drawn, FAINT, FONT, GREY, svg, titled};
use crate::failure::Outcome;
use plotters::prelude::*;

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkPicture {
    /// The first line: which call.
    pub(crate) title: String,
    /// The second: where.
    pub(crate) below: String,
    /// How long it is.
    pub(crate) elapsed_ps: u64,
    /// Classes of links.
    pub(crate) classes: Vec<ClassRows>,
}

/// The links of one class.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassRows {
    /// What they are.
    pub(crate) class: String,
    /// Of each link, the share of its rate that is used in each of equally many equal parts of the time.
    pub(crate) rows: Vec<Vec<f64>>,
}

const WIDTH: u32 = 960;
const LINES_HEIGHT: u32 = 300;
const CLASS_HEIGHT: u32 = 210;
const TITLE_HEIGHT: u32 = 64;
const FOOT_HEIGHT: u32 = 36;
/// Rows of colours that a class gets at most: above, links are drawn together in means.
const MOST_ROWS: usize = 64;
/// Colours are that many steps.
const SHADES: usize = 20;
const MARGIN: u32 = 16;
const LEFT: u32 = 68;

/// So many equal parts of the time.
pub(crate) const PARTS: usize = 160;

impl ClassRows {
    fn mean(&self) -> Vec<f64> {
        mean(&self.rows)
    }

    /// At most as many rows as can be told apart, each the mean of links that follow one another.
    fn condensed(&self) -> Vec<Vec<f64>> {
        let links = self.rows.len().div_ceil(MOST_ROWS).max(1);
        self.rows.chunks(links).map(mean).collect()
    }
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let parts = rows.first().map_or(0, Vec::len);
    (0..parts).map(|part| rows.iter().map(|row| row[part]).sum::<f64>() / rows.len() as f64).collect()
}

/// Draws it.
pub(crate) fn draw(picture: &LinkPicture) -> Outcome<String> {
    let height = TITLE_HEIGHT + LINES_HEIGHT + CLASS_HEIGHT * picture.classes.len() as u32 + FOOT_HEIGHT;
    svg((WIDTH, height), |area| {
        let rest = titled(area, &picture.title, &picture.below)?;
        let (lines, mut rest) = rest.split_vertically(LINES_HEIGHT);
        let scale = Scale::of(picture.elapsed_ps);
        draw_lines(picture, &lines, &scale)?;
        for class in &picture.classes {
            let (rows, below) = rest.split_vertically(CLASS_HEIGHT);
            draw_rows(class, &rows, &scale)?;
            rest = below;
        }
        draw_legend(&rest)
    })
}

/// The axis of time: in a unit in which numbers are short.
struct Scale {
    end: f64,
    unit: &'static str,
}

impl Scale {
    fn of(elapsed_ps: u64) -> Self {
        let ps = elapsed_ps.max(1) as f64;
        let (per_unit, unit) = match elapsed_ps {
            0..10_000 => (1.0, "ps"),
            10_000..10_000_000 => (1e3, "ns"),
            10_000_000..10_000_000_000 => (1e6, "us"),
            10_000_000_000..10_000_000_000_000 => (1e9, "ms"),
            _ => (1e12, "s"),
        };
        Scale { end: ps / per_unit, unit }
    }
}

fn draw_lines(picture: &LinkPicture, area: &Area<'_>, scale: &Scale) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_left(MARGIN)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..scale.end, 0.0..100.0)?;
    let text = (FONT, 13).into_font().color(&BLACK_TEXT);
    chart
        .configure_mesh()
        .x_labels(10)
        .y_labels(6)
        .max_light_lines(1)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .x_desc(format!("virtual time ({})", scale.unit))
        .y_desc("in use, mean of the class")
        .x_label_formatter(&|time| time.to_string())
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .draw()?;
    for (class, colour) in picture.classes.iter().zip(COLOURS.into_iter().cycle()) {
        let mean = class.mean();
        let part = scale.end / mean.len().max(1) as f64;
        let steps = mean.iter().enumerate().flat_map(|(k, share)| {
            let (begin, end) = (k as f64 * part, (k + 1) as f64 * part);
            [(begin, 100.0 * share), (end, 100.0 * share)]
        });
        chart
            .draw_series(LineSeries::new(steps, colour.stroke_width(2)))?
            .label(format!("{} ({} links)", class.class, class.rows.len()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font((FONT, 14).into_font().color(&BLACK_TEXT))
        .background_style(WHITE.mix(0.9))
        .border_style(FAINT)
        .margin(8)
        .legend_area_size(30)
        .draw()?;
    Ok(())
}

/// From white to dark blue, in steps.
fn shade(step: usize) -> RGBColor {
    let share = step as f64 / SHADES as f64;
    let mix = |from: f64, to: f64| (from + (to - from) * share).round() as u8;
    RGBColor(mix(250.0, 8.0), mix(250.0, 48.0), mix(252.0, 107.0))
}

fn draw_rows(class: &ClassRows, area: &Area<'_>, scale: &Scale) -> Drawn {
    let rows = class.condensed();
    let count = rows.len().max(1);
    let links = class.rows.len().div_ceil(count);
    let mut caption = format!("each of the {} links of {}", class.rows.len(), class.class);
    if links > 1 {
        caption += &format!(", {links} together in a row");
    }
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 14).into_font().color(&BLACK_TEXT))
        .margin_left(MARGIN)
        .margin_right(24)
        .margin_bottom(8)
        .x_label_area_size(8)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..scale.end, 0.0..count as f64)?;
    let per_row = class.rows.len() as f64 / count as f64;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(5)
        .axis_style(GREY)
        .label_style((FONT, 12).into_font().color(&BLACK_TEXT))
        // The first link is on top.
        .y_label_formatter(&|row| format!("{:.0}", (count as f64 - row) * per_row))
        .y_desc("link")
        .axis_desc_style((FONT, 13).into_font().color(&BLACK_TEXT))
        .draw()?;
    for (k, row) in rows.iter().enumerate() {
        let top = (count - k) as f64;
        let part = scale.end / row.len().max(1) as f64;
        let step = |share: &f64| (share.clamp(0.0, 1.0) * SHADES as f64).round() as usize;
        // Neighbours of one shade are one rectangle.
        let mut begin = 0;
        while begin < row.len() {
            let of = step(&row[begin]);
            let len = row[begin..].iter().take_while(|share| step(share) == of).count();
            let corners = [(begin as f64 * part, top), ((begin + len) as f64 * part, top - 1.0)];
            if of > 0 {
                chart.draw_series([Rectangle::new(corners, shade(of).filled())])?;
            }
            begin += len;
        }
    }
    Ok(())
}

/// What the colours mean.
fn draw_legend(area: &Area<'_>) -> Drawn {
    let text = (FONT, 13).into_font().color(&BLACK_TEXT).into_text_style(area);
    let (left, top, width) = ((MARGIN + LEFT) as i32, 4, 12);
    area.draw_text("idle", &text, (left, top))?;
    let first = left + 34;
    for step in 0..=SHADES as i32 {
        let corner = (first + step * width, top);
        let end = (corner.0 + width, top + 16);
        area.draw(&Rectangle::new([corner, end], shade(step as usize).filled()))?;
    }
    area.draw_text("all of its rate in use", &text, (first + (SHADES as i32 + 1) * width + 8, top))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_class_and_colours_for_each_link() {
        let class = |name: &str, links: usize| ClassRows {
            class: name.to_owned(),
            rows: (0..links)
                .map(|link| (0..10).map(|part| ((link + part) % 4) as f64 / 3.0).collect())
                .collect(),
        };
        let picture = LinkPicture {
            title: "all_to_all".into(),
            below: "8 ranks".into(),
            elapsed_ps: 12_000_000,
            classes: vec![class("rank out", 8), class("uplinks", 200)],
        };
        let svg = draw(&picture).unwrap();
        let words = ["all_to_all", "rank out (8 links)", "uplinks (200 links)", "virtual time (us)", "idle"];
        for word in words.into_iter().chain(["each of the 200 links of uplinks"]) {
            assert!(svg.contains(word), "{word}");
        }
        assert_eq!(picture.classes[1].condensed().len(), 50, "four links a row");
        // Shares come in fours of which one is idle: of ten parts seven or eight have a colour.
        let rows = 8 + 50;
        assert!(svg.matches("<rect").count() > rows, "{}", svg.matches("<rect").count());
    }

    #[test]
    fn nothing_recorded_is_drawn_without_a_class() {
        assert!(draw(&LinkPicture::default()).unwrap().contains("virtual time (ps)"));
    }
}
