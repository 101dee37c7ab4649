//! The values of a status as `kubectl get` shows them: printer columns can only copy a field.

use contract::progress::{EpochMetrics, Progress};
use crds::v1alpha1::Display;

/// Formats what the columns show. The estimate holds only while the job trains (`training`).
pub fn display(
    ready: u32,
    total: u32,
    progress: Option<&Progress>,
    latest: Option<&EpochMetrics>,
    training: bool,
) -> Display {
    let begun = progress.filter(|progress| progress.epochs > 0);
    Display {
        workers: format!("{ready}/{total}"),
        epoch: begun.map(|progress| format!("{}/{}", progress.epoch, progress.epochs)),
        loss: latest
            .and_then(|metrics| metrics.train_loss)
            .map(|losses| format!("{:.4}", losses.total)),
        map50_95: latest
            .and_then(|metrics| metrics.map50_95)
            .map(|map| format!("{map:.3}")),
        // Rounded down: 100% is shown only when nothing is left.
        progress: begun.map(|progress| format!("{}%", progress.percent.clamp(0.0, 100.0).floor())),
        eta: begun
            .filter(|_| training)
            .and_then(|progress| progress.eta_seconds)
            .map(duration),
    }
}

/// A duration with its two largest units, as kubectl writes ages.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if !seconds.is_multiple_of(60) => format!("{minutes}m{}s", seconds % 60),
        120..7200 => format!("{minutes}m"),
        7200..172_800 if !minutes.is_multiple_of(60) => format!("{hours}h{}m", minutes % 60),
        7200..172_800 => format!("{hours}h"),
        _ if !hours.is_multiple_of(24) => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use contract::progress::Losses;

    use super::*;

    #[test]
    fn columns_are_short_and_absent_until_known() {
        let empty = display(0, 2, None, None, true);
        assert_eq!(
            Display {
                workers: "0/2".to_owned(),
                ..Display::default()
            },
            empty
        );
        // A trainer that has not read its data set yet knows no number of epochs.
        assert_eq!(empty, display(0, 2, Some(&Progress::default()), None, true));
        let progress = Progress {
            epoch: 3,
            epochs: 30,
            percent: 9.99,
            eta_seconds: Some(754),
            ..Progress::default()
        };
        let latest = EpochMetrics {
            train_loss: Some(Losses {
                total: 0.123_456,
                ..Losses::default()
            }),
            map50_95: Some(0.5),
            ..EpochMetrics::default()
        };
        let shown = display(2, 2, Some(&progress), Some(&latest), true);
        assert_eq!(Some("3/30"), shown.epoch.as_deref());
        assert_eq!(Some("0.1235"), shown.loss.as_deref());
        assert_eq!(Some("0.500"), shown.map50_95.as_deref());
        assert_eq!(Some("9%"), shown.progress.as_deref());
        assert_eq!(Some("12m"), shown.eta.as_deref());
        assert_eq!(None, display(2, 2, Some(&progress), None, false).eta);
    }

    #[test]
    fn durations_read_like_ages() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (7199, "119m"),
            (7200, "2h"),
            (9000, "2h30m"),
            (172_800, "2d"),
            (180_000, "2d2h"),
        ] {
            assert_eq!(text, duration(seconds));
        }
    }
}
