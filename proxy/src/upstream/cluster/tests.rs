//! Who is in a cluster, and by which way it is reached.

use std::collections::BTreeMap;

use model::{AppProtocol, Endpoint};

use super::*;

fn cluster() -> Rc<Cluster> {
    let target: model::ServicePort = "shop/pay:80".parse().unwrap();
    let around = Surroundings {
        domain: MeshDomain::default(),
        identity: IdentityCell::default(),
        limits: Arc::default(),
        labels: Labels::default(),
        joints: Arc::default(),
        shown: Arc::default(),
    };
    Cluster::new(&(target, None), Rc::new(around))
}

fn set(endpoints: Endpoints) -> Arc<EndpointSet> {
    let service = "shop/pay".parse().unwrap();
    let policies = BTreeMap::new();
    Arc::new(EndpointSet {
        service,
        endpoints,
        policies,
        faults: BTreeMap::new(),
        shadow: BTreeMap::new(),
    })
}

fn workload(address: SocketAddr) -> Endpoints {
    Endpoints::Mesh(vec![Arc::new(Endpoint {
        workload: "pay-1".parse().unwrap(),
        address,
        identity: "spiffe://cluster.local/ns/shop/sa/pay".parse().unwrap(),
        labels: model::Labels::default(),
    })])
}

fn outside(ports: &[(u16, SocketAddr)]) -> Endpoints {
    let port = |(number, address): &(u16, SocketAddr)| {
        let addresses = [*address].into();
        let protocol = AppProtocol::Http;
        let tls = None;
        (
            *number,
            OutsidePort {
                protocol,
                addresses,
                tls,
            },
        )
    };
    Endpoints::Outside(ports.iter().map(port).collect::<BTreeMap<_, _>>())
}

fn pick(cluster: &Cluster, set: &Arc<EndpointSet>) -> Option<Rc<Member>> {
    let picked = cluster.pick(&Wanted {
        set,
        policy: None,
        tried: &[],
        session: None,
        key: None,
        dice: 0,
        now: Instant::now(),
    });
    picked.map(|picked| picked.member.clone())
}

#[test]
fn a_workload_is_reached_by_mtls_even_where_a_plain_connection_to_its_address_is_known() {
    let (cluster, address) = (cluster(), SocketAddr::from(([10, 0, 0, 1], 15008)));
    let plain = pick(&cluster, &set(outside(&[(80, address)]))).unwrap();
    assert!(!plain.upstream.route.is_mtls());
    let mesh = pick(&cluster, &set(workload(address))).unwrap();
    assert!(mesh.upstream.route.is_mtls() && !Rc::ptr_eq(&plain.upstream, &mesh.upstream));
    let plain = pick(&cluster, &set(outside(&[(80, address)]))).unwrap();
    assert!(!plain.upstream.route.is_mtls());
}

#[test]
fn an_address_serves_only_the_port_it_is_listed_for_and_stays_itself() {
    let (cluster, here) = (cluster(), SocketAddr::from(([10, 0, 0, 1], 8080)));
    let other = SocketAddr::from(([10, 0, 0, 1], 9090));
    let first = pick(&cluster, &set(outside(&[(80, here), (81, other)]))).unwrap();
    assert_eq!(first.place.address(), here);
    let again = pick(&cluster, &set(outside(&[(80, here)]))).unwrap();
    assert!(
        Rc::ptr_eq(&first, &again),
        "its load and its connections are kept"
    );
    assert!(pick(&cluster, &set(outside(&[(81, other)]))).is_none());
}
