//! Who comes in with a certificate, as whom, and who with none.

use std::fs;
use std::process::Command;

use super::{Doors, Wallet};
use crate::harness::{PASSWORD, Pair, USER, need, run};

#[test]
fn where_a_certificate_is_required_a_good_one_comes_in_and_no_other() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "200");
    doors.logged(&["\"access\"", "required.test", "ci-7", "200"]);

    for (pair, told) in [
        (None, "no client certificate"),
        (Some(&wallet.expired), "client certificate: expired"),
        (Some(&wallet.early), "client certificate: not yet valid"),
        (
            Some(&wallet.server),
            "client certificate: not made for clients",
        ),
        (
            Some(&wallet.stranger),
            "client certificate: of an unknown authority",
        ),
    ] {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version = version.replace('=', " ");
            let flags: Vec<&str> = version.split(' ').collect();
            let output = doors.curl("required.test", "", pair, &flags);
            assert!(!output.success, "{told}: {output}");
            // The client is told by an alert, not by a connection that breaks.
            // Of one for an expired certificate curl says its own words.
            let alert = ["alert", "SSL certificate verification failed"];
            let told_so = alert.iter().any(|words| output.stderr.contains(words));
            assert!(told_so, "{told}: {output}");
        }
        let line = doors.logged(&["handshake failed", "required.test", told]);
        assert!(
            line.contains("127.0.0.1") && line.contains("INFO"),
            "{line}"
        );
    }
    // An intermediate is needed that the site does not have.
    let bare = Pair {
        cert: doors.authority.at("bare.pem"),
        key: wallet.good.key.clone(),
    };
    fs::write(&bare.cert, wallet.good.certificate().to_pem().unwrap()).unwrap();
    assert_eq!(doors.status("required.test", "", Some(&bare)), "000");
    for level in ["ERROR", "WARN"] {
        let lines = doors.rig.edge_lines(&[level]);
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

#[test]
fn where_a_certificate_is_optional_nobody_is_asked_to_fail() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let status = |pair| doors.status("optional.test", "", pair);
    assert_eq!(status(None), "401");
    assert_eq!(status(Some(&wallet.good)), "200");
    let login = format!("{USER}:{PASSWORD}");
    let output = doors.curl("optional.test", "", None, &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    // A password is looked at first, and one that is wrong is not made good by a certificate.
    let output = doors.curl("optional.test", "", Some(&wallet.good), &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    doors.logged(&["\"access\"", "optional.test", "\"docker\"", "200"]);
    let output = doors.curl(
        "optional.test",
        "",
        Some(&wallet.good),
        &["-u", "docker:wrong"],
    );
    assert!(output.stdout.ends_with("401"), "{output}");

    for (pair, reason) in [
        (&wallet.expired, "expired"),
        (&wallet.early, "not yet valid"),
        (&wallet.server, "not made for clients"),
        (&wallet.stranger, "of an unknown authority"),
    ] {
        let output = doors.curl("optional.test", "", Some(pair), &["-u", &login]);
        let (body, status) = output.stdout.rsplit_once('\n').unwrap();
        assert_eq!(status, "403", "{reason}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["errors"][0]["code"], "DENIED");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
        doors.logged(&["\"access\"", &format!("certificate: {reason}"), "403"]);
    }
    let lines = doors.rig.edge_lines(&["WARN"]);
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn a_certificate_can_open_the_door_and_leave_the_name_to_a_password() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let wallet = Wallet::of(&doors);
    let login = format!("{USER}:{PASSWORD}");
    let output = doors.curl("both.test", "", Some(&wallet.good), &["-u", &login]);
    assert!(output.stdout.ends_with("200"), "{output}");
    doors.logged(&["\"access\"", "both.test", "\"docker\"", "200"]);
    assert_eq!(doors.status("both.test", "", Some(&wallet.good)), "401");
    let output = doors.curl("both.test", "", None, &["-u", &login]);
    assert!(!output.success, "{output}");
}

#[test]
fn names_lists_and_units_decide() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let client = "extendedKeyUsage=clientAuth\n";
    let named = |name: &str, email: &str| {
        let extensions = format!("{client}subjectAltName=email:{email},URI:urn:x\n");
        doors.authority.issue_with(name, "/CN=x", &extensions, 10)
    };
    let (inside, outside) = (named("inside", "ci@a.test"), named("outside", "ci@b.test"));
    assert_eq!(doors.status("email.test", "", Some(&inside)), "200");
    doors.logged(&["\"access\"", "email.test", "ci@a.test", "200"]);
    let nameless = doors.authority.issue("nameless", "/CN=ci@a.test");
    for (pair, told) in [
        (&outside, "not of a name that is let in"),
        (&nameless, "without the name that is asked for"),
    ] {
        let output = doors.curl("email.test", "", Some(pair), &[]);
        assert!(output.stdout.contains(told), "{output}");
        assert!(output.stdout.ends_with("403"), "{output}");
    }

    // A certificate's units are groups, and its name is one that rules know.
    let dev = doors.authority.issue("dev", "/CN=eve/OU=night/OU=dev");
    let ci = doors.authority.issue("ci", "/CN=ci-7/OU=night");
    let push = |path: &str, pair| {
        let output = doors.curl("ruled.test", path, Some(pair), &["-X", "POST", "-d", ""]);
        output.stdout.lines().last().unwrap().to_owned()
    };
    assert_eq!(push("team/app/blobs/uploads/", &dev), "202");
    assert_eq!(push("other/app/blobs/uploads/", &dev), "403");
    assert_eq!(push("team/app/blobs/uploads/", &ci), "403");
    assert_eq!(
        doors.status("ruled.test", "other/app/tags/list", Some(&ci)),
        "404"
    );
}

#[test]
fn a_token_for_a_certificate_is_good_with_that_certificate_alone() {
    need!("openssl", "curl");
    let doors = Doors::open_with("scheme = \"both\"\n");
    let [eve, other] = ["eve", "other"].map(|name| {
        let subject = format!("/CN={name}/OU=dev");
        doors.authority.issue(name, &subject)
    });
    let port = doors.rig.https.port();
    let desk = format!(
        "https://optional.test:{port}/auth/token?service=optional.test&scope=repository:a/b:pull,push"
    );
    let mut curl = Command::new("curl");
    curl.args(["-s", "-S", "--resolve"])
        .arg(format!("optional.test:{port}:127.0.0.1"))
        .arg("--cacert")
        .arg(doors.rig.path("cert.pem"))
        .arg("--cert")
        .arg(&eve.cert)
        .arg("--key")
        .arg(&eve.key)
        .arg(desk);
    let reply: serde_json::Value = serde_json::from_str(&run(&mut curl)).unwrap();
    let bearer = format!(
        "Authorization: Bearer {}",
        reply["token"].as_str().unwrap_or_else(|| panic!("{reply}"))
    );
    for (pair, status) in [(Some(&eve), "404"), (Some(&other), "401"), (None, "401")] {
        let output = doors.curl("optional.test", "a/b/tags/list", pair, &["-H", &bearer]);
        assert!(output.stdout.ends_with(status), "{output}");
    }
}
