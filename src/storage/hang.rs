//! Whether the disk answers: since when its thread has been at one task, and when that is worth a line of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A disk that has been at one task for so long hangs.
const HANGS: Duration = Duration::from_secs(5);

/// How often it is logged that it still hangs.
const AGAIN: Duration = Duration::from_secs(60);

/// Since when the disk's thread has been at its present task.
#[derive(Clone, Debug)]
pub struct Busy {
    start: Instant,
    /// Milliseconds from the start, and one; 0 if there is no task.
    since: Arc<AtomicU64>,
}

impl Default for Busy {
    fn default() -> Self {
        Busy { start: Instant::now(), since: Arc::default() }
    }
}

impl Busy {
    /// Since when; `None` if there is no task.
    pub fn since(&self) -> Option<Instant> {
        let millis = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start + Duration::from_millis(millis))
    }

    pub(super) fn set(&self, busy: bool) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(if busy { millis + 1 } else { 0 }, Ordering::Relaxed);
    }
}

/// What is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The disk has not answered for so long.
    Hangs(Duration),
    /// It answers again, after it was logged that it hangs.
    AnswersAgain,
}

/// Decides when to log that the disk hangs.
#[derive(Debug, Default)]
pub struct Watch {
    /// When it was last logged that the disk hangs, if nothing else was logged since.
    logged: Option<Instant>,
}

impl Watch {
    /// What is to be logged of a disk that has been at its task since then, and when to look again.
    pub fn look(&mut self, busy: Option<Instant>, now: Instant) -> (Option<Said>, Option<Instant>) {
        let hangs = busy.filter(|since| *since + HANGS <= now);
        let said = match (hangs, self.logged) {
            (Some(_), Some(logged)) if now < logged + AGAIN => None,
            (Some(since), _) => {
                self.logged = Some(now);
                Some(Said::Hangs(now - since))
            }
            (None, Some(_)) => {
                self.logged = None;
                Some(Said::AnswersAgain)
            }
            (None, None) => None,
        };
        // The thread does not tell that a task is done, so a disk that hung is looked at often.
        let again = match self.logged {
            Some(logged) => Some((now + HANGS).min(logged + AGAIN)),
            None => busy.map(|since| since + HANGS),
        };
        (said, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged, and at which second, if the disk's tasks begin and end at these seconds and somebody looks when asked to, and
    /// every `often` seconds.
    fn logged(tasks: &[(u64, u64)], often: u64) -> Vec<(u64, Said)> {
        let start = Instant::now();
        let (mut watch, mut logged, mut wake) = (Watch::default(), Vec::new(), None);
        for second in 0..=200 {
            let now = start + Duration::from_secs(second);
            if second % often != 0 && wake.is_none_or(|wake| wake > now) {
                continue;
            }
            let task = tasks.iter().find(|(begin, end)| (*begin..*end).contains(&second));
            let (said, again) = watch.look(task.map(|(begin, _)| start + Duration::from_secs(*begin)), now);
            assert!(again.is_none_or(|again| again > now), "at {second} s it asks to be called at once");
            wake = again;
            logged.extend(said.map(|said| (second, said)));
        }
        logged
    }

    const fn hangs(seconds: u64) -> Said {
        Said::Hangs(Duration::from_secs(seconds))
    }

    #[test]
    fn a_disk_that_hangs_is_logged_after_5_s_and_every_minute() {
        let expected = [(15, hangs(5)), (75, hangs(65)), (135, hangs(125)), (140, Said::AnswersAgain)];
        assert_eq!(logged(&[(10, 140)], 1), expected);
    }

    #[test]
    fn a_disk_that_is_busy_but_answers_is_not_logged() {
        let tasks: Vec<(u64, u64)> = (0..50).map(|task| (task * 4, task * 4 + 4)).collect();
        assert_eq!(logged(&tasks, 1), []);
    }

    #[test]
    fn a_disk_that_is_busy_after_it_hung_answers_again() {
        // One task after the other, so that it is at one whenever it is looked at.
        let tasks: Vec<(u64, u64)> = [(10, 30)].into_iter().chain((30..150).map(|task| (task, task + 1))).collect();
        for often in [1, 3, 7] {
            let seen = logged(&tasks, often);
            let [(15..=20, Said::Hangs(_)), (30..=35, Said::AnswersAgain)] = seen.as_slice() else {
                panic!("looked at every {often} s: {seen:?}")
            };
        }
    }

    #[test]
    fn a_disk_that_hangs_twice_is_logged_twice() {
        let tasks = [(10, 20), (20, 40), (50, 60)];
        let seen: Vec<Said> = logged(&tasks, 1).into_iter().map(|(_, said)| said).collect();
        assert_eq!(seen, [hangs(5), Said::AnswersAgain, hangs(5), Said::AnswersAgain, hangs(5), Said::AnswersAgain]);
    }
}
