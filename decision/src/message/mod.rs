//! What arrives on a socket: is it one unambiguous message, and whom is it for?
