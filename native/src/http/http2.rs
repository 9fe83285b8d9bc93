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
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::change::{suffer, LONGEST_BODY};
use super::edit::{self, Body};
use super::exchange::{End, Link};
use super::flow::Reader;
use super::grpc::{self, Cut};
use super::parts::Head;
use super::rules::{add_one, Armed};
use super::visit::Visit;

/// What a sender may send ahead, for a stream and for a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const WINDOW: u32 = 1 << 20;

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
        .initial_connection_window_size(WINDOW);
    builder.enable_push(false);
    let (upstream, mut server) = builder.handshake::<_, Bytes>(server).await?;
    let client = Side(&mut link.client, &mut link.to_client);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW);
    let mut client = builder.handshake::<_, Bytes>(client).await?;
    let mut upstream = Some(upstream);
    let mut leaving = false;
    poll_fn(|context| loop {
        if !leaving && Pin::new(&mut server).poll(context).is_ready() {
            leaving = true; // what is under way may end
            upstream = None;
            client.graceful_shutdown();
        }
        match client.poll_accept(context) {
            Poll::Ready(Some(Ok((request, mut respond)))) => match &upstream {
                Some(upstream) => {
                    let (upstream, visit) = (upstream.clone(), visit.clone());
                    tokio::task::spawn_local(async move {
                        if let Err(reason) = exchange(request, &mut respond, upstream, &visit).await
                        {
                            respond.send_reset(reason);
                        }
                    });
                }
                None => respond.send_reset(Reason::REFUSED_STREAM),
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
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
    let ends = content.is_empty();
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
    pass_response(response, respond, awaiting).await
}

/// Waits for the response, or for the client to lose interest.
async fn answered(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Response<RecvStream>, Reason> {
    poll_fn(|context| {
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
    let content = change(&taken, body, &mut parts.headers).await?;
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

/// A body on its way.
enum Content {
    Stream(RecvStream),
    /// The start of it, and what follows.
    Started(Bytes, RecvStream),
    Whole(Bytes),
}

/// Makes of a body what the rules say.
async fn change(
    rules: &[Arc<Armed>],
    mut body: RecvStream,
    headers: &mut http::HeaderMap,
) -> Result<Content, Reason> {
    let came = match edit::body_for(rules) {
        Body::Kept => return Ok(Content::Stream(body)),
        Body::Dropped => {
            headers.remove(http::header::CONTENT_ENCODING);
            None
        }
        Body::Needed => {
            let mut data = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.map_err(reason)?;
                data.extend_from_slice(&part);
                let _ = body.flow_control().release_capacity(part.len());
                if data.len() > LONGEST_BODY {
                    rules
                        .iter()
                        .for_each(|armed| add_one(&armed.tally.unpatchable));
                    return Ok(Content::Started(data.into(), body));
                }
            }
            Some(data)
        }
    };
    let new = edit::body(rules, came);
    headers.insert(http::header::CONTENT_LENGTH, new.len().into());
    Ok(Content::Whole(new.into()))
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Started(..) => false,
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    /// Sends it all, to its trailers, or to where it is cut.
    async fn send(self, to: &mut SendStream<Bytes>, mut cut: Option<Cut>) -> Result<(), Reason> {
        let (start, body) = match self {
            Self::Whole(bytes) => return send(to, bytes, true).await,
            Self::Started(bytes, body) => (Some(bytes), body),
            Self::Stream(body) => (None, body),
        };
        let mut body = body;
        if let Some(bytes) = start {
            send(to, bytes, false).await?;
        }
        if cut.as_ref().is_some_and(Cut::is_due) {
            return end(to, cut);
        }
        while let Some(part) = next(&mut body, to).await {
            let mut part = part?;
            let count = part.len();
            if let Some(cut) = &mut cut {
                part.truncate(cut.pass(&part));
            }
            send(to, part, false).await?;
            let _ = body.flow_control().release_capacity(count);
            if cut.as_ref().is_some_and(Cut::is_due) {
                return end(to, cut);
            }
        }
        let trailers = body.trailers().await.map_err(reason)?;
        match (trailers, cut) {
            (Some(mut trailers), cut) => {
                if let Some(cut) = cut {
                    cut.over(&mut trailers);
                }
                to.send_trailers(trailers).map_err(reason)
            }
            (None, _) => to.send_data(Bytes::new(), true).map_err(reason),
        }
    }
}

fn end(to: &mut SendStream<Bytes>, cut: Option<Cut>) -> Result<(), Reason> {
    let Some(cut) = cut else { return Ok(()) };
    to.send_trailers(cut.trailers()).map_err(reason)
}

/// The next part of a body, unless the one it is for has lost interest.
async fn next(body: &mut RecvStream, to: &mut SendStream<Bytes>) -> Option<Result<Bytes, Reason>> {
    poll_fn(|context| {
        if let Poll::Ready(part) = body.poll_data(context) {
            return Poll::Ready(part.map(|part| part.map_err(reason)));
        }
        match to.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(Some(Err(Reason::CANCEL))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Sends bytes as the receiver takes them.
async fn send(to: &mut SendStream<Bytes>, mut bytes: Bytes, last: bool) -> Result<(), Reason> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = poll_fn(|context| to.poll_capacity(context)).await;
        let room = room.ok_or(Reason::CANCEL)?.map_err(reason)?;
        let part = bytes.split_to(room.min(bytes.len()));
        to.send_data(part, last && bytes.is_empty())
            .map_err(reason)?;
    }
    Ok(())
}

fn reason(error: h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::INTERNAL_ERROR)
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
