//! `squall-node`: what holds faults inside a target, one process per target and module.

mod detach;
mod packets;
mod rpc;
mod system;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (module, rest) = match arguments.split_first() {
        Some((module, rest)) => (module.as_str(), rest),
        None => ("", &[][..]),
    };
    let status = match module {
        "packets" => packets::run(rest),
        _ => {
            system::log("usage: squall-node packets ...");
            system::EXIT_USAGE
        }
    };
    std::process::exit(status);
}
