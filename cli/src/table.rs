//! nccl-tests' table, to the character (the formats are those of its `util.cu`, version 2.19.6).

use crate::bound;
use crate::call::Call;
use crate::measure::Measured;

/// A number in C's `%g`: six significant digits, no trailing zeros.
pub(crate) fn general(value: f64) -> String {
    let scientific = format!("{value:.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        let trimmed =
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
        trimmed.to_owned()
    };
    if (-4..6).contains(&exponent) {
        let decimals = (5 - exponent) as usize;
        trim(&format!("{value:.decimals$}"))
    } else {
        format!("{}{}", trim(mantissa), c_exponent(exponent))
    }
}

/// An exponent as C writes it: sign and two digits.
fn c_exponent(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// nccl-tests' `getFloatStr`: two decimals, one, none, then an exponent, as the width allows.
pub(crate) fn fitted(value: f64, width: usize) -> String {
    let mut digits = 0;
    let mut power_of_ten = 1.0;
    while value >= power_of_ten && digits <= 20 {
        power_of_ten *= 10.0;
        digits += 1;
    }
    let decimals = match digits {
        _ if digits < width - 2 => 2,
        _ if digits < width - 1 => 1,
        _ if digits < width + 1 => 0,
        _ => return exponential(value, if width >= 7 { 1 } else { 0 }, width),
    };
    format!("{value:width$.decimals$}")
}

fn exponential(value: f64, decimals: usize, width: usize) -> String {
    let text = format!("{value:.decimals$e}");
    let text = match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{mantissa}{}", c_exponent(exponent.parse().unwrap_or(0))),
        None => text,
    };
    format!("{text:>width$}")
}

