//! `[site.limits]`: how much of a site anyone may have.

use std::num::NonZero;

use settings::Section;

/// What a site gives, in requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Quotas {
    /// What the config calls the table, such as `site[0].limits`.
    pub(crate) key: Box<str>,
    /// To everyone together.
    pub(crate) site: Quota,
    /// To each address.
    pub(crate) address: Quota,
    /// To each user.
    pub(crate) principal: Quota,
}

/// A share of a site; what is absent has no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Quota {
    /// Requests per second.
    pub(crate) rate: Option<NonZero<u32>>,
    /// How many of them may come at once.
    pub(crate) burst: u32,
    /// Requests under way at once.
    pub(crate) concurrent: Option<NonZero<u32>>,
}

impl Quotas {
    /// Reads the table; what is not written is not limited.
    pub(super) fn read(mut section: Section) -> Self {
        let mut read = |key| section.table(key).map(Quota::read).unwrap_or_default();
        let (site, address, principal) = (read("site"), read("address"), read("principal"));
        Self {
            key: section.name().into(),
            site,
            address,
            principal,
        }
    }
}

impl Quota {
    fn read(mut section: Section) -> Self {
        let number = |section: &mut Section, key| NonZero::new(section.optional(key)?);
        let rate = number(&mut section, "rate");
        let concurrent = number(&mut section, "concurrent");
        let burst: Option<u32> = section.optional("burst");
        if burst == Some(0) {
            section.problem("burst", "must be 1 at least");
        }
        if burst.is_some() && rate.is_none() {
            section.problem("burst", "needs a rate");
        }
        let per_second = rate.map_or(1, NonZero::get);
        Self {
            rate,
            burst: burst.unwrap_or(per_second),
            concurrent,
        }
    }
}
