//! Words that are misspelt, and which were meant.

/// Returns the candidate that `word` was most likely meant to be, if one is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, word), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3 + 1)
        .filter(|(distance, candidate)| *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Asks whether `near` was meant, at the end of a sentence; empty without one.
pub fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", did you mean {near:?}?"))
}

/// Says which of `words` it must be, and which of them `text` was most likely meant to be.
pub fn choices(text: &str, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let list = match &quoted[..] {
        [one, other] => format!("{one} or {other}"),
        [rest @ .., last] if !rest.is_empty() => format!("one of {} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    };
    // Of the shortest words, any other is near.
    let long = words.iter().copied().filter(|word| word.len() > 3);
    let near = nearest(text, long);
    format!("must be {list}{}", suggestion(near))
}
