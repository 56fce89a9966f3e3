//! `/openapi.json`, and `/docs`: the same document as a page for people, without anything from outside.

use std::fmt::Write as _;
use std::sync::OnceLock;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use nagi_api::routes;
use serde_json::{Map, Value};
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::openapi::KeyNeeded;

/// The page is plain HTML with its style inside; nothing else may be loaded or run.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Both forms of the document, with and without a key, made when somebody first asks.
#[derive(Debug, Default)]
pub(crate) struct Docs {
    with_key: Forms,
    without: Forms,
}

#[derive(Debug, Default)]
struct Forms {
    json: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
}

/// This document: OpenAPI 3.1.
#[utoipa::path(
    get, path = routes::OPENAPI, tag = "docs", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value))
)]
pub(crate) async fn openapi(State(app): State<App>) -> Response {
    let (needed, forms) = in_force(&app);
    let made = || {
        serde_json::to_vec(&document(&app, needed))
            .unwrap_or_default()
            .into()
    };
    served(forms.json.get_or_init(made), "application/json")
}

/// The same as a page for people.
#[utoipa::path(
    get, path = routes::DOCS, tag = "docs", operation_id = "docs", security(()),
    responses((status = 200, description = "A page", content_type = "text/html", body = String))
)]
pub(crate) async fn docs(State(app): State<App>) -> Response {
    let (needed, forms) = in_force(&app);
    let made = || page(&serde_json::to_value(document(&app, needed)).unwrap_or_default()).into();
    let bytes = forms.page.get_or_init(made);
    let mut response = served(bytes, "text/html; charset=utf-8");
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    response
}

fn document(app: &App, needed: KeyNeeded) -> OpenApi {
    crate::openapi::document(app.config.rails.replicas_max, needed)
}

/// Keys may come and go while the process runs.
fn in_force(app: &App) -> (KeyNeeded, &Forms) {
    if app.keys.current().are_off() {
        (KeyNeeded::No, &app.docs.without)
    } else {
        (KeyNeeded::Yes, &app.docs.with_key)
    }
}

