//! Recipes of images: where they begin, whom they run as, and what they refuse.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::objects::{at, read};

/// The instructions of a Dockerfile, one per line, without comments.
fn instructions(path: &str) -> Vec<String> {
    let text = read(path).replace("\\\n", " ");
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn starting<'a>(instructions: &'a [String], word: &str) -> Vec<&'a str> {
    instructions
        .iter()
        .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        .collect()
}

// F18, A-166: several stages, the last from nothing; bases are arguments; a numeric user that is not root; port 8080.
#[test]
fn image_of_the_api_is_built_from_arguments_and_ends_at_scratch() {
    let lines = instructions("src/api/Dockerfile");
    assert_eq!(starting(&lines, "FROM"), ["${RUST} AS build", "scratch"]);
    assert!(starting(&lines, "ARG")[0].starts_with("RUST="));
    assert_eq!(starting(&lines, "USER"), ["65532:65532"]);
    assert_eq!(starting(&lines, "EXPOSE"), ["8080 9090"]);
    assert_eq!(starting(&lines, "ENTRYPOINT"), [r#"["/usr/bin/nagi"]"#]);
    let toolchain = read("rust-toolchain.toml");
    let version = starting(&lines, "ARG")[0].split([':', '-']).nth(1).unwrap();
    assert!(toolchain.contains(&format!("\"{version}\"")), "{version}");
}

// F22, F23, A-171, A-172, W-A38, W-A46: neutral bases that can be replaced, users by number, the model inside.
#[test]
fn images_of_the_samples_are_built_from_arguments() {
    let lines = instructions("src/samples/app-a/Dockerfile");
    assert_eq!(starting(&lines, "FROM"), ["${NGINX}"]);
    assert_eq!(starting(&lines, "USER"), ["101:101"]);
    let lines = instructions("src/samples/app-b/Dockerfile");
    assert_eq!(starting(&lines, "FROM"), ["${FETCH} AS model", "${TRITON}"]);
    assert_eq!(
        starting(&lines, "ARG")[0],
        "TRITON=nvcr.io/nvidia/tritonserver:23.10-py3"
    );
    assert_eq!(starting(&lines, "USER"), ["1000:1000"]);
    assert_eq!(starting(&lines, "EXPOSE"), ["8000 8001 8002"]);
    // Neither has a default: without them the build refuses.
    let arguments = starting(&lines, "ARG");
    for argument in ["MODEL_URL", "MODEL_SHA256"] {
        assert!(arguments.contains(&argument), "{argument}");
    }
    let run = starting(&lines, "RUN");
    assert_eq!(run.len(), 1);
    assert!(
        run[0].contains("\"${MODEL_URL}\" \"${MODEL_SHA256}\""),
        "{run:?}"
    );
}

#[expect(clippy::disallowed_methods, reason = "the test runs the script itself")]
fn fetch(url: &str, sha256: &str, file: &str) -> Output {
    Command::new("sh")
        .arg(at("src/samples/app-b/scripts/fetch-model.sh"))
        .args([url, sha256, file])
        .output()
        .expect("sh is there")
}

/// Serves one file to a few callers; ends with the test.
#[expect(
    clippy::disallowed_methods,
    reason = "a server of a few lines, for one test"
)]
fn serve(content: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            // One read holds the whole request: it is small and sent at once.
            drop(stream.read(&mut head));
            let length = content.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
            );
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    format!("http://{address}/model.onnx")
}

// F23, W-A39: the model is the one that was asked for, or the build refuses and says what to do.
#[test]
fn model_is_fetched_only_with_its_address_and_its_sum() {
    const SUM: &str = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.onnx");
    let path = file.to_str().unwrap();
    let url = serve("model");
    for (url, sha256, said) in [
        ("", SUM, "MODEL_URL is not given"),
        (url.as_str(), "", "MODEL_SHA256 is not given"),
        (url.as_str(), "main", "MODEL_SHA256 is no SHA-256"),
        (url.as_str(), "abc", "MODEL_SHA256 has 3 characters"),
        (
            url.as_str(),
            &SUM.replace('9', "8"),
            "has the SHA-256 9372c470",
        ),
    ] {
        let output = fetch(url, sha256, path);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(
            errors.contains(said) && errors.contains("hint: "),
            "{errors}"
        );
        assert_eq!(
            directory.path().read_dir().unwrap().count(),
            0,
            "nothing is left"
        );
    }
    let output = fetch(&url, SUM, path);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"model");
}
