//! What the next completions will touch, fetched before: a world's engines are larger than caches, and one pointer leads
//! to the next.

use super::World;
use crate::engine::Engine;
use ubccl_core::endpoint::{Place, Token};

/// So many completions lie between the looks at what one of them touches, and so many looks there are. About five that ranks
/// heed are known ahead: with more between, the last look would come too late.
const STRIDE: usize = 2;
const LOOKS: usize = 3;

/// Completions that are to come.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    coming: Vec<(Place, Token)>,
    /// The last ones, the newest at `count` − 1, round and round.
    last: [Option<(Place, Token)>; (LOOKS * STRIDE).next_power_of_two()],
    count: usize,
}

impl World {
    /// Takes a look at what comes; after each step.
    pub(super) fn foresee(&mut self) {
        let Self { world, foresight, communicators, .. } = self;
        let Foresight { coming, last, count } = foresight;
        world.foresee(coming);
        for hint in coming.drain(..) {
            last[*count % last.len()] = Some(hint);
            let looks: [fn(&Engine, Token); LOOKS] =
                [|engine, _| engine.foresee(), Engine::foresee_execution, Engine::foresee_posts];
            for (k, look) in looks.into_iter().enumerate() {
                let hint = last[count.wrapping_sub(k * STRIDE) % last.len()];
                let engine = hint.and_then(|(place, token)| {
                    let engines = &communicators.get(place.communicator.0 as usize)?.engines;
                    Some((engines.get(place.rank as usize)?, token))
                });
                if let Some((engine, token)) = engine {
                    look(engine, token);
                }
            }
            *count = count.wrapping_add(1);
        }
    }
}
