//! Further communicators over some or all ranks of one: split by colour or by a list of ranks, and duplicated.
//!
//! ```text
//! every rank    one all-gather on the parent of a card: what it asks for, and a rendezvous it listens at
//! everybody     computes the same groups from the same cards, or finds the same thing wrong with them
//! each group    starts a communicator at the rendezvous of its first rank, with the parent's settings
//! ```
//!
//! Every rank listens although only the first of each group will be met: who is first is known only after the
//! all-gather, and a second one would be a gap into which another thread's call on the parent could slip on some ranks
//! and not on others.

use crate::choose::Wishes;
use crate::communicator::{Communicator, Inherited, Settings, Shared};
use crate::config::Config;
use crate::control::Rendezvous;
use crate::waiting::Limits;
use std::time::{Duration, Instant};
use ubccl_core::{Deadline, Error, ErrorKind, Rank, Result};

/// If a group fails to start, how long its ranks wait for the parent to learn why: a death is known within
/// milliseconds, and says more than the connection that it broke.
const CAUSE_GRACE: Duration = Duration::from_secs(1);
/// Between two looks whether the parent has a cause.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Communicator {
    /// Makes a communicator of the ranks that give the same colour; this rank's number in it is its place by `key`,
    /// then by rank here. A rank without a colour takes part in the call and gets `None`.
    ///
    /// The new communicator has this one's settings (transport, algorithm, timeouts, …) and is independent of it:
    /// closing, aborting or an error of one leaves the other alone. Only what ends a rank, such as its death, ends all
    /// communicators it is in.
    ///
    /// Order:  every rank calls it, as a collective. Of several communicators the calls must not wait for each other
    ///         in a circle: if rank 0 calls on A and then on B, another rank that is in both, and blocks in its calls,
    ///         must call on A first too. Asynchronous calls don't block and have no such order between communicators.
    /// Units:  waits at most the start timeout after the last rank has come.
    /// Errors: as [`Communicator::all_reduce`] if this communicator ends meanwhile, when some ranks may have got the new
    ///         one already; InvalidArgument, on every rank, if ranks ask for different kinds of split; Start or System
    ///         if the group cannot start, after which this communicator can still be used.
    /// Source: ncclCommSplit, MPI_Comm_split.
    pub fn split(&self, colour: Option<u32>, key: i64) -> Result<Option<Communicator>> {
        self.split_by(Wish::Colour { colour, key })
    }

    /// Makes a communicator of these ranks, in this order: the first is its rank 0. All ranks of this communicator
    /// call it with the same list; those not in it get `None`.
    ///
    /// Order, units: as [`Communicator::split`].
    /// Errors: as [`Communicator::split`]; InvalidArgument, on every rank, if a list is empty, names a rank twice or one
    ///         that does not exist, or is not the same on all ranks. This communicator can still be used.
    /// Source: MPI_Comm_create, torch.distributed.new_group.
    pub fn split_ranks(&self, ranks: &[Rank]) -> Result<Option<Communicator>> {
        self.split_by(Wish::List(ranks))
    }

    /// Makes another communicator of all ranks, with the same numbers.
    ///
    /// Order, units, errors: as [`Communicator::split`].
    /// Source: MPI_Comm_dup.
    pub fn duplicate(&self) -> Result<Communicator> {
        let duplicate = self.split_by(Wish::Duplicate)?;
        Ok(duplicate.expect("every rank is in the group of a duplicate"))
    }

    /// The same for a window, which keeps a receive posted that nobody waits for.
    pub(crate) fn duplicate_for_window(&self) -> Result<Communicator> {
        let duplicate = self.split_as(Wish::Duplicate, true)?;
        Ok(duplicate.expect("every rank is in the group of a duplicate"))
    }

    fn split_by(&self, wish: Wish<'_>) -> Result<Option<Communicator>> {
        self.split_as(wish, false)
    }

    fn split_as(&self, wish: Wish<'_>, is_of_window: bool) -> Result<Option<Communicator>> {
        // A rank whose own arguments are wrong takes part all the same, so that the others need not wait for it.
        let problem = wish.check(self.ranks());
        let rendezvous = wish.takes_part(self.rank()).then(Rendezvous::create).transpose();
        let mine = Card::new(&wish, problem.is_ok(), rendezvous.as_ref().ok().and_then(Option::as_ref));
        let cards = self.shared.gather(mine)?;
        problem?;
        let group = wish.group(&cards, self.rank())?;
        let Some(place) = group.iter().position(|&rank| rank == self.rank()) else { return Ok(None) };
        let first = group[0];
        let meeting = if place == 0 {
            rendezvous?.expect("who takes part listens")
        } else {
            cards[first as usize].meeting(first)?
        };
        let config = self.shared.child_config(meeting, place as u32, &group);
        self.shared.start_child(config, is_of_window).map(Some)
    }
}

