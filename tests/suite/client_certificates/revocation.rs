//! Authorities and their revocation lists, read again as they change.

use std::fs;

use super::{Doors, Wallet};
use crate::harness::{Authority, eventually, need, try_run};

#[test]
fn a_revoked_certificate_is_refused_as_soon_as_the_list_says_so() {
    need!("openssl", "curl");
    let doors = Doors::open_with("client_crl_files = [\"clients/crl.pem\"]\n");
    let lost = doors.authority.issue("lost", "/CN=lost");
    let kept = doors.authority.issue("kept", "/CN=kept");
    for pair in [&lost, &kept] {
        assert_eq!(doors.status("required.test", "", Some(pair)), "200");
        assert_eq!(doors.status("optional.test", "", Some(pair)), "200");
    }
    // A connection that is kept is looked at again, too.
    let client = doors.rig.anonymous().for_host("required.test");
    let mut connection = client.with_certificate(&lost).connect().unwrap();
    let mut ask = || {
        connection.write(b"GET /v2/ HTTP/1.1\r\nHost: required.test\r\n\r\n")?;
        connection.reply()
    };
    assert_eq!(ask().unwrap().status, 200);

    doors.authority.revoke(&lost);
    eventually("the list to be picked up", || {
        (doors.status("required.test", "", Some(&lost)) == "000").then_some(())
    });
    doors.logged(&["handshake failed", "client certificate: revoked"]);
    let refused = ask().unwrap().expect_error(403, "DENIED");
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    let output = doors.curl("optional.test", "", Some(&lost), &[]);
    assert!(output.stdout.contains("revoked") && output.stdout.ends_with("403"));
    assert_eq!(doors.status("required.test", "", Some(&kept)), "200");

    let lines = doors.rig.edge_lines(&["WARN"]);
    assert!(lines.is_empty(), "{lines:#?}");

    // A list that cannot be used changes nothing.
    fs::write(doors.authority.at("crl.pem"), "nonsense").unwrap();
    doors.logged(&["ERROR", "holds no revocation list"]);
    assert_eq!(doors.status("required.test", "", Some(&kept)), "200");
    assert_eq!(doors.status("required.test", "", Some(&lost)), "000");
}

#[test]
fn authorities_without_a_revocation_list_are_warned_of() {
    need!("openssl", "curl");
    let doors = Doors::open();
    let config = doors.rig.config();
    let text = fs::read_to_string(&config).unwrap();
    let with_lists = |file: &str| {
        let keys = format!("client_crl_files = [\"clients/{file}\"]\n");
        let text = text.replace("client_ca_file", &format!("{keys}client_ca_file"));
        fs::write(&config, text).unwrap();
        try_run(
            crate::harness::tidegate()
                .arg("check")
                .arg("--config")
                .arg(&config),
        )
    };
    let output = with_lists("intermediate.crl");
    assert!(output.success, "{output}");
    let told = format!("{output}");
    assert!(
        told.contains("there is no revocation list of O=clients, CN=clients root"),
        "{told}"
    );
    let output = with_lists("none.crl");
    assert!(!output.success, "{output}");
    assert!(
        output.stderr.contains("auth.client_crl_files[0]"),
        "{output}"
    );
    let output = with_lists("root.pem");
    assert!(
        output.stderr.contains("holds no revocation list"),
        "{output}"
    );
}

#[test]
fn an_intermediate_can_be_trusted_and_its_root_not() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let one = doors.authority.issue("one", "/CN=one");
    let other = doors.authority.issue_by_another("other", "/CN=other");
    for pair in [&one, &other] {
        assert_eq!(doors.status("required.test", "", Some(pair)), "200");
    }
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let text = text.replace("clients/root.pem", "clients/intermediate.pem");
    fs::write(doors.rig.config(), &text).unwrap();
    doors.rig.reload_edge();
    eventually("the root to be left out", || {
        (doors.status("required.test", "", Some(&other)) == "000").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&one)), "200");

    // Its own list is enough.
    let lost = doors.authority.issue("lost", "/CN=lost");
    doors.authority.revoke(&lost);
    let listed = text.replace(
        "clients/intermediate.pem\"\n",
        "clients/intermediate.pem\"\nclient_crl_files = [\"clients/intermediate.crl\"]\n",
    );
    fs::write(doors.rig.config(), listed).unwrap();
    doors.rig.reload_edge();
    eventually("the list to be asked", || {
        (doors.status("required.test", "", Some(&lost)) == "000").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&one)), "200");
}

