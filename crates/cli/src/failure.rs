//! How a command says that it failed: what, why, and the next step, on stderr, with a stable exit code.

use std::error::Error;
use std::io;

use nagi_client::ClientError;

use crate::exit::Exit;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How it ends.
    pub(crate) exit: Exit,
    /// What failed.
    pub(crate) message: String,
    /// Why, from the outside to the cause.
    pub(crate) causes: Vec<String>,
    /// What to do next.
    pub(crate) hints: Vec<String>,
    /// The id under which the server logged it.
    pub(crate) request_id: Option<String>,
    /// Nobody reads the output any more: nothing is left to say.
    pub(crate) silent: bool,
}

impl Failure {
    /// A failure without cause or hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            request_id: None,
            silent: false,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure with the whole chain of causes of an error.
    pub(crate) fn of(
        exit: Exit,
        message: impl Into<String>,
        error: &(dyn Error + 'static),
    ) -> Self {
        let mut failure = Self::new(exit, message);
        failure.causes = chain(Some(error));
        // Nothing is said twice.
        failure.causes.retain(|cause| *cause != failure.message);
        failure
    }

    /// The same with a next step.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Names a field of a request as the command line does.
    #[must_use]
    pub(crate) fn naming(mut self, field: &str, flag: &str) -> Self {
        for text in self.causes.iter_mut().chain(&mut self.hints) {
            *text = text.replace(field, flag);
        }
        self
    }

    /// The lines that are printed, each with its kind: `error`, `cause`, `hint`.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        if self.silent {
            return Vec::new();
        }
        let mut lines = vec![("error", self.message.clone())];
        lines.extend(self.causes.iter().map(|cause| ("cause", cause.clone())));
        lines.extend(self.hints.iter().map(|hint| ("hint", hint.clone())));
        if let Some(id) = &self.request_id
            && self.exit == Exit::Failed
        {
            lines.push((
                "hint",
                format!("the server's log has it under request_id {id}"),
            ));
        }
        lines
    }
}

fn chain(mut error: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut causes = Vec::new();
    while let Some(cause) = error {
        causes.push(cause.to_string());
        error = cause.source();
    }
    causes
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let causes = chain(error.source());
        let message = error.to_string();
        match error {
            // Whoever answers there must have proved nothing yet.
            ClientError::Connect { server, source } if server.is_tls() && source.get_ref().is_some() => {
                Self { causes, ..Self::new(Exit::Unreachable, message) }
                    .hint("is it the right name, and a certificate of an authority of this machine? SSL_CERT_FILE names a file with others to trust")
            }
            ClientError::Connect { .. } => Self { causes, ..Self::new(Exit::Unreachable, message) }
                .hint("is nagi running? 'nagi all' starts it on this machine, 'nagi demo' with sample projects")
                .hint("is it in a cluster? 'kubectl port-forward -n scale-system svc/scale-api 8080:80' brings it here, and ends with the pod behind it")
                .hint("is it elsewhere? name it with --server or NAGI_SERVER"),
            ClientError::Broken { .. } | ClientError::Timeout { .. } => {
                Self { causes, ..Self::new(Exit::Unreachable, message) }
                    .hint("'nagi status' tells whether a change was made")
            }
            ClientError::Refused(refusal) => {
                let body = refusal.body;
                let mut failure = Self::new(Exit::of_status(refusal.status), body.message);
                let field = body.field.unwrap_or_default();
                failure.causes.extend(body.error.map(|error| {
                    // Most rules name what they are about.
                    if field.is_empty() || error.starts_with(&field) {
                        error
                    } else {
                        format!("{field}: {error}")
                    }
                }));
                failure.hints.extend(body.limit.map(|limit| format!("expected {limit}")));
                failure.hints.extend(body.hint);
                if refusal.status == 401 {
                    failure.hints.push("give a key with --key or NAGI_KEY".to_owned());
                }
                if let Some(wait) = refusal.retry_after {
                    failure.hints.push(format!("try again in {} s", wait.as_secs()));
                }
                failure.request_id = refusal.request_id;
                failure
            }
            ClientError::NotTheApi { status, .. } => {
                // Somebody else answered, whose 404 is no missing workload; a proxy may speak for a server that is away.
                let exit = if matches!(status, 502..=504) { Exit::Unreachable } else { Exit::Failed };
                Self { causes, ..Self::new(exit, message) }
                    .hint("does --server (NAGI_SERVER) point at the REST API of nagi? Its port is 8080 by default, and its address has no path; the gateway and the metrics have ports of their own")
            }
            ClientError::Answer { .. } | ClientError::TooLarge { .. } => {
                Self { causes, ..Self::new(Exit::Failed, message) }
                    .hint("'nagi version' and the server may be of different versions")
            }
            ClientError::Request(_) => Self { causes, ..Self::new(Exit::Usage, message) },
        }
    }
}

/// Writing the output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `nagi list | head -1` has what it wanted.
            return Self {
                silent: true,
                ..Self::new(Exit::Done, "the output was closed")
            };
        }
        Self::of(Exit::Failed, "cannot write the output", &error)
    }
}
