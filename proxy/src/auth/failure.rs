//! What was wrong with credentials that let nobody in.
//!
//! It is for the log alone. A client is told none of it, in any way: which users and robots there are, and
//! why one of them does not come in, is nobody's to find out by trying.

use super::token::access_token::Invalid;

/// The class of a failed login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The robot's time is over.
    ExpiredRobot,
    /// What a refresh token was given for is not there as it was.
    RefreshCredentials,
    /// The refresh token is none of this service, has expired or was revoked.
    RefreshToken,
    /// The robot may come in to other sites.
    RobotElsewhere,
    /// The robot was revoked.
    RevokedRobot,
    /// A bearer token.
    Token(Invalid),
    /// A token in the place of a password, which would let one token live for ever by the next.
    TokenAsLogin,
    /// A secret of a robot's form, with a name that no robot has.
    UnknownRobot,
    /// There is no such user.
    UnknownUser,
    /// `Authorization` holds nothing that is known here.
    Unreadable,
    /// The user's password is another.
    WrongPassword,
    /// The robot's secret is another.
    WrongRobotSecret,
}

impl Failure {
    /// Returns what the log calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ExpiredRobot => "expired robot",
            Self::RefreshCredentials => "refresh token of credentials that hold no more",
            Self::RefreshToken => "refresh token that does not hold",
            Self::RobotElsewhere => "robot of another site",
            Self::RevokedRobot => "revoked robot",
            Self::Token(Invalid::Credentials) => "token of credentials that hold no more",
            Self::Token(Invalid::Expired) => "expired token",
            Self::Token(Invalid::Foreign) => "invalid token",
            Self::TokenAsLogin => "a token is no login",
            Self::UnknownRobot => "unknown robot",
            Self::UnknownUser => "unknown user",
            Self::Unreadable => "unreadable credentials",
            Self::WrongPassword => "wrong password",
            Self::WrongRobotSecret => "wrong robot secret",
        }
    }
}

/// A failed login, with the name that was tried where it is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) login: Option<Box<str>>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            login: None,
        }
    }
}

impl Failed {
    /// A failed login of `login`.
    pub(crate) fn of(login: &str, failure: Failure) -> Self {
        Self {
            failure,
            login: Some(login.into()),
        }
    }
}