/// The three header lines above the rows; with columns for the bound, where there is one.
pub(crate) fn header(bound: bool) -> String {
    let header = nccl_header();
    if !bound {
        return header;
    }
    let columns = [[""; 3], [""; 3], ["bound", "%bound", "%bound"], ["(us)", "(out)", "(in)"]];
    let lines = header.lines().zip(columns).map(|(line, [bound, out, within])| {
        let line = format!("{:ROW$}  {bound:>8}  {out:>6}  {within:>6}", line.trim_end());
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// nccl-tests'.
fn nccl_header() -> String {
    let line = |columns: [&str; 5], half: [&str; 4]| {
        let [size, count, dtype, redop, root] = columns;
        let left = format!("# {size:>10}  {count:>12}  {dtype:>8}  {redop:>6}  {root:>6}");
        let [time, algorithm, bus, wrong] = half;
        let half = format!("  {time:>7}  {algorithm:>6}  {bus:>6}  {wrong:>6}");
        format!("{left}{half}{half} \n")
    };
    let blank = format!("# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}", "", "", "", "", "");
    let placements = format!("{blank}           out-of-place                       in-place          \n");
    let names = line(["size", "count", "type", "redop", "root"], ["time", "algbw", "busbw", "#wrong"]);
    let units = line(["(B)", "(elements)", "", "", ""], ["(us)", "(GB/s)", "(GB/s)", ""]);
    format!("#\n{placements}{names}{units}")
}

/// The left part of a row: what was run.
pub(crate) fn row_start(call: &Call) -> String {
    let redop = if call.kind.row().reduces { call.op.name() } else { "none" };
    let root = if call.is_rooted() { i64::from(call.root) } else { -1 };
    let dtype = call.dtype.row().nccl_name;
    format!("{:12}  {:12}  {dtype:>8}  {redop:>6}  {root:>6}", call.bytes(), call.count)
}

/// One half of a row: what came out; `None` where there is no such form of the call.
pub(crate) fn row_half(call: &Call, measured: Option<&Measured>) -> String {
    let Some(measured) = measured else {
        return format!("  {:>7}  {:>6}  {:>6}    N/A", "N/A", "N/A", "N/A");
    };
    let time_us = measured.times.p50_us;
    let (algorithm, bus) = call.bandwidths(time_us);
    let wrong = match measured.wrong {
        Some(wrong) => format!("  {:>6}", general(wrong as f64)),
        None => "    N/A".to_owned(),
    };
    format!("  {}  {}  {}{wrong}", fitted(time_us, 7), fitted(algorithm, 6), fitted(bus, 6))
}

/// How wide a row is whose halves are both there.
const ROW: usize = 118;

/// A row with its end: the least time that ports allow, and how near both halves come to it. The row as it is, where nobody
/// knows.
pub(crate) fn with_bound(row: String, halves: [Option<&Measured>; 2]) -> String {
    let Some(bound_us) = halves.into_iter().flatten().find_map(|half| Some(half.simulated?.bound_us)) else {
        return row;
    };
    let percent = |half: Option<&Measured>| match half {
        Some(half) => format!("{:>6.1}", bound::percent(bound_us, half.times.p50_us)),
        None => format!("{:>6}", "N/A"),
    };
    format!("{row:ROW$}  {}  {}  {}", fitted(bound_us, 8), percent(halves[0]), percent(halves[1]))
}

/// The two lines below the rows: how many row halves have wrong elements, and the mean of all bus bandwidths.
pub(crate) fn footer(out_of_bounds: u64, mean_bus_bandwidth: f64) -> String {
    let verdict = if out_of_bounds == 0 { "OK" } else { "FAILED" };
    let bounds = format!("# {:<20} : {out_of_bounds} {verdict}\n", "Out of bounds values");
    format!("{bounds}# {:<20} : {} \n#\n", "Avg bus bandwidth", general(mean_bus_bandwidth))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::call::tests::call;
    use crate::orders::How;
    use crate::stats::Times;
    use crate::target::{DataType, Kind};

    /// A measurement for tests.
    pub(crate) fn measured(time_us: f64, wrong: Option<u64>) -> Measured {
        Measured {
            times: Times { p50_us: time_us, min_us: time_us, p99_us: time_us },
            iterations: 20,
            calls_per_iteration: 1,
            how: How { algorithm: "ring".into(), lanes: 2, chunk_bytes: 65536, engine: None },
            wrong,
            note: None,
            cpu_us: time_us,
            simulated: None,
            breakdown_us: None,
            explained: None,
        }
    }

    #[test]
    fn floats_lose_decimals_and_then_gain_an_exponent() {
        let cases = [
            (0.0, "   0.00"),
            (0.26, "   0.26"),
            (9999.99, "9999.99"),
            (10000.0, "10000.0"),
            (99999.0, "99999.0"),
            (100000.0, " 100000"),
            (9999999.0, "9999999"),
            (12345678.0, "1.2e+07"),
        ];
        for (value, text) in cases {
            assert_eq!(fitted(value, 7), text, "{value}");
        }
        assert_eq!(fitted(392.0, 6), "392.00");
        assert_eq!(fitted(1234.5, 6), "1234.5");
        assert_eq!(fitted(12345678.0, 6), " 1e+07");
    }

    #[test]
    fn general_is_cs_percent_g() {
        let cases = [
            (0.0, "0"),
            (1.5, "1.5"),
            (123456.7, "123457"),
            (1234567.0, "1.23457e+06"),
            (0.000012345, "1.2345e-05"),
            (0.0001, "0.0001"),
            (100000.0, "100000"),
            (1000000.0, "1e+06"),
            (999999.9, "1e+06"),
            (12.3456789, "12.3457"),
        ];
        for (value, text) in cases {
            assert_eq!(general(value), text);
        }
    }

    #[test]
    fn the_header_is_nccl_tests() {
        // Written by hand from the formats `# %10s  %12s  %8s  %6s  %6s` and `  %7s  %6s  %6s  %6s`.
        let golden = "#\n\
#                                                              out-of-place                       in-place          \n\
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong \n\
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)         \n";
        assert_eq!(header(false), golden);
    }

    #[test]
    fn a_bound_has_its_columns_under_its_names() {
        let simulated = crate::measure::Simulated {
            messages: 1,
            events: 1,
            retries: 0,
            lost: 0,
            hash: 1,
            real_us: 1.0,
            bound_us: 6.0,
        };
        let half = Measured { simulated: Some(simulated), ..measured(8.0, Some(0)) };
        let reduce = call(Kind::AllReduce, 2, 2);
        let halves = row_half(&reduce, Some(&half)) + &row_half(&reduce, None);
        let row = with_bound(row_start(&reduce) + &halves, [Some(&half), None]);
        assert!(row.ends_with("      6.00    75.0     N/A"), "{row}");
        let header = header(true);
        let names = header.lines().nth(2).unwrap();
        assert_eq!(
            (names.len(), header.lines().nth(3).unwrap().len()),
            (row.len(), row.len()),
            "{header}{row}"
        );
        assert!(names.ends_with("   bound  %bound  %bound"));
        let real = measured(8.0, Some(0));
        assert_eq!(with_bound("row".into(), [Some(&real), None]), "row", "nobody knows one of real ranks");
    }

    #[test]
    fn rows_are_nccl_tests() {
        let reduce = call(Kind::AllReduce, 2, 2);
        let row = row_start(&reduce)
            + &row_half(&reduce, Some(&measured(0.27, Some(0))))
            + &row_half(&reduce, None);
        let golden = "           8             2     float     sum      -1     0.27    0.03    0.03       0      N/A     N/A     N/A    N/A";
        assert_eq!(row, golden);
        let cast = Call { dtype: DataType::BF16, root: 3, ..call(Kind::Broadcast, 33554432, 4) };
        let row = row_start(&cast)
            + &row_half(&cast, Some(&measured(18166.2, Some(1234567))))
            + &row_half(&cast, Some(&measured(9.5, None)));
        let golden = "    67108864      33554432  bfloat16    none       3  18166.2    3.69    3.69  1.23457e+06     9.50  7064.1  7064.1    N/A";
        assert_eq!(row, golden);
    }

    #[test]
    fn the_footer_is_nccl_tests() {
        let golden = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 3.14159 \n#\n";
        assert_eq!(footer(0, std::f64::consts::PI), golden);
        assert!(footer(2, 0.0).starts_with("# Out of bounds values : 2 FAILED\n"));
    }
}
