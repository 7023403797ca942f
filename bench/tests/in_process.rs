//! Every run of `instructions` and of the hot paths' bench serves what it counts.

use bench::in_process::{Client, RunError, Scenario};
use tokio::task::LocalSet;

#[tokio::test]
async fn every_scenario_answers_every_request_well_at_the_first_attempt() {
    for scenario in Scenario::ALL {
        let served = LocalSet::new().run_until(serve(scenario)).await;
        assert!(served.is_ok(), "{scenario:?}: {served:?}");
    }
}

async fn serve(scenario: Scenario) -> Result<(), RunError> {
    let mut client = Client::start(scenario).await?;
    client.rounds(20).await?;
    client.finish().await
}
