//! Bearer tokens: what `docker login` with anonymous pull needs.
//!
//! [`access_token`] makes and verifies them with the keys of [`keys`], by what [`scope`] says is asked
//! for and allowed; `sessions` keeps what they are renewed with. All that is kept is in the
//! [`vault`]. Verifying is a look at memory: nothing here reads a file while a client waits, but for
//! the login that begins a session.
//!
//! [`issuer`] takes the tokens of another server; [`desk`] is all of this for one site.

pub(crate) mod access_token;
pub(crate) mod desk;
pub(crate) mod issuer;
pub(crate) mod jose;
pub(crate) mod keys;
pub(crate) mod request;
pub(crate) mod scope;
pub(crate) mod secret;
pub(crate) mod sessions;
pub(crate) mod used;
pub(crate) mod vault;

/// How clients are asked to prove who they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// With a name and a password in each request.
    #[default]
    Basic,
    /// With a token, which a name and a password are exchanged for once. Who sends a password
    /// unasked is let in all the same.
    Bearer,
    /// With either.
    Both,
}

impl Scheme {
    /// Every scheme, as the config writes it.
    pub(crate) const NAMES: [(&'static str, Self); 3] = [
        ("basic", Self::Basic),
        ("bearer", Self::Bearer),
        ("both", Self::Both),
    ];
}
