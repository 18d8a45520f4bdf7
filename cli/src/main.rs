//! The program `ubccl`.

mod buffer;
mod call;
mod failure;
mod json;
#[cfg(test)]
mod fake;
mod layout;
mod measure;
mod orders;
mod pattern;
mod rank;
mod report;
mod stats;
mod sweep;
mod table;
mod target;
mod units;

fn main() {}
