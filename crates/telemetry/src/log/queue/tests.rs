//! The queue never waits, never tears a line, and counts what it loses.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// What each write call was given; answers come from a script, then everything is accepted.
#[derive(Debug, Clone, Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    script: Arc<Mutex<Vec<io::Result<usize>>>>,
}

impl Recorder {
    fn scripted(answers: impl IntoIterator<Item = io::Result<usize>>) -> Self {
        let mut script: Vec<_> = answers.into_iter().collect();
        script.reverse();
        Self {
            calls: Arc::default(),
            script: Arc::new(Mutex::new(script)),
        }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        self.calls().concat()
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let accepted = self
            .script
            .lock()
            .unwrap()
            .pop()
            .unwrap_or(Ok(bytes.len()))?;
        let text = String::from_utf8(bytes[..accepted].to_vec()).unwrap();
        self.calls.lock().unwrap().push(text);
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that has stopped: the first write says that it began, then waits until it is released.
struct Stuck {
    began: SyncSender<()>,
    release: Receiver<()>,
    then: Recorder,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Both ends are dropped by the test when it is done; then nothing is waited for.
        if self.began.send(()).is_ok() {
            self.release.recv().unwrap_err();
        }
        self.then.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(sink: impl Write + Send + 'static) -> Queue {
    Queue::start(Box::new(sink), None).unwrap()
}

fn line(number: usize) -> String {
    format!(
        "{{\"line\":{number},\"padding\":\"{}\"}}\n",
        "x".repeat(200)
    )
}

// whole lines in each write call, as many as a pipe takes in one piece, in order.
#[test]
fn write_calls_hold_whole_lines_that_a_pipe_takes_in_one_piece() {
    let recorder = Recorder::default();
    let queue = queue(recorder.clone());
    let lines: Vec<_> = (0..500).map(line).collect();
    for line in &lines {
        queue.push(line, Urgency::Normal);
    }
    assert!(queue.flush(PATIENCE));
    let calls = recorder.calls();
    assert_eq!(calls.concat(), lines.concat());
    for call in &calls {
        assert!(call.ends_with('\n') && call.len() <= LINE_BYTES_MAX);
    }
    assert_eq!(queue.depth_bytes(), 0);
    assert_eq!(queue.dropped().get(), 0);
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let recorder = Recorder::default();
    let queue = queue(recorder.clone());
    thread::scope(|scope| {
        for writer in 0..8 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..200 {
                    queue.push(&line(writer * 1000 + number), Urgency::Normal);
                }
            });
        }
    });
    assert!(queue.flush(PATIENCE));
    let text = recorder.text();
    let mut seen: Vec<_> = text.split_inclusive('\n').collect();
    let mut expected: Vec<_> = (0..8)
        .flat_map(|writer| (0..200).map(move |n| line(writer * 1000 + n)))
        .collect();
    seen.sort_unstable();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn stopped_reader_costs_lines_and_never_time_and_the_loss_is_reported() {
    let (began, seen) = sync_channel(0);
    let (release, held) = sync_channel(0);
    let recorder = Recorder::default();
    let queue = queue(Stuck {
        began,
        release: held,
        then: recorder.clone(),
    });
    queue.push(&line(0), Urgency::Normal);
    seen.recv().unwrap();
    // The writer is stuck in its first write call. Every push below returns, or the test hangs.
    let pushed = 2 * QUEUE_BYTES_MAX / line(1).len();
    for number in 1..=pushed {
        queue.push(&line(number), Urgency::Normal);
    }
    let dropped = queue.dropped().get();
    assert!(dropped > 0);
    assert!(queue.depth_bytes() <= QUEUE_BYTES_MAX);
    assert!(
        !queue.flush(Duration::from_millis(1)),
        "nothing can have been written"
    );

    // Last words still find room, also where no line of this length fits any more.
    let last = format!("{{\"last\":\"{}\"}}\n", "x".repeat(4000));
    queue.push(&last, Urgency::LastWords);
    assert_eq!(queue.dropped().get(), dropped);

    drop((seen, release));
    assert!(queue.flush(PATIENCE));
    // The report is written behind the batch, so wait for the end of one more.
    queue.push("{\"after\":true}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    let text = recorder.text();
    assert!(text.contains(&last));
    let report =
        format!("\"level\":\"warn\",\"message\":\"Log lines dropped\",\"lines\":{dropped}}}\n");
    assert_eq!(text.matches(&report).count(), 1);
    let written = u64::try_from(text.matches("\"padding\"").count()).unwrap();
    assert_eq!(written + dropped, u64::try_from(pushed + 1).unwrap());
}

#[test]
fn even_last_words_are_bounded() {
    let (began, seen) = sync_channel(0);
    let (release, held) = sync_channel(0);
    let queue = queue(Stuck {
        began,
        release: held,
        then: Recorder::default(),
    });
    queue.push(&line(0), Urgency::Normal);
    seen.recv().unwrap();
    for number in 0..2 * QUEUE_BYTES_MAX / line(1).len() {
        queue.push(&line(number), Urgency::LastWords);
    }
    assert!(queue.depth_bytes() <= QUEUE_BYTES_MAX + LAST_WORDS_BYTES_MAX);
    assert!(queue.dropped().get() > 0);
    drop((seen, release));
}

#[test]
fn lost_write_is_counted_and_the_next_line_begins_on_a_new_line() {
    // A full disk: half of the first line, then nothing, then the second line and all that follows.
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let recorder = Recorder::scripted([Ok(5), Err(full)]);
    let queue = queue(recorder.clone());
    queue.push("{\"first\":1}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    queue.push("{\"second\":2}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    queue.push("{\"third\":3}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    assert_eq!(queue.dropped().get(), 1);
    let text = recorder.text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"fir"));
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(
        text.contains("\n{\"second\":2}\n") && text.contains("\n{\"third\":3}\n"),
        "{text}"
    );
    assert!(text.contains("\"lines\":1}\n"), "{text}");
}

#[test]
fn interrupted_short_and_would_block_writes_are_continued() {
    let again = || Err(io::Error::from(io::ErrorKind::WouldBlock));
    let interrupted = Err(io::Error::from(io::ErrorKind::Interrupted));
    let recorder = Recorder::scripted([again(), Ok(3), interrupted, again(), Ok(4)]);
    let queue = queue(recorder.clone());
    queue.push("{\"first\":1}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    assert_eq!(recorder.text(), "{\"first\":1}\n");
    assert_eq!(queue.dropped().get(), 0);
}

#[test]
fn closed_pipe_loses_lines_counts_them_and_nothing_else() {
    let (reader, writer) = io::pipe().unwrap();
    let queue = queue(writer);
    drop(reader);
    for number in 0..100 {
        queue.push(&line(number), Urgency::Normal);
    }
    assert!(queue.flush(PATIENCE));
    assert_eq!(queue.dropped().get(), 100);
}

// A full disk in the middle of several lines: those that were written count as written, the others are counted as lost.
#[test]
fn of_lines_written_together_only_those_that_failed_are_lost() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let length = line(0).len();
    let recorder = Recorder::scripted([Ok(length), Ok(length + 5), Err(full)]);
    let (began, seen) = sync_channel(0);
    let (release, held) = sync_channel(0);
    let queue = queue(Stuck {
        began,
        release: held,
        then: recorder.clone(),
    });
    queue.push(&line(0), Urgency::Normal);
    seen.recv().unwrap();
    for number in 1..=4 {
        queue.push(&line(number), Urgency::Normal);
    }
    drop((seen, release));
    assert!(queue.flush(PATIENCE));
    assert_eq!(queue.dropped().get(), 3);
    queue.push("{\"after\":true}\n", Urgency::Normal);
    assert!(queue.flush(PATIENCE));
    let text = recorder.text();
    assert!(text.starts_with(&(line(0) + &line(1))), "{text}");
    assert!(text.contains("\n{\"after\":true}\n"), "{text}");
    assert!(text.contains("\"lines\":3}\n"), "{text}");
}

#[test]
fn closed_queue_writes_what_it_holds_and_then_counts() {
    let recorder = Recorder::default();
    let queue = queue(recorder.clone());
    queue.push("{\"first\":1}\n", Urgency::Normal);
    queue.close();
    assert!(queue.flush(PATIENCE));
    assert_eq!(recorder.text(), "{\"first\":1}\n");
    // The writer ends soon; from then on lines are lost, and `flush` does not wait for them.
    while queue.dropped().get() == 0 {
        queue.push("{\"late\":1}\n", Urgency::Normal);
        thread::yield_now();
    }
}
