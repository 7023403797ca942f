//! Whose an address is.

use super::*;

#[test]
fn a_workload_is_at_its_listener_and_where_its_application_is() {
    let mut state = mesh(&[
        &service(
            "shop/cart",
            "[{name: web, port: 80, targetPort: web, appProtocol: http}]",
        ),
        &service("shop/db", "[{port: 5432, targetPort: 5433, appProtocol: tcp}]"),
    ]);
    add(
        &mut state,
        "cart-2",
        "shop",
        &[("app", "cart")],
        &[("web", 8080), ("admin", 9000)],
    );
    add(&mut state, "db-1", "shop", &[("app", "db")], &[("", 5433)]);
    add(&mut state, "only-calls", "shop", &[("app", "cart")], &[]);
    let mut place = |name: &str, inbound: &str, apps: &[&str]| {
        let workload = state.workloads.get_mut(&id(name)).expect("added");
        workload.inbound = Some(inbound.parse().expect("an address"));
        for (port, app) in workload.app_ports.iter_mut().zip(apps) {
            port.address = app.parse().expect("an address");
        }
    };
    place("cart-2", "10.0.0.2:15008", &["127.0.0.1:8080", "127.0.0.1:9000"]);
    place("db-1", "10.0.0.3:15008", &["10.9.9.9:5433"]);
    place("only-calls", "10.0.0.4:15008", &[]);
    let owner_of = |address: &str| {
        let owner = owner(&state, address.parse().expect("an address"))?;
        Some(format!(
            "{} {} {:?}",
            owner.workload, owner.target, owner.protocol
        ))
    };
    let cart = Some("cart-2 shop/cart:80 Http".to_owned());
    let db = Some("db-1 shop/db:5432 Tcp".to_owned());
    assert_eq!(owner_of("10.0.0.2:8080"), cart);
    assert_eq!(owner_of("10.0.0.2:15008"), cart);
    assert_eq!(owner_of("10.0.0.3:5433"), db);
    assert_eq!(owner_of("10.9.9.9:5433"), db);
    for nobody in [
        // A port of the Service is none of the workload's.
        "10.0.0.2:80",
        // No Service leads there.
        "10.0.0.2:9000",
        "10.0.0.4:15008",
        // Loopback is every machine's own.
        "127.0.0.1:8080",
        "10.0.0.5:8080",
    ] {
        assert_eq!(owner_of(nobody), None, "{nobody}");
    }
}

#[test]
fn of_workloads_that_share_an_address_the_lowest_id_counts_and_listeners_come_first() {
    let mut state = mesh(&[&service("shop/cart", "[{port: 80}]")]);
    for name in ["cart-1", "cart-2", "cart-3"] {
        add(&mut state, name, "shop", &[("app", "cart")], &[("", 8080)]);
        let workload = state.workloads.get_mut(&id(name)).expect("added");
        workload.inbound = Some("10.0.0.1:15008".parse().expect("an address"));
        workload.ready = false;
    }
    let of = |state: &MeshState, address: &str| {
        let owner = owner(state, address.parse().expect("an address")).expect("an owner");
        owner.workload.to_string()
    };
    assert_eq!(of(&state, "10.0.0.1:8080"), "cart-1");
    let third = state.workloads.get_mut(&id("cart-3")).expect("added");
    third.inbound = Some("10.0.0.1:8080".parse().expect("an address"));
    assert_eq!(of(&state, "10.0.0.1:8080"), "cart-3");
}
