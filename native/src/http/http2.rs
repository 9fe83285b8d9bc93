//! Connections of HTTP/2: stream by stream, with the same rules.
//!
//! Here nothing is passed on byte by byte, for headers are compressed by what came before them:
//! names, values and data stay, frames and their order are made anew.

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, Future};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ahead::Ahead;
use super::exchange::{End, Link, AHEAD};
use super::flow::Reader;
use super::head::LONGEST;
use super::stream::{self, Failure};
use super::timer;
use super::visit::Visit;

/// Streams of a connection to a server that sets no limit; a client that never ends one must not
/// fill our memory.
const MOST_STREAMS: usize = 1 << 14;

/// Requests that may be taken back before we have looked at them. More at once is an attack: all
/// that came in one read is seen at once, and clients do give up many together.
const MOST_TAKEN_BACK: usize = 2000;

/// So long after the end of a stream that is on its way too.
const SENT: Duration = Duration::from_millis(50);

/// One side of a link, as one.
struct Side<'a, R, W>(&'a mut Reader<R>, &'a mut W);

/// Passes streams until one side ends the connection.
pub async fn pass<CR, CW, SR, SW>(link: &mut Link<CR, CW, SR, SW>, visit: &Rc<Visit>) -> End
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    visit.tells();
    visit.idle();
    connection(link, visit).await.unwrap_or(End::Reset)
}

async fn connection<CR, CW, SR, SW>(
    link: &mut Link<CR, CW, SR, SW>,
    visit: &Rc<Visit>,
) -> Result<End, h2::Error>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    let ahead = Ahead::take();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(ahead.of_stream())
        .initial_connection_window_size(ahead.of_connection())
        .data_frame_budget(ahead.of_frames())
        .max_header_list_size(LONGEST as u32)
        .max_local_error_reset_streams(None) // a stream given up often has more to say
        .initial_max_send_streams(0) // until the server has said how many
        .enable_push(false);
    let server = Side(&mut link.server, &mut link.to_server);
    let (upstream, mut server) = builder.handshake::<_, Bytes>(server).await?;
    if !greeted(&mut link.client, &upstream, &mut server).await? {
        return Ok(End::Over);
    }
    let mut builder = h2::server::Builder::new();
    let streams = upstream.current_max_send_streams().min(MOST_STREAMS);
    builder
        .initial_window_size(ahead.of_stream())
        .initial_connection_window_size(ahead.of_connection())
        .data_frame_budget(ahead.of_frames())
        .max_local_error_reset_streams(None)
        .max_concurrent_streams(streams as u32)
        .max_pending_accept_reset_streams(MOST_TAKEN_BACK)
        .max_header_list_size(LONGEST as u32);
    if upstream.is_extended_connect_protocol_enabled() {
        builder.enable_connect_protocol();
    }
    let client = Side(&mut link.client, &mut link.to_client);
    let mut client = builder.handshake::<_, Bytes>(client).await?;
    let mut upstream = Some(upstream);
    let (exchanges, mut over) = (Rc::new(Exchanges::default()), None);
    let mut is_used = false; // though we are to leave
    poll_fn(|context| loop {
        if over.is_none() {
            if let Poll::Ready(ended) = Pin::new(&mut server).poll(context) {
                over = Some(ended.map_or(End::Reset, |()| End::Over));
            }
        }
        let goes_away = |server: &mut SendRequest<Bytes>| {
            over.is_some() || matches!(server.poll_ready(context), Poll::Ready(Err(_)))
        };
        if upstream.as_mut().is_some_and(goes_away) {
            upstream = None; // it takes no more, and ends when all is answered
            client.graceful_shutdown();
        }
        // Some clients give up the streams that they have when they are told to go away: who asks
        // for nothing more is told at the end of them.
        let rests = exchanges.rest(context);
        if visit.is_to_leave(context) && (is_used || rests || visit.is_late()) {
            client.graceful_shutdown();
        }
        let Poll::Ready(accepted) = client.poll_accept(context) else {
            return match over.filter(|_| exchanges.are_lost()) {
                Some(end) => Poll::Ready(Ok(end)),
                None => Poll::Pending,
            };
        };
        match accepted {
            Some(Ok((request, mut respond))) => match &upstream {
                Some(upstream) => {
                    let (upstream, visit) = (upstream.clone(), visit.clone());
                    let exchanges = exchanges.clone();
                    exchanges.running.set(exchanges.running.get() + 1);
                    visit.busy();
                    is_used |= visit.leaves();
                    tokio::task::spawn_local(async move {
                        let passed =
                            stream::exchange(request, &mut respond, upstream, &visit).await;
                        if visit.leaves() {
                            timer::sleep(SENT).await; // a goodbye would overtake its end
                        }
                        if exchanges.end(passed, respond) == 0 {
                            visit.idle();
                        }
                    });
                }
                None => respond.send_reset(Reason::REFUSED_STREAM),
            },
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(End::Over)),
        }
    })
    .await
}

/// Waits until the server has said what it takes, for its client is to hear the same from us; is
/// there still somebody?
async fn greeted<CR: AsyncRead + Unpin, S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Reader<CR>,
    upstream: &SendRequest<Bytes>,
    server: &mut h2::client::Connection<S, Bytes>,
) -> Result<bool, h2::Error> {
    poll_fn(|context| {
        if Pin::new(&mut *server).poll(context)?.is_ready() {
            return Poll::Ready(Ok(false));
        }
        if upstream.current_max_send_streams() > 0 {
            return Poll::Ready(Ok(true));
        }
        while client.held().len() < AHEAD {
            match client.poll_fill(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Pending
    })
    .await
}

/// Those of one connection.
#[derive(Default)]
struct Exchanges {
    running: Cell<usize>,
    /// The server's connection was lost before they were answered. Their client is to lose its
    /// own, and not to hear of a failure that no server has told.
    lost: RefCell<Vec<SendResponse<Bytes>>>,
    waker: RefCell<Option<Waker>>,
}

impl Exchanges {
    /// Notes the end of one; says how many are left.
    fn end(&self, passed: Result<(), Failure>, mut respond: SendResponse<Bytes>) -> usize {
        self.running.set(self.running.get() - 1);
        match passed {
            Ok(()) => {}
            Err(Failure::Reset(reason)) => respond.send_reset(reason),
            Err(Failure::Lost) => self.lost.borrow_mut().push(respond),
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        self.running.get()
    }

    /// Is none under way? Wakes whoever has asked when one ends.
    fn rest(&self, context: &Context) -> bool {
        self.waker.replace(Some(context.waker().clone()));
        self.running.get() == 0
    }

    /// Has all been passed on that came before the end, and was that not all there should be?
    fn are_lost(&self) -> bool {
        self.running.get() == 0 && !self.lost.borrow().is_empty()
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Side<'_, R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        into: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, into)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Side<'_, R, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.1).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.1).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.1).poll_shutdown(context)
    }
}
