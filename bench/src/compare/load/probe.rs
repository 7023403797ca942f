//! One request, to find out whether anybody answers.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::compare::peers::Door;

/// For the whole answer's head.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status of the answer to one GET.
pub(crate) fn get(door: &Door, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&door.address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        door.host
    );
    stream.write_all(request.as_bytes())?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.get(9..)?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
