//! Lines of files of users and groups that cannot be used, and are left out.

/// How many of them the log names at once.
const NAMED_MAX: usize = 20;

/// Tells the log of these lines, each a sentence.
pub(crate) fn report(lines: &[String]) {
    for line in lines.iter().take(NAMED_MAX) {
        tracing::error!("{line}: the line is left out");
    }
    if let Some(more) = lines.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        tracing::error!("{more} more lines are left out: `tidegate check` names them all");
    }
}
