//! One exchange of HTTP/2, as rules take and change it.

use std::future::{poll_fn, Future};
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, Version};

use super::bodies::Purse;
use super::change::suffer;
use super::content::{change, swallow, Content};
use super::edit;
use super::grpc::{self, Cut};
use super::parts::Head;
use super::rules::{add_one, Armed};
use super::visit::Visit;

/// Why a stream does not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The other side of it is to be reset, with this.
    Reset(Reason),
    /// A connection was lost, and nobody has said anything about the stream.
    Lost,
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        if error.is_io() {
            return Self::Lost;
        }
        // Who goes away has not looked at the stream, and the client may ask again: RFC 9113,
        // section 6.8.
        Self::Reset(match error.is_go_away() && error.is_remote() {
            true => Reason::REFUSED_STREAM,
            false => error.reason().unwrap_or(Reason::INTERNAL_ERROR),
        })
    }
}

impl Failure {
    /// What the other side is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::Reset(reason) => reason,
            Self::Lost => Reason::CANCEL,
        }
    }
}

/// Passes one request and its response.
pub async fn exchange(
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    upstream: SendRequest<Bytes>,
    visit: &Visit,
) -> Result<(), Failure> {
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
    suffering(&taken, respond).await?;
    if let Some(end) = taken.iter().find(|armed| armed.rule.grpc.is_some()) {
        add_one(&end.tally.ended);
        let sent = respond.send_response(grpc::answer(end), true);
        return Ok(sent.map(drop)?);
    }
    let asks_head = parts.method == http::Method::HEAD;
    for armed in &taken {
        edit::head(armed, &mut Head::request(&mut parts));
    }
    if awaiting.iter().any(|armed| armed.rule.patches_body()) {
        if let Some(accepted) = parts.headers.get_mut(http::header::ACCEPT_ENCODING) {
            *accepted = http::HeaderValue::from_static(edit::PLAIN); // for we are to read it
        }
    }
    let content = change(&taken, body, &mut parts.headers, swallow, &visit.purse).await?;
    let ends = content.is_empty();
    let becomes_head = !asks_head && parts.method == http::Method::HEAD;
    if parts.uri.authority().is_none() {
        parts.version = Version::HTTP_11; // which lets it be, as RFC 9113, section 8.3.1, does
    }
    let mut upstream = upstream.ready().await?;
    let (response, up) = upstream.send_request(Request::from_parts(parts, ()), ends)?;
    if !ends {
        tokio::task::spawn_local(async move {
            let mut up = up;
            if let Err(failure) = content.send(&mut up, None).await {
                up.send_reset(failure.reason());
            }
        });
    }
    let mut response = answered(response, respond).await?;
    if becomes_head {
        // Its client waits for no body that the server has only told of.
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    pass_response(response, respond, awaiting, asks_head, &visit.purse).await
}

/// Waits for the response, and passes on what comes before it.
async fn answered(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Response<RecvStream>, Failure> {
    poll_fn(|context| {
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(context) {
            let _ = respond.send_informational(early); // the client has gone, if this fails
        }
        if let Poll::Ready(answered) = Pin::new(&mut response).poll(context) {
            return Poll::Ready(Ok(answered?));
        }
        match respond.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(Err(Failure::Reset(Reason::CANCEL))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn suffering(rules: &[Arc<Armed>], respond: &mut SendResponse<Bytes>) -> Result<(), Failure> {
    let suffered = unless_left(respond, suffer(rules)).await?;
    suffered.map_err(|_| Failure::Reset(Reason::INTERNAL_ERROR))
}

/// Waits for something, or for the client to lose interest.
async fn unless_left<T>(
    respond: &mut SendResponse<Bytes>,
    awaited: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut awaited = pin!(awaited);
    poll_fn(|context| {
        if let Poll::Ready(came) = awaited.as_mut().poll(context) {
            return Poll::Ready(Ok(came));
        }
        match respond.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(Err(Failure::Reset(Reason::CANCEL))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn pass_response(
    response: Response<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    awaiting: Vec<Arc<Armed>>,
    asks_head: bool,
    purse: &Purse,
) -> Result<(), Failure> {
    let (mut parts, body) = response.into_parts();
    let code = parts.status.as_u16();
    let head = Head::response(&mut parts);
    let fits = awaiting
        .into_iter()
        .filter(|armed| armed.fits_response(code, &head));
    let taken: Vec<_> = fits.filter(|armed| armed.takes()).collect();
    suffering(&taken, respond).await?;
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
    let content = match asks_head || bodiless {
        true => Content::empty(),
        false => {
            let changed = change(&taken, body, &mut parts.headers, drop, purse);
            unless_left(respond, changed).await??
        }
    };
    let ends = content.is_empty();
    let mut down = respond.send_response(Response::from_parts(parts, ()), ends)?;
    match ends {
        true => Ok(()),
        false => {
            content
                .send(&mut down, end.map(|armed| Cut::new(armed.clone())))
                .await
        }
    }
}
