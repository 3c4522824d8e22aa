//! Flags that are URLs. A URL may carry a password, in its user info, and neither etcd's API nor a collector would take it
//! for one: it is refused, and no value with one in it is ever printed.

use std::ffi::OsStr;

use clap::{Arg, Command, builder::TypedValueParser, error::ErrorKind};

/// What is said about user info.
pub const NO_USER: &str = "a URL with a user or a password in it (user:password@host) is not supported, and logs in nowhere: \
                           write HOST:PORT alone";

/// True when the text has user info in it, also as a part of several URLs.
pub fn has_user(text: &str) -> bool {
    text.contains('@')
}

/// Parses a flag's whole value; the error of the function is a line for people, without the value.
#[derive(Clone)]
pub struct UrlParser<T>(pub fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for UrlParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let flag = arg.and_then(Arg::get_long).map(|long| format!("--{long}")).unwrap_or_default();
        let refuse = |line: String| command.clone().error(ErrorKind::ValueValidation, line);
        let Some(text) = value.to_str() else { return Err(refuse(format!("{flag}: no text"))) };
        if has_user(text) {
            return Err(refuse(format!("{flag}: {NO_USER}")));
        }
        (self.0)(text).map_err(|problem| refuse(format!("{flag} {text:?}: {problem}")))
    }
}

/// An OTLP collector's URL (gRPC, without TLS).
pub fn collector(text: &str) -> Result<String, String> {
    let text = text.trim();
    let uri: http::Uri = text.parse().map_err(|_| "no URL: write http://HOST:PORT".to_owned())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(text.to_owned()),
        (Some("https"), Some(_)) => {
            Err("TLS to a collector is not supported, use one on this host or network (http)".to_owned())
        }
        _ => Err("no URL of a collector: write http://HOST:PORT".to_owned()),
    }
}
