//! The border's small rules, one function each: what "unset", "empty" and "zero" mean in a field.

use std::{fmt, time::Duration};

use super::BadMessage;
use crate::model::{Generation, LeaseId, Revision};

/// A duration as it crosses the wire: whole milliseconds, rounded down.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Longest text that a peer may send where people read it.
const LONGEST_TEXT: usize = 4096;

/// A name that must be there.
pub(super) fn name<T>(field: &'static str, text: String) -> Result<T, BadMessage>
where
    T: TryFrom<String, Error: fmt::Display>,
{
    T::try_from(text).map_err(|error| BadMessage::new(field, error))
}

/// A name; empty means none.
pub(super) fn optional_name<T>(field: &'static str, text: String) -> Result<Option<T>, BadMessage>
where
    T: TryFrom<String, Error: fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

pub(super) fn names<T>(field: &'static str, texts: Vec<String>) -> Result<Vec<T>, BadMessage>
where
    T: TryFrom<String, Error: fmt::Display>,
{
    texts.into_iter().map(|text| name(field, text)).collect()
}

/// A message that must be there.
pub(super) fn required<T>(field: &'static str, message: Option<T>) -> Result<T, BadMessage> {
    message.ok_or_else(|| BadMessage::new(field, "is missing"))
}

/// An optional message, converted.
pub(super) fn optional<S, T: TryFrom<S, Error = BadMessage>>(message: Option<S>) -> Result<Option<T>, BadMessage> {
    message.map(T::try_from).transpose()
}

pub(super) fn texts(list: &[impl fmt::Display]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// A line for people; longer ones are cut, control characters are replaced: it ends in logs.
pub(super) fn line(text: String) -> String {
    if text.len() <= LONGEST_TEXT && !text.contains(char::is_control) {
        return text;
    }
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_TEXT).map(clean).collect()
}

/// An enum's number: unknown ones, and the zero value, are the sender's mistakes.
pub(super) fn choice<T: TryFrom<i32>>(field: &'static str, number: i32) -> Result<T, BadMessage> {
    let unspecified = || BadMessage::new(field, "is unspecified");
    let unknown = |_| BadMessage::new(field, format!("has the unknown value {number}"));
    if number == 0 { Err(unspecified()) } else { T::try_from(number).map_err(unknown) }
}

/// A revision or generation: 0 means none, negative ones don't exist.
pub(super) fn revision(field: &'static str, number: i64) -> Result<Revision, BadMessage> {
    if number < 0 { Err(BadMessage::new(field, "is negative")) } else { Ok(Revision(number)) }
}

pub(super) fn generation(field: &'static str, number: i64) -> Result<Generation, BadMessage> {
    revision(field, number).map(|revision| Generation(revision.0))
}

pub(super) fn lease(field: &'static str, number: i64) -> Result<LeaseId, BadMessage> {
    revision(field, number).map(|revision| LeaseId(revision.0))
}

/// A number of epochs' kind that must not be 0.
pub(super) fn epoch(field: &'static str, number: u64) -> Result<crate::model::Epoch, BadMessage> {
    if number == 0 { Err(BadMessage::new(field, "is 0")) } else { Ok(crate::model::Epoch(number)) }
}

pub(super) fn port(field: &'static str, number: u32) -> Result<u16, BadMessage> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(BadMessage::new(field, format!("{number} is no TCP port"))),
    }
}

pub(super) fn small(field: &'static str, number: u32) -> Result<u16, BadMessage> {
    u16::try_from(number).map_err(|_| BadMessage::new(field, format!("{number} is above 65535")))
}

/// A host name or address to connect to.
pub(super) fn host(field: &'static str, text: String) -> Result<String, BadMessage> {
    let fits = !text.is_empty() && text.len() <= 253;
    if fits && !text.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | ',' | '\'')) {
        Ok(text)
    } else {
        Err(BadMessage::new(field, format!("{text:?} is no host name or address")))
    }
}
