//! What does not pass through to other upstreams: headers that only this edge may set, and methods
//! that no site has asked for.

use crate::harness::h2::{DATA, H2};
use crate::harness::{Client, Response, Rig, eventually};
use crate::second_site::with_echo_and;

/// Headers that services behind a proxy are known to believe.
const CLAIMS: [&str; 46] = [
    "X-Forwarded-User",
    "X-Tidegate-User",
    "Remote-User",
    "X-Remote-User",
    "X-WEBAUTH-USER",
    "X-Auth-Request-User",
    "X-Authenticated-User",
    "X-User",
    "X-Username",
    "X-Email",
    "X-Authentik-Username",
    "X-Authentik-Groups",
    "Tailscale-User-Login",
    "Tailscale-User-Name",
    "Cf-Access-Authenticated-User-Email",
    "Cf-Access-Jwt-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-Iap-Jwt-Assertion",
    "X-SSL-Client-CN",
    "X-SSL-Client-Verify",
    "X-SSL-Client-S-DN",
    "SSL-Client-Verify",
    "SSL-Client-Cert",
    "X-Client-Verify",
    "X-Client-Cert",
    "X-Client-DN",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert",
    "X-Forwarded-Tls-Client-Cert-Info",
    "X-Client-IP",
    "Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "Fastly-Client-IP",
    "X-Cluster-Client-IP",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Forwarded-For",
    "X-Rewrite-URL",
    "Proxy",
    "X-Token-Subject",
    "X-Vouch-User",
    "X-Pomerium-Jwt-Assertion",
    "X-Ms-Client-Principal-Name",
    "X-Amzn-Oidc-Identity",
];

#[test]
fn nothing_that_only_the_edge_may_say_passes_in_any_spelling_or_through_any_proxy() {
    for top in ["", "trusted_proxies = [\"127.0.0.0/8\"]"] {
        let (_rig, echo, client) = with_echo_and(top, "");
        for spell in [
            |name: &str| name.to_owned(),
            |name: &str| name.replace('-', "_"),
            |name: &str| name.replacen('-', "_", 1).to_uppercase(),
            |name: &str| name.replace('-', "."),
        ] {
            let mut request = client.request("GET", "/").header("X-Own", "forged");
            for name in CLAIMS {
                request = request.header(&spell(name), "forged");
            }
            request.send().expect(200);
            let head = echo.head();
            let passed: Vec<&String> = head.iter().filter(|line| line.contains("forged")).collect();
            assert_eq!(passed.len(), 1, "{passed:?}");
            assert!(passed[0].to_lowercase().starts_with("x-own:"), "{passed:?}");
        }
    }
}

/// A trusted proxy takes away `X-Forwarded-For` and leaves what its client has spelled otherwise, which
/// a service in Python then reads as the same header.
#[test]
fn an_address_is_told_by_trusted_proxies_in_one_spelling_alone() {
    let (_rig, echo, client) = with_echo_and("trusted_proxies = [\"127.0.0.0/8\"]", "");
    client
        .request("GET", "/")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X_Forwarded_For", "6.6.6.6")
        .header("X-Forwarded_Host", "6.6.6.6")
        .header("X_Real_IP", "6.6.6.6")
        .header("X-Forwarded-Port", "444")
        .send()
        .expect(200);
    let head = echo.head().join("\n");
    assert!(!head.contains("6.6.6.6"), "{head}");
    assert!(head.contains("203.0.113.7, 127.0.0.1"), "{head}");
    assert!(head.contains("444"), "{head}");
}

