//! How tokens are asked for, and what they are good for.

use std::fs;
use std::process::Command;

use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use serde_json::Value;

use super::{PUBLIC, access, ask, cli, decode, part, post, public, second_site, text, token_of};
use crate::harness::{
    Client, MANIFEST, PASSWORD, Pair, Response, Rig, Setup, USER, image, need, push_image, run,
};

fn challenge(rig: &Rig, more: &str) -> String {
    format!(
        "Bearer realm=\"https://{}/auth/token\",service=\"localhost\"{more}",
        rig.name()
    )
}

fn pull(client: &Client, repository: &str) -> Response {
    client
        .request("GET", &format!("/v2/{repository}/manifests/v1"))
        .header("Accept", MANIFEST)
        .send()
}

#[test]
fn nobody_pulls_what_is_public_and_the_rest_asks_for_a_name() {
    let rig = public().start();
    let image = image(71, &[1000]);
    for repository in ["public/app", "team/app"] {
        push_image(&rig.client(), repository, "v1", &image);
    }
    let nobody = rig.anonymous();
    let reply = nobody.get("/v2/").expect_error(401, "UNAUTHORIZED");
    assert_eq!(reply.all("WWW-Authenticate"), [challenge(&rig, "")]);
    assert_eq!(
        reply.all("Docker-Distribution-Api-Version"),
        ["registry/2.0"]
    );
    // Who brings nothing gets what nobody may have, and is told what else it takes.
    pull(&nobody, "public/app").expect(200);
    let reply = pull(&nobody, "team/app").expect_error(401, "UNAUTHORIZED");
    let scope = challenge(&rig, ",scope=\"repository:team/app:pull\"");
    assert_eq!(reply.all("WWW-Authenticate"), [scope]);

    let asked = "service=localhost&scope=repository:public/app:pull,push\
                 &scope=repository:team/app:pull";
    let reply = ask(&nobody, asked).expect(200);
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    assert_eq!(reply.json()["refresh_token"], Value::Null);
    let token = text(&reply.json(), "access_token");
    assert_eq!(access(&token), ["repository public/app pull"]);
    let bearer = nobody.as_bearer(&token);
    bearer.get("/v2/").expect(200);
    pull(&bearer, "public/app").expect(200);
    let reply = pull(&bearer, "team/app").expect_error(401, "UNAUTHORIZED");
    let more = ",scope=\"repository:team/app:pull\",error=\"insufficient_scope\"";
    assert_eq!(reply.all("WWW-Authenticate"), [challenge(&rig, more)]);
    let reply = bearer.post("/v2/public/app/blobs/uploads/").expect(401);
    let more = ",scope=\"repository:public/app:pull,push\",error=\"insufficient_scope\"";
    assert_eq!(reply.all("WWW-Authenticate"), [challenge(&rig, more)]);

    // A password is taken unasked.
    pull(&rig.client(), "team/app").expect(200);
    let wrong = rig.anonymous().as_user(USER, "wrong");
    pull(&wrong, "public/app").expect_error(401, "UNAUTHORIZED");
}

