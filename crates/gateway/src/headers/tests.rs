//! Tests of what happens to the header fields of a request on its way through.

use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

#[test]
fn fields_of_one_hop_are_taken_off_with_those_that_connection_names() {
    let mut headers = map(&[
        ("connection", "keep-alive, X-Secret"),
        ("connection", "x-other"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip, trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAA"),
        ("accept", "*/*"),
    ]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("te", "trailers"), ("accept", "*/*")]));
}

#[test]
fn connection_cannot_take_framing_or_host_off() {
    let mut headers = map(&[
        ("connection", "host, content-length"),
        ("host", "a"),
        ("content-length", "3"),
    ]);
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, map(&[("host", "a"), ("content-length", "3")]));
}

#[test]
fn a_length_beside_a_coding_is_not_sent_on() {
    let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
    strip_hop_by_hop(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn an_upgrade_passes_unless_it_leads_past_the_gateway() {
    let websocket = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
    assert!(upgrade_of(&websocket).is_some());
    for bad in ["h2c", "websocket, h2c", "H2C", "h2", "", "h2c/1"] {
        assert_eq!(
            upgrade_of(&map(&[("connection", "upgrade"), ("upgrade", bad)])),
            None,
            "{bad}"
        );
    }
    assert_eq!(
        upgrade_of(&map(&[("upgrade", "websocket")])),
        None,
        "connection does not name it"
    );
}

#[test]
fn what_clients_claim_about_their_origin_is_replaced_unless_the_peer_is_trusted() {
    let client: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    let host = HeaderValue::from_static("a:8000");
    let claims = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("forwarded", "for=6.6.6.6"),
        ("expect", "100-continue"),
    ];
    let mut headers = map(&claims);
    add_forwarding(&mut headers, client, &host, Forwarded::Replace);
    let wanted = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a:8000"),
        ("host", "a:8000"),
        ("via", "1.1 nagi"),
    ];
    assert_eq!(headers, map(&wanted));

    let mut headers = map(&claims);
    add_forwarding(&mut headers, client, &host, Forwarded::Append);
    assert_eq!(headers[X_FORWARDED_FOR], "6.6.6.6, 192.0.2.7");
    assert_eq!(headers[X_FORWARDED_PROTO], "https");
    assert_eq!(headers[X_FORWARDED_HOST], "evil");
}

#[test]
fn hops_count_only_ours() {
    assert_eq!(
        hops(&map(&[("via", "1.1 nagi"), ("via", "1.1 other, 1.1 nagi")])),
        2
    );
}
