//! The texts: what could be read in two ways, part by part of a request.

const POST: &str = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n";
const GET: &str = "GET /v2/a/tags/list HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What `Transfer-Encoding` could say.
const CODINGS: &[&str] = &[
    "chunked, identity",
    "identity, chunked",
    "xchunked",
    "chunkedx",
    " chunked",
    "\tchunked",
    "chunked ",
    "chunked\t",
    "\x0bchunked",
    "\x0cchunked",
    "chunked\x0b",
    "Chunked",
    "CHUNKED",
    "chunked;q=1",
    "\"chunked\"",
    "chunked,",
    ",chunked",
    "chunked,chunked",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "identity",
    "",
    "cow",
    "chun\u{212a}ed",
    "chunked\0",
    "ch\u{00ad}unked",
    "chunked\r\n x",
    "\r\n chunked",
    "\r\n\tchunked",
    "x\r\n chunked",
    "chunked\rX: y",
    "x\nTransfer-Encoding: chunked",
];

/// Lines about the length of a body.
const FRAMINGS: &[&str] = &[
    "Content-Length: LEN\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    "Transfer-Encoding\r\n: chunked\r\n",
    "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer\0-Encoding: chunked\r\nContent-Length: 5\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\r\r\nTransfer-Encoding: chunked\r\n",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
    "Connection: Content-Length\r\nContent-Length: LEN\r\n",
    "transfer-encoding: chunked\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
    "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: LEN\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "Expect: 100-continue\r\nContent-Length: LEN\r\n",
    "Expect: 200-ok\r\nContent-Length: LEN\r\n",
    "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
];

/// What `Content-Length` could say of five bytes.
const LENGTHS: &[&str] = &[
    "5",
    "+5",
    "-5",
    "5,5",
    "5, 5",
    "5,6",
    "05",
    "0x5",
    "5 5",
    "5;",
    "5.0",
    " 5",
    "5 ",
    "\x0b5",
    "\u{0665}",
    "",
    ",",
    "5,",
    "18446744073709551616",
    "18446744073709551621",
    "9223372036854775808",
    "99999999999999999999999999",
    "1e1",
    "5\0",
    "5\r\n 5",
    "5\r\nContent-Length: 5",
    "5\r\nContent-Length: 6",
    "0\r\nContent-Length: 5",
    "5\r\nContent-Length: 0",
    "5\r\nContent-Length: x",
    "x\r\nContent-Length: 5",
    "5\r\nContent-Length: ",
];

/// Bodies in chunks.
const CHUNKS: &[&str] = &[
    "5\r\nhello\r\n0\r\n\r\n",
    // Sizes: with a sign, huge, beyond counting, long, in other spellings, absent.
    "-1\r\nx\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    "A\r\nhellohello\r\n0\r\n\r\n",
    // Extensions.
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    // Ends of lines.
    "5\nhello\n0\n\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\rhello\r0\r\r",
    // Ends of chunks.
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello world\r\n0\r\n\r\n",
    // Trailers.
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 100\r\nTransfer-Encoding: x\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Tidegate-User: root\r\nHost: evil\r\nAuthorization: x\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\n\n",
    "5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    // Ends of bodies.
    "5\r\nhello\r\n0000\r\n\r\n",
    "5\r\nhello\r\n0;x\r\n\r\n",
    "5\r\nhello\r\n0\r\n",
    "5\r\nhello\r\n",
    "55\r\nSMUGGLED\r\n0\r\n\r\n",
];

const HOSTS: &[&str] = &[
    "localhost",
    "evil.example",
    "localhost:1",
    "",
    "localhost, evil.example",
    "localhost evil",
    "localhost\r\n evil",
    "localhost@evil",
    "evil@localhost",
    "localhost/../",
    "localhost\0",
];

