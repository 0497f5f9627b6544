//! What the query of a `POST` to uploads asks to mount (spec, "Mounting a blob from another
//! repository").
//!
//! The edge reads here which repository must be open to whoever asks, the registry where to take
//! the blob from: a parameter that is written twice, or in another spelling, is the same to both.

use crate::{Digest, Query, RepositoryName};

/// A blob that is to be taken over from a repository that has it already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Which blob.
    pub digest: Digest,
    /// Which repository has it; without one, whichever does.
    pub from: Option<RepositoryName>,
}

impl Mount {
    /// Reads what is asked for. Where a parameter is written more than once, the first one counts.
    ///
    /// `None` where nothing is to be mounted. So it is where a parameter cannot be read: the client
    /// then uploads the blob.
    pub fn of(query: &Query<'_>) -> Option<Self> {
        let digest = query.first("mount")?.parse().ok()?;
        let from = query.first("from").map(str::parse).transpose().ok()?;
        Some(Self { digest, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Option<String> {
        let mount = Mount::of(&Query::parse(Some(query)))?;
        assert_eq!(mount.digest.to_string(), digest('a'));
        Some(mount.from.map_or_else(|| "any".to_owned(), String::from))
    }

    fn digest(of: char) -> String {
        format!("sha256:{}", of.to_string().repeat(64))
    }

    #[test]
    fn the_first_of_each_counts_however_it_is_spelled() {
        let (a, b) = (digest('a'), digest('b'));
        let spelled = a.replace(':', "%3a").replace("sha", "%73ha");
        for (query, expected) in [
            (format!("mount={a}&from=x/y"), Some("x/y")),
            (format!("from=x/y&mount={a}"), Some("x/y")),
            (format!("mount={a}"), Some("any")),
            (format!("mount={spelled}&from=x%2Fy"), Some("x/y")),
            (format!("%6dount={a}&fro%6D=x"), Some("x")),
            (format!("mount={a}&from=x&from=y"), Some("x")),
            (format!("mount={a}&mount={b}&from=x"), Some("x")),
            (format!("mount={a}&FROM=x"), Some("any")),
            (format!("mount={a}&from=x#&from=y"), None),
            (format!("mount={a}&from="), None),
            (format!("mount={a}&from"), None),
            (format!("mount={a}&from=&from=x"), None),
            (format!("mount={a}&from=x+y"), None),
            (format!("mount={a}&from=x%252Fy"), None),
            (format!("mount={a}&from=../x"), None),
            (format!("mount={a}&from=X"), None),
            (format!("mount=+{a}&from=x"), None),
            (format!("mount=&mount={a}&from=x"), None),
            (format!("Mount={a}&from=x"), None),
            (format!("mount={a};from=x"), None),
            ("mount=latest&from=x".to_owned(), None),
            ("from=x".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(read(&query).as_deref(), expected, "{query}");
        }
    }
}
