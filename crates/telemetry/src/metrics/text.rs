//! Prometheus text format 0.0.4 out of the OpenMetrics text of `prometheus-client`.
//!
//! OpenMetrics names a counter's family without `_total`. Readers of the older format, `promtool check
//! metrics` among them, then see samples without help and type. So the two header lines of a counter
//! get the suffix, `# UNIT` and `# EOF` go, and so do headers of families without a sample yet.
//! Sample lines are the same in both formats and are not touched.

use std::fmt;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

/// Renders `registry`.
pub(super) fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut open_metrics = String::new();
    encode_registry(&mut open_metrics, registry)?;
    Ok(convert(&open_metrics))
}

fn convert(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 256);
    let mut header = Header::default();
    for line in open_metrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            header = Header {
                help: help.split_once(' '),
                kind: None,
            };
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            header.kind = kind.split_once(' ');
        } else if !line.starts_with('#') {
            header.write(&mut text);
            header = Header::default();
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The header of a family, written before its first sample.
#[derive(Debug, Default)]
struct Header<'a> {
    help: Option<(&'a str, &'a str)>,
    kind: Option<(&'a str, &'a str)>,
}

impl Header<'_> {
    fn write(&self, text: &mut String) {
        let Some((name, kind)) = self.kind else {
            return;
        };
        let suffix = if kind == "counter" { "_total" } else { "" };
        if let Some((_, help)) = self.help {
            for part in ["# HELP ", name, suffix, " ", help, "\n"] {
                text.push_str(part);
            }
        }
        for part in ["# TYPE ", name, suffix, " ", kind, "\n"] {
            text.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //
    #[test]
    fn counter_headers_get_the_name_of_their_samples_and_the_rest_stays() {
        let open_metrics = "# HELP a Helps.\n# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\n\
             # HELP b_seconds Times.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\n\
             b_seconds_sum 0.5\nb_seconds_bucket{le=\"+Inf\"} 1\n\
             # HELP c Empty.\n# TYPE c counter\n# HELP d Gauge.\n# TYPE d gauge\nd 1\n# EOF\n";
        let expected = "# HELP a_total Helps.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\
             a_total{x=\"2\"} 3\n# HELP b_seconds Times.\n# TYPE b_seconds histogram\n\
             b_seconds_sum 0.5\nb_seconds_bucket{le=\"+Inf\"} 1\n\
             # HELP d Gauge.\n# TYPE d gauge\nd 1\n";
        assert_eq!(convert(open_metrics), expected);
    }
}
