//! However a path is spelled, it is served as the repository that it was authorised as.

mod dice;

use std::io::{Read, Write};
use std::net::TcpStream;

use openssl::ssl::SslStream;

use self::dice::{Dice, spelled, spelling};
use crate::harness::{
    Client, Image, PASSWORD, Rig, Setup, USER, digest, files_below, image, push_image,
};
use crate::smuggling::{authorization, connect};
use crate::smuggling_http2::{
    Case, DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, next_frame, preface,
};

const ADMIN: &str = "admin";

/// How many spellings each test sends.
const SPELLINGS: usize = 4000;

/// A user who may do anything in `allowed/**`, and nothing in `secret/app`, which is there.
struct Shut {
    rig: Rig,
    admin: Client,
    secret: Image,
}

impl Shut {
    fn start() -> Self {
        let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
        let rig = Setup {
            htpasswd: Some(format!("{USER}:{hashed}\n{ADMIN}:{hashed}\n")),
            site: "[[site.access.rule]]\nwho = [\"admin\"]\nactions = [\"*\"]\n\
                   [[site.access.rule]]\nrepositories = [\"allowed/**\"]\n\
                   who = [\"authenticated\"]\nactions = [\"*\"]\n"
                .to_owned(),
            ..Setup::default()
        }
        .start();
        let admin = rig.anonymous().as_user(ADMIN, PASSWORD);
        let secret = image(42, &[3000]);
        push_image(&admin, "secret/app", "hidden-tag", &secret);
        push_image(&admin, "allowed/app", "v1", &image(43, &[3000]));
        Self { rig, admin, secret }
    }

    /// What only who reads the secret can say.
    fn marks(&self) -> Vec<Vec<u8>> {
        vec![
            self.secret.layers[0][..32].to_vec(),
            b"application/vnd.oci.image.config.v1+json".to_vec(),
            b"[\"hidden-tag\"]".to_vec(),
            b"seed 42".to_vec(),
        ]
    }

    /// The paths of all that is secret.
    fn paths(&self) -> Vec<String> {
        let layer = digest(&self.secret.layers[0]);
        let config = digest(&self.secret.config);
        let manifest = self.secret.digest();
        [
            "manifests/hidden-tag".to_owned(),
            format!("manifests/{manifest}"),
            format!("blobs/{layer}"),
            format!("blobs/{config}"),
            "tags/list".to_owned(),
        ]
        .map(|rest| format!("/v2/secret/app/{rest}"))
        .to_vec()
    }

