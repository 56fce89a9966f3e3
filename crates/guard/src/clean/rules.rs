//! The names that each kind knows. Pure: a name that no rule knows is nobody's to remove.

/// What apt leaves in `archives` and `archives/partial`: `name_version_architecture.deb`.
pub(super) fn is_package(name: &[u8]) -> bool {
    let Some(stem) = name.strip_suffix(b".deb") else {
        return false;
    };
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.~%_:".contains(byte);
    let parts: Vec<&[u8]> = stem.split(|byte| *byte == b'_').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty()) && stem.iter().all(is_known)
}

/// What apt makes from its lists, in `/var/cache/apt` itself.
pub(super) fn is_apt_cache(name: &[u8]) -> bool {
    matches!(name, b"pkgcache.bin" | b"srcpkgcache.bin")
}

/// Kubelet's directory of one pod: `namespace_name_uid`.
pub(super) fn is_pod(name: &[u8]) -> bool {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'_').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
}

/// The log that a rotated one was renamed from: `0.log` of `0.log.20260102-030405`.
pub(super) fn current_log(rotated: &[u8]) -> Option<&[u8]> {
    let ending = b".log.";
    let at = rotated
        .windows(ending.len())
        .position(|part| part == ending)?;
    rotated.get(..at + ending.len() - 1)
}

/// `core.COMMAND.UID.BOOT.PID.TIME`, packed or not, as systemd-coredump names it. A command may have points in it.
pub(super) fn is_core(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"core.") else {
        return false;
    };
    let packed = [&b".zst"[..], b".lz4", b".xz"];
    let bare = packed.iter().find_map(|ending| rest.strip_suffix(*ending));
    let mut parts = bare.unwrap_or(rest).rsplit(|byte| *byte == b'.');
    let mut next = |fits: &dyn Fn(&[u8]) -> bool| parts.next().is_some_and(fits);
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let is_boot = |part: &[u8]| part.len() == 32 && part.iter().all(u8::is_ascii_hexdigit);
    next(&is_number) && next(&is_number) && next(&is_boot) && next(&is_number) && next(&|_| true)
}

/// `_usr_bin_program.1000.crash`, as apport names it.
pub(super) fn is_crash(name: &[u8]) -> bool {
    let Some(stem) = name.strip_suffix(b".crash") else {
        return false;
    };
    let Some(at) = stem.iter().rposition(|byte| *byte == b'.') else {
        return false;
    };
    let (program, user) = stem.split_at(at);
    let user = user.strip_prefix(b".").unwrap_or_default();
    program.starts_with(b"_") && !user.is_empty() && user.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule, names that it knows, and names that it does not.
    type Row<'a> = (&'a dyn Fn(&[u8]) -> bool, &'a [&'a str], &'a [&'a str]);

    // D-15: each kind knows its own names and no others.
    #[test]
    fn names_that_no_rule_knows_stay() {
        let boot = "0123456789abcdef".repeat(2);
        let core = format!("core.my.prog.0.{boot}.12.1700000000000000");
        let rows: [Row<'_>; 4] = [
            (
                &is_package,
                &["a_1%3a2.0-1+b1~deb12u1_amd64.deb"],
                &[
                    "mine.deb",
                    "a_1.deb",
                    "a_1_amd64.deb.bak",
                    "__.deb",
                    "a_1_b_c.deb",
                    "a b_1_all.deb",
                ],
            ),
            (
                &is_apt_cache,
                &["pkgcache.bin", "srcpkgcache.bin"],
                &["pkgcache.bin.mine", "x.bin"],
            ),
            (
                &is_core,
                &[&core, &format!("{core}.zst"), &format!("{core}.lz4")],
                &[
                    "core",
                    "core.1",
                    "core.conf.d.bak",
                    &format!("{core}.txt"),
                    &format!("x{core}"),
                    "core.a.0",
                ],
            ),
            (
                &is_crash,
                &["_usr_bin_x.1000.crash"],
                &["x.1000.crash", "_x.crash", "_x.a.crash", "_x.1000.upload"],
            ),
        ];
        for (rule, known, unknown) in rows {
            for name in known {
                assert!(rule(name.as_bytes()), "{name}");
            }
            for name in unknown {
                assert!(!rule(name.as_bytes()), "{name}");
            }
        }
        assert!(is_pod(b"kube-system_etcd-a_0123"));
        assert!(!is_pod(b"notes") && !is_pod(b"a__b") && !is_pod(b"a_b_c_d"));
        assert!(!is_package(b"\xff_1_all.deb"));
        assert_eq!(
            current_log(b"12.log.20260102-030405.gz"),
            Some(&b"12.log"[..])
        );
        assert_eq!(current_log(b"12.log"), None);
    }
}