fn served(bytes: &Bytes, kind: &'static str) -> Response {
    let mut response = Response::new(Body::from(bytes.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;\
background:#fff}code,pre{font-family:ui-monospace,monospace;font-size:.9em}h2{margin-top:3rem;border-bottom:1px solid #d0d7de}\
h3{margin-top:2rem}.verb{display:inline-block;min-width:4.5rem;font-weight:700}table{border-collapse:collapse;width:100%}\
td,th{border:1px solid #d0d7de;padding:.25rem .5rem;text-align:left;vertical-align:top}nav a{display:block}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th,h2{border-color:#30363d}a{color:#58a6ff}}";

fn page(document: &Value) -> String {
    let mut out = String::new();
    // Writing into a `String` cannot fail.
    write_page(&mut out, document).unwrap_or(());
    out
}

fn write_page(out: &mut String, document: &Value) -> std::fmt::Result {
    let title = text(document, "/info/title");
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>\
         <p>{}</p><p>Version {}. The same as <a href=\"{}\">OpenAPI 3.1</a>.</p>",
        text(document, "/info/description"),
        text(document, "/info/version"),
        routes::OPENAPI,
    )?;
    let operations = operations(document);
    out.push_str("<nav>");
    for (path, verb, operation) in &operations {
        let anchor = text(operation, "/operationId");
        write!(
            out,
            "<a href=\"#{anchor}\"><code><span class=\"verb\">{}</span>{}</code></a>",
            escaped(&verb.to_uppercase()),
            escaped(path)
        )?;
    }
    out.push_str("</nav><h2>Operations</h2>");
    for (path, verb, operation) in &operations {
        write_operation(out, path, verb, operation)?;
    }
    out.push_str("<h2>Types</h2>");
    for (name, schema) in entries(document.pointer("/components/schemas")) {
        let anchor = escaped(name);
        write!(
            out,
            "<h3 id=\"type-{anchor}\">{anchor}</h3><p>{}</p>",
            text(schema, "/description")
        )?;
        write_fields(out, schema)?;
    }
    out.push_str("</body></html>\n");
    Ok(())
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = entries(document.pointer("/paths"));
    paths
        .flat_map(|(path, item)| {
            entries(Some(item))
                .map(move |(verb, operation)| (path.as_str(), verb.as_str(), operation))
        })
        .collect()
}

fn write_operation(
    out: &mut String,
    path: &str,
    verb: &str,
    operation: &Value,
) -> std::fmt::Result {
    write!(
        out,
        "<h3 id=\"{}\"><code>{} {}</code></h3><p>{} {}</p>",
        text(operation, "/operationId"),
        escaped(&verb.to_uppercase()),
        escaped(path),
        text(operation, "/summary"),
        text(operation, "/description"),
    )?;
    let parameters = operation.get("parameters").and_then(Value::as_array);
    if let Some(parameters) = parameters.filter(|list| !list.is_empty()) {
        out.push_str("<table><tr><th>Parameter</th><th>In</th><th>Type</th><th>Meaning</th></tr>");
        for parameter in parameters {
            write!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
                text(parameter, "/name"),
                text(parameter, "/in"),
                kind(parameter.get("schema").unwrap_or(&Value::Null)),
                text(parameter, "/description"),
            )?;
        }
        out.push_str("</table>");
    }
    if let Some(body) = operation.pointer("/requestBody/content/application~1json/schema") {
        write!(out, "<p>Body: {}</p>", kind(body))?;
    }
    out.push_str("<table><tr><th>Status</th><th>Body</th><th>Meaning</th></tr>");
    for (status, response) in entries(operation.get("responses")) {
        let content = entries(response.get("content")).next();
        let body = content.map_or_else(String::new, |(media, content)| {
            let schema = content.get("schema").unwrap_or(&Value::Null);
            format!("{} <small>{}</small>", kind(schema), escaped(media))
        });
        write!(
            out,
            "<tr><td>{}</td><td>{body}</td><td>{}</td></tr>",
            escaped(status),
            text(response, "/description"),
        )?;
    }
    out.push_str("</table>");
    Ok(())
}

fn write_fields(out: &mut String, schema: &Value) -> std::fmt::Result {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    let mut fields = entries(schema.get("properties")).peekable();
    if fields.peek().is_none() {
        return write!(out, "<p>{}</p>", kind(schema));
    }
    out.push_str("<table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>");
    for (name, field) in fields {
        let mark = if is_required(name) {
            ""
        } else {
            " <small>optional</small>"
        };
        write!(
            out,
            "<tr><td><code>{}</code>{mark}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            kind(field),
            text(field, "/description"),
        )?;
    }
    out.push_str("</table>");
    Ok(())
}

/// A schema in a few words; a type of ours is a link.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = escaped(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#type-{name}\">{name}</a>");
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema.get(choice).and_then(Value::as_array) {
            return all.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("<code>{}</code>", escaped(&word.to_string())))
            .collect();
        return words.join(", ");
    }
    let of_items = schema.get("items").map(kind);
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            names.join(" or ")
        }
        Some(_) | None => "any".to_owned(),
    };
    match of_items {
        Some(items) => format!("{} of {items}", escaped(&name)),
        None => escaped(&name),
    }
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}

fn text(value: &Value, pointer: &str) -> String {
    escaped(
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_operation_and_loads_nothing() {
        let value = serde_json::to_value(crate::openapi()).unwrap();
        let page = page(&value);
        for (path, verb, _) in operations(&value) {
            let heading = format!("<code>{} {path}</code>", verb.to_uppercase());
            assert!(page.contains(&heading), "{heading}");
        }
        for outside in [
            "http://", "https://", "<script", "<link", "src=", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn text_of_the_document_cannot_become_markup() {
        assert_eq!(
            escaped("<b>&\"x\"</b>"),
            "&lt;b&gt;&amp;&quot;x&quot;&lt;/b&gt;"
        );
    }
}