#[test]
fn a_revoked_intermediate_is_refused_beside_an_authority_without_its_root() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let folder = doors.rig.config().parent().unwrap().to_owned();
    let strangers = Authority::found(&folder, "strangers");
    let pair = doors.authority.issue("one", "/CN=one");
    let stranger = strangers.issue("stranger", "/CN=stranger");
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let listed = text.replace(
        "clients/root.pem\"\n",
        "mixed.pem\"\nclient_crl_files = [\"clients/crl.pem\", \"strangers/intermediate.crl\"]\n",
    );
    fs::write(doors.rig.config(), listed).unwrap();
    let mixed = [
        doors.authority.at("root.pem"),
        strangers.at("intermediate.pem"),
    ];
    let mixed = mixed.map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(folder.join("mixed.pem"), &mixed).unwrap();
    doors.rig.reload_edge();
    eventually("the other authority to be trusted", || {
        (doors.status("required.test", "", Some(&stranger)) == "200").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&pair)), "200");
    let client = doors.rig.anonymous().for_host("required.test");
    let mut connection = client.with_certificate(&pair).connect().unwrap();
    let mut ask = || {
        connection.write(b"GET /v2/ HTTP/1.1\r\nHost: required.test\r\n\r\n")?;
        connection.reply()
    };
    assert_eq!(ask().unwrap().status, 200);

    doors.authority.revoke_intermediate();
    eventually("the list to be picked up", || {
        (doors.status("required.test", "", Some(&pair)) == "000").then_some(())
    });
    doors.logged(&["handshake failed", "client certificate: revoked"]);
    let refused = ask().unwrap().expect_error(403, "DENIED");
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    let output = doors.curl("optional.test", "", Some(&pair), &[]);
    assert!(output.stdout.contains("revoked") && output.stdout.ends_with("403"));
    assert_eq!(doors.status("required.test", "", Some(&stranger)), "200");

    // Nor does it help to stand in the file beside the root.
    let intermediate = fs::read_to_string(doors.authority.at("intermediate.pem")).unwrap();
    let times_read = || {
        doors
            .rig
            .edge_lines(&["revocation lists changed, read again"])
            .len()
    };
    let before = times_read();
    fs::write(folder.join("mixed.pem"), mixed + &intermediate).unwrap();
    eventually("the file to be picked up", || {
        (times_read() > before).then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&pair)), "000");
    assert_eq!(doors.status("required.test", "", Some(&stranger)), "200");
}

#[test]
fn authorities_and_lists_of_names_come_with_a_reload() {
    need!("openssl", "curl");
    let mut doors = Doors::open();
    let wallet = Wallet::of(&doors);
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "200");
    let text = fs::read_to_string(doors.rig.config()).unwrap();
    let other = text.replace("clients/root.pem", "strangers/root.pem");
    fs::write(doors.rig.config(), other).unwrap();
    doors.rig.reload_edge();
    eventually("the other authority", || {
        (doors.status("required.test", "", Some(&wallet.stranger)) == "200").then_some(())
    });
    assert_eq!(doors.status("required.test", "", Some(&wallet.good)), "000");

    let listed = text.replace("client_allow = [\"*@a.test\"]", "client_allow = [\"x\"]");
    let listed = listed.replace("client_ca_file", "client_crl_files = []\nclient_ca_file");
    fs::write(doors.rig.config(), listed).unwrap();
    doors.rig.reload_edge();
    let email = doors.authority.issue_with(
        "email",
        "/CN=x",
        "extendedKeyUsage=clientAuth\nsubjectAltName=email:ci@a.test\n",
        10,
    );
    eventually("the other list", || {
        (doors.status("email.test", "", Some(&email)) == "403").then_some(())
    });
}
