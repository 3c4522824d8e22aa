//! Flags that lead to the store, the same for all programs.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::UrlParser;
use crate::model::{ClusterName, godur::GoDuration};

/// Below, not even an etcd on the same host could answer for sure.
const LEAST_TIMEOUT: Duration = Duration::from_millis(100);

/// Where the cluster's data is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Name of the cluster, a part of the path in the store.
    #[arg(long, value_name = "NAME")]
    pub cluster_name: ClusterName,
    /// Kind of the store: etcdv3 (or etcd, the same). The store is etcd 3.4 or later.
    #[arg(long, value_name = "KIND", default_value = "etcdv3", value_parser = backend)]
    pub store_backend: String,
    /// etcd's client URLs, comma separated, all http or all https. Several are members of one etcd cluster.
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:2379", hide_env_values = true,
          value_parser = UrlParser(endpoints))]
    // Spelled out, it is one value to clap, with commas in it: whole, it can be looked through for a password.
    pub store_endpoints: ::std::vec::Vec<String>,
    /// Path in the store under which clusters are.
    #[arg(long, value_name = "PATH", default_value = "stolon/cluster")]
    pub store_prefix: String,
    /// How long one request to the store may take over all endpoints; at least 100ms.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, allow_hyphen_values = true)]
    pub store_timeout: Duration,
    /// Certificate file for clients of the store (PEM).
    #[arg(long, value_name = "FILE", requires = "store_key")]
    pub store_cert_file: Option<PathBuf>,
    /// Key file for clients of the store (PEM).
    #[arg(long, value_name = "FILE", requires = "store_cert_file")]
    pub store_key: Option<PathBuf>,
    /// File with the certificates of the authorities that the store's certificate must come from (PEM).
    #[arg(long, value_name = "FILE")]
    pub store_ca_file: Option<PathBuf>,
}

fn backend(text: &str) -> Result<String, String> {
    match text {
        "etcd" | "etcdv3" => Ok("etcdv3".into()),
        "etcdv2" => Err("etcd's v2 API is gone from etcd 3.6 and not supported: use etcdv3 on the same servers".into()),
        "consul" | "kubernetes" => Err(format!("{text} is not supported: run an etcd (3.4 or later) and use etcdv3")),
        _ => Err("the store is etcd's v3 API: use etcdv3 (or etcd)".into()),
    }
}

fn endpoints(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(endpoint).collect()
}

fn endpoint(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: http::Uri = url.parse().map_err(|_| "not a URL: write http://HOST:PORT".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("only http and https URLs are known".into());
    }
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none_or(|port| port == 0) || uri.path() != "/" {
        return Err("write http://HOST:PORT, with a port from 1 to 65535 and no path".into());
    }
    Ok(url)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: GoDuration = text.parse().map_err(|error: crate::model::godur::BadDuration| error.to_string())?;
    if duration.0 < LEAST_TIMEOUT {
        return Err(format!("too short for any answer: at least {LEAST_TIMEOUT:?} are needed"));
    }
    Ok(duration.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_stores_are_refused_with_advice() {
        assert_eq!(backend("etcd").unwrap(), "etcdv3");
        assert!(backend("etcdv2").unwrap_err().contains("use etcdv3"));
        assert!(backend("consul").unwrap_err().contains("etcd"));
    }

    #[test]
    fn an_endpoint_may_leave_out_http_but_not_the_port() {
        assert_eq!(endpoint("127.0.0.1:2379/").unwrap(), "http://127.0.0.1:2379");
        assert_eq!(endpoint("https://etcd1:2379").unwrap(), "https://etcd1:2379");
        assert_eq!(endpoints("a:1,https://b:2").unwrap(), ["http://a:1", "https://b:2"]);
        for bad in ["127.0.0.1", "ftp://a:1", "http://:1", "http://a:0", "http://a:1/x", "a b:1"] {
            assert!(endpoint(bad).is_err() && endpoints(&format!("a:1,{bad}")).is_err(), "{bad}");
        }
    }

    #[derive(clap::Parser, Debug)]
    struct Sample {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        telemetry: crate::telemetry::TelemetryArgs,
    }

    fn refusal(flags: &[&str]) -> String {
        let args = [&["x", "--cluster-name", "c"], flags].concat();
        let error = crate::cli::try_parse::<Sample>("STSTORETEST", args).expect_err("it is refused");
        crate::cli::one_line(&error)
    }

    #[test]
    fn a_url_with_a_password_is_refused_and_not_printed() {
        for flag in ["--store-endpoints", "--otlp-endpoint"] {
            for url in [
                "http://user:s3cret@host:2379",
                "user:s3cret@host:2379",
                "http://a:1,http://user:s3,cret@host:2379",
                "s3cret@",
                "https://u:s3cret@[::1]:1/x",
            ] {
                let line = refusal(&[flag, url]);
                assert!(line.contains(flag) && line.contains("password"), "{line}");
                assert!(!line.contains("s3") && !line.contains("cret@"), "{line}");
            }
        }
    }

    #[test]
    fn a_collectors_url_needs_its_scheme() {
        for url in ["bogus", "127.0.0.1:4317", "ftp://h:4317", "https://h:4317", "http://"] {
            assert!(refusal(&["--otlp-endpoint", url]).contains("--otlp-endpoint"), "{url}");
        }
    }

    #[test]
    fn a_timeout_in_which_nothing_could_answer_is_refused_by_name() {
        for (text, word) in
            [("-5s", "-5s"), ("1ms", "100ms"), ("0", "100ms"), ("1ns", "100ms"), ("99ms", "100ms"), ("5", "5")]
        {
            let line = refusal(&["--store-timeout", text]);
            assert!(line.contains("--store-timeout") && line.contains(word), "{line}");
        }
        assert_eq!(duration("100ms").unwrap(), LEAST_TIMEOUT);
    }
}
