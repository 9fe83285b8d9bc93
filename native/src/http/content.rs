//! Bodies of HTTP/2 on their way.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::bodies::{self, Share};
use super::edit::{self, Body};
use super::grpc::Cut;
use super::rules::Armed;

/// A body on its way.
pub enum Content {
    Stream(RecvStream),
    /// The start of it, and what follows.
    Started(Bytes, RecvStream),
    Whole(Bytes),
}

/// Makes of a body what the rules say.
pub async fn change(
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
            let (mut data, mut share) = (Vec::new(), Share::default());
            while let Some(part) = body.data().await {
                let part = part.map_err(reason)?;
                data.extend_from_slice(&part);
                let _ = body.flow_control().release_capacity(part.len());
                if let Err(why) = share.grow(data.len()) {
                    bodies::unpatched(rules, why);
                    return Ok(Content::Started(bodies::held(data), body));
                }
            }
            Some(data)
        }
    };
    let new = edit::body(rules, came);
    headers.insert(http::header::CONTENT_LENGTH, new.len().into());
    Ok(Content::Whole(new))
}

impl Content {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Started(..) => false,
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    /// Sends it all, to its trailers, or to where it is cut.
    pub async fn send(
        self,
        to: &mut SendStream<Bytes>,
        mut cut: Option<Cut>,
    ) -> Result<(), Reason> {
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

/// What a stream is reset with, where the other side of it has failed so.
pub fn reason(error: h2::Error) -> Reason {
    match error.is_go_away() && error.is_remote() {
        // It has not looked at the stream, and the client may ask again: RFC 9113, section 6.8.
        true => Reason::REFUSED_STREAM,
        false => error.reason().unwrap_or(Reason::INTERNAL_ERROR),
    }
}