#[test]
fn a_token_says_what_it_is_good_for_in_distributions_words() {
    let rig = public().start();
    let asked = "account=docker&client_id=docker&service=localhost\
                 &scope=repository:a/b:pull,push&scope=registry:catalog:*";
    let reply = ask(&rig.client(), asked).expect(200).json();
    assert_eq!(reply["token"], reply["access_token"]);
    assert_eq!(reply["expires_in"], 300);
    assert_eq!(reply["refresh_token"], Value::Null);
    let issued = text(&reply, "issued_at");
    assert!(issued.ends_with('Z') && issued.len() == 20, "{issued}");
    let token = text(&reply, "token");
    let header = part(&token, 0);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&"ES256".into(), &"JWT".into())
    );
    let claims = part(&token, 1);
    for (claim, value) in [("iss", "localhost"), ("aud", "localhost"), ("sub", USER)] {
        assert_eq!(claims[claim], value);
    }
    let seconds = |claim: &str| claims[claim].as_u64().unwrap();
    assert_eq!(seconds("exp") - seconds("iat"), 300);
    assert_eq!(seconds("nbf"), seconds("iat"));
    assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
    let expected = ["repository a/b pull,push", "registry catalog *"];
    assert_eq!(access(&token), expected);

    let bearer = rig.anonymous().as_bearer(&token);
    push_image(&bearer, "a/b", "v1", &image(72, &[1000]));
    bearer.get("/v2/_catalog").expect(200);
    // Its own user could have a better one, and is told so.
    let reply = bearer.delete("/v2/a/b/manifests/v1").expect(401);
    let more = ",scope=\"repository:a/b:delete\",error=\"insufficient_scope\"";
    assert_eq!(reply.all("WWW-Authenticate"), [challenge(&rig, more)]);
    let token = token_of(ask(&rig.client(), "scope=repository:a/b:delete"));
    let bearer = rig.anonymous().as_bearer(&token);
    bearer.delete("/v2/a/b/manifests/v1").expect(202);
    let log = rig.edge_log();
    assert!(!log.contains(&token) && !log.contains(PASSWORD));
}

#[test]
fn a_user_who_may_not_is_not_sent_for_another_token() {
    let hashed = bcrypt::hash("pw", 4).unwrap();
    let own = bcrypt::hash(PASSWORD, 4).unwrap();
    let rig = Setup {
        htpasswd: Some(format!("reader:{hashed}\n{USER}:{own}\n")),
        auth: "scheme = \"bearer\"".to_owned(),
        tables: PUBLIC.replace("authenticated", USER),
        ..Setup::default()
    }
    .start();
    let reader = rig.anonymous().as_user("reader", "pw");
    let token = token_of(ask(&reader, "scope=repository:team/app:pull,push"));
    assert_eq!(access(&token), [""; 0]);
    let bearer = rig.anonymous().as_bearer(&token);
    bearer.get("/v2/").expect(200);
    let reply = bearer.post("/v2/team/app/blobs/uploads/");
    let reply = reply.expect_error(403, "DENIED");
    assert_eq!(reply.header("WWW-Authenticate"), None);
}

#[test]
fn forms_are_answered_as_oauth_says_and_nonsense_is_not() {
    let rig = public().start();
    let password = PASSWORD.replace(' ', "+");
    let good = format!(
        "grant_type=password&service=localhost&client_id=containerd-client&username={USER}\
         &password={password}&scope=repository:a:pull+repository:b:pull,push"
    );
    let token = token_of(post(&rig.anonymous(), &good));
    assert_eq!(
        access(&token),
        ["repository a pull", "repository b pull,push"]
    );
    for (form, status) in [
        (good.replace(&password, "wrong"), 401),
        (good.replace("username=docker", "username=nobody"), 401),
        (good.replace("grant_type=password", "grant_type=x"), 400),
        (good.replace("service=localhost", "service=other"), 400),
        (
            "grant_type=refresh_token&refresh_token=tgr_x".to_owned(),
            401,
        ),
        (String::new(), 400),
        (format!("{good}&x={}", "x".repeat(70_000)), 413),
    ] {
        let reply = post(&rig.anonymous(), &form).expect(status);
        assert_eq!(reply.header("Content-Type"), Some("application/json"));
        assert!(!reply.error_code().is_empty());
    }
    for (query, client, status) in [
        ("service=other", rig.client(), 400),
        ("", rig.anonymous().as_user(USER, "wrong"), 401),
        ("", rig.anonymous().as_bearer(&token), 401),
        ("", rig.anonymous().as_bearer("x"), 401),
        ("scope=nonsense&scope=repository:..:pull", rig.client(), 200),
    ] {
        ask(&client, query).expect(status);
    }
    rig.client().delete("/auth/token").expect(405);
    rig.client()
        .request("PUT", "/auth/token")
        .body("x")
        .send()
        .expect(405);
}

