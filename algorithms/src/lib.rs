//! The algorithms of ubccl. Each is a file here and a line in the index below; names on the command line, tuner
//! candidates, docs tables and the proofs are derived from its descriptor.

mod share;

use ubccl_core::{Algorithm, Error, Result};

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
    mesh_one_shot: MESH_ONE_SHOT;
    mesh_two_shot: MESH_TWO_SHOT;
    linear: LINEAR;
    pairwise: PAIRWISE;
    knomial: BINOMIAL, KNOMIAL_4;
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
