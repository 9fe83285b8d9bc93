//! The native half of Squall: one program, one subcommand for each thing it holds.

mod aside;
mod bpf;
mod detach;
mod dns;
mod exec;
mod failure;
mod files;
mod health;
mod holder;
mod http;
mod netns;
mod nft;
mod packets;
mod process;
mod ptrace;
mod rpc;
mod sandbox;
mod stress;
mod system;
mod watch;

use failure::Failure;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match arguments.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("", &[][..]),
    };
    let outlives = matches!(
        verb,
        "dns" | "files" | "http" | "packets" | "stress" | "watch"
    );
    if outlives {
        aside::stand();
    }
    let outcome = match verb {
        "dns" => Ok(dns::run(rest)),
        "exec" => exec::run(rest),
        "files" => Ok(files::run(rest)),
        "files-restore" => files::restore(rest),
        "filter" => files::filter::alone::run(rest),
        "health" => health::run(rest),
        "http" => Ok(http::run(rest)),
        "netns" => netns::run(rest),
        "packets" => Ok(packets::run(rest)),
        "sandbox" => sandbox::run(rest),
        "stress" => stress::run(rest),
        "watch" => watch::run(rest),
        _ => Err(Failure::new(
            "usage: squall-node dns|exec|files|files-restore|filter|health|http|netns|packets|sandbox|stress|watch ...",
        )),
    };
    if outlives {
        aside::leave();
    }
    std::process::exit(outcome.unwrap_or_else(|failure| {
        eprintln!("squall-node {verb}: {}", failure.message);
        failure.status
    }));
}
