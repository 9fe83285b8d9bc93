//! One connection of HTTP/1.1: request by request, response by response.
//!
//! Bytes go on as they came unless a rule takes the message. What is not understood goes on
//! blindly, for the rest of the connection.

use std::future::{poll_fn, Future};
use std::io;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::bodies::Purse;
use super::edit;
use super::fallback;
use super::flow::{is_not_understood, Blind, Pump, Reader};
use super::framing::Framing;
use super::head::{self, Parsed, Request, Response};
use super::rules::Scope;
use super::timer;
use super::visit::{is_tls, Visit};

/// How a connection of HTTP/2 begins: RFC 9113, section 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client may send ahead while we still wait for the response before.
pub const AHEAD: usize = 16 << 10;

/// How long a goodbye may take.
const PARTING: Duration = Duration::from_millis(100);

/// What is to be done with the connection when its exchanges are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was said.
    Over,
    /// Somebody broke it off, or a rule does.
    Reset,
    /// Pass on what is held and what comes, without a look.
    Blind,
    /// It speaks HTTP/2; nothing of that is consumed.
    Http2,
    /// It rests, and we leave.
    Leaving,
}

/// May a server that speaks first have begun so in HTTP/2? It need not wait for its client before
/// it sends its SETTINGS: RFC 9113, section 3.4.
fn greets_in_http2(said: &[u8]) -> bool {
    let frame = [
        Some(0),
        None,
        None,
        Some(4),
        Some(0),
        Some(0),
        Some(0),
        Some(0),
        Some(0),
    ];
    let fits = |(said, byte): (&u8, &Option<u8>)| byte.is_none_or(|byte| byte == *said);
    said.len() < AHEAD && said.iter().zip(&frame).all(fits)
}

/// A client, a server, and what is under way between them.
pub struct Link<CR, CW, SR, SW> {
    pub client: Reader<CR>,
    pub to_client: CW,
    pub server: Reader<SR>,
    pub to_server: SW,
    /// The server was told that the client says no more.
    half_closed: bool,
    /// The server does not take the rest of a request.
    refused: bool,
}

