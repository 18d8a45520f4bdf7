//! What ranks tell each other, over the exchange, before they share a world.

use super::registry::{self, Token};
use ubccl_core::endpoint::ConnectOptions;
use ubccl_core::{Error, ErrorKind, Result};

/// The version of the card; two builds may meet at the exchange, though never in a world.
const VERSION: u32 = 1;
const GOOD: u8 = 0;
const FAILED: u8 = 1;
/// Version, status, and the card's fields but the host.
const FIXED_BYTES: usize = 4 + 1 + 16 + 4 + 16 + 1;
/// A message names at most this many ranks.
const MOST_NAMED: usize = 8;

/// One rank's card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// Its process.
    process: (Token, u32),
    /// The token of the world it offers; rank 0's counts.
    pub(crate) world: Token,
    lanes: u8,
    /// For people.
    host: String,
}

impl Card {
    pub(crate) fn new(world: Token, options: &ConnectOptions) -> Result<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Card { process: registry::process()?, world, lanes: options.lanes, host })
    }

    /// The card, or why there is none, for the exchange.
    pub(crate) fn encode(card: Result<&Card, &Error>) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        match card {
            Ok(Card { process: (token, pid), world, lanes, host }) => {
                bytes.push(GOOD);
                bytes.extend(token);
                bytes.extend(pid.to_le_bytes());
                bytes.extend(world);
                bytes.push(*lanes);
                debug_assert_eq!(bytes.len(), FIXED_BYTES);
                bytes.extend(host.bytes());
            }
            Err(error) => {
                bytes.push(FAILED);
                bytes.extend(error.to_string().bytes());
            }
        }
        bytes
    }

    /// The card of `rank`.
    pub(crate) fn decode(rank: usize, bytes: &[u8]) -> Result<Card> {
        let Some((version, rest)) = bytes.split_first_chunk() else {
            return fail(format!("rank {rank}: its card for threads is cut off"));
        };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            let advice = "use the same build, and for ranks of several processes shm or tcp";
            return fail(format!(
                "rank {rank}: speaks version {version} of threads, others {VERSION}; {advice}"
            ));
        }
        match rest.split_first() {
            Some((&FAILED, text)) => fail(format!("rank {rank}: {}", String::from_utf8_lossy(text))),
            Some((&GOOD, fields)) if bytes.len() >= FIXED_BYTES => Ok(Self::parse(fields)),
            _ => fail(format!("rank {rank}: its card for threads is cut off")),
        }
    }

    fn parse(mut fields: &[u8]) -> Card {
        fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
            let (head, rest) = fields.split_first_chunk().expect("the caller checked the length");
            *fields = rest;
            *head
        }
        Card {
            process: (take(&mut fields), u32::from_le_bytes(take(&mut fields))),
            world: take(&mut fields),
            lanes: take::<1>(&mut fields)[0],
            host: String::from_utf8_lossy(fields).into_owned(),
        }
    }

    /// Whether ranks with these cards can share a world. The answer is the same on all ranks.
    pub(crate) fn check(cards: &[Card]) -> Result<()> {
        let first = &cards[0];
        let strangers: Vec<usize> =
            (0..cards.len()).filter(|&rank| cards[rank].process != first.process).collect();
        if !strangers.is_empty() {
            return fail(apart(cards, &strangers));
        }
        match cards.iter().position(|card| card.lanes != first.lanes) {
            None => Ok(()),
            Some(rank) => fail(format!(
                "rank 0 connects with {} lanes, rank {rank} with {}; give all ranks the same options",
                first.lanes, cards[rank].lanes
            )),
        }
    }

    fn place(&self) -> String {
        format!("pid {} on host {}", self.process.1, self.host)
    }
}

/// Says who is not in rank 0's process, and what to use instead.
fn apart(cards: &[Card], strangers: &[usize]) -> String {
    let named =
        strangers.iter().take(MOST_NAMED).map(|&rank| format!("rank {rank} ({})", cards[rank].place()));
    let named: Vec<_> = named.collect();
    let more = strangers.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let is_one_host = cards.iter().all(|card| card.host == cards[0].host);
    let instead = if is_one_host { "use shm" } else { "use tcp" };
    let verb = if strangers.len() == 1 { "is" } else { "are" };
    format!(
        "{}{more} {verb} not in the process of rank 0 ({}); threads joins ranks that are threads of one process: {instead}",
        named.join(", "),
        cards[0].place()
    )
}

fn fail<T>(what: String) -> Result<T> {
    Err(Error::new(ErrorKind::Start, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn card() -> Card {
        Card::new([3; 16], &ConnectOptions::default()).unwrap()
    }

    #[test]
    fn a_card_comes_back() {
        let card = card();
        assert_eq!(Card::decode(1, &Card::encode(Ok(&card))).unwrap(), card);
        assert!(Card::check(&[card.clone(), card]).is_ok());
    }

    #[test]
    fn why_there_is_no_card_reaches_the_others() {
        let error = Error::internal("eventfd refused");
        let text = Card::decode(3, &Card::encode(Err(&error))).unwrap_err().to_string();
        assert!(text.contains("rank 3") && text.contains("eventfd refused"), "{text}");
    }

    #[test]
    fn ranks_of_other_processes_are_named_with_their_host() {
        let mut child = card();
        child.process.1 += 1;
        let text = Card::check(&[card(), child.clone(), card(), child.clone()]).unwrap_err().to_string();
        for part in ["rank 1", "rank 3", &child.place(), "use shm"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        let far = Card { host: "elsewhere".into(), process: ([8; 16], 5), ..card() };
        let text = Card::check(&[card(), far]).unwrap_err().to_string();
        assert!(text.contains("rank 1 (pid 5 on host elsewhere) is") && text.contains("use tcp"), "{text}");
    }

    #[test]
    fn other_lanes_and_versions_are_named() {
        let theirs = Card { lanes: 7, ..card() };
        assert!(Card::check(&[card(), theirs]).unwrap_err().to_string().contains("rank 1 with 7"));
        let mut bytes = Card::encode(Ok(&card()));
        bytes[0] ^= 0x40;
        assert!(Card::decode(2, &bytes).unwrap_err().to_string().contains("version"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_card_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80), good: bool) {
            let mut bytes = bytes;
            if good && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
            }
            let _ = Card::decode(0, &bytes);
        }
    }
}
