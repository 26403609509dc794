//! The single date that a package contains.

use super::{Error, Result};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; not in the future, and not later than an rpm can represent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Date(u32);

impl Date {
    /// `SOURCE_DATE_EPOCH`, else the date of the last commit.
    ///
    /// # Errors
    /// [`Error::Date`] if the date is not a number, lies in the future (a package would then also contain the date on
    /// which it was built), or if there is none.
    pub fn of_sources(source_date_epoch: Option<&str>, last_commit: Option<i64>) -> Result<Date> {
        const EXPECTED: &str = "a number of seconds since 1970, not in the future";
        let wrong = |from, found: &str| Error::Date { from, found: found.to_owned(), expected: EXPECTED };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let passed = |seconds: u32| (u64::from(seconds) <= now).then_some(Date(seconds));
        match (source_date_epoch, last_commit) {
            (Some(text), _) => text
                .trim()
                .parse()
                .ok()
                .and_then(passed)
                .ok_or_else(|| wrong("the environment's SOURCE_DATE_EPOCH", text)),
            (None, Some(seconds)) => u32::try_from(seconds)
                .ok()
                .and_then(passed)
                .ok_or_else(|| wrong("the date of the last commit", &seconds.to_string())),
            (None, None) => Err(Error::Date {
                from: "the date of the last commit",
                found: "(no commit)".to_owned(),
                expected: "a commit in the work dir's git repository; make one, or set SOURCE_DATE_EPOCH",
            }),
        }
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

/// As in Debian's changelogs (RFC 5322), in UTC: `Sat, 21 Nov 2026 15:28:29 +0000`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        let (weekday, month) = (WEEKDAYS[days as usize % 7], MONTHS[month as usize]);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// Year, month (counted from 0) and day of the month, for a day counted from 1970-01-01.
fn civil(days: u32) -> (u32, u32, u32) {
    let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u32::from(leap(year)) {
        left -= 365 + u32::from(leap(year));
        year += 1;
    }
    let february = 28 + u32::from(leap(year));
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_date_prints_them() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_704_067_199, "Sun, 31 Dec 2023 23:59:59 +0000"),
            (1_709_251_200, "Fri, 01 Mar 2024 00:00:00 +0000"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 +0000"),
            (u32::MAX, "Sun, 07 Feb 2106 06:28:15 +0000"),
        ] {
            assert_eq!(Date(seconds).to_string(), text);
        }
    }

    #[test]
    fn the_environment_goes_before_the_commit() {
        assert_eq!(Date::of_sources(Some("1000000000\n"), Some(7)).unwrap().seconds(), 1_000_000_000);
        assert_eq!(Date::of_sources(None, Some(1_000_000_001)).unwrap().seconds(), 1_000_000_001);
    }

    #[test]
    fn what_is_no_date_in_the_past_is_refused() {
        for text in ["", "yesterday", "-1", "1e9", "4294967295", "99999999999"] {
            let error = Date::of_sources(Some(text), Some(1)).unwrap_err().to_string();
            assert!(error.contains("SOURCE_DATE_EPOCH") && error.contains("expected"), "{error}");
        }
        assert!(Date::of_sources(None, Some(-1)).unwrap_err().to_string().contains("last commit"));
        assert!(Date::of_sources(None, None).unwrap_err().to_string().contains("set SOURCE_DATE_EPOCH"));
    }
}
