//! Bearer tokens: how they are asked for, what they are good for, and what ends them.

mod asking;
mod clients;
mod ending;
mod external;
mod robots;

use openssl::base64;
use serde_json::Value;

use crate::harness::{Client, Output, Response, Rig, Setup, tidegate, try_run};

/// Everyone pulls what is public, the user does anything.
pub(crate) const PUBLIC: &str = r#"
[[site.access.rule]]
repositories = ["public/**"]
who = ["anonymous"]
actions = ["pull"]
[[site.access.rule]]
repositories = ["**"]
who = ["authenticated"]
actions = ["*"]
"#;

pub(crate) fn public() -> Setup {
    Setup {
        tables: PUBLIC.to_owned(),
        ..Setup::default()
    }
}

/// Another site, of the same registry and users; `auth` goes on in its `[site.auth]`.
fn second_site(auth: &str) -> String {
    format!(
        r#"
[[site]]
hosts = ["second.test"]
certificate = {{ cert_file = "cert.pem", key_file = "cert-key.pem" }}
upstream = "registry"
[site.auth]
htpasswd_file = "htpasswd"
{auth}
"#
    )
}

/// Asks for a token by GET.
fn ask(client: &Client, query: &str) -> Response {
    client.get(&format!("/auth/token?{query}"))
}

/// Asks for a token by POST.
fn post(client: &Client, form: &str) -> Response {
    client
        .request("POST", "/auth/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
}

fn text(value: &Value, key: &str) -> String {
    let text = value[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {value}"))
        .to_owned()
}

fn token_of(reply: Response) -> String {
    text(&reply.expect(200).json(), "token")
}

/// Reads one part of a token without believing it.
pub(crate) fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&decode(token.split('.').nth(index).unwrap())).unwrap()
}

fn decode(text: &str) -> Vec<u8> {
    let mut text = text.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    base64::decode_block(&text).unwrap()
}

/// What a token grants, a line for each resource.
fn access(token: &str) -> Vec<String> {
    let claims = part(token, 1);
    let list = claims["access"].as_array().unwrap().iter();
    list.map(|access| {
        let actions = access["actions"].as_array().unwrap().iter();
        let actions: Vec<&str> = actions.map(|action| action.as_str().unwrap()).collect();
        let name = access["name"].as_str().unwrap();
        format!(
            "{} {name} {}",
            access["type"].as_str().unwrap(),
            actions.join(",")
        )
    })
    .collect()
}

/// `tidegate token …` on the rig's config.
fn cli(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = tidegate();
    command.arg("token").args(arguments);
    try_run(command.arg("--config").arg(rig.config()))
}
