//! A server behind a proxy with TLS, as the operations guide asks for one.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::recover::servers::{self, Authority};
use crate::run::nagi;
use crate::server::Server;

/// Passes a request on and gives the answer back.
fn pass_on(head: &str, port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = head.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_that_proves_who_it_is_is_called_over_tls_and_no_other() {
    let server = Server::of_two_projects();
    let authority = Authority::new("somebody's");
    let pair = authority.pair("proxy", &["localhost"], servers::GOOD);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.port;
    servers::tls_on(listener, &pair, move |head| pass_on(head, behind));
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), &authority.pem).unwrap();
    let trusted = trusted.path().to_str().unwrap();
    let call = |host: &str, authorities: &str| {
        nagi("list")
            .env("NAGI_SERVER", &format!("https://{host}:{port}"))
            .env("SSL_CERT_FILE", authorities)
            .run()
    };
    let listed = call("localhost", trusted).exits(0);
    assert!(listed.stdout.contains("sample-app-a"), "{listed:?}");
    // Another name than that of its certificate, another authority, and none.
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), &Authority::new("another's").pem).unwrap();
    for (host, authorities) in [
        ("127.0.0.1", trusted),
        ("localhost", other.path().to_str().unwrap()),
        ("localhost", "/dev/null"),
    ] {
        call(host, authorities)
            .exits(6)
            .says("SSL_CERT_FILE")
            .prints_nothing();
    }
}
