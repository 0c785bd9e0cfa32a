//! Time stamps of logs and records: RFC 3339 with nanoseconds, in UTC.

/// Length of a stamp: `2006-01-02T15:04:05.999999999Z`.
pub const LENGTH: usize = 30;

/// Writes a time, nanoseconds since the Unix epoch, as text. Always nine digits, so that stamps
/// sort as text.
#[must_use]
pub fn stamp(nanoseconds: i64) -> [u8; LENGTH] {
    const SECOND: i64 = 1_000_000_000;
    let seconds = nanoseconds.div_euclid(SECOND);
    let fraction = nanoseconds.rem_euclid(SECOND);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, clock / 3600),
        (14, 2, clock / 60 % 60),
        (17, 2, clock % 60),
        (20, 9, fraction),
    ];
    for (at, width, value) in fields {
        put(&mut text[at..at + width], value);
    }
    text
}

fn put(digits: &mut [u8], mut value: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// The Gregorian date of a day counted from 1970-01-01, by years that begin in March: then the
/// leap day is the last of the year, and months have a regular pattern.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let (month, later) = if march_month < 10 {
        (march_month + 3, 0)
    } else {
        (march_month - 9, 1)
    };
    (year_of_era + era * 400 + later, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_136_214_245_999_999_999, "2006-01-02T15:04:05.999999999Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199_500_000_000, "2024-02-29T23:59:59.500000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(stamp(nanoseconds), text.as_bytes(), "{text}");
        }
    }

    /// Every thirty hours from 1900 to 2200, by another's calendar.
    #[test]
    fn stamps_are_those_of_jiff() {
        const STEP: i64 = 108_000_123_456_789;
        let from: i64 = -2_208_988_800_000_000_000;
        let times = std::iter::successors(Some(from), |last| Some(last + STEP));
        for nanoseconds in times.take_while(|time| *time < 7_258_118_400_000_000_000) {
            let theirs = jiff::Timestamp::from_nanosecond(nanoseconds.into()).unwrap();
            let theirs = format!("{theirs:.9}");
            assert_eq!(stamp(nanoseconds), theirs.as_bytes(), "{nanoseconds}");
        }
    }
}
