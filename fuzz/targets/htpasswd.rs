//! Any text is a set of users, with a list of the lines that are left out, and comparing with any of them
//! ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::htpasswd::Users;

fuzz_target!(|input: (&str, bool)| {
    let (text, plain) = input;
    let (users, skipped) = Users::parse(text, plain);
    let lines = text.lines().count();
    assert!(skipped.iter().all(|error| (1..=lines).contains(&error.line)));
    assert!(skipped.is_sorted_by(|one, next| one.line < next.line));
    assert!(lines > 0 || users.is_empty());
    // A cost of 2^31 rounds is for the operator to choose, not for this run to wait for.
    if !text.contains(['$']) {
        for line in text.lines() {
            let name = line.split(':').next().unwrap_or_default();
            users.verify(name, b"password");
        }
    }
});
