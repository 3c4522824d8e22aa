//! gRPC errors as one line for people: tonic hides the cause ("connection refused", "certificate expired") in the chain
//! of sources.

use std::error::Error;

use tonic::Status;

/// What a call failed of, in one line, with its deepest causes.
pub fn explain(status: &Status) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut add = |text: String| {
        let text = text.trim().replace(['\n', '\r'], " ");
        // Wrappers repeat their cause, or say nothing.
        if !text.is_empty() && text != "transport error" && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    };
    add(status.message().to_owned());
    let mut cause = status.source();
    while let Some(error) = cause {
        // A status among the causes prints all of its metadata; its message came already.
        if error.downcast_ref::<Status>().is_none() {
            add(error.to_string());
        }
        cause = error.source();
    }
    if parts.is_empty() {
        return status.code().description().to_owned();
    }
    let text = parts.join(": ");
    // What `openssl x509 -req` makes without extensions.
    let old = text.contains("UnsupportedCertVersion");
    text + if old { " (an X.509 certificate of version 3, with a subjectAltName, is needed)" } else { "" }
}