impl Shared {
    /// Every rank's card. By whatever algorithm can: one that was forced for the user's calls may not gather.
    fn gather(&self, mine: Card) -> Result<Vec<Card>> {
        let mut all = vec![0; CARD_BYTES * self.ranks as usize];
        self.gather_bytes(&mine.encode(), &mut all)?;
        Card::decode_all(&all)
    }

    fn child_config(&self, rendezvous: Rendezvous, rank: u32, group: &[Rank]) -> Config {
        let Settings { transport, paced, wishes, layout, pair_bytes, peer_reads, start_timeout, .. } =
            self.settings.clone();
        let Wishes { algorithm, reproducible, lanes, chunk_bytes, engine } = wishes;
        Config {
            rendezvous: Some(rendezvous),
            rank,
            ranks: group.len() as u32,
            transport,
            paced,
            algorithm,
            engine,
            layout: Some(layout.of_members(group).to_string()),
            reproducible,
            lanes,
            chunk_bytes,
            pair_bytes,
            peer_reads,
            start_timeout,
            operation_timeout: *self.limits.operation_timeout.read(),
            warn_after: self.limits.warn_after,
            spin: self.limits.spin,
            ..Config::default()
        }
    }

    /// Starts a communicator of some ranks of this one; gives up as soon as this one has a cause.
    fn start_child(&self, config: Config, is_of_window: bool) -> Result<Communicator> {
        let parent = self.control.poison().clone();
        let deadline = Deadline::at(Instant::now() + config.start_timeout).unless({
            let parent = parent.clone();
            move || parent.is_set()
        });
        // Not decided anew: groups of one parent run at the same time, on the same cores.
        let Limits { crowded, .. } = self.limits;
        let inherited = Inherited { costs: self.settings.costs.clone(), crowded, is_of_window };
        let started = Communicator::start(config, deadline, Some(inherited));
        if started.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Start | ErrorKind::Remote)) {
            let patience = Instant::now() + CAUSE_GRACE;
            while !parent.is_set() && Instant::now() < patience {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        // Also after a success: another rank may have given up for this cause.
        parent.check()?;
        started
    }
}

/// What a rank asks for.
#[derive(Clone, Copy)]
pub(crate) enum Wish<'a> {
    Colour { colour: Option<u32>, key: i64 },
    List(&'a [Rank]),
    Duplicate,
}

impl Wish<'_> {
    /// Checks what this rank can check alone.
    pub(crate) fn check(&self, ranks: u32) -> Result<()> {
        let Wish::List(list) = self else { return Ok(()) };
        if list.is_empty() {
            return Err(Error::invalid("split_ranks: the list of ranks is empty; name at least one"));
        }
        let mut seen = vec![false; ranks as usize];
        for &rank in *list {
            let Some(seen) = seen.get_mut(rank as usize) else {
                return Err(Error::invalid(format!(
                    "split_ranks: there is no rank {rank} among {ranks} ranks, which count from 0"
                )));
            };
            if std::mem::replace(seen, true) {
                return Err(Error::invalid(format!("split_ranks: rank {rank} is in the list twice")));
            }
        }
        Ok(())
    }

    /// The group that this rank asked for, which is not in it if it asked for none.
    ///
    /// Errors: InvalidArgument, on every rank, if they made different calls.
    pub(crate) fn group(&self, cards: &[Card], rank: Rank) -> Result<Vec<Rank>> {
        check_alike(cards)?;
        Ok(match self {
            Wish::List(ranks) => ranks.to_vec(),
            Wish::Colour { .. } | Wish::Duplicate => group_of(cards, rank),
        })
    }

    fn takes_part(&self, rank: Rank) -> bool {
        match self {
            Wish::Colour { colour, .. } => colour.is_some(),
            Wish::List(list) => list.contains(&rank),
            Wish::Duplicate => true,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Wish::Colour { .. } => Kind::Colour,
            Wish::List(_) => Kind::List,
            Wish::Duplicate => Kind::Duplicate,
        }
    }
}

/// Which call a rank made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Colour,
    List,
    Duplicate,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Colour, Kind::List, Kind::Duplicate];

    fn name(self) -> &'static str {
        match self {
            Kind::Colour => "split",
            Kind::List => "split_ranks",
            Kind::Duplicate => "duplicate",
        }
    }
}

