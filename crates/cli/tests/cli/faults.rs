//! What a broken server or something else on its port does to a command.

use std::time::{Duration, Instant};

use crate::fake::{Answers, Fake};
use crate::run::nagi;
use crate::server::Server;

// A-150
#[test]
fn refusals_have_an_exit_code_each_and_say_reason_and_next_step() {
    for (status, headers, code) in [
        ("400 Bad Request", "", 5),
        ("401 Unauthorized", "", 4),
        ("403 Forbidden", "", 4),
        ("404 Not Found", "", 3),
        ("409 Conflict", "", 8),
        ("410 Gone", "", 3),
        ("413 Content Too Large", "", 5),
        ("429 Too Many Requests", "Retry-After: 7\r\n", 9),
        ("500 Internal Server Error", "X-Request-ID: r-1\r\n", 1),
        ("503 Service Unavailable", "", 6),
    ] {
        let fake = Fake::refusing(status, headers, "It did not work");
        let ran = nagi("list").at(fake.port).run().exits(code);
        let ran = ran
            .prints_nothing()
            .says("error: It did not work")
            .says("cause: the reason")
            .says("hint: the next step");
        let more = match code {
            4 if status.starts_with("401") => "--key or NAGI_KEY",
            9 => "try again in 7 s",
            1 => "request_id r-1",
            _ => continue,
        };
        ran.says(more);
    }
}

// The words of the command line, and each once.
#[test]
fn a_refused_time_is_named_as_it_was_given() {
    let fake = Fake::answering(
        "400 Bad Request",
        "X-Request-ID: r-0\r\n",
        "application/json",
        r#"{"status":"error","message":"Invalid request","error":"scheduled_scale_up must lie in the future","field":"scheduled_scale_up","timestamp":"2030-01-31T07:00:00Z"}"#,
    );
    let ran = nagi("sleep a/b --wake-at 2020-01-01T00:00:00Z")
        .at(fake.port)
        .run();
    let ran = ran.exits(5).prints_nothing();
    let ran = ran.says("cause: --wake-at must lie in the future\n");
    assert!(!ran.stderr.contains("scheduled_scale_up"), "{ran:?}");
}

#[test]
fn something_else_on_the_port_is_recognised() {
    let html = "<!doctype html><title>hello</title>";
    for (status, code) in [("200 OK", 1), ("404 Not Found", 1), ("502 Bad Gateway", 6)] {
        let fake = Fake::answering(status, "", "text/html", html);
        nagi("list")
            .at(fake.port)
            .run()
            .exits(code)
            .prints_nothing()
            .says("--server (NAGI_SERVER)");
    }
}

// A script that takes 3 for "does not exist" must not be told so by the gateway, by the metrics, or for a wrong base path.
#[test]
fn other_ports_and_paths_of_nagi_are_recognised() {
    let server = Server::of_two_projects();
    for at in [
        format!("http://127.0.0.1:{}", server.metrics),
        format!("http://127.0.0.1:{}", server.gateway),
        format!("http://127.0.0.1:{}/api/v1", server.port),
    ] {
        for command in [
            "list",
            "status project-a/sample-app-a",
            "wake project-a/sample-app-a",
        ] {
            let call = nagi(command).env("NAGI_SERVER", &at);
            let ran = call.run().prints_nothing();
            // An address with a path may be refused before anything is sent.
            assert!(ran.code == 1 || ran.code == 2, "{at} {command}: {ran:?}");
            if ran.code == 1 {
                ran.says("is not the Scale API of nagi")
                    .says("Its port is 8080 by default");
            }
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_no_success() {
    for body in [
        "",
        "{",
        "[]",
        "{\"status\": \"success\"}",
        "null",
        "{\"items\": 1}",
    ] {
        let fake = Fake::answering("200 OK", "", "application/json", body);
        nagi("list")
            .at(fake.port)
            .run()
            .exits(1)
            .prints_nothing()
            .says("cannot understand the answer");
    }
    let fake = Fake::new(Answers::With("SSH-2.0-OpenSSH_9.6\r\n".to_owned()));
    nagi("list").at(fake.port).run().exits(6).prints_nothing();
}

#[test]
fn an_answer_that_is_cut_is_no_success() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"status\":";
    let fake = Fake::new(Answers::With(cut.to_owned()));
    nagi("list")
        .at(fake.port)
        .run()
        .exits(6)
        .prints_nothing()
        .says("broke before the answer was complete");
}

#[test]
fn a_server_that_hangs_is_left_after_the_request_timeout() {
    let fake = Fake::new(Answers::Never);
    let began = Instant::now();
    nagi("list --request-timeout 1s")
        .at(fake.port)
        .run()
        .exits(6)
        .says("no answer from")
        .says("within 1 s");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn text_of_a_server_cannot_act_on_the_terminal() {
    let fake = Fake::refusing("400 Bad Request", "", "red \u{1b}[31m bell \u{7} end");
    let ran = nagi("list").at(fake.port).run().exits(5);
    assert!(
        !ran.stderr.contains('\u{1b}') && !ran.stderr.contains('\u{7}'),
        "{ran:?}"
    );
}

// The key is in no message, whatever fails.
#[test]
fn a_key_is_never_printed() {
    let fake = Fake::refusing("401 Unauthorized", "", "Unauthorized");
    for port in [fake.port, 1] {
        let ran = nagi("list --key geheim-4711").at(port).run();
        assert!(!format!("{ran:?}").contains("4711"), "{ran:?}");
    }
    let ran = nagi("list --help")
        .env("NAGI_KEY", "geheim-4711")
        .run()
        .exits(0);
    assert!(!ran.stdout.contains("4711"), "{}", ran.stdout);
}
