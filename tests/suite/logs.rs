//! The access log and what never gets into any log.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    PASSWORD, Rig, Setup, USER, digest, eventually, noise, push_blob, with_query,
};

/// A rig that writes its access log as JSON, and the log so far.
fn with_access_log(format: &str) -> (Rig, TempDir) {
    let folder = TempDir::new().unwrap();
    let tables = format!(
        "[log]\nformat = \"{format}\"\naccess_file = \"{}\"\n",
        folder.path().join("access.log").display()
    );
    (
        Setup {
            tables,
            ..Setup::default()
        }
        .start(),
        folder,
    )
}

/// The lines about a path, once there are this many.
fn lines(folder: &TempDir, path: &str, count: usize) -> Vec<String> {
    eventually("the access log", || {
        let text = fs::read_to_string(folder.path().join("access.log")).ok()?;
        let lines: Vec<String> = text
            .lines()
            .filter(|line| line.contains(path))
            .map(str::to_owned)
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// A field of a JSON line, wherever the format puts it.
fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    let nested = &line["fields"][name];
    if nested.is_null() {
        &line[name]
    } else {
        nested
    }
}

#[test]
fn each_request_is_one_line_with_who_what_and_how_long() {
    let (rig, folder) = with_access_log("json");
    let client = rig.client();
    let bytes = noise(160, 100_000);
    let location = client
        .post("/v2/logged/blobs/uploads/")
        .expect(202)
        .location();
    let location = with_query(&location, &format!("digest={}", digest(&bytes)));
    client
        .request("PUT", &location)
        .body(bytes.clone())
        .send()
        .expect(201);
    client
        .get(&format!("/v2/logged/blobs/{}", digest(&bytes)))
        .expect(200);

    let lines = lines(&folder, "/v2/logged/", 3);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let parsed: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &parsed {
        assert!(line["timestamp"].is_string(), "{line}");
        assert_eq!(field(line, "principal"), USER, "{line}");
        let client = field(line, "client").as_str().unwrap();
        assert!(client.starts_with("127.0.0.1"), "{line}");
        for name in [
            "site",
            "method",
            "path",
            "status",
            "bytes_in",
            "bytes_out",
            "duration_ms",
            "upstream_ms",
        ] {
            assert!(!field(line, name).is_null(), "no {name} in {line}");
        }
    }
    assert_eq!(field(&parsed[1], "method"), "PUT");
    assert_eq!(field(&parsed[1], "status"), 201);
    assert_eq!(field(&parsed[1], "bytes_in"), 100_000);
    assert_eq!(field(&parsed[2], "bytes_out"), 100_000);
}

#[test]
fn whose_fault_an_error_was_is_in_its_line() {
    let (mut rig, folder) = with_access_log("json");
    rig.client().get("/v2/missing/tags/list").expect(404);
    rig.anonymous().get("/v2/nobody/tags/list").expect(401);
    rig.registry().kill();
    rig.client().get("/v2/down/tags/list").expect(503);

    let fault = |path: &str| {
        let line: Value = serde_json::from_str(&lines(&folder, path, 1)[0]).unwrap();
        (
            field(&line, "status").clone(),
            field(&line, "fault").clone(),
        )
    };
    assert_eq!(fault("/v2/missing/").0, 404);
    let (status, _) = fault("/v2/nobody/");
    assert_eq!(status, 401);
    let (status, whose) = fault("/v2/down/");
    assert_eq!(status, 503);
    assert!(
        whose.as_str().unwrap().to_lowercase().contains("upstream"),
        "{whose}"
    );
}

#[test]
fn text_lines_are_for_people() {
    let (rig, folder) = with_access_log("text");
    rig.client().get("/v2/text/tags/list").expect(404);
    let line = lines(&folder, "/v2/text/", 1).remove(0);
    for part in ["GET", "404", USER, "127.0.0.1"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains('\u{1b}'), "colours in a file: {line:?}");
}

#[test]
fn secrets_are_in_no_log() {
    let mut tables = String::from("[log]\nlevel = \"trace\"\n");
    tables += "format = \"text\"\n";
    let rig = Setup {
        tables,
        ..Setup::default()
    }
    .start();
    let token = openssl::base64::encode_block(format!("{USER}:{PASSWORD}").as_bytes());
    push_blob(&rig.client(), "secret/app", b"x");
    let client = rig
        .anonymous()
        .as_user(USER, "a wrong guess, maybe another site's password");
    client.get("/v2/").expect(401);
    rig.client()
        .request("GET", "/v2/")
        .header("Cookie", "session=tasty")
        .send()
        .expect(200);

    let log = eventually("the log", || {
        let log = rig.edge_log() + &rig.registry_log();
        log.contains("secret/app").then_some(log)
    });
    let wrong = "a wrong guess";
    for secret in [
        PASSWORD,
        token.as_str(),
        wrong,
        "session=tasty",
        "$2b$04$",
        "BEGIN PRIVATE",
    ] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}

#[test]
fn a_request_cannot_forge_a_line() {
    let (rig, folder) = with_access_log("text");
    let request = rig.client();
    request
        .request("GET", "/v2/forged%0a2026%20GET%20/v2/evil/tags/list")
        .send();
    rig.client()
        .as_user("x\nforged line", "y")
        .get("/v2/innocent/tags/list")
        .expect(401);
    lines(&folder, "/v2/innocent/", 1);
    let text = fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert!(
        text.lines()
            .all(|line| !line.starts_with("forged") && !line.starts_with("2026 GET")),
        "{text}"
    );
}

#[test]
fn a_request_has_one_id_in_both_places() {
    let (rig, folder) = with_access_log("json");
    let client = rig.client();
    let request = client.request("GET", "/v2/ids/tags/list");
    let reply = request.header("X-Request-Id", "forged").send().expect(404);
    let line = lines(&folder, "/v2/ids/", 1).remove(0);
    let line: Value = serde_json::from_str(&line).unwrap();
    let id = field(&line, "request_id")
        .as_str()
        .unwrap_or_else(|| panic!("{line}"));
    assert!(id != "forged" && id.len() >= 16, "{id}");
    if let Some(sent) = reply.header("X-Request-Id") {
        assert_eq!(sent, id);
    }
}
