//! A model of Amazon Data Firehose: what it accepts, and what it replies and when.

use crate::host::{EventId, Tally, expected, is_streamed, pad_of, stream_of};
use kubehose::firehose::reply::Refused;
use kubehose::firehose::{Class, Fault, Reply, Setup};
use std::time::Duration;

/// What is wrong with the service for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Some records of a call fail.
    Partial,
    /// Calls are throttled, some of them only in part.
    Throttled,
    /// 5xx errors and cut connections, before or after the records were accepted.
    Broken,
    /// Calls get no reply until the client gives up.
    Silent,
    /// The endpoint refuses connections.
    Unreachable,
    /// Credential look-ups fail, slowly.
    Credentials,
    /// The stream does not exist.
    Missing,
    /// A quota of records per second.
    Quota,
}

pub const WEATHERS: [Weather; 9] = [
    Weather::Fine,
    Weather::Partial,
    Weather::Throttled,
    Weather::Broken,
    Weather::Silent,
    Weather::Unreachable,
    Weather::Credentials,
    Weather::Missing,
    Weather::Quota,
];

/// The service's state.
#[derive(Default)]
pub struct Service {
    /// How often each event was accepted in this run of the process.
    pub in_life: Tally,
    /// How often each event was accepted in all runs.
    pub accepted: Tally,
    /// How often an event was accepted in this run although the client did not get the reply.
    pub untold: Tally,
    /// While throttling, it accepts nothing of any call.
    pub throttles_whole: bool,
    /// How many streams may be in use: the events of any more may go to the default stream.
    pub max_streams: usize,
    /// Changes which of the streams are failing.
    pub turn: u64,
    /// Under `Missing` and `Silent`, every call is rejected as invalid, whatever its records.
    pub refuses_all: bool,
    /// Calls whose outcome the client cannot know.
    pub ambiguous: u64,
    /// The current second, and how many records were accepted in it.
    pub quota: (u64, u32),
    pub calls: u64,
    pub partial: u64,
    pub poisoned: u64,
}

/// How a call ends.
pub struct Outcome {
    pub after: Duration,
    /// The events of each record of the call; more than one only with `simple_aggregation`.
    pub records: Vec<Vec<EventId>>,
    pub outcome: Result<Reply, Fault>,
}

/// Records that the service never accepts.
pub fn is_poison(id: EventId) -> bool {
    id % 5003 == 77
}

impl Service {
    /// Checks a body, accepts records according to the weather, and returns the outcome and its delay.
    pub fn call(
        &mut self,
        body: &[u8],
        records: usize,
        weather: Weather,
        second: u64,
        random: &mut fastrand::Rng,
    ) -> Result<Outcome, String> {
        self.calls += 1;
        let (stream, events) = read(body)?;
        let expected = |id: &EventId| stream == stream_of(*id) || stream == "logs" && self.max_streams < 7;
        if let Some(id) = events.iter().flatten().find(|id| !expected(id)) {
            return Err(format!("event {id} is sent to {stream} instead of {}", stream_of(*id)));
        }
        let weather = if self.is_well(&stream) { Weather::Fine } else { weather };
        if events.len() != records {
            return Err(format!("a call of {records} records has {}", events.len()));
        }
        let near = Duration::from_millis(random.u64(1..200));
        let whole = |class, ambiguous| Err(Fault { class, ambiguous, text: format!("{class:?}") });
        let setup = |setup| whole(Class::Setup(setup), false);
        let reached = !matches!(weather, Weather::Unreachable | Weather::Credentials);
        let refuses_all = self.refuses_all && matches!(weather, Weather::Missing | Weather::Silent);
        if reached && events.iter().flatten().any(|id| is_poison(*id)) || refuses_all {
            self.poisoned += 1;
            return Ok(Outcome { after: near, records: events, outcome: whole(Class::Poison, false) });
        }
        let outcome = match weather {
            Weather::Fine => {
                self.accept(&events, |_| true);
                Ok(Reply::default())
            }
            Weather::Throttled if self.throttles_whole => whole(Class::Throttled, false),
            Weather::Partial | Weather::Throttled if random.u8(..4) > 0 => {
                let share = random.u8(1..=10);
                let code = match weather {
                    Weather::Partial if random.bool() => "InternalFailure",
                    _ => "ServiceUnavailableException",
                };
                let refused: Vec<usize> = (0..records).filter(|_| random.u8(..10) < share).collect();
                self.accept(&events, |index| refused.binary_search(&index).is_err());
                self.partial += 1;
                let refused = refused.into_iter().map(|index| Refused { index, code: code.to_owned() });
                Ok(Reply { refused: refused.collect() })
            }
            Weather::Partial => {
                self.accept(&events, |_| true);
                Ok(Reply::default())
            }
            Weather::Throttled => whole(Class::Throttled, false),
            Weather::Broken => match random.u8(..5) {
                0 => {
                    self.accept(&events, |_| true);
                    Ok(Reply::default())
                }
                1 | 2 => {
                    self.accept_untold(&events);
                    self.ambiguous += 1;
                    whole(Class::Service, true)
                }
                _ => {
                    self.ambiguous += 1;
                    whole(Class::Service, true)
                }
            },
            Weather::Silent => {
                if random.bool() {
                    self.accept_untold(&events);
                }
                self.ambiguous += 1;
                let after = Duration::from_secs(30);
                return Ok(Outcome { after, records: events, outcome: whole(Class::Service, true) });
            }
            Weather::Unreachable => setup(Setup::Unreachable),
            Weather::Credentials => {
                let after = Duration::from_millis(random.u64(1..30_000));
                return Ok(Outcome { after, records: events, outcome: setup(Setup::Credentials) });
            }
            Weather::Missing => setup(Setup::Stream),
            Weather::Quota => {
                if self.quota.0 != second {
                    self.quota = (second, 0);
                }
                let mut refused = Vec::new();
                let mut room = 300u32.saturating_sub(self.quota.1);
                for index in 0..records {
                    match room.checked_sub(1) {
                        Some(left) => room = left,
                        None => refused.push(Refused { index, code: "ServiceUnavailableException".to_owned() }),
                    }
                }
                let accepted = records - refused.len();
                self.quota.1 += accepted as u32;
                self.accept(&events, |index| index < accepted);
                Ok(Reply { refused })
            }
        };
        Ok(Outcome { after: near, records: events, outcome })
    }

