//! Bearer tokens: what `docker login` with anonymous pull needs.
//!
//! [`access_token`] makes and verifies them with the keys of [`keys`], by what [`scope`] says is asked
//! for and allowed; `sessions` keeps what they are renewed with. All that is kept is in the
//! [`vault`]. Verifying is a look at memory: nothing here reads a file while a client waits, but for
//! the login that begins a session.

pub(crate) mod access_token;
pub(crate) mod jose;
pub(crate) mod keys;
pub(crate) mod scope;
pub(crate) mod secret;
pub(crate) mod sessions;
pub(crate) mod used;
pub(crate) mod vault;
