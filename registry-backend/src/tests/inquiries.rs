//! What the edge asks for itself.

use std::sync::Arc;

use super::{Reply, Rig};
use crate::storage::faulty::{Faults, Faulty};

impl Rig {
    async fn inquire(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}\nx-tidegate-inquiry: edge"), "")
            .await
    }
}

#[tokio::test]
async fn only_the_edge_can_ask_and_only_for_what_there_is() {
    let rig = Rig::new();
    for path in ["/readyz", "/metrics"] {
        assert_eq!(rig.get(path).await.status, 404, "{path}");
        assert_eq!(rig.inquire(path).await.status, 200, "{path}");
        let posted = rig
            .send(&format!("POST {path}\nx-tidegate-inquiry: edge"), "")
            .await;
        assert_eq!(posted.status, 404, "{path}");
    }
    assert_eq!(rig.inquire("/metrics/").await.status, 404);
    assert_eq!(rig.inquire("/v2/").await.status, 200);
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let rig = Rig::new();
    let digest = rig.push_blob("app", b"layer").await;
    assert_eq!(
        rig.get(&format!("/v2/app/blobs/{digest}")).await.status,
        200
    );
    assert_eq!(rig.get("/v2/app/manifests/none").await.status, 404);
    let page = rig.inquire("/metrics").await;
    let kind = page.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = String::from_utf8(page.body.clone()).unwrap();
    for sample in [
        "registry_requests_total{route=\"blob\",method=\"GET\",status=\"200\"} 1",
        "registry_requests_total{route=\"manifest\",method=\"GET\",status=\"404\"} 1",
        "registry_request_duration_seconds_count{route=\"blob\",method=\"GET\"} 1",
        "registry_blobs_written_total 1",
        "registry_storage_writable 1",
        "registry_uploads_open 0",
        "registry_work_waiting{kind=\"change\"} 0",
        "registry_requests_in_flight 0",
    ] {
        assert!(
            text.lines().any(|line| line == sample),
            "{sample} is not in\n{text}"
        );
    }
    let syncs = figure(&text, "registry_fsync_duration_seconds_count");
    assert!(syncs >= 2.0, "{syncs}");
    assert!(figure(&text, "registry_written_bytes_total") >= 5.0);
    assert!(figure(&text, "registry_storage_free_bytes") > 0.0);
    assert!(
        !text.contains("route=\"other\""),
        "its own questions do not count:\n{text}"
    );
}

fn figure(text: &str, name: &str) -> f64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_registry_that_cannot_write_or_is_stopping_is_not_ready_and_says_why() {
    let faults = Arc::new(Faults::default());
    let inner = Arc::clone(&faults);
    let rig = Rig::with_driver(|driver| Box::new(Faulty::new(driver, inner)));
    faults.set_full(true);
    rig.app.begin_to_drain();
    let reply = rig.inquire("/readyz").await;
    assert_eq!(reply.status, 503);
    let text = String::from_utf8(reply.body).unwrap();
    assert_eq!(
        text,
        "it is stopping\nthe storage cannot be written to: No space left on device (os error 28)\n"
    );
}
