//! Files with one mistake each: what is said, and where.

use std::path::Path;

use crate::file::WorkloadFile;

/// A file, place and field of its first problem, a part of what is said.
type Mistake = (&'static str, (u64, u64), &'static str, &'static str);

// Issue 3: the author of a file reads what to mend, and where, and nothing about our libraries.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes_of_form_are_told_with_their_place_in_words_of_the_author() {
    let rows: &[Mistake] = &[
        (
            "workloads: [",
            (1, 12),
            "workloads",
            "a `[` without its `]`",
        ),
        (
            "workloads: [{name: a",
            (1, 13),
            "workloads",
            "a `{` without its `}`",
        ),
        (
            "workloads: [}",
            (1, 12),
            "workloads",
            "`[` is closed by `}`",
        ),
        (
            "workloads: ]",
            (1, 12),
            ".",
            "a closing bracket without its opening one",
        ),
        ("just text", (1, 1), ".", "must be a mapping"),
        ("pools: []\n", (1, 1), ".", "needs a field `workloads`"),
        (
            "pools: [1]\nworkloads: []",
            (1, 9),
            "pools[0]",
            "must be a mapping",
        ),
        ("workloads: {a: b}", (1, 12), "workloads", "must be a list"),
        (
            "workloads: []\nworkloads: []\n",
            (2, 1),
            ".",
            "the key workloads stands twice",
        ),
        (
            "workloads: []\n---\nworkloads: []\n",
            (3, 1),
            ".",
            "a second document",
        ),
        ("%FOO bar\nworkloads: []\n", (2, 1), ".", "a directive"),
        ("workloads:\n\t- x", (2, 2), ".", "a tab"),
        (
            "workloads:\n- a\n",
            (2, 3),
            "workloads[0]",
            "must be a mapping",
        ),
        (
            "workloads:\n- namespace: a\n   name: b\n",
            (3, 8),
            "workloads[0]",
            "a `:` where none may stand",
        ),
        (
            "workloads:\n- namespace: a\n  name\n  port: 1\n",
            (3, 3),
            "workloads[0]",
            "a `:` must follow the key",
        ),
        (
            "workloads:\n- namespace: a: b\n",
            (2, 15),
            "workloads[0]",
            "must be in quotes",
        ),
        (
            "workloads:\n- namespace: 'a\n",
            (3, 1),
            "workloads[0]",
            "not closed",
        ),
        (
            "workloads:\n- namespace: \"a\\q\"\n",
            (2, 14),
            "workloads[0]",
            "an escape",
        ),
        (
            "workloads:\n- namespace: 'a' b\n",
            (2, 18),
            "workloads[0]",
            "behind the closing quote",
        ),
        (
            "workloads:\n- namespace: @a\n",
            (2, 14),
            "workloads[0]",
            "must not begin with '@'",
        ),
        (
            "workloads:\n- namespace: *a\n",
            (2, 14),
            "workloads[0]",
            "must be in quotes",
        ),
        (
            "workloads:\n- namespace: !!int a\n",
            (2, 20),
            "workloads[0].namespace",
            "`!` begins a tag",
        ),
        (
            "workloads:\n- name: 'b'#c\n",
            (2, 12),
            "workloads[0]",
            "a `#` begins a comment only after",
        ),
        (
            "workloads:\n- command: - x\n",
            (2, 12),
            "workloads[0]",
            "does not belong here",
        ),
        ("workloads: >1x\n  a\n", (1, 12), ".", "behind `>` or `|`"),
        (
            "workloads: [{name: a port: 1}]\n",
            (1, 26),
            "workloads[0]",
            "a `,` or `}` must follow",
        ),
        (
            "workloads: &a [*a]\n",
            (1, 16),
            "workloads",
            "a name that is known",
        ),
        (
            "workloads: []\n\u{feff}a: b\n",
            (2, 1),
            ".",
            "a byte order mark",
        ),
        (
            "workloads:\n- {name: b, <<: 1}\n",
            (2, 17),
            "workloads[0]",
            "`<<` takes a mapping",
        ),
        (
            "workloads:\n- {namespace: a, name: b}\n",
            (2, 18),
            "workloads[0]",
            "needs a field `command`",
        ),
        (
            "workloads:\n- {name: [b]}\n",
            (2, 10),
            "workloads[0].name",
            "must be a single value",
        ),
        (
            "workloads:\n- {nmae: b}\n",
            (2, 4),
            "workloads[0].nmae",
            "unknown field; allowed: namespace, name",
        ),
        (
            "workloads:\n- {readiness: tcp}\n",
            (2, 18),
            "workloads[0].readiness.tcp",
            "must be `{tcp: {}}` or",
        ),
        (
            "workloads:\n- {readiness: udp}\n",
            (2, 15),
            "workloads[0].readiness",
            "must be `{tcp: {}}` or",
        ),
        (
            "workloads:\n- {readiness: []}\n",
            (2, 15),
            "workloads[0].readiness",
            "must be `{tcp: {}}` or",
        ),
        (
            "workloads:\n- {readiness: {http: /x}}\n",
            (2, 22),
            "workloads[0].readiness.http",
            "must be `{tcp: {}}` or",
        ),
        (
            "workloads:\n- {readiness: {http: {}}}\n",
            (2, 22),
            "workloads[0].readiness.http",
            "needs a field `path`",
        ),
        (
            "workloads:\n- {env: [a]}\n",
            (2, 9),
            "workloads[0].env",
            "must be a mapping",
        ),
        (
            "workloads:\n- {env: {A: }}\n",
            (2, 11),
            "workloads[0].env.A",
            "must not be empty",
        ),
        (
            "workloads:\n- {env: {A: b, A: c}}\n",
            (2, 16),
            "workloads[0].env",
            "the key A stands twice",
        ),
        (
            "workloads:\n- {resources: {cpus: 1}}\n",
            (2, 16),
            "workloads[0].resources.cpus",
            "allowed: cpu, memory, gpu",
        ),
    ];
    let theirs = [
        "expected",
        "invalid",
        "EOF",
        "eof",
        "pars",
        "struct",
        "scalar",
        "sequence",
        "token",
        "variant",
        "deserial",
        "node",
        "simple key",
    ];
    for (text, place, field, part) in rows {
        let found = &WorkloadFile::parse(text.as_bytes(), Path::new("/srv")).unwrap_err()[0];
        assert!(
            (found.line, found.column) == *place
                && found.field == *field
                && found.message.contains(part),
            "{text:?}: {found}, and not {place:?} {field}: {part}"
        );
        assert!(
            theirs.iter().all(|word| !found.message.contains(word)),
            "{text:?}: {found}"
        );
    }
}
