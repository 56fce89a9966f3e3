//! Answers of an API against its own OpenAPI document.

#![expect(clippy::panic, reason = "a check fails the test that it stands in")]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The schema of everything that fails, also where no operation describes it.
const ENVELOPE: &str = "/components/schemas/ErrorBody";

/// What is wrong with a value, by one schema.
pub type Validator = Box<dyn Fn(&Value) -> Vec<String> + Send>;

/// Makes the validator of a schema.
///
/// The test that checks brings it with the validating library: a library here would be one of all who use this crate.
pub type Compile = fn(&Value) -> Validator;

/// A document, and validators of its schemas, each made when it is first needed.
pub struct Contract {
    document: Value,
    compile: Compile,
    validators: Mutex<HashMap<String, Validator>>,
}

/// An answer, and what was asked.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// In capitals.
    pub method: &'a str,
    /// Without a query, as the router sees it.
    pub path: &'a str,
    /// The status.
    pub status: u16,
    /// With or without parameters; empty when the answer has none.
    pub content_type: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract").finish_non_exhaustive()
    }
}

impl Contract {
    /// Takes an OpenAPI 3.1 document.
    #[must_use]
    pub fn new(document: Value, compile: Compile) -> Self {
        Self {
            document,
            compile,
            validators: Mutex::default(),
        }
    }

    /// The document.
    pub const fn document(&self) -> &Value {
        &self.document
    }

    /// Asserts that the document allows this answer.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn check(&self, answered: Answered<'_>) {
        let Answered {
            method,
            path,
            status,
            content_type,
            body,
        } = answered;
        if method == "HEAD" {
            return;
        }
        let media = content_type.split(';').next().unwrap_or_default();
        let Some(pointer) = self.described(method, path, status, media) else {
            // Unknown paths and wrong methods.
            let failed = (400..500).contains(&status);
            assert!(
                failed || media == "text/plain",
                "{method} {path}: {status} is not described"
            );
            if failed {
                self.valid(ENVELOPE, body);
            }
            return;
        };
        if media == "application/json" {
            self.valid(&pointer, body);
        }
    }

    /// Where the document describes this answer; `None` when it knows no such operation.
    #[track_caller]
    fn described(&self, method: &str, path: &str, status: u16, media: &str) -> Option<String> {
        let escape = |text: &str| text.replace('~', "~0").replace('/', "~1");
        let template = escape(self.template(path)?);
        let operation = format!("/paths/{template}/{}", method.to_lowercase());
        self.document.pointer(&operation)?;
        let media = escape(media);
        let pointer = format!("{operation}/responses/{status}/content/{media}/schema");
        assert!(
            self.document.pointer(&pointer).is_some(),
            "the document does not know {pointer}"
        );
        Some(pointer)
    }

    /// Plain templates win over those with parameters, as in a router.
    fn template(&self, path: &str) -> Option<&str> {
        let templates = self.document["paths"].as_object()?.keys();
        let mut fitting: Vec<&String> = templates.filter(|one| fits(one, path)).collect();
        fitting.sort_by_key(|template| template.contains('{'));
        fitting.first().map(|template| template.as_str())
    }

    #[track_caller]
    fn valid(&self, pointer: &str, body: &[u8]) {
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => panic!("{pointer}: {error} in {}", String::from_utf8_lossy(body)),
        };
        let errors: Vec<String> = {
            let mut validators = self
                .validators
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let validator = validators
                .entry(pointer.to_owned())
                .or_insert_with(|| self.validator(pointer));
            validator(&value)
        };
        assert!(errors.is_empty(), "{pointer}: {errors:?} in {value}");
    }

    fn validator(&self, pointer: &str) -> Validator {
        let mut schema = self.document.pointer(pointer).cloned().unwrap_or_default();
        schema["components"] = self.document["components"].clone();
        (self.compile)(&schema)
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || one.starts_with('{') => {}
            _ => return false,
        }
    }
}
