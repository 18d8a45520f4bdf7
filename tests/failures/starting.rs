//! Communicators that do not come about.

use crate::support::ranks::{Setup, start_threads};
use crate::{real_transports, setup, virtual_transports};
use std::time::Duration;
use ubccl::{Communicator, Config, ErrorKind, Rendezvous};

fn start_errors(setup: &Setup, configure: impl Fn(Config) -> Config) -> Vec<String> {
    let errors = start_threads(setup, configure, |_, comm| comm.expect_err("it cannot start"));
    for error in &errors {
        assert!(matches!(error.kind(), ErrorKind::Start | ErrorKind::Unsupported), "{error}");
    }
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_missing_rank_is_named_on_all_that_came() {
    for transport in real_transports() {
        // Of 4 ranks these 3 come.
        let configure = |config| Config { ranks: 4, start_timeout: Duration::from_millis(300), ..config };
        for text in start_errors(&setup(transport, 3), configure) {
            assert!(text.contains("1 of 4 ranks did not come") && text.contains(": 3;"), "{text}");
            assert!(text.contains("were they started"), "{text}");
        }
    }
}

#[test]
fn another_transport_on_one_rank_is_named_on_all() {
    let all: Vec<&str> = ubccl::transports().map(|t| t.name).collect();
    for transport in real_transports() {
        for &other in all.iter().filter(|&&other| other != transport) {
            let configure = |mut config: Config| {
                if config.rank == 1 {
                    config.transport = other.into();
                }
                config
            };
            for (rank, text) in start_errors(&setup(transport, 3), configure).iter().enumerate() {
                assert!(text.contains("ranks differ in transport"), "{text}");
                for named in [transport, other, "rank 1 has", &format!("rank {rank} has")] {
                    assert!(text.contains(named), "{named} is not in: {text}");
                }
            }
        }
    }
}

#[test]
fn a_simulated_transport_cannot_carry_processes() {
    for transport in virtual_transports() {
        for text in start_errors(&setup(transport, 2), |config| config) {
            assert!(text.contains(transport) && text.contains("virtual time; use World"), "{text}");
        }
    }
}

#[test]
fn ranks_that_disagree_about_the_size_are_named() {
    let configure = |config: Config| Config { ranks: if config.rank == 1 { 5 } else { 3 }, ..config };
    for text in start_errors(&setup("shm", 3), configure) {
        assert!(text.contains("rank 1 ") && text.contains("for 5") && text.contains("for 3"), "{text}");
    }
}

#[test]
fn bad_arguments_are_refused_before_anybody_is_asked() {
    let good = || Config { rendezvous: Rendezvous::create().ok(), ranks: 2, ..Config::default() };
    for (config, parts) in [
        (
            Config { transport: "rdma".into(), ..good() },
            &["unknown transport 'rdma'", "shm", "tcp", "optical"][..],
        ),
        (Config { algorithm: Some("magic".into()), ..good() }, &["magic", "ring", "mesh-one-shot"]),
        (Config { rank: 2, ..good() }, &["rank 2 is out of range", "0 to 1"]),
        (Config { rendezvous: None, ..good() }, &["UBCCL_RENDEZVOUS", "Rendezvous::create()"]),
    ] {
        let error = Communicator::init(config).expect_err("the argument is bad");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part} is not in: {error}");
        }
    }
    for text in ["", "nonsense", "ubccl:1:127.0.0.1", "ubccl:1:127.0.0.1:99999:00"] {
        let error = text.parse::<Rendezvous>().expect_err("it is no rendezvous");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("ubccl:1:ADDRESS:PORT:SECRET"), "{error}");
    }
}

#[test]
fn one_rank_alone_needs_nobody() {
    for transport in real_transports() {
        let comm =
            Communicator::init(Config { transport: transport.into(), ..Config::default() }).expect("alone");
        let mut sum = [0_u8; 3];
        comm.all_reduce(&[1, 2, 3], &mut sum, ubccl::ReduceOp::Sum).expect("alone");
        comm.barrier().expect("alone");
        assert_eq!(sum, [1, 2, 3]);
        comm.close().expect("alone");
    }
}
