//! The near end of a tunnel: a port on the loopback, or a socket in the file system, which only its user may use.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::TunnelError;
use crate::listeners;

/// The kernel takes a path of 107 bytes for a socket.
const PATH_MAX: usize = 107;

/// Where a tunnel begins on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A port on 127.0.0.1; 0 takes one that is free.
    Port(u16),
    /// A socket at this absolute path.
    Socket(PathBuf),
}

/// What can be read and written.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to it, and whose it is, as far as that can be seen.
pub(super) struct Connection {
    pub(super) stream: Box<dyn Io>,
    /// The process that listens.
    pub(super) listener: Option<u32>,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{}:{port}", Ipv4Addr::LOCALHOST),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Local {
    /// A socket, if ssh can be told of its path and the kernel takes it.
    ///
    /// # Errors
    /// What it must be like.
    pub fn socket(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let is_plain = |text: &str| {
            text.chars()
                .all(|one| one.is_alphanumeric() || "/._-+@,=".contains(one))
        };
        match path.to_str() {
            Some(text) if !is_plain(text) => {
                Err("must be a path of letters, digits and /._-+@,= : ssh reads others as something else".to_owned())
            }
            Some(text) if text.len() <= PATH_MAX => Ok(Self::Socket(path)),
            Some(_) => Err(format!("must be a path of at most {PATH_MAX} bytes")),
            None => Err("must be a path in UTF-8".to_owned()),
        }
    }

    /// The same, if it can be had, with a port that is free for 0. ssh binds it itself, and says when somebody was faster.
    pub(super) async fn free(&self) -> Result<Self, TunnelError> {
        match self {
            Self::Port(port) => free_port(*port).await.map(Self::Port),
            Self::Socket(path) => {
                free_path(path).await?;
                Ok(self.clone())
            }
        }
    }

    /// As `ssh -L` has it.
    pub(super) fn forward(&self, to: &str) -> String {
        format!("{self}:{to}")
    }

    pub(super) async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Port(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                let stream = TcpStream::connect(address).await?;
                // A port that nobody has may be given to the very connection that looks for it.
                if stream.local_addr().ok() == Some(address) {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                drop(stream.set_nodelay(true));
                Ok(Connection {
                    stream: Box::new(stream),
                    listener: listener(*port).map(|(pid, _)| pid),
                })
            }
            Self::Socket(path) => {
                let stream = UnixStream::connect(path).await?;
                let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
                Ok(Connection {
                    stream: Box::new(stream),
                    listener: peer.and_then(|pid| u32::try_from(pid).ok()),
                })
            }
        }
    }

    /// Takes a socket away that nobody listens on any more: an ssh that was killed leaves it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the dead socket of a tunnel, at the path that its user named for one"
    )]
    pub(super) async fn clear(&self) {
        if let Self::Socket(path) = self
            && free_path(path).await.is_ok()
        {
            // What is not there need not be removed.
            drop(std::fs::remove_file(path));
        }
    }
}

/// The process that listens on a port, as far as this one may see.
fn listener(port: u16) -> Option<(u32, String)> {
    let all = listeners::look(Path::new("/proc")).unwrap_or_default();
    let found = all.into_iter().find(|one| one.port == port);
    found.and_then(|one| one.process)
}

async fn free_port(port: u16) -> Result<u16, TunnelError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    match bound.and_then(|listener| listener.local_addr()) {
        Ok(address) => Ok(address.port()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(TunnelError::Taken {
            local: Local::Port(port),
            listener: listener(port),
        }),
        Err(source) => Err(TunnelError::Local {
            local: Local::Port(port),
            source,
        }),
    }
}

/// Nothing is there, or a socket that nobody listens on, which may go. A file that is no socket stays.
async fn free_path(path: &Path) -> Result<(), TunnelError> {
    let local = || Local::Socket(path.to_owned());
    let failed = |source| TunnelError::Local {
        local: local(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(failed(io::Error::new(
                ErrorKind::AlreadyExists,
                "something that is no socket is there",
            )));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(stream) => {
                let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let pid = peer.and_then(|pid| u32::try_from(pid).ok());
                return Err(TunnelError::Taken {
                    local: local(),
                    listener: pid.map(|pid| (pid, name_of(pid))),
                });
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(source) => return Err(failed(source)),
        },
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    match std::fs::metadata(directory) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => Err(failed(ErrorKind::NotADirectory.into())),
        Err(source) => Err(failed(source)),
    }
}

fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or_else(|_| "a process".to_owned(), |name| name.trim().to_owned())
}