/// A proxy writes the host that its client chose into a quoted string, commas and all.
#[test]
fn a_comma_within_quotes_does_not_make_a_hop() {
    let (_rig, echo, client) = with_echo_and("trusted_proxies = [\"127.0.0.0/8\"]", "");
    for (forwarded, client_is, continued) in [
        (
            r#"for=203.0.113.7;host="a,for=6.6.6.6""#,
            "203.0.113.7",
            true,
        ),
        (
            r#"for=203.0.113.7;host="a\",for=6.6.6.6""#,
            "203.0.113.7",
            true,
        ),
        (r#"for="6.6.6.6, for=203.0.113.7"#, "203.0.113.7", false),
        (
            r#"for="6.6.6.6, for=203.0.113.7;host="b,c""#,
            "203.0.113.7",
            false,
        ),
    ] {
        let request = client.request("GET", "/").header("Forwarded", forwarded);
        request.send().expect(200);
        let seen = echo.next();
        assert_eq!(seen("X-Real-IP"), [client_is], "{forwarded}");
        let told = seen("Forwarded").join(", ");
        let own = "for=127.0.0.1;host=echo.test;proto=https";
        let expected = if continued { forwarded } else { "for=unknown" };
        assert_eq!(told, format!("{expected}, {own}"));
    }
}

fn ask(client: &Client, method: &str, path: &str) -> Response {
    client.request(method, path).send()
}

#[test]
fn only_the_methods_of_the_web_reach_a_service_that_asks_for_no_others() {
    let (rig, echo, client) = with_echo_and("", "");
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        ask(&client, method, "/").expect(200);
        assert!(echo.head()[0].starts_with(method));
    }
    for method in ["TRACE", "TRACK", "PROPFIND", "FOO", "get", "PRI2"] {
        let reply = ask(&client, method, "/refused").expect(405);
        let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        assert_eq!(reply.header("Allow"), Some(allow), "{method}");
    }
    assert_ne!(ask(&client, "CONNECT", "/").status, 200);
    eventually("the refusal in the log, with its reason", || {
        let lines = rig.edge_lines(&["/refused", "TRACE", "allow_methods"]);
        (lines.len() == 1).then_some(())
    });
    ask(&client, "GET", "/last").expect(200);
    assert!(echo.head()[0].starts_with("GET /last "));
}

#[test]
fn a_site_may_let_more_methods_through() {
    let (_rig, echo, client) = with_echo_and("", "allow_methods = [\"PROPFIND\", \"TRACE\"]");
    for method in ["PROPFIND", "TRACE", "GET"] {
        ask(&client, method, "/dav").expect(200);
        assert!(echo.head()[0].starts_with(&format!("{method} /dav ")));
    }
    let reply = ask(&client, "MKCOL", "/dav").expect(405);
    let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PROPFIND, TRACE";
    assert_eq!(reply.header("Allow"), Some(allow));
}

#[test]
fn a_registry_answers_methods_that_it_does_not_have_with_those_that_it_has() {
    let rig = Rig::start();
    for client in [rig.client(), rig.anonymous()] {
        for method in ["TRACE", "FOO"] {
            for (path, allow) in [
                ("/v2/", "GET, HEAD"),
                ("/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
            ] {
                let reply = ask(&client, method, path).expect_error(405, "UNSUPPORTED");
                assert_eq!(reply.header("Allow"), Some(allow), "{method} {path}");
            }
        }
    }
    ask(&rig.anonymous(), "OPTIONS", "/v2/").expect(204);
}

/// HTTP/1.1 has blanks around a value taken off, so that the registry would be told another value than
/// was looked at here.
#[test]
fn a_header_with_blanks_around_its_value_is_refused_by_name_over_http2() {
    let rig = Rig::start();
    let mut connection = H2::connect(&rig).unwrap();
    for value in [" b", "b\t", " "] {
        let headers = [("accept", "*/*"), ("x-odd", value)];
        let (stream, head) = connection.open_with("GET", "/v2/", true, &headers);
        connection.send(&head).unwrap();
        let frames = connection.receive_all(stream).unwrap();
        let data = frames.iter().filter(|frame| frame.kind == DATA);
        let body: Vec<u8> = data.flat_map(|frame| frame.payload.clone()).collect();
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            error["errors"][0]["message"],
            "header \"x-odd\" has blanks around its value"
        );
    }
}
