//! The algorithms of ubccl. Each is a file here and a line in the index below; names on the command line, tuner
//! candidates, docs tables and the proofs are derived from its descriptor.

mod halving_doubling;
mod nb;
mod nhr;
mod rounds;
mod schedule;
mod share;
mod team;
mod turns;

use composition::Composition;
use std::ops::Deref;
use std::sync::Arc;
use ubccl_core::{Algorithm, Error, Layout, Result};

pub mod composition;
pub mod reproducible;
pub mod tuner;

/// Declares the algorithms: `module: TYPES`, a line for each family.
macro_rules! index {
    ($($module:ident : $($algorithm:ident),+;)*) => {
        $(pub mod $module;)*

        /// Every algorithm there is.
        pub fn index() -> &'static [&'static dyn Algorithm] {
            static INDEX: &[&dyn Algorithm] = &[$($(&$module::$algorithm),+),*];
            INDEX
        }
    };
}

index! {
    ring: RING;
    ring_both: RING_BOTH;
    mesh_one_shot: MESH_ONE_SHOT;
    mesh_two_shot: MESH_TWO_SHOT;
    mesh_windowed: MESH_WINDOWED;
    linear: LINEAR;
    pairwise: PAIRWISE;
    knomial: BINOMIAL, KNOMIAL_4;
    bruck: BRUCK;
    scatter_all_gather: SCATTER_RING;
    double_tree: DOUBLE_TREE;
    families: HALVING_DOUBLING, NHR, NB;
    ordered: ORDERED_RING, ORDERED_NB, ORDERED_NHR;
    in_network: IN_NETWORK;
}

/// The algorithm of this name; `-` and `_` are the same.
///
/// Errors: InvalidArgument, listing what exists.
pub fn find(name: &str) -> Result<&'static dyn Algorithm> {
    let wanted = name.replace('_', "-");
    let named = index().iter().find(|algorithm| algorithm.descriptor().name == wanted);
    named.copied().ok_or_else(|| {
        let names: Vec<_> = index().iter().map(|algorithm| algorithm.descriptor().name).collect();
        Error::invalid(format!("unknown algorithm '{name}'; there are: {}", names.join(", ")))
    })
}

/// An algorithm of the index, or one composed for a layout.
#[derive(Clone)]
pub enum Selected {
    /// Of the index.
    Known(&'static dyn Algorithm),
    /// Composed.
    Composed(Arc<Composition>),
}

impl Deref for Selected {
    type Target = dyn Algorithm;

    fn deref(&self) -> &(dyn Algorithm + 'static) {
        match self {
            Selected::Known(algorithm) => *algorithm,
            Selected::Composed(composition) => &**composition,
        }
    }
}

/// The algorithm of this name, or the composition that this describes: `node:mesh;supernode:nhr`, levels of `layout`.
///
/// Errors: InvalidArgument, listing what exists.
pub fn select(text: &str, layout: &Arc<Layout>) -> Result<Selected> {
    match text.contains(':') {
        true => Ok(Selected::Composed(Arc::new(Composition::parse(text, layout)?))),
        false => Ok(Selected::Known(find(text)?)),
    }
}
