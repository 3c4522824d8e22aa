//! From flags to credentials: reads password files, applies stolon's rules, and never shows a password.

use std::{path::Path, process::Command};

use crate::{
    cli::{Method, UserArgs},
    pg::{Auth, Credentials, Login, Secret},
};

/// An error is one line that names the flag.
pub fn credentials(args: &UserArgs) -> Result<Credentials, String> {
    let su = password("--pg-su-password", args.pg_su_password.as_deref(), args.pg_su_passwordfile.as_deref())?;
    let repl = password("--pg-repl-password", args.pg_repl_password.as_deref(), args.pg_repl_passwordfile.as_deref())?;
    let name = match &args.pg_su_username {
        Some(name) => name.clone(),
        None => os_user()?,
    };
    let superuser = Login { name, auth: auth("--pg-su", args.pg_su_auth_method, su)? };
    let method = args.pg_repl_auth_method.or(args.pg_su_auth_method);
    let replication = Login { name: args.pg_repl_username.clone(), auth: auth("--pg-repl", method, repl)? };
    if (superuser.auth == Auth::Trust) != (replication.auth == Auth::Trust) {
        return Err(
            "passwords are needed for both users, or for none: --pg-su-passwordfile and --pg-repl-passwordfile".into(),
        );
    }
    let credentials = Credentials { superuser, replication };
    credentials.check().map_err(|problem| format!("--pg-su-*, --pg-repl-*: {problem}"))?;
    Ok(credentials)
}

fn auth(flags: &str, method: Option<Method>, password: Option<Secret>) -> Result<Auth, String> {
    match (method, password) {
        (None | Some(Method::Scram), Some(secret)) => Ok(Auth::Scram(secret)),
        (Some(Method::Md5), Some(secret)) => Ok(Auth::Md5(secret)),
        (Some(Method::Trust), Some(_)) => Err(format!("{flags}-auth-method trust takes no password")),
        (None | Some(Method::Trust), None) => Ok(Auth::Trust),
        (Some(_), None) => Err(format!("{flags}-auth-method needs {flags}-password or {flags}-passwordfile")),
    }
}

fn password(flag: &str, given: Option<&str>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let (source, text) = match (given, file) {
        (Some(text), _) => (flag.to_owned(), text.to_owned()),
        (None, Some(path)) => {
            let source = format!("{flag}file {}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| format!("{source} can't be read: {error}"))?;
            warn_if_open(path);
            (source, text)
        }
        (None, None) => return Ok(None),
    };
    let trimmed = text.trim_end_matches(['\n', '\r']);
    if trimmed.is_empty() {
        return Err(format!("{source}: the password is empty"));
    }
    if trimmed.len() < text.len() {
        tracing::warn!("{source}: line breaks at the end of the password are ignored");
    }
    Ok(Some(Secret::new(trimmed)))
}

fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
        tracing::warn!("{} can be read by others: chmod 600", path.display());
    }
}

/// Name of the user that started the keeper.
fn os_user() -> Result<String, String> {
    let failed = |problem: String| format!("the OS user has no name ({problem}): give --pg-su-username");
    let out = Command::new("id").arg("-un").output().map_err(|error| failed(error.to_string()))?;
    let name = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if out.status.success() && !name.is_empty() { Ok(name) } else { Err(failed(out.status.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> UserArgs {
        UserArgs {
            pg_su_username: Some("su".into()),
            pg_su_password: None,
            pg_su_passwordfile: None,
            pg_su_auth_method: None,
            pg_repl_username: "repl".into(),
            pg_repl_password: None,
            pg_repl_passwordfile: None,
            pg_repl_auth_method: None,
        }
    }

    #[test]
    fn without_passwords_both_are_trusted_and_with_them_both_use_scram() {
        assert!(credentials(&args()).unwrap().open());
        let given = UserArgs { pg_su_password: Some("a".into()), pg_repl_password: Some("b\n".into()), ..args() };
        let made = credentials(&given).unwrap();
        assert_eq!(made.superuser.auth.method(), "scram-sha-256");
        assert_eq!(made.replication.auth.password().unwrap().reveal(), "b");
    }

    #[test]
    fn half_a_set_of_passwords_and_contradictions_are_refused() {
        for bad in [
            UserArgs { pg_su_password: Some("a".into()), ..args() },
            UserArgs { pg_su_password: Some("\n".into()), pg_repl_password: Some("b".into()), ..args() },
            UserArgs { pg_su_auth_method: Some(Method::Md5), ..args() },
            UserArgs {
                pg_su_password: Some("a".into()),
                pg_repl_password: Some("b".into()),
                pg_su_auth_method: Some(Method::Trust),
                ..args()
            },
        ] {
            assert!(credentials(&bad).unwrap_err().contains("--pg-"), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_password_file_is_named() {
        let bad = UserArgs { pg_su_passwordfile: Some("/nowhere/secret".into()), ..args() };
        assert!(credentials(&bad).unwrap_err().contains("--pg-su-passwordfile /nowhere/secret"));
    }
}
