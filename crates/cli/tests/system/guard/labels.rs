//! What disks are called in metrics, where a person named them.

use super::Guarded;

/// Two more that no node lives from, at paths that a test can name beforehand: in the mounts of the guard alone.
const TWO_MORE: &str = "mount -t tmpfs none /mnt && mkdir /mnt/one /mnt/two && \
                        mkfs.ext4 -q -F ../one 16M && mount -o loop ../one /mnt/one && \
                        mkfs.ext4 -q -F ../two 32M && mount -o loop ../two /mnt/two && mkdir /mnt/two/below";

// U20: what only a person named has a label for each disk, in the order of the options, and no series is there twice. The log
// says which is which.
#[test]
fn disks_that_a_person_named_have_labels_of_their_own() {
    let flags = [
        "--path",
        "/mnt/two/below",
        "--path",
        "/mnt/two",
        "--path",
        "/mnt/one",
        "--clean",
        "off",
        "--no-owners",
        "--alert-log",
        "none",
    ];
    let Some(guarded) = Guarded::start_after(TWO_MORE, &flags) else {
        return;
    };
    let text = guarded.scrape().expect("an answer");
    let level = |disk: &str| format!("nagi_disk_level{{disk=\"{disk}\",resource=\"bytes\"}} 0");
    let mut levels: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("nagi_disk_level{") && line.contains("\"bytes\""))
        .collect();
    levels.sort_unstable();
    assert_eq!(
        levels,
        [level("/"), level("named-1"), level("named-3")],
        "{text}"
    );
    let sizes = ["named-1", "named-3"].map(|disk| {
        let used = format!("nagi_disk_bytes{{disk=\"{disk}\",state=\"available\"}}");
        guarded.metric(&used).expect("a number")
    });
    assert!(sizes[0] > sizes[1], "{sizes:?}");
    let log = guarded.end();
    for (disk, label) in [("/mnt/two", "named-1"), ("/mnt/one", "named-3")] {
        let says = log.lines().any(|line| {
            line.contains(&format!("\"disk\":\"{disk}\""))
                && line.contains(&format!("\"label\":\"{label}\""))
        });
        assert!(says, "{label}: {log}");
    }
}
