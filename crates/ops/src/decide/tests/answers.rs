//! What an API server, or a tunnel in its place, says to one client.

use super::*;

// K-40, B-019, B-020
#[test]
fn a_wrong_name_is_mended_in_one_command_with_the_name_of_the_node() {
    let diagnosis = judged(&reach(Reach::TlsName));
    let cause = diagnosis.cause().unwrap();
    assert_eq!(
        cause.next,
        "nagi recover kubeconfig --kubeconfig /etc/kubernetes/admin.conf --cluster kubernetes --tls-server-name ip-172-31-37-254"
    );
    assert!(cause.evidence[0].contains("kubernetes, ip-172-31-37-254, 10.96.0.1, not 127.0.0.1"));
}

// B-004: what ssh says of a tunnel counts where the API server says nothing, and not where it answers.
#[test]
fn what_a_tunnel_said_counts_where_nobody_answers() {
    let causes = |answer: Reach| {
        let mut observed = reach(answer);
        log(
            &mut observed,
            line("tunnel.log", LineClass::TunnelRefused, None),
        );
        let findings = judged(&observed).findings;
        findings.iter().map(|one| one.cause).collect::<Vec<_>>()
    };
    assert_eq!(
        causes(Reach::Refused),
        [Cause::TunnelRefused, Cause::Refused]
    );
    assert_eq!(causes(Reach::Closed), [Cause::TunnelRefused]);
    assert_eq!(causes(Reach::Unauthorized), [Cause::Unauthorized]);
    assert_eq!(causes(Reach::Ready), []);
}

// D-08: a kubeconfig that was copied keeps the certificate that it was copied with.
#[test]
fn credentials_that_ended_are_why_an_api_server_says_401() {
    let mut observed = reach(Reach::Unauthorized);
    let causes = |observed: &Observed| {
        let findings = judged(observed).findings;
        findings.iter().map(|one| one.cause).collect::<Vec<_>>()
    };
    assert_eq!(causes(&observed), [Cause::Unauthorized]);
    let ended = certificate("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    observed.endpoint.as_mut().unwrap().client = Some(ended);
    assert_eq!(
        causes(&observed),
        [Cause::CertificateExpired, Cause::Unauthorized]
    );
}