#[test]
fn a_form_that_never_ends_ends_with_its_time() {
    let rig = Setup {
        tables: format!("{PUBLIC}\n[limits]\nheader_timeout = \"1s\"\n"),
        ..Setup::default()
    }
    .start();
    let client = rig.anonymous();
    let request = client.request("POST", "/auth/token");
    let mut exchange = request.header("Content-Length", "100").open().unwrap();
    exchange.write(b"grant_type=password").unwrap();
    assert_eq!(exchange.reply().unwrap().status, 408);
}

#[test]
fn forged_and_foreign_tokens_are_invalid() {
    let (rig, other) = (public().start(), public().start());
    let good = token_of(ask(&rig.client(), "scope=repository:a:pull"));
    let foreign = token_of(ask(&other.client(), "scope=repository:a:pull"));
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = rest.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    for token in [
        foreign.as_str(),
        &format!("{rest}."),
        &format!("{none}.{claims}."),
        &format!("{header}.{claims}x.{signature}"),
        "x",
        &"x".repeat(10_000),
    ] {
        let reply = rig.anonymous().as_bearer(token).get("/v2/");
        let reply = reply.expect_error(401, "UNAUTHORIZED");
        let expected = [challenge(&rig, ",error=\"invalid_token\"")];
        assert_eq!(reply.all("WWW-Authenticate"), expected);
    }
    rig.anonymous().as_bearer(&good).get("/v2/").expect(200);
    assert!(rig.edge_log().contains("invalid token"));
}

#[test]
fn a_token_of_one_site_is_none_of_another() {
    let second = second_site("scheme = \"bearer\"");
    let rig = Setup {
        tables: format!("{PUBLIC}{second}"),
        ..Setup::default()
    };
    let mut rig = rig.prepare();
    // One certificate for both, so that the client trusts either.
    let names = ["localhost", "registry.test", "second.test"];
    Pair::create(&rig.path(""), "cert", &names);
    rig.start_registry();
    rig.start_edge();
    rig.wait_until_ready();
    let (first, second) = (rig.client(), rig.client().for_host("second.test"));
    let scope = "scope=repository:a:pull,push";
    let (of_first, of_second) = (token_of(ask(&first, scope)), token_of(ask(&second, scope)));
    for (client, token, status) in [
        (&first, &of_first, 200),
        (&second, &of_second, 200),
        (&first, &of_second, 401),
        (&second, &of_first, 401),
    ] {
        client.as_bearer(token).get("/v2/").expect(status);
    }
    let login = ask(&first, "offline_token=true").expect(200).json();
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        text(&login, "refresh_token")
    );
    post(&first.for_host("registry.test"), &form).expect(200);
    post(&second, &form).expect(401);
}

#[test]
fn the_scheme_is_the_operators_to_choose() {
    let challenges = |auth: &str, tables: &str| {
        let rig = Setup {
            auth: auth.to_owned(),
            tables: tables.to_owned(),
            ..Setup::default()
        }
        .start();
        let reply = rig.anonymous().get("/v2/").expect(401);
        let schemes = reply.all("WWW-Authenticate").into_iter();
        let schemes: Vec<String> = schemes
            .map(|challenge| challenge.split(' ').next().unwrap().to_owned())
            .collect();
        let token = ask(&rig.client(), "").status;
        (schemes.join(" "), token, rig.path("state").exists())
    };
    for (auth, tables, expected) in [
        ("", "", ("Basic", 404, false)),
        ("", PUBLIC, ("Bearer", 200, true)),
        ("scheme = \"basic\"", PUBLIC, ("Basic", 404, false)),
        ("scheme = \"both\"", "", ("Bearer Basic", 200, true)),
        ("scheme = \"bearer\"", "", ("Bearer", 200, true)),
    ] {
        let (schemes, token, state) = challenges(auth, tables);
        assert_eq!((&*schemes, token, state), expected, "{auth} {tables}");
    }
}

