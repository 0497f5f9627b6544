//! Gives OpenSSL the keys of session tickets, one ticket at a time.
//!
//! The `openssl` crate has no safe way to do this. All that is unsafe is the pointers that OpenSSL
//! hands over for the time of a call; they are turned into the crate's own types at once, where it
//! has one.

#![expect(
    unsafe_code,
    reason = "there is no safe binding; see the top of this file"
)]

use std::ffi::{c_int, c_uchar, c_uint};
use std::sync::{Arc, LazyLock};
use std::{ptr, slice};

use foreign_types::ForeignTypeRef;
use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtxRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::rand::rand_bytes;
use openssl::ssl::{SslContext, SslContextBuilder, SslRef, SslVerifyMode, SslVersion};
use openssl_sys::{EVP_CIPHER_CTX, EVP_MAC_CTX, OSSL_PARAM, SSL, SSL_CTX};

use super::{TicketKey, TicketKeys};

/// What a callback answers.
const FAILED: c_int = -1;
const NONE: c_int = 0;
const DONE: c_int = 1;
/// The ticket is good, and the client is to have another one.
const RENEW: c_int = 2;

const IV: usize = 16;

type Callback = unsafe extern "C" fn(
    *mut SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut EVP_CIPHER_CTX,
    *mut EVP_MAC_CTX,
    c_int,
) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(context: *mut SSL_CTX, callback: Callback) -> c_int;
}

static KEYS: LazyLock<Result<Index<SslContext, Arc<TicketKeys>>, ErrorStack>> =
    LazyLock::new(SslContext::new_ex_index);

/// Fetched once: by name it would be for each ticket.
static AES_128: LazyLock<Option<Cipher>> =
    LazyLock::new(|| Cipher::fetch(None, "AES-128-CBC", None).ok());
static AES_256: LazyLock<Option<Cipher>> =
    LazyLock::new(|| Cipher::fetch(None, "AES-256-CBC", None).ok());

/// Makes all handshakes of a context use these keys.
pub(in crate::tls) fn install(
    context: &mut SslContextBuilder,
    keys: Arc<TicketKeys>,
) -> Result<(), ErrorStack> {
    let index = KEYS.as_ref().map_err(Clone::clone)?;
    context.set_ex_data(*index, keys);
    // SAFETY: the context is there as long as it is borrowed, and the callback is a function of the
    // type that OpenSSL asks for, which lives for ever.
    let done = unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), on_ticket) };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// Called by OpenSSL for each ticket: to make one, or to open one.
///
/// # Safety
/// The pointers are OpenSSL's own, good for the time of the call and not shared; the name and the IV
/// are 16 bytes each (`SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`).
unsafe extern "C" fn on_ticket(
    ssl: *mut SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut EVP_CIPHER_CTX,
    mac: *mut EVP_MAC_CTX,
    makes: c_int,
) -> c_int {
    // SAFETY: as above.
    let (ssl, name, iv, cipher) = unsafe {
        (
            SslRef::from_ptr(ssl),
            slice::from_raw_parts_mut(name, 16),
            slice::from_raw_parts_mut(iv, IV),
            CipherCtxRef::from_ptr_mut(cipher),
        )
    };
    let mut mac = Mac(mac);
    let answer = match makes {
        0 => open(ssl, name, iv, cipher, &mut mac),
        _ => make(ssl, name, iv, cipher, &mut mac),
    };
    answer.unwrap_or_else(|error| {
        tracing::error!(%error, "a session ticket cannot be used");
        FAILED
    })
}

fn make(
    ssl: &SslRef,
    name: &mut [u8],
    iv: &mut [u8],
    cipher: &mut CipherCtxRef,
    mac: &mut Mac,
) -> Result<c_int, ErrorStack> {
    // Who was asked for a certificate is asked again the next time.
    if ssl.verify_mode().contains(SslVerifyMode::PEER) {
        return Ok(NONE);
    }
    let keys = keys(ssl);
    let Some(key) = keys.as_ref().and_then(|keys| keys.first()) else {
        return Ok(NONE);
    };
    name.copy_from_slice(&key.name);
    rand_bytes(iv)?;
    cipher.encrypt_init(Some(algorithm(key)?), Some(&key.cipher), Some(iv))?;
    mac.begin(&key.mac)?;
    Ok(DONE)
}

fn open(
    ssl: &SslRef,
    name: &[u8],
    iv: &[u8],
    cipher: &mut CipherCtxRef,
    mac: &mut Mac,
) -> Result<c_int, ErrorStack> {
    let keys = keys(ssl);
    let mut keys = keys.iter().flat_map(|keys| keys.iter()).enumerate();
    let Some((index, key)) = keys.find(|(_, key)| key.name == name) else {
        return Ok(NONE);
    };
    cipher.decrypt_init(Some(algorithm(key)?), Some(&key.cipher), Some(iv))?;
    mac.begin(&key.mac)?;
    // In TLS 1.3 each ticket is for one use, so that connections cannot be told to be one client's
    // (RFC 8446, appendix C.4).
    let one_use = ssl.version2() == Some(SslVersion::TLS1_3);
    Ok(if index == 0 && !one_use { DONE } else { RENEW })
}

fn keys(ssl: &SslRef) -> Option<super::Keys> {
    let index = KEYS.as_ref().ok()?;
    Some(ssl.ssl_context().ex_data(*index)?.now())
}

fn algorithm(key: &TicketKey) -> Result<&'static CipherRef, ErrorStack> {
    let cipher = if key.cipher.len() == 16 {
        &AES_128
    } else {
        &AES_256
    };
    cipher.as_deref().ok_or_else(ErrorStack::get)
}

/// What OpenSSL computes a ticket's MAC in, for the time of its call to us.
struct Mac(*mut EVP_MAC_CTX);

impl Mac {
    /// Begins an HMAC with SHA-256.
    fn begin(&mut self, key: &[u8]) -> Result<(), ErrorStack> {
        const UTF8_STRING: c_uint = 4;
        let digest = OSSL_PARAM {
            key: c"digest".as_ptr(),
            data_type: UTF8_STRING,
            data: c"SHA256".as_ptr().cast_mut().cast(),
            data_size: c"SHA256".count_bytes(),
            return_size: 0,
        };
        let end = OSSL_PARAM {
            key: ptr::null(),
            data_type: 0,
            data: ptr::null_mut(),
            data_size: 0,
            return_size: 0,
        };
        let params = [digest, end];
        // SAFETY: the context is OpenSSL's own, as `on_ticket` has got it; key and parameters are
        // there for the time of the call, which changes neither, and one without a name is the last.
        let done =
            unsafe { openssl_sys::EVP_MAC_init(self.0, key.as_ptr(), key.len(), params.as_ptr()) };
        if done == 1 {
            Ok(())
        } else {
            Err(ErrorStack::get())
        }
    }
}