    /// With several streams, half of them are healthy in any weather.
    pub fn is_well(&self, stream: &str) -> bool {
        let number = u64::from(stream.as_bytes().last().copied().unwrap_or_default());
        is_streamed() && (number + self.turn).is_multiple_of(2)
    }

    fn accept(&mut self, records: &[Vec<EventId>], which: impl Fn(usize) -> bool) {
        for (index, events) in records.iter().enumerate() {
            if which(index) {
                for id in events {
                    self.in_life.add(*id);
                    self.accepted.add(*id);
                }
            }
        }
    }

    fn accept_untold(&mut self, records: &[Vec<EventId>]) {
        self.accept(records, |_| true);
        for id in records.iter().flatten() {
            self.untold.add(*id);
        }
    }
}

/// The stream of a body, and the events of each record; every record must be the expected one.
fn read(body: &[u8]) -> Result<(String, Vec<Vec<EventId>>), String> {
    if body.len() > 4 * 1024 * 1024 {
        return Err(format!("a body of {} bytes", body.len()));
    }
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| format!("a body: {error}"))?;
    let stream = value["DeliveryStreamName"].as_str().unwrap_or_default().to_owned();
    let records = value["Records"].as_array().ok_or("a body without records")?;
    if records.is_empty() || records.len() > 500 {
        return Err(format!("a body of {} records", records.len()));
    }
    let events: Result<Vec<_>, String> = records
        .iter()
        .map(|record| {
            let data = record["Data"].as_str().ok_or("a record without data")?;
            let data = base64_simd::STANDARD.decode_to_vec(data).map_err(|error| error.to_string())?;
            events_of(&data)
        })
        .collect();
    Ok((stream, events?))
}

/// The events of a record, which must be the expected ones.
pub fn events_of(record: &[u8]) -> Result<Vec<EventId>, String> {
    record.split_inclusive(|byte| *byte == b'\n').map(event_of).collect()
}

fn event_of(line: &[u8]) -> Result<EventId, String> {
    let id = id_of(line)?;
    if line != expected(id, pad_of(id)).as_bytes() {
        return Err(format!("the record of event {id} is not the expected one"));
    }
    Ok(id)
}

/// The events that a record names, unchecked.
pub fn ids_of(record: &[u8]) -> Result<Vec<EventId>, String> {
    record.split_inclusive(|byte| *byte == b'\n').map(id_of).collect()
}

fn id_of(record: &[u8]) -> Result<EventId, String> {
    let begin = String::from_utf8_lossy(&record[..record.len().min(80)]);
    let id = begin.strip_prefix("{\"n\":").and_then(|rest| rest.split_once(',')?.0.parse().ok());
    id.ok_or_else(|| format!("a record: {begin}"))
}
