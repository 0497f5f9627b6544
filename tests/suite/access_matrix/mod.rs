//! Thousands of requests through the real edge, each compared with what a plain model of the config
//! says: principals × repositories × endpoints and methods × addresses × sets of rules.
//!
//! The [`model`] shares nothing with the program: it is written down again from docs/access.md. What
//! it is asked about are these [`cases`].

mod cases;
mod model;

use self::cases::{Access, CASES, written};
use self::model::{
    ASKERS, Asker, Expected, Kind, ROBOT_ACTIONS, ROBOT_REPOSITORIES, expected, listed,
    nobody_may_something,
};
use crate::harness::*;
use crate::tokens::part;

const EVERYWHERE: [&str; 3] = ["10.0.0.1", "192.0.2.1", "2001:db8::5"];

const REPOSITORIES: [&str; 8] = [
    "public/app",
    "public/secret/app",
    "team",
    "team/app",
    "team/a/b",
    "home/alice/app",
    "home/bob/app",
    "other",
];

const DIGEST: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const UPLOAD: &str = "6c3f62a0-0000-4000-8000-0123456789ab";

/// Method, what follows the repository's path, and the action that it is.
const ENDPOINTS: [(&str, &str, &str); 14] = [
    ("GET", "manifests/v1", "pull"),
    ("HEAD", "manifests/v1", "pull"),
    ("GET", "blobs/{digest}", "pull"),
    ("HEAD", "blobs/{digest}", "pull"),
    ("GET", "tags/list", "pull"),
    ("GET", "referrers/{digest}", "pull"),
    ("PUT", "manifests/v1", "push"),
    ("POST", "blobs/uploads/", "push"),
    ("GET", "blobs/uploads/{upload}", "push"),
    ("PATCH", "blobs/uploads/{upload}", "push"),
    ("PUT", "blobs/uploads/{upload}?digest={digest}", "push"),
    ("DELETE", "blobs/uploads/{upload}", "push"),
    ("DELETE", "manifests/{digest}", "delete"),
    ("DELETE", "blobs/{digest}", "delete"),
];

/// How somebody proves who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// By the password on each request, or not at all.
    Directly,
    /// By a token that was asked for with [`SCOPES`].
    Token,
}

/// What tokens are asked for: repository and actions.
const SCOPES: [(&str, &[&str]); 4] = [
    ("team/app", &["pull", "push"]),
    ("public/app", &["pull", "delete"]),
    ("home/alice/app", &["pull", "push", "delete"]),
    ("catalog", &["catalog"]),
];

#[test]
fn the_edge_decides_as_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::found(folder.path(), "clients");
    let mut compared = [0, 0, 0];
    for access in &CASES {
        let rig = start(access, &authority);
        let robot = robot(&rig);
        for asker in std::iter::once(None).chain(ASKERS.iter().map(Some)) {
            let directly = client_of(&rig, &authority, asker, &robot);
            let ways = [Way::Directly, Way::Token].into_iter();
            for (way, from) in ways.flat_map(|way| EVERYWHERE.map(|from| (way, from))) {
                if let Some(client) = client(&directly, access, asker, from, way) {
                    compare(&client, access, asker, from, way, &mut compared);
                }
            }
        }
    }
    let [through, log_in, forbidden] = compared;
    assert!(through + log_in + forbidden > 25_000, "{compared:?}");
    assert!(compared.iter().all(|count| *count > 1000), "{compared:?}");
}

/// Makes the robot and returns its secret, once the edge knows it.
fn robot(rig: &Rig) -> String {
    let mut command = tidegate();
    command.args(["token", "create", "builder", "--config"]);
    command.arg(rig.config());
    command.args(["--repository", ROBOT_REPOSITORIES]);
    command.args(["--action", &ROBOT_ACTIONS.join(",")]);
    let secret = run(&mut command).trim().to_owned();
    eventually("the edge to know the robot", || {
        let client = rig.anonymous().as_user("builder", &secret);
        let reply = client.request("GET", "/v2/team/app/tags/list");
        // From within every list.
        let reply = reply.header("X-Forwarded-For", "10.0.0.9").send();
        (reply.status == 404).then_some(())
    });
    secret
}

/// A client that proves on each request who it is.
fn client_of(rig: &Rig, authority: &Authority, asker: Option<&Asker>, robot: &str) -> Client {
    let client = rig.anonymous();
    match asker.map(|asker| (asker.kind, asker)) {
        None => client,
        Some((Kind::Password, asker)) => client.as_user(asker.name, PASSWORD),
        Some((Kind::Robot, asker)) => client.as_user(asker.name, robot),
        Some((Kind::Certificate, asker)) => {
            let units = asker.groups.iter().map(|group| format!("/OU={group}"));
            let subject = format!("{}/CN={}", units.collect::<String>(), asker.name);
            client.with_certificate(&authority.issue(asker.name, &subject))
        }
    }
}

