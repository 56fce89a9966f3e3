//! Whether this process is the one that decides.

use std::sync::OnceLock;

use tokio::sync::watch;

/// Follows whether this process leads. Clones follow the same.
#[derive(Debug, Clone)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
}

impl Leadership {
    /// Follows what an engine says. Once its sender is gone, this process leads no more.
    pub fn new(leads: watch::Receiver<bool>) -> Self {
        Self { leads }
    }

    /// Of a process that is alone: it always leads.
    pub fn alone() -> Self {
        static ALONE: OnceLock<watch::Sender<bool>> = OnceLock::new();
        Self::new(ALONE.get_or_init(|| watch::Sender::new(true)).subscribe())
    }

    /// Waits until this process leads. Cancel-safe.
    pub async fn gained(&mut self) {
        if self.leads.wait_for(|leads| *leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it leads no more. Cancel-safe.
    pub async fn lost(&mut self) {
        // An error means that nobody says so any more.
        drop(self.leads.wait_for(|leads| !*leads).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn leading_begins_and_ends_as_the_engine_says() {
        let sender = watch::Sender::new(false);
        let mut leadership = Leadership::new(sender.subscribe());
        sender.send_replace(true);
        leadership.gained().await;
        sender.send_replace(false);
        leadership.lost().await;
        sender.send_replace(true);
        leadership.gained().await;
        drop(sender);
        leadership.lost().await;
        Leadership::alone().gained().await;
    }
}
