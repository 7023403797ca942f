//! Fields off the wire, with their names in errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use model::FieldError;

/// Each port once.
pub(super) fn by_port<T>(read: Vec<(u16, T)>) -> Result<BTreeMap<u16, T>, FieldError> {
    let mut ports = BTreeMap::new();
    for (index, (number, port)) in read.into_iter().enumerate() {
        if ports.insert(number, port).is_some() {
            let again = FieldError::at("port", format!("{number} is there more than once"));
            return Err(again.within_item(index).within("ports"));
        }
    }
    Ok(ports)
}

pub(super) fn port_number(wire: u32) -> Result<u16, FieldError> {
    let number = u16::try_from(wire).ok().filter(|number| *number != 0);
    number.ok_or_else(|| FieldError::at("port", format!("{wire} is no port")))
}

/// Converts every item of a list; an error says which one.
pub(super) fn items<W, T>(
    field: &str,
    wire: &[W],
    convert: impl Fn(&W) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    let item = |(index, item)| convert(item).map_err(|error| error.within_item(index).within(field));
    wire.iter().enumerate().map(item).collect()
}

pub(super) fn parse<T: FromStr>(field: &str, text: &str) -> Result<T, FieldError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| FieldError::at(field, format!("{text:?}: {error}")))
}

/// An address that other machines can send to.
pub(super) fn address(field: &str, text: &str) -> Result<SocketAddr, FieldError> {
    let address = socket(field, text)?;
    if address.ip().is_unspecified() {
        let why = format!("{address} is not an address others can reach");
        return Err(FieldError::at(field, why));
    }
    Ok(address)
}

pub(super) fn socket(field: &str, text: &str) -> Result<SocketAddr, FieldError> {
    let address: SocketAddr = parse(field, text)?;
    if address.port() == 0 {
        return Err(FieldError::at(field, format!("{address} has no port")));
    }
    Ok(address)
}

/// Rounded up, since 0 is "no limit".
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