/// Asks everything, and compares each answer.
fn compare(
    client: &Client,
    access: &Access,
    asker: Option<&Asker>,
    from: &str,
    way: Way,
    compared: &mut [usize; 3],
) {
    let mut connection = client.connect().unwrap();
    for (method, path, action) in requests() {
        let reply = ask(client, &mut connection, method, &path, from);
        let found = match reply.status {
            401 => Expected::LogIn,
            403 => Expected::Forbidden,
            status if status < 500 => Expected::Through,
            status => panic!("{status} for {method} {path}"),
        };
        let action = action.as_ref().map(|(action, at)| (*action, at.as_str()));
        let allowed = expected(access, asker, from, action);
        let too_narrow = way == Way::Token
            && allowed == Expected::Through
            && action.is_some_and(|action| !granted(access, asker, from).contains(&action));
        // Whoever may do more than the token says is sent for a better one.
        let expected = if too_narrow {
            Expected::LogIn
        } else if way == Way::Token && action.is_none() && listed(access, from) {
            // A token that holds is an answer to the question of /v2/, whoever it is of.
            Expected::Through
        } else {
            allowed
        };
        let who = asker.map_or("nobody", |asker| asker.name);
        assert_eq!(
            found,
            expected,
            "{who} ({way:?}) from {from}: {method} {path} under\n{}",
            written(access)
        );
        compared[found as usize] += 1;
    }
}

/// What the model grants of [`SCOPES`].
fn granted(
    access: &Access,
    asker: Option<&Asker>,
    from: &str,
) -> Vec<(&'static str, &'static str)> {
    let mut granted = Vec::new();
    for (repository, actions) in SCOPES {
        let repository = if repository == "catalog" {
            ""
        } else {
            repository
        };
        let actions = actions.iter().map(|&action| (action, repository));
        granted.extend(
            actions.filter(|wish| expected(access, asker, from, Some(*wish)) == Expected::Through),
        );
    }
    granted
}

/// Returns a client that proves itself in this way; none where the model has no token for it.
fn client(
    directly: &Client,
    access: &Access,
    asker: Option<&Asker>,
    from: &str,
    way: Way,
) -> Option<Client> {
    if way == Way::Directly {
        return Some(directly.clone());
    }
    let scopes = SCOPES.map(|(repository, actions)| match repository {
        "catalog" => "&scope=registry:catalog:*".to_owned(),
        _ => format!("&scope=repository:{repository}:{}", actions.join(",")),
    });
    let path = format!("/auth/token?service=localhost{}", scopes.concat());
    let reply = directly.request("GET", &path);
    let reply = reply.header("X-Forwarded-For", from).send();
    let may_come_in = match expected(access, asker, from, None) {
        Expected::Forbidden => 403,
        Expected::Through => 200,
        // Nobody in particular gets a token where somebody in particular is not needed.
        Expected::LogIn if nobody_may_something(access, from) => 200,
        Expected::LogIn => 401,
    };
    assert_eq!(reply.status, may_come_in, "{from}:\n{}", written(access));
    if reply.status != 200 {
        return None;
    }
    let token = reply.json()["token"].as_str().unwrap().to_owned();
    let claimed = part(&token, 1);
    let mut claimed: Vec<(String, String)> = claimed["access"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|access| {
            let name = access["name"].as_str().unwrap().to_owned();
            let actions = access["actions"].as_array().unwrap().clone();
            actions.into_iter().map(move |action| match name.as_str() {
                "catalog" => ("catalog".to_owned(), String::new()),
                name => (action.as_str().unwrap().to_owned(), name.to_owned()),
            })
        })
        .collect();
    claimed.sort();
    let mut granted: Vec<(String, String)> = granted(access, asker, from)
        .into_iter()
        .map(|(action, repository)| (action.to_owned(), repository.to_owned()))
        .collect();
    granted.sort();
    assert_eq!(claimed, granted, "{from}:\n{}", written(access));
    Some(directly.clone().as_bearer(&token))
}

fn start(access: &Access, authority: &Authority) -> Rig {
    let hashed = bcrypt::hash(PASSWORD, 4).unwrap();
    let users = ["alice", "bob"].map(|name| format!("{name}:{hashed}\n"));
    let mut rig = Setup {
        top: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        htpasswd: Some(users.concat()),
        auth: format!(
            "group_file = \"groups\"\nscheme = \"both\"\nclient_ca_file = {:?}\n\
             client_certificate = \"optional\"\n{}",
            authority.at("root.pem"),
            written(access)
        ),
        ..Setup::default()
    }
    .prepare();
    std::fs::write(rig.path("groups"), "dev: alice\nops: bob\n").unwrap();
    rig.start_registry();
    rig.start_edge();
    eventually("the edge to answer", || {
        rig.anonymous().request("GET", "/v2/").try_send().ok()
    });
    rig
}

/// A method, a path, and what it is: the action and where.
type Asked = (&'static str, String, Option<(&'static str, String)>);

/// Every endpoint in every repository, with the action that it is and where.
fn requests() -> Vec<Asked> {
    let mut requests = vec![
        ("GET", "/v2/".to_owned(), None),
        (
            "GET",
            "/v2/_catalog".to_owned(),
            Some(("catalog", String::new())),
        ),
    ];
    for repository in REPOSITORIES {
        for (method, rest, action) in ENDPOINTS {
            let rest = rest.replace("{digest}", DIGEST).replace("{upload}", UPLOAD);
            let path = format!("/v2/{repository}/{rest}");
            requests.push((method, path, Some((action, repository.to_owned()))));
        }
    }
    requests
}

/// Asks on a kept connection, or on a new one where the old one has been ended.
fn ask(
    client: &Client,
    connection: &mut Exchange,
    method: &str,
    path: &str,
    from: &str,
) -> Response {
    let request = || {
        client
            .request(method, path)
            .header("X-Forwarded-For", from)
            .header("Content-Length", "0")
    };
    if let Ok(reply) = connection.ask(request()) {
        return reply;
    }
    *connection = client.connect().unwrap();
    connection.ask(request()).unwrap()
}
