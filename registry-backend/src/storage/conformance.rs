//! The promises of [`Driver`], each as a check that every driver must pass.

use super::Driver;

/// Checks every promise.
pub(crate) fn check(driver: &dyn Driver) {
    let _ = driver;
}
