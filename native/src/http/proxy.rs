//! The thread that serves connections: each client gets a connection to its server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::exchange::{End, Link};
use super::fallback;
use super::hooks::{self, Clients};
use super::http2;
use super::redirect;
use super::room::{self, Entrance, Room};
use super::timer;
use super::tls;
use super::visit::{is_tls, Visit, World};
use crate::system::{check, set_option};

/// Tells connections of ours from those of the target, where the target's are led to us.
pub const MARK: u32 = 0x5351_4854;

/// Where clients come to us.
pub struct Listeners {
    /// To servers in the target: IPv4, IPv6.
    pub incoming: [Option<std::net::TcpListener>; 2],
    /// From programs in the target.
    pub outgoing: [Option<std::net::TcpListener>; 2],
}

impl Listeners {
    /// Opens them in the namespace of this thread; where it has no IPv6, there are none for it.
    pub fn open() -> io::Result<Self> {
        let open = |address: &str| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let fd = listener.as_raw_fd();
            // SAFETY: plain call. The queue of the standard library is short for a load test.
            check(unsafe { libc::listen(fd, room::queue()) })?;
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?; // who is accepted inherits it
            Ok::<_, io::Error>(listener)
        };
        let both = || Ok::<_, io::Error>([Some(open("127.0.0.1:0")?), open("[::1]:0").ok()]);
        Ok(Self {
            incoming: both()?,
            outgoing: both()?,
        })
    }
}

/// Serves until the process ends.
pub fn serve(
    listeners: Listeners,
    clients: Clients,
    entrance: Entrance,
    world: Arc<World>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (clients, room) = (Rc::new(clients), Room::new(entrance));
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        timer::begin()?;
        for (listeners, outgoing) in [(listeners.incoming, false), (listeners.outgoing, true)] {
            for listener in listeners.into_iter().flatten() {
                let (clients, room, world) = (clients.clone(), room.clone(), world.clone());
                let listener = TcpListener::from_std(listener)?;
                tokio::task::spawn_local(accept(listener, outgoing, clients, room, world));
            }
        }
        std::future::pending().await
    })
}

async fn accept(
    listener: TcpListener,
    outgoing: bool,
    clients: Rc<Clients>,
    room: Rc<Room>,
    world: Arc<World>,
) {
    loop {
        while room.is_full() {
            timer::sleep(Duration::from_millis(5)).await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                let (clients, guest, world) = (clients.clone(), room.enter(), world.clone());
                tokio::task::spawn_local(async move {
                    let _ = welcome(stream, from, outgoing, &clients, world).await;
                    drop(guest);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: connections that end give some back.
                room.shut(&error.to_string());
                timer::sleep(Duration::from_millis(50)).await;
                room.look();
            }
        }
    }
}

/// Serves one client.
async fn welcome(
    client: TcpStream,
    from: SocketAddr,
    outgoing: bool,
    clients: &Clients,
    world: Arc<World>,
) -> io::Result<()> {
    let mut to = client.local_addr()?;
    if outgoing {
        let own = std::mem::replace(&mut to, redirect::dialled(&client)?);
        if own == to {
            return Ok(()); // it came to our own port
        }
    }
    let fd = client.as_raw_fd();
    let visit = Rc::new(Visit::new(world.clone(), (to.port(), outgoing), fd));
    let route = Route {
        from,
        to,
        outgoing,
        clients,
        world: &world,
    };
    let Ok((server, _ours)) = route.dial().await else {
        reset(fd);
        return Ok(());
    };
    let secrets = world.secrets();
    let scope = visit.scope();
    let opens = scope.filter(|scope| secrets.identity(to.port(), outgoing, scope).is_some());
    let Some(scope) = opens else {
        pass_plain(client, server, &visit, &[]).await;
        return Ok(());
    };
    if !begins_with_tls(&client, &server).await? {
        pass_plain(client, server, &visit, &[]).await;
        return Ok(());
    }
    let server_fd = server.as_raw_fd();
    match tls::open(client, server, to, &secrets, &scope, &visit).await {
        tls::Opened::Both(client, server) => {
            let (client, server) = (tokio::io::split(*client), tokio::io::split(*server));
            let mut link = Link::new(client, server, &visit.purse);
            if pass(&mut link, &visit).await == End::Reset {
                [fd, server_fd].into_iter().for_each(reset);
            }
            visit.leave();
        }
        tls::Opened::Sealed(client) => {
            if fallback::strikes(&scope).await {
                reset(fd);
                return Ok(());
            }
            let Ok((server, _ours)) = route.dial().await else {
                reset(fd);
                return Ok(());
            };
            pass_plain(client.stream, server, &visit, &client.said).await;
        }
        tls::Opened::Lost => {}
    }
    Ok(())
}

/// Is it TLS? Not, if the server speaks first.
async fn begins_with_tls(client: &TcpStream, server: &TcpStream) -> io::Result<bool> {
    std::future::poll_fn(|context| {
        let mut first = [0];
        let mut into = ReadBuf::new(&mut first);
        if let Poll::Ready(peeked) = client.poll_peek(context, &mut into) {
            return Poll::Ready(peeked.map(|_| is_tls(into.filled())));
        }
        server.poll_read_ready(context).map_ok(|()| false)
    })
    .await
}

/// Passes what is not encrypted, or what is and stays so: what the client has said is `said` then.
async fn pass_plain(client: TcpStream, server: TcpStream, visit: &Rc<Visit>, said: &[u8]) {
    let fds = [client.as_raw_fd(), server.as_raw_fd()];
    let mut link = Link::new(client.into_split(), server.into_split(), &visit.purse);
    let end = match said.is_empty() {
        true => pass(&mut link, visit).await,
        false => {
            link.client.splice(0, said);
            visit.busy();
            link.blindly().await
        }
    };
    if end == End::Reset {
        fds.into_iter().for_each(reset);
    }
    visit.leave();
    // Dropped as they are, these halves would say goodbye before a reset.
    link.to_client.forget();
    link.to_server.forget();
}

async fn pass<CR, CW, SR, SW>(link: &mut Link<CR, CW, SR, SW>, visit: &Rc<Visit>) -> End
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    match link.exchanges(visit).await {
        End::Blind => {
            visit.busy(); // for nobody knows when it rests
            link.blindly().await
        }
        End::Http2 => http2::pass(link, visit).await,
        End::Leaving => link.part().await,
        end => end,
    }
}

