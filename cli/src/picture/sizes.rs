//! Time against size, with the bound; below, how near to the bound, or the bus bandwidth where there is none.

use super::{Area, BLACK_TEXT, COLOURS, Drawn, FAINT, FONT, GREY, svg, titled};
use crate::failure::Outcome;
use crate::units::show_bytes;
use plotters::prelude::*;

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct SizePicture {
    /// The first line: which collective.
    pub(crate) title: String,
    /// The second: where, and what the times are.
    pub(crate) below: String,
    /// Out of place and in place.
    pub(crate) points: [Vec<Point>; 2],
}

/// One row half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Size.
    pub(crate) bytes: u64,
    /// Median time.
    pub(crate) time_us: f64,
    /// The least that ports allow, if known.
    pub(crate) bound_us: Option<f64>,
    /// Bus bandwidth.
    pub(crate) bus_gb_per_s: f64,
}

const SIZE: (u32, u32) = (960, 760);
const NAMES: [&str; 2] = ["out of place", "in place"];

impl SizePicture {
    /// The least and the most of something over all points; apart, so that an axis has a length.
    fn range(&self, of: impl Fn(&Point) -> f64) -> Option<(f64, f64)> {
        let values = self.points.iter().flatten().map(of).filter(|value| *value > 0.0);
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        (most > 0.0).then(|| if least < most { (least, most) } else { (least / 2.0, most * 2.0) })
    }

    fn has_bound(&self) -> bool {
        self.points.iter().flatten().any(|point| point.bound_us.is_some())
    }
}

/// Draws it; nothing, if there is no point with a size and a time.
pub(crate) fn draw(picture: &SizePicture) -> Outcome<String> {
    svg(SIZE, |area| {
        let rest = titled(area, &picture.title, &picture.below)?;
        let (Some(bytes), Some(_)) = (picture.range(|p| p.bytes as f64), picture.range(|p| p.time_us)) else {
            let style = (FONT, 16).into_font().color(&GREY).into_text_style(area);
            return Ok(rest.draw_text("no sizes to show", &style, (16, 16))?);
        };
        let (above, below) = rest.split_vertically(440);
        draw_times(picture, &above, bytes)?;
        match picture.has_bound() {
            true => draw_shares(picture, &below, bytes),
            false => draw_bandwidths(picture, &below, bytes),
        }
    })
}

fn size_label(bytes: &f64) -> String {
    show_bytes(bytes.round() as u64)
}

fn percent_label(percent: &f64) -> String {
    format!("{percent:.0} %")
}

fn rate_label(rate: &f64) -> String {
    format!("{rate:.1}")
}

