//! The REST API as a page: what its OpenAPI document says.

use serde_json::{Map, Value};

use super::reference::{anchor, cell, line};

/// The page.
pub(super) fn page(document: &Value) -> String {
    let mut page = format!("# REST API\n\n{}\n\n", text(document, "/info/description"));
    page.push_str(
        "A running server has the same as a page at `/docs`, and as [OpenAPI 3.1](openapi.json) at `/openapi.json`.\n\n\
         | Operation | |\n|---|---|\n",
    );
    let operations = operations(document);
    for (path, verb, operation) in &operations {
        let heading = format!("{} {path}", verb.to_uppercase());
        line(
            &mut page,
            &format!(
                "| [`{heading}`](#{}) | {} |",
                anchor(&heading),
                cell(&text(operation, "/summary"))
            ),
        );
    }
    for (path, verb, operation) in &operations {
        section(&mut page, path, verb, operation);
    }
    page.push_str("\n## Types\n");
    for (name, schema) in entries(document.pointer("/components/schemas")) {
        line(
            &mut page,
            &format!("\n### {name}\n\n{}\n", text(schema, "/description")),
        );
        fields(&mut page, schema);
    }
    page
}

fn section(page: &mut String, path: &str, verb: &str, operation: &Value) {
    line(page, &format!("\n## {} {path}\n", verb.to_uppercase()));
    for part in [text(operation, "/summary"), text(operation, "/description")] {
        if !part.is_empty() {
            line(page, &format!("{part}\n"));
        }
    }
    let open = operation
        .pointer("/security/0")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty);
    if open {
        page.push_str("It needs no key.\n\n");
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    if let Some(parameters) = parameters.filter(|list| !list.is_empty()) {
        page.push_str("| Parameter | In | Form | |\n|---|---|---|---|\n");
        for parameter in parameters {
            line(
                page,
                &format!(
                    "| `{}` | {} | {} | {} |",
                    text(parameter, "/name"),
                    text(parameter, "/in"),
                    cell(&form(parameter.get("schema"))),
                    cell(&text(parameter, "/description"))
                ),
            );
        }
        page.push('\n');
    }
    if let Some(body) = operation.get("requestBody") {
        line(page, &format!("Body: {}.\n", content(body)));
    }
    page.push_str("| Status | Body | |\n|---|---|---|\n");
    for (status, response) in entries(operation.get("responses")) {
        line(
            page,
            &format!(
                "| {status} | {} | {} |",
                content(response),
                cell(&text(response, "/description"))
            ),
        );
    }
}

fn content(value: &Value) -> String {
    let kinds = entries(value.get("content")).map(|(kind, media)| {
        let form = form(media.get("schema"));
        if kind == "application/json" {
            form
        } else {
            format!("`{kind}`")
        }
    });
    cell(&kinds.collect::<Vec<_>>().join(" or "))
}

fn fields(page: &mut String, schema: &Value) {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| format!("`{word}`"))
            .collect();
        line(page, &format!("One of {}.", words.join(", ")));
        return;
    }
    if schema.get("properties").is_none() {
        line(page, &format!("{}.", form(Some(schema))));
        return;
    }
    let required = schema.get("required").and_then(Value::as_array);
    page.push_str("| Field | Always there | Form | |\n|---|---|---|---|\n");
    for (name, field) in entries(schema.get("properties")) {
        let always = required.is_some_and(|names| names.iter().any(|other| other == name));
        line(
            page,
            &format!(
                "| `{name}` | {} | {} | {} |",
                if always { "yes" } else { "" },
                cell(&form(Some(field))),
                cell(&text(field, "/description"))
            ),
        );
    }
}

fn form(schema: Option<&Value>) -> String {
    let Some(schema) = schema else {
        return String::new();
    };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return format!("[{name}](#{})", anchor(name));
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema.get(key).and_then(Value::as_array) {
            let forms: Vec<String> = all.iter().map(|one| form(Some(one))).collect();
            return forms.join(" or ");
        }
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", form(Some(items)));
    }
    let mut word = match schema.get("type") {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Array(words)) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            words.join(" or ")
        }
        _ => "any".to_owned(),
    };
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        word.extend([" (", format, ")"]);
    }
    word
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    entries(document.pointer("/paths"))
        .flat_map(|(path, item)| {
            entries(Some(item)).map(move |(verb, operation)| (path, verb, operation))
        })
        .filter(|(_, _, operation)| operation.get("responses").is_some())
        .collect()
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    let object = value.and_then(Value::as_object);
    object
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value, pointer: &str) -> String {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_operation_of_the_document() {
        let document = serde_json::to_value(nagi_server::openapi()).unwrap();
        let page = page(&document);
        for (path, verb, _) in operations(&document) {
            let heading = format!("\n## {} {path}\n", verb.to_uppercase());
            assert!(page.contains(&heading), "{heading}");
        }
        for (name, _) in entries(document.pointer("/components/schemas")) {
            assert!(page.contains(&format!("\n### {name}\n")), "{name}");
        }
    }
}
