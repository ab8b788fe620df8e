//! Times for people: how long ago, or how soon, in the short form of kubectl.

use jiff::{SignedDuration, Timestamp};

/// Returns a duration in the two largest units, such as `3d4h`, `12m` or `45s`; of minutes, the seconds only below ten.
pub(super) fn short(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600, seconds / 60);
    let two = |large: i64, unit: char, small: i64, next: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{next}"),
    };
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 => two(minutes, 'm', seconds % 60, 's'),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => two(hours, 'h', minutes % 60, 'm'),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => two(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

/// Returns how long ago a time was, or in how long it will be: `3h ago`, `in 12m`. The status has whole seconds, rounded
/// up, so a time less than a second ahead has just passed.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at.duration_since(now) >= SignedDuration::from_secs(1) {
        format!("in {}", short(at.duration_since(now)))
    } else {
        format!("{} ago", short(now.duration_since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_at_most_two_units() {
        for (seconds, words) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (659, "10m"),
            (10_800, "3h"),
            (11_400, "3h10m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (172_800, "2d"),
            (864_000, "10d"),
        ] {
            assert_eq!(short(SignedDuration::from_secs(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn time_is_relative_to_now() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = now + SignedDuration::from_mins(12);
        assert_eq!(relative(later, now), "in 12m");
        assert_eq!(relative(now, later), "12m ago");
        assert_eq!(relative(now + SignedDuration::from_millis(900), now), "0s ago");
    }
}
