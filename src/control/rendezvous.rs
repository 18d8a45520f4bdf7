//! The text by which ranks find rank 0, and the listener behind it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;
use ubccl_core::{Error, ErrorKind, Result};

/// Length of the job secret.
pub(crate) const SECRET_BYTES: usize = 16;

/// How a rendezvous text looks; part of every parse error.
const FORM: &str = "expected `ubccl:1:ADDRESS:PORT:SECRET`, for example \
                    `ubccl:1:127.0.0.1:40123:00112233445566778899aabbccddeeff` (an IPv6 address stands in brackets)";

/// How long rank 0 tries again if the port is still taken, because a launcher's listener is just closing.
const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// The 128-bit secret of a job. Not printable, compared in constant time.
#[derive(Clone)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Whether `bytes` is this secret; takes the same time for every wrong one.
    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(bytes).into()
    }

    /// The bytes, to be sent to rank 0.
    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// Where the ranks of one job meet: rank 0's address and the job's secret.
///
/// One rank creates it and passes [`text`](Rendezvous::text) to the others (an argument, `UBCCL_RENDEZVOUS`); they
/// [parse](FromStr) it. A launcher may also create one, take the text, drop it and start all ranks with the text: rank
/// 0 then binds the address itself. Whoever knows the text can join the job. Dropping closes the listener.
pub struct Rendezvous {
    address: SocketAddr,
    secret: Secret,
    listener: Option<TcpListener>,
}

impl Rendezvous {
    /// Listens on a free port of the loopback interface, with a fresh random secret.
    ///
    /// # Errors
    /// `System` if the operating system gives no port or no randomness.
    pub fn create() -> Result<Self> {
        let secret = Secret(random_bytes()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|e| Error::system("cannot listen on 127.0.0.1 for the other ranks", e))?;
        let address = listener
            .local_addr()
            .map_err(|e| Error::system("cannot read the address of the rendezvous listener", e))?;
        Ok(Rendezvous { address, secret, listener: Some(listener) })
    }

    /// The text other ranks need. It contains the secret: pass it only to ranks of the job.
    pub fn text(&self) -> String {
        let secret: String = self.secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("ubccl:1:{}:{secret}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Closes the listener, if there is one: this rank is not rank 0.
    pub(crate) fn close(&mut self) {
        self.listener = None;
    }

    /// The listener; bound now if this rendezvous came from a text. For rank 0 only.
    pub(crate) fn listen(&mut self) -> Result<TcpListener> {
        if let Some(listener) = self.listener.take() {
            return Ok(listener);
        }
        let patience = Instant::now() + BIND_PATIENCE;
        loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => return Ok(listener),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => return Err(self.cannot_bind(e)),
            }
        }
    }

    fn cannot_bind(&self, source: std::io::Error) -> Error {
        let message = format!(
            "rank 0 cannot listen on {}; another program has the port, or another process is rank 0 too, \
             or the address is not this host's: make a new rendezvous text",
            self.address
        );
        Error::new(ErrorKind::Start, message).with_source(source)
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listening = self.listener.is_some();
        write!(f, "Rendezvous({}, secret hidden, listening: {listening})", self.address)
    }
}

impl FromStr for Rendezvous {
    type Err = Error;

    /// Parses a rendezvous text; opens nothing.
    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("ubccl:").ok_or_else(|| wrong("does not start with `ubccl:`"))?;
        let (version, rest) = rest.split_once(':').ok_or_else(|| wrong("ends after the version"))?;
        if version != "1" {
            return Err(wrong(&format!("has version `{version}`; this ubccl understands version 1 only")));
        }
        let (place, secret) = rest.rsplit_once(':').ok_or_else(|| wrong("has no secret"))?;
        let (address, port) = place.rsplit_once(':').ok_or_else(|| wrong("has no port or no secret"))?;
        let address = SocketAddr::new(parse_address(address)?, parse_port(port)?);
        Ok(Rendezvous { address, secret: parse_secret(secret)?, listener: None })
    }
}

