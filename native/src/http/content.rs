//! Bodies of HTTP/2 on their way.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::bodies::{self, Purse};
use super::edit::{self, Body};
use super::grpc::Cut;
use super::rules::Armed;
use super::stream::Failure;

/// A body on its way.
pub enum Content {
    Stream(RecvStream),
    /// The start of it, and what follows.
    Started(Bytes, RecvStream),
    /// With its trailers.
    Whole(Bytes, Option<HeaderMap>),
}

/// Makes of a body what the rules say; where they need nothing of it, it is `left`.
pub async fn change(
    rules: &[Arc<Armed>],
    mut body: RecvStream,
    headers: &mut HeaderMap,
    left: fn(RecvStream),
    purse: &Purse,
) -> Result<Content, Failure> {
    let mut trailers = None;
    let came = match edit::body_for(rules) {
        Body::Kept => return Ok(Content::Stream(body)),
        Body::Dropped => {
            headers.remove(http::header::CONTENT_ENCODING);
            left(body);
            None
        }
        Body::Needed => {
            let (mut data, mut share) = (Vec::new(), purse.share());
            let length = headers.get(http::header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            if let Err(why) = share.grow(length.unwrap_or(0)) {
                // All of its room at once, rather than a part that others then lack.
                bodies::unpatched(rules, why);
                return Ok(Content::Stream(body));
            }
            while let Some(part) = body.data().await {
                let part = part?;
                data.extend_from_slice(&part);
                let _ = body.flow_control().release_capacity(part.len());
                if let Err(why) = share.grow(data.len()) {
                    bodies::unpatched(rules, why);
                    return Ok(Content::Started(purse.held(data), body));
                }
            }
            trailers = body.trailers().await?;
            Some(data)
        }
    };
    let new = edit::body(rules, came, purse);
    headers.insert(http::header::CONTENT_LENGTH, new.len().into());
    Ok(Content::Whole(new, trailers))
}

/// Lets who sends a body come to its end: clients take it for a failure if they may not.
pub fn swallow(mut body: RecvStream) {
    tokio::task::spawn_local(async move {
        while let Some(Ok(part)) = body.data().await {
            let _ = body.flow_control().release_capacity(part.len());
        }
    });
}

impl Content {
    pub fn empty() -> Self {
        Self::Whole(Bytes::new(), None)
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Started(..) => false,
            Self::Whole(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
        }
    }

    /// Sends it all, to its trailers, or to where it is cut.
    pub async fn send(
        self,
        to: &mut SendStream<Bytes>,
        mut cut: Option<Cut>,
    ) -> Result<(), Failure> {
        let (start, body) = match self {
            Self::Whole(bytes, trailers) => {
                send(to, bytes, trailers.is_none()).await?;
                return match trailers {
                    Some(trailers) => Ok(to.send_trailers(trailers)?),
                    None => Ok(()),
                };
            }
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
        let trailers = body.trailers().await?;
        match (trailers, cut) {
            (Some(mut trailers), cut) => {
                if let Some(cut) = cut {
                    cut.over(&mut trailers);
                }
                Ok(to.send_trailers(trailers)?)
            }
            (None, _) => Ok(to.send_data(Bytes::new(), true)?),
        }
    }
}

fn end(to: &mut SendStream<Bytes>, cut: Option<Cut>) -> Result<(), Failure> {
    let Some(cut) = cut else { return Ok(()) };
    Ok(to.send_trailers(cut.trailers())?)
}

/// The next part of a body, unless the one it is for has lost interest.
async fn next(body: &mut RecvStream, to: &mut SendStream<Bytes>) -> Option<Result<Bytes, Failure>> {
    poll_fn(|context| {
        if let Poll::Ready(part) = body.poll_data(context) {
            return Poll::Ready(part.map(|part| Ok(part?)));
        }
        match to.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(Some(Err(Failure::Reset(Reason::CANCEL)))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Sends bytes as the receiver takes them.
async fn send(to: &mut SendStream<Bytes>, mut bytes: Bytes, last: bool) -> Result<(), Failure> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = poll_fn(|context| to.poll_capacity(context)).await;
        let room = room.ok_or(Failure::Reset(Reason::CANCEL))??;
        let part = bytes.split_to(room.min(bytes.len()));
        to.send_data(part, last && bytes.is_empty())?;
    }
    Ok(())
}