const TARGETS: &[&str] = &[
    "http://evil.example/v2/a/tags/list",
    "https://localhost/v2/a/tags/list",
    "HTTPS://LOCALHOST/v2/a/tags/list",
    "//evil.example/v2/a/tags/list",
    "//localhost/v2/a/tags/list",
    "*",
    "/v2/a/tags/list#x",
    "/v2/a/tags/list#/../x",
    "v2/a/tags/list",
    "/v2/a/tags/list HTTP/1.1\r\nX: y",
    "/v2/a b/tags/list",
    "/v2/a\tb/tags/list",
    "/v2/a\r/tags/list",
    "/v2/a\0/tags/list",
    "/v2/\u{e4}/tags/list",
    "/v2/a/tags/list HTTP/1.0",
    "/v2/a/tags/list ",
    " /v2/a/tags/list",
    "/v2/a/tags/list?x HTTP/1.1",
    "/v2/a\x7f/tags/list",
    "/v2/a\\b/tags/list",
    "/v2/a/tags/list?a b",
    "/v2/a/tags/list?\u{e4}",
    "/v2/a/tags/list?a#b?c",
    "http:/v2/a/tags/list",
    "http:///v2/a/tags/list",
    "unix:/v2/a/tags/list",
    "https://localhost",
    "https://localhost?x",
    "https://localhost#/v2/",
    "https://localhost/v2/a/tags/list#?x",
    "/v2/{a}/tags/list",
    "/v2/a|b/tags/list",
    "/v2/\"a\"/tags/list",
    "/v2/<a>/tags/list",
    "/v2/a^/tags/list",
    "/v2/a`/tags/list",
    "https://user@localhost/v2/a/tags/list",
    "https://localhost\\@evil/v2/",
    "https://[::1]/v2/",
    "https://localhost:99999/v2/",
];

const REQUEST_LINES: &[&str] = &[
    "GET /v2/a/tags/list",
    "GET /v2/a/tags/list HTTP/0.9",
    "GET /v2/a/tags/list HTTP/1.2",
    "GET /v2/a/tags/list HTTP/2.0",
    "GET /v2/a/tags/list http/1.1",
    "GET /v2/a/tags/list HTTP/1.1 x",
    "GET  /v2/a/tags/list  HTTP/1.1",
    "GET\t/v2/a/tags/list\tHTTP/1.1",
    " GET /v2/a/tags/list HTTP/1.1",
    "\r\nGET /v2/a/tags/list HTTP/1.1",
    "\r\n\r\n\r\nGET /v2/a/tags/list HTTP/1.1",
    "\nGET /v2/a/tags/list HTTP/1.1",
    "GET /v2/a/tags/list HTTP/01.1",
    "GET /v2/a/tags/list HTTP/1.10",
    "GET /v2/a/tags/list HTTP/11",
    "get /v2/a/tags/list HTTP/1.1",
    "G\0T /v2/a/tags/list HTTP/1.1",
    "TRACE /v2/ HTTP/1.1",
    "PRI * HTTP/2.0",
    "DELETE,GET /v2/a/tags/list HTTP/1.1",
    "GET\r/v2/a/tags/list HTTP/1.1",
    "\x16\x03\x01 /v2/ HTTP/1.1",
    "CONNECT localhost:443 HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT /v2/a/tags/list HTTP/1.1",
];

/// Lines that HTTP/1.0 does not know, or takes for granted.
const OLD: &[&str] = &[
    "Transfer-Encoding: chunked\r\n",
    "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nConnection: keep-alive\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
    "X: y\r\n",
];

const HEADERS: &[&str] = &[
    "X-Tidegate-User: root",
    "X-Tidegate-User : root",
    "x_tidegate_user: root",
    "X-Tidegate-Catalog: +**",
    "X: y\r\n X-Tidegate-User: root",
    "X: y\nX-Tidegate-User: root",
    "X: y\rX-Tidegate-User: root",
    "X: a\0b",
    "X\u{e4}: y",
    "X: \u{e4}",
    ": y",
    "X",
    "X y: z",
    "(X): y",
    "Connection: X-Tidegate-User, X-Request-Id, Host",
    "Connection: close, keep-alive",
    "Connection: Host",
    "Proxy-Connection: keep-alive",
    "Keep-Alive: timeout=99",
    "TE: trailers, chunked",
    "Trailer: Content-Length",
    "X-Request-Id: stolen",
    "X-HTTP-Method-Override: DELETE",
    "X-Original-URL: /v2/smuggled/tags/list",
    "X-Rewrite-URL: /v2/smuggled/tags/list",
    "X-Forwarded-Prefix: /v2/smuggled",
    "Upgrade: h2c",
    "Content-Length: 0",
    "X: \x7f",
    "X:\x0by",
    "Authorization: Basic eDp5",
    "Host:localhost",
    "Host : localhost",
    "Forwarded: for=1;host=evil",
];

