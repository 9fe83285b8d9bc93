//! TLS opened in the middle: first the server is called as the client would have, then the client
//! is answered in the server's name.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server, LazyConfigAcceptor, StartHandshake, TlsConnector};

use super::rules::Scope;
use super::secrets::Secrets;
use super::visit::Visit;

/// What came of it.
pub enum Opened {
    /// Both ends, open.
    Both(
        Box<server::TlsStream<Recorder>>,
        Box<client::TlsStream<TcpStream>>,
    ),
    /// It cannot be opened; the client has heard nothing yet, and its first words are kept.
    Sealed(Recorder),
    /// The client has gone, or has turned us away.
    Lost,
}

/// A client, and what it has said so far; it hears nothing as long.
pub struct Recorder {
    pub stream: TcpStream,
    pub said: Vec<u8>,
    recording: bool,
}

/// Opens the TLS of `client` and its `server`, whom it has called at `address`.
pub async fn open(
    client: TcpStream,
    server: TcpStream,
    address: SocketAddr,
    secrets: &Secrets,
    scope: &Arc<Scope>,
    visit: &Visit,
) -> Opened {
    let recorder = Recorder {
        stream: client,
        said: Vec::new(),
        recording: true,
    };
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), recorder);
    let mut start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(_) => {
            let Some(mut client) = acceptor.take_io() else {
                return Opened::Lost;
            };
            client.recording = false;
            visit.sealed("", scope); // the server may read what we do not
            return Opened::Sealed(client);
        }
    };
    start.io.recording = false;
    let hello = start.client_hello();
    let asked = hello.server_name().map(str::to_owned);
    let name = asked.clone().unwrap_or_else(|| address.ip().to_string());
    let protocols = hello
        .alpn()
        .map(|all| all.map(<[u8]>::to_vec).collect())
        .unwrap_or_default();
    let identity = secrets.identity(visit.door.0, visit.door.1, scope);
    let identity = identity.filter(|one| !visit.is_pinned(&name) && one.can_answer(&hello));
    let Some(identity) = identity else {
        visit.sealed(&name, scope);
        return Opened::Sealed(start.io);
    };
    let called = call(server, &name, protocols, &identity).await;
    let answer = called.and_then(|server| {
        let (_, session) = server.get_ref();
        let shown = session.peer_certificates().unwrap_or_default();
        if !identity.stands_for(asked.as_deref(), shown) {
            return Err(io::Error::other("it has another certificate for this name"));
        }
        let protocol = session.alpn_protocol();
        let answer = identity.answer(&name, protocol).map_err(io::Error::other)?;
        Ok((server, answer))
    });
    let Ok((server, answer)) = answer else {
        visit.sealed(&name, scope);
        return Opened::Sealed(start.io);
    };
    match accept(start, answer).await {
        Ok(client) => Opened::Both(Box::new(client), Box::new(server)),
        Err(error) => {
            if is_refusal(&error) {
                visit.sealed(&name, scope);
                visit.pin(name);
            }
            Opened::Lost
        }
    }
}

async fn call(
    server: TcpStream,
    name: &str,
    protocols: Vec<Vec<u8>>,
    identity: &super::secrets::Identity<'_>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let (config, asked) = identity.call(protocols).map_err(io::Error::other)?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, server).await?;
    match asked.was() {
        true => Err(io::Error::other(
            "the server asks for a certificate of its client",
        )),
        false => Ok(stream),
    }
}

async fn accept(
    start: StartHandshake<Recorder>,
    answer: Arc<rustls::ServerConfig>,
) -> io::Result<server::TlsStream<Recorder>> {
    start.into_stream(answer).await
}

/// Did the client say that it does not want us, rather than just go?
fn is_refusal(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        into: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if self.recording {
            self.said.extend_from_slice(&into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.recording {
            return Poll::Ready(Ok(bytes.len())); // that we do not understand is none of its business
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
