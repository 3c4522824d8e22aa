//! The command line: what a person typed, and nothing that depends on the machine, except the file of the initial
//! specification.

use std::path::{Path, PathBuf};

use clap::Parser;
use stolon::{
    cli::{StoreArgs, in_words, needed, read_json},
    model::spec::StoredSpec,
    rpc::GrpcArgs,
    telemetry::TelemetryArgs,
};

/// Watches the members of a stolon cluster; the elected one of several decides who is primary.
#[derive(Parser, Clone, Debug)]
#[command(name = "stolon-sentinel", version)]
pub struct Cli {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Port to listen on for gRPC: keepers' and proxies' streams, stolonctl, debugging. 0 is any free one, registered
    /// in etcd.
    #[arg(long, value_name = "PORT", default_value_t = 6431)]
    pub port: u16,
    /// File with the cluster specification (JSON) that is used when the cluster is initialised, and never after.
    /// Without it: a new database with stolon's defaults and usePgrewind.
    #[arg(long, value_name = "FILE")]
    pub initial_cluster_spec: Option<PathBuf>,
    #[command(flatten)]
    pub grpc: GrpcArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Reads the initial specification; the error names the flag and the file.
pub fn read_spec(path: &Path) -> Result<StoredSpec, String> {
    let named = |problem: String| format!("--initial-cluster-spec {}: {problem}", path.display());
    let refuse = |problem: String| named(format!("no cluster specification: {problem}"));
    let document = read_json(path).map_err(refuse)?;
    let flaw = StoredSpec::flaw(&document).map(|flaw| needed(&flaw));
    let unreadable = |error: serde_json::Error| refuse(flaw.unwrap_or_else(|| in_words(&error)));
    let spec: StoredSpec = serde_json::from_value(document).map_err(unreadable)?;
    // Stored by a later version, such a field is kept; written by hand, it is a slip.
    if let Some(unknown) = spec.extra.keys().next() {
        return Err(refuse(format!("unknown field {unknown}")));
    }
    spec.resolve().map_err(|bad| named(bad.to_string()))?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use stolon::cli::try_parse;

    use super::*;

    #[test]
    fn the_port_is_6431_unless_said() {
        let parse = |args: &[&str]| try_parse::<Cli>("STSENTINELTEST", [&["x", "--cluster-name", "c"], args].concat());
        assert_eq!(parse(&[]).unwrap().port, 6431);
        assert_eq!(parse(&["--port", "0"]).unwrap().port, 0);
        assert!(parse(&["--port", "70000"]).is_err());
    }

    #[test]
    fn a_bad_initial_specification_is_named_with_its_file() {
        let path = std::env::temp_dir().join(format!("spec-{}.json", std::process::id()));
        for (text, word) in [
            ("{", "no cluster specification: not JSON: it ends"),
            ("[]", "a list: an object in {} is needed"),
            (r#"{"initMode":"new","maxStandbys":-1}"#, "maxStandbys: number \"-1\": a whole number from 0 to 65535"),
            (r#"{"initMode":"new","usePgrewind":"yes"}"#, "usePgrewind: string \"yes\": true or false is needed"),
            (r#"{"initMode":"new","newConfig":7}"#, "newConfig: number \"7\": an object in {} is needed"),
            ("{}", "initMode"),
            (r#"{"initMode":"new","nonsense":1}"#, "unknown field nonsense"),
            (r#"{"initMode":"neu"}"#, "neu"),
            (r#"{"proxyTimeout":"-1s"}"#, "proxyTimeout"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_spec(&path).unwrap_err();
            assert!(
                error.contains(word) && error.contains("--initial-cluster-spec") && !error.contains('\n'),
                "{error}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        let endless = read_spec(Path::new("/dev/zero")).unwrap_err();
        assert!(endless.contains("/dev/zero") && endless.contains("1 MiB"), "{endless}");
        assert!(read_spec(&path).unwrap_err().contains(&path.display().to_string()));
    }
}
