//! The identity room, judged against a control plane that does what the test says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::Authority;
use tonic::Status;

use super::exchange::Grant;
use super::fake::{FakeControlPlane, identity, soon, token, workload};
use super::file::{self, IdentityFile};
use super::{Backoff, Dice, IdentityError, IdentityKeeper, IdentitySettings};

fn settings(fake: &FakeControlPlane) -> IdentitySettings {
    let mut settings = IdentitySettings::new(fake.address.clone(), workload().namespace);
    settings.token = Some(fake.token());
    settings.backoff = Backoff {
        first: Duration::from_millis(1),
        most: Duration::from_millis(5),
    };
    settings.min_renewal_interval = Duration::from_millis(1);
    settings.dice = Dice::fixed(0.5);
    settings
}

async fn obtain(settings: &IdentitySettings) -> Result<IdentityKeeper, IdentityError> {
    soon(IdentityKeeper::obtain(settings.clone())).await
}

async fn refused(settings: &IdentitySettings) -> IdentityError {
    match obtain(settings).await {
        Ok(_) => panic!("an identity was obtained"),
        Err(error) => error,
    }
}

fn other_authority() -> Authority {
    Authority::generate(&workload().trust_domain, SystemTime::now()).expect("made")
}

#[tokio::test]
async fn a_token_brings_an_identity_that_a_restart_finds_again() {
    let fake = FakeControlPlane::start().await;
    let folder = tempfile::tempdir().expect("made");
    let data = folder.path().join("sidecar");
    let mut settings = settings(&fake);
    settings.data = Some(data.clone());
    let keeper = obtain(&settings).await.expect("joined");
    assert_eq!(*keeper.spiffe_id(), workload());
    assert_eq!(keeper.mesh_domain().as_str(), "mesh.test");
    assert_eq!(fake.calls.borrow().tokens, [fake.token().secret_text()]);

    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("identity.pem")), 0o600);
    assert_eq!(fs::read_dir(&data).expect("readable").count(), 1);

    drop(fake);
    settings.token = None;
    let again = obtain(&settings).await.expect("kept");
    assert_eq!(again.mesh_domain().as_str(), "mesh.test");
    let chain = |keeper: &IdentityKeeper| keeper.cell().current().expect("set").identity.chain().to_vec();
    assert_eq!(chain(&again), chain(&keeper));
}

#[tokio::test]
async fn a_control_plane_of_another_authority_never_sees_the_token() {
    let fake = FakeControlPlane::start().await;
    let mut settings = settings(&fake);
    settings.token = Some(token([7; 32], other_authority().root_hash()));
    assert!(matches!(
        refused(&settings).await,
        IdentityError::Untrusted { .. }
    ));
    assert!(fake.calls.borrow().tokens.is_empty());
}

#[tokio::test]
async fn a_refused_token_ends_the_attempts_and_says_why() {
    let fake = FakeControlPlane::start().await;
    fake.answer(|answers| {
        answers
            .failures
            .push(Status::permission_denied("the token is used up"))
    });
    let error = refused(&settings(&fake)).await;
    assert!(
        matches!(&error, IdentityError::Join(why) if why.contains("the token is used up")),
        "{error}"
    );
}

#[tokio::test]
async fn a_control_plane_that_cannot_answer_is_asked_again_with_the_same_key() {
    let fake = FakeControlPlane::start().await;
    fake.answer(|answers| answers.failures = vec![Status::unavailable("starting"); 3]);
    obtain(&settings(&fake)).await.expect("joined in the end");
    let calls = fake.calls.borrow().clone();
    assert_eq!(calls.requests.len(), 4);
    assert!(calls.requests.iter().all(|csr| *csr == calls.requests[0]));
}

#[tokio::test]
async fn an_answer_under_another_root_is_refused() {
    let fake = FakeControlPlane::start().await;
    fake.answer(|answers| answers.issuer = Arc::new(other_authority()));
    assert!(matches!(
        refused(&settings(&fake)).await,
        IdentityError::RootMissing
    ));
}

#[tokio::test]
async fn a_token_of_another_workload_is_refused() {
    let fake = FakeControlPlane::start().await;
    let mut wanted = settings(&fake);
    wanted.namespace = "warehouse".parse().expect("valid");
    assert!(matches!(
        refused(&wanted).await,
        IdentityError::WrongIdentity { .. }
    ));
    let mut wanted = settings(&fake);
    wanted.service_account = Some("cart".parse().expect("valid"));
    assert!(matches!(
        refused(&wanted).await,
        IdentityError::WrongIdentity { .. }
    ));
}