/// What a rank tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    kind: Kind,
    /// Whether its own arguments are right.
    is_valid: bool,
    colour: Option<u32>,
    key: i64,
    /// Length and hash of its list.
    list: (u32, u128),
    /// Empty if it does not listen.
    rendezvous: String,
}

/// First of every card, so that another call's bytes of the same length are not taken for one.
const MAGIC: u32 = u32::from_le_bytes(*b"ucS1");
/// The longest text has an IPv6 address of 39 characters in brackets: 8 + 41 + 6 + 33.
const TEXT_BYTES: usize = 96;
pub(crate) const CARD_BYTES: usize = 4 + 3 + 4 + 8 + 4 + 16 + 1 + TEXT_BYTES;

impl Card {
    pub(crate) fn new(wish: &Wish<'_>, is_valid: bool, rendezvous: Option<&Rendezvous>) -> Card {
        let (colour, key) = match *wish {
            Wish::Colour { colour, key } => (colour, key),
            Wish::List(_) | Wish::Duplicate => (Some(0), 0),
        };
        let list = match wish {
            Wish::List(ranks) => (ranks.len() as u32, hash(ranks)),
            Wish::Colour { .. } | Wish::Duplicate => (0, 0),
        };
        let rendezvous = rendezvous.map(Rendezvous::text).unwrap_or_default();
        Card { kind: wish.kind(), is_valid, colour, key, list, rendezvous }
    }

    pub(crate) fn encode(&self) -> [u8; CARD_BYTES] {
        let mut text = [0; TEXT_BYTES];
        text[..self.rendezvous.len()].copy_from_slice(self.rendezvous.as_bytes());
        let parts: [&[u8]; 8] = [
            &MAGIC.to_le_bytes(),
            &[self.kind as u8, self.is_valid.into(), self.colour.is_some().into()],
            &self.colour.unwrap_or(0).to_le_bytes(),
            &self.key.to_le_bytes(),
            &self.list.0.to_le_bytes(),
            &self.list.1.to_le_bytes(),
            &[self.rendezvous.len() as u8],
            &text,
        ];
        let bytes = parts.concat();
        bytes.try_into().expect("the parts are CARD_BYTES together")
    }

    /// Everybody's, in rank order.
    pub(crate) fn decode_all(bytes: &[u8]) -> Result<Vec<Card>> {
        (0..).zip(bytes.chunks_exact(CARD_BYTES)).map(|(rank, bytes)| Card::decode(rank, bytes)).collect()
    }

    fn decode(rank: Rank, bytes: &[u8]) -> Result<Card> {
        let mut reader = Reader(bytes);
        let magic = u32::from_le_bytes(reader.take());
        let [kind, is_valid, has_colour] = reader.take();
        let kind = Kind::ALL.get(usize::from(kind)).filter(|_| magic == MAGIC);
        let &kind = kind.ok_or_else(|| {
            let message = format!(
                "rank {rank} does not split: it gathers something else of {CARD_BYTES} bytes; all ranks must call \
                 the same thing"
            );
            Error::new(ErrorKind::Mismatch, message)
        })?;
        let colour = u32::from_le_bytes(reader.take());
        let key = i64::from_le_bytes(reader.take());
        let list = (u32::from_le_bytes(reader.take()), u128::from_le_bytes(reader.take()));
        let [len] = reader.take();
        let text = &reader.0[..usize::from(len).min(reader.0.len())];
        let rendezvous = String::from_utf8_lossy(text).into_owned();
        let colour = (has_colour != 0).then_some(colour);
        Ok(Card { kind, is_valid: is_valid != 0, colour, key, list, rendezvous })
    }

    /// Where the group of this rank meets, which is its first.
    fn meeting(&self, rank: Rank) -> Result<Rendezvous> {
        if self.rendezvous.is_empty() {
            let message =
                format!("rank {rank}, the first of this group, could not listen for it; see its own error");
            return Err(Error::new(ErrorKind::Start, message));
        }
        self.rendezvous.parse()
    }
}

/// Takes fields off the front of a card, whose length was checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("a card has CARD_BYTES, more than its fields");
        self.0 = rest;
        *field
    }
}

