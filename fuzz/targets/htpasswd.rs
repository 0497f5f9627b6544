//! Any text is a set of users or a list of bad lines, and comparing with any of them ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::htpasswd::Users;

fuzz_target!(|input: (&str, bool)| {
    let (text, plain) = input;
    match Users::parse(text, plain) {
        // A cost of 2^31 rounds is for the operator to choose, not for this run to wait for.
        Ok(users) if !text.contains(['$']) => {
            for line in text.lines() {
                let name = line.split(':').next().unwrap_or_default();
                users.verify(name, b"password");
            }
        }
        Ok(_) => {}
        Err(errors) => assert!(!errors.is_empty()),
    }
});
