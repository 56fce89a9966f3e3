//! Who listens on which TCP port of this machine, by `/proc` alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::observed::{Listener, Looked, Unseen};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Every listening port.
///
/// # Errors
/// There is no proc filesystem.
pub(crate) fn look(proc: &Path) -> Looked<Vec<Listener>> {
    let mut sockets: BTreeMap<u64, u16> = BTreeMap::new();
    let mut why = None;
    for table in ["net/tcp", "net/tcp6"] {
        match fs::read_to_string(proc.join(table)) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(socket)),
            Err(error) => why = Some(format!("{}: {error}", proc.join(table).display())),
        }
    }
    // A kernel without IPv6 has no second table.
    if let (true, Some(why)) = (sockets.is_empty(), why) {
        return Err(Unseen::Failed(why));
    }
    let processes = owners(proc, &sockets);
    let mut listeners: Vec<Listener> = Vec::new();
    for (inode, port) in &sockets {
        let process = processes.get(inode).cloned();
        match listeners.iter_mut().find(|one| one.port == *port) {
            Some(known) => known.process = known.process.take().or(process),
            None => listeners.push(Listener {
                port: *port,
                process,
            }),
        }
    }
    listeners.sort_by_key(|one| one.port);
    Ok(listeners)
}

/// Inode and port of a socket that listens.
fn socket(line: &str) -> Option<(u64, u16)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let is_listening = *fields.get(3)? == LISTEN;
    let inode = fields.get(9)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    is_listening.then_some((inode, port))
}

/// The processes that hold these sockets, as far as this process may see.
fn owners(proc: &Path, sockets: &BTreeMap<u64, u16>) -> BTreeMap<u64, (u32, String)> {
    let mut found = BTreeMap::new();
    let Ok(processes) = fs::read_dir(proc) else {
        return found;
    };
    for process in processes.filter_map(Result::ok) {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue; // Not ours to see, or gone.
        };
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(link) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = link
                .as_os_str()
                .as_bytes()
                .strip_prefix(b"socket:[")
                .and_then(|rest| rest.strip_suffix(b"]"))
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            let Some(inode) = inode.filter(|inode| sockets.contains_key(inode)) else {
                continue;
            };
            found
                .entry(inode)
                .or_insert_with(|| (pid, name(&process.path())));
        }
    }
    found
}

fn name(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // B-017, D-17
    #[test]
    fn a_port_is_known_with_the_process_that_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let find = || {
            let all = look(Path::new("/proc")).unwrap();
            all.into_iter().find(|one| one.port == port)
        };
        let found = find().unwrap();
        assert_eq!(found.process.unwrap().0, std::process::id());
        drop(socket);
        assert_eq!(find(), None);
    }

    #[test]
    fn only_sockets_that_listen_count() {
        let head = "   0: 0100007F:192B 00000000:0000";
        let rest = "00000000:00000000 00:00000000 00000000     0        0 4711 1 x 100 0 0 10 0";
        assert_eq!(socket(&format!("{head} 0A {rest}")), Some((4711, 6443)));
        assert_eq!(socket(&format!("{head} 01 {rest}")), None);
        assert_eq!(socket("short"), None);
    }
}