#[tokio::test]
async fn an_expired_identity_is_replaced_where_there_is_a_token() {
    let fake = FakeControlPlane::start().await;
    let folder = tempfile::tempdir().expect("made");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    keep(folder.path(), &fake.authority, long_ago);
    let mut settings = settings(&fake);
    settings.data = Some(folder.path().to_owned());
    settings.token = None;
    assert!(matches!(refused(&settings).await, IdentityError::Kept(_)));
    settings.token = Some(fake.token());
    let keeper = obtain(&settings).await.expect("joined again");
    assert!(keeper.status().borrow().not_after > SystemTime::now());
    assert_eq!(fake.calls.borrow().tokens.len(), 1);
}

#[tokio::test]
async fn a_kept_identity_outlives_the_root_that_an_old_token_names() {
    let fake = FakeControlPlane::start().await;
    let folder = tempfile::tempdir().expect("made");
    keep(folder.path(), &fake.authority, SystemTime::now());
    let mut settings = settings(&fake);
    settings.data = Some(folder.path().to_owned());
    settings.token = Some(token([7; 32], other_authority().root_hash()));
    obtain(&settings).await.expect("the kept one");
    assert!(fake.calls.borrow().tokens.is_empty());
}

#[tokio::test]
async fn a_damaged_identity_file_is_named() {
    let fake = FakeControlPlane::start().await;
    let folder = tempfile::tempdir().expect("made");
    keep(folder.path(), &fake.authority, SystemTime::now());
    let path = folder.path().join("identity.pem");
    let text = fs::read_to_string(&path).expect("readable");
    let mut settings = settings(&fake);
    (settings.data, settings.token) = (Some(folder.path().to_owned()), None);
    for damaged in [
        "",
        "x",
        &text[..text.len() / 2],
        &text.replace("mesh domain: ", "mesh domain: -"),
    ] {
        fs::write(&path, damaged).expect("written");
        assert!(
            refused(&settings).await.to_string().contains("identity.pem"),
            "{damaged}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_when_half_of_it_is_over_however_often_that_fails() {
    let fake = FakeControlPlane::start().await;
    let folder = tempfile::tempdir().expect("made");
    let mut settings = settings(&fake);
    settings.data = Some(folder.path().to_owned());
    fake.answer(|answers| answers.issued_ago = Duration::from_secs(3000));
    let keeper = obtain(&settings).await.expect("joined");
    let (cell, mut status) = (keeper.cell(), keeper.status());
    let first = cell.current().expect("set");
    fake.answer(|answers| {
        answers.issued_ago = Duration::ZERO;
        answers.failures = vec![Status::internal("a bad day\nforged log line"); 3];
    });
    let running = tokio::spawn(keeper.run());

    let failed = soon(status.wait_for(|status| status.last_error.is_some()))
        .await
        .expect("runs")
        .clone();
    let why = failed.last_error.expect("checked").why;
    assert!(why.contains("a bad day") && !why.contains('\n'), "{why}");
    let renewed = soon(status.wait_for(|status| status.renewals == 1))
        .await
        .expect("runs")
        .clone();
    assert!(renewed.last_error.is_none());
    assert!(renewed.renew_at > SystemTime::now() + Duration::from_secs(1500));
    assert!(fake.calls.borrow().renewals >= 4);
    let now = cell.current().expect("set");
    assert_ne!(now.identity.chain(), first.identity.chain());

    running.abort();
    settings.token = None;
    let kept = obtain(&settings).await.expect("kept");
    assert_eq!(
        kept.cell().current().expect("set").identity.chain(),
        now.identity.chain()
    );
}

#[tokio::test]
async fn a_renewal_for_somebody_else_is_not_used() {
    let fake = FakeControlPlane::start().await;
    fake.answer(|answers| answers.issued_ago = Duration::from_secs(3000));
    let keeper = obtain(&settings(&fake)).await.expect("joined");
    let (cell, mut status) = (keeper.cell(), keeper.status());
    fake.answer(|answers| answers.id.service_account = "cart".parse().expect("valid"));
    let running = tokio::spawn(keeper.run());
    let failed = soon(status.wait_for(|status| status.last_error.is_some()))
        .await
        .expect("runs")
        .clone();
    assert!(failed.last_error.expect("checked").why.contains("/sa/cart"));
    assert_eq!(*cell.current().expect("set").identity.id(), workload());
    running.abort();
}

#[tokio::test]
async fn without_token_and_folder_there_is_no_identity() {
    let fake = FakeControlPlane::start().await;
    let mut settings = settings(&fake);
    settings.token = None;
    assert!(matches!(refused(&settings).await, IdentityError::NoToken));
}

fn keep(folder: &Path, authority: &Authority, issued: SystemTime) {
    let grant = Grant {
        identity: identity(authority, &workload(), issued),
        bundle: authority.bundle(),
        mesh_domain: "mesh.test".parse().expect("valid"),
    };
    IdentityFile::in_folder(folder)
        .save(&file::to_text(&grant))
        .expect("saved");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}
