//! The `optical` transport, driven by hand: times against numbers worked out on paper, the contract of endpoints, real
//! and phantom memory, deaths.

mod communicators;
mod contract;
mod deaths;
mod fidelities;
mod harness;
mod memory;
mod model;
mod rate;
mod rings;