/// Random bytes for secrets and names.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::system("the system gives no random bytes", e))?;
    Ok(bytes)
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("the rendezvous text {what}; {FORM}"))
}

fn parse_address(text: &str) -> Result<IpAddr> {
    let bad = || wrong(&format!("has the address `{text}`, which is no IPv4 address and no [IPv6 address]"));
    match text.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']').ok_or_else(bad)?;
            inner.parse().map(IpAddr::V6).map_err(|_| bad())
        }
        None => text.parse().map(IpAddr::V4).map_err(|_| bad()),
    }
}

fn parse_port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(wrong(&format!("has the port `{text}`, which is not between 1 and 65535"))),
    }
}

fn parse_secret(text: &str) -> Result<Secret> {
    let bad = || wrong("has a secret that is not 32 hexadecimal digits"); // the secret itself is not repeated
    if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut secret = [0; SECRET_BYTES];
    for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(Secret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn message(text: &str) -> String {
        let error = text.parse::<Rendezvous>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("ubccl:1:ADDRESS:PORT:SECRET"), "{error}");
        error.to_string()
    }

    #[test]
    fn a_text_comes_back_as_the_same_address_and_secret() {
        let made = Rendezvous::create().unwrap();
        let read: Rendezvous = made.text().parse().unwrap();
        assert_eq!(read.address(), made.address());
        assert!(read.secret().matches(made.secret().bytes()));
        assert_eq!(read.text(), made.text());
    }

    #[test]
    fn two_rendezvous_have_different_secrets() {
        let (one, two) = (Rendezvous::create().unwrap(), Rendezvous::create().unwrap());
        assert!(!one.secret().matches(two.secret().bytes()));
    }

    #[test]
    fn ipv6_stands_in_brackets() {
        let read: Rendezvous = format!("ubccl:1:[::1]:7:{SECRET}").parse().unwrap();
        assert_eq!(read.address(), "[::1]:7".parse().unwrap());
        assert_eq!(read.text(), format!("ubccl:1:[::1]:7:{SECRET}"));
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert!(message("nccl:1:127.0.0.1:7:00").contains("does not start with `ubccl:`"));
        assert!(message("ubccl:1").contains("ends after the version"));
        assert!(message(&format!("ubccl:2:127.0.0.1:7:{SECRET}")).contains("version `2`"));
        assert!(message(&format!("ubccl:1:localhost:7:{SECRET}")).contains("address `localhost`"));
        assert!(message(&format!("ubccl:1:::1:7:{SECRET}")).contains("address `::1`"));
        assert!(message(&format!("ubccl:1:[127.0.0.1]:7:{SECRET}")).contains("address"));
        assert!(message(&format!("ubccl:1:127.0.0.1:0:{SECRET}")).contains("port `0`"));
        assert!(message(&format!("ubccl:1:127.0.0.1:+7:{SECRET}")).contains("port `+7`"));
        assert!(message(&format!("ubccl:1:127.0.0.1:65536:{SECRET}")).contains("port `65536`"));
        assert!(message("ubccl:1:127.0.0.1:7:abcd").contains("32 hexadecimal digits"));
        assert!(message("ubccl:1:127.0.0.1").contains("no secret"));
    }

    #[test]
    fn neither_debug_nor_errors_show_the_secret() {
        let made: Rendezvous = format!("ubccl:1:127.0.0.1:7:{SECRET}").parse().unwrap();
        assert!(!format!("{made:?}").contains(SECRET));
        assert!(!message(&format!("ubccl:1:127.0.0.1:7:{SECRET}0")).contains(SECRET));
    }

    #[test]
    fn dropping_closes_the_listener() {
        let made = Rendezvous::create().unwrap();
        let address = made.address();
        drop(made);
        TcpListener::bind(address).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}", tail in "ubccl:1:[0-9a-f:.\\[\\]]{0,60}") {
            let _ = text.parse::<Rendezvous>();
            let _ = tail.parse::<Rendezvous>();
        }
    }
}
