//! Messages of HTTP/1.1 that rules take: stopped, slowed, changed.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::bodies::{self, Unheld};
use super::edit::{self, Body};
use super::exchange::{End, Link};
use super::flow::{Pump, Reader};
use super::framing::Framing;
use super::head::{Request, Response};
use super::lines::Lines;
use super::rules::{add_one, Armed};
use super::timer;

/// So short a body goes into one segment with its head.
const SHORT: usize = 1 << 10;

impl<CR, CW, SR, SW> Link<CR, CW, SR, SW>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    /// Does to a request what its rules say; it is to be sent as the pump says then.
    pub async fn change_request(&mut self, request: &Request) -> Result<Pump, End> {
        let rules = &request.taken;
        suffer(rules).await?;
        if !edits(rules) && !request.offers_h2c && !request.is_to_be_read {
            return Ok(Pump::new(request.length, request.framing.clone()));
        }
        let mut lines = Lines::new(&self.client.held()[..request.length], true);
        if request.offers_h2c {
            lines.stay_http1();
        }
        if request.is_to_be_read {
            use edit::Editable;
            lines.set_header("Accept-Encoding", edit::PLAIN);
        }
        for armed in rules {
            edit::head(armed, &mut lines);
        }
        let body = edit::body_for(rules);
        if body != Body::Kept && request.expects {
            use edit::Editable;
            // We are who waits for the body, so we say that it may come.
            let go_on = self
                .to_client
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await;
            go_on.map_err(|_| End::Reset)?;
            lines.remove_header("expect");
        }
        change(
            &mut self.client,
            rules,
            lines,
            request.length,
            &request.framing,
            body,
        )
        .await
    }

    /// The same for a response.
    pub async fn change_response(
        &mut self,
        request: &Request,
        response: &Response,
    ) -> Result<Pump, End> {
        use edit::Editable;
        let rules = &response.taken;
        suffer(rules).await?;
        let until_end = response.framing == Framing::UntilEnd;
        let misread = request.is_misread(response);
        if !edits(rules) && !misread {
            return match until_end {
                true => Err(End::Blind),
                false => Ok(Pump::new(response.length, response.framing.clone())),
            };
        }
        let mut lines = Lines::new(&self.server.held()[..response.length], false);
        for armed in rules {
            edit::head(armed, &mut lines);
        }
        let code = rules
            .iter()
            .filter_map(|armed| edit::code_of(armed))
            .next_back();
        let bodiless = |code: u16| matches!(code, 204 | 304);
        if request.asks_head {
            let bytes = lines.bytes();
            self.server.splice(response.length, &bytes);
            return Ok(Pump::new(bytes.len(), Framing::NONE));
        }
        let mut body = edit::body_for(rules);
        if bodiless(response.code) || misread {
            if body == Body::Needed {
                bodies::unpatched(rules, Unheld::TooLong);
                body = Body::Kept;
            }
            if body == Body::Kept && !bodiless(code.unwrap_or(response.code)) {
                lines.set_length(0);
            }
        }
        if bodiless(code.unwrap_or(response.code)) {
            lines.remove_header("content-length");
            lines.remove_header("transfer-encoding");
            let bytes = lines.bytes();
            drain(&mut self.server, response.length, &response.framing).await?;
            self.server.splice(0, &bytes);
            return Ok(Pump::new(bytes.len(), Framing::NONE));
        }
        let changed = change(
            &mut self.server,
            rules,
            lines,
            response.length,
            &response.framing,
            body,
        );
        let pump = changed.await?;
        match until_end && body == Body::Kept {
            true => Err(End::Blind), // with the new head in front
            false => Ok(pump),
        }
    }
}

/// Stops or slows an exchange.
pub async fn suffer(rules: &[Arc<Armed>]) -> Result<(), End> {
    for armed in rules {
        if armed.rule.abort {
            add_one(&armed.tally.aborted);
            return Err(End::Reset);
        }
        if let Some(delay) = armed.delay() {
            timer::sleep(delay).await;
        }
    }
    Ok(())
}

fn edits(rules: &[Arc<Armed>]) -> bool {
    rules
        .iter()
        .any(|armed| armed.rule.replace.is_some() || armed.rule.patch.is_some())
}

/// Puts the new head, and the new body where there is one, in front of what is held.
async fn change<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    rules: &[Arc<Armed>],
    mut lines: Lines,
    length: usize,
    framing: &Framing,
    body: Body,
) -> Result<Pump, End> {
    use edit::Editable;
    let came = match body {
        Body::Kept => None,
        Body::Dropped => {
            lines.remove_header("content-encoding");
            drain(reader, length, framing).await?;
            Some(None)
        }
        Body::Needed => {
            let came = collect(reader, length, framing).await?;
            came.map_or_else(
                |why| {
                    bodies::unpatched(rules, why);
                    None
                },
                |data| Some(Some(data)),
            )
        }
    };
    let Some(came) = came else {
        let bytes = lines.bytes();
        reader.splice(length, &bytes);
        return Ok(Pump::new(bytes.len(), framing.clone()));
    };
    let new = edit::body(rules, came, reader.purse());
    lines.set_length(new.len());
    let mut bytes = lines.bytes();
    let short = new.len() <= SHORT;
    if short {
        bytes.extend_from_slice(&new);
    }
    reader.splice(0, &bytes);
    let pump = Pump::new(bytes.len(), Framing::NONE);
    Ok(if short { pump } else { pump.then(new) })
}

/// Throws away a head of `length` and its body.
async fn drain<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    length: usize,
    framing: &Framing,
) -> Result<(), End> {
    reader.consume(length);
    let mut framing = framing.clone();
    loop {
        let count = framing.take(reader.held()).map_err(|_| End::Reset)?;
        reader.consume(count);
        if framing.done() || reader.ended && framing == Framing::UntilEnd {
            return Ok(());
        }
        if reader.fill().await.map_err(|_| End::Reset)? == 0 && framing != Framing::UntilEnd {
            return Err(End::Reset);
        }
    }
}

/// Takes out a head of `length` and its body, and gives the data of the body; where it is not held,
/// everything is still there.
async fn collect<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    length: usize,
    framing: &Framing,
) -> Result<Result<Vec<u8>, Unheld>, End> {
    let mut seen = framing.clone();
    let mut end = length;
    if let Framing::Length(body) = framing {
        // All of its room at once, rather than a part that others then lack.
        if let Err(why) = reader.hold(length.saturating_add(*body as usize)) {
            return Ok(Err(why));
        }
    }
    loop {
        // What is not understood goes on as it came, with all that is held.
        end += seen.take(&reader.held()[end..]).map_err(|_| End::Blind)?;
        if seen.done() || reader.ended && seen == Framing::UntilEnd {
            break;
        }
        if let Err(why) = reader.hold(end) {
            return Ok(Err(why));
        }
        if reader.fill().await.map_err(|_| End::Reset)? == 0 && seen != Framing::UntilEnd {
            return Err(End::Blind); // it ends early, and the other side is to see that
        }
    }
    let data = framing
        .decode(&reader.held()[length..end])
        .map_err(|_| End::Reset)?;
    reader.consume(end);
    Ok(Ok(data))
}