#[test]
fn without_a_public_rule_nobody_gets_no_token() {
    let rig = Setup {
        auth: "scheme = \"bearer\"\n[site.auth.token]\nlifetime = \"1m\"\nservice = \"us\"\n\
               issuer = \"them\"\nrealm = \"https://tokens.test/x\""
            .to_owned(),
        ..Setup::default()
    }
    .start();
    let reply = rig.anonymous().get("/v2/").expect(401);
    let expected = "Bearer realm=\"https://tokens.test/x\",service=\"us\"";
    assert_eq!(reply.all("WWW-Authenticate"), [expected]);
    let reply = ask(&rig.anonymous(), "service=us").expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        reply.all("WWW-Authenticate"),
        ["Basic realm=\"Registry\", charset=\"UTF-8\""]
    );
    let reply = ask(&rig.client(), "service=us").expect(200).json();
    assert_eq!(reply["expires_in"], 60);
    let claims = part(&text(&reply, "token"), 1);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&"them".into(), &"us".into())
    );
}

#[test]
fn a_trusted_proxy_says_where_clients_find_the_edge() {
    let rig = Setup {
        top: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        ..public()
    }
    .start();
    let seen = |headers: &[(&str, &str)]| {
        let client = rig.anonymous();
        let request = client.request("GET", "/v2/");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        request
            .send()
            .expect(401)
            .header("WWW-Authenticate")
            .unwrap()
            .to_owned()
    };
    let name = rig.name();
    for (headers, expected) in [
        (&[][..], format!("https://{name}/")),
        (
            &[
                ("X-Forwarded-Proto", "http"),
                ("X-Forwarded-Host", "r.test:80"),
            ],
            "http://r.test:80/".to_owned(),
        ),
        (
            &[("X-Forwarded-Host", "evil\"x")],
            format!("https://{name}/"),
        ),
    ] {
        let found = seen(headers);
        let expected = format!("Bearer realm=\"{expected}auth/token\"");
        assert!(found.starts_with(&expected), "{found}");
    }
    let rig = public().start();
    let client = rig.anonymous();
    let request = client
        .request("GET", "/v2/")
        .header("X-Forwarded-Host", "evil.test");
    let reply = request.send().expect(401);
    assert_eq!(reply.all("WWW-Authenticate"), [challenge(&rig, "")]);
}

#[test]
fn others_verify_the_signature_by_the_published_key() {
    need!("openssl");
    let rig = public().start();
    let token = token_of(ask(&rig.client(), "scope=repository:a:pull"));
    let (message, signature) = token.rsplit_once('.').unwrap();
    // OpenSSL's command wants the two numbers as ASN.1.
    let raw = decode(signature);
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
    let signature = EcdsaSig::from_private_components(number(&raw[..32]), number(&raw[32..]));
    fs::write(rig.path("signature"), signature.unwrap().to_der().unwrap()).unwrap();
    fs::write(rig.path("message"), message).unwrap();
    let certificates = cli(&rig, &["certificates"]);
    assert!(certificates.success, "{certificates}");
    fs::write(rig.path("token.pem"), &certificates.stdout).unwrap();
    let openssl = |arguments: &[&str]| {
        run(Command::new("openssl")
            .current_dir(rig.path(""))
            .args(arguments))
    };
    let key = openssl(&["x509", "-in", "token.pem", "-noout", "-pubkey"]);
    fs::write(rig.path("key.pub"), key).unwrap();
    let arguments = [
        "dgst",
        "-sha256",
        "-verify",
        "key.pub",
        "-signature",
        "signature",
        "message",
    ];
    assert_eq!(openssl(&arguments).trim(), "Verified OK");

    let keys = rig.anonymous().get("/.well-known/jwks.json").expect(200);
    assert_eq!(keys.header("Content-Type"), Some("application/json"));
    let keys = keys.json();
    let key = &keys["keys"][0];
    assert_eq!(key["kid"], part(&token, 0)["kid"]);
    assert_eq!((&key["kty"], &key["crv"]), (&"EC".into(), &"P-256".into()));
    assert_eq!(key.get("d"), None);
    let text = openssl(&["pkey", "-pubin", "-in", "key.pub", "-noout", "-text"]);
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let x: String = decode(key["x"].as_str().unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(hex.contains(&x), "{text}");
}
