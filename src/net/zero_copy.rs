//! Zero-copy fan-out: the broadcast buffer in pages of a memfd, which sendfile sends to any number
//! of sockets without copying.
//!
//! Bytes that a socket accepted may wait in its kernel queue for long, and are these same pages. So
//! no page is ever written twice: each broadcast gets fresh pages, and those of the one before are
//! removed from the file. They live on until no socket needs them, and count against the sockets'
//! memory.
//!
//! It knows neither queues nor connections. On systems without memfd, everything is copied.

use std::io;
use std::ops::Range;

use mio::net::TcpStream;

#[cfg(target_os = "linux")]
pub(super) use linux::ZeroCopyBuffer;
#[cfg(not(target_os = "linux"))]
pub(super) use none::ZeroCopyBuffer;

/// Fan-out above which copying the broadcast buffer into the memfd pays off.
pub(super) const PEERS_MIN: usize = 8;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Range, TcpStream, io};
    use rustix::fd::OwnedFd;
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create, sendfile};
    use rustix::net::sockopt;

    /// Offset in the file at which the next broadcast starts over at 0.
    const FILE_BYTES: u64 = 64 * 1024 * 1024;
    const PAGE_BYTES: u64 = 4096;

    /// The memfd, and the broadcast in it.
    #[derive(Debug, Default)]
    pub(in crate::net) struct ZeroCopyBuffer {
        file: Option<OwnedFd>,
        /// Offset of the broadcast.
        at: u64,
        /// Bytes of the broadcast; 0: none.
        bytes: u64,
        /// A system call failed; zero-copy is not tried again.
        is_given_up: bool,
    }

    impl ZeroCopyBuffer {
        /// Copies a broadcast into fresh pages. False if that is impossible.
        pub(in crate::net) fn put(&mut self, block: &[u8]) -> bool {
            self.clear();
            if self.is_given_up {
                return false;
            }
            if let Err(error) = self.try_put(block) {
                self.give_up(&error);
            }
            !self.is_given_up
        }

        fn try_put(&mut self, mut block: &[u8]) -> rustix::io::Result<()> {
            let file = match self.file.take() {
                Some(file) => file,
                None => memfd_create("vestnik-turn", MemfdFlags::CLOEXEC)?,
            };
            let file = self.file.insert(file);
            if self.at + block.len() as u64 > FILE_BYTES {
                self.at = 0;
            }
            self.bytes = block.len() as u64;
            let mut at = self.at;
            while !block.is_empty() {
                let count = rustix::io::pwrite(&*file, block, at)?;
                if count == 0 {
                    return Err(rustix::io::Errno::NOSPC);
                }
                at += count as u64;
                block = block.get(count..).unwrap_or_default();
            }
            Ok(())
        }

        /// Whether there is a broadcast.
        pub(in crate::net) const fn is_set(&self) -> bool {
            self.bytes > 0
        }

        /// Removes the broadcast. Sockets that accepted parts of it keep the pages.
        pub(in crate::net) fn clear(&mut self) {
            let Some(file) = &self.file else { return };
            if self.bytes == 0 {
                return;
            }
            let bytes = self.bytes.next_multiple_of(PAGE_BYTES);
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let dropped = fallocate(file, flags, self.at, bytes);
            self.at += bytes;
            self.bytes = 0;
            if let Err(error) = dropped {
                self.give_up(&error);
            }
        }

        fn give_up(&mut self, error: &rustix::io::Errno) {
            log::warn!("zero-copy is off, messages are copied for each member: {error}");
            self.is_given_up = true;
            self.file = None;
            self.bytes = 0;
        }

        /// Sends a range of the broadcast. Returns how many bytes the socket accepted.
        ///
        /// # Errors
        /// `WouldBlock` when the socket is full, `Unsupported` when the system cannot send from a
        /// memfd, and errors of a broken connection.
        pub(in crate::net) fn send(
            &mut self,
            socket: &TcpStream,
            piece: Range<usize>,
        ) -> io::Result<usize> {
            let Some(file) = &self.file else { return Err(io::ErrorKind::Unsupported.into()) };
            let mut offset = self.at + piece.start as u64;
            match sendfile(socket, file, Some(&mut offset), piece.len()) {
                Ok(count) => Ok(count),
                Err(error @ (rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)) => {
                    self.give_up(&error);
                    Err(io::ErrorKind::Unsupported.into())
                }
                Err(error) => Err(error.into()),
            }
        }

        /// Sets TCP_CORK: the kernel then sends full segments only. Otherwise each part of a queue
        /// would be sent in a segment of its own.
        pub(in crate::net) fn set_whole(socket: &TcpStream, is_on: bool) {
            if let Err(error) = sockopt::set_tcp_cork(socket, is_on) {
                log::debug!("cannot set TCP_CORK: {error}");
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::io::{Read as _, Write as _};

        #[test]
        fn what_a_socket_took_stays_as_it_was_however_late_it_is_read() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = listener.local_addr().expect("address");
            let ours = std::net::TcpStream::connect(address).expect("connect");
            let (mut theirs, _) = listener.accept().expect("accept");
            let ours = TcpStream::from_std(ours);
            // Some broadcasts start over at the beginning of the file.
            let mut pages =
                ZeroCopyBuffer { at: FILE_BYTES - 3 * 8192, ..ZeroCopyBuffer::default() };
            let mut expected = Vec::new();
            for round in 0..8_u8 {
                let block = vec![round; 5000];
                assert!(pages.put(&block));
                ZeroCopyBuffer::set_whole(&ours, true);
                (&ours).write_all(b"head").expect("room");
                assert_eq!(pages.send(&ours, 1000..5000).ok(), Some(4000));
                ZeroCopyBuffer::set_whole(&ours, false);
                expected.extend_from_slice(b"head");
                expected.extend_from_slice(&block[1000..]);
            }
            pages.clear();
            let mut read = vec![0; expected.len()];
            theirs.read_exact(&mut read).expect("all of it");
            assert_eq!(read, expected);
        }

        #[test]
        fn a_file_that_cannot_be_had_is_done_without() {
            let mut pages = ZeroCopyBuffer { is_given_up: true, ..ZeroCopyBuffer::default() };
            assert!(!pages.put(b"block"));
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = listener.local_addr().expect("address");
            let ours = TcpStream::connect(address).expect("connect");
            let refused = pages.send(&ours, 0..5).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::Unsupported));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use super::{Range, TcpStream, io};

    /// Zero-copy that is never possible.
    #[derive(Debug, Default)]
    pub(in crate::net) struct ZeroCopyBuffer;

    impl ZeroCopyBuffer {
        pub(in crate::net) fn put(&mut self, _: &[u8]) -> bool {
            false
        }

        pub(in crate::net) const fn is_set(&self) -> bool {
            false
        }

        pub(in crate::net) fn clear(&mut self) {}

        pub(in crate::net) fn send(&mut self, _: &TcpStream, _: Range<usize>) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::net) fn set_whole(_: &TcpStream, _: bool) {}
    }
}
