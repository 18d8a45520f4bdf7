//! The program `ubccl`.
fn main() {}
