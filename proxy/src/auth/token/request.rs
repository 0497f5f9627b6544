//! What a client sends to get a token: distribution's GET, and the POST of OAuth 2.

use crate::auth::credentials::Login;

use super::scope::{self, SCOPES_MAX, Scope};

/// A request for a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TokenRequest {
    pub(crate) proof: Proof,
    pub(crate) service: Option<String>,
    pub(crate) scopes: Vec<Scope>,
    /// A refresh token is wanted too.
    pub(crate) offline: bool,
    /// What the client calls itself.
    pub(crate) client: String,
}

/// What a client proves with who it is.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Proof {
    /// What the request's head holds, if anything.
    Head,
    /// A name and a password in the body.
    Login(Login),
    /// What it was given in the place of a password.
    Refresh(String),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "Head",
            Self::Login(_) => "Login(…)",
            Self::Refresh(_) => "Refresh(…)",
        })
    }
}

/// Why a request for a token cannot be understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Unclear {
    /// The grant is of a kind that is not served here.
    #[error("unsupported grant_type: \"password\" and \"refresh_token\" are served")]
    Grant,
    /// A parameter that may be there once is there twice.
    #[error("a parameter is given twice")]
    Repeated,
    /// Too much is asked for.
    #[error("more than {SCOPES_MAX} scopes")]
    Scopes,
}

impl TokenRequest {
    /// Reads the query of a GET.
    pub(crate) fn from_query(query: &str) -> Result<Self, Unclear> {
        let parameters = Parameters::read(query.as_bytes());
        let offline = parameters.one("offline_token")?;
        Ok(Self {
            proof: Proof::Head,
            service: parameters.one("service")?.map(str::to_owned),
            scopes: parameters.scopes()?,
            offline: offline.is_some_and(|value| matches!(value, "true" | "1")),
            client: parameters.client()?,
        })
    }

    /// Reads the form of a POST.
    pub(crate) fn from_form(form: &[u8]) -> Result<Self, Unclear> {
        let parameters = Parameters::read(form);
        let proof = match parameters.one("grant_type")? {
            Some("password") => {
                let name = parameters.one("username")?.unwrap_or_default();
                let password = parameters.one("password")?.unwrap_or_default();
                // One that is too long to be anybody's is nobody's.
                let login = Login::new(name.as_bytes(), password.as_bytes());
                let nobody = || Login::new(b"", b"");
                login.or_else(nobody).map(Proof::Login)
            }
            Some("refresh_token") => {
                let token = parameters.one("refresh_token")?.unwrap_or_default();
                Some(Proof::Refresh(token.to_owned()))
            }
            Some(_) | None => None,
        };
        Ok(Self {
            proof: proof.ok_or(Unclear::Grant)?,
            service: parameters.one("service")?.map(str::to_owned),
            scopes: parameters.scopes()?,
            offline: parameters.one("access_type")? == Some("offline"),
            client: parameters.client()?,
        })
    }
}

struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = move |(key, _): &&(String, String)| key == name;
        self.0.iter().filter(named).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Unclear> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Unclear::Repeated),
        }
    }

    fn scopes(&self) -> Result<Vec<Scope>, Unclear> {
        let scopes: Vec<Scope> = self.all("scope").flat_map(scope::parse).collect();
        if scopes.len() > SCOPES_MAX {
            return Err(Unclear::Scopes);
        }
        Ok(scopes)
    }

    /// Returns the client's name for itself, as much of it as a list of logins can show.
    fn client(&self) -> Result<String, Unclear> {
        let name = self.one("client_id")?.unwrap_or_default();
        let shown = name.chars().filter(|letter| !letter.is_control());
        Ok(shown.take(100).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_sends_is_understood() {
        let request = TokenRequest::from_query(
            "account=alice&client_id=docker&offline_token=true&service=a.test\
             &scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository:c:pull",
        )
        .unwrap();
        assert_eq!(request.proof, Proof::Head);
        assert_eq!(request.service.as_deref(), Some("a.test"));
        assert_eq!(request.scopes.len(), 2);
        assert!(request.offline);
        assert_eq!(request.client, "docker");
        let bare = TokenRequest::from_query("").unwrap();
        assert_eq!((bare.service, bare.offline), (None, false));
    }

    #[test]
    fn forms_are_those_of_oauth() {
        let form = b"grant_type=password&service=a.test&client_id=containerd-client\
            &scope=repository%3Aa%3Apull+repository%3Ab%3Apull&username=al+ice&password=a%26b";
        let request = TokenRequest::from_form(form).unwrap();
        assert_eq!(
            request.proof,
            Proof::Login(Login::new(b"al ice", b"a&b").unwrap())
        );
        assert_eq!((request.scopes.len(), request.offline), (2, false));
        let form = b"grant_type=refresh_token&access_type=offline&refresh_token=tgr_x";
        let request = TokenRequest::from_form(form).unwrap();
        assert_eq!(request.proof, Proof::Refresh("tgr_x".to_owned()));
        assert!(request.offline);
        assert!(!format!("{request:?}").contains("tgr_x"));
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_not() {
        for (form, why) in [
            ("", Unclear::Grant),
            ("grant_type=client_credentials", Unclear::Grant),
            (
                "grant_type=password&username=a&username=b",
                Unclear::Repeated,
            ),
            (
                "grant_type=password&grant_type=refresh_token",
                Unclear::Repeated,
            ),
        ] {
            assert_eq!(TokenRequest::from_form(form.as_bytes()), Err(why), "{form}");
        }
        let many = "scope=repository:a:pull&".repeat(SCOPES_MAX + 1);
        assert_eq!(TokenRequest::from_query(&many), Err(Unclear::Scopes));
        let long = format!(
            "grant_type=password&username=a&password={}",
            "x".repeat(2000)
        );
        let request = TokenRequest::from_form(long.as_bytes()).unwrap();
        assert_eq!(request.proof, Proof::Login(Login::new(b"", b"").unwrap()));
    }
}
