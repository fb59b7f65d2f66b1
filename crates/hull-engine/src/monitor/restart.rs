//! Whether and when a container is started again: Docker's rules, and its waiting times.

use std::time::Duration;

use crate::config::RestartPolicy;

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Who ran this long was started well: waiting begins anew.
const WELL: Duration = Duration::from_secs(10);

/// How long to wait before the next start, if there is one. `restarts` counts them.
pub(super) fn after(
    policy: RestartPolicy,
    code: i32,
    stopped: bool,
    restarts: &mut u32,
    ran: Duration,
) -> Option<Duration> {
    let wanted = match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure(limit) => code != 0 && (limit == 0 || *restarts < limit),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    };
    if stopped || !wanted {
        return None;
    }
    let wait = if ran >= WELL { FIRST } else { FIRST.saturating_mul(1 << (*restarts).min(20)).min(LONGEST) };
    *restarts = restarts.saturating_add(1);
    Some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_a_minute() {
        let mut restarts = 0;
        let waits: Vec<u128> = (0..12)
            .map(|_| after(RestartPolicy::Always, 0, false, &mut restarts, Duration::ZERO).unwrap().as_millis())
            .collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[10..], [60_000, 60_000]);
        assert_eq!(restarts, 12);
        assert_eq!(after(RestartPolicy::Always, 0, false, &mut restarts, WELL), Some(FIRST));
    }

    #[test]
    fn policies_decide() {
        let mut none = 0;
        let mut ask = |policy, code, stopped| after(policy, code, stopped, &mut none, WELL).is_some();
        assert!(!ask(RestartPolicy::No, 1, false));
        assert!(!ask(RestartPolicy::OnFailure(0), 0, false));
        assert!(ask(RestartPolicy::OnFailure(0), 1, false));
        assert!(ask(RestartPolicy::UnlessStopped, 0, false));
        assert!(!ask(RestartPolicy::Always, 0, true));
        let mut restarts = 2;
        assert_eq!(after(RestartPolicy::OnFailure(2), 1, false, &mut restarts, WELL), None);
    }
}
