//! Jobs that keep disks in order, under a real cron and on a real disk, each in namespaces of its own. That needs root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Cron's table, what is run, logs and locks are those of the namespace; the machine's own are not seen.
const PREPARE: &str = "set -eu
for place in /var/spool/cron/crontabs /usr/local/bin /var/log /run; do mount -t tmpfs none $place; done
ln -s \"$NAGI\" /usr/local/bin/nagi
table() { tail -n +4 /var/spool/cron/crontabs/root; }
nagi() { /usr/local/bin/nagi --quiet guard schedule \"$@\"; }
script=/usr/local/bin/disk-cleanup-check.sh
";

/// Runs a script of a shell there; none where that cannot be, and then the test has said so.
fn inside(script: &str) -> Option<Output> {
    let own = fs::metadata("/proc/self").expect("proc");
    if own.uid() != 0 {
        nagi_testkit::skipped("a namespace of mounts needs root");
        return None;
    }
    for program in ["/usr/bin/crontab", "/usr/sbin/cron"] {
        if !Path::new(program).exists() {
            nagi_testkit::skipped(&format!("{program} is not there"));
            return None;
        }
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--pid", "--fork"])
        .args(["--mount-proc", "--kill-child", "bash", "-c"])
        .arg(format!("{PREPARE}{script}"))
        .env("NAGI", env!("CARGO_BIN_EXE_nagi"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare is there");
    Some(output)
}

/// It ran to its end.
fn done(output: &Output) -> String {
    let (said, told) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {said}\n{told}", output.status);
    said
}

// B-022 to B-025, B-035, D-21, B19, K-38: with Debian's own crontab, whose -l does not show every byte as it is: lines of
// others stay, twice is once, and taken away is as before.
#[test]
fn jobs_live_in_a_real_crontab_beside_those_of_others() {
    let Some(output) = inside(
        r#"
printf 'MAILTO=x\n@reboot /bin/true\n0 1 * * * date +\\%%F\n# \351\377 no UTF-8\n0 2 * * * crlf\r\n' > /run/foreign
crontab /run/foreign
cron -f & until grep -q cron /proc/$!/comm; do :; done
table | cmp - /run/foreign
nagi install --dry-run > /run/plan
table | cmp - /run/foreign
test ! -e $script
grep -q '^+ 0 5 \* \* \* /usr/bin/journalctl --vacuum-time=2d$' /run/plan
nagi install > /dev/null
table > /run/first
test -x $script
head -c $(stat -c %s /run/foreign) /run/first | cmp - /run/foreign
for job in 'journalctl --vacuum-time=2d' 'nagi guard check --alert-log /var/log/disk-alert.log' 'disk-cleanup-check.sh$' 'disk-cleanup-check.sh 0$'; do
  test $(grep -ac -- "$job" /run/first) = 1
done
nagi install > /dev/null
table | cmp - /run/first
nagi show --output json > /run/show
grep -q '"status": *"same"' /run/show
nagi remove > /dev/null
table | cmp - /run/foreign
test ! -e $script
crontab -r
nagi install > /dev/null
nagi remove > /dev/null
crontab -l 2>&1 | grep -q '^no crontab for root$'
echo all
"#,
    ) else {
        return;
    };
    assert!(done(&output).ends_with("all\n"));
}

// Nothing is half done: without cron, with one that rests, and where its disk is full, all is as it was and the way on is said.
#[test]
fn what_cannot_be_installed_changes_nothing() {
    let Some(output) = inside(
        r#"
# A `!` is no check to a shell that ends at the first failure.
fails() { if "$@" > /dev/null 2> /run/told; then echo "it did: $*"; exit 1; fi; test ! -e $script; }
says() { grep -q "$1" /run/told || { cat /run/told; echo "no $1"; exit 1; }; }
mine() { mount -t tmpfs -o "$1" none /var/spool/cron/crontabs; printf '# mine\n' | crontab -; table > /run/mine; }
mine size=1m
fails nagi install; says 'cron is installed and does not run'; test $(grep -c 'cron is installed' /run/told) = 1
fails nagi install --dry-run; says 'cron is installed and does not run'
/usr/local/bin/nagi guard schedule show > /run/shown 2> /run/told; says 'cron is installed and does not run'
grep -q '0 5 \* \* \*' /run/shown
mkdir /run/empty
PATH=/run/empty fails /usr/local/bin/nagi guard schedule install
says 'there is no crontab'; says 'hint: install cron'
cron -f & until grep -q cron /proc/$!/comm; do :; done
mine size=4k
fails nagi install; says 'cannot change the crontab of root'; says 'No space left'
table | cmp - /run/mine
mine size=1m
mount -t tmpfs -o size=4k none /usr/local/bin
head -c 9000 /dev/zero > /usr/local/bin/fill 2> /dev/null || true
fails "$NAGI" guard schedule install; says 'No space left'
table | cmp - /run/mine
umount /usr/local/bin
touch /run/nagi; mount --bind "$NAGI" /run/nagi
fails setpriv --reuid 65534 --regid 65534 --clear-groups /run/nagi guard schedule install
says "the jobs are root's"
table | cmp - /run/mine
printf '# nagi guard schedule: begin\n' | crontab -
fails nagi install; says 'not a pair'
printf '#!/bin/sh\n' > /run/script; cp /run/script $script
printf '# mine\n' | crontab -
if nagi install 2> /run/told; then exit 1; fi
says 'of somebody else'
cmp $script /run/script
table | cmp - /run/mine
echo all
"#,
    ) else {
        return;
    };
    assert!(done(&output).ends_with("all\n"));
}

// B-025, K-41: the script hands the limit on, logs how it ended, and ends with the code of what it ran.
#[test]
fn the_script_cleans_above_its_limit_and_logs_that() {
    let Some(output) = inside(
        r#"
cron -f & until grep -q cron /proc/$!/comm; do :; done
nagi install > /dev/null
rm /usr/local/bin/nagi
printf '#!/bin/sh\necho "ran $*"; echo told >&2; exit 12\n' > /usr/local/bin/nagi
chmod +x /usr/local/bin/nagi
code=0; $script > /run/out || code=$?
test $code = 12
test ! -s /run/out
code=0; $script 0 || code=$?
test $code = 12
# While the runtime is at work it is tried again; what is slow of that is the machine's.
printf '#!/bin/sh\necho "ran $*"; echo x >> /run/tries; test $(wc -l < /run/tries) -ge 3 || exit 8\n' > /usr/local/bin/nagi
sed -i 's/^ *sleep .*/  echo slept >> \/run\/naps/' $script
$script 0
test $(wc -l < /run/naps) = 2
printf '#!/bin/sh\necho "ran $*"; echo told >&2; exit 12\n' > /usr/local/bin/nagi
cat /var/log/disk-cleanup-check.log
# A log that takes nothing loses nothing.
rm /var/log/disk-cleanup-check.log; mkdir /var/log/disk-cleanup-check.log
$script 2> /dev/null || true
"#,
    ) else {
        return;
    };
    let said = done(&output);
    let ran: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("ran "))
        .collect();
    let with = |kinds: &str, limit: &str| {
        format!("ran disk clean --apply --yes --quiet --only {kinds} --target {limit}")
    };
    let files = "apt,snaps,pod-logs,journal,coredumps";
    // B-035: the weekly prune of images, by the rules of nagi disk clean.
    let all = "apt,snaps,pod-logs,journal,coredumps,pulls,images";
    let weekly = with(all, "0");
    let daily = with(files, "80");
    assert_eq!(ran, [&daily, &weekly, &weekly, &daily], "{said}");
    assert_eq!(said.matches("limit=80 code=12").count(), 2, "{said}");
    assert_eq!(said.matches("limit=0 code=0").count(), 1, "{said}");
    assert!(said.contains("told"), "{said}");
}

// W-B05: where the log lies on the disk that is full, and takes nothing, the line is on stderr, which cron sends by mail, and in
// the syslog of the node.
#[test]
fn the_hourly_job_is_heard_where_its_log_takes_nothing() {
    let Some(output) = inside(
        r#"
cd /run && truncate -s 100M image && mkfs.ext4 -q -m 0 image && mkdir disk && mount -o loop image disk
mkdir -p disk/var/lib disk/run disk/var/log disk/dev
mount -t tmpfs none disk/dev
python3 -c '
import socket
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.bind("/run/disk/dev/log"); heard.settimeout(20)
open("/run/listens", "w").close()
open("/run/heard", "wb").write(heard.recv(4096))
' &
until test -e /run/listens; do :; done
head -c 300M /dev/zero > disk/fill 2> /dev/null || true
# Not even an inode is left, so that there is no log to be begun.
n=0; while touch disk/var/log/$n 2> /dev/null; do n=$((n + 1)); done
code=0; /usr/local/bin/nagi guard check --root /run/disk --path /run/disk --alert-log /var/log/disk-alert.log > /dev/null 2> /run/told || code=$?
wait %1
test $code = 1
test ! -e disk/var/log/disk-alert.log
grep -q '^ALERT: Disk over 90% at [A-Z].* UTC 20[0-9][0-9]' /run/told || { cat /run/told; exit 1; }
grep -q '^<27>nagi-guard\[[0-9]*\]: ALERT: Disk over 90% at ' /run/heard || { cat /run/heard; exit 1; }
echo all
"#,
    ) else {
        return;
    };
    assert!(done(&output).ends_with("all\n"));
}

// B-023, N-6, B-034, B-042: the line is written from 90 % on and at 100 % too, with a date, and 93 % is above the goal.
#[test]
fn the_hourly_job_writes_the_line_from_90_percent_on() {
    let Some(output) = inside(
        r#"
cd /run && truncate -s 200M image && mkfs.ext4 -q -m 0 image && mkdir disk && mount -o loop image disk
mkdir -p disk/var/lib disk/run disk/var/log
# Where the log has room: what is looked at is whether the line is meant.
mount -t tmpfs none disk/var/log
check() { /usr/local/bin/nagi guard check --root /run/disk --alert-log /var/log/disk-alert.log; }
log=disk/var/log/disk-alert.log
for percent in 80 89 91 93 99 100; do
  rm -f disk/fill $log
  read total free available <<< "$(stat -f -c '%b %f %a' disk)"
  used=$((total - free))
  size=$(stat -f -c %S disk)
  if test $percent = 100; then
    head -c 300M /dev/zero > disk/fill 2> /dev/null || true
  else
    # A little less: df rounds up, and the file itself takes a block or two.
    fallocate -l $(( ((used + available) * percent / 100 - used - total / 500) * size )) disk/fill
  fi
  code=0; check > /run/said 2>&1 || code=$?
  lines=0; test ! -e $log || lines=$(grep -c '^ALERT: Disk over 90% at [A-Z].* UTC 20[0-9][0-9]$' $log)
  echo "at $percent code $code lines $lines $(grep -o '[0-9]*% is above the 85% goal' /run/said || true)"
done
"#,
    ) else {
        return;
    };
    let said = done(&output);
    let row = |percent: u32| {
        let begins = format!("at {percent} ");
        let found = said.lines().find(|line| line.starts_with(&begins));
        found.unwrap_or_default().to_owned()
    };
    assert!(row(80).starts_with("at 80 code 0 lines 0"), "{said}");
    assert!(row(89).starts_with("at 89 code 12 lines 0"), "{said}");
    for percent in [91, 93, 99] {
        assert!(row(percent).contains(" lines 1"), "{said}");
    }
    assert!(row(93).ends_with("93% is above the 85% goal"), "{said}");
    assert!(row(100).contains("100% is above the 85% goal"), "{said}");
}
