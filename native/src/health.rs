//! `squall-node health SOCKET [--ready]`: ask a controller or an agent how it is, for kubelet.
//!
//! Kubelet asks every few seconds on every node: this takes a millisecond, a start of Python a
//! hundred times as long.

use crate::failure::{Failure, Outcome, While};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// An event loop that has not turned for so long counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
const OK: &str = "HTTP/1.1 200 ";

pub fn run(arguments: &[String]) -> Outcome<i32> {
    let (socket, question) = match arguments {
        [socket] => (socket, "/healthz"),
        [socket, ready] if ready == "--ready" => (socket, "/readyz"),
        _ => return Err(Failure::new("usage: squall-node health SOCKET [--ready]")),
    };
    let answer = ask(socket, question).on(socket)?;
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    println!("{}", said.trim());
    Ok(i32::from(!answer.starts_with(OK)))
}

fn ask(socket: &str, question: &str) -> std::io::Result<String> {
    let mut line = UnixStream::connect(socket)?;
    line.set_read_timeout(Some(ANSWER))?;
    line.set_write_timeout(Some(ANSWER))?;
    write!(line, "GET {question} HTTP/1.1\r\nHost: squall\r\n\r\n")?;
    let mut answer = String::new();
    line.read_to_string(&mut answer)?;
    Ok(answer)
}
