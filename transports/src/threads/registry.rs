//! How the threads of one process find the world that one of them made: a random token, and a list of open offers.

use super::world::World;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock, Weak};
use ubccl_core::{Error, Result};

/// Random bytes that nobody can guess.
pub(crate) type Token = [u8; 16];

/// The worlds that are being handed out. Empty except while a communicator starts.
static OFFERS: Mutex<Vec<(Token, Weak<World>)>> = Mutex::new(Vec::new());

/// A world that may be taken by whoever knows its token, until this is dropped.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Its token.
    pub(crate) token: Token,
    /// The world.
    pub(crate) world: Arc<World>,
}

impl Offer {
    pub(crate) fn new(world: World) -> Result<Self> {
        let (token, world) = (random()?, Arc::new(world));
        OFFERS.lock().push((token, Arc::downgrade(&world)));
        Ok(Offer { token, world })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        OFFERS.lock().retain(|(token, _)| *token != self.token);
    }
}

/// The world that is offered under a token.
pub(crate) fn take(token: &Token) -> Option<Arc<World>> {
    let offers = OFFERS.lock();
    let (_, world) = offers.iter().find(|(offered, _)| offered == token)?;
    world.upgrade()
}

/// What tells this process from all others: random bytes, and the process's number, since a forked child has the bytes.
pub(crate) fn process() -> Result<(Token, u32)> {
    static BYTES: OnceLock<Token> = OnceLock::new();
    let bytes = match BYTES.get() {
        Some(bytes) => *bytes,
        None => {
            let fresh = random()?;
            *BYTES.get_or_init(|| fresh)
        }
    };
    Ok((bytes, std::process::id()))
}

fn random() -> Result<Token> {
    let mut token = Token::default();
    getrandom::fill(&mut token).map_err(|error| Error::system("no random bytes from the system", error))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_can_be_taken_until_it_is_dropped() {
        let offer = Offer::new(World::new(2, 1).unwrap()).unwrap();
        let token = offer.token;
        let taken = take(&token).unwrap();
        assert!(Arc::ptr_eq(&taken, &offer.world));
        assert!(take(&[0; 16]).is_none());
        drop(offer);
        assert!(take(&token).is_none(), "the world lives, its offer does not");
    }
}
