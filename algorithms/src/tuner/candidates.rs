//! Everything that could do a call: algorithms of the index, families composed over the levels of a layout, each with
//! some numbers of lanes and sizes of chunks.

use super::{Limits, Model};
use crate::composition::{Composition, FAMILIES};
use crate::reproducible::is_reproducible;
use crate::{Selected, index};
use std::sync::Arc;
use ubccl_core::algorithm::Switching;
use ubccl_core::{Algorithm, Choice, Collective, Error, Kind, Layout, Profile, Result, Spec};

/// One way to do a call, and what it costs whatever the size.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) algorithm: Selected,
    pub(super) choice: Choice,
    pub(super) profile: Profile,
}

/// All ways, and those that were refused.
#[derive(Default)]
pub(super) struct Ways {
    pub(super) ways: Vec<Way>,
    pub(super) refused: Vec<(Selected, Error)>,
}

/// Sizes of chunks that are tried.
const CHUNKS: [u32; 5] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Numbers of lanes that are tried.
const LANES: [u8; 3] = [1, 2, 4];
/// Families that are tried at a level that is not the outermost, where there are more than two.
const INNER_FAMILIES: [&str; 2] = ["mesh", "ring"];

impl Ways {
    /// What can do a call of this spec over this layout.
    pub(super) fn find(model: &Model, call: &Collective<'_>, layout: &Arc<Layout>, limits: Limits) -> Self {
        let mut found = Ways::default();
        for &algorithm in index() {
            match check_wanted(algorithm, model, call.kind(), layout) {
                Ok(()) => found.consider(Selected::Known(algorithm), call, layout, limits),
                Err(refusal) if algorithm.supports_call(call, layout.ranks()).is_ok() => {
                    found.refused.push((Selected::Known(algorithm), refusal));
                }
                Err(_) => {}
            }
        }
        let known = found.refused.len();
        let compositions = compositions(layout);
        let count = compositions.len();
        for composition in compositions {
            found.consider(Selected::Composed(Arc::new(composition)), call, layout, limits);
        }
        if found.refused.len() - known == count {
            // None does it: their number tells nothing.
            found.refused.truncate(known);
        }
        found
    }

    /// What one algorithm can do, with all lanes there are.
    pub(super) fn of(only: &Selected, call: &Collective<'_>, layout: &Arc<Layout>, limits: Limits) -> Self {
        let mut found = Ways::default();
        found.consider(only.clone(), call, layout, limits);
        let spec = Spec::new(call, layout.ranks(), call.root().unwrap_or(0), false, Choice::default());
        if !found.ways.is_empty() {
            let lanes = if spec.kind.is_point_to_point() { 1 } else { limits.lanes.max(1) };
            let choice = Choice { lanes, ..Choice::default() };
            let profile = only.profile(&Spec { choice, ..spec }, layout);
            found.ways = chunkings(&Way { algorithm: only.clone(), choice, profile }, lanes, limits);
        }
        found
    }

    /// The same by each of these engines.
    pub(super) fn on(mut self, engines: &[Option<u8>]) -> Self {
        if engines == [None] {
            return self;
        }
        let by =
            |way: &Way, &engine: &Option<u8>| Way { choice: Choice { engine, ..way.choice }, ..way.clone() };
        self.ways =
            self.ways.iter().flat_map(|way| engines.iter().map(move |engine| by(way, engine))).collect();
        self
    }

    fn consider(&mut self, algorithm: Selected, call: &Collective<'_>, layout: &Arc<Layout>, limits: Limits) {
        let spec = Spec::new(call, layout.ranks(), call.root().unwrap_or(0), false, Choice::default());
        let allowed = algorithm
            .supports_call(call, layout.ranks())
            .and_then(|()| if limits.reproducible { check_reproducible(&algorithm, &spec) } else { Ok(()) });
        match allowed {
            Ok(()) => self.ways.extend(variants(&algorithm, &spec, layout, limits)),
            Err(refusal) => self.refused.push((algorithm, refusal)),
        }
    }
}

/// Whether switches do what an algorithm wants of them.
///
/// Errors: Unsupported, with what they don't.
fn check_wanted(algorithm: &dyn Algorithm, model: &Model, kind: Kind, layout: &Layout) -> Result<()> {
    let wanted = algorithm.wants(kind);
    if wanted == Switching::default() {
        return Ok(());
    }
    let (name, kind) = (algorithm.descriptor().name, kind.name());
    let lacking = match layout.ranks() {
        1 => Err("one rank has no switches".to_owned()),
        _ => model.check_switches(wanted, layout),
    };
    lacking.map_err(|lacking| {
        Error::unsupported(format!(
            "{name} is no way to do {kind} here: {lacking}; forced, it sends every message apart"
        ))
    })
}

