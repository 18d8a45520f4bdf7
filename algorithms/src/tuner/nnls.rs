//! Least squares over numbers that are not negative.
//!
//! Source: C. Lawson and R. Hanson, "Solving Least Squares Problems" (1974), chapter 23, on the normal equations: there are
//! a dozen unknowns, and `hold` keeps them apart from singular.

/// The x ≥ 0 with the least |rows·x − wanted|² + hold·|x − near|².
pub(super) fn nnls(rows: &[Vec<f64>], wanted: &[f64], near: &[f64], hold: f64) -> Vec<f64> {
    let n = near.len();
    let dot = |j: usize, k: usize| rows.iter().map(|row| row[j] * row[k]).sum::<f64>();
    let ridge = |j: usize, k: usize| if j == k { hold } else { 0.0 };
    let gram: Vec<Vec<f64>> = (0..n).map(|j| (0..n).map(|k| dot(j, k) + ridge(j, k)).collect()).collect();
    let right = |j: usize| rows.iter().zip(wanted).map(|(row, wanted)| row[j] * wanted).sum::<f64>();
    let right: Vec<f64> = (0..n).map(|j| right(j) + hold * near[j]).collect();
    let (mut x, mut free) = (vec![0.0; n], vec![false; n]);
    // Each turn frees one that would rather be larger; there are no more sets than turns in practice.
    for _ in 0..10 * n {
        let slope = |j: usize| right[j] - (0..n).map(|k| gram[j][k] * x[k]).sum::<f64>();
        let steepest = (0..n).filter(|&j| !free[j]).max_by(|&a, &b| slope(a).total_cmp(&slope(b)));
        let Some(next) = steepest.filter(|&j| slope(j) > 1e-12 * right[j].abs().max(1e-300)) else { break };
        free[next] = true;
        x = settle(&gram, &right, x, &mut free);
    }
    x
}

/// Goes to the best of the free ones, as far as none gets negative; those that would are bound again.
fn settle(gram: &[Vec<f64>], right: &[f64], mut x: Vec<f64>, free: &mut [bool]) -> Vec<f64> {
    loop {
        let chosen: Vec<usize> = (0..x.len()).filter(|&j| free[j]).collect();
        let best = solve(gram, right, &chosen);
        let towards = |(&j, &best): (&usize, &f64)| if best <= 0.0 { x[j] / (x[j] - best) } else { 1.0 };
        let part = chosen.iter().zip(&best).map(towards).fold(1.0, f64::min);
        for (&j, &best) in chosen.iter().zip(&best) {
            x[j] += part * (best - x[j]);
        }
        if part >= 1.0 {
            return x;
        }
        let bound: Vec<usize> = chosen.into_iter().filter(|&j| x[j] <= 1e-15).collect();
        if bound.is_empty() {
            return x; // what is left is rounding
        }
        for j in bound {
            (x[j], free[j]) = (0.0, false);
        }
    }
}

/// Solves for the chosen unknowns alone, by elimination; the matrix is positive definite.
fn solve(gram: &[Vec<f64>], right: &[f64], chosen: &[usize]) -> Vec<f64> {
    let row = |&j: &usize| chosen.iter().map(|&k| gram[j][k]).chain([right[j]]).collect::<Vec<f64>>();
    let mut rows: Vec<Vec<f64>> = chosen.iter().map(row).collect();
    let n = rows.len();
    for k in 0..n {
        let (above, below) = rows.split_at_mut(k + 1);
        let pivot = &above[k];
        for row in below {
            let times = row[k] / pivot[k];
            row.iter_mut().zip(pivot).skip(k).for_each(|(value, pivot)| *value -= times * pivot);
        }
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| rows[k][j] * x[j]).sum();
        x[k] = (rows[k][n] - known) / rows[k][k];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_negative_is_nothing() {
        let rows = vec![vec![1.0, 1.0], vec![1.0, 2.0], vec![1.0, 3.0]];
        // A line through falling points: the slope would be negative.
        let x = nnls(&rows, &[3.0, 2.0, 1.0], &[1.0, 1.0], 0.0);
        assert!((x[0] - 2.0).abs() < 1e-12 && x[1] == 0.0, "{x:?}");
        let x = nnls(&rows, &[3.0, 5.0, 7.0], &[9.0, 9.0], 0.0);
        assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 2.0).abs() < 1e-9, "{x:?}");
    }

    #[test]
    fn what_nothing_tells_stays_near() {
        let rows = vec![vec![2.0, 0.0], vec![4.0, 0.0]];
        let x = nnls(&rows, &[6.0, 12.0], &[1.0, 7.0], 1e-9);
        assert!((x[0] - 3.0).abs() < 1e-6 && (x[1] - 7.0).abs() < 1e-6, "{x:?}");
    }
}