impl<CR, CW, SR, SW> Link<CR, CW, SR, SW>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    pub fn new(client: (CR, CW), server: (SR, SW), purse: &Purse) -> Self {
        Self {
            client: Reader::new(client.0, purse),
            to_client: client.1,
            server: Reader::new(server.0, purse),
            to_server: server.1,
            half_closed: false,
            refused: false,
        }
    }

    /// Passes exchanges until there is a reason to stop.
    pub async fn exchanges(&mut self, visit: &Visit) -> End {
        let mut first = true;
        loop {
            if let Err(end) = self.exchange(visit, first).await {
                return end;
            }
            first = false;
        }
    }

    async fn exchange(&mut self, visit: &Visit, first: bool) -> Result<(), End> {
        let (scope, mut request) = self.request(visit, first).await?;
        match &scope {
            Some(scope) => scope.count(|tally| &tally.exchanges),
            None => request.offers_h2c = false, // it is none of our business
        }
        let untouched = request.taken.is_empty() && !request.offers_h2c && !request.is_to_be_read;
        let mut pump = match untouched {
            true => Pump::new(request.length, request.framing.clone()),
            false => self.change_request(&request).await?,
        };
        if let Some(method) = edit::method_of(&request.taken) {
            request.is_head = method == "HEAD";
        }
        let response = self.response(&request, &mut pump).await?;
        let untouched = response.taken.is_empty() && !request.is_misread(&response);
        let mut answer = match (untouched, &response.framing) {
            (true, Framing::UntilEnd) => return Err(End::Blind),
            (true, _) => Pump::new(response.length, response.framing.clone()),
            (false, _) => self.change_response(&request, &response).await?,
        };
        poll_fn(|context| {
            if let Poll::Ready(end) = self.poll_request(&mut pump, context) {
                return Poll::Ready(Err(end));
            }
            let sent = answer.poll(&mut self.server, &mut self.to_client, context);
            sent.map_err(
                |error| match self.server.ended || is_not_understood(&error) {
                    true => End::Blind, // it ends early, and the client is to see that
                    false => End::Reset,
                },
            )
        })
        .await?;
        if self.refused {
            return Err(End::Blind);
        }
        if request.asks_head && request.is_misread(&response) {
            return Err(End::Leaving); // what follows is for nobody, and may have no end
        }
        if !pump.done() {
            self.rest_of_request(&mut pump).await?;
        }
        Ok(())
    }

    /// Waits for the head of the next request.
    async fn request(
        &mut self,
        visit: &Visit,
        first: bool,
    ) -> Result<(Option<Arc<Scope>>, Request), End> {
        loop {
            let unasked = self.server.held();
            if self.server.ended || !(unasked.is_empty() || first && greets_in_http2(unasked)) {
                return Err(End::Blind);
            }
            let held = self.client.held();
            if !held.is_empty() {
                visit.busy();
                let scope = visit.scope();
                let start = &held[..held.len().min(PREFACE.len())];
                if first && PREFACE.starts_with(start) {
                    if start == PREFACE {
                        return Err(End::Http2);
                    }
                } else {
                    match head::request(held, scope.as_ref()) {
                        Parsed::Whole(request) => return Ok((scope, request)),
                        Parsed::Part if self.client.may_grow() => {}
                        Parsed::Part | Parsed::Foreign => {
                            let held = self.client.held();
                            visit.foreign(held, scope.as_deref());
                            let sealed = scope.filter(|_| is_tls(held));
                            if let Some(scope) = sealed {
                                if fallback::strikes(&scope).await {
                                    return Err(End::Reset);
                                }
                            }
                            return Err(End::Blind);
                        }
                    }
                }
            }
            if self.client.held().is_empty() {
                visit.idle();
                if visit.leaves() {
                    return Err(End::Leaving);
                }
            }
            if self.client.ended {
                return Err(End::Blind);
            }
            poll_fn(|context| {
                if let Poll::Ready(filled) = self.client.poll_fill(context) {
                    return Poll::Ready(filled);
                }
                self.server.poll_fill(context)
            })
            .await
            .map_err(|_| End::Reset)?;
        }
    }

    /// Sends the request, and waits for the head of its response; passes on what comes before that.
    async fn response(&mut self, request: &Request, pump: &mut Pump) -> Result<Response, End> {
        loop {
            let held = self.server.held();
            if !held.is_empty() {
                match head::response(held, request) {
                    Parsed::Whole(early) if early.code / 100 == 1 && early.code != 101 => {
                        let mut early = Pump::new(early.length, Framing::NONE);
                        poll_fn(|context| {
                            early.poll(&mut self.server, &mut self.to_client, context)
                        })
                        .await
                        .map_err(|_| End::Reset)?;
                        continue;
                    }
                    Parsed::Whole(response) => return Ok(response),
                    Parsed::Part if self.server.may_grow() => {}
                    Parsed::Part | Parsed::Foreign => return Err(End::Blind),
                }
            }
            if self.server.ended {
                return Err(End::Blind);
            }
            poll_fn(|context| {
                if let Poll::Ready(end) = self.poll_request(pump, context) {
                    return Poll::Ready(Err(end));
                }
                self.server.poll_fill(context).map_err(|_| End::Reset)
            })
            .await?;
        }
    }

    /// Goes on sending the request, and watches for the end of the client; ready only to break off.
    fn poll_request(&mut self, pump: &mut Pump, context: &mut Context) -> Poll<End> {
        if !pump.done() && !self.refused {
            match pump.poll(&mut self.client, &mut self.to_server, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if self.client.ended || is_not_understood(&error) => {
                    return Poll::Ready(End::Blind)
                }
                Poll::Ready(Err(_)) => self.refused = true, // it may have answered all the same
            }
        }
        while !self.client.ended && self.client.held().len() < AHEAD {
            match self.client.poll_fill(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(End::Reset),
            }
        }
        if self.client.ended && self.client.held().is_empty() && !self.half_closed {
            let shut = Pin::new(&mut self.to_server).poll_shutdown(context);
            self.half_closed = shut.is_ready();
        }
        Poll::Pending
    }

    /// The response was there before the request was over.
    async fn rest_of_request(&mut self, pump: &mut Pump) -> Result<(), End> {
        poll_fn(|context| {
            if let Poll::Ready(end) = self.poll_request(pump, context) {
                return Poll::Ready(Err(end));
            }
            if pump.done() {
                return Poll::Ready(Ok(()));
            }
            match self.server.poll_fill(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(_) => Poll::Ready(Err(End::Blind)),
            }
        })
        .await
    }

    /// Says to both sides that nothing more comes.
    pub async fn part(&mut self) -> End {
        let mut late = pin!(timer::sleep(PARTING));
        let (mut client, mut server) = (false, false);
        poll_fn(|context| {
            // Gone already, if these fail.
            client |= Pin::new(&mut self.to_client)
                .poll_shutdown(context)
                .is_ready();
            server |= Pin::new(&mut self.to_server)
                .poll_shutdown(context)
                .is_ready();
            match client && server || late.as_mut().poll(context).is_ready() {
                true => Poll::Ready(End::Over),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Passes on everything, both ways, until both have said that they are done.
    pub async fn blindly(&mut self) -> End {
        let (mut out, mut back) = (Blind::default(), Blind::default());
        let (mut sent, mut received): (Option<io::Result<()>>, Option<io::Result<()>>) =
            (None, None);
        poll_fn(|context| {
            if sent.is_none() {
                if let Poll::Ready(over) = out.poll(&mut self.client, &mut self.to_server, context)
                {
                    sent = Some(over);
                }
            }
            if received.is_none() {
                if let Poll::Ready(over) = back.poll(&mut self.server, &mut self.to_client, context)
                {
                    received = Some(over);
                }
            }
            match (&sent, &received) {
                (Some(_), Some(_)) => Poll::Ready(()),
                // Torn: the other end is to feel it once it has all that was said before.
                (Some(Err(_)), None) if self.server.held().is_empty() => Poll::Ready(()),
                (None, Some(Err(_))) if self.client.held().is_empty() => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        match (sent, received) {
            (Some(Ok(())), Some(Ok(()))) => End::Over,
            _ => End::Reset,
        }
    }
}
