//! The pages that a browser shows: while it waits, one that asks again by itself and shows the stage; where waiting does not
//! help, one that says so. Each is one document without scripts or outside assets.

use std::fmt::Write as _;
use std::time::Duration;

use nagi_core::wake::Stage;
use nagi_wake::FlightView;

use crate::answer;
use crate::backend::Backend;

/// How often the page asks again.
pub(crate) const REFRESH: Duration = Duration::from_secs(2);

/// Renders the page.
pub(crate) fn waiting(backend: &Backend, view: Option<&FlightView>, message: &str) -> String {
    let name = escape(&backend.id.to_string());
    let mut stages = String::new();
    let now = view.map(FlightView::stage);
    for stage in Stage::ALL {
        let mark = view.and_then(|view| view.marks.iter().find(|mark| mark.stage == stage));
        let class = match (mark, now) {
            (Some(_), Some(now)) if now == stage => "now",
            (Some(_), _) => "done",
            (None, _) => "next",
        };
        let after = mark
            .map(|mark| format!("{:.1} s", mark.after.as_secs_f64()))
            .unwrap_or_default();
        // Writing to a String cannot fail.
        let _written = write!(
            stages,
            "<li class=\"{class}\">{stage}<span>{after}</span></li>"
        );
    }
    let eta = view
        .and_then(|view| view.eta)
        .map_or_else(String::new, |eta| {
            format!(
                "<p>Expected in about {} s, as earlier wakes took.</p>",
                eta.as_secs().max(1)
            )
        });
    let pending = answer::pending(backend, view).map_or_else(String::new, |pending| {
        format!("<p>{}</p>", escape(&pending))
    });
    let refresh = REFRESH.as_secs();
    let message = escape(message);
    document(
        &format!("<meta http-equiv=\"refresh\" content=\"{refresh}\">"),
        &format!("{name} is waking"),
        &format!(
            "<p>{message}</p>{eta}{pending}<ol>{stages}</ol><p>This page asks again every {refresh} s.</p>"
        ),
    )
}

/// The page about a request that waiting does not help.
pub(crate) fn refusal(message: &str, hint: Option<&str>) -> String {
    let hint = hint.map_or_else(String::new, |hint| format!("<p>{}</p>", escape(hint)));
    let title = "This page cannot be shown";
    document("", title, &format!("<p>{}</p>{hint}", escape(message)))
}

fn document(head: &str, title: &str, main: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{head}\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{main}</main></body></html>"
    )
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f6f8;color:#1c2733}\
main{max-width:32rem;margin:10vh auto;padding:0 1rem}h1{font-size:1.3rem}ol{list-style:none;padding:0}\
li{display:flex;justify-content:space-between;padding:.2rem .6rem;border-left:3px solid #c5ced8}\
li.done{border-color:#2f855a}li.now{border-color:#2b6cb0;font-weight:600}li.next{color:#7a8794}\
@media(prefers-color-scheme:dark){body{background:#12181f;color:#e2e8f0}li.next{color:#7a8794}}";

/// Names and words of engines may hold anything; a page must show them, not run them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_engine_cannot_run_in_the_page() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
