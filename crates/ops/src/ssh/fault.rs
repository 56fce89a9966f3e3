//! What ssh means by what it says before it ends. Its words are those of OpenSSH, which are not translated.

use super::tether::CANNOT_START;

/// Why ssh did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SshFault {
    /// There is no ssh on this machine.
    Missing,
    /// The host key is not known: nobody has said that it is the right one.
    HostKeyUnknown,
    /// The host key is another one than is known, or one that was revoked.
    HostKeyChanged,
    /// The machine does not accept the key, or whoever would have to be asked is not there.
    Denied,
    /// The name has no address.
    Unresolved,
    /// Nothing listens there.
    Refused,
    /// It does not answer.
    TimedOut,
    /// There is no way to it.
    Unreachable,
    /// It closed the connection.
    Closed,
    /// The port on this machine, or the socket, cannot be had.
    Local,
    /// The machine does not allow forwards.
    Prohibited,
    /// The machine reaches nobody where the forward leads.
    FarEnd,
    /// Something else.
    Other,
}

/// Words of ssh, and what they mean. The first row that has one of its words in any line counts: what is surest stands first.
const WORDS: &[(SshFault, &[&str])] = &[
    (SshFault::Missing, &[CANNOT_START]),
    (
        SshFault::HostKeyChanged,
        &[
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "has changed and you have requested strict checking",
            "REVOKED HOST KEY",
            "is marked as revoked",
        ],
    ),
    (
        SshFault::HostKeyUnknown,
        &["host key is known for", "Host key verification failed"],
    ),
    (
        SshFault::Denied,
        &["Permission denied (", "Too many authentication failures"],
    ),
    (SshFault::Unresolved, &["Could not resolve hostname"]),
    (
        SshFault::Local,
        &[
            "Could not request local forwarding",
            "cannot listen to port",
            "cannot listen to path",
            "Privileged ports can only be forwarded by root",
        ],
    ),
    (
        SshFault::Prohibited,
        &["open failed: administratively prohibited"],
    ),
    (SshFault::FarEnd, &["open failed: connect failed"]),
    (
        SshFault::Refused,
        &["port 22: Connection refused", ": Connection refused"],
    ),
    (SshFault::TimedOut, &["timed out", "not responding"]),
    (
        SshFault::Unreachable,
        &["No route to host", "Network is unreachable"],
    ),
    (
        SshFault::Closed,
        &[
            "closed by",
            "Connection reset",
            "kex_exchange_identification",
            "Broken pipe",
        ],
    ),
];

// === impl SshFault ===

impl SshFault {
    /// What these lines mean.
    pub fn of(said: &[String]) -> Self {
        let found = WORDS.iter().find(|(_, words)| {
            let mut words = words.iter();
            words.any(|word| said.iter().any(|line| line.contains(word)))
        });
        found.map_or(Self::Other, |(fault, _)| *fault)
    }

    /// The line that shows it, of what was said; else the last one.
    pub fn line(self, said: &[String]) -> Option<&String> {
        let words = WORDS.iter().find(|(fault, _)| *fault == self);
        let words = words.map_or(&[][..], |(_, words)| words);
        let shows = |line: &&String| words.iter().any(|word| line.contains(word));
        said.iter()
            .find(shows)
            .or_else(|| said.iter().rev().find(|line| !line.trim().is_empty()))
    }

    /// Trying again changes nothing: a person has to.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Missing
            | Self::HostKeyUnknown
            | Self::HostKeyChanged
            | Self::Denied
            | Self::Local
            | Self::Prohibited => true,
            Self::Unresolved
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Closed
            | Self::FarEnd
            | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What OpenSSH 9.2 says, letter by letter, each seen.
    #[test]
    fn what_ssh_says_has_one_meaning() {
        let rows: &[(SshFault, &str)] = &[
            (
                SshFault::HostKeyUnknown,
                "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\nHost key verification failed.",
            ),
            (
                SshFault::HostKeyChanged,
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key for [127.0.0.1]:2222 has changed and you have requested strict checking.\nHost key verification failed.",
            ),
            (
                SshFault::Denied,
                "root@127.0.0.1: Permission denied (publickey).",
            ),
            (
                SshFault::Unresolved,
                "ssh: Could not resolve hostname nowhere.invalid: Name or service not known",
            ),
            (
                SshFault::Refused,
                "ssh: connect to host 127.0.0.1 port 1: Connection refused",
            ),
            (
                SshFault::TimedOut,
                "Connection timed out during banner exchange\nConnection to 127.0.0.1 port 2222 timed out",
            ),
            (
                SshFault::TimedOut,
                "Timeout, server 127.0.0.1 not responding.",
            ),
            (
                SshFault::Unreachable,
                "ssh: connect to host 10.1.2.3 port 22: No route to host",
            ),
            (
                SshFault::Closed,
                "kex_exchange_identification: Connection closed by remote host",
            ),
            (
                SshFault::Local,
                "bind [127.0.0.1]:6443: Address already in use\nchannel_setup_fwd_listener_tcpip: cannot listen to port: 6443\nCould not request local forwarding.",
            ),
            (
                SshFault::FarEnd,
                "channel 2: open failed: connect failed: Connection refused",
            ),
            (
                SshFault::Prohibited,
                "channel 2: open failed: administratively prohibited: open failed",
            ),
            (
                SshFault::Missing,
                "nagi: cannot start ssh: No such file or directory (os error 2)",
            ),
            (SshFault::Other, "Bad configuration option: nonsense"),
        ];
        for (fault, text) in rows {
            let said: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(SshFault::of(&said), *fault, "{text}");
            assert!(fault.line(&said).is_some());
        }
        assert_eq!(SshFault::of(&[]), SshFault::Other);
    }
}
