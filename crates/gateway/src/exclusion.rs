//! Who may not wake: traffic of machines that look whether something is there (DESIGN §6).
//!
//! A probe that wakes a workload keeps it awake for ever, and one that counts as use keeps it from ever being idle.
//! Such requests are forwarded uncounted while the workload serves and get a plain answer while it does not.

use http::HeaderMap;
use http::header::USER_AGENT;

/// One rule: requests whose `User-Agent` begins with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Beginning of the `User-Agent`, compared without regard to case.
    pub user_agent: std::borrow::Cow<'static, str>,
}

const fn agent(user_agent: &'static str) -> Exclusion {
    Exclusion {
        user_agent: std::borrow::Cow::Borrowed(user_agent),
    }
}

impl Exclusion {
    /// What is excluded unless configured otherwise. Each is a machine that asks at a fixed pace and wants to know
    /// the state as it is, not to change it. Crawlers are not among them: their owners may want them served.
    pub const DEFAULTS: &'static [Self] = &[
        // Liveness, readiness and startup probes of kubelet.
        agent("kube-probe/"),
        // Scrapers of metrics.
        agent("Prometheus/"),
        agent("vm_promscrape"),
        agent("OpenTelemetry Collector"),
        // Blackbox exporter: an availability check of a sleeping service must see that it sleeps.
        agent("Blackbox Exporter/"),
        // Health checks of cloud load balancers: Google, AWS (classic, v2), Azure.
        agent("GoogleHC/"),
        agent("ELB-HealthChecker/"),
        agent("Load Balancer Agent"),
        agent("Edge Health Probe"),
        agent("AlwaysOn"),
        // Uptime services.
        agent("UptimeRobot/"),
        agent("Pingdom.com_bot"),
        agent("Better Uptime Bot"),
        // Envoy's own health checker.
        agent("Envoy/HC"),
        // A gateway in front of a gateway.
        agent(crate::names::PROBE_USER_AGENT),
    ];
}

/// True when a rule takes this request out.
pub(crate) fn excludes(rules: &[Exclusion], headers: &HeaderMap) -> bool {
    let Some(agent) = headers.get(USER_AGENT) else {
        return false;
    };
    let agent = agent.as_bytes();
    rules.iter().any(|rule| {
        let wanted = rule.user_agent.as_bytes();
        agent
            .get(..wanted.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(agent: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, http::HeaderValue::from_static(agent));
        headers
    }

    #[test]
    fn probes_are_excluded_and_people_are_not() {
        let excluded = |agent| excludes(Exclusion::DEFAULTS, &headers(agent));
        for probe in [
            "kube-probe/1.36",
            "KUBE-PROBE/1.36",
            "Prometheus/3.5.0",
            "GoogleHC/1.0",
            "ELB-HealthChecker/2.0",
        ] {
            assert!(excluded(probe), "{probe}");
        }
        for person in [
            "curl/8.5.0",
            "Mozilla/5.0 kube-probe/1.36",
            "kube-prob",
            "",
            "python-requests/2",
        ] {
            assert!(!excluded(person), "{person}");
        }
        assert!(!excludes(Exclusion::DEFAULTS, &HeaderMap::new()));
    }
}
