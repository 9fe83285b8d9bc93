//! Connections of HTTP/2: stream by stream, with the same rules.
//!
//! Here nothing is passed on byte by byte, for headers are compressed by what came before them:
//! names, values and data stay, frames and their order are made anew.

use std::future::{poll_fn, Future};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::change::suffer;
use super::content::{change, reason, Content};
use super::edit;
use super::exchange::{End, Link};
use super::flow::Reader;
use super::grpc::{self, Cut};
use super::head::LONGEST;
use super::parts::Head;
use super::rules::{add_one, Armed};
use super::visit::Visit;

/// What a sender may send ahead, for a stream and for a connection: streams that nobody reads must
/// not take the room of those that are read.
const STREAM_WINDOW: u32 = 256 << 10;
const WINDOW: u32 = 256 * STREAM_WINDOW;

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
    visit.idle();
    let passed = connection(link, visit).await;
    match passed {
        Ok(()) => End::Over,
        Err(_) => End::Reset,
    }
}

async fn connection<CR, CW, SR, SW>(
    link: &mut Link<CR, CW, SR, SW>,
    visit: &Rc<Visit>,
) -> Result<(), h2::Error>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    let server = Side(&mut link.server, &mut link.to_server);
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(LONGEST as u32);
    builder.enable_push(false);
    let (upstream, mut server) = builder.handshake::<_, Bytes>(server).await?;
    let client = Side(&mut link.client, &mut link.to_client);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(LONGEST as u32);
    let mut client = builder.handshake::<_, Bytes>(client).await?;
    let mut upstream = Some(upstream);
    let mut leaving = false;
    poll_fn(|context| loop {
        if !leaving && Pin::new(&mut server).poll(context).is_ready() {
            leaving = true; // what is under way may end
            upstream = None;
            client.graceful_shutdown();
        }
        let Poll::Ready(accepted) = client.poll_accept(context) else {
            return Poll::Pending;
        };
        let goes_away = |server: &mut SendRequest<Bytes>| {
            matches!(server.poll_ready(context), Poll::Ready(Err(_)))
        };
        if upstream.as_mut().is_some_and(goes_away) {
            upstream = None; // it takes no more, and is to end when all is answered
            client.graceful_shutdown();
        }
        match accepted {
            Some(Ok((request, mut respond))) => match &upstream {
                Some(upstream) => {
                    let (upstream, visit) = (upstream.clone(), visit.clone());
                    visit.enter();
                    tokio::task::spawn_local(async move {
                        let passed = exchange(request, &mut respond, upstream, &visit).await;
                        if let Err(reason) = passed {
                            respond.send_reset(reason);
                        }
                        visit.exit();
                    });
                }
                None => respond.send_reset(Reason::REFUSED_STREAM),
            },
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(())),
        }
    })
    .await
}

/// Passes one request and its response; the reason is what the stream is then reset with.
async fn exchange(
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    upstream: SendRequest<Bytes>,
    visit: &Visit,
) -> Result<(), Reason> {
    let (mut parts, body) = request.into_parts();
    let (mut taken, mut awaiting): (Vec<Arc<Armed>>, Vec<Arc<Armed>>) = (Vec::new(), Vec::new());
    if let Some(scope) = visit.scope() {
        scope.count(|tally| &tally.exchanges);
        let head = Head::request(&mut parts);
        let fits =
            |armed: &&Arc<Armed>| armed.fits_request(&head) && grpc::fits(armed, head.headers);
        let found = scope
            .requests
            .iter()
            .filter(fits)
            .filter(|armed| armed.takes());
        taken = found.cloned().collect();
        awaiting = scope.responses.iter().filter(fits).cloned().collect();
    }
    suffer(&taken).await.map_err(|_| Reason::INTERNAL_ERROR)?;
    if let Some(end) = taken.iter().find(|armed| armed.rule.grpc.is_some()) {
        add_one(&end.tally.ended);
        let sent = respond.send_response(grpc::answer(end), true);
        return sent.map(drop).map_err(reason);
    }
    for armed in &taken {
        edit::head(armed, &mut Head::request(&mut parts));
    }
    let content = change(&taken, body, &mut parts.headers).await?;
    let (ends, is_head) = (content.is_empty(), parts.method == http::Method::HEAD);
    let mut upstream = upstream.ready().await.map_err(reason)?;
    let sent = upstream.send_request(Request::from_parts(parts, ()), ends);
    let (response, up) = sent.map_err(reason)?;
    if !ends {
        tokio::task::spawn_local(async move {
            let mut up = up;
            if let Err(reason) = content.send(&mut up, None).await {
                up.send_reset(reason);
            }
        });
    }
    let response = answered(response, respond).await?;
    pass_response(response, respond, awaiting, is_head).await
}

/// Waits for the response, or for the client to lose interest.
async fn answered(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Response<RecvStream>, Reason> {
    poll_fn(|context| {
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(context) {
            let _ = respond.send_informational(early); // the client has gone, if this fails
        }
        if let Poll::Ready(answered) = Pin::new(&mut response).poll(context) {
            return Poll::Ready(answered.map_err(reason));
        }
        match respond.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(Err(Reason::CANCEL)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn pass_response(
    response: Response<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    awaiting: Vec<Arc<Armed>>,
    is_head: bool,
) -> Result<(), Reason> {
    let (mut parts, body) = response.into_parts();
    let code = parts.status.as_u16();
    let head = Head::response(&mut parts);
    let fits = awaiting
        .into_iter()
        .filter(|armed| armed.fits_response(code, &head));
    let taken: Vec<_> = fits.filter(|armed| armed.takes()).collect();
    suffer(&taken).await.map_err(|_| Reason::INTERNAL_ERROR)?;
    for armed in &taken {
        edit::head(armed, &mut Head::response(&mut parts));
    }
    let end = taken.iter().find(|armed| armed.rule.grpc.is_some());
    if let Some(end) = end.filter(|_| body.is_end_stream()) {
        grpc::end_at_once(end, &mut parts.headers);
    }
    let bodiless = matches!(parts.status.as_u16(), 204 | 304);
    if bodiless && parts.status.as_u16() != code {
        parts.headers.remove(http::header::CONTENT_LENGTH);
    }
    let content = match is_head || bodiless {
        true => Content::Whole(Bytes::new()),
        false => change(&taken, body, &mut parts.headers).await?,
    };
    let ends = content.is_empty();
    let sent = respond.send_response(Response::from_parts(parts, ()), ends);
    let mut down = sent.map_err(reason)?;
    match ends {
        true => Ok(()),
        false => {
            content
                .send(&mut down, end.map(|armed| Cut::new(armed.clone())))
                .await
        }
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
