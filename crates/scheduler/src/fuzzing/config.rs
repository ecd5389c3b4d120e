//! A file of settings: whatever is accepted can be printed, and what is printed gives the same settings again.

use crate::config::from_text;

/// The content of a configuration file.
#[must_use]
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let settings = match from_text(text) {
        Ok(settings) => settings,
        Err(problems) => {
            assert!(!problems.to_string().is_empty(), "refused without a word");
            return false;
        }
    };
    let policy = &settings.config.default_policy;
    assert!(policy.violations().is_empty(), "a policy out of bounds: {:?}", policy.violations());
    let printed = settings.to_toml();
    let again =
        from_text(&printed).unwrap_or_else(|problems| panic!("what is printed is refused:\n{problems}\n{printed}"));
    assert_eq!(again.to_toml(), printed);
    assert_eq!(format!("{:?}", again.config), format!("{:?}", settings.config));
    assert_eq!(again.telemetry.filter, settings.telemetry.filter);
    true
}
