//! The first database of a cluster: initdb, then the replication user by a server for one user, which needs no network.

use std::collections::BTreeMap;

use stolon::model::spec::NewConfig;

use super::{Auth, Instance, PgError, conf, conninfo, files, program::Program, staging};

/// What initdb decided for this machine, to be merged into the cluster specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Of postgresql.conf, without what is managed.
    pub parameters: BTreeMap<String, String>,
}

impl Instance {
    /// Creates a database with both users in a directory of its own, which becomes `postgres` when it is complete; what
    /// was there is kept as `postgres.old-<n>`. Refused while a server runs. Follow with `write_conf`.
    pub async fn initdb(&self, config: &NewConfig) -> Result<Initialized, PgError> {
        staging::refuse_running(self)?;
        conninfo::write_passfile(self)?;
        let new = staging::begin(self).await?;
        let superuser = &self.credentials().superuser;
        let mut program = Program::new(self, "initdb").arg("-D").arg(&new).arg("-U").arg(&superuser.name);
        program = program.args(["-E", if config.encoding.is_empty() { "UTF8" } else { &config.encoding }]);
        if !config.locale.is_empty() {
            program = program.arg("--locale").arg(&config.locale);
        }
        if config.data_checksums {
            program = program.arg("--data-checksums");
        }
        let secret = self.keeper_dir().join("initdb-password");
        if let Some(password) = superuser.auth.password() {
            self.write_owned(&secret, password.reveal().as_bytes())?;
            program = program.args(["--auth", "scram-sha-256", "--pwfile"]).arg(&secret);
        } else {
            program = program.args(["--auth", "trust"]);
        }
        let made = program.run().await;
        self.as_owner(|| files::remove(&secret).map_err(PgError::io("remove", &secret)))?;
        made?;
        self.create_roles(&new).await?;
        let parameters = conf::initial(&new)?;
        staging::complete(self, new).await?;
        Ok(Initialized { parameters })
    }

    async fn create_roles(&self, data: &std::path::Path) -> Result<(), PgError> {
        let login = &self.credentials().replication;
        if login.name == self.credentials().superuser.name {
            return Ok(());
        }
        let name = login.name.replace('"', "\"\"");
        let password = match &login.auth {
            Auth::Trust => String::new(),
            Auth::Md5(secret) | Auth::Scram(secret) => format!(" PASSWORD {}", escaped(secret.reveal())),
        };
        let statement = format!("CREATE ROLE \"{name}\" WITH LOGIN REPLICATION{password};\n");
        // Its log goes nowhere but here, and would show a statement that fails: not with the password in it.
        let program = Program::new(self, "postgres")
            .args(["--single", "-D"])
            .arg(data)
            .args([
                "-c",
                "password_encryption=scram-sha-256",
                "-c",
                "log_min_error_statement=panic",
                "-c",
                "exit_on_error=on",
            ])
            .arg("postgres")
            .input(statement.into_bytes());
        program.run().await.map(drop)
    }
}

/// An SQL literal that reads the same whatever `standard_conforming_strings` says.
fn escaped(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
