//! The services of one daemon with their names, so that reflection and health tell of those that it serves, and no more.

use std::convert::Infallible;

use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    service::{Routes, RoutesBuilder},
};

/// Services to serve; a plain `Routes` will do as well, reflection then lists the whole contract.
#[derive(Clone, Debug, Default)]
pub struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl Services {
    pub fn new() -> Services {
        Services::default()
    }

    /// Adds a generated server, such as `SentinelServiceServer`.
    pub fn with<S>(mut self, service: S) -> Services
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    pub(super) fn into_routes(self) -> Routes {
        self.routes.routes()
    }
}

impl From<Routes> for Services {
    fn from(routes: Routes) -> Services {
        Services { routes: routes.into(), names: Vec::new() }
    }
}