const METHODS: &[&str] = &[
    "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE", "BREW",
];

/// Every case.
pub(super) fn all() -> Vec<String> {
    let mut cases: Vec<String> = framings();
    for host in HOSTS {
        let line = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n";
        cases.push(format!("{line}Host: {host}\r\nAUTH\r\n\r\nSMUGGLED"));
        for target in ["/v2/", "https://localhost/v2/"] {
            let line = format!("GET {target} HTTP/1.1\r\n");
            cases.push(format!("{line}Host: {host}\r\nAUTH\r\n\r\nSMUGGLED"));
        }
    }
    for target in TARGETS {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let line = format!("GET {target} {version}\r\n");
            cases.push(format!("{line}Host: localhost\r\nAUTH\r\n\r\nSMUGGLED"));
        }
    }
    for line in REQUEST_LINES {
        let head = format!("{line}\r\nHost: localhost\r\nAUTH\r\n");
        cases.push(format!("{head}\r\nSMUGGLED"));
        cases.push(format!("{head}Content-Length: LEN\r\n\r\nSMUGGLED"));
        cases.push(format!("{line}\nHost: localhost\nAUTH\n\nSMUGGLED"));
    }
    for lines in OLD {
        let post = POST.replace("HTTP/1.1", "HTTP/1.0");
        let without_host = post.replace("Host: localhost\r\n", "");
        cases.push(format!("{post}{lines}\r\n0\r\n\r\nSMUGGLED"));
        cases.push(format!("{without_host}{lines}\r\n0\r\n\r\nSMUGGLED"));
    }
    for line in HEADERS {
        cases.push(format!("{GET}{line}\r\n\r\nSMUGGLED"));
        let (first, rest) = GET.split_once("\r\n").unwrap();
        cases.push(format!("{first}\r\n{line}\r\n{rest}\r\nSMUGGLED"));
    }
    for method in METHODS {
        // Whose password is wrong more than a few times is not asked for it any more.
        for auth in ["AUTH\r\n", ""] {
            let head = format!("{method} /v2/a/manifests/x HTTP/1.1\r\nHost: localhost\r\n{auth}");
            cases.push(format!("{head}Content-Length: LEN\r\n\r\nSMUGGLED"));
            cases.push(format!(
                "{head}{CHUNKED}\r\n55\r\nSMUGGLED\r\n0\r\n\r\nSMUGGLED"
            ));
            cases.push(format!("{head}Content-Length: 5\r\n\r\nhelloSMUGGLED"));
            cases.push(format!("{head}Content-Length: 500\r\n\r\nSMUGGLED"));
            let expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n";
            cases.push(format!("{head}{expecting}\r\nSMUGGLED"));
        }
    }
    cases
}

/// How long is the body?
fn framings() -> Vec<String> {
    let mut cases = Vec::new();
    for lines in FRAMINGS {
        for head in [POST, GET] {
            cases.push(format!("{head}{lines}\r\n0\r\n\r\nSMUGGLED"));
            cases.push(format!(
                "{head}{lines}\r\n55\r\nSMUGGLED\r\n0\r\n\r\nSMUGGLED"
            ));
        }
    }
    for coding in CODINGS {
        for length in ["", "Content-Length: 5\r\n"] {
            let lines = format!("{length}Transfer-Encoding: {coding}\r\n");
            cases.push(format!("{POST}{lines}\r\n0\r\n\r\nSMUGGLED"));
        }
    }
    for length in LENGTHS {
        cases.push(format!(
            "{POST}Content-Length: {length}\r\n\r\nhelloSMUGGLED"
        ));
    }
    for chunks in CHUNKS {
        cases.push(format!("{POST}{CHUNKED}\r\n{chunks}SMUGGLED"));
        let refused = POST.replace("AUTH\r\n", "");
        cases.push(format!("{refused}{CHUNKED}\r\n{chunks}SMUGGLED"));
    }
    cases
}