/// From whom to whom.
struct Route<'a> {
    from: SocketAddr,
    to: SocketAddr,
    outgoing: bool,
    clients: &'a Clients,
    world: &'a World,
}

impl<'a> Route<'a> {
    /// Connects to the server; the name is kept as long as the connection.
    async fn dial(&self) -> io::Result<(TcpStream, Option<Ours<'a>>)> {
        let (server, ours) = match self.outgoing {
            true => (dial_out(self.from.ip(), self.to).await?, None),
            false => {
                let (server, ours) = dial_in(self.from, self.to, self.clients, self.world).await?;
                (server, Some(ours))
            }
        };
        server.set_nodelay(true)?;
        Ok((server, ours))
    }
}

/// A name for our end of a connection to a server, forgotten with it.
struct Ours<'a> {
    clients: &'a Clients,
    address: SocketAddr,
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        self.clients.remove(self.address);
    }
}

/// Connects to a server in the target in the name of `client`.
async fn dial_in<'a>(
    client: SocketAddr,
    server: SocketAddr,
    clients: &'a Clients,
    world: &World,
) -> io::Result<(TcpStream, Ours<'a>)> {
    let four = server.is_ipv4();
    let (socket, from) = loop {
        let socket = if four {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        let from = match four {
            true => hooks::ours(world.next()),
            false => with_port(server, 0),
        };
        match socket.bind(from) {
            Ok(()) => break (socket, from),
            Err(error) if four && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    };
    let address = match four {
        true => from,
        false => socket.local_addr()?,
    };
    clients.insert(address, client)?;
    let ours = Ours { clients, address };
    Ok((socket.connect(server).await?, ours))
}

/// Connects to whom a program in the target has dialled, from its own address.
async fn dial_out(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, MARK)?;
    if from.is_loopback() == to.ip().is_loopback() {
        // The port is chosen with the peer, so few run out.
        let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
        let _ = socket.bind(SocketAddr::new(from, 0)); // else the kernel chooses, as it would have
    }
    socket.connect(to).await
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Lets the socket end with a reset when it is closed.
fn reset(fd: RawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // On a socket that is gone it fails, and nothing is lost.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger);
}
