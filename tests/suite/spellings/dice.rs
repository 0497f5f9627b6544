//! Other ways to write a path, drawn at random, the same in each run.

/// The same numbers each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

const SLASHES: &[&str] = &[
    "//",
    "///",
    "%2f",
    "%2F",
    "%252f",
    "%25%32%66",
    "\\",
    "%5c",
    "%5C",
    "/./",
    "/%2e/",
    "/x/../",
    "/x/%2e%2e/",
    "/.;/",
    "/;/",
    "/;a=b/",
    ";/",
    "/..;/",
    "%c0%af",
    "%e0%80%af",
    "%c1%9c",
    "%u2215",
    "\u{2215}",
    "%e2%88%95",
    "\u{ff0f}",
    "%ef%bc%8f",
    "/%20/",
    "/%00/",
    "%00/",
    "/%09/",
    "/%0d%0a/",
    "/?/",
    "/#/",
    "%3f/",
    "%23/",
    "/*/",
    "/~/",
];

const DETOURS: &[&str] = &[
    "allowed/../",
    "allowed/app/../../",
    "allowed/%2e%2e/",
    "allowed/%2E%2e/",
    "allowed/..%2f",
    "allowed%2f..%2f",
    "allowed/.%2e/",
    "allowed/..;/",
    "allowed/..\\",
    "allowed\\..\\",
    "allowed/%252e%252e/",
    "allowed/%c0%ae%c0%ae/",
    "allowed/\u{2024}\u{2024}/",
    "allowed/app/manifests/../../../",
    "allowed/x/../../",
    "./",
    "../v2/",
    "../v2/allowed/../",
    "%2e/",
    ";/",
    "allowed/",
    "allowed;/",
    "allowed%00/",
    "allowed?/../",
    "allowed#/../",
    "allowed%3f/../",
    "allowed%0a/",
    "allowed/app/blobs/uploads/../../../../",
    "/",
    "_catalog/../",
    "allowed/..%00/",
    "allowed/..%01/",
    "allowed/. ./",
];

const ENDS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/..",
    "/../",
    "?",
    "?x",
    "?/../../../allowed/app/manifests/v1",
    "#",
    "#/../allowed",
    ";",
    ";x=y",
    ".",
    "..",
    "%00",
    "%20",
    "%09",
    "%0a",
    "%0d%0a",
    "%3f",
    "%23",
    "\\",
    "%2f",
    "%5c",
    " ",
    "&",
    "/allowed/app",
    "?repository=allowed/app",
    "%2e",
    "~",
];

const FRONTS: &[&str] = &[
    "https://localhost",
    "http://localhost",
    "HTTPS://localhost",
    "https://localhost:443",
    "https://evil.example",
    "//localhost",
    "/",
    "localhost",
    "https:",
    "https:/",
    "https://localhost/v2/allowed/app/..",
    "https://localhost\\",
    "*",
    "unix:",
    "/.",
    "/allowed/..",
    "/%2e",
    "//allowed/..",
];

/// Another way to write a character.
pub(super) fn spelled(dice: &mut Dice, character: char) -> String {
    let byte = u32::from(character);
    match dice.roll(12) {
        0..3 => format!("%{byte:02x}"),
        3..5 => format!("%{byte:02X}"),
        5 => format!("%25{byte:02x}"),
        6 => character.to_ascii_uppercase().to_string(),
        7 => format!("%{:02x}%{:02x}", 0xc0 | (byte >> 6), 0x80 | (byte & 0x3f)),
        8 => format!(
            "%e0%{:02x}%{:02x}",
            0x80 | (byte >> 6),
            0x80 | (byte & 0x3f)
        ),
        9 => char::from_u32(0xfee0 + byte)
            .unwrap_or(character)
            .to_string(),
        10 => format!("%u{byte:04x}"),
        _ => format!("&#{byte};"),
    }
}

/// A spelling of `path` that somebody may take for it.
pub(super) fn spelling(dice: &mut Dice, path: &str) -> String {
    let one_in = [3, 8, 30, 1000][dice.roll(4)];
    let mut spelling = String::new();
    let detour = dice.roll(3) == 0;
    for (at, character) in path.char_indices() {
        let other = dice.roll(one_in) == 0;
        match character {
            // The first two decide where a path goes, and are not for the registry to judge.
            '/' if at == 0 => spelling.push('/'),
            '/' if other => spelling.push_str(dice.pick(SLASHES)),
            _ if other => spelling.push_str(&spelled(dice, character)),
            _ => spelling.push(character),
        }
        if detour && at == "/v2".len() {
            spelling.push_str(dice.pick(DETOURS));
        }
    }
    if dice.roll(3) == 0 {
        spelling.push_str(dice.pick(ENDS));
    }
    if dice.roll(6) == 0 {
        spelling.insert_str(0, dice.pick(FRONTS));
    }
    spelling
}