fn time_label(us: &f64) -> String {
    let (value, unit) = match *us {
        us if us < 1.0 => (us * 1e3, "ns"),
        us if us < 1e3 => (us, "us"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let text = format!("{value:.3}");
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn draw_times(picture: &SizePicture, area: &Area<'_>, bytes: (f64, f64)) -> Drawn {
    let time = picture.range(|point| point.time_us).unwrap_or((1.0, 10.0));
    let bound = picture.range(|point| point.bound_us.unwrap_or(point.time_us)).unwrap_or(time);
    // Whole decades, so that both axes have their round numbers.
    let low = 10_f64.powf(time.0.min(bound.0).log10().floor());
    let high = 10_f64.powf(time.1.log10().ceil());
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_right(36)
        .x_label_area_size(34)
        .y_label_area_size(76)
        .build_cartesian_2d((bytes.0..bytes.1).log_scale().base(2.0), (low..high * 1.001).log_scale())?;
    mesh(&mut chart.configure_mesh(), "time of one call", &size_label, &time_label).draw()?;
    let bounds = bound_points(picture);
    if !bounds.is_empty() {
        chart
            .draw_series(DashedLineSeries::new(bounds, 6, 4, GREY.stroke_width(2)))?
            .label("bound: what a rank's port must pass, and latency")
            .legend(|at| {
                let dash = |from, to| PathElement::new([(from, 0), (to, 0)], GREY.stroke_width(2));
                EmptyElement::at(at) + dash(0, 6) + dash(10, 16) + dash(20, 24)
            });
    }
    for ((points, name), colour) in picture.points.iter().zip(NAMES).zip(COLOURS) {
        let points = points.iter().filter(|p| p.bytes > 0).map(|p| (p.bytes as f64, p.time_us));
        draw_line(&mut chart, points.collect(), name, colour)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 14).into_font().color(&BLACK_TEXT))
        .background_style(WHITE.mix(0.9))
        .border_style(FAINT)
        .margin(8)
        .legend_area_size(30)
        .draw()?;
    Ok(())
}

/// The bound at each size.
fn bound_points(picture: &SizePicture) -> Vec<(f64, f64)> {
    let mut bounds: Vec<(f64, f64)> = picture
        .points
        .iter()
        .flatten()
        .filter(|point| point.bytes > 0)
        .filter_map(|point| Some((point.bytes as f64, point.bound_us.filter(|us| *us > 0.0)?)))
        .collect();
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    bounds.dedup_by(|a, b| a.0 == b.0);
    bounds
}

fn draw_shares(picture: &SizePicture, area: &Area<'_>, bytes: (f64, f64)) -> Drawn {
    let share = |point: &Point| Some(100.0 * point.bound_us? / point.time_us);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_right(36)
        .margin_top(0)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d((bytes.0..bytes.1).log_scale().base(2.0), 0.0..100.0)?;
    mesh(&mut chart.configure_mesh(), "of the bound", &size_label, &percent_label)
        .x_desc("size")
        .y_labels(6)
        .draw()?;
    for ((points, name), colour) in picture.points.iter().zip(NAMES).zip(COLOURS) {
        let points = points.iter().filter(|p| p.bytes > 0);
        let points = points.filter_map(|p| Some((p.bytes as f64, share(p)?))).collect();
        draw_line(&mut chart, points, name, colour)?;
    }
    Ok(())
}

fn draw_bandwidths(picture: &SizePicture, area: &Area<'_>, bytes: (f64, f64)) -> Drawn {
    let most = picture.range(|point| point.bus_gb_per_s).map_or(1.0, |range| range.1);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_right(36)
        .margin_top(0)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d((bytes.0..bytes.1).log_scale().base(2.0), 0.0..most * 1.05)?;
    mesh(&mut chart.configure_mesh(), "bus bandwidth (GB/s)", &size_label, &rate_label)
        .x_desc("size")
        .draw()?;
    for ((points, name), colour) in picture.points.iter().zip(NAMES).zip(COLOURS) {
        let points = points.iter().filter(|p| p.bytes > 0).map(|p| (p.bytes as f64, p.bus_gb_per_s));
        draw_line(&mut chart, points.collect(), name, colour)?;
    }
    Ok(())
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;
type Mesh<'m, 'a, 'b, X, Y> = plotters::chart::MeshStyle<'m, 'b, X, Y, SVGBackend<'a>>;

/// What all meshes have: faint lines, readable labels.
fn mesh<'c, 'm, 'a, 'b, X, Y>(
    mesh: &'c mut Mesh<'m, 'a, 'b, X, Y>,
    y: &str,
    x_label: &'m dyn Fn(&f64) -> String,
    y_label: &'m dyn Fn(&f64) -> String,
) -> &'c mut Mesh<'m, 'a, 'b, X, Y>
where
    X: plotters::coord::ranged1d::ValueFormatter<f64> + Ranged<ValueType = f64>,
    Y: plotters::coord::ranged1d::ValueFormatter<f64> + Ranged<ValueType = f64>,
{
    let text = (FONT, 13).into_font().color(&BLACK_TEXT);
    mesh.x_labels(12)
        .y_labels(8)
        .max_light_lines(1)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .label_style(text.clone())
        .axis_desc_style(text)
        .y_desc(y)
        .x_label_formatter(x_label)
        .y_label_formatter(y_label)
}

fn draw_line<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    points: Vec<(f64, f64)>,
    name: &str,
    colour: RGBColor,
) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    if points.is_empty() {
        return Ok(());
    }
    // Wide below narrow, rings around dots: where both lie on one another, both are seen.
    let is_first = name == NAMES[0];
    let line = colour.stroke_width(if is_first { 4 } else { 2 });
    chart
        .draw_series(LineSeries::new(points.clone(), line))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], line));
    let dot = |at| match is_first {
        true => Circle::new(at, 6, colour.stroke_width(2)),
        false => Circle::new(at, 3, colour.filled()),
    };
    chart.draw_series(points.into_iter().map(dot))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bytes: u64, time_us: f64, bound_us: Option<f64>) -> Point {
        Point { bytes, time_us, bound_us, bus_gb_per_s: bytes as f64 / time_us / 1e3 }
    }

    #[test]
    fn a_picture_has_its_words_lines_and_a_dot_for_each_row() {
        let out = [8, 64, 512, 4096].map(|bytes| point(bytes, bytes as f64, Some(bytes as f64 / 2.0)));
        let picture = SizePicture {
            title: "all_reduce <f32>".into(),
            below: "4 ranks".into(),
            points: [out.to_vec(), out[..2].to_vec()],
        };
        let svg = draw(&picture).unwrap();
        for word in [
            "all_reduce &lt;f32&gt;",
            "4 ranks",
            "out of place",
            "in place",
            "bound",
            "time of one call",
            "KiB",
        ] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2 * 6, "six rows on two charts");
    }

    #[test]
    fn one_point_no_bound_and_nothing_at_all_are_drawn_too() {
        let one = SizePicture { points: [vec![point(64, 3.0, None)], Vec::new()], ..SizePicture::default() };
        assert!(draw(&one).unwrap().contains("bus bandwidth"));
        let barrier = SizePicture { points: [vec![point(0, 3.0, Some(1.0))], Vec::new()], ..one };
        assert!(draw(&barrier).unwrap().contains("no sizes to show"));
    }
}
