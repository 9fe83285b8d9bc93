//! The TAP device through which frames come to us: it goes when its descriptor does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::frame::LONGEST;
use crate::system::{check, own};

/// Frames that may wait for us in the kernel. The default of 1000 overflows in 2 ms.
const QUEUE: i32 = 10_000;

/// A frame of at least this many bytes keeps the buffer it was read into; others are copied.
const WORTH_A_BUFFER: usize = LONGEST / 2;

/// What a network device is asked by ioctl, in the namespace of this thread.
pub struct Device {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Device {
    pub fn named(name: &str) -> io::Result<Self> {
        let mut padded = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= padded.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in padded.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: plain call.
        let socket =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        Ok(Self {
            socket: own(socket)?,
            name: padded,
        })
    }

    fn ask(
        &self,
        what: libc::Ioctl,
        change: impl FnOnce(&mut libc::ifreq),
    ) -> io::Result<libc::ifreq> {
        // SAFETY: a zeroed ifreq is valid, and every `what` used here takes one.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name = self.name;
            change(&mut request);
            check(libc::ioctl(self.socket.as_raw_fd(), what, &mut request))?;
            Ok(request)
        }
    }

    pub fn index(&self) -> io::Result<u32> {
        let request = self.ask(libc::SIOCGIFINDEX, |_| {})?;
        // SAFETY: the member that was asked for.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    /// Link type (`ARPHRD_*`) and address.
    pub fn address(&self) -> io::Result<(u16, [u8; 6])> {
        let request = self.ask(libc::SIOCGIFHWADDR, |_| {})?;
        // SAFETY: the member that was asked for.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut bytes = [0; 6];
        for (to, from) in bytes.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok((address.sa_family, bytes))
    }

    pub fn mtu(&self) -> io::Result<i32> {
        let request = self.ask(libc::SIOCGIFMTU, |_| {})?;
        // SAFETY: the member that was asked for.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }
}

/// One TAP device of ours, `squall0` and so on, up and without an address.
pub struct Tap {
    file: File,
    pub index: u32,
    pub address: [u8; 6],
    /// Read into by the next call; made when first needed.
    buffer: Vec<u8>,
}

impl Tap {
    /// Makes one in the namespace of this thread, for frames of a device with this `mtu`.
    pub fn open(mtu: i32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let device = create(&file)?;
        device.ask(libc::SIOCSIFTXQLEN, |request| {
            request.ifr_ifru.ifru_metric = QUEUE
        })?;
        device.ask(libc::SIOCSIFMTU, |request| request.ifr_ifru.ifru_mtu = mtu)?;
        // Before it is up, so that it never announces itself. Where /proc/sys is read-only, what it
        // announces is told by its address (`Arrival::Stray`) and thrown away.
        let name: String = device.name.iter().map_while(letter).collect();
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let flags = libc::IFF_UP | libc::IFF_NOARP;
        device.ask(libc::SIOCSIFFLAGS, |request| {
            request.ifr_ifru.ifru_flags = flags as i16
        })?;
        Ok(Self {
            index: device.index()?,
            address: device.address()?.1,
            file,
            buffer: Vec::new(),
        })
    }

    /// Chooses what the kernel hands us: whole trains of segments with their checksums left open
    /// (fast), or what would be on the wire, packet by packet.
    pub fn take_trains(&self, trains: bool) -> io::Result<()> {
        const CHECKSUM: libc::c_ulong = 1;
        const TCP: libc::c_ulong = 2 | 4 | 8; // IPv4, IPv6, with ECN
        const UDP: libc::c_ulong = 0x20 | 0x40; // IPv4, IPv6; Linux 6.2
        if !trains {
            return self.offload(0);
        }
        self.offload(CHECKSUM | TCP | UDP)
            .or_else(|_| self.offload(CHECKSUM | TCP))
    }

    fn offload(&self, flags: libc::c_ulong) -> io::Result<()> {
        // SAFETY: takes its argument by value.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) }).map(drop)
    }

    /// Reads one frame with its header; None when none is waiting.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; LONGEST];
        }
        let length = match self.file.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if length < WORTH_A_BUFFER {
            return Ok(Some(self.buffer[..length].to_vec()));
        }
        let mut frame = std::mem::take(&mut self.buffer);
        frame.truncate(length);
        Ok(Some(frame))
    }

    /// Gives a buffer back that `read` has handed out, so that it need not be made anew.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.buffer.is_empty() && bytes.capacity() >= LONGEST {
            bytes.resize(LONGEST, 0);
            self.buffer = bytes;
        }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn letter(letter: &libc::c_char) -> Option<char> {
    (*letter != 0).then_some(*letter as u8 as char)
}

fn create(file: &File) -> io::Result<Device> {
    let mut device = Device::named("squall%d")?; // the kernel puts a free number in
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: a zeroed ifreq is valid; the kernel writes the name back into it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name = device.name;
        request.ifr_ifru.ifru_flags = flags as i16;
        check(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request))?;
        device.name = request.ifr_name;
    }
    Ok(device)
}
