//! `nagi events`: what happens, as it happens.

use clap::Args;
use nagi_api::{Event, EventKind, EventValue, WorkloadItem};
use nagi_client::{Client, EventFollower, Followed, ListFilter, ServerEvent};
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::style::{Style, Tone};
use crate::output::{Detail, Output, Place, words};
use crate::session::Session;
use crate::target::{all, nearest, parse_namespace};

const EXAMPLES: &str = "\
Examples:
  nagi events                                        until Ctrl-C
  nagi events sample-app-a -n project-a --type wake
  nagi events --output json | jq -c 'select(.type == \"scale\")'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventsArgs {
    /// Only of workloads of this name: NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    workload: Option<String>,

    /// Only of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Only of this type: scale, status, wake or schedule
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_kind)]
    kind: Option<EventKind>,

    /// Begin after the event with this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,

    /// End after so many events
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

fn parse_kind(text: &str) -> Result<EventKind, String> {
    let kinds = [
        EventKind::Scale,
        EventKind::Status,
        EventKind::Wake,
        EventKind::Schedule,
    ];
    kinds
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "must be scale, status, wake or schedule".to_owned())
}

/// Which events are shown.
#[derive(Debug)]
struct Wanted {
    namespace: Option<String>,
    name: Option<String>,
    kind: Option<EventKind>,
}

impl Wanted {
    fn of(args: &EventsArgs) -> Result<Self, Failure> {
        let (namespace, name) = match args.workload.as_deref() {
            None => (None, None),
            Some(text) => match text.split_once('/') {
                Some((namespace, name)) => (Some(namespace), Some(name)),
                None => (None, Some(text)),
            },
        };
        let namespace = match (namespace, args.namespace.as_deref()) {
            (Some(one), Some(other)) if one != other => {
                return Err(Failure::usage(format!(
                    "the name says namespace {one}, and --namespace says {other}"
                )));
            }
            (one, other) => one.or(other),
        };
        if let Some(text) = namespace {
            parse_namespace(text)?;
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            kind: args.kind,
        })
    }

    /// Says that nothing has the name now: it may come later, and it may be a slip of the keyboard.
    async fn warn_of_nobody(&self, client: &Client, output: &Output) {
        let Some(name) = &self.name else { return };
        let Ok(items) = all(client, &ListFilter::default()).await else {
            // The stream says what is wrong with the server.
            return;
        };
        let fits = |item: &WorkloadItem| {
            item.name == *name && self.namespace.iter().all(|n| *n == item.namespace)
        };
        if !items.iter().any(fits) {
            output.warn(&format!(
                "no workload is called {name} now; events of one that comes are shown"
            ));
            let near = nearest(name, items.iter().map(|item| item.name.as_str()));
            if let Some(near) = near.first() {
                output.hint(&format!("did you mean {near}?"));
            }
        }
    }

    fn takes(&self, event: &Event) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|n| n == &event.namespace)
            && self.name.as_ref().is_none_or(|n| n == &event.name)
            && self.kind.is_none_or(|kind| kind == event.kind)
    }
}

/// Runs the command.
pub(crate) async fn run(args: &EventsArgs, session: &Session) -> Result<(), Failure> {
    let wanted = Wanted::of(args)?;
    let client = session.client()?;
    let output = &session.output;
    // The first connection must come about: a wrong address is an error, not something to wait for.
    let stream = client.events(args.after.clone()).await?;
    wanted.warn_of_nobody(&client, output).await;
    let mut follower = EventFollower::resume(client, stream);
    let mut left = args.limit;
    while left != Some(0) {
        match follower.next().await? {
            Followed::Event(ServerEvent::Event { event, raw }) => {
                if !wanted.takes(&event) {
                    continue;
                }
                let body: Value = serde_json::from_str(&raw)
                    .map_err(|error| Failure::of(Exit::Failed, "cannot read the event", &error))?;
                output.body(&body, Place::InSeries, |detail| {
                    line(&event, detail, output.style())
                })?;
                left = left.map(|left| left - 1);
            }
            Followed::Event(ServerEvent::Reset) => {
                output.warn("events were missed; the current state follows");
            }
            Followed::Event(ServerEvent::Unknown { .. }) => {}
            Followed::Lost { error, again_in } => {
                let why = error.map_or_else(
                    || "the server ended the stream".to_owned(),
                    |error| error.to_string(),
                );
                output.warn(&format!(
                    "{why}; trying again in {}",
                    words::seconds(again_in.as_secs_f64())
                ));
            }
        }
    }
    Ok(())
}

/// An event in one line.
fn line(event: &Event, detail: Detail, style: Style) -> String {
    let value = |value: &Option<EventValue>| match value {
        None => "-".to_owned(),
        Some(EventValue::Count(count)) => count.to_string(),
        Some(EventValue::Text(text)) => words::clean(text),
    };
    let tone = match event.kind {
        EventKind::Scale => Tone::Strong,
        EventKind::Status => Tone::Calm,
        EventKind::Wake => Tone::Busy,
        EventKind::Schedule => Tone::Plain,
    };
    let mut line = format!(
        "{}  {}  {}  {} → {}",
        event.time,
        style.paint(tone, &format!("{:<8}", event.kind.as_str())),
        words::clean(&format!("{}/{}", event.namespace, event.name)),
        value(&event.from),
        value(&event.to)
    );
    if let Some(actor) = &event.actor {
        line.push_str("  by ");
        line.push_str(&words::clean(actor));
    }
    if let Some(reason) = &event.reason {
        line.push_str("  ");
        line.push_str(&words::clean(reason));
    }
    if detail == Detail::Wide {
        line.push_str("  id ");
        line.push_str(&words::clean(&event.id));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        serde_json::from_value(serde_json::json!({
            "id": "e-7", "time": "2030-01-31T07:00:00Z", "type": "scale", "resource": "deployments",
            "namespace": "project-a", "name": "web", "actor": "key/ops", "reason": "夜\u{1b}", "from": 2, "to": 0
        }))
        .unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            line(&event(), Detail::Normal, Style::Plain),
            "2030-01-31T07:00:00.000Z  scale     project-a/web  2 → 0  by key/ops  夜\u{fffd}"
        );
        let bare = Event {
            actor: None,
            reason: None,
            from: None,
            kind: EventKind::Wake,
            to: Some(EventValue::Text("ready".to_owned())),
            ..event()
        };
        assert_eq!(
            line(&bare, Detail::Wide, Style::Plain),
            "2030-01-31T07:00:00.000Z  wake      project-a/web  - → ready  id e-7"
        );
    }

    #[test]
    fn only_wanted_events_are_taken() {
        let wanted = |namespace: Option<&str>, name: Option<&str>, kind| Wanted {
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            kind,
        };
        assert!(wanted(None, None, None).takes(&event()));
        assert!(wanted(Some("project-a"), Some("web"), Some(EventKind::Scale)).takes(&event()));
        assert!(!wanted(Some("project-b"), None, None).takes(&event()));
        assert!(!wanted(None, Some("we"), None).takes(&event()));
        assert!(!wanted(None, None, Some(EventKind::Wake)).takes(&event()));
    }
}
