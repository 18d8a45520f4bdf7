//! What ranks tell each other, over the exchange, before they meet on a socket.

use super::placement::own_node;
use super::segment::VERSION;
use crate::local::fences::Fences;
use rustix::fs::stat;
use std::path::Path;
use ubccl_core::endpoint::ConnectOptions;
use ubccl_core::{Error, ErrorKind, Result};

/// Random bytes that nobody can guess.
pub(crate) type Secret = [u8; 16];

/// One rank's card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// The abstract name of its socket.
    pub(crate) socket: Secret,
    /// What has to be presented there.
    pub(crate) token: Secret,
    /// Its host.
    pub(crate) host: Host,
    /// How it connects.
    pub(crate) lanes: u8,
    /// How it connects.
    pub(crate) pair_bytes: u64, // 0 is by the number of ranks
    /// The memory node of its processors.
    pub(crate) node: Option<u32>,
    /// Whether its process takes part in barriers that others ask the kernel for.
    pub(crate) barriers: bool,
}

/// What tells hosts (more exactly: places whose processes reach each other by an abstract socket) apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    boot: [u8; 36],
    network: u64,
}

impl Host {
    /// This process's. What the system hides is equal everywhere; the socket will tell.
    pub(crate) fn this() -> Self {
        let mut boot = [b'-'; 36];
        if let Ok(text) = std::fs::read("/proc/sys/kernel/random/boot_id") {
            boot.iter_mut().zip(text).for_each(|(byte, read)| *byte = read);
        }
        Host { boot, network: stat("/proc/self/ns/net").map_or(0, |namespace| namespace.st_ino) }
    }
}

const GOOD: u8 = 0;
const FAILED: u8 = 1;
/// Version, status, and the card's fields.
const CARD_BYTES: usize = 4 + 1 + 16 + 16 + 36 + 8 + 1 + 8 + 4 + 1;
/// The number of no memory node.
const NO_NODE: u32 = u32::MAX;

impl Card {
    /// A card with new secrets.
    pub(crate) fn new(options: &ConnectOptions) -> Result<Self> {
        let host = Host::this();
        let (lanes, pair_bytes) = (options.lanes, options.pair_bytes.unwrap_or(0));
        let node = own_node(Path::new("/sys"));
        let barriers = Fences::register();
        Ok(Card { socket: secret()?, token: secret()?, host, lanes, pair_bytes, node, barriers })
    }

    /// The card, or why there is none, for the exchange.
    pub(crate) fn encode(card: Result<&Card, &Error>) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        match card {
            Ok(card) => {
                bytes.push(GOOD);
                bytes.extend(card.socket);
                bytes.extend(card.token);
                bytes.extend(card.host.boot);
                bytes.extend(card.host.network.to_le_bytes());
                bytes.push(card.lanes);
                bytes.extend(card.pair_bytes.to_le_bytes());
                bytes.extend(card.node.unwrap_or(NO_NODE).to_le_bytes());
                bytes.push(u8::from(card.barriers));
                debug_assert_eq!(bytes.len(), CARD_BYTES);
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
        let fail = |what: String| Err(Error::new(ErrorKind::Start, format!("rank {rank}: {what}")));
        let Some((version, rest)) = bytes.split_first_chunk() else {
            return fail("its card for shm is cut off".into());
        };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return fail(format!("speaks version {version} of shm, this rank {VERSION}; use the same build"));
        }
        match rest.split_first() {
            Some((&FAILED, text)) => fail(String::from_utf8_lossy(text).into_owned()),
            Some((&GOOD, fields)) if bytes.len() == CARD_BYTES => Ok(Self::parse(fields)),
            _ => fail("its card for shm is cut off".into()),
        }
    }

    fn parse(mut fields: &[u8]) -> Card {
        fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
            let (head, rest) = fields.split_first_chunk().expect("the caller checked the length");
            *fields = rest;
            *head
        }
        Card {
            socket: take(&mut fields),
            token: take(&mut fields),
            host: Host { boot: take(&mut fields), network: u64::from_le_bytes(take(&mut fields)) },
            lanes: take::<1>(&mut fields)[0],
            pair_bytes: u64::from_le_bytes(take(&mut fields)),
            node: Some(u32::from_le_bytes(take(&mut fields))).filter(|&node| node != NO_NODE),
            barriers: take::<1>(&mut fields)[0] == 1,
        }
    }

    /// Whether ranks with these cards can meet.
    pub(crate) fn check(&self, rank: usize, peer: usize, theirs: &Card) -> Result<()> {
        let fail = |what: String| Err(Error::new(ErrorKind::Start, what));
        if self.host != theirs.host {
            return fail(format!(
                "ranks {rank} and {peer} run on different hosts or in different network namespaces; \
                 shm joins the ranks of one host, use tcp"
            ));
        }
        if (self.lanes, self.pair_bytes) != (theirs.lanes, theirs.pair_bytes) {
            return fail(format!(
                "rank {rank} connects with {} lanes and {} bytes per pair, rank {peer} with {} and {}; \
                 give all ranks the same options",
                self.lanes, self.pair_bytes, theirs.lanes, theirs.pair_bytes
            ));
        }
        Ok(())
    }
}

fn secret() -> Result<Secret> {
    let mut secret = Secret::default();
    getrandom::fill(&mut secret).map_err(|error| Error::system("no random bytes from the system", error))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn card() -> Card {
        Card::new(&ConnectOptions::default()).unwrap()
    }

    #[test]
    fn a_card_comes_back() {
        let card = card();
        assert_eq!(Card::decode(1, &Card::encode(Ok(&card))).unwrap(), card);
        assert!(card.check(0, 1, &card).is_ok());
    }

    #[test]
    fn why_there_is_no_card_reaches_the_others() {
        let error = Error::internal("memfd_create refused");
        let text = Card::decode(3, &Card::encode(Err(&error))).unwrap_err().to_string();
        assert!(text.contains("rank 3") && text.contains("memfd_create refused"), "{text}");
    }

    #[test]
    fn another_version_host_or_option_is_named() {
        let (ours, mut bytes) = (card(), Card::encode(Ok(&card())));
        bytes[0] ^= 0x40;
        assert!(Card::decode(2, &bytes).unwrap_err().to_string().contains("version"));
        let mut theirs = card();
        theirs.host.boot[0] ^= 1;
        assert!(ours.check(0, 1, &theirs).unwrap_err().to_string().contains("different hosts"));
        let theirs = Card { lanes: 7, ..card() };
        assert!(ours.check(0, 1, &theirs).unwrap_err().to_string().contains("rank 1 with 7"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_card_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..120), good: bool) {
            let mut bytes = bytes;
            if good && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
            }
            let _ = Card::decode(0, &bytes);
        }
    }
}