    fn assert_open_to_admin_alone(&self) {
        for path in self.paths() {
            let read = self.admin.get(&path).expect(200);
            let told = self.marks().iter().any(|mark| contains(&read.body, mark));
            assert!(told, "{path} shows none of the marks");
            self.rig.client().get(&path).expect_error(403, "DENIED");
        }
        self.rig
            .client()
            .get("/v2/allowed/app/manifests/v1")
            .expect(200);
        self.rig
            .client()
            .get("/v2/%61llowed%2fapp/manifests/v1")
            .expect(200);
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Reads until the edge has said all it has to say to the requests of a connection.
fn read_all(mut stream: SslStream<TcpStream>) -> Vec<u8> {
    let mut told = Vec::new();
    let mut piece = [0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        told.extend_from_slice(&piece[..count]);
    }
    told
}

#[test]
fn no_spelling_shows_what_its_plain_form_does_not() {
    let shut = Shut::start();
    shut.assert_open_to_admin_alone();
    let (marks, paths) = (shut.marks(), shut.paths());
    let (edge, trust) = (shut.rig.https, shut.rig.certificate.cert.as_path());
    let mut dice = Dice(0x0123_4567_89ab_cdef);
    let mut answers = 0;
    for _ in 0..SPELLINGS / 20 {
        // What cannot be read at all ends the connection.
        let mut stream = connect(edge, trust, b"");
        let targets: Vec<String> = (0..20)
            .map(|_| {
                let path = &paths[dice.roll(paths.len())];
                spelling(&mut dice, path)
            })
            .collect();
        for (at, target) in targets.iter().enumerate() {
            let connection = if at + 1 == targets.len() {
                "close"
            } else {
                "keep-alive"
            };
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
                 Connection: {connection}\r\n\r\n",
                authorization()
            );
            drop(stream.write_all(request.as_bytes()));
        }
        let told = read_all(stream);
        answers += told.windows(9).filter(|part| part == b"HTTP/1.1 ").count();
        for mark in &marks {
            assert!(
                !contains(&told, mark),
                "one of these shows it: {targets:#?}"
            );
        }
    }
    assert!(answers > SPELLINGS / 2, "only {answers} were answered");
    shut.assert_open_to_admin_alone();
}

#[test]
fn no_spelling_shows_it_over_http2_either() {
    let shut = Shut::start();
    let (marks, paths) = (shut.marks(), shut.paths());
    let mut dice = Dice(0xfeed_beef_1234_5678);
    for _ in 0..SPELLINGS / 80 {
        let mut stream = connect(shut.rig.https, &shut.rig.certificate.cert, b"\x02h2");
        let mut bytes = preface();
        let mut targets = Vec::new();
        for id in (1..80).step_by(2) {
            let path = &paths[dice.roll(paths.len())];
            let target = spelling(&mut dice, path);
            bytes.extend(Case::good().get(&target).frames(id));
            targets.push(target);
        }
        drop(stream.write_all(&bytes));
        let mut left = targets.len();
        while left > 0 {
            let Some(frame) = next_frame(&mut stream) else {
                break;
            };
            let told = frame.kind == DATA;
            for mark in marks.iter().filter(|_| told) {
                assert!(
                    !contains(&frame.payload, mark),
                    "one of these shows it: {targets:#?}"
                );
            }
            let is_last = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            if frame.kind == GOAWAY {
                break;
            }
            left -= usize::from(is_last || frame.kind == RST_STREAM);
        }
    }
    shut.assert_open_to_admin_alone();
}

#[test]
fn no_spelling_changes_what_its_plain_form_does_not() {
    let shut = Shut::start();
    let before = files_below(&shut.rig.tree().join("repositories/secret"));
    let (edge, trust) = (shut.rig.https, shut.rig.certificate.cert.as_path());
    let mut dice = Dice(0x1111_2222_3333_4444);
    let mut paths = shut.paths();
    let layer = digest(&shut.secret.layers[0]);
    paths.push("/v2/secret/app/blobs/uploads/".to_owned());
    paths.push(format!(
        "/v2/secret/app/blobs/uploads/?mount={layer}&from=allowed/app"
    ));
    for _ in 0..SPELLINGS / 10 {
        let method = dice.pick(&["PUT", "DELETE", "POST", "PATCH"]);
        let path = &paths[dice.roll(paths.len())];
        let target = spelling(&mut dice, path);
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n",
            authorization()
        );
        let mut stream = connect(edge, trust, b"");
        drop(stream.write_all(request.as_bytes()));
        read_all(stream);
    }
    assert_eq!(
        files_below(&shut.rig.tree().join("repositories/secret")),
        before
    );
    shut.assert_open_to_admin_alone();
}

#[test]
fn no_spelling_mounts_what_may_not_be_pulled() {
    let shut = Shut::start();
    let layer = digest(&shut.secret.layers[0]);
    let user = shut.rig.client();
    let mut dice = Dice(0x9999_8888_7777_6666);
    let (mount, from) = (format!("mount={layer}"), "from=secret/app");
    let mut queries = vec![
        mount.clone(),
        format!("{mount}&{from}"),
        format!("{from}&{mount}"),
        format!("{mount}&from=allowed/app&{from}"),
        format!("{mount}&{from}&from=allowed/app"),
        format!("{mount}&from=allowed/x&from=allowed/app"),
        format!("{mount}&from=allowed/../secret/app"),
        format!("{mount}&from="),
        format!("{mount}&{mount}&{from}"),
        format!("mount=&{mount}&{from}"),
        format!("{mount};{from}"),
        format!("{mount}&from=secret%2Fapp"),
        format!("{mount}&from=secret%252Fapp"),
        format!("{mount}&FROM=secret/app"),
        format!("{mount}&from[]=secret/app"),
        format!("{mount}&from=secret/app#&from=allowed/app"),
        format!("{mount}&from=allowed/app%00secret/app"),
    ];
    for _ in 0..300 {
        let query = format!("{mount}&{from}");
        let one_in = [3, 8, 30][dice.roll(3)];
        let spell = |character: char| match dice.roll(one_in) {
            0 => spelled(&mut dice, character),
            _ => character.to_string(),
        };
        queries.push(query.chars().map(spell).collect());
    }
    let session = format!("/v2/allowed/app/blobs/{layer}");
    for query in queries {
        let path = format!("/v2/allowed/app/blobs/uploads/?{query}");
        let reply = user.request("POST", &path).try_send();
        let status = reply.map_or(0, |reply| reply.status);
        assert!(status != 201, "{query}");
        user.get(&session).expect(404);
    }
    // Whoever may pull it may mount it.
    let path = format!("/v2/allowed/app/blobs/uploads/?{mount}&{from}");
    shut.admin.post(&path).expect(201);
}