/// Whether results are the same bits whatever of these is taken: combined once, in rank order.
///
/// Errors: Unsupported.
fn check_reproducible(algorithm: &Selected, spec: &Spec) -> Result<()> {
    if is_reproducible(&**algorithm, spec) {
        return Ok(());
    }
    let name = algorithm.descriptor().name;
    Err(Error::unsupported(format!(
        "{name} combines in an order of its own, and results are to be reproducible"
    )))
}

/// The same algorithm with as many lanes and chunks as make a difference to it.
fn variants(algorithm: &Selected, spec: &Spec, layout: &Layout, limits: Limits) -> Vec<Way> {
    let with = |choice: Choice| {
        let profile = algorithm.profile(&Spec { choice, ..*spec }, layout);
        Way { algorithm: algorithm.clone(), choice, profile }
    };
    let one = with(Choice { lanes: 1, ..Choice::default() });
    let most = LANES.into_iter().filter(|&lanes| lanes <= limits.lanes.max(1)).max().unwrap_or(1);
    if spec.kind.is_point_to_point() || most == 1 || one.profile.split {
        let lanes = LANES.into_iter().filter(|&lanes| lanes == 1 || lanes <= most && one.profile.split);
        return lanes.flat_map(|lanes| chunkings(&one, lanes, limits)).collect();
    }
    // Lanes that share nothing out may still let chunks overlap.
    let many = with(Choice { lanes: most, ..Choice::default() });
    let other = if many.profile == one.profile { Vec::new() } else { chunkings(&many, most, limits) };
    chunkings(&one, 1, limits).into_iter().chain(other).collect()
}

/// A way with all sizes of chunks, if it has any.
fn chunkings(way: &Way, lanes: u8, limits: Limits) -> Vec<Way> {
    let with = |chunk_bytes| Way { choice: Choice { lanes, chunk_bytes, ..way.choice }, ..way.clone() };
    match (way.profile.chunked, limits.chunk_bytes) {
        (Some(_), None) => CHUNKS.into_iter().map(with).collect(),
        (_, chunk_bytes) => vec![with(chunk_bytes.unwrap_or(way.choice.chunk_bytes))],
    }
}

/// Compositions over the levels of a layout that are worth a thought: all families at each of two levels; of more, few at
/// the inner ones.
fn compositions(layout: &Arc<Layout>) -> Vec<Composition> {
    let outermost = layout.levels().len() - 1;
    let is_real = |level: &usize| {
        let (groups, largest) = (layout.levels()[*level].groups(), layout.levels()[*level].largest());
        groups > 1 && largest > 1
    };
    let inner: Vec<usize> = (0..outermost).filter(is_real).collect();
    let name = |level: usize| layout.levels()[level].name();
    let all = || FAMILIES.iter().map(|family| family.name());
    let mut texts = Vec::new();
    for &level in &inner {
        texts.extend(all().map(|family| format!("{}:{family};", name(level))));
    }
    if inner.len() > 1 {
        let mut nested = vec![String::new()];
        for &level in &inner {
            let with =
                |text: &String| INNER_FAMILIES.map(|family| format!("{text}{}:{family};", name(level)));
            nested = nested.iter().flat_map(with).collect();
        }
        texts.extend(nested);
    }
    let whole = |(text, family): (&String, &str)| format!("{text}{}:{family}", name(outermost));
    let pairs = texts.iter().flat_map(|text| all().map(move |family| (text, family)));
    pairs.map(whole).filter_map(|text| Composition::parse(&text, layout).ok()).collect()
}

/// A call that stands for all of its kind: every rank chooses alike, whomever it talks to itself.
pub(super) fn representative(call: &Collective<'_>, layout: &Layout) -> Collective<'static> {
    let spec = Spec::new(call, layout.ranks(), 0, false, Choice::default());
    match call.kind() {
        Kind::SendReceive => {
            let farthest = Some(layout.ranks() - 1).filter(|&rank| rank > 0);
            Spec { to: farthest, from: farthest, ..spec }.collective(1)
        }
        _ => spec.collective(1),
    }
}
