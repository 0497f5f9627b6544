//! DNS-01: a record in the host's zone, set by a program of the operator's (RFC 8555, section 8.4).
//!
//! The program is called as `PROGRAM add NAME VALUE` and, when the CA has looked, as
//! `PROGRAM remove NAME VALUE`, whatever came of it. Only with `add` does it matter how it ends.

use std::io;
use std::process::{Output, Stdio};

use tokio::process::Command;
use tokio::time::timeout;

use crate::config::DnsHook;

/// How much is told of what the program had to say.
const SAID_CHARS_MAX: usize = 500;

/// Why the program has not done what it was called for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} {verb}: {status}: {said}")]
    Failed {
        program: String,
        verb: &'static str,
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("{program} {verb}: took longer than {limit:?}")]
    Late {
        program: String,
        verb: &'static str,
        limit: std::time::Duration,
    },
}

/// Returns the name of the record for a host.
pub(super) fn name(host: &str) -> String {
    let parent = host.strip_prefix("*.").unwrap_or(host);
    format!("_acme-challenge.{parent}")
}

/// Adds a TXT record.
pub(super) async fn add(hook: &DnsHook, name: &str, value: &str) -> Result<(), Error> {
    call(hook, "add", name, value).await
}

/// Removes it.
pub(super) async fn remove(hook: &DnsHook, name: &str, value: &str) -> Result<(), Error> {
    call(hook, "remove", name, value).await
}

async fn call(hook: &DnsHook, verb: &'static str, name: &str, value: &str) -> Result<(), Error> {
    let program = hook.program.display().to_string();
    let mut command = Command::new(&hook.program);
    command
        .args([verb, name, value])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let Ok(output) = timeout(hook.timeout, command.output()).await else {
        return Err(Error::Late {
            program,
            verb,
            limit: hook.timeout,
        });
    };
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::Failed {
            program,
            verb,
            status: output.status,
            said: said(&output),
        }),
        Err(source) => Err(Error::Start { program, source }),
    }
}

fn said(output: &Output) -> String {
    let text = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn hook(folder: &std::path::Path, script: &str) -> DnsHook {
        let program = folder.join("hook");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        DnsHook {
            program,
            timeout: Duration::from_secs(20),
            propagation: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn the_program_is_told_name_and_value_and_heard_when_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let script = format!(
            "echo \"$@\" >> {}; [ $1 = add ] || {{ echo no such zone >&2; exit 3; }}",
            seen.display()
        );
        let hook = hook(folder.path(), &script);
        let name = name("*.a.test");
        add(&hook, &name, "value").await.unwrap();
        let error = remove(&hook, &name, "value").await.unwrap_err().to_string();
        assert!(
            error.ends_with("hook remove: exit status: 3: no such zone"),
            "{error}"
        );
        let seen = std::fs::read_to_string(seen).unwrap();
        assert_eq!(
            seen,
            "add _acme-challenge.a.test value\nremove _acme-challenge.a.test value\n"
        );
    }
}
