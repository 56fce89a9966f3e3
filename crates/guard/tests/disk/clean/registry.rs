//! A registry on loopback with images that are made by hand: enough of the distribution protocol for a pull.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What it serves: by digest, and manifests by `NAME:TAG`.
#[derive(Debug, Default)]
struct Shelf {
    blobs: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Registry {
    pub(super) port: u16,
    shelf: Arc<Mutex<Shelf>>,
    gate: Arc<Gate>,
}

/// Where layers wait half-way while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    waiting: usize,
}

/// A gate that is shut as long as this lives.
#[derive(Debug)]
pub(super) struct Shut(Arc<Gate>);

// === impl Gate ===

impl Gate {
    fn set(&self, is_shut: bool) {
        self.state.lock().unwrap().is_shut = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| state.is_shut)
            .unwrap();
        state.waiting -= 1;
    }
}

// === impl Shut ===

impl Shut {
    /// Waits until somebody waits there.
    pub(super) fn reached(&self) {
        let state = self.0.state.lock().unwrap();
        let reached = self.0.changed.wait_while(state, |state| state.waiting == 0);
        drop(reached.unwrap());
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// One layer: a file of this name with these bytes.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) file: &'static str,
    pub(super) bytes: Vec<u8>,
}

// === impl Layer ===

impl Layer {
    /// Bytes that no filesystem makes smaller.
    pub(super) fn filled(file: &'static str, seed: u64, length: usize) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        });
        Self {
            file,
            bytes: bytes.take(length).collect(),
        }
    }

    fn packed(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(self.bytes.len()).unwrap());
        header.set_mode(0o755);
        header.set_mtime(0);
        archive
            .append_data(&mut header, self.file, &self.bytes[..])
            .unwrap();
        archive.into_inner().unwrap()
    }
}

// === impl Registry ===

impl Registry {
    /// Serves until the test process ends. Layers take at least so long.
    pub(super) fn serve(slow: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self {
            port: listener.local_addr().unwrap().port(),
            shelf: Arc::default(),
            gate: Arc::default(),
        };
        let own = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, own) = (stream.unwrap(), own.clone());
                std::thread::spawn(move || drop(answer(&stream, &own, slow)));
            }
        });
        registry
    }

    /// From now on no layer comes whole.
    pub(super) fn shut(&self) -> Shut {
        self.gate.set(true);
        Shut(Arc::clone(&self.gate))
    }

    /// The name under which a runtime pulls an image.
    pub(super) fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Puts an image on the shelf.
    pub(super) fn put(&self, name: &str, layers: &[Layer]) {
        self.image(name, layers);
    }

    /// The same as an archive of OCI, for an import: then no registry is known to have it.
    pub(super) fn archive(&self, name: &str, layers: &[Layer]) -> Vec<u8> {
        let manifest = self.image(name, layers);
        let held = self.shelf.lock().unwrap();
        let read: serde_json::Value = serde_json::from_slice(&held.blobs[&manifest]).unwrap();
        let mut digests = vec![
            manifest.clone(),
            read["config"]["digest"].as_str().unwrap().to_owned(),
        ];
        for layer in read["layers"].as_array().unwrap() {
            digests.push(layer["digest"].as_str().unwrap().to_owned());
        }
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": manifest,
                "size": held.blobs[&manifest].len(),
                "annotations": {"io.containerd.image.name": self.name(name)},
            }],
        });
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(bytes.len()).unwrap());
            header.set_mode(0o644);
            archive.append_data(&mut header, path, bytes).unwrap();
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        add("index.json", index.to_string().as_bytes());
        for digest in digests {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            add(&path, &held.blobs[&digest]);
        }
        archive.into_inner().unwrap()
    }

    fn image(&self, name: &str, layers: &[Layer]) -> String {
        let mut held = self.shelf.lock().unwrap();
        let mut put = |bytes: Vec<u8>| {
            let digest = digest(&bytes);
            let length = bytes.len();
            held.blobs.insert(digest.clone(), bytes);
            (digest, length)
        };
        let packed: Vec<(String, usize)> = layers.iter().map(|one| put(one.packed())).collect();
        let ids: Vec<&String> = packed.iter().map(|(digest, _)| digest).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/pause"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let (id, length) = put(config.to_string().into_bytes());
        let described = packed
            .iter()
            .map(|(digest, length)| json!({"mediaType": LAYER, "digest": digest, "size": length}));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": id, "size": length},
            "layers": described.collect::<Vec<_>>(),
        });
        let (manifest, _) = put(manifest.to_string().into_bytes());
        held.tags.insert(name.to_owned(), manifest.clone());
        manifest
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// `/v2/NAME/manifests/REFERENCE` and `/v2/NAME/blobs/DIGEST`.
fn answer(mut stream: &TcpStream, own: &Registry, slow: Duration) -> std::io::Result<()> {
    let shelf = &own.shelf;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches("/v2/").split('/').collect();
    let found = match parts[..] {
        [name, "manifests", reference] => {
            let shelf = shelf.lock().unwrap();
            let named = shelf.tags.get(&format!("{name}:{reference}"));
            let digest = named.cloned().unwrap_or_else(|| reference.to_owned());
            let bytes = shelf.blobs.get(&digest).cloned();
            bytes.map(|bytes| (MANIFEST, digest, bytes))
        }
        [_, "blobs", digest] => {
            let bytes = shelf.lock().unwrap().blobs.get(digest).cloned();
            bytes.map(|bytes| ("application/octet-stream", digest.to_owned(), bytes))
        }
        _ => None,
    };
    let Some((kind, digest, bytes)) = found else {
        let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(text.as_bytes());
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    if kind != MANIFEST {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        stream.write_all(first)?;
        std::thread::sleep(slow);
        own.gate.pass();
        return stream.write_all(rest);
    }
    stream.write_all(&bytes)
}