/// 128-bit FNV-1a.
fn hash(ranks: &[Rank]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    let bytes = ranks.iter().flat_map(|rank| rank.to_le_bytes());
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

/// What all ranks must have called alike. All see the same cards, so all get the same error, but for the rank that
/// knows more.
fn check_alike(cards: &[Card]) -> Result<()> {
    let first = &cards[0];
    for (rank, card) in cards.iter().enumerate() {
        if card.kind != first.kind {
            return Err(Error::invalid(format!(
                "rank 0 called {}, rank {rank} called {}; all ranks must make the same call",
                first.kind.name(),
                card.kind.name()
            )));
        }
    }
    if let Some(rank) = cards.iter().position(|card| !card.is_valid) {
        let message =
            format!("{}: rank {rank}'s list of ranks is wrong; see its own error", first.kind.name());
        return Err(Error::invalid(message));
    }
    match cards.iter().position(|card| card.list != first.list) {
        None => Ok(()),
        Some(rank) => Err(Error::invalid(format!(
            "split_ranks: rank 0 and rank {rank} have different lists, of {} and of {} ranks; give all ranks the \
             same list in the same order",
            first.list.0, cards[rank].list.0
        ))),
    }
}

/// The ranks of one rank's colour, by key and then by rank; none without a colour.
fn group_of(cards: &[Card], rank: Rank) -> Vec<Rank> {
    let Some(colour) = cards[rank as usize].colour else { return Vec::new() };
    let of_colour = (0..).zip(cards).filter(|(_, card)| card.colour == Some(colour));
    let mut group: Vec<(i64, Rank)> = of_colour.map(|(rank, card)| (card.key, rank)).collect();
    group.sort_unstable();
    group.into_iter().map(|(_, rank)| rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(wish: Wish<'_>) -> Card {
        Card::new(&wish, wish.check(8).is_ok(), None)
    }

    #[test]
    fn a_card_comes_back_whole_with_the_longest_rendezvous() {
        let text = format!("ubccl:1:[{}]:65535:{}", ["abcd"; 8].join(":"), "0f".repeat(16));
        let longest: Rendezvous = text.parse().unwrap();
        let wishes = [
            Wish::Colour { colour: None, key: i64::MIN },
            Wish::Colour { colour: Some(u32::MAX), key: -1 },
            Wish::List(&[3, 0, 7]),
            Wish::Duplicate,
        ];
        for wish in wishes {
            let card = Card::new(&wish, true, Some(&longest));
            assert_eq!(card.rendezvous, text);
            assert_eq!(Card::decode(1, &card.encode()).unwrap(), card);
        }
    }

    #[test]
    fn other_bytes_are_no_card_and_name_their_rank() {
        let mut bytes = card(Wish::Duplicate).encode();
        bytes[4] = 3;
        for bytes in [bytes, [0; CARD_BYTES], [0xff; CARD_BYTES]] {
            assert!(Card::decode(5, &bytes).unwrap_err().to_string().contains("rank 5 does not split"));
        }
        let mut long = card(Wish::Duplicate).encode();
        long[4 + 3 + 4 + 8 + 4 + 16] = 255;
        assert!(
            Card::decode(0, &long).unwrap().meeting(0).is_err(),
            "a length beyond the end is cut, not read"
        );
    }

    #[test]
    fn groups_are_ordered_by_key_then_by_rank() {
        let colours = [(Some(1), 5), (Some(2), 0), (Some(1), -5), (None, 0), (Some(1), 5)];
        let cards: Vec<Card> = colours.map(|(colour, key)| card(Wish::Colour { colour, key })).into();
        assert_eq!(group_of(&cards, 0), [2, 0, 4]);
        assert_eq!(group_of(&cards, 1), [1]);
        assert_eq!(group_of(&cards, 3), [0; 0]);
    }

    #[test]
    fn wrong_lists_are_refused_by_what_is_wrong() {
        let problem = |list: &[Rank]| Wish::List(list).check(8).unwrap_err().to_string();
        assert!(problem(&[]).contains("empty"));
        assert!(problem(&[0, 8]).contains("no rank 8 among 8"));
        assert!(problem(&[1, 2, 1]).contains("rank 1 is in the list twice"));
    }

    #[test]
    fn ranks_that_differ_are_named_in_pairs() {
        let problem = |a, b| check_alike(&[card(a), card(a), card(b)]).unwrap_err().to_string();
        let list = Wish::List(&[0, 1]);
        let lists = problem(list, Wish::List(&[1, 0]));
        assert!(lists.contains("rank 0 and rank 2 have different lists, of 2 and of 2 ranks"), "{lists}");
        assert!(
            problem(list, Wish::Duplicate).contains("rank 0 called split_ranks, rank 2 called duplicate")
        );
        assert!(problem(list, Wish::List(&[9])).contains("rank 2's list of ranks is wrong"));
        let (a, b) = (Wish::Colour { colour: Some(1), key: 0 }, Wish::Colour { colour: None, key: 9 });
        assert!(check_alike(&[card(a), card(b)]).is_ok());
    }
}
